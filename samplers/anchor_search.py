"""Which of several candidate pictures becomes the anchor (I4VGen 3.1), and the search for it that does not sample all of them to the end.

Successive halving: at some steps the denoised predictions of the candidates that are left are decoded and scored, and a share of them, the worst, is sampled
no further. Scores: higher is better. Shapes: candidates along the batch, latents [N,C,h,w] or [N,C,1,h,w], scores [N].
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


@dataclass(frozen=True)
class Found:
    """index: of the best; latent: its samples [1,...]; kept: candidates that were sampled to the end; scores: {candidate: its last score}; calls: steps of one candidate, in all."""
    index: int
    latent: torch.Tensor
    kept: list[int]
    scores: dict[int, float]
    calls: int


def search(sample: Callable, score: Callable, latents: torch.Tensor, steps: int, cuts: list[int], drop: float, who: str) -> Found:
    """sample(rows, latents, begin, end) -> (latents, denoised predictions) of the candidates `rows` over the steps begin..end - 1; score(rows, latents) -> their scores.

    cuts: after so many steps the worst share `drop` in [0, 1) of those left is dropped, at least one stays. Without cuts every candidate is sampled to the end
    and scored there. A candidate that is alone is sampled to the end unscored.
    """
    rows, scores, calls, begin = list(range(len(latents))), {}, 0, 0
    for end in (*cuts, steps):
        if len(rows) == 1 and end < steps:
            continue
        latents, denoised = sample(rows, latents, begin, end)
        calls, begin = calls + len(rows) * (end - begin), end
        if end < steps:
            found = score(rows, denoised)
            scores |= dict(zip(rows, found.tolist()))
            stay = sorted(ranking(found, who)[:max(1, len(rows) - int(drop * len(rows)))])
            rows, latents = [rows[i] for i in stay], latents[stay]
    best = 0
    if len(rows) > 1 or not scores:
        found = score(rows, latents)
        scores |= dict(zip(rows, found.tolist()))
        best = ranking(found, who)[0]
    return Found(rows[best], latents[best:best + 1], rows, scores, calls)
