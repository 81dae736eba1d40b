"""Says what a picture of the demo world shows, by analysis alone: no model, no knowledge of how it was made.

Background: the palette colour on whose line from shade to full lightness most pixels lie. Shapes: what stands out from
that line, cut half-way between the two colours. A shape's name and angle: circular harmonics of its pixels about the
centre, c_n = mean exp(i n theta), which are those of the squared radius of its outline.
"""
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage

from . import palette, shapes

NEAR = 0.14          # RGB distance within which a pixel belongs to the background's line
SMALLEST = 100       # px, area of the smallest shape that counts
ORDERS = (2, 3, 4, 5)
UNLIKE = 0.13        # distance of the harmonics beyond which an outline is none of the shapes


@dataclass(frozen=True)
class Shape:
    """One shape. centre [px] (x, y); size [px]: radius of the disc of equal area."""
    name: str | None  # one of shapes.SHAPES; None: an outline unlike all of them
    nearest: str      # the one that it is least unlike
    colour: str
    rgb: tuple
    centre: tuple
    size: float
    harmonics: dict   # {n: c_n}, n in ORDERS
    mask: np.ndarray  # [H,W] bool

    def angle_as(self, name: str) -> float:
        """Radians clockwise from upright, in one turn of the symmetry of a shape, if this is such a one (circle: 0)."""
        tips = shapes.TIPS[name]
        if not tips:
            return 0.0
        sector = 2 * math.pi / tips
        return float((np.angle(self.harmonics[tips]) / tips - (sector / 2 if name == "square" else 0.0)) % sector)

    @property
    def angle(self) -> float:
        return self.angle_as(self.nearest)


@dataclass(frozen=True)
class Verdict:
    """ground: colour name; kind: one of scene.BACKGROUNDS; rgb of the ground at full lightness; shapes: largest first."""
    ground: str
    kind: str
    rgb: tuple
    background: np.ndarray  # [H,W] bool: pixels that belong to no shape
    shapes: tuple


@cache
def templates() -> dict:
    """|c_n| of the ideal outlines, n in ORDERS."""
    theta = np.linspace(-math.pi, math.pi, 5040, endpoint=False)
    out = {"circle": np.zeros(len(ORDERS))}
    for name, tips in shapes.TIPS.items():
        if tips:
            half, inner = math.pi / tips, shapes.INNER[name]
            fold = np.abs((theta + half) % (2 * half) - half)
            # the edge from the tip at radius 1 to the inner corner, in polar form
            qx, qy = inner * math.cos(half), inner * math.sin(half)
            r2 = (qy / (qy * np.cos(fold) + (1 - qx) * np.sin(fold))) ** 2
            out[name] = np.array([abs((r2 * np.exp(1j * n * theta)).sum() / r2.sum()) for n in ORDERS])
    return out


def line_distance(image: np.ndarray, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel: RGB distance to the line from SHADE * rgb to rgb, and the lightness (1 = rgb) of the nearest point."""
    t = (image @ rgb / (rgb @ rgb)).clip(palette.SHADE * 0.9, 1.1)
    return np.linalg.norm(image - t[..., None] * rgb, axis=-1), t


def ground_of(image: np.ndarray) -> tuple[str, np.ndarray]:
    """(name, rgb at full lightness) of the background."""
    counts = [(line_distance(image, c)[0] < NEAR).sum() for c in palette.RGB.numpy()]
    rgb = palette.RGB.numpy()[int(np.argmax(counts))]
    for _ in range(2):  # a colour may stray from its name
        distance, t = line_distance(image, rgb)
        on = distance < NEAR
        if on.sum() > SMALLEST:
            rgb = (image[on] * t[on, None]).sum(0) / (t[on] ** 2).sum()
    return palette.NAMES[int(np.argmax(counts))], rgb


def kind_of(t: np.ndarray, on: np.ndarray) -> str:
    """plain, gradient or striped, from the lightness t [H,W] of the pixels `on` the background."""
    y, x = np.nonzero(on)
    value = t[on]
    if value.std() < 0.05:
        return "plain"
    A = np.stack([x, y, np.ones_like(x)], 1) / t.shape[0]
    left = value - A @ np.linalg.lstsq(A, value, rcond=None)[0]
    return "gradient" if left.var() < 0.35 * value.var() else "striped"


def shape_of(rgb: np.ndarray, mask: np.ndarray) -> Shape:
    """The shape that fills `mask` [H,W]; rgb: its colour."""
    y, x = np.nonzero(mask)
    centre = np.array([x.mean() + 0.5, y.mean() + 0.5])
    theta = np.arctan2(x + 0.5 - centre[0], -(y + 0.5 - centre[1]))  # clockwise from upright
    c = {n: np.exp(1j * n * theta).mean() for n in ORDERS}
    seen = np.array([abs(c[n]) for n in ORDERS])
    gaps = {name: float(np.linalg.norm(seen - ideal)) for name, ideal in templates().items()}
    name = min(gaps, key=gaps.get)
    colour = palette.NAMES[int(np.linalg.norm(palette.RGB.numpy() - rgb, axis=1).argmin())]
    return Shape(name if gaps[name] < UNLIKE else None, name, colour, tuple(map(float, rgb)), tuple(map(float, centre)), math.sqrt(len(x) / math.pi), c, mask)


def judge(image) -> Verdict:
    """image [H,W,3], RGB in 0..1 (array or tensor)."""
    image = np.asarray(image, np.float32)
    ground, ground_rgb = ground_of(image)
    distance, t = line_distance(image, ground_rgb)
    labels, n = ndimage.label(ndimage.binary_opening(distance > NEAR, np.ones((3, 3))))
    found = []
    for region in (labels == i for i in range(1, n + 1)):
        if region.sum() < SMALLEST:
            continue
        core = ndimage.binary_erosion(region, iterations=2)
        rgb = np.median(image[core if core.any() else region], axis=0)
        mask = ndimage.binary_dilation(region, iterations=2) & (np.linalg.norm(image - rgb, axis=-1) < distance)
        mask = ndimage.binary_fill_holes(ndimage.binary_opening(mask, np.ones((3, 3))))
        if mask.sum() >= SMALLEST:
            found.append(shape_of(rgb, mask))
    found.sort(key=lambda s: -s.size)
    background = ~ndimage.binary_dilation(np.any([s.mask for s in found], axis=0), iterations=2) if found else np.ones(image.shape[:2], bool)
    return Verdict(ground, kind_of(t, background & (distance < NEAR)), tuple(map(float, ground_rgb)), background, tuple(found))
