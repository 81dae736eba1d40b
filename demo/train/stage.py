"""What stays of a training between two runs: its state, and a log of losses."""
import csv
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ..in_process import WEIGHTS

LOGS = WEIGHTS / "logs"
STATE = Path(os.environ.get("FIRSTFRAME_TRAIN_STATE", Path(__file__).resolve().parents[2] / ".train"))


class Stage:
    """`save` is atomic: a training may be stopped at any moment. kept False: only prints. folder: for both, instead of the demo's own."""

    def __init__(self, name: str, kept: bool = True, folder: Path | None = None):
        self.name, self.kept = name, kept
        self.file, self.log_file = (folder or STATE) / f"{name}.pt", (folder or LOGS) / f"{name}.csv"
        self.began = time.time()

    def load(self):
        return torch.load(self.file, map_location="cpu", weights_only=True) if self.kept and self.file.exists() else None

    def save(self, state: dict) -> None:
        if not self.kept:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.file)

    def say(self, row: dict) -> None:
        print(self.name, *(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)

    def log(self, **row) -> None:
        row["seconds"] = round(time.time() - self.began, 1)
        self.say(row)
        if not self.kept:
            return
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        new = not self.log_file.exists()
        with open(self.log_file, "a", newline="") as f:
            w = csv.writer(f)
            if new:
                w.writerow(row)
            w.writerow([f"{v:.5g}" if isinstance(v, float) else v for v in row.values()])


def drawn_once(name: str, draw: Callable[[], dict], saves: bool = True) -> dict:
    """Training data that takes minutes to draw: what is kept under this name, else drawn and, by the worker that saves, kept."""
    stage = Stage(name)
    data = stage.load()
    if data is None:
        data = draw()
        if saves:
            stage.save(data)
    return data
