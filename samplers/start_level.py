"""A schedule that starts at a share t0 of the noise (SDEdit, as in I2V-Adapter 3.3), for samplers that take SIGMAS and for KSampler's `denoise`.

Noise levels are the host's sigma. t0 in (0, 1] is the share of the training schedule: timestep 999 t0 of models with discrete timesteps, the
shifted time t0 of flow models. t0 = 1 is the scheduler's whole schedule, wherever that starts (ddim_uniform in 25 steps: timestep 961).

KSampler's denoise d is no noise level: it lays out int(steps / d) steps and takes the last ones, so the level depends on the scheduler, and only
some levels can be had. At the very top the host gives the noise a variance of 1 + sigma^2 in place of sigma^2, which for SD is 0.5 % more.
"""
import math
from collections.abc import Callable

import torch
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.samplers import calculate_sigmas

LONGEST = 128  # times the steps: schedules longer than that are not looked at


def last_steps(sampling, scheduler: str, steps: int, total: int, who: str) -> torch.Tensor:
    """The last `steps` steps of the scheduler's `total`, as KSampler and Basic Scheduler take them; total = steps is its whole schedule."""
    throw_exception_if_processing_interrupted()  # schedules of 100,000 steps (1000 from t0 0.01) take the host a second each
    sigmas = calculate_sigmas(sampling, scheduler, total).cpu()
    if len(sigmas) < 2 or not torch.isfinite(sigmas).all():
        raise ValueError(f"{who} asked the scheduler {scheduler!r} for {total} steps and got no usable noise levels. Choose another 'scheduler', or more 'steps'.")
    return sigmas if total == steps else sigmas[-(steps + 1):]


def nearest_total(start: Callable[[int], float], steps: int, sigma: float) -> int:
    """N >= steps with start(N) nearest to sigma, in the logarithm. start: the level that the last `steps` of N begin at, falling with N.

    linear_quadratic falls in a zigzag of odd and even N, so the neighbours are looked at too.
    """
    low = high = steps
    while start(high) > sigma and high < LONGEST * steps:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if start(middle) > sigma else (low, middle)
    return min(range(max(steps, low - 3), high + 4), key=lambda total: abs(math.log(start(total) / sigma)))


def schedule_from(sampling, scheduler: str, steps: int, t0: float, who: str) -> tuple[torch.Tensor, float]:
    """(sigmas [steps + 1] that begin at t0 exactly and end in 0, the denoise with which KSampler begins as near to it as it can).

    For the same steps and scheduler. A level above the scheduler's own first one is that one. A scheduler that has too few levels below t0 gives fewer steps.
    """
    whole = last_steps(sampling, scheduler, steps, steps, who)
    sigma = float(sampling.percent_to_sigma(1 - t0))
    if sigma >= whole[0]:
        return whole, 1.0
    total = nearest_total(lambda n: float(last_steps(sampling, scheduler, steps, n, who)[0]), steps, sigma)
    below = last_steps(sampling, scheduler, steps, total, who)[1:]
    sigmas = torch.cat([below.new_tensor([sigma]), below[below < sigma]])
    return sigmas, 1.0 if total == steps else steps / (total + 0.5)  # the half: int(steps / denoise) is `total` whatever the rounding
