"""I2V-Adapter on the real server: frame 1 is the picture, off is off, other files are named, and the next graph gives the same bits."""
import shutil

import numpy as np
import pytest
import torch
from firstframe.demo.cli import outputs
from firstframe.demo.cli.server import PACK
from firstframe.tests import graphs
from firstframe.tests import i2v_adapter_files as files
from firstframe.tests import tiny_models as tiny
from PIL import Image, ImageOps
from safetensors.torch import save_file


def frames(host, graph) -> list[np.ndarray]:
    return [np.asarray(f) for f in outputs.read_webp(host.fetch(host.run(graph)["save"]["images"][0]), 8.0)[0]]


def same(a, b) -> bool:
    return len(a) == len(b) and all((x == y).all() for x, y in zip(a, b))


def with_adapters(host):
    """The server with random adapters in its folders."""
    folder = host.base / "models" / "i2v_adapter"
    folder.mkdir(parents=True, exist_ok=True)
    sd = files.i2v_adapter(tiny.model("demo"))
    save_file(sd, folder / "random.safetensors")
    torch.save({"state_dict": sd}, folder / "wrapped.pth")
    save_file(files.i2v_adapter(tiny.model("SDXL")), folder / "other.safetensors")
    (host.base / "models" / "model_patches").mkdir(exist_ok=True)
    save_file(sd, host.base / "models" / "model_patches" / "elsewhere.safetensors")
    shutil.copy(PACK / "demo" / "weights" / "animatediff_models" / graphs.MOTION, folder / "motion.safetensors")
    return host


@pytest.fixture(scope="module")
def server(host):
    return with_adapters(host)


@pytest.fixture(scope="module")
def picture(server):
    return server.upload_image(PACK / "demo" / "example.png")


def test_frame_one_is_the_picture_and_every_container_gives_the_same(server, picture):
    found = {name: frames(server, graphs.i2v_adapter(picture, name)) for name in ("random.safetensors", "wrapped.pth", "elsewhere.safetensors")}
    assert all(same(clip, found["random.safetensors"]) for clip in found.values())
    alone = graphs.pcfa(picture, 3)
    alone["decode"]["inputs"]["samples"] = ["encode", 0]
    assert (found["random.safetensors"][0] == frames(server, alone)[0]).all()


def test_strength_0_is_the_graph_without_it(server, picture):
    plain = graphs.motion(graphs.MOTION, 3)
    before = frames(server, plain)
    assert same(frames(server, graphs.i2v_adapter(picture, "random.safetensors", strength=0.0)), before)
    assert not same(frames(server, graphs.i2v_adapter(picture, "random.safetensors")), before) and same(frames(server, plain), before)


@pytest.mark.parametrize("name, says", [
    ("motion.safetensors", "expected an I2V-Adapter such as i2v_module.pth in 'motion.safetensors', found a motion module. Motion modules belong into models/animatediff_models"),
    ("other.safetensors", "does not fit this FirstFrameDemo model")])
def test_other_files_are_named(server, picture, name, says):
    before = frames(server, graphs.plain())
    assert says in server.run_expecting_error(graphs.i2v_adapter(picture, name))
    assert same(frames(server, graphs.plain()), before)


def test_what_cannot_be_sampled_is_refused_before_the_first_step(server, picture):
    alone = graphs.i2v_adapter(picture, "random.safetensors")
    alone["i2v"]["inputs"]["model"] = ["model", 0]
    assert "this MODEL has none. Put Apply Motion Module in front of Apply I2V-Adapter" in server.run_expecting_error(alone)
    small = graphs.i2v_adapter(picture, "random.safetensors")
    small["latent"]["inputs"]["width"] = 64
    assert "the first frame is [4, 16, 16], the clip that is sampled [4, 16, 8]" in server.run_expecting_error(small)
    several = graphs.i2v_adapter(picture, "random.safetensors")
    several["two"] = {"class_type": "RepeatLatentBatch", "inputs": {"samples": ["encode", 0], "amount": 2}}
    several["i2v"]["inputs"]["first_frame"] = ["two", 0]
    assert "got 2 first frames for 1 clip. Connect one picture, or one for each clip" in server.run_expecting_error(several)
    long = graphs.in_windows(graphs.i2v_adapter(picture, "random.safetensors", 20), 16, causal_window_fix=False)
    assert "knows 16 frames, one call would hold 17. Lower context_length in Context Windows" in server.run_expecting_error(long)


@pytest.mark.parametrize("windows", [{}, {"context_schedule": "standard_uniform", "context_stride": 2, "causal_window_fix": False}], ids=["default", "uniform"])
def test_64_frames_in_the_hosts_windows(server, windows):
    """Frame 1 is the picture, and with another picture every frame is another: all windows see it. The demo's module knows 16 frames, of which a window has 14."""
    one = Image.open(PACK / "demo" / "example.png").convert("RGB").resize((64, 64))
    clips = []
    for name, image in (("small.png", one), ("other.png", ImageOps.invert(one))):
        image.save(server.base / "input" / name)
        graph = graphs.in_windows(graphs.i2v_adapter(name, "random.safetensors", 64, steps=1), 14, **windows)
        graph["latent"]["inputs"] |= {"width": 64, "height": 64}
        clips.append(frames(server, graph))
        alone = graphs.pcfa(name, 3)
        alone["decode"]["inputs"]["samples"] = ["encode", 0]
        assert len(clips[-1]) == 64 and (clips[-1][0] == frames(server, alone)[0]).all()
    assert all((x != y).any() for x, y in zip(*clips))


def test_in_the_hosts_dynamic_mode_it_gives_the_same_bits(server, dynamic_host, picture):
    with_adapters(dynamic_host).upload_image(PACK / "demo" / "example.png")
    graph = graphs.i2v_adapter(picture, "random.safetensors")
    assert same(frames(dynamic_host, graph), frames(server, graph))
