"""What the benchmarks share: sizes of UNets, seconds as medians of interleaved rounds, peak memory, operations."""
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch


class Size(NamedTuple):
    """A UNet and what runs through it. shape: of tests/tiny_models.py; mult: widths per level, in `width`; context: width of the prompt; side: of the latent."""
    shape: str
    width: int
    mult: list
    context: int
    frames: int
    side: int

    def model(self, device, dtype):
        from ..tests import tiny_models as tiny
        return tiny.model(self.shape, dtype, device=device, model_channels=self.width, channel_mult=self.mult, context_dim=self.context)

    def prompt(self, seed: int) -> list:
        """CONDITIONING of 77 random tokens."""
        return [[torch.randn(1, 77, self.context, generator=torch.Generator().manual_seed(seed)), {}]]


def demo_world(frames: int, side: int) -> Size:
    return Size("demo", 64, [1, 1, 1, 1], 64, frames, side)


def two_fifths(frames: int, side: int) -> Size:
    """SD1.5's layout at 2/5 of its width."""
    return Size("SD1.5", 128, [1, 2, 4, 4], 768, frames, side)


def sd15(frames: int, side: int) -> Size:
    return Size("SD1.5", 320, [1, 2, 4, 4], 768, frames, side)


def on_this_machine(cases: dict) -> Iterator[tuple]:
    """(name, size, device, dtype) of {"cpu" or "cuda": {name: size}}."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name, size in cases[device.type].items():
        yield name, size, device, torch.float16 if device.type == "cuda" else torch.float32


def heading(name: str, device, dtype, what: str) -> str:
    return f"{name} ({device.type}, {str(dtype).removeprefix('torch.')}, {what})"


def timed(job: Callable) -> float:
    """Seconds."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    job()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def medians(jobs: dict, rounds: int) -> dict:
    """{name: median seconds} of {name: function of the round's number that returns seconds}. They take turns within each round: other work on the machine meets all of them."""
    seconds = {name: [] for name in jobs}
    for i in range(rounds):
        for name, job in jobs.items():
            seconds[name].append(job(i))
    return {name: statistics.median(found) for name, found in seconds.items()}


def peaks(device, *jobs: Callable) -> list[float]:
    """GiB that CUDA holds at most during each job; empty on a CPU."""
    found = []
    for job in jobs if device.type == "cuda" else ():
        torch.cuda.reset_peak_memory_stats()
        job()
        found.append(torch.cuda.max_memory_allocated() / 2**30)
    return found


def operations(job: Callable) -> int:
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counter:
        job()
    return counter.get_total_flops()
