"""Inversion through the real guider on tiny random UNets: against the same arithmetic with the model called by hand, and what it leaves behind."""
import comfy.lora
import comfy.model_management
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import pytest
import torch
from firstframe.samplers.guidance_left import few_timesteps
from firstframe.samplers.inversion import invert_picture
from firstframe.samplers.null_text import OPTIMISERS, Optimisation, optimise_embeddings, trajectory
from firstframe.samplers.psi_conditioning import as_conditioning
from firstframe.tests import tiny_models as tiny
from firstframe.tests.inverting import FEW, calm, invert, percent_of


@pytest.fixture(scope="module")
def m():
    return calm(tiny.model())


@pytest.mark.parametrize("mode, begin", [("conditional", "positive"), ("null-text", "positive"), ("null-text", "negative"), ("none", "positive")])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_equals_the_walk_with_the_model_called_by_hand(m, mode, begin, optimiser):
    options = Optimisation(inner=0 if mode == "none" else 3, steps=8, optimiser=optimiser)
    z, ours = invert(m, mode, options, begin=begin)
    space, c, u = m.get_model_object("latent_format"), tiny.conditioning(1)[0][0], tiny.conditioning(2)[0][0]
    sigmas = ours.sigmas

    def eps(x, i, context):
        return (x - m.model.apply_model(x, sigmas[i].expand(1), c_crossattn=context)) / sigmas[i]

    def branch(x, i, psi):
        return eps(x, i, psi[0]) if mode != "null-text" else eps(x, i, psi[0]) + 3.0 * (eps(x, i, c).detach() - eps(x, i, psi[0]))
    with torch.enable_grad():
        Z = trajectory(lambda x, i: eps(x, i, c), space.process_in(tiny.latents(1)), sigmas)
        found = optimise_embeddings(branch, Z, sigmas, [u if begin == "negative" else c], options)
    assert ours.began == begin and tiny.difference(ours.trajectory, Z) < 1e-4 and tiny.difference(ours.reconstruction, found.Z) < 1e-4
    assert tiny.difference(space.process_in(z), found.Z[:1]) < 1e-4
    assert [len(n) for n in ours.losses] == [len(n) for n in found.losses]
    assert torch.allclose(ours.reconstruction[:1] + sigmas[-1] * ours.eps_rec, ours.trajectory[-1:], atol=1e-5)


def test_the_model_samples_the_same_bits_afterwards_and_the_inversion_too():
    with torch.inference_mode():  # as the host's executor runs nodes, with weights loaded in it
        m, z = calm(tiny.model()), tiny.latents(1)
        before, patches = tiny.sample(m, z), str(m.model_options)
        _, first = invert(m)
        _, again = invert(m)
        assert torch.equal(tiny.sample(m, z), before) and str(m.model_options) == patches
    assert torch.equal(first.reconstruction, again.reconstruction) and all(torch.equal(a[0], b[0]) for a, b in zip(first.psi[1:], again.psi[1:]))
    assert not any("forward" in vars(b) for b in m.model.diffusion_model.modules())


def test_weight_patches_take_part(m):
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    patched = m.clone()
    patched.add_patches({key: ("diff", (torch.randn_like(m.model.get_parameter(key)),))}, 1.0)
    plain, changed, after = invert(m)[1], invert(patched)[1], invert(m)[1]
    assert not torch.equal(plain.reconstruction, changed.reconstruction) and torch.equal(plain.reconstruction, after.reconstruction)


def test_the_positive_prompt_in_the_negative_branch_retraces_a_refined_trajectory(m):
    """Negative-prompt inversion: no gradient is needed, and the reconstruction is exact under any guidance."""
    positive, negative = tiny.conditioning(1), tiny.conditioning(2, strength=0.5)
    for guidance in (3.0, 7.5):
        _, found = invert_picture(m, tiny.latents(1), positive, negative, mode="null-text", options=Optimisation(steps=8),
                                  **{**FEW, "refine": 20, "begin": "positive", "guidance": guidance})
        assert found.backward == 0 and found.psnr > 60
    conditioning = as_conditioning(found, negative, percent_of(m))
    assert all(torch.equal(c, positive[0][0]) and options["strength"] == 0.5 for c, options in conditioning)


def test_prompts_of_different_numbers_of_areas_begin_at_the_negative(m):
    two = tiny.conditioning(1) + tiny.conditioning(3)
    both = [invert(m, "null-text", positive=two, begin=begin)[1] for begin in ("positive", "negative")]
    assert [i.began for i in both] == ["negative", "negative"] and torch.equal(both[0].reconstruction, both[1].reconstruction)


@pytest.mark.parametrize("mode, which", [("conditional", "positive"), ("null-text", "negative"), ("null-text", "positive"), ("none", "positive")])
def test_an_input_that_is_silent_at_some_timestep_is_named_before_anything_runs(m, monkeypatch, mode, which):
    conds = {"positive": tiny.conditioning(1), "negative": tiny.conditioning(2)}
    conds[which][0][1].update(start_percent=0.5, end_percent=1.0)
    calls, call = [], m.model.apply_model
    monkeypatch.setattr(m.model, "apply_model", lambda *args, **kwargs: calls.append(1) or call(*args, **kwargs))
    with pytest.raises(ValueError, match=f"'{which}' holds nothing for timestep 501 .5 of 7.*ConditioningSetTimestepRange"):
        invert_picture(m, tiny.latents(1), *conds.values(), mode=mode, options=Optimisation(inner=0 if mode == "none" else 2, steps=8), **FEW)
    assert not calls


def test_guidance_left_is_what_it_says(m):
    """Against the three predictions by hand; none for the prompt itself, all for the negative prompt itself."""
    c, u = tiny.conditioning(1)[0][0], tiny.conditioning(2)[0][0]
    _, found = invert(m, options=Optimisation(inner=3, steps=8))
    shares = []
    for i in few_timesteps(7):
        x, sigma = found.trajectory[i:i + 1], found.sigmas[i].expand(1)
        with torch.no_grad():
            prompt, psi, empty = (m.model.apply_model(x, sigma, c_crossattn=e) for e in (c, found.psi[i][0], u))
        shares.append(float((prompt - psi).norm() / (prompt - empty).norm()))
    assert 0.01 < found.guidance == pytest.approx(sum(shares) / 3, rel=1e-3)
    assert invert(m, "none", Optimisation(inner=0, steps=8))[1].guidance == 0
    assert invert(m, "null-text", Optimisation(inner=0, steps=8))[1].guidance == 1
    assert invert(m, "null-text", Optimisation(inner=0, steps=8), begin="positive")[1].guidance == 0
    alone = invert_picture(m, tiny.latents(1), tiny.conditioning(1), None, mode="none", options=Optimisation(inner=0, steps=8), **FEW)[1]
    assert alone.guidance is None and alone.calls == 14 == invert(m, "none", Optimisation(inner=0, steps=8))[1].calls


def interrupt():
    comfy.model_management.interrupt_current_processing()


def out_of_memory():
    raise comfy.model_management.OOM_EXCEPTION


@pytest.mark.parametrize("stop, error", [(interrupt, comfy.model_management.InterruptProcessingException), (out_of_memory, comfy.model_management.OOM_EXCEPTION)])
def test_an_interrupt_or_too_little_memory_leaves_the_model_as_it_was(m, monkeypatch, stop, error):
    z = tiny.latents(1)
    before, seen = tiny.sample(m, z), []
    call = m.model.apply_model

    def count(*args, **kwargs):
        seen.append(1)
        if len(seen) == 10:
            stop()
        return call(*args, **kwargs)
    monkeypatch.setattr(m.model, "apply_model", count)
    with pytest.raises(error):
        invert(m, checkpointing="on")
    monkeypatch.undo()
    assert len(seen) == 10
    assert torch.equal(tiny.sample(m, z), before)
    assert not any("forward" in vars(b) for b in m.model.diffusion_model.modules())


@pytest.mark.parametrize("mode, timestep", [("conditional", 1), ("none", 1), ("null-text", 7)])
def test_nan_stops_with_its_place_and_leaves_nothing_patched(m, mode, timestep):
    z, bad = tiny.latents(1), tiny.conditioning(3)
    before, patches = tiny.sample(m, z), str(m.model_options)
    bad[0][0][0, 2, 5] = float("nan")
    positive, negative = (tiny.conditioning(1), bad) if mode == "null-text" else (bad, tiny.conditioning(2))
    with pytest.raises(ValueError, match=f"Motion-Aware Inversion stopped: .* timestep {timestep}"):
        invert_picture(m, z, positive, negative, mode=mode, options=Optimisation(inner=0 if mode == "none" else 3, steps=8), checkpointing="on", **FEW)
    assert torch.equal(tiny.sample(m, z), before) and str(m.model_options) == patches
    assert not any("forward" in vars(b) for b in m.model.diffusion_model.modules())
