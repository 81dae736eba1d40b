"""Probabilistic cross-frame attention: which frames a frame attends to (PiLife section 3.4, Eq. 13-14).

Pure bookkeeping on frame numbers; the attention itself is in cross_frame.py. Frames are counted from 0 here and from
1 in the paper.
"""
import math
import random

# A plan gives for each position of the window the positions it attends to: in the order of the clip, without repetition.
Plan = tuple[tuple[int, ...], ...]


def geometric_k(u: float, p: float, n: int) -> int:
    """Distance k of Eq. 13, P(k) = p (1-p)^(k-1), truncated to 1..n and renormalised, from u in [0, 1) by inversion.

    p = 1 is always k = 1, the previous frame; p = 0 is the limit, all n distances alike.
    """
    if p == 0:
        k = math.floor(u * n) + 1
    elif p == 1:
        k = 1
    else:
        k = math.ceil(math.log1p(-u * (1 - (1 - p) ** n)) / math.log1p(-p))
    return min(max(k, 1), n)


def draws(seed: int, step: int, total: int) -> list[float]:
    """One u per frame and denoising step, the same for all layers, conditionings and context windows."""
    rng = random.Random(f"PCFA {seed} {step}")
    return [rng.random() for _ in range(total)]


def attended(numbers: tuple[int, ...], mode: str, p: float = 1.0, u: list[float] | None = None) -> Plan:
    """S_t of Eq. 14 for every position of a window whose frames have these numbers.

    mode: "first" {1}; "first+previous" {1, t-1}; "PCFA" {1, t-1, t-k}. A window that lacks frame 1 or t-1 takes its
    own earliest frame and the nearest earlier one. The earliest frame attends to itself. u: of `draws`, by frame number.
    """
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    plan = [()] * len(numbers)
    for rank, position in enumerate(order):
        chosen = {0}
        if rank and mode != "first":
            chosen.add(rank - 1)
        if rank and mode == "PCFA":
            chosen.add(rank - geometric_k(u[numbers[position]], p, rank))
        plan[position] = tuple(order[r] for r in sorted(chosen))
    return tuple(plan)
