"""The noise clipper (PiLife Algorithm 1): start noise no farther from the picture's own than its length."""
import random

import torch

LIMIT = 10000  # iterations; with a margin of 0.001 the mean one halves the distance, so this is never a real bound


def shrink(distance: float, length: float, rng: random.Random, eta: float) -> float:
    """Lines 5-8: the product of the factors t ~ U[eta, 1 - eta] drawn until distance * product <= length.

    Each iteration multiplies the difference gamma - eps_rec by t, so the tensor need not be touched in between.
    """
    product = 1.0
    for _ in range(LIMIT):
        if distance * product <= length:
            break
        product *= rng.uniform(eta, 1 - eta)
    return product


def clip_noise(eps_M: torch.Tensor, eps_rec: torch.Tensor, seed: int, eta: float = 0.1, restore: bool = False) -> tuple[torch.Tensor, list]:
    """gamma [F,C,h,w] for each frame of eps_M, and [(|eps_M - eps_rec|, |eps_M|, |gamma - eps_rec|)] per frame.

    eps_rec [1,C,h,w]. eta in (0, 0.5]: the margin of Algorithm 1 (not the eta of Eq. 12). restore: gamma's deviation
    from its own mean is brought back to 1 (off in the paper). A frame within its bound keeps its bits.
    """
    if not 0 < eta <= 0.5:
        raise ValueError(f"Noise Clipper draws from [margin, 1 - margin], got margin = {eta}. Set it above 0 and at most 0.5.")
    apart = torch.linalg.vector_norm(eps_M - eps_rec, dim=(1, 2, 3)).tolist()
    lengths = torch.linalg.vector_norm(eps_M, dim=(1, 2, 3)).tolist()
    rng, frames = random.Random(seed), []
    shares = [shrink(d, n, rng, eta) for d, n in zip(apart, lengths)]
    for noise, share in zip(eps_M, shares):
        gamma = noise if share == 1 else eps_rec[0] + share * (noise - eps_rec[0])
        frames.append(gamma / gamma.std() if restore and share != 1 else gamma)
    gamma = torch.stack(frames)
    after = torch.linalg.vector_norm(gamma - eps_rec, dim=(1, 2, 3)).tolist()
    return gamma, list(zip(apart, lengths, after))
