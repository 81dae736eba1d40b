"""The motion that is measured in a drawn clip is the one that it was drawn with."""
import math

import pytest
import torch
from firstframe.demo.tables import motion


@pytest.mark.parametrize("word", motion.WORDS)
def test_drawn_clips_are_told(word):
    scenes = [motion.scene_of(i) for i in range(24) if motion.WORDS[i % len(motion.WORDS)] == word]
    assert len(scenes) == 3 and {s.bodies[0].motion for s in scenes} == {word}
    assert [motion.motion_of(s.clip().numpy()) for s in scenes] == [word] * 3


def test_no_shape_no_motion():
    assert motion.motion_of(torch.full((16, 128, 128, 3), 0.4).numpy()) is None


def test_turning_is_followed_through_the_symmetry():
    true = [0.1 * i for i in range(16)]
    assert motion.turned([a % (math.pi / 2) for a in true], "square") == pytest.approx(1.5)
    assert motion.turned(true, "circle") == 0
