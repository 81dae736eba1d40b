"""A whole small UNet of DynamiCrafter 256 against the official numbers (golden d2), and what it shares with the host's."""
import json
from pathlib import Path

import comfy.ops
import pytest
import torch
from firstframe.networks.lvdm_unet import LvdmUNet, as_ours, layout_of
from firstframe.tests import tiny_models as tiny
from safetensors.torch import load_file

FILE = Path(__file__).parents[1] / "golden" / "d2_dynamicrafter_unet_256.safetensors"
COMMON = dict(image_size=32, in_channels=8, out_channels=4, transformer_depth_middle=1, use_linear_in_transformer=True, use_spatial_transformer=True, legacy=False,
              use_checkpoint=False)
CONFIG = dict(COMMON, model_channels=64, num_res_blocks=[1, 1], channel_mult=[1, 1], transformer_depth=[1, 0], transformer_depth_output=[1, 1, 0, 0], num_head_channels=16,
              context_dim=40)
SD2 = dict(COMMON, model_channels=320, num_res_blocks=[2, 2, 2, 2], channel_mult=[1, 2, 4, 4], transformer_depth=[1] * 6 + [0] * 2, transformer_depth_output=[1] * 9 + [0] * 3,
           num_head_channels=64, context_dim=1024)


@pytest.fixture(scope="module")
def golden():
    return load_file(FILE)


@pytest.fixture(scope="module")
def unet(golden):
    sd = as_ours({k.removeprefix("w.model.diffusion_model."): v.float() for k, v in golden.items() if k.startswith("w.")})
    net = LvdmUNet(layout_of(sd, head=16), dtype=torch.float32, device=tiny.CPU, operations=comfy.ops.manual_cast, **CONFIG)
    net.load_state_dict(sd)
    return net.eval().requires_grad_(False)


def inputs(g, chunks=slice(None)) -> dict:
    """Of the UNet, frames along the batch."""
    x = g["in.x_noisy_then_concat"][chunks]
    f = x.shape[2]
    rows = {"timesteps": g["in.timesteps"], "context": g["in.context"][:, :77], "image_tokens": g["in.context"][:, 77:], "fps": g["in.fs"]}
    return {"x": x.transpose(1, 2).flatten(0, 1), "transformer_options": {"cond_or_uncond": list(range(len(x)))}, **{k: v[chunks].repeat_interleave(f, 0) for k, v in rows.items()}}


def test_it_is_the_official_one(golden, unet):
    found = unet(**inputs(golden))
    expected = golden["out.eps_or_v"].transpose(1, 2).flatten(0, 1)
    assert tiny.difference(found, expected) <= 1e-4
    for chunk in (slice(0, 1), slice(1, 2)):  # however the host splits the batch
        assert tiny.difference(unet(**inputs(golden, chunk)), found.unflatten(0, (2, -1))[chunk].flatten(0, 1)) <= 1e-5


def test_each_part_counts(golden, unet):
    whole, given = unet(**inputs(golden)), inputs(golden)
    for left_out in ("image_tokens", "fps"):
        assert tiny.difference(unet(**{**given, left_out: None}), whole) > 1e-3
    for_all = torch.cat([given["image_tokens"], given["image_tokens"][:, :1]], 1)  # not 16 for each frame: each sees all
    assert tiny.difference(unet(**{**given, "image_tokens": for_all}), whole) > 1e-3


def test_hooks_are_gone_afterwards(golden, unet):
    unet(**inputs(golden))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in unet.modules())


@pytest.mark.parametrize("version, gates, tensors", [("256", 16, 1532), ("512", 0, 1516)])
def test_every_published_name_has_its_place(version, gates, tensors):
    schema = json.loads((FILE.parent / f"dynamicrafter_{version}_unet_and_image_proj.json").read_text())
    prefix = "model.diffusion_model."
    sd = as_ours({k.removeprefix(prefix): torch.empty(shape, device="meta") for k, shape in schema.items() if k.startswith(prefix)})
    own = LvdmUNet(layout_of(sd), device="meta", operations=comfy.ops.manual_cast, **SD2).state_dict()
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in sd.items()} and len(sd) == tensors
    assert sum(k.endswith("attn2.alpha") for k in sd) == gates
