"""Clips for the motion LoRA drift on top of what they say."""
import random
from dataclasses import replace

import pytest
from firstframe.demo.tables import motion
from firstframe.demo.train import motion_lora


@pytest.mark.parametrize("side", [1, -1])
def test_what_drifts(side):
    s = motion_lora.panned_scene(random.Random(5), side * motion_lora.PAN)
    still = replace(s, bodies=tuple(replace(b, pan=0.0) for b in s.bodies))
    drift, own = motion.change_of(s.clip().numpy()), motion.change_of(still.clip().numpy())
    assert s.caption() == still.caption() and s.kind == "plain"
    assert drift["x"] - own["x"] == pytest.approx(side * motion_lora.PAN * 13 / 15, abs=1)  # from the mean of the first three frames to that of the last three
    assert drift["y"] - own["y"] == pytest.approx(0, abs=1) and drift["growth"] - own["growth"] == pytest.approx(0, abs=0.05)
