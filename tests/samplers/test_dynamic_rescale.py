"""DynamiCrafter's sampling through the host's samplers: the official numbers of 256 (golden j), and the arithmetic with dynamic rescale written out slowly, VideoCrafter's too."""
from pathlib import Path
from types import SimpleNamespace

import comfy.sample
import comfy.samplers
import pytest
import torch
from firstframe.samplers.ddim import sigmas_of
from firstframe.samplers.dynamic_rescale import DynamicRescale, DynamicRescaleEPS, scales
from firstframe.tests import tiny_models as tiny
from firstframe.tests.golden_stub import stub
from safetensors.torch import load_file

G = load_file(Path(__file__).parents[1] / "golden" / "j_dynamicrafter_ddim_256.safetensors")
FRAMES = 4
NETWORK = stub(G, FRAMES)


def rows(x: torch.Tensor) -> torch.Tensor:
    """[1,C,f,h,w] as [f,C,h,w]."""
    return x[0].transpose(0, 1)


def network(x, timesteps, context, *args, **kwargs):
    concat = rows(G["in.c_concat"]).repeat(len(x) // FRAMES, 1, 1, 1)
    return NETWORK(torch.cat([x, concat], 1), timesteps, context)


def run(m, timesteps: list, noise: torch.Tensor, cfg: float, eta: float) -> list:
    """(x in the network's own space, denoised) before each step and, x alone, after the last, at timestep 0."""
    sampling, space = m.get_model_object("model_sampling"), m.get_model_object("latent_format")
    sigmas, seen, drawn = sigmas_of(sampling, [*timesteps, 0]), [], iter(noise)
    start = rows(G["in.x_T"]) / sampling.calculate_input(sigmas[:1], torch.ones(1, 1, 1, 1))
    sampler = comfy.samplers.ksampler("euler_ancestral", {"eta": eta, "noise_sampler": lambda *_: rows(next(drawn))})
    out = comfy.sample.sample_custom(m, torch.zeros_like(start), cfg, sampler, sigmas, [[G["in.context_cond"], {}]], [[G["in.context_uncond"], {}]], space.process_out(start),
                                     callback=lambda i, x0, x, total: seen.append((sampling.calculate_input(sigmas[i:i + 1], x), x0)), disable_pbar=True, seed=0)
    return [*seen, (sampling.calculate_input(sigmas[-1:], space.process_in(out)), None)]


def test_every_step_of_256_is_the_official_one():
    m = tiny.model()
    m.model.diffusion_model._forward = network
    seen = run(m, G["out.timesteps_descending"].tolist(), G["in.noise_per_step"], 7.5, 1.0)
    for (x, _), expected in zip(seen[1:], G["out.latents_after_step"], strict=True):
        assert tiny.difference(x, rows(expected)) <= 1e-4
    for (_, x0), expected in zip(seen, G["out.pred_x0_after_rescale"]):
        assert tiny.difference(x0, rows(expected)) <= 1e-4


def sampling_of(base: float, eps: bool = False) -> DynamicRescale | DynamicRescaleEPS:
    return (DynamicRescaleEPS if eps else DynamicRescale)(SimpleNamespace(sampling_settings={"rescale_base": base, "zsnr": not eps}))


def by_hand(base: float, timesteps: list, cfg: float, eps: bool = False) -> list:
    """The official DDIM (eta 0) with dynamic rescale, in float64: DynamiCrafter's with velocity (checkpoints.md 4.9), VideoCrafter's with noise, on the plain schedule."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    root = (1 - betas).cumprod(0).sqrt()
    abar = root**2 if eps else ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    s, x, seen = scales(base).double(), rows(G["in.x_T"]).double(), []
    for t, before in zip(timesteps, [*timesteps[1:], 0]):
        a, a_prev = abar[t], abar[before]
        v = [network(x.float(), torch.full((FRAMES,), float(t)), G[f"in.context_{side}"].expand(FRAMES, -1, -1)).double() for side in ("cond", "uncond")]
        v = v[1] + cfg * (v[0] - v[1])
        e, x0 = (v, (x - (1 - a).sqrt() * v) / a.sqrt()) if eps else (a.sqrt() * v + (1 - a).sqrt() * x, a.sqrt() * x - (1 - a).sqrt() * v)
        seen.append((x, x0 / s[t]))
        x = a_prev.sqrt() * x0 * s[before] / s[t] + (1 - a_prev).sqrt() * e
    return [*seen, (x, None)]


@pytest.mark.parametrize("base, steps", [(0.7, 50), (0.3, 50), (0.7, 25), (1.0, 30)])
def test_rescaled_sampling_is_the_official_arithmetic(base, steps):
    timesteps = (torch.arange(1000, 0, -1000 / steps).round() - 1).int().tolist()
    m = tiny.model()
    m.model.diffusion_model._forward = network
    m.add_object_patch("model_sampling", sampling_of(base))
    none = torch.zeros(steps, *G["in.x_T"].shape)
    for i, (found, expected) in enumerate(zip(run(m, timesteps, none, 2.0, 0.0), by_hand(base, timesteps, 2.0), strict=True)):
        for a, b in zip(found, expected):
            assert b is None or tiny.difference(a, b.float()) <= 1e-4, i


@pytest.mark.parametrize("base, steps", [(0.7, 50), (0.3, 25), (1.0, 20)])
def test_so_it_is_for_models_that_predict_noise(base, steps):
    timesteps = [t + 1 for t in range(0, 1000, 1000 // steps)][::-1]
    m = tiny.model()
    m.model.diffusion_model._forward = network
    m.add_object_patch("model_sampling", sampling_of(base, eps=True))
    none = torch.zeros(steps, *G["in.x_T"].shape)
    for i, (found, expected) in enumerate(zip(run(m, timesteps, none, 2.0, 0.0), by_hand(base, timesteps, 2.0, eps=True), strict=True)):
        for a, b in zip(found, expected):
            assert b is None or tiny.difference(a, b.float()) <= 1e-4, i


@pytest.mark.parametrize("eps", [False, True])
def test_pure_noise_is_what_the_network_sees_first(eps):
    sampling, noise, z = sampling_of(0.3, eps), tiny.latents(2), tiny.latents(2, seed=5)
    first = sampling.sigmas[-1]
    seen = sampling.calculate_input(first[None], sampling.noise_scaling(first, noise, torch.zeros_like(z), max_denoise=True))
    assert tiny.difference(seen, noise) <= 1e-5
    sigma = sampling.sigmas[[120, 700]]
    for at in (sigma, sigma.view(-1, 1, 1, 1)):  # the latter where a mask keeps a part
        assert tiny.difference(sampling.noise_scaling(at, noise, z), z + sigma.view(-1, 1, 1, 1) * noise) <= 1e-6


def test_without_a_base_it_is_the_hosts_own():
    from comfy.model_sampling import V_PREDICTION, ModelSamplingDiscrete
    host = type("Host", (V_PREDICTION, ModelSamplingDiscrete), {})(SimpleNamespace(sampling_settings={"zsnr": True}))
    ours, x, v = sampling_of(1.0), tiny.latents(2), tiny.latents(2, seed=5)
    sigma = torch.tensor([20.0, 0.3])
    assert torch.equal(ours.sigmas[:-1], host.sigmas[:-1]) and host.sigma_max < ours.sigma_max < 5 * host.sigma_max
    assert torch.equal(ours.calculate_input(sigma, x), host.calculate_input(sigma, x))
    assert torch.equal(ours.calculate_denoised(sigma, v, x), host.calculate_denoised(sigma, v, x))


def test_levels_rise_and_the_table_is_the_published_one():
    for base in (0.7, 0.3):
        sampling = sampling_of(base)
        assert (sampling.sigmas.diff() > 0).all() and sampling.timestep(sampling.sigmas[[0, 399, 999]]).tolist() == [0, 399, 999]
    table = scales(0.7)
    assert table[0] == 1 and table[399] == pytest.approx(0.7) and table[999] == pytest.approx(0.7) and table[200] == pytest.approx(1 - 0.3 * 200 / 399)
