"""Attention-guided start noise of a clip (PiLife Eq. 8-10 and 12).

Shapes: eps_rec [1,C,h,w] is the noise that the picture's inversion ends in; eps [F,C,h,w] fresh unit noise, one per
frame; A [1 or F,1,h,w] in 0..1 the motion attention. Noise levels are the host's sigma: x_t = x_0 + sigma eps.

The paper writes the same letter for the fresh noise of Eq. 10 and of Eq. 12. They are two draws here: the result would
else have a variance of 1 + 2 A eta / (1 + eta^2), where Eq. 7 wants N(0, I), and what is too much stays in the clip as blotches.
"""
import torch
import torch.nn.functional as F


def recovered_noise(x_t: torch.Tensor, x_0: torch.Tensor, sigma) -> torch.Tensor:
    """Eq. 8 in variance-exploding space: eps_rec = (x_t - x_0) / sigma_t."""
    return (x_t - x_0) / sigma


def standardised(eps_rec: torch.Tensor) -> torch.Tensor:
    """Eq. 9: eps*_rec = (eps_rec - mu) / s, over all elements of the one latent."""
    return (eps_rec - eps_rec.mean()) / eps_rec.std()


def guided(A: torch.Tensor, eps: torch.Tensor, eps_rec: torch.Tensor) -> torch.Tensor:
    """Eq. 10: m_t = A eps + sqrt(1 - A^2) eps*_rec. A 1 is fresh noise, A 0 the picture's own."""
    return A * eps + (1 - A.square()).sqrt() * standardised(eps_rec)


def mixed(eps: torch.Tensor, m_t: torch.Tensor, eta: float) -> torch.Tensor:
    """Eq. 12: eps_M = (eps + eta m_t) / sqrt(1 + eta^2); its printed pi must be eta for its own limits to hold. eta 0 is eps."""
    return (eps + eta * m_t) / (1 + eta**2) ** 0.5


def motion_noise(eps_rec: torch.Tensor, A: torch.Tensor, eps: torch.Tensor, eps_guided: torch.Tensor, eta: float) -> torch.Tensor:
    """[F,C,h,w]: eps_rec itself for the first frame, which so starts exactly at the inverted picture, eps_M for the others.

    eps: the fresh noise of Eq. 12; eps_guided: that of Eq. 10.
    """
    return torch.cat([eps_rec, mixed(eps, guided(A, eps_guided, eps_rec), eta)[1:]])


def fresh_noise(shape, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(eps, eps_guided): unit noise on the CPU, frame after frame from one generator, so that more frames leave the first ones as they are."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.stack([torch.randn(2, *shape[1:], generator=generator) for _ in range(shape[0])]).unbind(1))


def mask_to_attention(mask: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """A host MASK [h,w] or [1 or F,h,w] of any size -> A [1 or F,1,height,width] in 0..1."""
    A = mask.reshape(-1, 1, *mask.shape[-2:]).float().clamp(0, 1)
    return A if A.shape[-2:] == (height, width) else F.interpolate(A, (height, width), mode="bilinear", antialias=True).clamp(0, 1)
