"""The measurements behind PiLife's table, on clips whose numbers are known."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from firstframe.demo.tables import pilife


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
    apart = 255 * np.abs(other - picture).mean()
    assert got["others"] == pytest.approx(apart, rel=1e-4) and got["between frames"] == pytest.approx(apart / 2, rel=1e-4)


@torch.inference_mode()
def test_each_row_of_the_ablation_changes_its_part_alone(monkeypatch):
    """cfg and negative held: what the sampler is given, with the inversion and without, with psi as the negative and without."""
    given = {}
    pieces = pilife.Pieces(pilife.picture_of(3), 3)
    for name, parts in pilife.KINDS.items():
        def sample(model, latent, positive, negative, sigmas, noise, seed, name=name):
            given[name] = latent, negative, noise
        monkeypatch.setattr(pilife, "sample", sample)
        if parts is not None:
            pieces.pilife(**parts)

    def equal(a, b):
        return [torch.equal(given[a][i], given[b][i]) if i != 1 else all(torch.equal(x[0], y[0]) for x, y in zip(given[a][1], given[b][1])) and len(given[a][1]) == len(given[b][1])
                for i in range(3)]
    plain, empty = "without inversion (plain DDIM; negative psi)", "without inversion, empty negative"
    assert equal("PiLife", plain) == [False, True, False] and equal("PiLife", "empty negative") == [True, False, True] and equal("empty negative", empty) == [False, True, False]
    assert equal("PiLife", "without motion noise") == [True, True, False]
