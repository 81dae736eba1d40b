"""Frame Similarity Prior against the official numbers (golden i1), against Eq. 7 cell by cell, and what it refuses."""
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from comfy.model_sampling import EPS, ModelSamplingDiscrete
from firstframe.samplers.frame_similarity import (
    OFFICIAL,
    as_video,
    check_format,
    check_kernel,
    degrade,
    draws,
    first_latent,
    gaussian_blur,
    similar_frames,
)
from firstframe.samplers.start_level import schedule_from
from firstframe.tests.tiny_models import difference
from safetensors.torch import load_file

GOLDEN = Path(__file__).parents[1] / "golden" / "i1_i2v_adapter_pipeline.safetensors"
KERNEL, SIGMA = OFFICIAL["kernel"], OFFICIAL["sigma"]


@pytest.fixture(scope="module")
def g():
    return load_file(GOLDEN)


def frames_first(z: torch.Tensor) -> torch.Tensor:
    """(1,c,f,h,w) -> [F,C,h,w]."""
    return z[0].movedim(1, 0)


def slow_degrade(x, u, p, kernel, sigma):
    """The definition, one cell at a time; beyond the border the picture is mirrored around its last cell."""
    def mirrored(i, n):
        i = abs(i)
        return i if i < n else 2 * (n - 1) - i
    r = kernel // 2
    weights = {(i, j): math.exp(-(i * i + j * j) / (2 * sigma**2)) for i in range(-r, r + 1) for j in range(-r, r + 1)}
    total = sum(weights.values())
    out = torch.empty(u.shape, dtype=torch.float64)
    for f, c, i, j in torch.cartesian_prod(*map(torch.arange, u.shape)).tolist():
        h, w = u.shape[2:]
        blurred = sum(weight * x[0, c, mirrored(i + di, h), mirrored(j + dj, w)].item() for (di, dj), weight in weights.items()) / total
        out[f, c, i, j] = x[0, c, i, j] if u[f, c, i, j] >= p else blurred
    return out


def test_golden_degraded_frames(g):
    x = frames_first(g["in.first_frame_latent"])
    assert difference(gaussian_blur(x, KERNEL, SIGMA), g["out.blurred_first_frame"]) < 1e-5
    frames = torch.cat([x, degrade(x, frames_first(g["in.mask_uniform"])[1:], OFFICIAL["p"], KERNEL, SIGMA)])
    assert difference(frames, frames_first(g["out.degraded"])) < 1e-5


def test_golden_start_of_sampling(g):
    """The schedule, and the host's own way to add noise, in the official variance-preserving space. Frame 1 is put back there."""
    class Sampling(ModelSamplingDiscrete, EPS):
        pass
    betas = dict(beta_schedule="sqrt_linear", linear_start=0.00085, linear_end=0.012)
    sampling = Sampling(SimpleNamespace(sampling_settings=betas))
    sigmas, denoise = schedule_from(sampling, "ddim_uniform", 5, OFFICIAL["t0"], "test")
    assert [int(sampling.timestep(s)) for s in sigmas[:-1]] == g["out.timesteps"].tolist() and sigmas[-1] == 0 and denoise == 1
    x = sampling.noise_scaling(sigmas[0], frames_first(g["in.noise"]).clone(), frames_first(g["out.degraded"]), False)
    x = sampling.calculate_input(sigmas[0], x)
    want = frames_first(g["out.initial_latents"])
    assert difference(x[1:], want[1:]) < 1e-5 and torch.equal(want[:1], frames_first(g["in.first_frame_latent"]))


@pytest.mark.parametrize("p, kernel, sigma", [(0.5, 9, 18.0), (0.3, 3, 0.8), (1.0, 5, 2.0)])
def test_equals_definition(p, kernel, sigma):
    x, u = torch.randn(1, 2, 6, 7, generator=torch.Generator().manual_seed(1)), draws((2, 2, 6, 7), 4)
    torch.testing.assert_close(degrade(x, u, p, kernel, sigma).double(), slow_degrade(x, u, p, kernel, sigma), atol=1e-6, rtol=1e-5)


def test_p_is_the_share_that_is_blurred():
    x = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    frames = {p: similar_frames(x, 4, p, KERNEL, SIGMA, 7) for p in (0.0, 0.2, 0.7, 1.0)}
    assert torch.equal(frames[0.0], x.expand(4, -1, -1, -1))
    assert torch.equal(frames[1.0][1:], gaussian_blur(x, KERNEL, SIGMA).expand(3, -1, -1, -1)) and torch.equal(frames[1.0][:1], x)
    changed = {p: frames[p][1:] != x for p in frames}
    for p in (0.2, 0.7):
        assert abs(changed[p].float().mean() - p) < 0.02
    assert (changed[0.2] <= changed[0.7]).all()  # the same draws: what a smaller p blurs, a larger one does
    assert not torch.equal(changed[0.7][0], changed[0.7][1]) and not torch.equal(changed[0.7][0, 0], changed[0.7][0, 1])


def test_same_seed_same_bits_and_more_frames_leave_the_first_ones():
    x = torch.randn(1, 4, 8, 6, generator=torch.Generator().manual_seed(1))
    few, many = (similar_frames(x, n, 0.5, KERNEL, SIGMA, 3) for n in (3, 9))
    assert torch.equal(few, many[:3]) and not torch.equal(few, similar_frames(x, 3, 0.5, KERNEL, SIGMA, 4))


def test_half_precision_keeps_its_kind_and_what_is_not_blurred():
    x = torch.randn(1, 4, 8, 6, generator=torch.Generator().manual_seed(1)).half()
    out = similar_frames(x, 3, 0.5, KERNEL, SIGMA, 3)
    assert out.dtype == torch.float16 and 0.3 < (out[1:] == x).float().mean() < 0.7


def test_the_first_latent_of_a_video_and_back():
    z = torch.randn(1, 16, 3, 8, 6)
    assert torch.equal(first_latent(z, "N"), z[:, :, 0]) and torch.equal(first_latent(z[:, :, 0], "N"), z[:, :, 0])
    clip = torch.randn(5, 16, 8, 6)
    assert as_video(clip).shape == (1, 16, 5, 8, 6) and torch.equal(as_video(clip)[0, :, 4], clip[4])


@pytest.mark.parametrize("z, message", [
    (torch.zeros(2, 4, 8, 8), r"one picture .* got \[2, 4, 8, 8\]"),
    (torch.zeros(1, 16, 0, 8, 8), r"one picture .* got \[1, 16, 0, 8, 8\]"), (torch.zeros(2, 16, 3, 8, 8), "one picture"),
    (torch.zeros(0, 4, 8, 8), "one picture"), (torch.zeros(4, 8, 8), "one picture"), (torch.full((1, 4, 8, 8), float("nan")), "NaN"),
    (torch.full((1, 16, 2, 8, 8), float("inf")), "infinite"),
])
def test_what_is_no_first_frame_is_refused(z, message):
    with pytest.raises(ValueError, match=f"Some Node .*{message}"):
        first_latent(z, "Some Node")


def test_kernels_that_do_not_fit():
    x = torch.zeros(1, 4, 5, 9)
    check_kernel(9, x, "N")
    with pytest.raises(ValueError, match="N blurs .* odd 'kernel', got 4. Set it to 3 or 5"):
        check_kernel(4, x, "N")
    with pytest.raises(ValueError, match="N needs a latent of more than 5 cells .* 'kernel' of 11, got 5 x 9. .* set the kernel to 9 or less"):
        check_kernel(11, x, "N")


def test_latents_of_another_model():
    image, video = SimpleNamespace(latent_channels=4, latent_dimensions=2), SimpleNamespace(latent_channels=16, latent_dimensions=3)
    check_format(torch.zeros(1, 4, 8, 8), image, "SD", "N")
    check_format(torch.zeros(1, 16, 3, 8, 8), video, "Wan", "N")
    for z, form, want in ((torch.zeros(1, 4, 8, 8), video, r"\[1, 16, frames, height, width\]"), (torch.zeros(1, 16, 1, 8, 8), image, r"\[1, 4, height, width\]"),
                          (torch.zeros(1, 16, 8, 8), video, r"\[1, 16, frames, height, width\]"),
                          (torch.zeros(1, 16, 8, 8), image, r"\[1, 16, 8, 8\], and those .*\(M\)")):
        with pytest.raises(ValueError, match=f"N got .*{want}"):
            check_format(z, form, "M", "N")
