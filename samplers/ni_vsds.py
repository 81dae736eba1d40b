"""NI-VSDS (I4VGen 3.2): a static video, one picture repeated, is brought to life by the score of a video model.

One iteration at a noise level: x = a v + b eps with one and the same eps in all iterations, D the model's denoised prediction after guidance,
grad = w (eps_theta - eps), v <- v - alpha grad. The levels descend once through the sampler's own schedule, from T to tau.

a and b are what the model's own `noise_scaling` makes of latent and noise: 1 and sigma for eps- and v-models in the host's variance-exploding space,
1 - sigma and sigma for flow models. With eps_theta = (x - a D) / b and w = b^2 / (a^2 + b^2), which is the paper's 1 - alpha_bar,

    grad = w a / b (v - D) = a b / (a^2 + b^2) (v - D)

for all of them. Shapes: v, eps, D [F,C,h,w] with frames along the batch, or [B,C,F,h,w].
"""
import math
from dataclasses import dataclass

import torch
from comfy.samplers import KSamplerX0Inpaint, Sampler

WHO = "NI-VSDS"
OFFICIAL_ALPHAS = (10.0, 10.0, 10.0, 1.0)


@dataclass(frozen=True)
class Course:
    """Which iterations are made. alphas: step sizes, the last of them for all that follow.

    tau: share of the noise schedule that is the last level; None: the first int(0.6 steps) + 1 levels, as the authors' code has it
    (its list of step sizes, too, is longer than the iterations).
    """

    alphas: tuple[float, ...]
    tau: float | None


PAPER, AUTHORS = Course((1.0,), 0.4), Course(OFFICIAL_ALPHAS, None)


def scales(sampling, sigma: torch.Tensor) -> tuple[float, float]:
    """(a, b) of x = a v + b eps at a level."""
    one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    return sampling.noise_scaling(sigma, none, one).item(), sampling.noise_scaling(sigma, one, none).item()


def weight(a: float, b: float) -> float:
    """a b / (a^2 + b^2): the share of v - D in the gradient."""
    return a * b / (a * a + b * b)


def levels(sigmas: torch.Tensor, sampling, course: Course) -> list[float]:
    """The noise levels of the iterations, from those at which the steps of the schedule begin. Raises ValueError for a schedule that has none or does not fall."""
    every = sigmas.tolist()
    starts = every[:-1]
    if not all(math.isfinite(sigma) for sigma in every) or any(b >= a for a, b in zip(every, every[1:])):
        raise ValueError(f"{WHO} needs 'sigmas' that fall from step to step, got {', '.join(f'{sigma:.4g}' for sigma in every[:8])}{', ...' if len(every) > 8 else ''}. "
                         f"Connect Basic Scheduler, without Flip Sigmas.")
    last = sampling.percent_to_sigma(1 - course.tau) if course.tau is not None else 0.0
    found = [sigma for sigma in starts if sigma >= last * (1 - 1e-6)] if course.tau is not None else starts[:int(0.6 * len(starts)) + 1]
    if not found:
        what = "a schedule without steps" if not starts else f"a schedule that begins at sigma {starts[0]:.4g}, below tau = {course.tau:g}, which is sigma {float(last):.4g}"
        raise ValueError(f"{WHO} got {what}. Connect the whole schedule (Basic Scheduler with denoise 1)" + (", or lower 'tau'." if starts else "."))
    if len(course.alphas) > len(found) and course is not AUTHORS:
        raise ValueError(f"{WHO} got {len(course.alphas)} step sizes for {len(found)} iterations. Take some out of 'step_sizes', or raise 'steps' of the schedule.")
    return found


def check_video(v: torch.Tensor | None, noise: torch.Tensor) -> None:
    """Raises ValueError unless v is a clip of at least two frames that is not empty, and noise is there for it."""
    if v is None or v.ndim not in (4, 5):
        raise ValueError(f"{WHO} needs the latent of a video [frames, channels, height, width] or [batch, channels, frames, height, width], "
                         f"got {'nothing' if v is None else list(v.shape)}. Audio, 3D shapes and several latents in one are none.")
    frames = v.shape[0] if v.ndim == 4 else v.shape[2]
    if frames < 2:
        raise ValueError(f"{WHO} brings the frames of a video to life and needs at least 2, got {frames}. Repeat the picture's latent: "
                         f"raise 'frames' in Picture to Frames.")
    if not torch.count_nonzero(v):
        raise ValueError(f"{WHO} got an empty latent and needs the picture that it shall bring to life, repeated for every frame. Connect Picture to Frames to 'latent_image'.")
    if not torch.count_nonzero(noise):
        raise ValueError(f"{WHO} got no noise. Connect RandomNoise, not Disable Noise, to 'noise'.")


class NIVSDSSampler(Sampler):
    """Stands where a SAMPLER does: latent_image is the static video, noise the one eps, sigmas the schedule of the model; what comes out is the video, free of noise."""

    def __init__(self, course: Course):
        self.course = course

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False):
        check_video(latent_image, noise)
        sampling = model_wrap.inner_model.model_sampling
        model = KSamplerX0Inpaint(model_wrap, sigmas)  # what a mask keeps stays as it is, to the bit
        model.latent_image, model.noise = latent_image, noise
        every = levels(sigmas, sampling, self.course)
        alphas = [*self.course.alphas, *[self.course.alphas[-1]] * len(every)][:len(every)]
        v, ones = latent_image, noise.new_ones(noise.shape[0])
        for i, (sigma, alpha) in enumerate(zip(sigmas, alphas)):
            a, b = scales(sampling, torch.tensor(every[i], dtype=torch.float64))
            x = sampling.noise_scaling(sigma, noise, v)
            D = model(x, sigma * ones, denoise_mask=denoise_mask, **extra_args)
            v = torch.lerp(v, D, alpha * weight(a, b))
            if callback is not None:
                callback(i, D, x, len(alphas))
        return v
