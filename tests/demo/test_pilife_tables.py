"""The measurements behind PiLife's tables, on clips and a picture whose numbers are known."""
from dataclasses import replace

import numpy as np
import pytest
from firstframe.demo.tables import inversion, pilife


def test_equal_frames_differ_in_nothing():
    s = pilife.picture_of(1)
    picture = s.draw([0.5])[0].numpy()
    got = pilife.compare(np.stack([picture] * 4), picture, pilife.background_of(s))
    assert got == {"first frame": 0, "others": 0, "static background": 0, "between frames": 0, "motion, px": 0}


def test_a_shape_that_moves_is_motion_and_no_error_of_the_static_background():
    s = pilife.picture_of(1)
    body = s.bodies[0]
    x, y = body.centre
    moved = replace(s, bodies=(replace(body, centre=(x + (5 if x < 64 else -5), y)),))
    picture, other = s.draw([0.5])[0].numpy(), moved.draw([0.5])[0].numpy()
    got = pilife.compare(np.stack([picture, other, other]), picture, pilife.background_of(s))
    assert got["motion, px"] == pytest.approx(5, abs=0.5) and got["static background"] == 0 and got["first frame"] == 0
    assert got["others"] > 0.5 and got["between frames"] == pytest.approx(got["others"] / 2, rel=1e-4)


def test_plain_inversion_is_counted():
    got = inversion.measure(inversion.picture_of(0), "none", True, 0, "")
    assert got["model calls"] == 2 * 39 and got["of them with gradients"] == 0 and 10 < got["PSNR, dB"] < 80
