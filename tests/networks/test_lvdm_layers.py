"""LVDM's temporal layers and DynamiCrafter's image projection, against the official numbers (goldens d3, d4; VideoCrafter's temporal transformers, computed likewise)."""
from pathlib import Path

import comfy.ops
import pytest
import torch
from firstframe.networks.image_projection import Resampler, ResamplerSize
from firstframe.networks.lvdm_layers import Size, TemporalConvolutions, TemporalTransformer
from firstframe.tests import tiny_models as tiny
from safetensors.torch import load_file

GOLDEN = Path(__file__).parents[1] / "golden"
MADE = dict(dtype=torch.float32, device=tiny.CPU, operations=comfy.ops.manual_cast)


def loaded(net, weights: dict, prefix: str):
    net.load_state_dict({k.removeprefix(prefix): v.float() for k, v in weights.items() if k.startswith(prefix)})
    return net.eval()


def along_batch(x: torch.Tensor) -> torch.Tensor:
    """[c,C,f,h,w] as [c*f,C,h,w]."""
    return x.transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize("name, make, source", [
    ("temporal_transformer", lambda: TemporalTransformer(Size(64, 64, 4), **MADE), "in.x64"),
    ("init_attn", lambda: TemporalTransformer(Size(32, 128, 8, True), **MADE), "in.x32"),
    ("temporal_conv", lambda: TemporalConvolutions(64, **MADE), "in.x64"),
])
@torch.no_grad()
def test_layers_are_the_official_ones(name, make, source):
    g = load_file(GOLDEN / "d4_lvdm_temporal_blocks.safetensors")
    net, x, expected = loaded(make(), g, f"w_{name}."), along_batch(g[source]), along_batch(g[f"out.{name}"])
    frames = g[source].shape[2]
    found = x + (net(x, frames) if name == "temporal_conv" else net(x, frames, {}))
    assert tiny.difference(found, expected) <= 1e-5
    one = x[:frames] + (net(x[:frames], frames) if name == "temporal_conv" else net(x[:frames], frames, {}))
    assert tiny.difference(one, expected[:frames]) <= 1e-5  # the other clip does not leak in


@pytest.mark.parametrize("name, size", [("temporal_transformer", Size(32, 32, 2, reach=4)), ("init_attn", Size(32, 64, 4, True, 4))])
@torch.no_grad()
def test_relative_positions_are_the_official_ones(name, size):
    """Of 7 frames, whose distances go beyond the tables."""
    g = load_file(GOLDEN / "videocrafter_temporal_transformer.safetensors")
    net, x = loaded(TemporalTransformer(size, **MADE), g, f"w_{name}."), along_batch(g["in.x"])
    assert tiny.difference(x + net(x, 7, {}), along_batch(g[f"out.{name}"])) <= 1e-5


@torch.no_grad()
def test_image_tokens_are_the_official_ones():
    g = load_file(GOLDEN / "d3_dynamicrafter_resampler.safetensors")
    net = loaded(Resampler(ResamplerSize(embedding=40, width=40, tokens=64, dim=48, inner=48, hidden=192, dim_head=16), **MADE), g, "w.image_proj_model.")
    assert tiny.difference(net(g["in.clip_tokens"]), g["out.image_tokens"]) <= 1e-5
