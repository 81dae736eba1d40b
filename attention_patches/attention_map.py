"""The motion attention map A: where in the picture the motion words of the prompt are looked at (PiLife Eq. 11).

Eq. 11 prints Softmax(Q K_m / sqrt(d)) over the motion tokens m alone, which is constantly 1 for a single one. Here the
softmax is over all tokens of the prompt and the motion tokens' columns are kept and added up; the mean over heads, over
the chosen cross-attention layers (each resized to the latent first) and over the timesteps is scaled to 0..1.

Axes: b batch, h heads, n tokens of the picture, t tokens of the prompt, d channels of a head; maps are [y,x] in latent cells.
"""
import logging
import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from ..prompts.tokens import MotionTokens
from . import unet_call
from .frames import conditional_rows
from .unet import STAGES, check_model, transformer

USUAL = (1, 2)      # levels: 32x32 and 16x16 of SD1.5's 64x64 latents
FLAT = 1e-5         # relative spread of a map below which it holds only rounding errors
LOGITS = 2**24      # logits held at a time (64 MB)


def attention_share(q: torch.Tensor, k: torch.Tensor, columns: torch.Tensor, heads: int, limit: int = LOGITS) -> torch.Tensor:
    """Sum over `columns` of Softmax_t(Q K^T / sqrt(d)), mean over heads: q [b,n,h*d], k [b,t,h*d] -> float32 [b,n] in 0..1.

    In float32, with so many heads at a time that at most `limit` logits exist (one head at least).
    """
    q, k = (x.float().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
    b, _, n, d = q.shape
    step = max(1, limit // (b * n * k.shape[2]))
    share = q.new_zeros(b, n)
    for q_h, k_h in zip(q.split(step, 1), k.split(step, 1)):
        logits = q_h @ k_h.transpose(-1, -2) * d**-0.5
        # less the largest logit instead of as a difference of logsumexp's, which has few digits left where logits are large
        weights = (logits - logits.amax(-1, keepdim=True)).exp_()
        share += (weights[..., columns].sum(-1) / weights.sum(-1)).sum(1)
    return share / heads


def smooth(a: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian mean of a map [y,x], sigma in cells; near an edge of the cells that are there. sigma = 0 returns a itself."""
    if sigma == 0:
        return a

    def weights(n):
        i = torch.arange(n, device=a.device, dtype=a.dtype)
        return torch.softmax(-0.5 * ((i - i[:, None]) / sigma) ** 2, -1)

    return weights(a.shape[0]) @ a @ weights(a.shape[1]).T


def to_map(a: torch.Tensor, smoothing: float = 0.0, gamma: float = 1.0, threshold: float = 0.0) -> torch.Tensor:
    """A from mean shares a [y,x]: smoothed, min-max scaled, A^gamma, and with threshold > 0 cut to A >= threshold -> 1, else 0.

    smoothing >= 0 cells, gamma > 0, threshold in 0..1; 0, 1 and 0 change nothing. A map without any spread says nothing
    about places (all tokens are motion tokens, say): it becomes 1 everywhere, with a warning.
    """
    a = smooth(a, smoothing)
    low, high = a.min(), a.max()
    if high - low <= FLAT * high:
        logging.warning("The motion attention map is the same everywhere; the whole picture is taken. Other resolutions or motion words may tell places apart.")
        return torch.ones_like(a)
    a = ((a - low) / (high - low)) ** gamma
    return (a >= threshold).to(a) if threshold > 0 else a


def level(latent: tuple[int, int], size: tuple[int, int]) -> int:
    """How many times a layer of size [y,x] is halved against the latent: 0 full, 1 half, ... (odd sides are rounded up when halved)."""
    return round(math.log2(latent[0] * latent[1] / (size[0] * size[1])) / 2)


@dataclass
class Captured:
    """What one run leaves behind: the sum of the layers' maps at latent size, their number, and the levels that were seen."""

    who: str
    total: torch.Tensor | None = None
    layers: int = 0
    seen: set[int] = field(default_factory=set)

    def add(self, a: torch.Tensor) -> None:
        self.total = a if self.total is None else self.total + a
        self.layers += 1

    def mean(self) -> torch.Tensor:
        """[y,x], the mean over layers and timesteps; ValueError if there were none or they are not finite."""
        if self.total is None:
            there = ", ".join(f"1/{2**i}" for i in sorted(self.seen)) or "none at all: is the prompt limited to other timesteps?"
            raise ValueError(
                f"{self.who} found no cross-attention layer of the chosen resolutions and stages. The layers that ran in these stages, as a share of "
                f"the latent's width: {there}. Choose one of those resolutions, or more stages."
            )
        if not torch.isfinite(self.total).all():
            raise ValueError(
                f"{self.who}: the model's cross-attention holds NaN or infinite values, often an overflow in half precision. "
                f"Start the host with --fp32-unet, or load another checkpoint."
            )
        return self.total / self.layers


def check_length(positive, tokens: MotionTokens, who: str) -> None:
    """Raises ValueError unless every entry of the CONDITIONING has the token axis that the motion tokens were counted on."""
    for c, _ in positive:
        if c.shape[1] != tokens.length:
            raise ValueError(
                f"{who}: the motion tokens were counted in a prompt of {tokens.length} tokens, 'positive' has {c.shape[1]}. "
                f"Give Motion Tokens and CLIP Text Encode the same prompt and the same CLIP, and join or cut no conditionings in between."
            )


def capture(model, tokens: MotionTokens, size: tuple[int, int], who: str, *, levels=USUAL, stages=STAGES):
    """(a clone of `model` whose attn2 reports, the Captured it reports to); ValueError as in check_model.

    size [y,x] of the latents it will be run on. The clone computes what the model computes: q and k of the layers are
    projected a second time, for the positive conditionings alone. Other attn2 patches run before it, so their prompts are what is read.
    """
    check_model(model, who, "reads the cross-attention")
    captured, key = Captured(who), unet_call.key("attention_map")

    def mark_call(call, proceed):
        x = call.x
        if tuple(x.shape[-2:]) != tuple(size):
            raise ValueError(
                f"{who} reads the prompt against the whole picture, got a part of {list(x.shape[-2:])} of its {list(size)} cells. "
                f"Take the area off 'positive' (Conditioning Set Area; masks without 'set cond area to mask bounds' are fine)."
            )
        # a prompt that shares the batch with a longer one is repeated by the host: its tokens then stand there several times
        columns = [p + i * tokens.length for i in range(max(1, call.context.shape[1] // tokens.length)) for p in tokens.positions]
        rows = conditional_rows(call.options, x.shape[0])
        return proceed((call.unet, *(torch.tensor(i, device=x.device, dtype=torch.long) for i in (rows, columns))))

    def attn2(q, k, v, eo):
        if eo["block"][0] not in stages:
            return q, k, v
        unet, rows, columns = eo[key]
        cells = tuple(eo["activations_shape"][-2:])
        captured.seen.add(level(size, cells))
        if level(size, cells) in levels and len(rows):
            layer = transformer(unet, eo["block"]).transformer_blocks[eo["block_index"]].attn2
            a = attention_share(layer.to_q(q[rows]), layer.to_k(k[rows]), columns, eo["n_heads"]).mean(0)
            captured.add(F.interpolate(a.view(1, 1, *cells), size=tuple(size), mode="bilinear")[0, 0])
        return q, k, v

    m = unet_call.ride(model, key, who, mark_call, relates_frames=False)
    m.set_model_attn2_patch(attn2)
    return m, captured
