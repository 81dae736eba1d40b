"""First-frame attention in other precisions, with weights in main memory, and in the host's dynamic mode."""
import comfy.cli_args
import comfy.model_management
import pytest
import torch
from firstframe.attention_patches.first_frame import patch
from firstframe.networks.i2v_adapter import i2v_adapter
from firstframe.tests import i2v_adapter_files as files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.dynamic_mode import dynamic_mode

Z, PICTURE = tiny.latents(3), tiny.latents(1, seed=21)


def sample(model, adapter) -> torch.Tensor:
    return tiny.sample(patch(model, adapter, PICTURE, "N", needs_motion=False), Z)


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture(scope="module")
def expected(model):
    return sample(model, i2v_adapter(files.i2v_adapter(model), "a"))


def test_a_model_in_half_precision_takes_an_adapter_in_float32(model, expected):
    assert tiny.difference(sample(tiny.model(dtype=torch.float16), i2v_adapter(files.i2v_adapter(model), "a")), expected) < 0.02


@pytest.mark.parametrize("option, dtype, most", [("fp8_e4m3fn_unet", torch.float8_e4m3fn, 0.2), ("bf16_unet", torch.bfloat16, 0.02)])
def test_the_adapter_is_kept_in_the_precision_that_the_host_was_started_for(model, expected, monkeypatch, option, dtype, most):
    monkeypatch.setattr(comfy.cli_args.args, option, True)
    coarse = i2v_adapter(files.i2v_adapter(model), "a")
    assert {p.dtype for p in coarse.patcher.model.parameters()} == {dtype}
    assert 0 < tiny.difference(sample(model, coarse), expected) < most < tiny.difference(tiny.sample(model, Z), expected)


def test_low_vram_gives_the_same_bits(model, expected, monkeypatch):
    comfy.model_management.unload_all_models()
    monkeypatch.setattr(comfy.model_management, "vram_state", comfy.model_management.VRAMState.NO_VRAM)
    monkeypatch.setattr(comfy.model_management, "is_device_cpu", lambda device: False)  # on a CPU the host sees no need to save memory
    adapter = i2v_adapter(files.i2v_adapter(model), "a")
    assert torch.equal(sample(model, adapter), expected) and adapter.patcher.loaded_size() == 0
    comfy.model_management.unload_all_models()


def test_the_hosts_dynamic_mode_gives_the_same_bits(model, expected):
    sd = files.i2v_adapter(model)
    with dynamic_mode():
        lazy = tiny.model()
        assert lazy.is_dynamic() and torch.equal(sample(lazy, i2v_adapter(sd, "a")), expected)
