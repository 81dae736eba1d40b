"""The demo's motion module: built, saved and read in AnimateDiff's file format (v2: with a middle block)."""
import torch
from safetensors.torch import load_file

from ..in_process import MOTION_MODULE
from .clips import FRAMES
from .files import save_half, steps_of
from .host_layers import initialise, norms_in_fp32, zero
from .image_model import frozen
from .motion_words import add_motion_words


def build(unet):
    """(the module, {place: layer of the UNet}); at first it adds nothing."""
    import comfy.ops

    from ...attention_patches.unet import width
    from ...networks.motion_module import MotionModel, Size, places
    layers = places(unet)
    net = MotionModel({place: Size(width(layer)) for place, layer in layers.items()}, operations=comfy.ops.disable_weight_init)
    initialise(net)
    for place in layers:
        zero(net.get_submodule(place).proj_out)
    norms_in_fp32(net, torch.nn.GroupNorm, torch.nn.LayerNorm)
    return net, layers


def save(net, layers, steps: int) -> None:
    from ...networks.motion_module import positions
    sd = {}
    for place in layers:
        transformer, base = net.get_submodule(place), f"{place}.temporal_transformer."
        sd |= {base + k: v for k, v in transformer.state_dict().items()}
        pe = positions(range(FRAMES), transformer.proj_in.in_features, torch.zeros(1))[None]
        sd |= {f"{base}transformer_blocks.0.attention_blocks.{i}.pos_encoder.pe": pe for i in (0, 1)}
    save_half(sd, MOTION_MODULE, steps)


def load_published(net) -> int:
    """The inverse of `save`, without the optimiser's memory. Returns the steps that the weights have had."""
    from ...networks.motion_module_files import sort_out
    net.load_state_dict({k: v.float() for k, v in sort_out(load_file(MOTION_MODULE), MOTION_MODULE.name)[0].items()})
    return steps_of(MOTION_MODULE)


def published() -> tuple:
    """(unet and text encoder with the LoRA of motion words, the published module, {place: layer of the UNet}, the module's steps)."""
    unet, text = frozen()
    add_motion_words(unet, text)
    net, layers = build(unet)
    return unet, text, net, layers, load_published(net)
