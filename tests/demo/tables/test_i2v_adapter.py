"""The columns of the I2V-Adapter table on clips whose answer is known, and that each row changes what its name says."""
import numpy as np
import pytest
import torch
from firstframe.demo.tables import i2v_adapter, motion


def drawn(word: str, seed: int = 0):
    s = next(s for i in range(seed, 99) if (s := motion.scene_of(i)).bodies[0].motion == word)
    return s, s.clip().numpy()


def test_a_clip_that_was_drawn_so_moves_so():
    _, clip = drawn("moving right")
    found = i2v_adapter.compare(clip, "moving right")
    assert found["moves so, %"] == 100 and found["background error"] < 1 and found["same shape, %"] > 90 and found["motion, px a frame"] > 0.05
    assert i2v_adapter.compare(clip, "moving left")["moves so, %"] == 0
    assert np.isnan(i2v_adapter.compare(clip, "spinning")["moves so, %"])


def test_what_stands_still_is_like_its_first_frame():
    _, clip = drawn("moving right")
    still = np.repeat(clip[:1], 4, 0)
    found = i2v_adapter.compare(still, "standing still")
    assert found["first-frame similarity, %"] == pytest.approx(100, abs=0.1) and found["motion, px a frame"] < 0.01 and found["warping error"] < 0.1
    other = np.concatenate([still[:1], 1 - still[1:]])
    assert i2v_adapter.compare(other, "standing still")["first-frame similarity, %"] < 90


@torch.inference_mode()
def test_each_row_changes_something(monkeypatch):
    monkeypatch.setitem(i2v_adapter.SETTINGS, "steps", 2)
    models, every = motion.moving_model(), {**i2v_adapter.PARTS, **i2v_adapter.PRIOR}
    kinds = {name: every[name] for name in (i2v_adapter.FULL, "without adapter", "without Content-Adapter", "plain AnimateDiff", "p 1.0")}
    clips = i2v_adapter.clips_of(models, 0, kinds)
    picture = models[2].decode(models[2].encode(motion.scene_of(0).draw([0.0])))[0].numpy()
    assert all(clip.shape == (16, 128, 128, 3) and np.abs(clip[0] - picture).max() < 0.02 for clip in clips.values())
    names = list(clips)
    same = [(a, b) for i, a in enumerate(names) for b in names[:i] if np.array_equal(clips[a], clips[b])]
    assert same == []
