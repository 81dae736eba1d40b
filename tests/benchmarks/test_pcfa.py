"""The benchmark's floor counts the attention that Eq. 15 asks for, and the benchmark runs."""
from functools import partial

import pytest
import torch
from firstframe.attention_patches.cross_frame import groups
from firstframe.attention_patches.pcfa import attended, draws
from firstframe.benchmarks import pcfa
from firstframe.benchmarks.timing import Size
from firstframe.tests import tiny_models as tiny

TINY = Size("SD1.5", 32, [1, 1, 1, 1], 48, 3, 8)


@pytest.mark.parametrize("frames", [2, 8, 16])
def test_the_floor_counts_the_keys_of_every_set_once(frames):
    sets, n, clips = attended(tuple(range(frames)), "PCFA", 0.5, draws(0, 0, frames)), 36, 2
    wanted = pcfa.pieces(clips * frames, n, frames, groups(sets))
    assert sum(rows for rows, _ in wanted) == clips * frames
    assert sum(rows * keys for rows, keys in wanted) == clips * n * sum(len(s) for s in sets)
    assert pcfa.pieces(clips * frames, n, frames, None) == [(clips * frames, n)]


def test_every_self_attention_of_a_step_is_found_and_no_other():
    size = TINY._replace(context=tiny.CONTEXT)
    step = partial(tiny.sample, positive=size.prompt(1), negative=size.prompt(2))
    calls = pcfa.self_attentions(step, tiny.model(), tiny.latents(4))
    assert len(calls) == 6 + 1 + 9  # the transformer blocks of SD1.5's layout
    assert {shape[0] for shape, _ in calls} == {2 * 4} and {shape[1] for shape, _ in calls} == {256, 64, 16, 4}


def test_it_runs(capsys):
    row, = pcfa.measure("tiny", TINY, torch.device("cpu"), torch.float32, 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny (cpu, float32, 1 rounds)" and len(lines) == 5
    assert float(lines[-1].split()[3]) == pytest.approx(row["floor"], abs=1e-3)


def test_the_floor_is_the_step_with_its_attention_exchanged(monkeypatch, capsys):
    monkeypatch.setattr(pcfa, "medians", lambda jobs, rounds: {"without": 1.0, "with": 1.5, "own attention": 0.25, "wanted attention": 0.5})
    row, = pcfa.measure("tiny", TINY, torch.device("cpu"), torch.float32, 1)
    assert row == {"what": "PCFA, tiny", "seconds": 1.5, "ratio": 1.5, "floor": 1.5 / 1.25, "memory": []}
    assert "floor             1250.0 ms   1.250 x without" in capsys.readouterr().out
