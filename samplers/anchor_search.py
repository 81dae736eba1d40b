"""Which of several candidate pictures becomes the anchor (I4VGen 3.1), and the search for it that does not sample all of them to the end.

Drafts: each candidate is first sampled from its own noise in a few large steps; a sampler without fresh noise ends near what the small steps give, and only the
best drafts are sampled for good. Successive halving: at some steps the denoised predictions of the candidates that are left are decoded and scored, and a share of
them, the worst, is sampled no further. Scores: higher is better. Shapes: candidates along the batch, latents [N,C,h,w] or [N,C,1,h,w], scores [N].
"""
from collections.abc import Callable
from dataclasses import dataclass

import torch


def ranking(scores: torch.Tensor, who: str) -> list[int]:
    """Indices, the best first; of equal scores the earlier one; NaN last. Raises ValueError where no score is a number."""
    values = scores.double().tolist()
    if not any(v == v for v in values):
        raise ValueError(f"{who} got no usable score for any of {len(values)} images: all are NaN. Look at the images (a VAE that overflows makes black ones) and at the reward model.")
    return sorted(range(len(values)), key=lambda i: (values[i] != values[i], -values[i] if values[i] == values[i] else 0.0, i))


def check_cuts(cuts: list[int], steps: int, who: str, name: str) -> None:
    """Raises ValueError unless the cuts are whole numbers that rise, each with a step before and after it. name: of the node's input."""
    if any(cut != int(cut) for cut in cuts) or any(b <= a for a, b in zip(cuts, cuts[1:])) or cuts and not (1 <= cuts[0] and cuts[-1] < steps):
        raise ValueError(f"{who} scores after whole steps in rising order, from 1 to {steps - 1} of {steps}, got {', '.join(f'{cut:g}' for cut in cuts)} in {name!r}. "
                         f"Change them, or leave it empty: then all candidates are sampled to the end.")


def coarse(sigmas: torch.Tensor, steps: int) -> torch.Tensor:
    """[steps + 1] of the schedule's levels, evenly spaced along its steps, with the first and the last."""
    return sigmas[torch.linspace(0, len(sigmas) - 1, steps + 1).round().long()]


@dataclass(frozen=True)
class Drafts:
    """draw(rows, latents) -> what a sampling of so many `steps` makes of them; finalists: how many of them are sampled for good."""

    draw: Callable
    steps: int
    finalists: int


@dataclass(frozen=True)
class Found:
    """index: of the best; latent: its samples [1,...]; kept: candidates that were sampled to the end; scores: {candidate: its last score}; calls: steps of one candidate, in all."""
    index: int
    latent: torch.Tensor
    kept: list[int]
    scores: dict[int, float]
    calls: int


def search(sample: Callable, score: Callable, latents: torch.Tensor, steps: int, cuts: list[int], drop: float, who: str, drafts: Drafts | None = None) -> Found:
    """sample(rows, latents, begin, end) -> (latents, denoised predictions) of the candidates `rows` over the steps begin..end - 1; score(rows, latents) -> their scores.

    cuts: after so many steps the worst share `drop` in [0, 1) of those left is dropped, at least one stays. Without cuts every candidate is sampled to the end
    and scored there. A candidate that is alone is sampled to the end unscored.
    """
    rows, scores, calls, begin = list(range(len(latents))), {}, 0, 0

    def keep(found: torch.Tensor, count: int) -> list[int]:
        """Places of the best in `rows`."""
        scores.update(zip(rows, found.tolist()))
        return sorted(ranking(found, who)[:count])

    if drafts and drafts.finalists < len(rows):
        calls = len(rows) * drafts.steps
        rows = keep(score(rows, drafts.draw(rows, latents)), drafts.finalists)
        latents = latents[rows]
    for end in (*cuts, steps):
        if len(rows) == 1 and end < steps:
            continue
        latents, denoised = sample(rows, latents, begin, end)
        calls, begin = calls + len(rows) * (end - begin), end
        if end < steps:
            stay = keep(score(rows, denoised), max(1, len(rows) - int(drop * len(rows))))
            rows, latents = [rows[i] for i in stay], latents[stay]
    best = 0
    if len(rows) > 1 or not scores:
        found = score(rows, latents)
        scores |= dict(zip(rows, found.tolist()))
        best = ranking(found, who)[0]
    return Found(rows[best], latents[best:best + 1], rows, scores, calls)
