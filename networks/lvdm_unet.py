"""DynamiCrafter's and VideoCrafter's UNet: the host's own, frames along the batch, with LVDM's layers added to it.

The spatial part keeps the host's names and places, so that LoRAs, ControlNets and patches for such a UNet find what they look for. What the host lacks lies in
`video` under the published names: temporal transformers and convolutions, keys and values of the image tokens, and the embedding of frames per second.
While a call is under way they run where the published UNet has them.
"""
import re
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from comfy.ops import cast_to_input
from torch import nn

from ..attention_patches import dual_cross, inserted_layers
from ..attention_patches import frames as frame_batch
from ..attention_patches.unet import CrossLayer, blocks, cross_layers, transformer, transformer_blocks
from .lvdm_layers import Size, TemporalConvolutions, TemporalTransformer
from .nested import nested

TRANSFORMER = re.compile(r"(init_attn)\.0|(input|output)_blocks\.(\d+)\.2|(middle)_block\.2")
CONVOLUTIONS = re.compile(r"(?:(input|output)_blocks\.(\d+)\.0|(middle)_block\.([03]))\.temopral_conv")
CROSS = re.compile(r"(?:(input|output)_blocks\.(\d+)|(middle)_block)\.1\.transformer_blocks\.(\d+)\.attn2")
TABLE = ".transformer_blocks.0.attn1.relative_position_k.embeddings_table"
HEAD = 64  # width of an attention head, in every published file
TOKENS = 16  # of the picture, for each frame; VideoCrafter: for all frames


@dataclass(frozen=True)
class Layout:
    """What the host's UNet lacks, by published names. transformers {place: Size}; convolutions {place: channels}; images {cross-attention: (channels, width of the tokens, has a gate)};
    embedding: whether frames per second, or the frame stride, are embedded."""

    transformers: dict[str, Size]
    convolutions: dict[str, int]
    images: dict[str, tuple]
    embedding: bool


class ImageProjections(nn.Module):
    """Keys and values of the image tokens for one cross-attention. alpha: of the gate tanh(alpha) + 1, which the first version learned."""

    def __init__(self, channels: int, width: int, gate: bool, dtype=None, device=None, operations=None):
        super().__init__()
        self.to_k_ip, self.to_v_ip = (operations.Linear(width, channels, bias=False, dtype=dtype, device=device) for _ in range(2))
        self.alpha = nn.Parameter(torch.empty((), dtype=dtype, device=device)) if gate else None


class VideoLayers(nn.Module):
    def __init__(self, layout: Layout, model_channels: int, dtype=None, device=None, operations=None):
        super().__init__()
        made = dict(dtype=dtype, device=device, operations=operations)
        for place, size in layout.transformers.items():
            nested(self, place, TemporalTransformer(size, **made))
        for place, channels in layout.convolutions.items():
            nested(self, place, TemporalConvolutions(channels, **made))
        for place, shape in layout.images.items():
            nested(self, place, ImageProjections(*shape, **made))
        if layout.embedding:
            d = 4 * model_channels
            self.fps_embedding = nn.Sequential(operations.Linear(model_channels, d, dtype=dtype, device=device), nn.SiLU(), operations.Linear(d, d, dtype=dtype, device=device))


def followed(unet, place: str) -> nn.Module:
    """The layer of the host's UNet after which the published one has the temporal layer of that place."""
    if match := TRANSFORMER.fullmatch(place):
        init, stage, number, middle = match.groups()
        return unet.input_blocks[0][0] if init else transformer(unet, (middle or stage, int(number or 0)))
    stage, number, middle, at = CONVOLUTIONS.fullmatch(place).groups()
    return unet.middle_block[0 if at == "0" else -1] if middle else blocks(unet, stage)[int(number)][0]


def sites(unet) -> tuple[set[str], set[str], set[str]]:
    """The places of temporal transformers, temporal convolutions and image projections: a published UNet has them at all of these, or at none."""
    def block(stage, number):
        return "middle_block" if stage == "middle" else f"{stage}_blocks.{number}"

    layers = {(stage, number): layers for stage in ("input", "middle", "output") for number, layers in enumerate(blocks(unet, stage))}
    convolved = {f"{block(*address)}.0" for address, (first, *_) in layers.items() if isinstance(first, ResBlock)} | {"middle_block.3"}
    return ({"init_attn.0"} | {f"{block(*address)}.2" for address in transformer_blocks(unet)}, {f"{place}.temopral_conv" for place in convolved},
            {f"{block(stage, number)}.1.transformer_blocks.{i}.attn2" for stage, number, i in (layer.address for layer in cross_layers(unet))})


def crossed(unet, place: str) -> CrossLayer:
    stage, number, middle, index = CROSS.fullmatch(place).groups()
    return {layer.address: layer for layer in cross_layers(unet)}[(middle or stage, int(number or 0), int(index))]


class LvdmUNet(UNetModel):
    """x [c*f,4 + 4,h,w] (noisy latents, then the picture's; VideoCrafter: 4), context [c*f,n,D] of the text.

    image_tokens [c*f,m,D]: 16 for each of the clip's f frames (frame i attends to its own), any other number: for all frames, as VideoCrafter's 16 are. fps [c*f]: frames
    per second, for DynamiCrafter 256 the frame stride. Either is left out by models without layers for it.
    """

    relates_frames = True  # patches that do so are for image UNets

    def __init__(self, layout: Layout, dtype=torch.float32, device=None, operations=None, **config):
        super().__init__(**config, dtype=dtype, device=device, operations=operations)
        self.layout, self.attends_to_pictures = layout, bool(layout.images)
        self.video = VideoLayers(layout, config["model_channels"], dtype, device, operations)

    def _forward(self, x, timesteps=None, context=None, y=None, control=None, transformer_options={}, image_tokens=None, fps=None, **kwargs):  # noqa: B006
        f = len(frame_batch.read(transformer_options, x.shape[0]).numbers)
        transformers = {place: followed(self, place) for place in self.layout.transformers}
        convolutions = {place: followed(self, place) for place in self.layout.convolutions}

        def embedded(module, args, emb):
            return emb + self.video.fps_embedding(timestep_embedding(fps, self.model_channels).to(emb))

        with ExitStack() as stack:
            if self.layout.embedding and fps is not None:
                stack.callback(self.time_embed.register_forward_hook(embedded).remove)
            stack.enter_context(inserted_layers.added(transformers, lambda place, h: self.video.get_submodule(place)(h, f, transformer_options)))
            stack.enter_context(inserted_layers.added(convolutions, lambda place, h: self.video.get_submodule(place)(h, f)))
            if self.layout.images and image_tokens is not None:
                layers = {place: crossed(self, place) for place in self.layout.images}
                stack.enter_context(dual_cross.added(layers, self.attending(layers, image_tokens[::f], f, transformer_options)))
            return super()._forward(x, timesteps, context, y, control, transformer_options, **kwargs)

    def attending(self, layers: dict, tokens: torch.Tensor, f: int, options: dict):
        """add(place, q, size) for one call: the second term of the cross-attention. tokens [c,m,D]."""
        of_frames = tokens.shape[1] == TOKENS * f

        def add(place, q, size):
            net = self.video.get_submodule(place)
            k, v = (project(tokens) for project in (net.to_k_ip, net.to_v_ip))
            if of_frames:
                k, v = (t.unflatten(1, (f, TOKENS)).flatten(0, 1) for t in (k, v))
            out = dual_cross.image_attention(q, k, v, layers[place], options)
            out = out if net.alpha is None else out * (cast_to_input(net.alpha, q).tanh() + 1)
            scale = dual_cross.scale_of(options, q, size)
            return out if isinstance(scale, int | float) and scale == 1 else out * scale
        return add


TEMPORAL = re.compile(r"(?:(?:in|out)put_blocks\.\d+|middle_block)\.2\.|init_attn\.|.*\.temopral_conv\.|.*\.attn2\.(?:to_[kv]_ip|alpha)|(?:fps_embedding|framestride_embed)\.")
MOVED = ((re.compile(r"^middle_block\.3\."), "middle_block.2."), (re.compile(r"^(output_blocks\.\d+)\.3\."), r"\1.2."))  # where the host has no temporal transformer between


def as_ours(sd: dict) -> dict:
    """A published UNet's weights under LvdmUNet's names."""
    found = {}
    for key, value in sd.items():
        if TEMPORAL.match(key):
            key = f"video.{key.replace('framestride_embed.', 'fps_embedding.')}"
        else:
            for theirs, ours in MOVED:
                key = theirs.sub(ours, key)
        found[key] = value
    return found


def layout_of(sd: dict, head: int = HEAD) -> Layout:
    """Of a UNet under LvdmUNet's names, by keys and shapes. head: width of an attention head, not to be told from them."""
    own = {key.removeprefix("video."): value.shape for key, value in sd.items() if key.startswith("video.")}

    def places(ending):
        return {key.removesuffix(ending): shape for key, shape in own.items() if key.endswith(ending)}

    reach = {place: (shape[0] - 1) // 2 for place, shape in places(TABLE).items()}
    transformers = {place: Size(shape[1], shape[0], shape[0] // head, len(shape) == 3, reach.get(place)) for place, shape in places(".proj_in.weight").items()}
    convolutions = {place: shape[0] for place, shape in places(".conv1.0.weight").items()}
    images = {place: (*shape, f"{place}.alpha" in own) for place, shape in places(".to_k_ip.weight").items()}
    return Layout(transformers, convolutions, images, "fps_embedding.0.weight" in own)
