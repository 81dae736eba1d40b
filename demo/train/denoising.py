"""The loss of a network that predicts the noise, of drawn latents with captions.

eps-prediction with SD's betas. Those do not end in pure noise, and a flat background leaks through the last timestep:
trained with the plain loss, the background follows the seed instead of the prompt (the effect that the I4VGen paper
describes). Hence the weight 1 + 1/SNR, which counts the error of x0 as much as that of eps. Outlines are a few cells of
256: cells near a shape count FOCUS times more, or the words for shapes are learned long after those for colours.
"""
import torch

from .host_layers import OPTIONS

FOCUS = 6.0


class Tokens:
    """Captions as the host's tokenizer gives them: 77 ids, padded with the end token."""

    def __init__(self):
        from comfy.sd1_clip import SDTokenizer
        self.tokenizer, self.known = SDTokenizer(), {}

    def __call__(self, captions) -> torch.Tensor:
        for c in captions:
            if c not in self.known:
                self.known[c] = [t[0] for t in self.tokenizer.tokenize_with_weights(c)[0]]
        return torch.tensor([self.known[c] for c in captions])


def alphas_cumprod() -> torch.Tensor:
    """SD's schedule: betas linear in their square root."""
    return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0).float()


def timesteps(n: int) -> torch.Tensor:
    """Half of them from the noise levels at which colour, place and outline are decided; the rest from all."""
    return torch.where(torch.rand(n) < 0.5, torch.randint(450, 900, (n,)), torch.randint(0, 1000, (n,)))


def noised(z0, t, abar, frames: int = 1, clean_first=False) -> tuple:
    """(z_t, eps, abar_t, what counts: 1 or 0) of latents z0 [n*frames,4,h,w] at timesteps t [n], one for all frames of a clip.

    clean_first: the first frame of each clip has no noise and no part in the loss.
    """
    a, eps = abar[t.repeat_interleave(frames), None, None, None], torch.randn_like(z0)
    z, counts = a.sqrt() * z0 + (1 - a).sqrt() * eps, torch.ones_like(a)
    if clean_first:
        z[::frames], counts[::frames] = z0[::frames], 0
    return z, eps, a, counts


def denoising_loss(unet, text, z0, near, ids, abar, control=lambda z, t, context: None, frames: int = 1, levels=timesteps, clean_first=False):
    """Of latents z0 [n*frames,4,h,w], near [n*frames,1,h,w] a shape, with captions ids [n,77], at the timesteps levels(n) [n]; the frames of a clip share timestep and caption.

    clean_first: as in `noised`.
    """
    t = levels(len(z0) // frames)
    z, eps, a, counts = noised(z0, t, abar, frames, clean_first)
    t = t.repeat_interleave(frames)
    with torch.autocast("cpu", torch.bfloat16):
        context = text(input_ids=ids).last_hidden_state.repeat_interleave(frames, 0)
        z = z.contiguous(memory_format=torch.channels_last)
        out = unet(z, t, context, control=control(z, t, context), transformer_options=OPTIONS).float()
    weight = (1 + ((1 - a) / a)).clamp(max=100)
    attend = counts * (1 + FOCUS * near)
    return ((out - eps).square() * weight * attend).mean() / attend.mean()
