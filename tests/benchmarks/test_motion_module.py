"""The motion module's benchmark runs, with results that agree, and its floor is in proportion to the operations."""
import pytest
import torch
from firstframe.benchmarks import motion_module, timing

C, FRAMES, SIDE = 32, 3, 16


def operations_of_the_layers() -> int:
    """Counted by hand: SD1.5's layout has two places a level on the way down, three on the way up, and each level halves the side."""
    tokens = 2 * FRAMES * sum((2 + 3) * (SIDE >> level) ** 2 for level in range(4))  # cond and uncond
    layer = 2 * C * C + 2 * 4 * C * C + (8 + 4) * C * C  # in and out; two attentions' queries, keys, values, out; feed-forward with gate
    attention = 2 * 2 * FRAMES * C
    return 2 * tokens * (layer + attention)


def test_it_runs(capsys, monkeypatch):
    work = []
    monkeypatch.setattr(motion_module, "operations", lambda job: work.append(timing.operations(job)) or work[-1])
    monkeypatch.setattr(motion_module, "medians", lambda jobs, rounds: {"without": 2.0, "with": 3.0, "diffusers": 4.0})
    row, = motion_module.measure("tiny", timing.Size("SD1.5", C, [1, 1, 1, 1], 48, FRAMES, SIDE), torch.device("cpu"), torch.float32, 1)
    title, *rows = capsys.readouterr().out.splitlines()
    assert title.startswith("tiny (cpu, float32, 1 rounds") and float(title.split("by ")[1].rstrip(")")) <= 1e-4 and len(rows) == 5
    without, ours, _ = work
    assert ours - without == operations_of_the_layers()
    assert row == {"what": "motion module, tiny", "seconds": 3.0, "ratio": 1.5, "floor": pytest.approx(1.5 * without / ours), "memory": []}
