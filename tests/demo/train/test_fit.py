"""The training loop on a toy: the same bits after a stop, the old course of the learning rate, the average as one would write it down."""
import csv
import math

import pytest
import torch
from firstframe.demo.train import stage
from firstframe.demo.train.fit import constant, fit, moving_average, warm_cosine
from firstframe.demo.train.workers import Workers
from torch.optim.optimizer import register_optimizer_step_pre_hook


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "STATE", tmp_path / "state")
    monkeypatch.setattr(stage, "LOGS", tmp_path / "logs")
    return tmp_path


class Toy:
    """Two groups of parameters that learn from random numbers of both generators."""

    def __init__(self, stops_at=None):
        torch.manual_seed(0)
        self.weights, self.reader, self.stops_at = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(3))], torch.nn.Parameter(torch.randn(3)), stops_at
        self.saved, self.seen, self.rates, self.losses = {}, [], [], []

    def loss(self, step, rng, rate):
        if step == self.stops_at:
            raise KeyboardInterrupt
        self.seen.append([w.detach().clone() for w in self.weights])
        W, b = self.weights
        y = torch.randn(8, 4) @ W + b
        value = (y - rng.random()).square().mean() + rate * (y.detach() * self.reader).square().mean()
        self.rates.append(rate)
        self.losses.append(value.item())
        return value, {"loss": value}

    def save(self, step):
        self.saved[step] = [w.detach().clone() for w in self.weights]

    def fit(self, steps=9, **options):
        fit("toy", self.weights, self.loss, steps, **{"lr": 0.1, "beside": [{"params": [self.reader], "lr": 0.01, "course": constant}], "decay": 0.4, "save": self.save,
                                                      "log_every": 2, "save_every": 4, **options})
        return self

    def numbers(self):
        return [*self.weights, self.reader]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def rows(file):
    return [row[:-1] for row in csv.reader(file.open())]  # the last column is of seconds


def test_a_stopped_training_goes_on_to_the_same_bits(folders, monkeypatch):
    whole = Toy().fit()
    monkeypatch.setattr(stage, "STATE", folders / "another state")
    monkeypatch.setattr(stage, "LOGS", folders / "other logs")
    with pytest.raises(KeyboardInterrupt):
        Toy(stops_at=5).fit()
    resumed = Toy().fit()
    assert len(resumed.seen) == 9 - 4 and list(resumed.saved) == [8, 9]
    assert equal(resumed.numbers(), whole.numbers()) and equal(resumed.saved[9], whole.saved[9])
    assert rows(folders / "other logs" / "toy.csv") == rows(folders / "logs" / "toy.csv")
    means = [sum(whole.losses[i:i + 2]) / len(whole.losses[i:i + 2]) for i in (0, 2, 4, 6, 8)]
    assert rows(folders / "logs" / "toy.csv") == [["step", "loss"], *([str(step), f"{mean:.5g}"] for step, mean in zip((2, 4, 6, 8, 9), means))]
    before = [p.detach().clone() for p in resumed.numbers()]
    again = Toy().fit()
    assert again.seen == [] and equal(again.numbers(), before)  # it has had its steps


def test_a_higher_number_goes_on_along_the_longer_course(folders):
    Toy().fit(6)
    lrs = rates_of(lambda: Toy().fit(12))
    assert lrs == pytest.approx([old_course(step, 12, 0.1, 200, 0) for step in range(6, 12)], rel=1e-12)


def test_another_learning_rate_counts_when_it_goes_on(folders):
    Toy().fit(6)
    assert rates_of(lambda: Toy().fit(12, lr=0.05)) == pytest.approx([old_course(step, 12, 0.05, 200, 0) for step in range(6, 12)], rel=1e-12)


def old_course(step: int, steps: int, lr: float, warm: int, start: int) -> float:
    """As the published weights were trained."""
    falling = min(1.0, (step - start) / (steps - start))
    return lr * min(1.0, (step - start + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * falling)))


def rates_of(job) -> list:
    """The optimiser's learning rate of the first group in each step of job()."""
    found = []
    hook = register_optimizer_step_pre_hook(lambda optimiser, args, kwargs: found.append(optimiser.param_groups[0]["lr"]))
    try:
        job()
    finally:
        hook.remove()
    return found


@pytest.mark.parametrize("start, steps, warm", [(0, 300, 50), (40, 240, 100), (7, 60, 200)])
def test_the_learning_rate_runs_as_it_did(folders, start, steps, warm):
    toy = Toy()
    lrs = rates_of(lambda: toy.fit(steps, start=start, decay=None, log_every=steps, save_every=steps, course=lambda *at: warm_cosine(*at, warm=warm)))
    assert lrs == pytest.approx([old_course(step, steps, 0.1, warm, start) for step in range(start, steps)], rel=1e-12)
    assert toy.rates == pytest.approx([lr / 0.1 for lr in lrs], rel=1e-12)


@pytest.mark.parametrize("had", [0, 3, 100])
def test_the_average_has_a_short_memory_at_first(had):
    parameters = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(3))])
    mean, average = torch.zeros(3), moving_average(parameters, 0.9, had)
    for n in range(had + 1, had + 200):
        parameters[0].data.normal_()
        kept = min(0.9, n / (n + 10))
        mean = kept * mean + (1 - kept) * parameters[0].detach()
        average.update_parameters(parameters)
        torch.testing.assert_close(average.module[0].detach(), mean)


def test_what_is_saved_is_the_average_and_training_goes_on_from_the_weights(folders):
    toy = Toy().fit(8, save_every=2)
    mean = toy.seen[0]
    for n, now in enumerate([*toy.seen[1:], toy.weights], 1):
        kept = min(0.4, n / (n + 10))
        mean = [kept * m + (1 - kept) * w.detach() for m, w in zip(mean, now)]
        if n % 2 == 0:
            torch.testing.assert_close(toy.saved[n], mean)
    plain = Toy().fit(8, kept=False, decay=None)
    assert equal(plain.weights, toy.weights) and equal(plain.saved[8], plain.weights)


def test_not_kept_is_not_kept(folders):
    Toy().fit(3, kept=False)
    assert list(folders.iterdir()) == []


def test_it_stops_when_asked_with_its_state_saved(folders, monkeypatch):
    whole = Toy().fit()
    monkeypatch.setattr(stage, "STATE", folders / "another state")
    stopped = Toy()
    stopped.fit(stop=lambda: len(stopped.seen) == 3)
    resumed = Toy().fit(stage=stage.Stage("toy"))
    assert list(stopped.saved) == [3] and len(resumed.seen) == 9 - 3
    assert equal(resumed.numbers(), whole.numbers())


def test_one_worker_is_asked_and_all_stop(folders, monkeypatch):
    def add_a_yes(flat):
        flat.add_(flat.numel() == 1)  # gradients are more

    monkeypatch.setattr(torch.distributed, "all_reduce", add_a_yes)
    for rank in (0, 1):
        assert len(Toy().fit(workers=Workers(rank, 2), stop=lambda: False, kept=False).seen) == 1


def test_workers_draw_apart_share_their_gradients_and_one_of_them_saves(folders, monkeypatch):
    other, gathered = torch.arange(18.0), []

    def add_the_other(flat):
        gathered.append(flat.clone())
        flat.add_(other)

    monkeypatch.setattr(torch.distributed, "all_reduce", add_the_other)
    first, second = Toy().fit(1, workers=Workers(0, 2), kept=False), Toy().fit(1, workers=Workers(1, 2), kept=False)
    assert list(first.saved) == [1] and second.saved == {} and not torch.equal(*gathered)
    gradients = torch.cat([p.grad.flatten() for p in first.numbers()])
    reader = slice(15, 18)  # not clipped
    torch.testing.assert_close(gradients[reader], ((gathered[0] + other) / 2)[reader])
    wanted = ((gathered[0] + other) / 2)[:15]
    torch.testing.assert_close(gradients[:15], wanted / wanted.norm())
