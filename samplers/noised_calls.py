"""Runs the model on a noised picture at chosen noise levels, for whoever listens inside it. Nothing is sampled."""
import comfy.sample
import comfy.samplers
import latent_preview
import torch

from .branch_guider import BranchGuider


class NoisedCalls(comfy.samplers.Sampler):
    """One call per entry of `sigmas`, on x = z + sigma noise (as the model's own noise_scaling has it)."""

    @torch.no_grad()
    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False):
        for i, sigma in enumerate(sigmas):
            x = model_wrap.inner_model.model_sampling.noise_scaling(sigma, noise, latent_image)
            callback(i, model_wrap(x, sigma.expand(len(x)), **extra_args), x, len(sigmas))
        return latent_image


def call_at(model, z: torch.Tensor, positive, sigmas: torch.Tensor, seed: int) -> None:
    """Calls the model on z [B,C,h,w] (host latent space) at every sigma, with the same noise each time; shows progress and previews."""
    BranchGuider(model, positive=positive).sample(
        comfy.sample.prepare_noise(z, seed), z, NoisedCalls(), sigmas, seed=seed, disable_pbar=True,
        callback=latent_preview.prepare_callback(model, len(sigmas)))
