"""What all benchmarks count with, on jobs whose numbers are known."""
from types import SimpleNamespace

import pytest
import torch
from firstframe.benchmarks import timing

CPU = torch.device("cpu")


def test_jobs_take_turns_and_their_median_counts():
    order, seconds = [], {"a": [5.0, 1.0, 2.0], "b": [7.0, 9.0, 8.0]}

    def job(name):
        return lambda i: order.append((i, name)) or seconds[name][i]

    assert timing.medians({"a": job("a"), "b": job("b")}, 3) == {"a": 2.0, "b": 8.0}
    assert order == [(0, "a"), (0, "b"), (1, "a"), (1, "b"), (2, "a"), (2, "b")]


def test_seconds_are_those_of_the_clock(monkeypatch):
    clock, ran = iter([3.0, 5.5]), []
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert timing.timed(lambda: ran.append(1)) == 2.5 and ran == [1]


def test_operations_are_two_for_each_product():
    assert timing.operations(lambda: torch.nn.Linear(6, 7)(torch.randn(5, 6))) == 2 * 5 * 6 * 7


def test_no_peak_on_a_cpu_and_nothing_is_run_for_it():
    assert timing.peaks(CPU, lambda: pytest.fail("it ran")) == []


def test_the_model_is_of_the_size_that_was_asked_for():
    size = timing.two_fifths(frames=1, side=32)
    unet = size.model(CPU, torch.float32).model.diffusion_model
    assert unet.model_channels == 128 and unet.channel_mult == [1, 2, 4, 4] and size.prompt(0)[0][0].shape == (1, 77, 768)
    assert timing.heading("tiny", CPU, torch.float16, "2 rounds") == "tiny (cpu, float16, 2 rounds)"
