"""DDIM inversion of a picture's latent with the host's own sampler."""
import comfy.sample
import comfy.samplers
import latent_preview
import torch


def timestep_grid(steps: int, last: int, total: int = 1000) -> list[int]:
    """DDIM's `steps` timesteps, ascending, as far as `last`: 1, 1 + total//steps, ... (leading spacing, steps_offset 1)."""
    return [t for t in range(1, 1 + steps * (total // steps), total // steps) if t <= last]


def sigmas_of(model_sampling, timesteps) -> torch.Tensor:
    """Noise levels of the given timesteps."""
    return torch.stack([model_sampling.sigma(torch.tensor(float(t))).cpu().float() for t in timesteps])


def invert(model, z0: torch.Tensor, sigmas: torch.Tensor, positive, negative, cfg: float, seed: int = 0) -> torch.Tensor:
    """x at sigmas[-1] from z0 [B,C,h,w] (host latent space) along ascending sigmas; returns the noisy latent in the same space.

    DDIM inversion is Euler's method upwards in variance-exploding space. cfg 1 spends one model call per step.
    """
    sampler = comfy.samplers.sampler_object("euler")
    callback = latent_preview.prepare_callback(model, len(sigmas) - 1)
    return comfy.sample.sample_custom(model, torch.zeros_like(z0), cfg, sampler, sigmas, positive, negative, z0, callback=callback, seed=seed)
