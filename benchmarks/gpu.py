"""The GPU columns of every benchmark, in one table at the end.   ./scripts/test --gpu, or after it: demo/run.py benchmarks.gpu [rounds]

Each row is from the benchmark of its name, whose docstring says what is compared: seconds of one step (of a whole inversion), the ratio to
the same without it (of an inversion: to the published one; of NI-VSDS: to a step of euler), the ratio to the floor, and what CUDA holds at most, without and with it.
"""
import torch

from ..demo.in_process import use_host
from ..demo.tables.report import markdown
from . import i2v_adapter, inversion, motion_module, ni_vsds, pcfa
from .timing import on_this_machine

COLUMNS = ("", "seconds", "ratio", "ratio to the floor", "peak GiB")


def table(rows: list[dict]) -> str:
    """Markdown. rows: {what, seconds, ratio, floor (or None), memory: GiB without and with, or only with, or nothing}."""
    return markdown(COLUMNS, ([row["what"], f"{row['seconds']:.3f}", f"{row['ratio']:.3f}", f"{row['floor']:.3f}" if row["floor"] else "",
                               " -> ".join(f"{gib:.2f}" for gib in row["memory"])] for row in rows))


def main(argv: list[str]) -> int:
    if not torch.cuda.is_available():
        print(f"benchmarks.gpu needs a CUDA device, and PyTorch {torch.__version__} finds none.")
        return 1
    use_host()
    rows = []
    for subject, rounds in ((pcfa, 9), (motion_module, 5), (i2v_adapter, 5), (ni_vsds, 9), (inversion, 3)):
        for case in on_this_machine(subject.CASES):
            rows += subject.measure(*case, int(argv[0]) if argv else rounds)
    print(f"\n{torch.cuda.get_device_name()}, PyTorch {torch.__version__}\n\n{table(rows)}")
    return 0
