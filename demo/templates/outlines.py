"""Draws demo/example_outlines.mp4, hints for each frame of the demo's example picture:  python demo/run.py templates.outlines

The shape of the picture moves to the right; its outlines are found as the demo's ControlNet knows them.
"""
import argparse

import numpy as np
from PIL import Image

from ..cli import outputs
from ..cli.command import PICTURE
from ..in_process import use_host
from ..world import palette, scene
from ..world.judge import judge
from .kit import FPS

FILE, TRAVEL = PICTURE.with_name("example_outlines.mp4"), 40.0  # px


def moving(picture: Image.Image) -> scene.Scene:
    """The scene that the picture of one shape shows, which travels to the right from there."""
    seen = judge(np.asarray(picture.convert("RGB"), np.float32) / 255)
    shape, = seen.shapes
    x, y = shape.centre
    body = scene.Body(shape.name, shape.colour, shape.rgb, (x + TRAVEL / 2, y), shape.size, shape.angle, "moving right", TRAVEL)
    return scene.Scene((body,), seen.ground, "plain", palette.COLOURS[seen.ground], 0.0)


def main(argv: list[str]) -> int:
    argparse.ArgumentParser(prog="templates.outlines", description=__doc__.splitlines()[0]).parse_args(argv)
    use_host()
    from ..train.controlnet import outlines
    with Image.open(PICTURE) as picture:
        clip = moving(picture).clip()
    lines = outlines(clip.permute(0, 3, 1, 2)).expand(-1, 3, -1, -1).permute(0, 2, 3, 1) * 255
    outputs.write_mp4(FILE, [Image.fromarray(frame) for frame in lines.numpy()], FPS)
    print(FILE)
    return 0
