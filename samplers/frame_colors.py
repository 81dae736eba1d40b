"""The colours of a clip held to its first frame: histograms of a and b in LAB, lightness left alone (the I2V-Adapter authors' code, after decoding).

Shapes: pictures [H,W,3], RGB in 0..1, as the host has images; inside [3,H,W]; a channel's values as a flat numpy array.
"""
from collections.abc import Callable

import numpy as np
import torch
from kornia.color import lab_to_rgb, rgb_to_lab


def distribution(channel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(its values in rising order, each once; the share of the channel that is no larger than each)."""
    values, counts = np.unique(channel, return_counts=True)
    return values, np.cumsum(counts) / channel.size


def match_histogram(channel: np.ndarray, values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Each value of the channel [n] replaced by the one at the same share of another `distribution`, linear in between. Equal values stay equal."""
    _, index, counts = np.unique(channel, return_inverse=True, return_counts=True)
    return np.interp(np.cumsum(counts) / channel.size, shares, values)[index]


def to_lab(rgb: torch.Tensor) -> torch.Tensor:
    """[3,H,W], 0..1 -> L in 0..100, a, b."""
    return rgb_to_lab(rgb.clamp(0, 1)[None])[0]


def to_graded_lab(rgb: torch.Tensor) -> torch.Tensor:
    """a and b in steps of 1/1024: else the last bit of the conversion tells equal colours apart, and a white wall takes all colours of the first frame."""
    L, a, b = to_lab(rgb)
    return torch.stack([L, (a * 1024).round() / 1024, (b * 1024).round() / 1024])


def to_rgb(lab: torch.Tensor) -> torch.Tensor:
    """Colours outside of RGB are cut off."""
    return lab_to_rgb(lab[None])[0].clamp(0, 1)


def to_swapped_lab(rgb: torch.Tensor) -> torch.Tensor:
    """What the authors' code computes: 8 bit (cut, not rounded), and OpenCV's BGR -> LAB on an RGB array, so that red and blue have changed
    places; then OpenCV's 8-bit LAB, L 255/100, a + 128, b + 128. No true LAB: its a and b are those of another picture."""
    L, a, b = to_lab((rgb.clamp(0, 1) * 255).floor().flip(0) / 255)
    return torch.stack([L * 2.55, a + 128, b + 128]).round().clamp(0, 255)


def from_swapped_lab(lab: torch.Tensor) -> torch.Tensor:
    L, a, b = lab
    return (to_rgb(torch.stack([L / 2.55, a - 128, b - 128])) * 255).round().flip(0) / 255


TRUE, SWAPPED = "true LAB", "official (red and blue swapped, 8 bit)"
SPACES = {TRUE: (to_graded_lab, to_rgb, lambda matched: matched), SWAPPED: (to_swapped_lab, from_swapped_lab, np.floor)}  # there, back, what a matched channel goes through


def colors_of(reference: torch.Tensor, space: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function that gives a picture [H,W,3] the a and b histograms of the reference [h,w,3]."""
    there, back, stored = SPACES[space]
    wanted = [distribution(channel) for channel in there(reference.movedim(-1, 0).float().cpu())[1:].flatten(1).numpy()]

    def matched(picture: torch.Tensor) -> torch.Tensor:
        L, *ab = there(picture.movedim(-1, 0).float().cpu())
        ab = [stored(match_histogram(channel.flatten().numpy(), *want)) for channel, want in zip(ab, wanted)]
        return back(torch.stack([L, *(torch.from_numpy(channel).to(L).view_as(L) for channel in ab)])).movedim(0, -1).to(picture)
    return matched


def check_clip(images: torch.Tensor, who: str) -> None:
    """Raises ValueError unless images [F,H,W,3] are at least two finite pictures."""
    if images.ndim != 4 or images.shape[-1] != 3 or not images.numel():
        raise ValueError(f"{who} needs images [frames, height, width, 3], got {list(images.shape)}. Connect VAE Decode of the whole clip.")
    if len(images) < 2:
        raise ValueError(f"{who} holds frames to the first one and needs at least 2, got {len(images)}. Connect VAE Decode of the whole clip.")
    if not torch.isfinite(images).all():
        raise ValueError(f"{who} got images with NaN or infinite values. Look at the node that made them: often a VAE that overflows in half precision "
                         f"(start the host with --fp32-vae).")
