"""DDIM as DynamiCrafter's published code has it (Song et al. 2021, Eq. 12 and 16), with its own start and end.

The host's y = x0 + sigma eps is what the network sees as x = c y, where c sigma = sqrt(1 - abar). With D the model's prediction of x0 after guidance, a step is

    e = (x - c D) / sqrt(1 - abar)        x_prev = c_prev D + sqrt(1 - abar_prev - s^2) e + s n        s = eta sqrt((1 - abar_prev) / (1 - abar) (1 - abar / abar_prev))

Usually c = sqrt(abar), and then this is the host's euler_ancestral but for start and end. With dynamic rescale c = s_t sqrt(abar): the host's has sigma / s_t in place of sigma
in the shares of old and new noise. Shapes: x, D, n [F,C,h,w], in the space of the model's latents.
"""
import math
from typing import NamedTuple

import torch
from comfy.k_diffusion.sampling import default_noise_sampler
from comfy.model_sampling import EPS, IMG_TO_IMG, ModelSamplingDiscrete
from comfy.samplers import KSAMPLER
from comfy.utils import model_trange

WHO = "DynamiCrafter Sampler"


class Level(NamedTuple):
    """c; s_t of the dynamic rescale, 1 without; abar."""

    c: float
    s: float
    abar: float

    @property
    def a(self) -> float:
        """x = a D + sqrt(1 - abar) e; c, but for the level where abar is 0."""
        return self.s * math.sqrt(self.abar)


CLEAN = Level(1.0, 1.0, 1.0)


def level(sampling, sigma: torch.Tensor) -> Level:
    """Of a noise level [] in float64, through what the model's own `calculate_input` makes of it.

    The last level of models with zero terminal SNR has abar = 0. The host writes a small number instead, which with eta 1 would keep some per cent of the old noise.
    """
    c = float(sampling.calculate_input(sigma, torch.ones(1, dtype=torch.float64)))
    abar = 1 - (c * float(sigma)) ** 2
    return Level(c, c / math.sqrt(abar), 0.0 if sampling.zsnr and math.isclose(sigma, sampling.sigma_max, rel_tol=1e-5) else abar)


def shares(now: Level, then: Level, eta: float) -> tuple[float, float]:
    """(sqrt(1 - abar_prev - s^2), s): of the old noise and of the new. The first is clamped: behind abar = 0 it is the root of a rounding error."""
    s = eta * math.sqrt((1 - then.abar) / (1 - now.abar) * max(0.0, 1 - now.abar / then.abar))
    return math.sqrt(max(0.0, 1 - then.abar - s * s)), s


def check(sampling, sigmas: list[float]) -> None:
    """Raises ValueError for models without abar, and for a schedule that is none."""
    if not isinstance(sampling, ModelSamplingDiscrete) or not isinstance(sampling, EPS) or isinstance(sampling, IMG_TO_IMG):
        raise ValueError(f"{WHO} needs a model of 1000 noise levels that predicts noise or velocity: DynamiCrafter, SD1.5, SDXL and the like. "
                         f"Choose another sampler in KSamplerSelect for this one, or take away the Model Sampling node (flow, EDM) before it.")
    if not all(math.isfinite(sigma) for sigma in sigmas) or any(b >= a for a, b in zip(sigmas, sigmas[1:])):
        raise ValueError(f"{WHO} needs 'sigmas' that fall from step to step, got {', '.join(f'{sigma:.4g}' for sigma in sigmas[:8])}{', ...' if len(sigmas) > 8 else ''}. "
                         f"Connect Basic Scheduler, without Flip Sigmas.")
    if sigmas[0] > float(sampling.sigma_max) * 1.001:
        raise ValueError(f"{WHO} got 'sigmas' that begin at {sigmas[0]:.4g}, above the model's highest noise level, {float(sampling.sigma_max):.4g}. "
                         f"Connect the same model to Basic Scheduler and to the guider.")


@torch.no_grad()
def sample_lvdm_ddim(model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, end_as_published=True, noise_sampler=None):
    """The host's signature of a sampler; x comes as the host's y. noise_sampler(sigma, sigma_next): n of that step."""
    sampling, extra_args = model.inner_model.inner_model.model_sampling, extra_args or {}
    check(sampling, sigmas.tolist())
    if len(sigmas) < 2:
        return x
    noise_sampler = noise_sampler or default_noise_sampler(x, seed=extra_args.get("seed"))
    levels = [level(sampling, sigma) if sigma else CLEAN for sigma in sigmas.double().cpu()]
    ends_clean, ones = levels[-1] == CLEAN, x.new_ones(len(x))
    if ends_clean and end_as_published and extra_args.get("denoise_mask") is None:  # what a mask keeps shall get no noise
        levels[-1] = levels[-2]._replace(abar=level(sampling, sampling.sigmas[0].double().cpu()).abar)  # its last step leads to the lowest of the 1000 levels, at the same s_t
    empty = model.latent_image is None or not torch.count_nonzero(model.latent_image)
    x = model.noise if empty else x * levels[0].c  # published: the clip begins as nothing but noise of variance 1, at any first level
    for i in model_trange(len(sigmas) - 1, disable=disable):
        now, then = levels[i], levels[i + 1]
        y = x / now.c
        D = model(y, sigmas[i] * ones, **extra_args)
        if callback is not None:
            callback({"x": y, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": D})
        old, s = shares(now, then, eta)
        e = (x - now.a * D) / math.sqrt(1 - now.abar)
        x = then.a * D + old * e
        if s:
            x = x + s * noise_sampler(sigmas[i], sigmas[i + 1])
    return x if ends_clean else x / levels[-1].c


def lvdm_ddim(eta: float, end_as_published: bool) -> KSAMPLER:
    return KSAMPLER(sample_lvdm_ddim, {"eta": eta, "end_as_published": end_as_published})
