"""Anti-aliased drawing of shapes and backgrounds, a whole batch at once.

Every shape is a star of n tips folded onto one sector, so that a single straight edge (or, for the circle, the
radius) gives the distance to its outline in pixels. Axes: b batch, y, x pixels.
"""
import math

import torch

# tips n; inner radius as a share of the tip radius (cos(pi/n) makes a regular polygon)
TIPS = {"circle": 0, "square": 4, "triangle": 3, "star": 5}
INNER = {"circle": 1.0, "square": math.cos(math.pi / 4), "triangle": math.cos(math.pi / 3), "star": 0.5}
SHAPES = tuple(TIPS)


def tip_radius(shape: str, size: float) -> float:
    """Radius of the tips [px] of the shape whose area is that of a disc of radius `size` [px]."""
    n = TIPS[shape]
    if n == 0:
        return size
    return size * math.sqrt(math.pi / (n * INNER[shape] * math.sin(math.pi / n)))


def outline_distance(shape: str, centre: torch.Tensor, size: torch.Tensor, angle: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Signed distance [px] to the outline, negative inside. centre [b,2] (x, y), size [b], angle [b] (radians) -> [b,height,width]."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    x, y = x - centre[:, 0, None, None], y - centre[:, 1, None, None]
    r = torch.hypot(x, y)
    n, R = TIPS[shape], size[:, None, None] * tip_radius(shape, 1.0)
    if n == 0:
        return r - R
    sector = 2 * math.pi / n
    upright = sector / 2 if shape == "square" else 0.0          # a square stands on its side, the others on their base
    theta = torch.atan2(x, -y) - angle[:, None, None] + upright  # clockwise positive
    theta = (theta + sector / 2).remainder(sector).sub(sector / 2).abs()
    px, py = r * torch.cos(theta), r * torch.sin(theta)         # the tip lies on the px axis
    inner = INNER[shape]
    qx, qy = inner * math.cos(math.pi / n), inner * math.sin(math.pi / n)
    length = math.hypot(1 - qx, qy)
    return ((px - R) * qy + py * (1 - qx)) / length             # edge from the tip (R,0) to the inner vertex R(qx,qy)


def coverage(distance: torch.Tensor) -> torch.Tensor:
    """Share of each pixel that lies inside an outline, from the distance [px]."""
    return (0.5 - distance).clamp(0, 1)


def background(kind: str, colour: torch.Tensor, shade: torch.Tensor, direction: float, height: int, width: int) -> torch.Tensor:
    """One background [height,width,3]. colour, shade: [3]; direction: radians (of the gradient, across the stripes)."""
    if kind == "plain":
        return colour.expand(height, width, 3)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    along = (x - width / 2) * math.cos(direction) + (y - height / 2) * math.sin(direction)
    if kind == "gradient":
        t = along / (abs(math.cos(direction)) * width + abs(math.sin(direction)) * height) + 0.5
    else:  # striped: 16 pixels light, 16 dark, edges anti-aliased
        t = (((along / 32).remainder(1) - 0.5).abs() * 32 - 8 + 0.5).clamp(0, 1)
    return torch.lerp(colour, shade, t[..., None])
