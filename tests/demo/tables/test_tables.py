"""The measurements behind the README's tables, on clips whose errors are known."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from firstframe.demo.tables import cross_frame, prompts
from firstframe.demo.world import scene


def clip(frames=4, seed=3):
    return cross_frame.picture_of(seed).draw([0.5]).repeat(frames, 1, 1, 1).numpy()


def test_equal_frames_have_no_error():
    assert cross_frame.compare(clip()) == {"background error": 0, "shape-colour error": 0, "same shape": 100, "no shape": 0}


def test_a_background_that_shifts_and_a_shape_that_is_lost():
    frames = clip(5)
    first = cross_frame.judge(frames[0])
    frames[1:3, first.background] += 0.04  # half of the later frames: mean error 0.02 * 255
    frames[4] = frames[0][2, 2]            # nothing but a flat background colour
    got = cross_frame.compare(frames)
    flat = 255 * np.abs(frames[4] - frames[0])[first.background].mean()
    assert got["background error"] == pytest.approx((2 * 0.04 * 255 + flat) / 4, rel=1e-3)
    assert got["same shape"] == 75 and got["no shape"] == 25 and got["shape-colour error"] < 0.5


def test_a_shape_of_another_colour():
    frames = clip(2)
    mask = cross_frame.judge(frames[0]).shapes[0].mask
    frames[1, mask] = (frames[1, mask] + np.array([0.06, 0, 0], np.float32))
    assert cross_frame.compare(frames)["shape-colour error"] == pytest.approx(0.06 * 255 / 3, abs=0.7)


def test_a_shape_that_moves_is_no_error_of_the_background():
    s = cross_frame.picture_of(3)
    body = s.bodies[0]
    x, y = body.centre
    moved = replace(s, bodies=(replace(body, centre=(x + (20 if x < 64 else -20), y)),))
    got = cross_frame.compare(torch.cat([s.draw([0.5]), moved.draw([0.5])]).numpy())
    assert got["background error"] < 0.01 and got["shape-colour error"] < 1 and got["same shape"] == 100


def test_the_table_compares_within_each_seed():
    def row(error):
        return {"background error": error, "shape-colour error": np.nan, "same shape": 50.0, "no shape": 0.0}

    rows = {"none": [row(8.0), row(2.0)], "first": [row(5.0), row(1.0)], "first+previous": [row(5.0), row(1.0)], "PCFA": [row(6.0), row(0.0)]}
    lines = cross_frame.table(rows)
    assert lines[2] == "none | 5.0 ± 3.0 | - | 50.0 ± 0.0 % | 0.0 ± 0.0 %"
    assert lines[6] == "PCFA minus none | -2.0 ± 0.0 | - | +0.0 ± 0.0 % | +0.0 ± 0.0 %"  # the seeds differ by 6, the pairs by nothing
    assert set(cross_frame.OTHERS) | {"PCFA"} == set(cross_frame.NAMES)


def test_share_of_the_background_that_the_prompt_explains():
    prompt, seed = np.zeros((4, 6, 3)), np.zeros((4, 6, 3))
    prompt[:] = np.arange(4)[:, None, None]
    seed[:] = np.arange(6)[None, :, None]
    assert prompts.explained(prompt) == pytest.approx(1) and prompts.explained(seed) == pytest.approx(0)
    assert prompts.explained(prompt + seed) == pytest.approx(prompt.var() / (prompt.var() + seed.var()))


def test_the_measured_prompts_were_held_back_and_a_drawn_picture_passes():
    scenes = prompts.prompts(60)
    assert all((s.bodies[0].shape, s.bodies[0].colour, s.ground) in scene.HELD_BACK for s in scenes)
    assert {s.kind for s in scenes} == set(scene.BACKGROUNDS) and len({s.caption() for s in scenes}) > 55
    passed = [all(prompts.right(s, s.draw([0.5])[0]).values()) for s in scenes]
    assert sum(passed) >= 58
    wrong = prompts.right(scenes[0], scenes[1].draw([0.5])[0])
    assert not all(wrong.values())


def test_each_mistake_counts_in_its_own_row():
    s = prompts.prompts(1)[0]
    picture, body = s.draw([0.5])[0], s.bodies[0]
    other = {"shape": "circle" if body.shape != "circle" else "star", "colour": "white" if body.colour != "white" else "red",
             "ground": "cyan" if s.ground != "cyan" else "green", "kind": "striped" if s.kind != "striped" else "plain"}
    asked = {"shape": replace(s, bodies=(replace(body, shape=other["shape"]),)), "shape colour": replace(s, bodies=(replace(body, colour=other["colour"]),)),
             "background colour": replace(s, ground=other["ground"]), "background kind": replace(s, kind=other["kind"])}
    for row, scene_asked in asked.items():
        assert [k for k, v in prompts.right(scene_asked, picture).items() if not v] == [row]
