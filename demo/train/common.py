"""What every training stage shares: where things are, saving and resuming, a log of losses, an averaged copy of the weights."""
import csv
import math
import os
import time
from pathlib import Path

import torch

from ..in_process import WEIGHTS

LOGS = WEIGHTS / "logs"
STATE = Path(os.environ.get("FIRSTFRAME_TRAIN_STATE", WEIGHTS.parents[1] / ".train"))


def initialise(module: torch.nn.Module) -> None:
    """torch's default initialisation; the host's layers come uninitialised and have emptied their own reset_parameters."""
    for m in module.modules():
        for layer in (torch.nn.Conv2d, torch.nn.Linear, torch.nn.GroupNorm, torch.nn.LayerNorm):
            if isinstance(m, layer):
                layer.reset_parameters(m)


def warm_cosine(step: int, steps: int, lr: float, warm: int = 200, start: int = 0) -> float:
    """Learning rate: linear rise over `warm` steps from `start` on (the optimiser's memory is empty there), cosine to 2 % of lr at `steps`."""
    falling = min(1.0, (step - start) / (steps - start))
    return lr * min(1.0, (step - start + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * falling)))


class Average:
    """Exponential moving average of the weights, with a short memory at first."""

    def __init__(self, modules, decay: float):
        self.modules, self.decay, self.n = modules, decay, 0
        self.mean = [p.detach().clone() for p in self._parameters()]

    def _parameters(self):
        return [p for m in self.modules for p in m.parameters()]

    @torch.no_grad()
    def update(self):
        self.n += 1
        torch._foreach_lerp_(self.mean, [p.detach() for p in self._parameters()], 1 - min(self.decay, self.n / (self.n + 10)))

    @torch.no_grad()
    def swap(self):
        """Exchange weights and averages; twice is nothing."""
        for p, m in zip(self._parameters(), self.mean):
            keep = p.detach().clone()
            p.copy_(m)
            m.copy_(keep)


class Run:
    """One stage's state file and loss log. `save` is atomic: a stage may be stopped at any moment."""

    def __init__(self, name: str):
        STATE.mkdir(parents=True, exist_ok=True)
        LOGS.mkdir(parents=True, exist_ok=True)
        self.name, self.file, self.log_file = name, STATE / f"{name}.pt", LOGS / f"{name}.csv"
        self.began = time.time()

    def load(self):
        return torch.load(self.file, weights_only=True) if self.file.exists() else None

    def save(self, state: dict) -> None:
        part = self.file.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.file)

    def log(self, **row) -> None:
        row["seconds"] = round(time.time() - self.began, 1)
        new = not self.log_file.exists()
        with open(self.log_file, "a", newline="") as f:
            w = csv.writer(f)
            if new:
                w.writerow(row)
            w.writerow([f"{v:.5g}" if isinstance(v, float) else v for v in row.values()])
        print(self.name, *(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
