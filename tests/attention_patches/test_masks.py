"""Masks on Apply Motion Module: with area prompts they are cropped as the host crops the latent, and bad ones are refused by the node."""
import pytest
import torch
from firstframe.attention_patches.inserted_layers import insert
from firstframe.attention_patches.masks import CallMask, area_of, crops_of
from firstframe.networks.motion_module_files import motion_module
from firstframe.nodes.motion_module import MotionModuleApply
from firstframe.tests import motion_files
from firstframe.tests import tiny_models as tiny

Z = tiny.latents(3)
PLACE = "down_blocks.0.motion_modules.0"
AREAS = {"one": [(8, 8, 4, 8)], "several of one size": [(8, 8, 4, 8), (8, 8, 8, 0)], "beyond the edge": [(16, 16, 4, 8)], "whole": [(16, 16, 0, 0)]}


@pytest.fixture(scope="module")
def model():
    return tiny.model(**tiny.SMALL)


@pytest.fixture(scope="module")
def motion(model):
    return motion_module(motion_files.module(model), "f")


def sample(m, areas):
    return tiny.sample(m, Z, positive=[*tiny.conditioning(1), *(c for i, area in enumerate(areas) for c in tiny.conditioning(3 + i, area=area))])


@pytest.mark.parametrize("areas", AREAS.values(), ids=AREAS)
def test_black_and_white_masks_with_areas(model, motion, areas):
    plain, whole = sample(model, areas), sample(insert(model, motion, "A"), areas)
    assert torch.equal(sample(insert(model, motion, "A", mask=torch.zeros(1, 128, 128)), areas), plain)
    assert tiny.difference(sample(insert(model, motion, "A", mask=torch.ones(1, 128, 128)), areas), whole) < 1e-5
    assert tiny.difference(whole, plain) > 0.01


def first_layer(m, areas) -> list:
    """[(features, what the layer at PLACE adds to them)] of each call of the UNet."""
    heard, unet = [], m.get_model_object("diffusion_model")
    layer = unet.input_blocks[1][1]
    real = layer.forward

    def forward(*args, **kwargs):
        heard.append(real(*args, **kwargs))
        return heard[-1]

    layer.forward = forward  # before any hook
    after = unet.input_blocks[2][0].register_forward_pre_hook(lambda module, args: heard.append(args[0]))  # the downsampler
    try:
        sample(m, areas)
    finally:
        after.remove()
        del layer.forward
    return [(before, out - before) for before, out in zip(heard[::2], heard[1::2])]


@pytest.mark.parametrize("per_frame", [False, True])
def test_half_a_mask_lies_where_it_lies_in_the_picture(model, motion, per_frame):
    """The layer's own output, in each area of one size that shares a call with others: white is x >= 12 of 16 cells; a mask of latent size keeps its edge."""
    mask = torch.zeros(3 if per_frame else 1, 16, 16)
    mask[-1, :, 12:] = 1
    areas = [(8, 8, 4, 8), (8, 8, 8, 0)]
    part = [added for before, added in first_layer(insert(model, motion, "A", mask=mask), areas) if before.shape[-1] == 8]
    added = torch.cat(part).unflatten(0, (-1, 3))
    assert len(added) == 4  # the host gives the negative prompt the same areas
    seen = [(a[..., :4].abs().amax((1, 2, 3)) > 0).tolist() + (a[..., 4:].abs().amax((1, 2, 3)) > 0).tolist() for a in added]
    frames = [False, False, True] if per_frame else [True] * 3
    assert sorted(seen) == sorted(2 * [[False] * 3 + frames, [False] * 6])  # the area at x 8..15 shows white in its right half, that at 0..7 none


def test_areas_are_those_of_the_host():
    import comfy.samplers
    x = torch.zeros(1, 4, 12, 10)
    for area in [(4, 6, 2, 3), (40, 40, 3, 2), (12, 10, 0, 0)]:
        host = comfy.samplers.get_area_and_mult({"area": area, "model_conds": {}, "uuid": 0}, x, torch.ones(1)).area
        y, left, h, w = area_of({"area": area}, (12, 10))
        assert [h, w, y, left] == list(host)


def test_a_mask_is_resized_once_for_each_size(monkeypatch):
    import torch.nn.functional as F
    made, real = [], F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda *a, **k: made.append(1) or real(*a, **k))
    mask = CallMask(torch.rand(1, 16, 16), range(3), 2)
    for side in (8, 4, 8, 4, 8):
        assert mask.at(torch.zeros(6, 5, side, side)).shape == (6, 1, side, side)
    assert len(made) == 2


def test_a_part_that_no_area_names_is_refused():
    options = {"firstframe_areas": ((16, 16), {7: (0, 0, 16, 16), 8: (0, 0, 8, 8)}), "uuids": [7]}
    assert crops_of(options, (16, 16), "A") is None and crops_of({}, (8, 8), "A") is None
    assert crops_of({**options, "uuids": [8, 8]}, (8, 8), "A") == ((16, 16), [(0, 0, 8, 8)] * 2)
    for uuids in ([7], [9], []):
        with pytest.raises(ValueError, match=r"A: its mask is of the whole picture \(\[16, 16\].*part of \[8, 8\].*Disconnect the mask"):
            crops_of({**options, "uuids": uuids}, (8, 8), "A")


def apply(model, motion, mask, **options):
    return MotionModuleApply.execute(model, motion, 1.0, 0.0, 1.0, mask, **options).result[0]


def test_the_node_takes_masks_of_every_shape_that_the_host_has(model, motion):
    mask = torch.rand(32, 32, generator=torch.Generator().manual_seed(2))
    one, *others = (tiny.sample(apply(model, motion, m), Z) for m in (mask[None], mask, mask[None, None], mask[None].expand(3, -1, -1), mask[None].double()))
    assert all(torch.equal(one, other) for other in others)
    loud = torch.where(mask > 0.5, 3.0, -1.0)
    assert torch.equal(tiny.sample(apply(model, motion, loud), Z), tiny.sample(apply(model, motion, loud.clamp(0, 1)), Z))


@pytest.mark.parametrize("mask, says", [(torch.full((1, 8, 8), float("nan")), "a mask with NaN or infinite values"), (torch.full((8, 8), float("inf")), "a mask with NaN or infinite"),
                                        (torch.ones(0, 8, 8), r"an empty mask \[0, 8, 8\]"), (torch.ones(8), r"an empty mask \[8\]")])
def test_the_node_refuses_other_masks(model, motion, mask, says):
    with pytest.raises(ValueError, match=f"Apply Motion Module got {says}.*connected to 'mask'"):
        apply(model, motion, mask)
