"""Temporal layers in other precisions, with weights in main memory, and in a compiled UNet."""
import comfy.cli_args
import comfy.context_windows
import comfy.model_management
import pytest
import torch
from firstframe.attention_patches.inserted_layers import insert
from firstframe.networks.motion_lora import apply_lora
from firstframe.networks.motion_module_files import motion_module
from firstframe.tests import motion_files as files
from firstframe.tests import tiny_models as tiny

WHO = "Apply Motion Module"


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture(scope="module")
def motion(model):
    return motion_module(files.module(model), "f")


def test_a_model_in_half_precision_takes_a_module_in_float32(motion):
    half, z = tiny.model(dtype=torch.float16), tiny.latents(3)
    assert tiny.difference(tiny.sample(insert(half, motion, WHO), z), tiny.sample(insert(tiny.model(), motion, WHO), z)) < 0.02


@pytest.mark.parametrize("option, dtype, most", [("fp8_e4m3fn_unet", torch.float8_e4m3fn, 0.2), ("bf16_unet", torch.bfloat16, 0.02)])
def test_the_module_is_kept_in_the_precision_that_the_host_was_started_for(model, motion, monkeypatch, option, dtype, most):
    """Rounded weights, computed with in the precision of the features."""
    monkeypatch.setattr(comfy.cli_args.args, option, True)
    z, coarse = tiny.latents(3), motion_module(files.module(model), "f")
    assert {p.dtype for p in coarse.patcher.model.parameters()} == {dtype}
    expected, found = (tiny.sample(insert(model, m, WHO), z) for m in (motion, coarse))
    assert 0 < tiny.difference(found, expected) < most < tiny.difference(tiny.sample(model, z), expected)


def test_low_vram_gives_the_same_bits(model, motion, monkeypatch):
    """No weight is loaded: each is fetched, and its LoRA added, when its layer runs."""
    z, plain = tiny.latents(3), insert(model, motion, WHO)
    with_lora = insert(model, apply_lora(motion, files.lora(model), "l", 1.0), WHO)
    expected = [tiny.sample(m, z) for m in (plain, with_lora)]
    comfy.model_management.unload_all_models()
    monkeypatch.setattr(comfy.model_management, "vram_state", comfy.model_management.VRAMState.NO_VRAM)
    monkeypatch.setattr(comfy.model_management, "is_device_cpu", lambda device: False)  # on a CPU the host sees no need to save memory
    for m, wanted, patches in zip((plain, with_lora), expected, (False, True)):
        assert torch.equal(tiny.sample(m, z), wanted)
        patcher, = *m.additional_models.values(),
        assert patcher[0].loaded_size() == 0 < patcher[0].model_size() and (patcher[0].lowvram_patch_counter() > 0) == patches
    comfy.model_management.unload_all_models()


def test_a_compiled_model_gives_the_same():
    """The layers come and go while the compiled UNet runs: in the first step they are there, in the second not."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from comfy_extras.nodes_torch_compile import skip_torch_compile_dict
    model, z = tiny.model(num_res_blocks=[1, 1], channel_mult=[1, 1], transformer_depth=[1, 0], transformer_depth_output=[1, 1, 0, 0]), tiny.latents(3)
    motion = motion_module(files.module(model), "f")
    m = insert(model, motion, WHO, end_percent=0.5)
    compiled = m.clone(disable_dynamic=True)
    set_torch_compile_wrapper(model=compiled, backend="eager", options={"guard_filter_fn": skip_torch_compile_dict})  # as TorchCompileModel; "eager": traced, no C++ compiler
    expected = tiny.sample(m, z, steps=2, sigma=3.0)
    assert torch.equal(tiny.sample(compiled, z, steps=2, sigma=3.0), expected)
    assert tiny.difference(expected, tiny.sample(insert(model, motion, WHO), z, steps=2, sigma=3.0)) > 0.01
    torch.compiler.reset()
