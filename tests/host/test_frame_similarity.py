"""Frame Similarity Prior and Match Frame Colors on the real server: one start level for KSampler and SamplerCustom, off is the repeated picture."""
import re

import numpy as np
import pytest
import torch
from comfy.ldm.wan.model import WanModel
from firstframe.demo.cli import outputs
from firstframe.demo.cli.server import PACK
from firstframe.tests import graphs
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def picture(host):
    return host.upload_image(PACK / "demo" / "example.png")


def latents(host, graph: dict, node: str = "sample") -> torch.Tensor:
    """What comes out of that node of the graph."""
    graph = {k: v for k, v in graph.items() if k not in ("decode", "save")} | {"kept": {"class_type": "SaveLatent", "inputs": {"samples": [node, 0], "filename_prefix": "test"}}}
    saved = host.run(graph)["kept"]["latents"][0]
    return load_file(host.base / "output" / saved["subfolder"] / saved["filename"])["latent_tensor"]


def with_sigmas(graph: dict) -> dict:
    """SamplerCustom with the prior's sigmas in place of KSampler with its denoise; seed, cfg and sampler the same."""
    old = graph["sample"]["inputs"]
    graph["euler"] = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": old["sampler_name"]}}
    graph["sample"] = {"class_type": "SamplerCustom", "inputs": {
        "add_noise": True, "noise_seed": old["seed"], "sampler": ["euler", 0], "sigmas": ["prior", 1], **{k: old[k] for k in ("model", "positive", "negative", "cfg", "latent_image")}}}
    return graph


def test_ksampler_and_custom_sampler_start_at_the_same_level(host, picture):
    """Steps and t0 for which KSampler has exactly this level: 4 of 7 timesteps, evenly spaced with both ends."""
    ours = dict(scheduler="normal", steps=4, t0=0.5)
    first, second = latents(host, graphs.similar(picture, **ours)), latents(host, with_sigmas(graphs.similar(picture, **ours)))
    torch.testing.assert_close(second, first, atol=1e-4, rtol=1e-4)
    lower = latents(host, with_sigmas(graphs.similar(picture, **ours | {"t0": 0.45})))
    assert (lower - first).abs().max() > 0.01


def test_p_0_is_picture_to_frames(host, picture):
    off = graphs.similar(picture, p=0.0)
    repeated = graphs.similar(picture)
    repeated["frames"] = {"class_type": "FF_PictureToFrames", "inputs": {"samples": ["encode", 0], "frames": 3, "keep_first": True}}
    assert torch.equal(latents(host, off, "prior"), latents(host, repeated, "frames"))
    repeated["sample"]["inputs"]["latent_image"] = ["frames", 0]
    assert torch.equal(latents(host, off), latents(host, repeated))
    assert not torch.equal(latents(host, graphs.similar(picture)), latents(host, repeated))


def test_the_first_frame_is_kept_and_a_higher_t0_leaves_it_farther(host, picture):
    encoded = latents(host, graphs.similar(picture), "encode")
    away = []
    for t0 in (0.2, 0.9):
        clip = latents(host, with_sigmas(graphs.similar(picture, t0=t0)))
        torch.testing.assert_close(clip[:1], encoded, atol=1e-5, rtol=1e-5)
        away.append(float((clip[1:] - encoded).square().mean()))
    assert away[0] < away[1]


def test_a_video_latent(host):
    """Wan's: frames on the third axis, a flow model's levels. Its zeros stand for a picture's latent."""
    import comfy.ops
    wan = WanModel(model_type="t2v", dim=128, ffn_dim=64, num_heads=1, num_layers=1, in_dim=16, out_dim=16, text_dim=4096, freq_dim=256, operations=comfy.ops.manual_cast)
    folder = host.base / "models" / "diffusion_models"
    folder.mkdir(exist_ok=True)
    save_file({k: torch.zeros_like(v).half() for k, v in wan.state_dict().items()}, folder / "wan.safetensors")
    graph = graphs.similar("none.png", scheduler="simple", steps=4, t0=0.5)
    graph["encode"] = {"class_type": "EmptyHunyuanLatentVideo", "inputs": {"width": 64, "height": 64, "length": 1, "batch_size": 1}}
    graph["prior"]["inputs"]["model"] = ["wan", 0]
    graph["wan"] = {"class_type": "UNETLoader", "inputs": {"unet_name": "wan.safetensors", "weight_dtype": "default"}}
    graph = {k: graph[k] for k in ("wan", "encode", "prior")}
    assert latents(host, graph, "prior").shape == (1, 16, 3, 8, 8)
    shown = host.run(graph | {"see": {"class_type": "PreviewAny", "inputs": {"source": ["prior", 1]}}})["see"]["text"][0]
    levels = [float(v) for v in re.findall(r"\d+\.\d*", shown)]
    assert len(levels) == 5 and levels[0] == pytest.approx(8 * 0.5 / (1 + 7 * 0.5), abs=1e-4)  # shift 8


def test_what_does_not_fit_is_refused_where_it_is_wrong(host, picture):
    many = {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 2}}
    wrong = graphs.similar(picture)
    wrong["prior"]["inputs"]["samples"], wrong["many"] = ["many", 0], many
    assert "Frame Similarity Prior needs the latent of one picture" in host.run_expecting_error(wrong)
    wrong = graphs.similar(picture, kernel=8)
    assert "an odd 'kernel', got 8" in host.run_expecting_error(wrong)


def test_colours_of_a_clip(host, picture):
    """The first frame has its bits; the colours of the others are nearer to its than before."""
    def frames(strength):
        graph = graphs.similar(picture)
        graph["match"] = {"class_type": "FF_MatchFrameColors", "inputs": {"images": ["decode", 0], "strength": strength}}
        graph["save"]["inputs"]["images"] = ["match", 0]
        return [np.asarray(f.convert("RGB"), float) for f in outputs.read_webp(host.fetch(host.run(graph)["save"]["images"][0]), 8.0)[0]]

    def apart(a, b):  # of red less green, and of blue less green
        return sum(np.abs(np.sort((a[..., c] - a[..., 1]).ravel()) - np.sort((b[..., c] - b[..., 1]).ravel())).mean() for c in (0, 2))

    before, after = frames(0.0), frames(1.0)
    assert (before[0] == after[0]).all() and len(after) == 3
    assert all(apart(after[i], after[0]) < 0.7 * apart(before[i], before[0]) for i in (1, 2))
