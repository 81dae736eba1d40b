"""Global latent translation and re-noising of Text2Video-Zero (section 3.3.1), the motion of the I2V-Zero baseline.

Shapes: x [F,C,h,w], frames along the batch. Noise levels are the host's sigma; x is variance-exploding, x = x0 + sigma eps.
"""
import torch
import torch.nn.functional as F

GRID = 512  # the official flow is in pixels of a 512-pixel picture, whatever the picture's size


def translate(x: torch.Tensor, dx: float, dy: float) -> torch.Tensor:
    """Frame i (from 1) takes its content from i*(dx, dy) further right and down, so the content moves up-left. [F,C,h,w] -> same.

    dx, dy: pixels per frame of a 512-pixel picture; 12 is the official value. x[0] is the latent of frame 1 of F, and
    so on. Nearest neighbour, reflected at the border; the half-pixel offset is that of the official coordinates.
    """
    f, _, h, w = x.shape
    i = torch.arange(1, f + 1, device=x.device, dtype=torch.float32)[:, None]
    across = _coordinates(w, x.device) + 2 * dx / GRID * i
    down = _coordinates(h, x.device) + 2 * dy / GRID * i
    grid = torch.stack([across[:, None, :].expand(f, h, w), down[:, :, None].expand(f, h, w)], -1)
    return F.grid_sample(x, grid.to(x.dtype), mode="nearest", padding_mode="reflection", align_corners=False)


def _coordinates(n: int, device) -> torch.Tensor:
    """Pixel indices 0..511 over 512, in -1..1, resized to n entries."""
    i = torch.arange(n, device=device, dtype=torch.float32)
    return ((i + 0.5) * GRID / n - 0.5) / GRID * 2 - 1


def renoise(x: torch.Tensor, sigma: float, sigma_to: float, eps: torch.Tensor) -> torch.Tensor:
    """DDPM forward from noise level sigma to the higher sigma_to: x + sqrt(sigma_to^2 - sigma^2) eps."""
    return x + (sigma_to**2 - sigma**2) ** 0.5 * eps
