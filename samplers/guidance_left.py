"""How much of classifier-free guidance is left when an inversion's embeddings psi_t stand in the negative branch.

Guidance multiplies eps(prompt) - eps(negative). Where psi_t is the prompt itself that is zero: cfg acts on nothing, and two branches
are paid for one.
"""
import torch

SHARES = (1 / 6, 1 / 2, 5 / 6)  # of the way up at which it is measured
LITTLE = 0.05


def few_timesteps(T: int) -> list[int]:
    """Those of the timesteps 1..T that stand for all: three, or fewer of a short schedule."""
    return sorted({max(1, round(T * share)) for share in SHARES})


def guidance_left(predictions) -> float:
    """Mean of |eps(prompt) - eps(psi)| / |eps(prompt) - eps(negative)| over [(eps(prompt), eps(psi), eps(negative))], Euclidean norms.

    1: as much as against the negative prompt alone; 0: none. nan when prompt and negative prompt say the same.
    """
    def apart(a, b):
        return float(torch.linalg.vector_norm(a - b))
    pairs = [(apart(prompt, psi), apart(prompt, negative)) for prompt, psi, negative in predictions]
    return sum(left / whole for left, whole in pairs) / len(pairs) if all(whole for _, whole in pairs) else float("nan")
