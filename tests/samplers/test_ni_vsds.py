"""NI-VSDS through the host's guider: the official numbers (golden f1), a slow derivation for each kind of model, masks, and what is refused."""
from pathlib import Path

import comfy.sample
import comfy.samplers
import pytest
import torch
from firstframe.attention_patches import clean_frame
from firstframe.samplers.beta_schedule import with_betas
from firstframe.samplers.ddim import sigmas_of
from firstframe.samplers.ni_vsds import AUTHORS, PAPER, Course, NIVSDSSampler, levels
from firstframe.tests import tiny_models as tiny
from firstframe.tests import video_models as video
from firstframe.tests.golden_stub import stub
from safetensors.torch import load_file

GOLDEN = Path(__file__).parents[1] / "golden" / "f1_ni_vsds_animatediff.safetensors"
OWN = Course((3.0, 0.5), 0.4)


def still(z: torch.Tensor, frames: int = 3) -> torch.Tensor:
    return z[:1].repeat(frames, 1, 1, 1) if z.ndim == 4 else z[:, :, :1].repeat(1, 1, frames, 1, 1)


def schedule(m, steps: int = 6) -> torch.Tensor:
    return comfy.samplers.calculate_sigmas(m.get_model_object("model_sampling"), "normal", steps)


def run(m, v, course=OWN, *, noise=None, sigmas=None, cfg=3.0, positive=None, negative=None, **rest) -> torch.Tensor:
    said = tiny.conditioning if v.ndim == 4 else video.conditioning
    noise = torch.randn(v.shape, generator=torch.Generator().manual_seed(8)) if noise is None else noise
    return comfy.sample.sample_custom(m, noise, cfg, NIVSDSSampler(course), schedule(m) if sigmas is None else sigmas, positive or said(1), negative or said(2), v,
                                      disable_pbar=True, seed=1, **rest)


def test_every_iteration_is_the_official_one():
    g = load_file(GOLDEN)
    frames = g["in.epsilon"].shape[2]
    model = tiny.model()
    model.model.diffusion_model._forward = stub(g, frames)
    m = with_betas(model, "sqrt_linear", 0.00085, 0.012, "N")
    space, of = m.get_model_object("latent_format"), g["out.timesteps_of_iterations"].tolist()
    sampling = m.get_model_object("model_sampling")
    grid = [of[0] - i * (of[0] - of[1]) for i in range(12)]
    sigmas, eps, seen = torch.cat([sigmas_of(sampling, grid), torch.zeros(1)]), g["in.epsilon"][0].transpose(0, 1), []
    context = [[[row[None], {}]] for row in g["in.context"]]
    out = run(m, space.process_out(still(g["in.anchor_latent"][:, :, 0], frames)), AUTHORS, noise=eps, sigmas=sigmas, cfg=7.5, positive=context[1], negative=context[0],
              callback=lambda i, x0, x, total: seen.append((x - sigmas[i] * eps, total)))
    assert len(levels(sigmas, sampling, AUTHORS)) == len(of) == len(seen) == seen[0][1]
    found = [z.transpose(0, 1)[None] for z in (*(z for z, _ in seen), space.process_in(out))]
    for i, (z, expected) in enumerate(zip(found, g["out.z_before_iteration_0_to_8"], strict=True)):
        assert tiny.difference(z, expected) <= 1e-5, i


def by_hand(m, v, eps, course, cfg=3.0):
    """x, eps_theta, w and the gradient as methods.md has them, for the kind of the model, one conditioning at a time."""
    space, said = m.get_model_object("latent_format"), tiny.conditioning if v.ndim == 4 else video.conditioning
    flow = v.ndim == 5
    v, sigmas = space.process_in(v).double(), schedule(m)
    extra = {"attention_mask": torch.ones(1, 7, dtype=torch.long), "frame_rate": 25} if flow else {}
    until = m.get_model_object("model_sampling").percent_to_sigma(1 - course.tau)
    for i, sigma in enumerate(s for s in sigmas[:-1].double() if s >= until - 1e-6):
        x = (1 - sigma) * v + sigma * eps if flow else v + sigma * eps
        D = [m.model.apply_model(x.float(), sigma.float().expand(len(x)), c_crossattn=said(seed)[0][0].repeat(len(x), 1, 1), **extra).double() for seed in (1, 2)]
        D = D[1] + cfg * (D[0] - D[1])
        eps_theta = (x - (1 - sigma) * D) / sigma if flow else (x - D) / sigma
        w = sigma**2 / (sigma**2 + (1 - sigma) ** 2) if flow else sigma**2 / (1 + sigma**2)
        v = v - course.alphas[min(i, len(course.alphas) - 1)] * w * (eps_theta - eps)
    return space.process_out(v)


@pytest.mark.parametrize("kind", ["SD1.5", "v-prediction", "Wan", "LTX"])
@torch.no_grad()
def test_equals_the_slow_derivation(kind):
    if kind in video.KINDS:
        m = video.model(kind)
        v = still(video.latent(m))
    else:
        m, v = tiny.model("SD1.5", **tiny.SMALL), still(tiny.latents(1))
        if kind == "v-prediction":
            from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
            m = ModelSamplingDiscrete().patch(m, "v_prediction", False)[0]
            m.patch_model()
    eps = torch.randn(v.shape, generator=torch.Generator().manual_seed(8))
    found = run(m, v)
    if kind == "v-prediction":
        m.patch_model()
    expected = by_hand(m, v, eps, OWN)
    assert tiny.difference(found, v) > 0.01 and tiny.difference(found, expected) < 1e-4


def test_the_papers_course_ends_at_tau_and_the_codes_one_step_later():
    m = with_betas(tiny.model("SD1.5", **tiny.SMALL), "sqrt_linear", 0.00085, 0.012, "N")
    sampling = m.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", 25)
    counts = [[int(sampling.timestep(torch.tensor(sigma))) for sigma in levels(sigmas, sampling, course)] for course in (PAPER, AUTHORS, Course((1.0,), 0.0))]
    assert counts[0] == list(range(961, 400, -40)) and counts[1] == list(range(961, 360, -40)) and counts[2] == list(range(961, 0, -40))
    assert len(levels(sigmas[-3:], sampling, AUTHORS)) == 2
    assert AUTHORS.alphas == (10, 10, 10, 1) and PAPER.alphas == (1,)


def test_a_short_schedule_takes_the_first_of_the_codes_step_sizes():
    m, v = tiny.model("SD1.5", **tiny.SMALL), still(tiny.latents(1))
    short = schedule(m, 3)
    assert torch.equal(run(m, v, AUTHORS, sigmas=short), run(m, v, Course((10.0, 10.0), 0.5), sigmas=short)) and len(levels(short, m.get_model_object("model_sampling"), AUTHORS)) == 2


def test_flow_models_end_at_the_shifted_time():
    sampling = video.model("Wan").get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", 10)
    found = levels(sigmas, sampling, PAPER)
    assert found == sigmas[:7].tolist() and found[-1] == pytest.approx(8 * 0.4 / (1 + 7 * 0.4))  # times 1, 0.9, .. 0.4 by Wan's shift of 8


def test_step_size_0_changes_nothing_and_a_mask_keeps_to_the_bit():
    m, v = tiny.model("SD1.5", **tiny.SMALL), still(tiny.latents(1))
    assert tiny.difference(run(m, v, Course((0.0,), 0.4)), v) < 1e-6  # the latent's scale there and back
    mask = torch.ones(3, 1, 16, 16)
    mask[0], mask[:, :, :4] = 0, 0
    kept, free = run(m, v, noise_mask=mask), run(m, v, Course((0.0,), 0.4))
    assert torch.equal(kept[0], free[0]) and torch.equal(kept[:, :, :4], free[:, :, :4]) and tiny.difference(kept[1:, :, 4:], v[1:, :, 4:]) > 0.01


def test_a_clean_first_frame_stays():
    m, v = tiny.model("SD1.5", **tiny.SMALL), still(tiny.latents(1))
    out = run(clean_frame.keep(m, v[:1], "N"), v)
    assert tiny.difference(out[:1], v[:1]) < 1e-6 and tiny.difference(out[1:], v[1:]) > 0.01


@pytest.mark.parametrize("kind", ["Wan i2v", "LTX"])
def test_image_to_video_models(kind):
    m = video.model(kind)
    v = still(video.latent(m))
    said = {}
    if kind == "LTX":
        said["noise_mask"] = torch.cat([torch.zeros(1, 1, 1, 8, 8), torch.ones(1, 1, 2, 8, 8)], 2)
    else:
        concat = dict(concat_latent_image=v, concat_mask=torch.cat([torch.zeros(1, 1, 1, 8, 8), torch.ones(1, 1, 2, 8, 8)], 2))
        said.update(positive=video.conditioning(1, **concat), negative=video.conditioning(2, **concat))
    out = run(m, v, **said)
    assert tiny.difference(out, v) > 0.01 and torch.isfinite(out).all()
    if kind == "LTX":
        assert tiny.difference(out[:, :, :1], v[:, :, :1]) < 1e-6


def test_same_seed_same_bits_and_the_model_samples_as_before():
    m, v = tiny.model("SD1.5", **tiny.SMALL), still(tiny.latents(1))
    before = tiny.sample(m, v)
    first = run(m, v)
    assert torch.equal(first, run(m, v)) and torch.equal(tiny.sample(m, v), before)


@pytest.mark.parametrize("v, rest, message", [
    (torch.ones(1, 4, 16, 16), {}, "at least 2, got 1. Repeat the picture's latent"),
    (torch.zeros(3, 4, 16, 16), {}, "empty latent"),
    (torch.ones(3, 4, 16, 16), {"noise": torch.zeros(3, 4, 16, 16)}, "no noise. Connect RandomNoise"),
    (torch.ones(3, 4, 16, 16), {"sigmas": torch.tensor([1.0, 2.0, 3.0])}, "fall from step to step, got 1, 2, 3"),
    (torch.ones(3, 4, 16, 16), {"sigmas": torch.tensor([1.0, 1.0, 0.0])}, "fall from step to step"),
    (torch.ones(3, 4, 16, 16), {"sigmas": torch.tensor([float("nan"), 0.0])}, "fall from step to step"),
    (torch.ones(3, 4, 16, 16), {"sigmas": torch.tensor([3.0])}, "a schedule without steps"),
    (torch.ones(3, 4, 16, 16), {"sigmas": torch.tensor([0.5, 0.2, 0.0])}, "begins at sigma 0.5, below tau = 0.4"),
    (torch.ones(3, 4, 16, 16), {"course": Course((1.0,) * 7, 0.0)}, "7 step sizes for 6 iterations"),
    (torch.ones(3, 4, 16), {}, "Audio, 3D shapes"),
])
def test_what_is_refused(v, rest, message):
    m = tiny.model("SD1.5", **tiny.SMALL)
    with pytest.raises(ValueError, match=f"NI-VSDS .*{message}"):
        run(m, v, positive=tiny.conditioning(1), negative=tiny.conditioning(2), **rest)
