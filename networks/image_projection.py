"""What turns CLIP's image features into tokens for cross-attention: IP-Adapter's plain, plus (Resampler) and full projections.

diffusers has the same three (ImageProjection, IPAdapterPlusImageProjection, IPAdapterFullImageProjection), but its layers cannot be the host's, which
are cast and offloaded; tests compare with them. Module names are those of the published files.

Axes: b pictures, l features of a picture, m tokens, D width of the tokens.
"""
from dataclasses import dataclass

import torch
from comfy.ops import cast_to_input
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

DIM_HEAD = 64  # in every published file; not to be told from the keys


@dataclass(frozen=True)
class PlainSize:
    embedding: int
    width: int
    tokens: int = 4


@dataclass(frozen=True)
class FullSize:
    embedding: int
    width: int
    hidden: int


@dataclass(frozen=True)
class ResamplerSize:
    embedding: int
    width: int
    tokens: int
    dim: int
    inner: int
    hidden: int
    depth: int = 4
    dim_head: int = DIM_HEAD


class Plain(nn.Module):
    """A picture's pooled embedding [b,E] -> m tokens [b,m,D]."""

    def __init__(self, size: PlainSize, dtype=None, device=None, operations=None):
        super().__init__()
        made = dict(dtype=dtype, device=device)
        self.tokens = size.tokens
        self.proj = operations.Linear(size.embedding, size.tokens * size.width, **made)
        self.norm = operations.LayerNorm(size.width, **made)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.proj(x).unflatten(-1, (self.tokens, -1)))


class Full(nn.Module):
    """Every feature by itself: [b,l,E] -> [b,l,D]."""

    def __init__(self, size: FullSize, dtype=None, device=None, operations=None):
        super().__init__()
        made = dict(dtype=dtype, device=device)
        self.proj = nn.Sequential(operations.Linear(size.embedding, size.hidden, **made), nn.GELU(), operations.Linear(size.hidden, size.width, **made),
                                  operations.LayerNorm(size.width, **made))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x)


class PerceiverAttention(nn.Module):
    def __init__(self, size: ResamplerSize, dtype, device, operations):
        super().__init__()
        made = dict(dtype=dtype, device=device)
        self.dim_head = size.dim_head
        self.norm1, self.norm2 = (operations.LayerNorm(size.dim, **made) for _ in range(2))
        self.to_q = operations.Linear(size.dim, size.inner, bias=False, **made)
        self.to_kv = operations.Linear(size.dim, 2 * size.inner, bias=False, **made)
        self.to_out = operations.Linear(size.inner, size.dim, bias=False, **made)

    def forward(self, x: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The latents' queries meet keys and values of the features and of the latents themselves."""
        x, latents = self.norm1(x), self.norm2(latents)
        q, (k, v) = self.to_q(latents), self.to_kv(torch.cat([x, latents], 1)).chunk(2, -1)
        q, k, v = (t.unflatten(-1, (-1, self.dim_head)).transpose(1, 2) for t in (q, k, v))
        return self.to_out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Resampler(nn.Module):
    """A picture's features [b,l,E] -> as many tokens [b,m,D] as there are learned latents."""

    def __init__(self, size: ResamplerSize, dtype=None, device=None, operations=None):
        super().__init__()
        made = dict(dtype=dtype, device=device)
        self.latents = nn.Parameter(torch.empty(1, size.tokens, size.dim, **made))
        self.proj_in = operations.Linear(size.embedding, size.dim, **made)
        self.layers = nn.ModuleList(nn.ModuleList([PerceiverAttention(size, dtype, device, operations), nn.Sequential(
            operations.LayerNorm(size.dim, **made), operations.Linear(size.dim, size.hidden, bias=False, **made), nn.GELU(),
            operations.Linear(size.hidden, size.dim, bias=False, **made))]) for _ in range(size.depth))
        self.proj_out = operations.Linear(size.dim, size.width, **made)
        self.norm_out = operations.LayerNorm(size.width, **made)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.proj_in(x)
        latents = cast_to_input(self.latents, x).expand(len(x), -1, -1)
        for attention, feed_forward in self.layers:
            latents = latents + attention(x, latents)
            latents = latents + feed_forward(latents)
        return self.norm_out(self.proj_out(latents))


NETWORKS = {PlainSize: Plain, FullSize: Full, ResamplerSize: Resampler}


def image_projection(size, dtype=None, device=None, operations=None) -> nn.Module:
    return NETWORKS[type(size)](size, dtype, device, operations)


def size_of(shape):
    """The kind and sizes of a projection, by its keys and shapes. shape(key, axes) -> the shape of a weight that must be there, None with axes = None if it is not.

    Sizes may contradict other weights: those are compared with what the size asks for.
    """
    if shape("latents"):
        _, tokens, dim = shape("latents", 3)
        depth = 0
        while shape(f"layers.{depth}.0.to_q.weight"):
            depth += 1
        return ResamplerSize(shape("proj_in.weight", 2)[1], shape("proj_out.weight", 2)[0], tokens, dim, shape("layers.0.0.to_q.weight", 2)[0],
                             shape("layers.0.1.1.weight", 2)[0], depth)
    if shape("proj.3.weight"):
        hidden, embedding = shape("proj.0.weight", 2)
        return FullSize(embedding, shape("proj.3.weight", 1)[0], hidden)
    rows, embedding = shape("proj.weight", 2)
    width, = shape("norm.weight", 1)
    return PlainSize(embedding, width, max(1, rows // width))
