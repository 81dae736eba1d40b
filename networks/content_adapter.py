"""IP-Adapters, the Content-Adapter of I2V-Adapter: reading them, told by their keys and shapes, and the tokens that they make of pictures.

One file holds two networks: what turns CLIP's features into tokens, run once for each picture, and the keys' and values' projections of every
cross-attention, run while sampling. Each has a patcher of its own, so that only the second takes memory then.

The second may also lie in a whole UNet in diffusers' naming (I2V-Adapter's animatediff_v15_v1_ipplus.pth); then the first is in another file.
"""
import copy
import re
from dataclasses import dataclass
from functools import partial

import comfy.model_management
import comfy.model_patcher
import torch
from torch import nn

from ..attention_patches.unet import cross_layers
from .files import IP_ADAPTER, Reader, in_unet, tensors_of
from .image_projection import DIM_HEAD, FullSize, PlainSize, ResamplerSize, image_projection, size_of
from .patcher import in_patcher

LOADER = "Load Content-Adapter"
ENCODERS = {("image_embeds", 1024): "ViT-H/14", ("image_embeds", 1280): "ViT-bigG/14", ("penultimate_hidden_states", 1280): "ViT-H/14", ("penultimate_hidden_states", 1664): "ViT-bigG/14"}
MOST_TOKENS = 1024  # of a picture; published: 4, 16, 257
TOGETHER = 16  # pictures that CLIP sees at once
PROJECTION, LAYERS = "image_proj.", "ip_adapter."  # the parts of a file
OF_UNET = "16 tokens of a picture (plus)"  # what the layers in I2V-Adapter's UNet take
TEXT_KEYS = re.compile(r"((?:(?:down|up)_blocks\.\d|mid_block)\.attentions\.\d\.transformer_blocks\.\d{1,2})\.attn2\.to_k\.weight")


class Projections(nn.Module):
    """to_k and to_v of the image tokens, for each cross-attention under its number in the files."""

    def __init__(self, layout: dict[str, int], width: int, dtype=None, device=None, operations=None):
        super().__init__()
        for place, channels in layout.items():
            self.add_module(place, nn.ModuleDict({name: operations.Linear(width, channels, bias=False, dtype=dtype, device=device) for name in ("to_k_ip", "to_v_ip")}))


def places(unet) -> dict:
    """{number in the files: CrossLayer}: odd ones, since self-attentions have the even ones; the middle block comes last."""
    return {str(2 * m + 1): layer for m, layer in enumerate(cross_layers(unet))}


@dataclass(frozen=True)
class ContentAdapter:
    """What CONTENT_ADAPTER wires carry. projection, patcher: the host's, around an image projection of `size` and around Projections of `layout` {number: channels}."""

    projection: comfy.model_patcher.ModelPatcher
    patcher: comfy.model_patcher.ModelPatcher
    name: str
    size: object
    layout: dict
    loader = LOADER
    places = staticmethod(places)

    @property
    def width(self) -> int:
        return self.size.width

    @property
    def features(self) -> str:
        """Which of CLIP's outputs it takes."""
        return "image_embeds" if isinstance(self.size, PlainSize) else "penultimate_hidden_states"

    @staticmethod
    def projections(net: Projections, place: str) -> tuple:
        layer = net.get_submodule(place)
        return layer["to_k_ip"], layer["to_v_ip"]

    @staticmethod
    def gate(net: Projections, place: str) -> None:
        """None: all that there is to weigh is the node's own weight."""


def reader(name: str) -> Reader:
    return Reader(LOADER, "an IP-Adapter (plain, plus, plus-face, full-face; SD1.5 or SDXL)", name)


def shapes(make, prefix: str) -> dict[str, torch.Size]:
    """From torch's own layers: the host's have no weights before they are loaded where they load lazily."""
    return {prefix + name: weight.shape for name, weight in make(device="meta", operations=nn).state_dict().items()}


def makers(size, layout: dict) -> dict:
    """{part of the file: what makes its network}."""
    return {PROJECTION: partial(image_projection, size), LAYERS: partial(Projections, layout, size.width)}


def kind_of_tokens(size) -> str:
    """In words; layers take only the kind that they were trained with."""
    return "a token for each feature of a picture (full-face)" if isinstance(size, FullSize) else f"{size.tokens} tokens of a picture ({'plain' if isinstance(size, PlainSize) else 'plus'})"


def projection_of(sd: dict, says: Reader) -> tuple[dict, object]:
    """(weights, size) of the image projection in a file. Raises ValueError for one that is not of the published kinds, or incomplete."""
    weights = {k: v for k, v in sd.items() if k.startswith(PROJECTION)}
    if not weights:
        raise says.refuse("one without an image projection", "Choose a file that has it as the image projection: ip-adapter-plus_sd15 for I2V-Adapter's UNet.")
    size = size_of(lambda key, axes=None: says.shape(weights, PROJECTION + key, axes))
    if isinstance(size, ResamplerSize) and size.inner % DIM_HEAD:
        raise says.refuse(f"image_proj.layers.0.0.to_q.weight with {size.inner} rows", f"Expected a multiple of {DIM_HEAD}.")
    if getattr(size, "tokens", 0) > MOST_TOKENS:
        raise says.refuse(f"one that makes {size.tokens} tokens of a picture", f"Expected at most {MOST_TOKENS}.")
    says.check_weights(weights, shapes(partial(image_projection, size), PROJECTION))
    return weights, size


def in_order(place: str) -> tuple:
    """Sorts places of a UNet in diffusers' naming as IP-Adapter files count them: down, up, middle."""
    return "dum".index(place[0]), [int(n) for n in re.findall(r"\d+", place)]


def numbered(sd: dict, says: Reader) -> dict:
    """The layers in a UNet in diffusers' naming as an IP-Adapter file has them. Raises ValueError unless each cross-attention has its two, as wide as those for the text."""
    own = {key: value for key, value in sd.items() if "_ip." in key}
    text = {match[1]: value.shape for key, value in sd.items() if (match := TEXT_KEYS.fullmatch(key))}
    names = {f"{place}.attn2.{part}.weight": f"{LAYERS}{2 * m + 1}.{part}.weight" for m, place in enumerate(sorted(text, key=in_order)) for part in ("to_k_ip", "to_v_ip")}
    says.check_weights(own, {name: text[name.partition(".attn2.")[0]] for name in names})
    return {number: own[name] for name, number in names.items()}


def layers_of(sd: dict, says: Reader) -> tuple[dict, dict, int]:
    """(weights, layout, width of the tokens) of the layers in a file. Raises ValueError unless every key, shape and number is theirs."""
    if in_unet(sd):
        weights = numbered(sd, says)
    else:
        weights = {(LAYERS + k.removeprefix("adapter_modules.")) if k.startswith("adapter_modules.") else k: v for k, v in sd.items() if not k.startswith(PROJECTION)}
    count = sum(k.startswith(LAYERS) and k.endswith(".to_k_ip.weight") for k in weights)
    sizes = {str(n): says.shape(weights, f"{LAYERS}{n}.to_k_ip.weight", 2) for n in range(1, 2 * max(1, count), 2)}
    layout, width = {n: channels for n, (channels, _) in sizes.items()}, sizes["1"][1]
    says.check_weights(weights, shapes(partial(Projections, layout, width), LAYERS))
    return weights, layout, width


def look(sd: dict, name: str, other: tuple[dict, str] | None = None) -> tuple[dict, object, dict]:
    """({part: weights}, size, layout). Raises ValueError unless every key, shape and number is an IP-Adapter's. Nothing is built before.

    other: the tensors and the name of the file whose image projection is used in place of this one's.
    """
    sd, says = tensors_of(sd), reader(name)
    says.check_kind(sd, IP_ADAPTER)
    layers, layout, width = layers_of(sd, says)
    takes = None
    if other is not None:
        takes = kind_of_tokens(projection_of(sd, says)[1]) if any(key.startswith(PROJECTION) for key in sd) else OF_UNET
        sd, says = tensors_of(other[0]), reader(other[1])
        says.check_kind(sd, IP_ADAPTER)
    projection, size = projection_of(sd, says)
    found = kind_of_tokens(size), size.width
    if found != (wanted := (takes or found[0], width)):
        raise says.refuse("an image projection that makes {}, {} wide, for layers that take {}, {} wide".format(*found, *wanted), "Choose the one that the layers were trained with.")
    return {part: {k.removeprefix(part): v for k, v in weights.items()} for part, weights in ((PROJECTION, projection), (LAYERS, layers))}, size, layout


def part_again(read, name: str, size, layout: dict, part: str) -> dict:
    """The weights for another copy of a part. Raises ValueError when the file is another one by now."""
    weights, *found = read()
    if found != [size, layout]:
        raise ValueError(f"{LOADER} read {name!r}, which has been replaced by an IP-Adapter of another size since. Give that one a name of its own, press R and choose it.")
    return weights[part]


def content_adapter(source, name: str, other: tuple | None = None) -> ContentAdapter:
    """The file's networks in the host's patchers, not yet on any device. Raises ValueError for another kind of file, or an incomplete one.

    source: a function that reads the file's tensors, each time that the host needs another copy; or the tensors, which are then kept.
    other: (source, name) of the file whose image projection is used, None: the same.
    """
    def tensors(source):
        return source() if callable(source) else source

    def read():
        return look(tensors(source), name, other and (tensors(other[0]), other[1]))

    weights, size, layout = read()
    projection, patcher = (in_patcher(make, weights[part], partial(part_again, read, name, size, layout, part)) for part, make in makers(size, layout).items())
    return ContentAdapter(projection, patcher, name, size, layout)


def features_of(clip_vision, pictures: torch.Tensor, adapter: ContentAdapter, who: str) -> torch.Tensor:
    """CLIP's features of [b,h,w,3]. Raises ValueError for a CLIP of another width."""
    parts = [clip_vision.encode_image(part)[adapter.features] for part in pictures.split(TOGETHER)]
    width, wanted = parts[0].shape[-1], adapter.size.embedding
    if width != wanted:
        raise ValueError(f"{who}: {adapter.name!r} takes image features that are {wanted} wide ({ENCODERS.get((adapter.features, wanted), 'another CLIP')}), this CLIP_VISION "
                         f"gives {width} ({ENCODERS.get((adapter.features, width), 'another one')}). Choose the right one in Load CLIP Vision.")
    return torch.cat(parts)


def nothing(clip_vision, like: torch.Tensor, adapter: ContentAdapter, who: str) -> torch.Tensor:
    """The features that stand for no picture: zeros for plain; else those of a picture that is zero after CLIP's normalisation."""
    if isinstance(adapter.size, PlainSize):
        return torch.zeros_like(like[:1])
    blank = copy.copy(clip_vision)
    blank.image_mean = [0.0, 0.0, 0.0]
    side = clip_vision.image_size
    return features_of(blank, torch.zeros(1, side, side, 3), adapter, who)


@torch.no_grad()
def image_tokens(adapter: ContentAdapter, clip_vision, pictures: torch.Tensor, who: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens of the pictures [b,m,D], tokens of no picture [1,m,D]) in float32."""
    found = features_of(clip_vision, pictures, adapter, who)
    features = torch.cat([found, nothing(clip_vision, found, adapter, who)]).float()
    comfy.model_management.load_models_gpu([adapter.projection])
    tokens = adapter.projection.model(features.to(adapter.projection.load_device)).to(comfy.model_management.intermediate_device())
    return tokens[:-1], tokens[-1:]
