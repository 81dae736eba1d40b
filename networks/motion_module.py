"""AnimateDiff's temporal transformers: self-attention along the frames, at every place of the picture by itself.

Axes: c clips (conditionings x videos), f frames, p places (h x w), C channels. Module names are those of the published
files without their `temporal_transformer.`, so that weight patches (motion LoRA) find them.
"""
import math
from dataclasses import dataclass

import torch
from comfy.ldm.modules.attention import CrossAttention, FeedForward
from torch import nn

from ..attention_patches.unet import last_layers, spatial_layers
from .nested import nested

HEADS = 8  # in every published file; not to be told from the keys


@dataclass(frozen=True)
class Size:
    """Of one temporal transformer: channels, a multiple of 32; blocks; attention layers in each block (published: 1 and 2)."""

    channels: int
    blocks: int = 1
    attentions: int = 2


def positions(numbers, channels: int, like: torch.Tensor) -> torch.Tensor:
    """Sinusoids [f,C] of f frame numbers: sin in the even channels, cos in the odd ones, of number * 10000^(-2k/C)."""
    position = torch.as_tensor(numbers, device=like.device)[:, None]
    angle = position * torch.exp(torch.arange(0, channels, 2, device=like.device) * (-math.log(10000.0) / channels))
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1).to(like)


class TemporalBlock(nn.Module):
    def __init__(self, size: Size, dtype, device, operations):
        super().__init__()
        made, C = dict(dtype=dtype, device=device, operations=operations), size.channels
        self.attention_blocks = nn.ModuleList(CrossAttention(C, heads=HEADS, dim_head=C // HEADS, **made) for _ in range(size.attentions))
        self.norms = nn.ModuleList(operations.LayerNorm(C, dtype=dtype, device=device) for _ in range(size.attentions))
        self.ff = FeedForward(C, glu=True, **made)
        self.ff_norm = operations.LayerNorm(C, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor, pe: torch.Tensor, transformer_options: dict) -> torch.Tensor:
        """x [c*p,f,C]; pe [f,C] is seen by queries, keys and values alike, after the norm."""
        for attention, norm in zip(self.attention_blocks, self.norms):
            x = x + attention(norm(x) + pe, transformer_options=transformer_options)
        return x + self.ff(self.ff_norm(x))


class TemporalTransformer(nn.Module):
    def __init__(self, size: Size, dtype=None, device=None, operations=None):
        super().__init__()
        C = size.channels
        self.norm = operations.GroupNorm(32, C, eps=1e-6, dtype=dtype, device=device)
        self.proj_in = operations.Linear(C, C, dtype=dtype, device=device)
        self.transformer_blocks = nn.ModuleList(TemporalBlock(size, dtype, device, operations) for _ in range(size.blocks))
        self.proj_out = operations.Linear(C, C, dtype=dtype, device=device)

    def forward(self, x: torch.Tensor, numbers, transformer_options: dict, pe: torch.Tensor | None = None) -> torch.Tensor:
        """What is to be added to x [c*f,C,h,w]. numbers: the position of each of a clip's f frames; pe: their `positions`, where they were made before."""
        f, (C, h, w) = len(numbers), x.shape[1:]
        y = self.norm(x).view(-1, f, C, h * w).permute(0, 3, 1, 2).reshape(-1, f, C).contiguous()  # a strided one would be multiplied place by place
        y, pe = self.proj_in(y), positions(numbers, C, x) if pe is None else pe
        for block in self.transformer_blocks:
            y = block(y, pe, transformer_options)
        return self.proj_out(y).view(-1, h * w, f, C).permute(0, 2, 3, 1).reshape(x.shape)


class MotionModel(nn.Module):
    """The temporal transformers of one file, each under its place's name, e.g. `down_blocks.0.motion_modules.1`."""

    def __init__(self, layout: dict[str, Size], dtype=None, device=None, operations=None):
        super().__init__()
        for place, size in layout.items():
            nested(self, place, TemporalTransformer(size, dtype, device, operations))


def shapes(layout: dict[str, Size]) -> dict[str, torch.Size]:
    """{name: shape} of MotionModel's weights. From torch's own layers: the host's have none before they are loaded where they load lazily."""
    return {name: weight.shape for name, weight in MotionModel(layout, device="meta", operations=nn).state_dict().items()}


def places_on(unet, side: str) -> dict[str, nn.Module]:
    """`places` on the way down, or up."""
    return {f"{side}_blocks.{level}.motion_modules.{j}": layer for level, j, layer in last_layers(unet, {"down": "input", "up": "output"}[side])}


def places(unet) -> dict[str, nn.Module]:
    """{place, named as in the files: the layer of the host's UNet that it follows}: the last one of each block, before any upsampler."""
    found = places_on(unet, "down") | places_on(unet, "up")
    middle = spatial_layers(unet.middle_block)
    if len(middle) > 1:
        found["mid_block.motion_modules.0"] = middle[-2]  # before the second ResBlock
    return found


def adding(net: MotionModel, numbers, options: dict):
    """add(place, h) for one call of the UNet: what the layer at place adds to h [c*f,C,h,w]. The sinusoids are made once for each width."""
    tables = {}

    def add(place, h):
        kind = h.shape[1], h.dtype
        if kind not in tables:
            tables[kind] = positions(numbers, h.shape[1], h)
        return net.get_submodule(place)(h, numbers, options, tables[kind])
    return add
