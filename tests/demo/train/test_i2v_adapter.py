"""The demo's I2V-Adapter in training: nothing at first, the first frame free of noise and out of the loss, the published format."""
import pytest
import torch
from firstframe.demo.train.denoising import denoising_loss
from firstframe.demo.train.files import save_half
from firstframe.demo.train.host_layers import OPTIONS
from firstframe.demo.train.i2v_adapter import build
from firstframe.tests import tiny_models as tiny
from safetensors.torch import load_file


class Said:
    last_hidden_state = torch.zeros(2, 7, 64)


def test_the_first_frame_is_clean_and_out_of_the_loss():
    z0, abar, seen = torch.randn(6, 4, 8, 8), torch.full((1000,), 0.5), []
    near = torch.zeros(6, 1, 8, 8)

    def loss(change):
        def unet(z, t, context, control, transformer_options):
            seen.append(z)
            return change(torch.zeros_like(z))
        torch.manual_seed(1)
        return denoising_loss(unet, lambda input_ids: Said, z0, near, None, abar, frames=3, levels=lambda n: torch.full((n,), 500), clean_first=True)

    def other(frame):
        def change(out):
            out[frame::3] = 5.0
            return out
        return change
    plain = loss(lambda out: out)
    assert torch.equal(seen[0][::3], z0[::3]) and not torch.isclose(seen[0][1::3], z0[1::3]).all()
    assert loss(other(0)) == plain and loss(other(2)) > 2 * plain
    torch.manual_seed(1)
    eps = torch.randn_like(z0).unflatten(0, (2, 3))[:, 1:]
    assert plain == pytest.approx(2 * float(eps.square().mean()), rel=1e-5)  # its weight is 1 + (1 - a) / a


@torch.no_grad()
def test_at_first_it_adds_nothing_and_its_file_is_read(tmp_path):
    from firstframe.attention_patches.first_frame import branches, patch
    from firstframe.networks.i2v_adapter import i2v_adapter
    model = tiny.model("demo")
    unet = model.model.diffusion_model
    adapter, layers = build(unet)
    x, t, context = tiny.latents(6), torch.full((6,), 500), torch.randn(6, 7, 64)

    def result():
        return unet(x, t, context, transformer_options=OPTIONS)
    plain = result()
    with branches(layers, adapter.branch, 0, 2, 3, 1.0, OPTIONS):
        assert torch.equal(result(), plain)
        adapter.branch(next(iter(layers))).to_out_ff.bias.fill_(1.0)
        assert not torch.equal(result(), plain)
    save_half(adapter.state_dict(), tmp_path / "a.safetensors", 3)
    patch(model, i2v_adapter(load_file(tmp_path / "a.safetensors"), "a"), tiny.latents(1), "N")
