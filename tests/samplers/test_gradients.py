"""Gradients through the host's UNet: with less memory, with weights elsewhere, beside a ControlNet."""
import comfy.lora
import comfy.model_management
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import pytest
import torch
from firstframe.samplers import null_text
from firstframe.samplers.inversion import invert_picture
from firstframe.samplers.null_text import Optimisation
from firstframe.samplers.psi_conditioning import as_conditioning
from firstframe.tests import tiny_models as tiny
from firstframe.tests.inverting import FEW, calm, invert, percent_of


@pytest.fixture(scope="module")
def m():
    return calm(tiny.model())


@pytest.mark.parametrize("shape", ["SD1.5", "SDXL"])
def test_checkpointing_changes_nothing(shape):
    m = calm(tiny.model(shape))
    (_, off), (_, on) = invert(m, checkpointing="off"), invert(m, checkpointing="on")
    assert tiny.difference(on.reconstruction, off.reconstruction) < 1e-5 and off.backward > 4
    assert not any("forward" in vars(b) for b in m.model.diffusion_model.modules())


def small_card(monkeypatch):
    """As if the weights were on a card that has room for part of them."""
    monkeypatch.setattr(comfy.model_management, "is_device_cpu", lambda device: False)
    monkeypatch.setattr(comfy.model_management, "vram_state", comfy.model_management.VRAMState.NORMAL_VRAM)
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda dev=None, torch_free_too=False: (2**20, 2**20) if torch_free_too else 2**20)
    monkeypatch.setattr(comfy.model_management, "minimum_inference_memory", lambda: 0)


def test_the_model_stays_whole_where_gradients_are_needed(m, monkeypatch):
    """The guider loads the model with an estimate of its own; on a small card that took weights out again."""
    comfy.model_management.unload_all_models()
    small_card(monkeypatch)
    seen, call = [], m.model.apply_model
    monkeypatch.setattr(m.model, "apply_model", lambda *args, **kwargs: seen.append(m.model.model_lowvram) or call(*args, **kwargs))
    tiny.sample(m, tiny.latents(1))
    assert seen and all(seen)
    seen.clear()
    invert(m)
    assert len(seen) > 10 and not any(seen)
    comfy.model_management.unload_all_models()


def test_weights_in_main_memory_are_refused_before_anything_runs(m, monkeypatch):
    expected = invert(m, "none", Optimisation(inner=0, steps=8))[1]
    comfy.model_management.unload_all_models()
    small_card(monkeypatch)
    monkeypatch.setattr(comfy.model_management, "vram_state", comfy.model_management.VRAMState.NO_VRAM)
    calls, call = [], m.model.apply_model
    monkeypatch.setattr(m.model, "apply_model", lambda *args, **kwargs: calls.append(1) or call(*args, **kwargs))
    with pytest.raises(ValueError, match="needs the whole model in the card's memory.*without --novram"):
        invert(m)
    assert not calls
    assert tiny.difference(invert(m, "none", Optimisation(inner=0, steps=8))[1].reconstruction, expected.reconstruction) < 1e-5
    comfy.model_management.unload_all_models()


@pytest.mark.parametrize("checkpointing", ["off", "on"])
def test_a_control_net_in_the_conditioning_takes_part_and_stays_as_it_was(checkpointing):
    """Loaded in inference mode like the model, as the host's executor does."""
    with torch.inference_mode():
        m, (net, hint) = calm(tiny.model()), tiny.control_net()
        net.set_cond_hint(hint.movedim(-1, 1), 0.5)
        z, positive = tiny.latents(1), tiny.conditioning(1, control=net, control_apply_to_uncond=True)
        before, weights = tiny.sample(m, z, positive=positive), {k: v.clone() for k, v in net.control_model.state_dict().items()}
        _, plain = invert(m)
        _, first = invert(m, positive=positive, checkpointing=checkpointing)
        _, again = invert(m, positive=positive, checkpointing=checkpointing)
        assert torch.equal(tiny.sample(m, z, positive=positive), before)
    assert not torch.allclose(plain.reconstruction, first.reconstruction, atol=1e-2) and torch.equal(first.reconstruction, again.reconstruction) and first.backward > 4
    assert all(torch.equal(v, weights[k]) for k, v in net.control_model.state_dict().items())
    assert all(c[1]["control"] is net for c in as_conditioning(first, positive, percent_of(m)))


@pytest.mark.parametrize("checkpointing", ["off", "on"])
def test_the_gradient_beside_a_control_net_is_the_slope(m, monkeypatch, checkpointing):
    """With the ControlNet's output taken as given, against the difference of two losses: a value that was overwritten on the way back would show."""
    net, hint = tiny.control_net()
    net.set_cond_hint(hint.movedim(-1, 1), 1.0)
    (embedding, _), = tiny.conditioning(2)
    given = dict(control=net, control_apply_to_uncond=True, cross_attn_controlnet=torch.zeros_like(embedding))  # it reads another prompt, so that it is the same for both losses
    seen, gradient = [], null_text.gradient
    monkeypatch.setattr(null_text, "gradient", lambda *args: seen.append(gradient(*args)) or seen[-1])

    def first_loss(e) -> float:
        options = Optimisation(1, stop=0.0, growth=0.0)
        _, found = invert_picture(m, tiny.latents(1), tiny.conditioning(1, **given), [[e, given]], mode="null-text", checkpointing=checkpointing, options=options, **FEW)
        return found.losses[-1][0]

    first_loss(embedding)
    g = seen[0][0]
    step = 0.5 * g / g.norm()
    slope = (first_loss(embedding + step) - first_loss(embedding - step)) / (2 * step.norm())
    assert slope == pytest.approx(float(g.norm()), rel=0.02)
