"""The temporal layers of LVDM's UNet (DynamiCrafter, VideoCrafter): transformers and convolutions along the frames, which the host's UNet lacks.

Axes: c clips (conditionings x videos), f frames, p places (h x w), C channels. Module names are those of the published files.
"""
from dataclasses import dataclass

import torch
from comfy.ldm.modules.attention import CrossAttention, FeedForward
from torch import nn

from .relative_positions import RelativeAttention

KERNEL = 3  # frames that a temporal convolution sees


@dataclass(frozen=True)
class Size:
    """Of one temporal transformer. channels, a multiple of 32; inner: of its tokens; as_convolutions: proj_in and proj_out are convolutions over one place, as in init_attn;
    reach: frames up to which its tables of relative positions tell distances apart, None: it has none."""

    channels: int
    inner: int
    heads: int
    as_convolutions: bool = False
    reach: int | None = None


def attention_of(size: Size, made: dict) -> CrossAttention:
    own = dict(query_dim=size.inner, heads=size.heads, **made)
    d = size.inner // size.heads
    return CrossAttention(dim_head=d, **own) if size.reach is None else RelativeAttention(size.reach, d, **own)


class TemporalBlock(nn.Module):
    """Two self-attentions along the frames and a feed-forward layer. None sees a prompt; the attentions see positions only with tables for them."""

    def __init__(self, size: Size, dtype, device, operations):
        super().__init__()
        made, d = dict(dtype=dtype, device=device, operations=operations), size.inner
        self.attn1, self.attn2 = (attention_of(size, made) for _ in range(2))
        self.ff = FeedForward(d, glu=True, **made)
        self.norm1, self.norm2, self.norm3 = (operations.LayerNorm(d, dtype=dtype, device=device) for _ in range(3))

    def forward(self, x: torch.Tensor, transformer_options: dict) -> torch.Tensor:
        """x [c*p,f,inner]."""
        x = x + self.attn1(self.norm1(x), transformer_options=transformer_options)
        x = x + self.attn2(self.norm2(x), transformer_options=transformer_options)
        return x + self.ff(self.norm3(x))


class TemporalTransformer(nn.Module):
    def __init__(self, size: Size, dtype=None, device=None, operations=None):
        super().__init__()
        made, C = dict(dtype=dtype, device=device), size.channels
        self.norm = operations.GroupNorm(32, C, eps=1e-6, **made)
        project = operations.Conv1d if size.as_convolutions else operations.Linear
        kernel = (1,) if size.as_convolutions else ()
        self.proj_in, self.proj_out = (project(a, b, *kernel, **made) for a, b in ((C, size.inner), (size.inner, C)))
        self.transformer_blocks = nn.ModuleList([TemporalBlock(size, dtype, device, operations)])
        self.as_convolutions = size.as_convolutions

    def forward(self, x: torch.Tensor, frames: int, transformer_options: dict) -> torch.Tensor:
        """What is to be added to x [c*f,C,h,w]. The norm takes its statistics over all frames of a clip."""
        C, h, w = x.shape[1:]
        y = self.norm(x.view(-1, frames, C, h * w).transpose(1, 2))  # [c,C,f,p]
        y = y.permute(0, 3, 1, 2) if self.as_convolutions else y.permute(0, 3, 2, 1)
        y = self.proj_in(y.flatten(0, 1).contiguous())
        y = y.transpose(1, 2).contiguous() if self.as_convolutions else y
        for block in self.transformer_blocks:
            y = block(y, transformer_options)
        y = self.proj_out(y.transpose(1, 2)).transpose(1, 2) if self.as_convolutions else self.proj_out(y)
        return y.unflatten(0, (-1, h * w)).permute(0, 2, 3, 1).reshape(x.shape)


class TemporalConvolutions(nn.Module):
    """Four times norm over all frames of a clip, SiLU, convolution along them; beyond the ends there is nothing (zeros)."""

    def __init__(self, channels: int, dtype=None, device=None, operations=None):
        super().__init__()
        made = dict(dtype=dtype, device=device)
        for i in range(4):
            layers = [operations.GroupNorm(32, channels, eps=1e-5, **made), nn.SiLU(),
                      operations.Conv3d(channels, channels, (KERNEL, 1, 1), padding=(KERNEL // 2, 0, 0), **made)]
            if i:
                layers.insert(2, nn.Identity())  # the files count a dropout there
            self.add_module(f"conv{i + 1}", nn.Sequential(*layers))

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        """What is to be added to x [c*f,C,h,w]."""
        y = x.unflatten(0, (-1, frames)).transpose(1, 2)
        return self.conv4(self.conv3(self.conv2(self.conv1(y)))).transpose(1, 2).flatten(0, 1)
