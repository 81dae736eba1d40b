"""SparseCtrl on the real server: both kinds and every container, off is off, and the same bits in the host's dynamic mode."""
import pytest
import torch
from firstframe.demo.cli import outputs
from firstframe.tests import graphs
from firstframe.tests import sparse_files as files
from firstframe.tests import tiny_models as tiny
from PIL import Image
from safetensors.torch import save_file


def bits(host, graph) -> bytes:
    return b"".join(f.tobytes() for f in outputs.read_webp(host.fetch(host.run(graph)["save"]["images"][0]), 8.0)[0])


def filled(host):
    """The server with SparseCtrl models and a picture in its folders."""
    folder = host.base / "models" / "controlnet"
    folder.mkdir(parents=True, exist_ok=True)
    for kind in files.KINDS:
        sd = files.model(kind, tiny.SHAPES["demo"][1])
        save_file(sd, folder / f"{kind}.safetensors")
        torch.save({"controlnet": sd, "animatediff_config": {"some": "setting"}, "epoch": 3}, folder / f"{kind}.ckpt")
    save_file(files.as_diffusers(sd), folder / "diffusers.safetensors")
    Image.effect_noise((96, 128), 60).convert("RGB").save(host.base / "input" / "sparse.png")
    return host


@pytest.fixture(scope="module")
def server(host):
    return filled(host)


@pytest.mark.parametrize("kind", files.KINDS)
def test_every_container_gives_the_same_clip(server, kind):
    plain = bits(server, graphs.motion(graphs.MOTION, 3))
    clips = [bits(server, graphs.sparse_ctrl("sparse.png", f"{kind}.{end}")) for end in ("safetensors", "ckpt")]
    if kind == "scribble":
        clips.append(bits(server, graphs.sparse_ctrl("sparse.png", "diffusers.safetensors", vae=False)))
    assert len(set(clips)) == 1 and plain not in clips
    assert bits(server, graphs.sparse_ctrl("sparse.png", f"{kind}.ckpt", frame_numbers="0")) not in (plain, clips[0])
    for off in (dict(strength=0.0), dict(end_percent=0.0)):
        assert bits(server, graphs.sparse_ctrl("sparse.png", f"{kind}.ckpt", **off)) == plain


@pytest.mark.parametrize("graph,says", [
    (graphs.sparse_ctrl("sparse.png", "rgb.ckpt", vae=False), "Apply SparseCtrl needs the VAE for 'rgb.ckpt'"),
    (graphs.sparse_ctrl("sparse.png", "rgb.ckpt", frame_numbers="3"), "Apply SparseCtrl has a picture for frame 3, and the clip has 3 frames: 0 to 2"),
    (graphs.sparse_ctrl("sparse.png", graphs.CONTROLNET), "Load SparseCtrl expected a SparseCtrl model for SD1.5 (rgb or scribble)")])
def test_wrong_graphs_are_refused_and_the_next_one_runs(server, graph, says):
    before = bits(server, graphs.plain())
    assert says in server.run_expecting_error(graph)
    assert bits(server, graphs.plain()) == before


def test_the_same_bits_in_dynamic_mode(server, dynamic_host):
    filled(dynamic_host)
    (dynamic_host.base / "input" / "sparse.png").write_bytes((server.base / "input" / "sparse.png").read_bytes())
    graph = graphs.sparse_ctrl("sparse.png", "rgb.ckpt")
    assert bits(dynamic_host, graph) == bits(server, graph)
