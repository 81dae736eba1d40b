"""A small plot of an inversion's losses, for looking at inside the graph."""
import math

import numpy as np
import torch
from PIL import Image, ImageDraw

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 512, 256, 56, 28, 12, 24
FLOOR = 1e-8


def loss_plot(timesteps, losses, title: str) -> torch.Tensor:
    """IMAGE [1,256,512,3]: by timestep (falling, as in sampling) the first loss of each in grey and its least in red, logarithmic.

    losses[i] are those of timesteps[i-1]; a timestep without any is left out.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    draw.text((LEFT, 8), title, fill="black")
    points = [(t, max(FLOOR, n[0]), max(FLOOR, min(n))) for t, n in zip(timesteps, losses[1:]) if n]
    if points:
        low, high = (math.floor(math.log10(min(p[2] for p in points))), math.ceil(math.log10(max(p[1] for p in points)) + 1e-9))
        high = max(high, low + 1)

        def at(t, loss):
            x = LEFT + (timesteps[-1] - t) / max(1, timesteps[-1] - timesteps[0]) * (WIDTH - LEFT - RIGHT)
            return x, TOP + (high - math.log10(loss)) / (high - low) * (HEIGHT - TOP - BOTTOM)
        for power in range(low, high + 1):
            y = at(timesteps[-1], 10.0**power)[1]
            draw.line([(LEFT, y), (WIDTH - RIGHT, y)], fill="#dddddd")
            draw.text((8, y - 6), f"1e{power}", fill="#555555")
        for which, colour in ((1, "#999999"), (2, "#cc2222")):
            draw.line([at(p[0], p[which]) for p in points], fill=colour, width=2)
    draw.text((LEFT, HEIGHT - 18), f"t = {timesteps[-1]}", fill="#555555")
    draw.text((WIDTH - 60, HEIGHT - 18), f"t = {timesteps[0]}", fill="#555555")
    return torch.from_numpy(np.asarray(image)[None] / np.float32(255))
