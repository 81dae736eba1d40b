"""The columns of the table dynamicrafter on clips whose answer is known; without weights it says so."""
from pathlib import Path

import numpy as np
import pytest
from firstframe.demo import in_process
from firstframe.demo.tables import dynamicrafter, motion


def drawn(word: str):
    """(scene, clip [16,H,W,3])."""
    s = next(s for i in range(99) if (s := motion.scene_of(i)).bodies[0].motion == word)
    return s, s.clip().numpy()


def test_a_drawn_clip_is_right():
    s, clip = drawn("moving right")
    found = dynamicrafter.compare(clip, s, clip[0])
    assert np.isnan(found.pop("spins, %")) and found.pop("background PSNR, dB") > 90 and min(found.values()) > 90
    s, clip = drawn("spinning")
    found = dynamicrafter.compare(clip, s, clip[0])
    assert found["spins, %"] == 100 and np.isnan(found["moves so, %"])


def test_what_is_wrong_is_seen_in_its_column():
    s, clip = drawn("moving right")
    found = dynamicrafter.compare(clip[::-1], s, clip[-1])
    assert found["moves so, %"] == 0 and found["shape, %"] == 100
    darker = clip.copy()
    darker[0] += np.float32(0.1)
    assert dynamicrafter.compare(darker, s, clip[0])["background PSNR, dB"] == pytest.approx(20, abs=0.1)
    empty = np.concatenate([clip[:1], np.broadcast_to(clip[0, 1, 1], clip[1:].shape)])  # the shape is gone after the first frame
    found = dynamicrafter.compare(empty, s, clip[0])
    assert (found["colour, %"], found["shape, %"], found["colour later, %"], found["shape later, %"], found["moves so, %"]) == (100, 100, 0, 0, 0)


def test_where_a_clip_ends():
    s, clip = drawn("moving right")
    found = dynamicrafter.compare_ends(clip, clip[0], clip[-1])
    assert found["distance, %"] == 0 and found["within 10 %, %"] == 100 and found["PSNR first, dB"] == found["PSNR last, dB"] > 90
    still = dynamicrafter.compare_ends(clip[:1], clip[0], clip[-1])
    assert still["distance, %"] == pytest.approx(100 * s.bodies[0].amount / 128, abs=1) and still["PSNR last, dB"] < 40
    assert still["within 10 %, %"] == 100 * (still["distance, %"] <= 10)
    lost = dynamicrafter.compare_ends(np.broadcast_to(clip[0, 1, 1], clip.shape), clip[0], clip[-1])
    assert np.isnan(lost["distance, %"]) and lost["within 10 %, %"] == 0


def test_without_weights_it_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(in_process, "DYNAMICRAFTER", Path("nowhere.safetensors"))
    assert dynamicrafter.main([]) == 1
    said = capsys.readouterr()
    assert said.out == "" and "there is no nowhere.safetensors yet; demo/run.py train.dynamicrafter makes it" in said.err and len(said.err.splitlines()) == 1
