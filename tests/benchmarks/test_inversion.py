"""The inversion's benchmark runs and counts right."""
import re

import torch
from firstframe.benchmarks import inversion


def test_it_runs(capsys):
    inversion.measure("tiny", ("SD1.5", 32, [1, 1, 1, 1], 48, 16), torch.device("cpu"), torch.float32, 1, steps=2)
    title, *rows = capsys.readouterr().out.splitlines()
    assert title == "tiny (cpu, float32, 1 pictures)" and [row.split("  ")[1] for row in rows] == list(inversion.KINDS)
    counts = [tuple(map(int, re.search(r"(\d+) calls, +(\d+) with", row).groups())) for row in rows]
    # two levels: each once up (by default refined once) and once for the conditional branch; then as many looks as it takes, and with Adam the step itself
    assert counts[:2] == [(2 + 2 + 2 * 10 + 2, 20), (4 + 2 + 2 + 3, 5)]
    assert all(float(seconds) > 0 for row in rows for seconds in re.findall(r"([\d.]+) s,", row))
