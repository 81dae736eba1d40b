"""The motion that is measured in a drawn clip is the one that it was drawn with."""
import math
import random

import pytest
import torch
from firstframe.demo.tables import motion
from firstframe.demo.world import scene
from firstframe.demo.world.judge import judge


@pytest.mark.parametrize("word", motion.WORDS)
def test_drawn_clips_are_told(word):
    scenes = [motion.scene_of(i) for i in range(24) if motion.WORDS[i % len(motion.WORDS)] == word]
    assert len(scenes) == 3 and {s.bodies[0].motion for s in scenes} == {word}
    assert [motion.motion_of(s.clip().numpy()) for s in scenes] == [word] * 3


def test_no_shape_no_motion():
    assert motion.motion_of(torch.full((16, 128, 128, 3), 0.4).numpy()) is None


def test_a_badly_drawn_shape_turns_too():
    s = scene.make_scene(random.Random(3), [("star", "red", "spinning")], "blue", "plain")
    clip = s.clip().permute(0, 3, 1, 2)
    tall = torch.nn.functional.interpolate(clip, size=(192, 128), mode="bilinear")[:, :, 32:160].permute(0, 2, 3, 1)
    names = [judge(f).shapes[0].name for f in tall]
    assert names.count(None) > len(names) / 2 and motion.motion_of(tall.numpy()) == "spinning"


def test_turning_is_followed_through_the_symmetry():
    true = [0.1 * i for i in range(16)]
    assert motion.turned([a % (math.pi / 2) for a in true], "square") == pytest.approx(1.5)
    assert motion.turned(true, "circle") == 0


def test_the_table_counts_what_each_clip_shows():
    assert motion.shares({"growing": ["growing", "growing", "growing", None], "spinning": ["growing", "standing still", "growing", "spinning"]}).splitlines()[2:] == [
        "| growing | 75 % | no shape |", "| spinning | 25 % | growing |", "| all | 50.0 % (goal 90 %) |  |"]
