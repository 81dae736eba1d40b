"""The measurements behind the table of prompts, on pictures whose contents are known."""
from dataclasses import replace

import numpy as np
import pytest
from firstframe.demo.tables import prompts
from firstframe.demo.world import scene


def test_share_of_the_background_that_the_prompt_explains():
    prompt, seed = np.zeros((4, 6, 3)), np.zeros((4, 6, 3))
    prompt[:] = np.arange(4)[:, None, None]
    seed[:] = np.arange(6)[None, :, None]
    assert prompts.explained(prompt) == pytest.approx(1) and prompts.explained(seed) == pytest.approx(0)
    assert prompts.explained(prompt + seed) == pytest.approx(prompt.var() / (prompt.var() + seed.var()))


def test_the_measured_prompts_were_held_back_and_a_drawn_picture_passes():
    scenes = prompts.prompts(60)
    assert all((s.bodies[0].shape, s.bodies[0].colour, s.ground) in scene.HELD_BACK for s in scenes)
    assert {s.kind for s in scenes} == set(scene.BACKGROUNDS) and {s.bodies[0].motion for s in scenes} == set(scene.MOTIONS) and len({s.caption() for s in scenes}) == 60
    assert [s.caption() for s in scenes if not all(prompts.right(s, s.draw([0.5])[0]).values())] == []


def test_each_mistake_counts_in_its_own_row():
    s = prompts.prompts(1)[0]
    picture, body = s.draw([0.5])[0], s.bodies[0]
    other = {"shape": "circle" if body.shape != "circle" else "star", "colour": "white" if body.colour != "white" else "red",
             "ground": "cyan" if s.ground != "cyan" else "green", "kind": "striped" if s.kind != "striped" else "plain"}
    asked = {"shape": replace(s, bodies=(replace(body, shape=other["shape"]),)), "shape colour": replace(s, bodies=(replace(body, colour=other["colour"]),)),
             "background colour": replace(s, ground=other["ground"]), "background kind": replace(s, kind=other["kind"])}
    for row, scene_asked in asked.items():
        assert [k for k, v in prompts.right(scene_asked, picture).items() if not v] == [row]
