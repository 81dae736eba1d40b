"""DynamiCrafter's published sampling through the host: 50 steps of a small UNet against its arithmetic written out slowly, for each version; and golden j."""
from pathlib import Path

import comfy.sample
import comfy.samplers
import pytest
import torch
from firstframe.samplers.dynamic_rescale import scales
from firstframe.samplers.dynamicrafter import beside_noise
from firstframe.samplers.lvdm_ddim import level, lvdm_ddim, sample_lvdm_ddim, shares
from firstframe.samplers.multi_condition import MultiConditionGuider
from firstframe.tests import tiny_models as tiny
from firstframe.tests.golden_stub import stub
from firstframe.tests.networks.test_lvdm_model import G, model
from firstframe.tests.samplers.test_dynamic_rescale import rows
from safetensors.torch import load_file

GOLDEN = Path(__file__).parents[1] / "golden" / "j_dynamicrafter_ddim_256.safetensors"
F, STEPS, CFG = 4, 50, 2.0
VERSIONS = {  # base of the dynamic rescale, spacing in the host's words, guidance rescale, fps or frame stride
    "256": (None, "ddim_uniform", 0.0, 3), "512": (0.7, "simple", 0.7, 24), "1024": (0.3, "simple", 0.7, 10), "interpolation": (0.7, "simple", 0.7, 5)}


def draws(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, F, 4, 8, 4, generator=torch.Generator().manual_seed(seed))


def said(version: str) -> dict:
    """{side: CONDITIONING}: the prompt with the picture, the empty prompt with none, the empty prompt with the picture. The latents beside the noise are the same in all."""
    text, tokens = G["in.context"][:, :77], G["in.context"][:, 77:]
    z = draws(2, 3)[:, 0]
    options = {"fps": VERSIONS[version][3], "concat_latent_image": beside_noise(z[:1], z[1:] if version == "interpolation" else None, F)}
    return {"positive": [[text[:1], {"image_tokens": tokens[:1], **options}]], "negative": [[text[1:], {"image_tokens": tokens[1:], **options}]],
            "no text": [[text[1:], {"image_tokens": tokens[:1], **options}]]}


def official(m, version: str, eta: float, noise: torch.Tensor, per_step: torch.Tensor, image_cfg: float) -> list:
    """The latent before each step and after the last, as checkpoints.md 4.8 and 4.9 have it, in float64 but for the network."""
    base, _, phi, fps = VERSIONS[version]
    abar = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
    if base:
        root = abar.sqrt()
        abar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    timesteps = [round(1000 - 20 * i) - 1 for i in range(STEPS)] if base else [981 - 20 * i for i in range(STEPS)]
    s = scales(base).double() if base else torch.ones(1000, dtype=torch.float64)
    x, seen, sides = noise.double(), [], said(version)

    def network(x, t, side):
        text, options = sides[side][0]
        z = options["concat_latent_image"].expand(F, -1, -1, -1) * 0.18215
        return m.model.diffusion_model(torch.cat([x.float(), z], 1), torch.full((F,), float(t)), text.expand(F, -1, -1), image_tokens=options["image_tokens"].expand(F, -1, -1),
                                       fps=torch.full((F,), float(fps)), transformer_options={"cond_or_uncond": [0]}).double()

    for i, t in enumerate(timesteps):
        last = i == STEPS - 1
        a, a_prev = abar[t], abar[0] if last else abar[timesteps[i + 1]]
        grow = 1.0 if last else s[timesteps[i + 1]] / s[t]
        c, u, u_img = (network(x, t, side) for side in ("positive", "negative", "no text"))
        o = u + image_cfg * (u_img - u) + CFG * (c - u_img)
        o = phi * o * c.std() / o.std() + (1 - phi) * o
        e, x0 = (a.sqrt() * o + (1 - a).sqrt() * x, a.sqrt() * x - (1 - a).sqrt() * o) if base else (o, (x - (1 - a).sqrt() * o) / a.sqrt())
        sigma = eta * ((1 - a_prev) / (1 - a) * (1 - a / a_prev)).sqrt()
        seen.append(x)
        x = a_prev.sqrt() * x0 * grow + (1 - a_prev - sigma**2).clamp(min=0).sqrt() * e + sigma * per_step[i]
    return [*seen, x]


def guider(m, version: str, image_cfg: float) -> MultiConditionGuider:
    made = MultiConditionGuider(m)
    made.set_conds(said(version)["positive"], said(version)["negative"])
    made.set_cfg(CFG, image_cfg, VERSIONS[version][2])
    return made


def through_the_host(m, version: str, eta: float, noise: torch.Tensor, per_step: torch.Tensor, image_cfg: float) -> list:
    sampling, drawn, seen = m.get_model_object("model_sampling"), iter(per_step), []
    sampler = comfy.samplers.KSAMPLER(sample_lvdm_ddim, {"eta": eta, "noise_sampler": lambda *_: next(drawn)})
    sigmas = comfy.samplers.calculate_sigmas(sampling, VERSIONS[version][1], STEPS)
    out = guider(m, version, image_cfg).sample(noise, torch.zeros_like(noise), sampler, sigmas, seed=0, disable_pbar=True,
                                               callback=lambda i, x0, x, total: seen.append(sampling.calculate_input(sigmas[i:i + 1], x)))
    return [*seen, m.get_model_object("latent_format").process_in(out)]


@pytest.mark.parametrize("eta, image_cfg", [(0.0, CFG), (1.0, 3.5)])
@pytest.mark.parametrize("version", VERSIONS)
@torch.no_grad()
def test_all_steps_are_the_published_ones(version, eta, image_cfg):
    m, noise, per_step = model(VERSIONS[version][0]), draws(1, 1)[0], draws(STEPS, 2)
    found = through_the_host(m, version, eta, noise, per_step, image_cfg)
    m.patch_model()
    expected = official(m, version, eta, noise, per_step, image_cfg)
    m.unpatch_model()
    worst = [tiny.difference(a, b) for a, b in zip(found, expected, strict=True)]
    assert max(worst) <= 1e-4, worst


def test_golden_numbers_of_256_to_the_last_step():
    g = load_file(GOLDEN)
    frames, net = 4, stub(g, 4)
    m, concat, drawn, seen = tiny.model(), rows(g["in.c_concat"]), iter(g["in.noise_per_step"]), []
    m.model.diffusion_model._forward = lambda x, t, context, *args, **kwargs: net(torch.cat([x, concat.repeat(len(x) // frames, 1, 1, 1)], 1), t, context)
    sampling, space = m.get_model_object("model_sampling"), m.get_model_object("latent_format")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", 10)
    assert sampling.timestep(sigmas[:-1]).tolist() == g["out.timesteps_descending"].tolist()
    sampler = comfy.samplers.KSAMPLER(sample_lvdm_ddim, {"noise_sampler": lambda *_: rows(next(drawn))})
    noise = rows(g["in.x_T"])
    out = comfy.sample.sample_custom(m, noise, 7.5, sampler, sigmas, [[g["in.context_cond"], {}]], [[g["in.context_uncond"], {}]], torch.zeros_like(noise), disable_pbar=True,
                                     callback=lambda i, x0, x, total: seen.append((sampling.calculate_input(sigmas[i:i + 1], x), x0)), seed=0)
    latents = [*[x for x, _ in seen[1:]], space.process_in(out)]
    for found, expected in zip([*latents, *[x0 for _, x0 in seen]], [*g["out.latents_after_step"], *g["out.pred_x0_after_rescale"]], strict=True):
        assert tiny.difference(found, rows(expected)) <= 1e-4


def run(m, z=None, sampler=None, sigmas=None, steps=4, seed=7, **rest) -> torch.Tensor:
    z = torch.zeros(3, 4, 16, 16) if z is None else z
    sigmas = comfy.samplers.calculate_sigmas(m.get_model_object("model_sampling"), "simple", steps) if sigmas is None else sigmas
    return comfy.sample.sample_custom(m, tiny.latents(len(z), seed=9), 3.0, sampler or lvdm_ddim(1.0, False), sigmas, tiny.conditioning(1), tiny.conditioning(2), z, seed=seed,
                                      disable_pbar=True, **rest)


def small(kind: str = "eps"):
    m = tiny.model("SD1.5", **tiny.SMALL)
    if kind != "eps":
        from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
        m = ModelSamplingDiscrete().patch(m, "v_prediction", kind == "v, zero SNR")[0]
    return m


@pytest.mark.parametrize("kind, eta", [("eps", 0.0), ("eps", 0.6), ("eps", 1.0), ("v", 0.0), ("v", 1.0), ("v, zero SNR", 0.0)])
def test_with_a_clean_end_it_is_the_hosts(kind, eta):
    m = small(kind)
    stock = comfy.samplers.ksampler("euler_ancestral", {"eta": eta})
    most = 1e-3 if "zero" in kind else 1e-5  # of zero SNR the host makes abar = 4.9e-8
    assert tiny.difference(run(m, sampler=lvdm_ddim(eta, False)), run(m, sampler=stock)) <= most


def test_behind_zero_snr_nothing_of_the_old_noise_is_left_with_eta_1():
    m = small("v, zero SNR")
    sampling = m.get_model_object("model_sampling")
    now, then = (level(sampling, sampling.sigmas[t].double()) for t in (999, 979))
    assert now.abar == 0 and shares(now, then, 1.0)[0] < 1e-7 < 0.02 < shares(now._replace(abar=4.9e-8), then, 1.0)[0]  # the last is what stays of it in the host's


def test_a_later_start_and_an_earlier_end():
    m, z = small(), tiny.latents(3)
    sigmas = comfy.samplers.calculate_sigmas(m.get_model_object("model_sampling"), "normal", 6)
    stock, ours = comfy.samplers.ksampler("euler_ancestral"), lvdm_ddim(1.0, True)
    assert tiny.difference(run(m, z, ours, sigmas[2:5]), run(m, z, stock, sigmas[2:5])) <= 1e-5  # the published end is that of the schedule's last step alone
    assert torch.equal(run(m, z, ours, sigmas[:1]), run(m, z, stock, sigmas[:1])) and torch.equal(run(m, z, ours, sigmas[-1:]), run(m, z, stock, sigmas[-1:]))
    assert torch.isfinite(run(small("v, zero SNR"), steps=1, sampler=ours)).all()


def test_the_published_end_has_noise_and_the_clean_one_none():
    m = small()
    clean, noisy = run(m), run(m, sampler=lvdm_ddim(1.0, True))
    rest = m.get_model_object("latent_format").process_in(noisy - clean * 0.99915**0.5)
    assert 0.9 < rest.std() / (1 - 0.99915) ** 0.5 < 1.1


@pytest.mark.parametrize("as_published", [True, False])
def test_a_mask_keeps_to_the_bit(as_published):
    m, z = small(), tiny.latents(3)
    mask = torch.ones(3, 1, 16, 16)
    mask[0], mask[:, :, :4] = 0, 0
    out, same = run(m, z, lvdm_ddim(1.0, as_published), noise_mask=mask), m.get_model_object("latent_format")
    same = same.process_out(same.process_in(z))
    assert torch.equal(out[0], same[0]) and torch.equal(out[:, :, :4], same[:, :, :4]) and tiny.difference(out[1:, :, 4:], z[1:, :, 4:]) > 0.01


def test_same_seed_same_bits_however_the_batch_is_split(monkeypatch):
    m = small()
    together = run(m)
    assert torch.equal(run(m), together) and not torch.equal(run(m, seed=8), together)
    monkeypatch.setattr(type(m.model), "memory_required", lambda *_, **__: 1e15)
    assert tiny.difference(run(m), together) <= 1e-5


@pytest.mark.parametrize("base, scheduler", [(None, "ddim_uniform"), (0.7, "simple"), (0.3, "simple")])
@pytest.mark.parametrize("steps", [10, 20, 25, 40, 50, 100])
def test_the_published_levels_are_stock_ones(base, scheduler, steps):
    sampling = model(base).get_model_object("model_sampling")
    published = range(1, 1001, 1000 // steps) if base is None else (torch.arange(1000, 0, -1000 / steps).round() - 1).int().tolist()[::-1]
    sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, steps)
    assert torch.equal(sigmas, torch.cat([sampling.sigmas[list(published)].flip(0), torch.zeros(1)]))


def test_where_the_steps_do_not_divide_1000_simple_is_at_most_one_timestep_off():
    sampling = model(0.7).get_model_object("model_sampling")
    for steps in (12, 15, 30, 35, 60):
        found = sampling.timestep(comfy.samplers.calculate_sigmas(sampling, "simple", steps)[:-1])
        assert (found - (torch.arange(1000, 0, -1000 / steps).round() - 1)).abs().max() <= 1, steps


def levels(*sigmas) -> dict:
    return {"sigmas": torch.tensor(sigmas)}


@pytest.mark.parametrize("rest, message", [
    (levels(1.0, 2.0, 3.0), "fall from step to step, got 1, 2, 3"), (levels(1.0, 1.0, 0.0), "fall from step to step"), (levels(float("nan"), 0.0), "fall from step to step"),
    (levels(100.0, 0.0), "begin at 100, above the model's highest noise level, 14.61. Connect the same model"),
])
def test_what_is_refused(rest, message):
    with pytest.raises(ValueError, match=f"DynamiCrafter Sampler .*{message}"):
        run(small(), **rest)


@pytest.mark.parametrize("patch", ["flow", "EDM"])
def test_models_without_its_levels_are_refused(patch):
    from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM, ModelSamplingSD3
    m = ModelSamplingSD3().patch(small(), 3.0)[0] if patch == "flow" else ModelSamplingContinuousEDM().patch(small(), "edm", 120.0, 0.002)[0]
    with pytest.raises(ValueError, match="1000 noise levels .* Choose another sampler"):
        run(m)
