"""The columns of the I4VGen table on scores and pictures whose answer is known, that each row changes what its name says, and FreeInit's filter."""
import numpy as np
import pytest
import torch
from firstframe.demo import free_init
from firstframe.demo.tables import i4vgen, motion


def test_a_drawn_picture_fits_its_prompt_and_no_other():
    scenes = [motion.scene_of(i) for i in (0, 9)]
    pictures = [s.draw([0.0])[0].numpy() for s in scenes]
    assert [[i4vgen.fits(s, picture) for picture in pictures] for s in scenes] == [[True, False], [False, True]]


def test_searches_on_scores_that_are_known():
    s = motion.scene_of(0)
    right, wrong = s.draw([0.0])[0].numpy(), motion.scene_of(9).draw([0.0])[0].numpy()
    end = torch.full((16,), 10.0)
    end[3], end[5] = 40.0, 39.7
    early = end.flip(0)
    drafts = end.clone()
    drafts[3], drafts[7] = 0.0, 50.0
    scores = {steps: end.clone() for steps in (*i4vgen.SCORED, i4vgen.STEPS)} | {4: early, **{-n: end.clone() for n in i4vgen.DRAFTS}, -8: drafts}
    early[3], early[5] = 5.0, 20.0
    rows = i4vgen.found_by(s, scores, np.stack([right if i == 3 else wrong for i in range(16)]))
    assert rows["off"] == {"winner kept, %": 100, "within 1 %, %": 100, "score lost": 0, "right, %": 100, "units": 25}
    assert rows["half after 8, 16"] == {**rows["off"], "units": (16 * 8 + 8 * 8 + 4 * 9) / 16} and rows[i4vgen.DEFAULT] == {**rows["off"], "units": 6 + 25 * 2 / 16}
    assert rows["drafts of 8, 2"] == {"winner kept, %": 0, "within 1 %, %": 100, "score lost": pytest.approx(0.3, abs=1e-4), "right, %": 0, "units": 8 + 25 * 2 / 16}
    lost = rows["half after 4, 8, 12, 16"]  # after 4 steps the eight that are kept are the last ones but one
    assert lost["winner kept, %"] == 0 and lost["within 1 %, %"] == 100 and lost["score lost"] == pytest.approx(0.3, abs=1e-4) and lost["right, %"] == 0
    assert lost["units"] == (16 * 4 + 8 * 4 + 4 * 4 + 2 * 4 + 9) / 16
    chance = rows["any of them"]
    assert chance["winner kept, %"] == chance["right, %"] == 6.25 and chance["within 1 %, %"] == 12.5 and chance["score lost"] == pytest.approx(40 - (40 + 39.7 + 140) / 16, abs=1e-4)


@torch.inference_mode()
def test_each_row_changes_something(monkeypatch):
    monkeypatch.setitem(i4vgen.SETTINGS, "steps", 4)
    monkeypatch.setattr(i4vgen, "STEPS", 4)
    monkeypatch.setitem(i4vgen.SEARCHES, i4vgen.DEFAULT, ((1, 2), 0.75, 0, 0))
    monkeypatch.setattr(i4vgen, "SCORED", [1, 2])
    monkeypatch.setattr(i4vgen, "DRAFTS", [3])
    monkeypatch.setattr(i4vgen, "CANDIDATES", 4)
    monkeypatch.setattr(i4vgen.scene, "FRAMES", 4)
    pipeline, s = i4vgen.Pipeline(), motion.scene_of(0)
    latents, scores = pipeline.candidates(s.caption(), 0)
    assert latents.shape == (4, 4, 16, 16) and sorted(scores) == [-3, 1, 2, 4] and len({tuple(found.tolist()) for found in scores.values()}) == 4
    scores[1][0] = -1000.0  # the first is not the best
    made = i4vgen.stages(pipeline, s, 0, latents, scores)
    clips = [clip for clip, _ in made.values()]
    assert all(clip.shape == (4, 128, 128, 3) for clip in clips) and not any(np.array_equal(a, b) for i, a in enumerate(clips) for b in clips[:i])
    found = i4vgen.compare(pipeline, s, np.repeat(s.draw([0.0]).numpy(), 4, 0), 7)
    assert found["right, %"] == 100 and found["moves so, %"] == 0 and found["temporal consistency, %"] == pytest.approx(100, abs=1e-3) and found["units"] == 7
    settings = {**i4vgen.SETTINGS, "steps": 2}
    said, empty = pipeline.said(s.caption()), {"samples": torch.zeros(4, 4, 16, 16)}
    once, twice = (free_init.sample(pipeline.model, 4, *said, seed=3, iterations=n, **settings) for n in (1, 2))
    assert torch.equal(once, i4vgen.in_process.ksampler(pipeline.model, empty, *said, seed=3, **settings)) and not torch.allclose(once, twice, atol=0.01)


def test_free_inits_filter_keeps_what_is_slow():
    low, x, slow = free_init.low_pass((1, 1, 8, 16, 16)), torch.randn(1, 1, 8, 16, 16), torch.full((1, 1, 8, 16, 16), 2.0)
    assert low.max() == 1 and low[0, 0, 4, 8, 8] == 1 and low[0, 0, 0, 0, 0] < 0.01
    mix = free_init.FreeInitMixin._apply_freq_filter(None, slow, x, low)
    assert mix.mean().item() == pytest.approx(2, abs=1e-3) and free_init.FreeInitMixin._apply_freq_filter(None, x, x, low).allclose(x, atol=1e-5)
