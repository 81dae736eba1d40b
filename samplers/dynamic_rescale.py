"""The dynamic rescale of DynamiCrafter (Xing et al. 2023; its 512 and 1024 models) and VideoCrafter (all but the first 512 model): at timestep t the clean latent is multiplied
by s_t before noise is added.

With y = x / s_t that is ordinary diffusion at sigma / s_t whose denoised prediction is divided by s_t, so it belongs into the model's noise schedule. Stock samplers
without fresh noise (DDIM with eta 0, euler) are then the official arithmetic. Those with fresh noise reach the same distributions, but the official DDIM with eta 1 divides old
and new noise by sigma, they by sigma / s_t: below timestep 400 the single steps differ.
"""
import torch
from comfy.model_sampling import EPS, V_PREDICTION, ModelSamplingDiscrete

FALLS_UNTIL = 400  # timesteps
LAST = 2e-9  # alpha_bar of the last level, officially 0: with less, the first step in float32 loses more to rounding than is gained (the host has 4.9e-8)


def scales(base: float, timesteps: int = 1000) -> torch.Tensor:
    """s_t [timesteps]: from 1 down to `base` over the first 400, then `base`. base in (0, 1]: 0.7 for 512, 0.3 for 1024, in either family."""
    return torch.cat([torch.linspace(1.0, base, FALLS_UNTIL), torch.full((timesteps - FALLS_UNTIL,), base)])


class Rescaled:
    """Goes before the host's class of a prediction. `rescale_base` in the model's sampling_settings, 1: none. sigmas are those of y; pure noise has variance 1 as x, not as y."""

    def __init__(self, model_config=None):
        super().__init__(model_config)
        self.register_buffer("scales", scales(model_config.sampling_settings["rescale_base"], len(self.sigmas)))
        last = ((1 - LAST) / LAST) ** 0.5 if self.zsnr else float(self.sigmas[-1])
        self.set_sigmas(torch.cat([self.sigmas[:-1], torch.tensor([last])]) / self.scales)

    def scale(self, sigma: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        s = self.scales.to(sigma.device)[self.timestep(sigma.flatten())]
        return s.view(()) if s.nelement() == 1 else s.view(-1, *[1] * (like.ndim - 1))

    def calculate_input(self, sigma, noise):
        s = self.scale(sigma, noise)
        return super().calculate_input(sigma * s.view(sigma.shape), noise * s)

    def calculate_denoised(self, sigma, model_output, model_input):
        s = self.scale(sigma, model_output)
        return super().calculate_denoised(sigma * s.view(sigma.shape), model_output, model_input * s) / s

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        s = self.scale(sigma, noise)
        return super().noise_scaling(sigma * s.view(sigma.shape), noise, latent_image * s, max_denoise) / s


class DynamicRescale(Rescaled, V_PREDICTION, ModelSamplingDiscrete):
    """model_sampling of velocity models with it (DynamiCrafter)."""


class DynamicRescaleEPS(Rescaled, EPS, ModelSamplingDiscrete):
    """model_sampling of models with it that predict noise (VideoCrafter)."""
