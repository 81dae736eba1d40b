"""A schedule that starts at t0, and KSampler's denoise that comes nearest, for every scheduler of the host."""
import math

import comfy.model_sampling as ms
import pytest
import torch
from comfy.samplers import SCHEDULER_NAMES, KSampler
from firstframe.samplers.start_level import nearest_total, schedule_from

SAMPLINGS = {"SD": ms.ModelSamplingDiscrete(), "Wan": ms.ModelSamplingDiscreteFlow(), "SVD": ms.ModelSamplingContinuousEDM(), "Flux": ms.ModelSamplingFlux()}
SAMPLINGS["Wan"].set_parameters(shift=8.0)


def ksampler_sigmas(sampling, scheduler: str, steps: int, denoise: float) -> torch.Tensor:
    """The host's own KSampler."""
    class Model:
        load_device = torch.device("cpu")
        model_options = {}
        model = None

        def get_model_object(self, name):
            return sampling
    return KSampler(Model(), steps, "cpu", sampler="euler", scheduler=scheduler, denoise=denoise).sigmas


def level(sampling, t0: float) -> float:
    return float(sampling.percent_to_sigma(1 - t0))


@pytest.mark.parametrize("scheduler", SCHEDULER_NAMES)
@pytest.mark.parametrize("model", SAMPLINGS)
@pytest.mark.parametrize("t0", [0.3, 0.8])
def test_every_scheduler_starts_at_t0(model, scheduler, t0):
    sampling, steps = SAMPLINGS[model], 10
    sigmas, denoise = schedule_from(sampling, scheduler, steps, t0, "N")
    assert float(sigmas[0]) == pytest.approx(min(level(sampling, t0), float(ksampler_sigmas(sampling, scheduler, steps, 1.0)[0])), rel=1e-6)
    assert (sigmas.diff() < 0).all() and sigmas[-1] == 0 and len(sigmas) <= steps + 2
    theirs = ksampler_sigmas(sampling, scheduler, steps, denoise)
    best = min((ksampler_sigmas(sampling, scheduler, steps, steps / (n + 0.5) if n > steps else 1.0) for n in range(steps, 300)),
               key=lambda s: abs(math.log(float(s[0]) / level(sampling, t0))))  # every denoise that makes a difference
    assert abs(math.log(float(theirs[0]) / level(sampling, t0))) <= abs(math.log(float(best[0]) / level(sampling, t0))) + 1e-6
    assert torch.equal(theirs[1:][theirs[1:] < sigmas[0]], sigmas[1:])


@pytest.mark.parametrize("model", SAMPLINGS)
def test_all_of_it_is_the_schedulers_own(model):
    for scheduler in SCHEDULER_NAMES:
        sigmas, denoise = schedule_from(SAMPLINGS[model], scheduler, 7, 1.0, "N")
        assert torch.equal(sigmas, ksampler_sigmas(SAMPLINGS[model], scheduler, 7, 1.0)) and denoise == 1


def test_a_level_that_ksampler_has_is_met_exactly():
    for steps, total in ((4, 7), (10, 11), (25, 73)):
        t0 = (steps - 1) / (total - 1)  # scheduler normal: evenly spaced timesteps, both ends among them
        sigmas, denoise = schedule_from(SAMPLINGS["SD"], "normal", steps, t0, "N")
        assert int(steps / denoise) == total
        torch.testing.assert_close(sigmas, ksampler_sigmas(SAMPLINGS["SD"], "normal", steps, denoise), rtol=1e-4, atol=0)


def test_more_t0_is_more_noise():
    for scheduler in SCHEDULER_NAMES:
        starts = [schedule_from(SAMPLINGS["SD"], scheduler, 8, t0, "N") for t0 in (0.05, 0.4, 0.9, 0.97, 0.99, 1.0)]
        assert [float(s[0]) for s, _ in starts] == sorted(float(s[0]) for s, _ in starts) and [d for _, d in starts] == sorted(d for _, d in starts)


def test_the_official_start():
    sigmas, _ = schedule_from(SAMPLINGS["SD"], "ddim_uniform", 25, 1.0, "N")
    assert [int(SAMPLINGS["SD"].timestep(s)) for s in sigmas[:-1]] == list(range(961, 0, -40))


def test_nearest_total_is_the_nearest():
    for steps, sigma in ((1, 0.4), (3, 0.9), (10, 0.11), (10, 5.0)):
        got = nearest_total(lambda n, steps=steps: steps / n, steps, sigma)
        want = min(range(steps, 20 * steps), key=lambda n, steps=steps, sigma=sigma: abs(math.log(steps / n / sigma)))
        assert abs(math.log(steps / got / sigma)) <= abs(math.log(steps / want / sigma)) + 1e-9
    assert 100 < nearest_total(lambda n: 2 / n, 2, 1e-4) < 1000  # out of reach: it gives up


def test_a_scheduler_without_levels_is_named():
    with pytest.raises(ValueError, match="N asked the scheduler 'kl_optimal' for 1 steps .* Choose another 'scheduler', or more 'steps'"):
        schedule_from(SAMPLINGS["SD"], "kl_optimal", 1, 1.0, "N")
