"""Image projections against the official numbers (golden b2) and against diffusers' with the same weights, at the published sizes."""
from pathlib import Path

import comfy.ops
import pytest
import torch
from firstframe.networks.content_adapter import look, makers, shapes
from firstframe.networks.image_projection import PlainSize, ResamplerSize, image_projection, size_of
from firstframe.tests import adapter_files as files
from firstframe.tests import tiny_models as tiny
from safetensors.torch import load_file

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "b2_ip_adapter_image_proj.safetensors")


def made(size, weights):
    net = image_projection(size, operations=comfy.ops.manual_cast)
    net.load_state_dict(weights)
    return net.eval()


def golden(part):
    return {k.removeprefix(f"w_{part}."): v for k, v in GOLDEN.items() if k.startswith(f"w_{part}.")}


def reading(weights):
    """size_of's view of weights or shapes that are all there."""
    return lambda key, axes=None: tuple(getattr(weights[key], "shape", weights[key])) if key in weights else None


@torch.no_grad()
def test_official_resampler():
    size = size_of(reading(golden("plus")))
    assert size == ResamplerSize(40, 56, tokens=16, dim=48, inner=48, hidden=192, depth=4)
    net = made(ResamplerSize(40, 56, 16, 48, 48, 192, dim_head=16), golden("plus"))
    assert tiny.difference(net(GOLDEN["in.clip_hidden"]), GOLDEN["out.plus_tokens"]) <= 1e-5


@torch.no_grad()
def test_official_plain_projection_of_a_picture_and_of_none():
    size = size_of(reading(golden("plain")))
    assert size == PlainSize(40, 56)
    net = made(size, golden("plain"))
    assert tiny.difference(net(GOLDEN["in.clip_embed"]), GOLDEN["out.plain_tokens"]) <= 1e-5
    assert tiny.difference(net(torch.zeros(3, 40)), GOLDEN["out.plain_tokens_zero_embed"]) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("name", files.PUBLISHED)
def test_the_same_weights_in_diffusers(name):
    """Their reader of the published keys and their modules."""
    from diffusers.loaders import UNet2DConditionLoadersMixin
    wanted, _, width = files.PUBLISHED[name]
    weights = files.random(wanted)
    theirs = UNet2DConditionLoadersMixin()._convert_ip_adapter_image_proj_to_diffusers(dict(weights), low_cpu_mem_usage=False).eval()
    size = size_of(reading(weights))
    features = torch.randn(2, size.embedding, generator=torch.Generator().manual_seed(1))
    if not isinstance(size, PlainSize):
        features = features[:, None] * torch.linspace(-1, 1, 7)[:, None] + 0.1
    ours = made(size, weights)(features)
    assert ours.shape[-1] == width and tiny.difference(ours, theirs(features)) <= 1e-5


@pytest.mark.parametrize("name, tensors, millions", [
    ("ip-adapter_sd15", 36, 22), ("ip-adapter-plus_sd15", 83, 49), ("ip-adapter-full-face_sd15", 38, 22), ("ip-adapter_sdxl", 144, 351), ("ip-adapter_sdxl_vit-h", 144, 349),
    ("ip-adapter-plus_sdxl_vit-h", 191, 424)])
def test_published_files_have_the_keys_and_shapes_that_are_asked_for(name, tensors, millions):
    image_proj, channels, width = files.PUBLISHED[name]
    published = files.published(image_proj, channels, width)
    layout = {str(2 * m + 1): c for m, c in enumerate(channels)}
    asked = {k: tuple(v) for prefix, make in makers(size_of(reading(image_proj)), layout).items() for k, v in shapes(make, prefix).items()}
    assert asked == published and len(asked) == tensors
    assert round(sum(torch.Size(v).numel() for v in asked.values()) / 1e6) == millions


@pytest.mark.parametrize("kind", ["plain", "plus", "full"])
def test_the_kind_is_told_by_keys_and_shapes(kind):
    sd = files.adapter(tiny.model(**tiny.SMALL), kind)
    weights, size, layout = look(sd, "f")
    assert type(size).__name__ == {"plain": "PlainSize", "plus": "ResamplerSize", "full": "FullSize"}[kind]
    assert {f"{prefix}{k}": v.shape for prefix, part in weights.items() for k, v in part.items()} == {k: v.shape for k, v in sd.items()}
    assert list(layout) == ["1", "3", "5", "7", "9", "11", "13"]
