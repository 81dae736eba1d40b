"""The host's image UNet: which models have one, and the addresses of what lies in it."""
from dataclasses import dataclass

import torch
from comfy.ldm.modules.attention import SpatialTransformer, SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel, Upsample

STAGES = ("input", "middle", "output")


def check_model(model, who: str, does: str = "changes the self-attention") -> None:
    """Raises ValueError unless the model is an image UNet whose frames lie along the batch. does: what the node does with the UNet."""
    unet = model.get_model_object("diffusion_model")
    if not isinstance(unet, UNetModel):
        raise ValueError(
            f"{who} {does} of an SD1.5- or SDXL-type UNet, got {type(model.model).__name__} "
            f"({type(unet).__name__}). Load such a checkpoint in Load Checkpoint."
        )
    if getattr(unet, "relates_frames", False) or any(isinstance(layer, SpatialVideoTransformer) for layer in unet.modules()):
        raise ValueError(
            f"{who} needs an image UNet (SD1.5, SDXL), got the video model {type(model.model).__name__}, "
            f"which relates its frames itself. Load an image checkpoint in Load Checkpoint."
        )


def blocks(unet, stage: str) -> list:
    """The blocks of a stage, each a list of layers."""
    return {"input": unet.input_blocks, "middle": [unet.middle_block], "output": unet.output_blocks}[stage]


def transformer_blocks(unet, stages=STAGES) -> list[tuple[str, int]]:
    """Addresses (stage, number) of the blocks with spatial transformers, in the stages asked for."""
    return [(stage, i) for stage in STAGES if stage in stages for i, block in enumerate(blocks(unet, stage))
            if any(isinstance(layer, SpatialTransformer) for layer in block)]


def transformer(unet, address: tuple[str, int]) -> SpatialTransformer:
    """The spatial transformer of a block."""
    stage, number = address
    return next(layer for layer in blocks(unet, stage)[number] if isinstance(layer, SpatialTransformer))


@dataclass(frozen=True)
class CrossLayer:
    """A cross-attention of the UNet. address: (stage, number, index) as in transformer_options; attention: attn2; transformer: the one that it lies in."""

    address: tuple[str, int, int]
    attention: torch.nn.Module
    transformer: SpatialTransformer

    @property
    def widths(self) -> tuple[int, int]:
        """Of its queries and of the context."""
        return self.attention.to_q.out_features, self.attention.to_k.in_features


def cross_layers(unet) -> list[CrossLayer]:
    """All of them in diffusers' order, in which published files count them: down, up, middle."""
    found = []
    for address in (address for stage in ("input", "output", "middle") for address in transformer_blocks(unet, (stage,))):
        whole = transformer(unet, address)
        found += [CrossLayer((*address, i), block.attn2, whole) for i, block in enumerate(whole.transformer_blocks)]
    return found


def spatial_layers(block) -> list:
    """ResBlocks and spatial transformers of a block, in order."""
    return [layer for layer in block if isinstance(layer, (ResBlock, SpatialTransformer))]


def last_layers(unet, stage: str) -> list[tuple[int, int, torch.nn.Module]]:
    """[(level, number in the level, the last spatial layer)] of the input or output blocks, without the first convolution.

    A level ends with its downsampler, which is a block of its own, or with the block that holds the upsampler.
    """
    found, level, j = [], 0, 0
    for block in unet.input_blocks[1:] if stage == "input" else unet.output_blocks:
        spatial = spatial_layers(block)
        if spatial:
            found.append((level, j, spatial[-1]))
            j += 1
        if not spatial or any(isinstance(layer, Upsample) for layer in block):
            level, j = level + 1, 0
    return found


def named_transformers(unet) -> dict[str, SpatialTransformer]:
    """{its name in diffusers' files, such as down_blocks.0.attentions.1: the spatial transformer}."""
    found = {f"{side}_blocks.{level}.attentions.{j}": layer for side, stage in (("down", "input"), ("up", "output")) for level, j, layer in last_layers(unet, stage)
             if isinstance(layer, SpatialTransformer)}
    middle = [layer for layer in unet.middle_block if isinstance(layer, SpatialTransformer)]
    return found | {f"mid_block.attentions.{j}": layer for j, layer in enumerate(middle)}


def named_blocks(unet) -> dict[str, torch.nn.Module]:
    """{name, such as down_blocks.0.attentions.1.transformer_blocks.0: the transformer block}, with attn1 and attn2 in it."""
    return {f"{name}.transformer_blocks.{i}": block for name, layer in named_transformers(unet).items() for i, block in enumerate(layer.transformer_blocks)}


def width(layer) -> int:
    """Channels that leave a ResBlock or spatial transformer."""
    return layer.in_channels if isinstance(layer, SpatialTransformer) else layer.out_channels


def res_blocks(unet) -> list[ResBlock]:
    return [layer for layer in unet.modules() if isinstance(layer, ResBlock)]
