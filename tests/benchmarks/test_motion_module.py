"""The motion module's benchmark runs, with results that agree."""
import torch
from firstframe.benchmarks import motion_module


def test_it_runs(capsys):
    motion_module.measure("tiny", ("SD1.5", 32, [1, 1, 1, 1], 48, 3, 16), torch.device("cpu"), torch.float32, 1)
    title, *rows = capsys.readouterr().out.splitlines()
    assert title.startswith("tiny (cpu, float32, 1 rounds") and float(title.split("by ")[1].rstrip(")")) <= 1e-4 and len(rows) == 5
    work = [float(row.split(" ms, ")[1].split()[0]) for row in rows[:3]]
    assert work[0] < work[1]
