"""The training loop: AdamW, a course of the learning rate, an average of the weights, a state to go on from.

Every step draws from generators that are seeded by its number, so that a training that was stopped goes on as if it had
not been; only what a loss keeps itself (a pool of drawings that is renewed) begins anew.
"""
import math
import random
from collections.abc import Callable, Iterable
from contextlib import contextmanager, nullcontext

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from .stage import Stage
from .workers import ALONE, Workers


def warm_cosine(step: int, steps: int, warm: int = 200) -> float:
    """Share of the highest learning rate: linear rise over `warm` steps (the optimiser's memory is empty there), cosine to 2 % at `steps`."""
    falling = min(1.0, step / steps)
    return min(1.0, (step + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * falling)))


def constant(step: int, steps: int) -> float:
    return 1.0


def moving_average(parameters: torch.nn.ParameterList, decay: float, steps: int) -> AveragedModel:
    """Exponential moving average of the parameters, which have had `steps` steps; its memory is short at first: n / (n + 10) in step n."""
    def average(mean, now, n):
        return torch.lerp(mean, now, 1 - min(decay, int(n) / (int(n) + 10)))

    model = AveragedModel(parameters, avg_fn=average)
    model.n_averaged.fill_(steps + 1)  # the weights at the start count as the first
    return model


@torch.no_grad()
def copy(to: Iterable, values: Iterable) -> None:
    for p, value in zip(to, values, strict=True):
        p.copy_(value)


@contextmanager
def in_place(values: list, parameters: list):
    """Meanwhile the parameters have these values."""
    kept = [p.detach().clone() for p in parameters]
    copy(parameters, values)
    yield
    copy(parameters, kept)


def fit(name: str, parameters: Iterable, loss: Callable, steps: int, *, lr: float, weight_decay: float = 1e-2, betas=(0.9, 0.99), course: Callable = warm_cosine,
        beside: Iterable[dict] = (), decay: float | None = None, start: int = 0, save: Callable = lambda step: None, log_every: int = 50, save_every: int = 50,
        workers: Workers = ALONE, kept: bool = True, stage: Stage | None = None, stop: Callable | None = None) -> None:
    """Trains `parameters` up to step `steps`, from the state of this name or else from `start`, the steps that they have had.

    loss(step, rng, rate) -> (what is minimised, {name: number for the log}); rate: the course at this step, 1 where it is highest.
    course(step, steps) -> share of lr, counted from where the training began.
    beside: more groups of parameters for the optimiser {params, lr, ..., course}; their gradients are not clipped and they are not averaged.
    decay: of the average of the parameters; save(step) finds the average in their place. kept False: no state, no log, only prints.
    stage: for state and log, instead of the name's own. stop() -> whether the training ends after this step, with its state saved.
    """
    parameters, stage = list(parameters), stage or Stage(name, kept)
    groups = [{"params": parameters, "lr": lr, "weight_decay": weight_decay, "betas": betas}, *({**group, "params": list(group["params"])} for group in beside)]
    courses = [group.pop("course", course) for group in groups]
    trained = [p for group in groups for p in group["params"]]
    optimiser, began, state = torch.optim.AdamW(groups, fused=True), start, stage.load()
    if state:
        copy(trained, state["trained"])
        optimiser.load_state_dict(state["optimiser"])
        for group, given in zip(optimiser.param_groups, groups):
            group["initial_lr"] = given["lr"]  # the state has the one of its own time
        start, began = state["step"], state["began"]
    if start >= steps:
        return
    averaged = torch.nn.ParameterList(parameters)
    average = moving_average(averaged, decay, start) if decay else None
    if state and average:
        copy(average.module.parameters(), state["average"])
    schedule = LambdaLR(optimiser, [lambda step, course=course: course(step, steps - began) for course in courses], last_epoch=start - began - 1)

    rng, shown = random.Random(), []
    for step in range(start, steps):
        rng.seed(f"{name} {step} {workers.rank}")
        torch.manual_seed(step * workers.count + workers.rank)
        value, parts = loss(step, rng, courses[0](step - began, steps - began))
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        workers.share([p.grad for p in trained])
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if average:
            average.update_parameters(averaged)
        shown.append({part: number.item() for part, number in parts.items()})
        done = step + 1
        last = done == steps or stop is not None and workers.one_says(stop())
        if workers.rank == 0 and (done % log_every == 0 or last):
            stage.log(step=done, **{part: sum(row[part] for row in shown) / len(shown) for part in parts})
            shown.clear()
        if workers.rank == 0 and (done % save_every == 0 or last):
            means = list(average.module.parameters()) if average else []
            stage.save({"trained": trained, "optimiser": optimiser.state_dict(), "average": means, "step": done, "began": began})
            with in_place(means, parameters) if average else nullcontext():
                save(done)
        if last:
            return
