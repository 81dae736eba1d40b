"""The inversion's benchmark runs and counts right."""
import re

import pytest
import torch
from firstframe.benchmarks import inversion
from firstframe.benchmarks.timing import Size


def test_it_runs(capsys):
    measured = inversion.measure("tiny", Size("SD1.5", 32, [1, 1, 1, 1], 48, 1, 16), torch.device("cpu"), torch.float32, 1, steps=2)
    title, *rows = capsys.readouterr().out.splitlines()
    assert title == "tiny (cpu, float32, 1 pictures)" and [row.split("  ")[1] for row in rows] == list(inversion.KINDS)
    counts = [tuple(map(int, re.search(r"(\d+) calls, +(\d+) with", row).groups())) for row in rows]
    # two levels: each once up (by default refined once) and once for the conditional branch; then as many looks as it takes, and with Adam the step itself
    assert counts[:2] == [(2 + 2 + 2 * 10 + 2, 20), (4 + 2 + 2 + 3, 5)]
    assert [row["ratio"] * measured[2 * (i // 2)]["seconds"] for i, row in enumerate(measured)] == pytest.approx([row["seconds"] for row in measured])  # beside the published one of its mode
