"""The inversion in the host's dynamic mode: gradients go through the host's second, ordinary copy of the model, whatever the file's dtype."""
import comfy.sd
import comfy.utils
import pytest
import torch
from firstframe.demo import in_process
from firstframe.samplers.inversion import invert_picture
from firstframe.samplers.null_text import Optimisation
from firstframe.tests import tiny_models as tiny
from firstframe.tests.dynamic_mode import dynamic_mode
from safetensors.torch import save_file

DTYPES = {"float32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The demo's checkpoint in every dtype."""
    folder, sd = tmp_path_factory.mktemp("checkpoints"), comfy.utils.load_torch_file(str(in_process.CHECKPOINT))
    for name, dtype in DTYPES.items():
        save_file({k: v.to(dtype).contiguous() if v.is_floating_point() else v for k, v in sd.items()}, folder / f"{name}.safetensors")
    return folder


def model(path, dtype):
    return comfy.sd.load_checkpoint_guess_config(str(path), output_vae=False, output_clip=False, model_options={"dtype": dtype})[0]


def invert(m, positive=None, inner=2):
    with torch.inference_mode():  # as the host's executor runs nodes
        return invert_picture(m, tiny.latents(1), positive or tiny.conditioning(1), tiny.conditioning(2), mode="conditional", steps=5, start=761, guidance=1.0, refine=0,
                              options=Optimisation(inner, steps=5))[1]


@pytest.mark.parametrize("computed", DTYPES)
@pytest.mark.parametrize("stored", DTYPES)
def test_every_dtype_of_file_and_computation(files, stored, computed):
    path, dtype = files / f"{stored}.safetensors", DTYPES[computed]
    with torch.inference_mode():
        expected = invert(model(path, dtype))
        with dynamic_mode():
            m = model(path, dtype)
            assert m.is_dynamic() and m.model_dtype() == dtype
            before = tiny.sample(m, tiny.latents(1))
            found, again = invert(m), invert(m)
            assert torch.equal(tiny.sample(m, tiny.latents(1)), before)
    assert found.backward > 2 and torch.equal(found.reconstruction, expected.reconstruction) and torch.equal(again.reconstruction, found.reconstruction)


def test_without_gradients_no_second_copy_is_made(files):
    with torch.inference_mode():
        expected = invert(model(files / "fp16.safetensors", torch.float32), inner=0)
        with dynamic_mode():
            m = model(files / "fp16.safetensors", torch.float32)
            assert torch.equal(invert(m, inner=0).reconstruction, expected.reconstruction) and m.non_dynamic_delegate_model is None


def test_a_model_that_cannot_be_read_again_is_refused_by_name(files):
    with dynamic_mode():
        m = model(files / "fp16.safetensors", torch.float32)
        m.cached_patcher_init = None
        with pytest.raises(ValueError, match="Motion-Aware Inversion needs gradients.*stock loader such as Load Checkpoint.*--disable-dynamic-vram"):
            invert(m)


def test_a_control_net_takes_part(files):
    path = in_process.WEIGHTS / "controlnet" / "firstframe_demo_outlines.safetensors"
    hint = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))

    def guided():
        import comfy.controlnet
        net = comfy.controlnet.load_controlnet(str(path))
        net.set_cond_hint(hint, 0.8)
        return invert(model(files / "fp16.safetensors", torch.float32), tiny.conditioning(1, control=net, control_apply_to_uncond=True))

    with torch.inference_mode():
        expected = guided()
        with dynamic_mode():
            found = guided()
    assert found.backward > 2 and torch.equal(found.reconstruction, expected.reconstruction)
    assert not torch.allclose(found.reconstruction, invert(model(files / "fp16.safetensors", torch.float32)).reconstruction, atol=1e-3)
