"""Inversion through the real guider on tiny random UNets: against the same arithmetic with the model called by hand, and what it leaves behind."""
from dataclasses import replace

import comfy.lora
import comfy.model_management
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import pytest
import torch
from firstframe.samplers import null_text
from firstframe.samplers.beta_schedule import with_betas
from firstframe.samplers.guidance_left import few_timesteps
from firstframe.samplers.inversion import invert_picture
from firstframe.samplers.null_text import OPTIMISERS, Optimisation, optimise_embeddings, trajectory
from firstframe.samplers.psi_conditioning import as_conditioning
from firstframe.tests import tiny_models as tiny

FEW = dict(steps=8, start=761, guidance=3.0, refine=0, begin="negative")


def calm(m):
    """eps of about unit size, as a trained model's is."""
    with torch.no_grad():
        for p in m.model.diffusion_model.out[2].parameters():
            p.mul_(0.3)
    return m


@pytest.fixture(scope="module")
def m():
    return calm(tiny.model())


def percent_of(m):
    return m.get_model_object("model_sampling").percent_to_sigma


def invert(m, mode="conditional", options=None, positive=None, **rest):
    return invert_picture(m, tiny.latents(1), positive or tiny.conditioning(1), tiny.conditioning(2), mode=mode,
                          options=options or Optimisation(inner=3, steps=8), **{**FEW, **rest})


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


@pytest.mark.parametrize("shape", ["SD1.5", "SDXL"])
def test_checkpointing_changes_nothing(shape):
    m = calm(tiny.model(shape))
    (_, off), (_, on) = invert(m, checkpointing="off"), invert(m, checkpointing="on")
    assert tiny.difference(on.reconstruction, off.reconstruction) < 1e-5 and off.backward > 4
    assert not any("forward" in vars(b) for b in m.model.diffusion_model.modules())


def test_weight_patches_take_part(m):
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    patched = m.clone()
    patched.add_patches({key: ("diff", (torch.randn_like(m.model.get_parameter(key)),))}, 1.0)
    plain, changed, after = invert(m)[1], invert(patched)[1], invert(m)[1]
    assert not torch.equal(plain.reconstruction, changed.reconstruction) and torch.equal(plain.reconstruction, after.reconstruction)


def test_the_conditioning_leads_a_stock_sampler_back(m):
    """Euler over the inversion's own noise levels with one psi_t a step lands on the reconstruction."""
    positive = tiny.conditioning(1)
    z, inversion = invert(m, positive=positive)
    conditioning = as_conditioning(inversion, positive, percent_of(m))
    assert len(conditioning) == len(inversion.timesteps)
    space = m.get_model_object("latent_format")
    sigmas = inversion.sigmas.flip(0)
    start = space.process_out(inversion.trajectory[-1:])
    out = comfy.sample.sample_custom(m, torch.zeros_like(start), 1.0, comfy.samplers.sampler_object("euler"), sigmas, conditioning, tiny.conditioning(2),
                                     start, disable_pbar=True, seed=0)
    assert tiny.difference(out, z) < 1e-4
    plain = comfy.sample.sample_custom(m, torch.zeros_like(start), 1.0, comfy.samplers.sampler_object("euler"), sigmas, positive, tiny.conditioning(2),
                                       start, disable_pbar=True, seed=0)
    assert tiny.difference(plain, z) > 1e-3  # the embeddings matter


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


def seen_psi(m, inversion, conditioning) -> list:
    """The timestep whose psi each call of a stock sampler gets, over the inversion's own noise levels."""
    seen = []

    def watch(executor, x, timesteps, context, *args, **kwargs):
        seen.append([i for i, psi in enumerate(inversion.psi) if psi and torch.equal(psi[0], context[:1])])
        return executor(x, timesteps, context, *args, **kwargs)
    m = m.clone()
    m.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "watch", watch)
    z = tiny.latents(2)
    comfy.sample.sample_custom(m, torch.zeros_like(z), 1.0, comfy.samplers.sampler_object("euler"), inversion.sigmas.flip(0), conditioning, conditioning, z, disable_pbar=True, seed=0)
    return seen


def test_every_timestep_gets_its_own_psi_whatever_schedule_the_sampling_model_has(m):
    """Also behind a motion module, which brings other betas: by shares of the schedule it was up to five timesteps off."""
    positive = tiny.conditioning(1)
    _, inversion = invert(m, "none", Optimisation(inner=0, steps=50), steps=50, positive=positive)
    T = len(inversion.timesteps)
    assert T == 39
    inversion = replace(inversion, psi=[None, *([tiny.conditioning(seed)[0][0]] for seed in range(T))])
    conditioning = as_conditioning(inversion, positive, percent_of(m))
    for model in (m, with_betas(m, "sqrt_linear", 0.00085, 0.012, "test")):
        assert seen_psi(model, inversion, conditioning) == [[i] for i in range(T, 0, -1)]


@pytest.mark.parametrize("limits", [{"start_percent": 0.3, "end_percent": 0.8}, {"clip_start_percent": 0.3, "clip_end_percent": 0.8},
                                    {"start_percent": 0.0, "end_percent": 0.8, "clip_start_percent": 0.3, "clip_end_percent": 1.0}])
def test_an_entrys_own_limits_hold(m, limits):
    _, inversion = invert(m, mode="none", options=Optimisation(inner=0, steps=8))
    out = as_conditioning(inversion, tiny.conditioning(1, **limits), percent_of(m))
    high, low = (percent_of(m)(p) for p in (0.3, 0.8))
    assert 1 < len(out) < len(inversion.timesteps) and not any("percent" in key for _, options in out for key in options)
    assert max(o["timestep_start"] for _, o in out) == high and min(o["timestep_end"] for _, o in out) == low


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
