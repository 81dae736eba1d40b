"""NOISE objects of a clip that starts from a picture's inversion, for the host's custom samplers, and the same as a noised LATENT."""
from collections.abc import Callable

import torch

from .motion_noise import fresh_noise, mask_to_attention, motion_noise
from .noise_clip import clip_noise


class StartNoise:
    """A host NOISE. make(shape [F,C,h,w], latent) -> noise; seed as the host's own NOISE has it."""

    def __init__(self, make: Callable, seed: int):
        self.make, self.seed = make, seed

    def generate_noise(self, latent: dict) -> torch.Tensor:
        return self.make(tuple(latent["samples"].shape), latent)


def check_size(shape, inversion, who: str) -> None:
    """Raises ValueError unless shape [F,C,h,w] has the inversion's C, h, w and at least two frames."""
    own = tuple(inversion.trajectory.shape[1:])
    if len(shape) != 4 or tuple(shape[1:]) != own:
        raise ValueError(
            f"{who} belongs to an inversion of latents {list(own)} and is asked for noise of {list(shape)}. "
            f"Sample a clip of the inverted picture: connect Motion-Aware Inversion's latent to Picture to Frames and that to the sampler."
        )
    if shape[0] < 2:
        raise ValueError(f"{who} makes the noise of a clip and needs at least 2 frames, got {shape[0]}. Give the latent one entry per frame with Picture to Frames.")


def check_mask(mask: torch.Tensor, who: str, name: str = "motion") -> None:
    """Raises ValueError unless mask [h,w] or [F,h,w] holds finite values, at least one. name: of the input that it came from."""
    if mask.ndim < 2 or not mask.numel() or not torch.isfinite(mask).all():
        what = f"an empty mask {list(mask.shape)}" if mask.ndim < 2 or not mask.numel() else "a mask with NaN or infinite values"
        raise ValueError(f"{who} got {what}, it needs numbers from 0 to 1 of [height, width] or [frames, height, width]. Look at the node connected to '{name}', or disconnect it.")


def drawn(noise, latent: dict, who: str, name: str) -> torch.Tensor:
    """What a NOISE of another node makes for the latent. Raises ValueError unless it is finite and of the same shape. name: of the node's input."""
    eps, shape = noise.generate_noise(latent), latent["samples"].shape
    if eps.shape != shape or not torch.isfinite(eps).all():
        what = "NaN or infinite values" if eps.shape == shape else f"one of {list(eps.shape)}"
        raise ValueError(f"{who} asked {name!r} for noise of {list(shape)} and got {what}. Connect another noise, such as RandomNoise.")
    return eps


def attention_noise(inversion, mask: torch.Tensor | None, eta: float, seed: int, base=None) -> StartNoise:
    """Eq. 7-10 and 12 as NOISE. mask: A (None: 1 everywhere); base: the NOISE that Eq. 12's epsilon comes from (None: drawn from the seed)."""
    who = "Motion Noise"
    if mask is not None:
        check_mask(mask, who)

    def make(shape, latent):
        check_size(shape, inversion, who)
        eps, eps_guided = fresh_noise(shape, seed)
        eps = eps if base is None else drawn(base, latent, who, "base")
        A = torch.ones(1, 1, *shape[-2:]) if mask is None else mask_to_attention(mask, *shape[-2:])
        if len(A) not in (1, shape[0]):
            raise ValueError(f"{who} got a mask of {len(A)} frames for a clip of {shape[0]}. Give it one mask, or one for each frame.")
        return motion_noise(inversion.eps_rec, A, eps, eps_guided, eta)
    return StartNoise(make, seed if base is None else base.seed)


def clipped_noise(noise, inversion, margin: float, restore: bool, seed: int, seen: Callable = lambda report: None) -> StartNoise:
    """Algorithm 1 over any NOISE; seen(report) gets the norms of each frame, see clip_noise."""
    def make(shape, latent):
        check_size(shape, inversion, "Noise Clipper")
        gamma, report = clip_noise(drawn(noise, latent, "Noise Clipper", "noise"), inversion.eps_rec, seed, margin, restore)
        seen(report)
        return gamma
    return StartNoise(make, noise.seed)


def noised_clip(inversion, noise, clip: dict) -> dict:
    """The LATENT `clip` with z*_t [F,C,h,w] of Eq. 7 for samples, in the host's latent space: the reconstruction plus sigma_t times the noise of each frame."""
    x = inversion.reconstruction[:1] + inversion.sigmas[-1] * noise.generate_noise(clip)
    return {**clip, "samples": inversion.space.process_out(x)}
