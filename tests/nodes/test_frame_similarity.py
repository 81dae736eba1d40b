"""Frame Similarity Prior: layouts, mask, preset, what it refuses; and a clip of a tiny Wan through the host's sampler."""
import comfy.sample
import comfy.samplers
import pytest
import torch
from firstframe.nodes.frame_similarity import AUTHORS, OWN, FrameSimilarityPrior
from firstframe.samplers.first_frame import picture_to_frames
from firstframe.samplers.frame_similarity import similar_frames
from firstframe.tests import tiny_models, video_models

DEFAULTS = dict(frames=3, p=0.5, t0=0.8, seed=4, scheduler="normal", steps=6, keep_first=True, preset=OWN)


@pytest.fixture(scope="module")
def model():
    return tiny_models.model("SD1.5", **tiny_models.SMALL)


@pytest.fixture(scope="module")
def wan():
    return video_models.model("Wan")


def run(model, z, **rest):
    return FrameSimilarityPrior.execute(model, {"samples": z, "other": "kept", "batch_index": [3], "noise_mask": torch.ones(1, 1, 8, 8)}, **{**DEFAULTS, **rest}).result


def latent(channels=4, size=8, frames=None):
    return torch.randn(1, channels, *([] if frames is None else [frames]), size, size, generator=torch.Generator().manual_seed(2))


def test_frames_along_the_batch(model):
    z = latent()
    out, sigmas, denoise = run(model, z)
    assert torch.equal(out["samples"], similar_frames(z, 3, 0.5, 9, 18.0, 4)) and out["other"] == "kept" and "batch_index" not in out
    assert torch.equal(out["noise_mask"], picture_to_frames(z, 3, True)[1]) and "noise_mask" not in run(model, z, keep_first=False)[0]
    assert len(sigmas) == 7 and 0.7 < denoise < 0.9


@pytest.mark.parametrize("frames", [1, 4])
def test_frames_of_a_video_latent(wan, frames):
    z = latent(16, frames=frames)
    out = run(wan, z)[0]
    images = similar_frames(z[:, :, 0], 3, 0.5, 9, 18.0, 4)
    assert out["samples"].shape == (1, 16, 3, 8, 8) and all(torch.equal(out["samples"][0, :, i], images[i]) for i in range(3))
    assert out["noise_mask"].shape == (1, 1, 3, 8, 8) and not out["noise_mask"][:, :, 0].any() and out["noise_mask"][:, :, 1:].all()


def test_p_0_is_the_repeated_picture(model, wan):
    assert torch.equal(run(model, z := latent(), p=0.0)[0]["samples"], z.repeat(3, 1, 1, 1))
    assert torch.equal(run(wan, z := latent(16, frames=1), p=0.0)[0]["samples"], z.repeat(1, 1, 3, 1, 1))


def test_the_official_constants(model):
    z = latent()
    (out, sigmas, denoise), (want, whole, _) = (run(model, z, p=0.1, t0=0.3, kernel=3, sigma=1.0, preset=AUTHORS), run(model, z, p=0.5, t0=1.0, kernel=9, sigma=18.0))
    assert torch.equal(out["samples"], want["samples"]) and torch.equal(sigmas, whole) and denoise == 1
    assert not torch.equal(run(model, z, p=0.5, kernel=3, sigma=1.0)[0]["samples"], want["samples"])


def test_a_video_is_sampled_and_its_first_frame_kept(wan):
    z = latent(16, frames=1)
    out, sigmas, _ = run(wan, z, steps=2, t0=0.6)
    text = [[torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(1)), {}]]
    noise = comfy.sample.prepare_noise(out["samples"], 1)
    got = comfy.sample.sample_custom(wan, noise, 1.0, comfy.samplers.sampler_object("euler"), sigmas, text, text, out["samples"], noise_mask=out["noise_mask"], disable_pbar=True, seed=1)
    assert got.shape == (1, 16, 3, 8, 8) and torch.isfinite(got).all()
    torch.testing.assert_close(got[:, :, :1], z, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(got[:, :, 1], z[:, :, 0], atol=1e-2)


@pytest.mark.parametrize("z, rest, message", [
    (torch.zeros(2, 4, 8, 8), {}, r"one picture .* got \[2, 4, 8, 8\]"), (torch.zeros(1, 4, 8, 0), {}, "one picture"), (torch.full((1, 4, 8, 8), float("nan")), {}, "NaN"),
    (torch.zeros(1, 4, 4, 8), {}, "more than 4 cells a side .* got 4 x 8"), (torch.zeros(1, 4, 8, 8), {"kernel": 4}, "odd 'kernel'"), (torch.zeros(1, 16, 8, 8), {}, "this model's own VAE"),
    (torch.zeros(1, 4, 1, 8, 8), {}, "this model's own VAE"), (torch.zeros(1, 4, 8, 8), {"frames": 1}, "from 2 to 256 in 'frames', got 1"),
    (torch.zeros(1, 4, 8, 8), {"t0": 0.0}, "in 't0', got 0.0"), (torch.zeros(1, 4, 8, 8), {"scheduler": "none"}, "no choice in 'scheduler'"),
])
def test_what_it_refuses(model, z, rest, message):
    with pytest.raises(ValueError, match=f"Frame Similarity Prior .*{message}"):
        run(model, z, **rest)
