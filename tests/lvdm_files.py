"""Small DynamiCrafters and VideoCrafters with random weights in the published format. Import as `firstframe.tests.lvdm_files`."""
import re

import torch
from firstframe.demo import comfy_support
from firstframe.networks.image_projection import ResamplerSize, image_projection
from firstframe.networks.lvdm_files import BOTH, CONVOLVED, GATED, PROJECTION, RATED, RELATED, SHAPES, UNET, VERSIONS, Version
from firstframe.networks.lvdm_layers import Size
from firstframe.networks.lvdm_unet import Layout, LvdmUNet
from torch import nn

C = 64  # one head
CONFIG = dict(image_size=32, in_channels=BOTH, out_channels=4, model_channels=C, use_spatial_transformer=True, legacy=False, use_checkpoint=False, use_temporal_resblock=False,
              use_temporal_attention=False, num_res_blocks=[1, 1], channel_mult=[1, 1], transformer_depth=[1, 1], transformer_depth_output=[1, 1, 1, 1],
              transformer_depth_middle=1, use_linear_in_transformer=True, adm_in_channels=None, num_heads=-1, num_head_channels=C)
BLOCKS = [f"input_blocks.{n}" for n in (1, 3)] + [f"output_blocks.{n}" for n in range(4)] + ["middle_block"]
TOKENS = 256


def layout(width: int, version: Version) -> Layout:
    reach = {"reach": 16} if RELATED in version.has else {}
    convolutions = {f"{block}.0.temopral_conv": C for block in BLOCKS} | {"middle_block.3.temopral_conv": C}
    images = {f"{block}.1.transformer_blocks.0.attn2": (C, width, GATED in version.has) for block in BLOCKS}
    return Layout({"init_attn.0": Size(C, 8 * C, 8, True, **reach), **{f"{block}.2": Size(C, C, 1, **reach) for block in BLOCKS}},
                  convolutions if CONVOLVED in version.has else {}, images if version.picture else {}, RATED in version.has)


def theirs(key: str, gate: bool) -> str:
    """The published name of a weight of LvdmUNet."""
    key = re.sub(r"^(output_blocks\.\d+|middle_block)\.2\.", r"\1.3.", key).removeprefix("video.")
    return UNET + (key.replace("fps_embedding.", "framestride_embed.") if gate else key)


def drawn(net: nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """{name: random numbers that leave ordinary ones after each layer}"""
    def value(shape):
        noise = torch.randn(shape, generator=generator)
        return noise / shape[1:].numel() ** 0.5 if len(shape) > 1 else 1 + 0.1 * noise if shape else noise
    return {name: value(weight.shape) for name, weight in net.state_dict().items()}


def file(width: int = 64, features: int = 32, version: str = "512", seed: int = 0) -> dict[str, torch.Tensor]:
    """UNet and image projection, of one of VERSIONS. width: of the text; features: of the image tower."""
    generator, of = torch.Generator().manual_seed(seed), VERSIONS[version]
    unet = LvdmUNet(layout(width, of), device="meta", operations=SHAPES, **{**CONFIG, "in_channels": of.channels}, context_dim=width)
    sd = {theirs(name, GATED in of.has): value for name, value in drawn(unet, generator).items()}
    if of.picture:
        size = ResamplerSize(features, width, TOKENS if of.channels == BOTH else 16, 64, 64, 128, 1)
        sd |= {PROJECTION + name: value for name, value in drawn(image_projection(size, device="meta", operations=nn), generator).items()}
    return sd if of.base is None else sd | {"scale_arr": torch.full((1400,), of.base)}


def for_demo(**more) -> dict[str, torch.Tensor]:
    """For the demo's text encoder and image tower."""
    return file(comfy_support.UNET["context_dim"], comfy_support.VISION["hidden_size"], **more)
