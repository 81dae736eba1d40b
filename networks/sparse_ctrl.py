"""SparseCtrl (AnimateDiff v3): a ControlNet that sees a whole clip and has pictures for some of its frames.

The host's ControlNet, with temporal layers of one attention each on the way down. The noisy sample never goes in: the first convolution gets
zeros, and what is added to it is the embedding of each frame's picture and mask (1), or of zeros where a frame has none.
"""
from dataclasses import dataclass

import torch
from comfy.cldm.cldm import ControlNet
from comfy.ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential
from torch import nn

from ..attention_patches.inserted_layers import added
from .motion_module import HEADS, MotionModel, Size, adding, places_on


@dataclass(frozen=True)
class Layout:
    """widths: channels of each level; blocks: ResBlocks in each; depths: transformer blocks behind each ResBlock; context: the text's width;
    latents: whether a picture comes as 4 latent channels (rgb) or as 3 of pixels (scribble)."""

    widths: tuple[int, ...]
    blocks: int
    depths: tuple[int, ...]
    context: int
    latents: bool

    @property
    def config(self) -> dict:
        """Of the host's UNet on whose way down and middle it is modelled."""
        levels = len(self.widths)
        return dict(image_size=32, in_channels=4, model_channels=self.widths[0], num_res_blocks=[self.blocks] * levels, channel_mult=[c // self.widths[0] for c in self.widths],
                    num_heads=HEADS, use_spatial_transformer=True, legacy=False, transformer_depth=list(self.depths), transformer_depth_middle=1, context_dim=self.context)

    @property
    def motion(self) -> dict[str, Size]:
        return {f"down_blocks.{i}.motion_modules.{j}": Size(c, attentions=1) for i, c in enumerate(self.widths) for j in range(self.blocks)}

    @property
    def hint_channels(self) -> int:
        return (4 if self.latents else 3) + 1


class Given(nn.Module):
    """Stands where the host's ControlNet embeds its hint: here it comes embedded."""

    def forward(self, hint, emb, context):
        return hint


class SparseCtrl(ControlNet):
    def __init__(self, layout: Layout, dtype=None, device=None, operations=None):
        super().__init__(hint_channels=layout.hint_channels, dtype=dtype, device=device, operations=operations, **layout.config)
        self.pictures, self.input_hint_block = self.input_hint_block, Given()
        if layout.latents:
            self.pictures = TimestepEmbedSequential(operations.conv_nd(2, layout.hint_channels, layout.widths[0], 3, padding=1, dtype=dtype, device=device))
        self.motion = MotionModel(layout.motion, dtype, device, operations)

    def forward(self, x, hint, timesteps, context, shown):
        """What is added to the UNet's skips and middle. x, hint [c*f,...]; shown: of each of a clip's f frames the number of its picture, 0 for none.

        Every picture is embedded once, and the zeros of all other frames once: an embedding of pixels at full size is by far the largest tensor here.
        """
        kinds, clips = sorted(set(shown)), len(hint) // len(shown)
        embedded = self.pictures(hint[[shown.index(kind) for kind in kinds]], None)
        with added(places_on(self, "down"), adding(self.motion, range(len(shown)), {})):
            return super().forward(torch.zeros_like(x), embedded[[kinds.index(kind) for kind in shown] * clips], timesteps, context)


class TorchLayers:
    """Those of torch under the host's names. The host's own have no weights before they are loaded, where they load lazily."""

    Linear, LayerNorm, GroupNorm, Conv2d = nn.Linear, nn.LayerNorm, nn.GroupNorm, nn.Conv2d

    @staticmethod
    def conv_nd(dims, *args, **kwargs):
        return nn.Conv2d(*args, **kwargs)


def shapes(layout: Layout) -> dict[str, torch.Size]:
    """{name: shape} of SparseCtrl's weights."""
    return {name: weight.shape for name, weight in SparseCtrl(layout, device="meta", operations=TorchLayers).state_dict().items()}
