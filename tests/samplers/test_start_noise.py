"""Start noise as the host's samplers ask for it, and what it is refused for."""
from types import SimpleNamespace

import pytest
import torch
from firstframe.samplers.motion_noise import fresh_noise, motion_noise
from firstframe.samplers.noise_clip import clip_noise
from firstframe.samplers.start_noise import attention_noise, clipped_noise, noised_clip


@pytest.fixture
def inversion():
    z = torch.randn(3, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    return SimpleNamespace(trajectory=z, reconstruction=z[:1], eps_rec=z[1:2], sigmas=torch.tensor([0.0, 1.0, 4.0]), space=SimpleNamespace(process_out=lambda x: x / 2))


def clip_of(frames: int) -> dict:
    return {"samples": torch.zeros(frames, 4, 6, 5)}


def test_noise_follows_the_latent_it_is_used_with(inversion):
    mask = torch.rand(6, 5)
    noise = attention_noise(inversion, mask, 0.8, 3)
    for frames in (2, 5):
        want = motion_noise(inversion.eps_rec, mask[None, None], *fresh_noise((frames, 4, 6, 5), 3), 0.8)
        assert torch.equal(noise.generate_noise(clip_of(frames)), want) and noise.seed == 3


def test_any_noise_can_be_the_base_and_be_clipped(inversion):
    base = SimpleNamespace(seed=8, generate_noise=lambda latent: torch.ones_like(latent["samples"]))
    noise, reports = clipped_noise(base, inversion, 0.2, False, 4, (seen := []).append), seen
    out = noise.generate_noise(clip_of(3))
    want, report = clip_noise(torch.ones(3, 4, 6, 5), inversion.eps_rec, 4, 0.2)
    assert torch.equal(out, want) and reports == [report] and noise.seed == 8
    fresh = attention_noise(inversion, None, 0.0, 0, base).generate_noise(clip_of(2))
    assert torch.equal(fresh[1], torch.ones(4, 6, 5)) and torch.equal(fresh[:1], inversion.eps_rec)


def test_the_noised_clip_starts_at_the_inverted_latent(inversion):
    given = {**clip_of(4), "noise_mask": torch.ones(4, 1, 6, 5)}
    clip = noised_clip(inversion, attention_noise(inversion, None, 1.0, 3), given)
    assert clip["samples"].shape == (4, 4, 6, 5) and torch.equal(clip["samples"][:1], (inversion.reconstruction[:1] + 4 * inversion.eps_rec) / 2)
    assert clip["noise_mask"] is given["noise_mask"] and not given["samples"].any()


@pytest.mark.parametrize("shape, message", [((1, 4, 6, 5), "at least 2 frames, got 1"), ((2, 4, 8, 8), r"\[4, 6, 5\] .* \[2, 4, 8, 8\]"), ((1, 4, 3, 6, 5), "asked for")])
def test_latents_of_another_size(inversion, shape, message):
    for noise in (attention_noise(inversion, None, 1.0, 3), clipped_noise(attention_noise(inversion, None, 1.0, 3), inversion, 0.1, False, 0)):
        with pytest.raises(ValueError, match=message):
            noise.generate_noise({"samples": torch.zeros(shape)})


def test_masks_of_another_number_of_frames(inversion):
    with pytest.raises(ValueError, match="mask of 3 frames for a clip of 4"):
        attention_noise(inversion, torch.ones(3, 6, 5), 1.0, 3).generate_noise(clip_of(4))


@pytest.mark.parametrize("mask, message", [(torch.ones(0, 6, 5), r"an empty mask \[0, 6, 5\]"), (torch.ones(3), "an empty mask"), (torch.full((6, 5), float("nan")), "NaN or infinite")])
def test_masks_without_numbers(inversion, mask, message):
    with pytest.raises(ValueError, match=f"Motion Noise got .*{message}.* disconnect it"):
        attention_noise(inversion, mask, 1.0, 3)
