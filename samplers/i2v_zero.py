"""I2V-Zero: Text2Video-Zero started from a picture, the baseline of the PiLife paper (its section 4.1).

Text2Video-Zero denoises one frame from pure noise, keeps it at two noise levels, translates the lower one for the other
frames and re-noises those to the higher. Here the first frame's latents come from DDIM inversion of the picture.
"""
import torch

from .ddim import invert, sigmas_of, timestep_grid
from .latent_translation import renoise, translate


def start_latents(x_t0: torch.Tensor, x_t1: torch.Tensor, frames: int, sigma_t0: float, sigma_t1: float, dx: float, dy: float, eps) -> torch.Tensor:
    """[frames,C,h,w] at sigma_t1: frame 1 is x_t1 itself, the others x_t0 translated and re-noised with eps [frames-1,C,h,w]."""
    moved = translate(x_t0.expand(frames - 1, *x_t0.shape[1:]), dx, dy)
    return torch.cat([x_t1, renoise(moved, sigma_t0, sigma_t1, eps)])


def prepare(model, z0, positive, negative, *, frames, dx, dy, t0, t1, steps, cfg, seed):
    """(latents [frames,C,h,w] at t1 in the host's latent space, sigmas from t1 down to 0).

    z0 [1,C,h,w] is the picture's latent. t0 <= t1: timesteps (881 and 941 of 50 steps are the official values).
    """
    sampling, space = model.get_model_object("model_sampling"), model.get_model_object("latent_format")
    up = sigmas_of(sampling, timestep_grid(steps, t1))
    low = len(timestep_grid(steps, t0))
    x_t0 = invert(model, z0, up[:low], positive, negative, cfg, seed)
    x_t1 = invert(model, x_t0, up[low - 1:], positive, negative, cfg, seed) if low < len(up) else x_t0
    eps = torch.randn(frames - 1, *z0.shape[1:], generator=torch.Generator().manual_seed(seed))
    x = start_latents(space.process_in(x_t0), space.process_in(x_t1), frames, float(up[low - 1]), float(up[-1]), dx, dy, eps)
    return space.process_out(x), torch.cat([up.flip(0), torch.zeros(1)])
