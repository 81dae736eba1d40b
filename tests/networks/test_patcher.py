"""A network in the host's patcher, in ordinary and in dynamic mode: filled alike, and made again from its source for every further copy."""
import gc
import weakref
from contextlib import nullcontext

import comfy.model_management
import pytest
import torch
from firstframe.attention_patches.inserted_layers import insert
from firstframe.networks.motion_lora import apply_lora
from firstframe.networks.motion_module_files import motion_module
from firstframe.networks.patcher import another
from firstframe.tests import motion_files as files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.dynamic_mode import dynamic_mode

MODES = {"ordinary": nullcontext, "dynamic": dynamic_mode}
SMALL = dict(num_res_blocks=[1, 1], channel_mult=[1, 1], transformer_depth=[1, 0], transformer_depth_output=[1, 1, 0, 0])
PLACE = "down_blocks.0.motion_modules.0"


@pytest.fixture(scope="module")
def small():
    return files.module(tiny.model(**SMALL))


@pytest.fixture(params=MODES)
def mode(request):
    with MODES[request.param]():
        yield request.param


def numbers(patcher) -> torch.Tensor:
    """What a layer of the motion module in `patcher` gives, with its LoRAs."""
    comfy.model_management.load_models_gpu([patcher])
    with torch.no_grad():
        return patcher.model.get_submodule(PLACE)(torch.randn(3, 32, 4, 4, generator=torch.Generator().manual_seed(1)), range(3), {})


@pytest.mark.parametrize("shape,version", [("SD1.5", "v1"), ("SD1.5", "v2"), ("SD1.5", "v3"), ("SDXL", "SDXL")])
def test_a_clip_has_the_same_bits_in_dynamic_mode(shape, version):
    sd, z = files.module(tiny.model(shape), version), tiny.latents(2, 8)

    def clip(sd):
        motion = motion_module(sd, "f")
        return tiny.sample(insert(tiny.model(shape), motion, "test", over_all_frames=motion.over_frames), z)

    expected = clip(sd)
    with dynamic_mode():
        plain = tiny.sample(tiny.model(shape), z)
        assert all(torch.equal(clip(named), expected) for named in (sd, files.as_diffusers(sd))) and tiny.difference(plain, expected) > 0.01
    assert torch.equal(tiny.sample(tiny.model(shape), z), plain)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_files_of_every_precision_have_the_same_bits_in_both_modes(small, dtype):
    sd = {k: v.to(dtype) for k, v in small.items()}
    expected = numbers(motion_module(sd, "f").patcher)
    assert tiny.difference(expected, numbers(motion_module(small, "f").patcher)) < 0.3
    with dynamic_mode():
        assert torch.equal(numbers(motion_module(sd, "f").patcher), expected)


def test_every_further_copy_comes_from_the_source(mode, small):
    lora, read = files.lora(tiny.model(**SMALL), "v3"), []

    def source():
        read.append(1)
        return small

    motion = motion_module(source, "f")
    changed = apply_lora(motion, lora, "l", 1.0).patcher
    plain, expected = numbers(motion.patcher), numbers(changed)
    assert tiny.difference(expected, plain) > 0.01 and len(read) == 1
    copies = [another(changed), changed.deepclone_multigpu(new_load_device=torch.device("cpu"))]
    if mode == "dynamic":
        copies += [changed.clone(disable_dynamic=True), changed.get_non_dynamic_delegate()]
    assert len(read) == 1 + len(copies)
    for copy in copies:
        assert copy.model is not motion.patcher.model and not {id(p) for p in copy.model.parameters()} & {id(p) for p in motion.patcher.model.parameters()}
        assert copy.backup is not changed.backup and copy.patches_uuid == changed.patches_uuid
        assert torch.equal(numbers(copy), expected)
    assert torch.equal(numbers(motion.patcher), plain) and torch.equal(numbers(copies[0]), expected)  # side by side


def test_a_copy_for_another_device_is_made_of_each(mode, small):
    """The host tells the models that go along by `clone_base_uuid`: a module with a LoRA and the same without it are two."""
    motion, model = motion_module(small, "f"), tiny.model(**SMALL)
    with_lora = another(apply_lora(motion, files.lora(model, "v3"), "l", 1.0).patcher)
    m = model.clone()
    m.set_additional_models("plain", [motion.patcher])
    m.set_additional_models("with LoRA", [with_lora])
    there = m.deepclone_multigpu(new_load_device=torch.device("cpu")).additional_models
    (plain,), (changed,) = there["plain"], there["with LoRA"]
    assert plain.model is not changed.model and not plain.patches and changed.patches
    assert torch.equal(numbers(plain), numbers(motion.patcher)) and torch.equal(numbers(changed), numbers(with_lora))


def test_nothing_keeps_the_tensors_of_a_source(small):
    class Tensors(dict):
        pass

    kept = []

    def source():
        sd = Tensors({k: v.clone() for k, v in small.items()})
        kept.append(weakref.ref(sd))
        kept.append(weakref.ref(next(iter(sd.values()))))
        return sd

    motion = motion_module(source, "f")
    gc.collect()
    assert [ref() for ref in kept] == [None, None] and motion.patcher.cached_patcher_init


def test_a_source_that_has_been_replaced_is_named(small):
    sources = [small, files.module(tiny.model(**SMALL, model_channels=64))]
    motion = motion_module(lambda: sources.pop(0), "f.ckpt")
    with pytest.raises(ValueError, match="'f.ckpt', which has been replaced by a module of another size"):
        another(motion.patcher)
