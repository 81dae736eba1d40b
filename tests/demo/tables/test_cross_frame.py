"""The measurements behind the table of cross-frame attention, on clips whose errors are known."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from firstframe.demo.tables import cross_frame
from firstframe.demo.world.judge import judge


def clip(frames=4, seed=3):
    return cross_frame.picture_of(seed).draw([0.5]).repeat(frames, 1, 1, 1).numpy()


def test_equal_frames_have_no_error():
    assert cross_frame.compare(clip()) == {"background error": 0, "shape-colour error": 0, "same shape, %": 100, "same colour, %": 100, "no shape, %": 0}


def test_a_background_that_shifts_and_a_shape_that_is_lost():
    frames = clip(5)
    first = judge(frames[0])
    frames[1:3, first.background] += 0.04  # half of the later frames: mean error 0.02 * 255
    frames[4] = frames[0][2, 2]            # nothing but a flat background colour
    got = cross_frame.compare(frames)
    flat = 255 * np.abs(frames[4] - frames[0])[first.background].mean()
    assert got["background error"] == pytest.approx((2 * 0.04 * 255 + flat) / 4, rel=1e-3)
    assert got["same shape, %"] == 75 and got["no shape, %"] == 25 and got["shape-colour error"] < 0.5


def test_a_shape_of_another_colour():
    frames = clip(2)
    mask = judge(frames[0]).shapes[0].mask
    frames[1, mask] = (frames[1, mask] + np.array([0.06, 0, 0], np.float32))
    assert cross_frame.compare(frames)["shape-colour error"] == pytest.approx(0.06 * 255 / 3, abs=0.7)


def test_a_shape_that_moves_is_no_error_of_the_background():
    s = cross_frame.picture_of(3)
    body = s.bodies[0]
    x, y = body.centre
    moved = replace(s, bodies=(replace(body, centre=(x + (20 if x < 64 else -20), y)),))
    got = cross_frame.compare(torch.cat([s.draw([0.5]), moved.draw([0.5])]).numpy())
    assert got["background error"] < 0.01 and got["shape-colour error"] < 1 and got["same shape, %"] == 100
