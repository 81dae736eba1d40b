"""The demo's DynamiCrafter: how it begins, saved and read in the published file format (version 256, with the width of its attention heads)."""
import re

import torch
from safetensors.torch import load_file

from ..in_process import CONTENT_ADAPTER, DYNAMICRAFTER
from . import content_adapter
from .files import save_half, steps_of
from .host_layers import initialise, zero
from .motion_module_file import published

FRAMES_TOKENS = 256  # 16 for each of 16 frames
UNLIKE = 0.02        # standard deviation of what is added to the latents of the Content-Adapter, which are repeated, so that they may part


def layout_for(unet, head: int):
    """What a DynamiCrafter 256 has beside such a UNet. head: width of an attention head."""
    from ...attention_patches.unet import width
    from ...networks.lvdm_layers import Size
    from ...networks.lvdm_unet import Layout, crossed, followed, sites
    transformers, convolutions, images = sites(unet)
    C = unet.model_channels
    return Layout({place: Size(C, 8 * head, 8, True) if place == "init_attn.0" else Size(n := width(followed(unet, place)), n, n // head) for place in sorted(transformers)},
                  {place: width(followed(unet, place)) for place in sorted(convolutions)}, {place: (*crossed(unet, place).widths, True) for place in sorted(images)}, True)


def size_for(embedding: int):
    """embedding: width of CLIP's features. The Content-Adapter's projector with more tokens."""
    from dataclasses import replace
    return replace(content_adapter.size_for(embedding), tokens=FRAMES_TOKENS)


def empty(unet):
    """{"unet": LvdmUNet around the layers of such a UNet, "image_proj_model": Resampler}, with nothing in them."""
    import comfy.ops

    from ...networks.image_projection import image_projection
    from ...networks.lvdm_unet import LvdmUNet
    from ..comfy_support import UNET, VISION, FirstFrameDemo
    made = dict(operations=comfy.ops.disable_weight_init)
    head = UNET["model_channels"] // FirstFrameDemo.unet_extra_config["num_heads"]
    net = LvdmUNet(layout_for(unet, head), **made, **{**UNET, "in_channels": 8, "num_heads": -1, "num_head_channels": head})
    return torch.nn.ModuleDict({"unet": net, "image_proj_model": image_projection(size_for(VISION["hidden_size"]), **made)})


def begin(net, unet, motion) -> None:
    """Fills `empty`'s networks: its predictions are those of the image model `unet`, whatever stands beside the noise and whatever the picture.

    motion: the motion module, of which all but the last layers begin the temporal transformers. With those too, predictions were worse than the image model's by itself: LVDM's
    layers have no positions, and half as many heads.
    """
    torch.manual_seed(4)
    initialise(net)
    own, video, old = net["unet"], net["unet"].video, unet.state_dict()
    first = old.pop("input_blocks.0.0.weight")
    own.load_state_dict(old, strict=False)
    own.input_blocks[0][0].weight.data.copy_(torch.cat([first, torch.zeros_like(first)], 1))
    for place in own.layout.transformers:
        zero(video.get_submodule(place).proj_out)
    for place in own.layout.convolutions:
        zero(video.get_submodule(place).conv4[-1])
    zero(video.fps_embedding[-1])
    motion_begins(own, motion, unet)
    picture_begins(net, unet)


def motion_begins(own, motion, unet) -> None:
    """The temporal transformers' norms, attentions and feed-forward layers are the motion module's of the same place, all but the last layer."""
    from ...networks.lvdm_unet import followed
    from ...networks.motion_module import places
    at = {layer: place for place, layer in places(unet).items()}
    names = (("norms.0.", "norm1."), ("norms.1.", "norm2."), ("ff_norm.", "norm3."), ("attention_blocks.0.", "attn1."), ("attention_blocks.1.", "attn2."))
    for place in own.layout.transformers:
        theirs = at.get(followed(unet, place))
        if theirs is None:
            continue
        found = {}
        for key, value in motion.get_submodule(theirs).state_dict().items():
            for a, b in names:
                key = key.replace(a, b)
            found[key] = value
        own.video.get_submodule(place).load_state_dict({key: value for key, value in found.items() if not key.startswith("proj_out.")}, strict=False)


def picture_begins(net, unet) -> None:
    """The Content-Adapter's projector and keys; values are zero, gates open."""
    from ...networks.content_adapter import look, places
    from ...networks.lvdm_unet import crossed
    found = look(load_file(CONTENT_ADAPTER), CONTENT_ADAPTER.name)[0]
    projection, keys = ({key: value.float() for key, value in found[part].items()} for part in ("image_proj.", "ip_adapter."))
    latents = projection["latents"].repeat(1, FRAMES_TOKENS // projection["latents"].shape[1], 1)
    net["image_proj_model"].load_state_dict({**projection, "latents": latents + UNLIKE * torch.randn_like(latents)})
    numbers = {layer.address: number for number, layer in places(unet).items()}
    for place in net["unet"].layout.images:
        layer = net["unet"].video.get_submodule(place)
        layer.to_k_ip.weight.data.copy_(keys[f"{numbers[crossed(unet, place).address]}.to_k_ip.weight"])
        zero(layer.to_v_ip)
        torch.nn.init.zeros_(layer.alpha)


def ready(net) -> None:
    """For training on a CPU under autocast to bfloat16. contiguous: torch's GroupNorm crashes going backward from a channels-last input to a gradient that is none."""
    for part in (net["unet"].input_blocks, net["unet"].middle_block, net["unet"].output_blocks, net["unet"].out):
        part.to(memory_format=torch.channels_last)
    for name, module in net["unet"].named_modules():
        if isinstance(module, torch.nn.GroupNorm if not name.startswith("video.") else (torch.nn.GroupNorm, torch.nn.LayerNorm)):
            like = torch.contiguous_format if name.startswith("video.") else torch.preserve_format
            module.register_forward_pre_hook(lambda module, args, like=like: (args[0].to(torch.float32, memory_format=like),))


def theirs(key: str) -> str:
    """The published name of a weight of LvdmUNet."""
    key = re.sub(r"^(output_blocks\.\d+|middle_block)\.2\.", r"\1.3.", key)  # behind the temporal transformer
    return key.removeprefix("video.").replace("fps_embedding.", "framestride_embed.")


def tensors(net) -> dict:
    """The file's."""
    from ...networks.lvdm_files import PROJECTION, UNET, WIDTH
    own = net["unet"]
    return {**{UNET + theirs(key): value for key, value in own.state_dict().items()}, **{PROJECTION + key: value for key, value in net["image_proj_model"].state_dict().items()},
            WIDTH: torch.tensor(float(own.num_head_channels))}


def save(net, steps: int) -> None:
    save_half(tensors(net), DYNAMICRAFTER, steps)


def load_published(net) -> int:
    """Returns the steps that the weights have had."""
    from ...networks.lvdm_files import look
    found = look(load_file(DYNAMICRAFTER), DYNAMICRAFTER.name)
    for part, weights in (("unet", found.unet), ("image_proj_model", found.projection)):
        net[part].load_state_dict({key: value.float() for key, value in weights.items()})
    return steps_of(DYNAMICRAFTER)


def build() -> tuple:
    """(the two networks as `empty` names them, the text encoder that goes with them, frozen, the steps that they have had)."""
    unet, text, motion, _, _ = published()
    net = empty(unet)
    begin(net, unet, motion)
    had = load_published(net) if DYNAMICRAFTER.exists() else 0
    ready(net)
    return net, text, had
