"""FreeInit (Wu et al. 2023), the method that I4VGen is compared with: a clip is sampled several times, each time from the low frequencies of the
one before and fresh noise. The filter is diffusers'."""
import torch
from diffusers.pipelines.free_init_utils import FreeInitMixin

from . import in_process

ITERATIONS = 5  # as in I4VGen's Table 4: 113.67 s beside 21.73 s


def low_pass(shape: tuple) -> torch.Tensor:
    """Its own settings: Butterworth of order 4, stop frequencies 0.25."""
    return FreeInitMixin._get_free_init_freq_filter(None, shape, "cpu", "butterworth", 4, 0.25, 0.25)


def sample(model, frames: int, positive, negative, *, seed: int, iterations: int = ITERATIONS, **settings) -> torch.Tensor:
    """[frames,4,16,16]."""
    import comfy.sample
    z = torch.zeros(frames, 4, 16, 16)
    noise = first = comfy.sample.prepare_noise(z, seed)
    sampling, low = model.get_model_object("model_sampling"), low_pass((1, 4, frames, 16, 16))
    for i in range(iterations):
        video = in_process.ksampler(model, {"samples": z}, positive, negative, seed=seed, noise=noise, **settings)
        sigma = sampling.sigma_max
        diffused = (model.model.process_latent_in(video) + sigma * first) / (1 + sigma**2) ** 0.5
        fresh = comfy.sample.prepare_noise(z, seed + 1 + i)
        noise = FreeInitMixin._apply_freq_filter(None, *(x.transpose(0, 1)[None] for x in (diffused, fresh)), low)[0].transpose(0, 1)
    return video
