"""The eight colours of the demo world and how far a drawn one may stray from its name."""
import torch

COLOURS = {
    "red": (0.86, 0.13, 0.15),
    "orange": (0.96, 0.50, 0.10),
    "yellow": (0.96, 0.88, 0.16),
    "green": (0.16, 0.66, 0.22),
    "cyan": (0.20, 0.82, 0.88),
    "blue": (0.14, 0.28, 0.86),
    "purple": (0.58, 0.18, 0.70),
    "white": (0.95, 0.95, 0.95),
}
NAMES = tuple(COLOURS)
RGB = torch.tensor(list(COLOURS.values()))
JITTER = 0.04  # uniform, per channel
SHADE = 0.55   # the dark end of a gradient, the dark stripes


def nearest_name(rgb: torch.Tensor) -> torch.Tensor:
    """Index into NAMES of the nearest colour or its shade, in chromaticity and lightness. [..., 3] in 0..1 -> [...] int64."""
    table = torch.cat([RGB, RGB * SHADE, RGB * (1 + SHADE) / 2]).to(rgb)
    return (rgb[..., None, :] - table).square().sum(-1).argmin(-1) % len(NAMES)
