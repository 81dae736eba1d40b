"""The found embeddings as CONDITIONING: each at its own noise levels, whatever model samples."""
from dataclasses import replace

import comfy.lora
import comfy.model_management
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import pytest
import torch
from firstframe.samplers.beta_schedule import with_betas
from firstframe.samplers.null_text import Optimisation
from firstframe.samplers.psi_conditioning import as_conditioning
from firstframe.tests import tiny_models as tiny
from firstframe.tests.inverting import calm, invert, percent_of


@pytest.fixture(scope="module")
def m():
    return calm(tiny.model())


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
