"""The judge against the drawer, who knows what it drew: clean pictures, blurred and noisy ones, and what the demo's VAE makes of them."""
import math
import random

import numpy as np
import pytest
import torch
from firstframe.demo import in_process
from firstframe.demo.world import palette, scene, shapes
from firstframe.demo.world.judge import judge
from scipy import ndimage

SCENES = 300


def disturbed(images):
    """[N,H,W,3]: blur of 1 px, noise of 0.03."""
    noise = np.random.default_rng(0).normal(0, 0.03, images.shape)
    return ndimage.gaussian_filter(images, (0, 1, 1, 0)) + noise.astype(np.float32)


def through_the_vae(images):
    import comfy.sd
    import comfy.utils
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(in_process.VAE)))
    with torch.inference_mode():
        return vae.decode(vae.encode(torch.from_numpy(images))).numpy()


@pytest.mark.parametrize("change, scenes", [(lambda images: images, SCENES), (disturbed, SCENES), (through_the_vae, SCENES // 10)],
                         ids=["clean", "blur and noise", "VAE"])
def test_it_sees_what_was_drawn(change, scenes):
    rng, right = random.Random(1), {k: 0 for k in ("ground", "kind", "count", "name", "colour", "centre", "size", "angle")}
    drawn = [(scene.random_scene(rng, two=0.0), rng.random()) for _ in range(scenes)]
    for (s, t), image in zip(drawn, change(torch.cat([s.draw([t]) for s, t in drawn]).numpy())):
        verdict, body = judge(image), s.bodies[0]
        x, y, size, angle = body.at(t)
        right["ground"] += verdict.ground == s.ground
        right["kind"] += verdict.kind == s.kind
        right["count"] += len(verdict.shapes) == 1
        if verdict.shapes:
            seen, turn = verdict.shapes[0], 2 * math.pi / (shapes.TIPS[body.shape] or 1)
            right["name"] += seen.name == body.shape
            right["colour"] += seen.colour == body.colour
            right["centre"] += math.dist(seen.centre, (x, y)) < 1.5
            right["size"] += abs(seen.size / size - 1) < 0.06
            right["angle"] += body.shape == "circle" or abs((seen.angle - angle + turn / 2) % turn - turn / 2) < 0.12
    assert {k: v for k, v in right.items() if v < 0.99 * scenes} == {}


def test_two_shapes():
    rng = random.Random(2)
    for _ in range(20):
        s = scene.make_scene(rng, [("circle", "red", "standing still"), ("star", "yellow", "standing still")], "blue", rng.choice(scene.BACKGROUNDS))
        seen = judge(s.draw([0.5])[0]).shapes
        assert {(b.name, b.colour) for b in seen} == {("circle", "red"), ("star", "yellow")}


def test_an_empty_picture_and_a_blot():
    flat = np.ones((128, 128, 3), np.float32) * palette.RGB[5].numpy()
    assert judge(flat).shapes == () and judge(flat).kind == "plain" and judge(flat).ground == "blue"
    flat[40:60, 10:110] = palette.RGB[0].numpy()  # a bar is none of the four
    assert [s.name for s in judge(flat).shapes] == [None]
