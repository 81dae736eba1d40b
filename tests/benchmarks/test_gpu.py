"""The table of the GPU columns: from measurements that run here too, and one sentence where there is no card."""
import subprocess

import pytest
import torch
from firstframe.benchmarks import gpu, i2v_adapter, inversion, motion_module, ni_vsds, pcfa
from firstframe.benchmarks.timing import demo_world
from firstframe.demo.cli import environment, venv

SMALL = demo_world(3, 8)


def test_every_benchmark_gives_its_row(capsys):
    cpu = torch.device("cpu"), torch.float32
    rows = [*pcfa.measure("small", SMALL, *cpu, 1), *motion_module.measure("small", SMALL, *cpu, 1), *i2v_adapter.measure("small", SMALL, *cpu, 1),
            *ni_vsds.measure("small", SMALL, *cpu, 1), *inversion.measure("small", SMALL, *cpu, 1, steps=4)]
    rows[0]["memory"], rows[4]["memory"] = [1.25, 1.5], [2.0]
    lines = gpu.table(rows).splitlines()
    assert len(lines) == 2 + 4 + len(inversion.KINDS) and lines[0] == "|  | seconds | ratio | ratio to the floor | peak GiB |"
    for line, row, name in zip(lines[2:5], rows, ("PCFA, small", "motion module, small", "I2V-Adapter, small")):
        assert line.split(" | ")[:4] == [f"| {name}", *(f"{row[column]:.3f}" for column in ("seconds", "ratio", "floor"))]
    assert lines[5].startswith("| NI-VSDS, small | ") and lines[5].endswith(" |  |  |")
    assert lines[2].endswith(" | 1.25 -> 1.50 |") and lines[6].endswith(" |  | 2.00 |")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so(capsys):
    assert gpu.main([]) == 1 and "needs a CUDA device" in capsys.readouterr().out
    done = subprocess.run([venv.python(), "-c", environment.NEEDS_CUDA], capture_output=True, text=True, check=False) if venv.python().exists() else None
    assert done is None or done.returncode == 1 and done.stderr.startswith("scripts/test: --gpu needs a CUDA device") and len(done.stderr.splitlines()) == 1
