"""Reading DynamiCrafter's and VideoCrafter's files: what lies in which part, and which version it is, told by keys and shapes.

A file holds the UNet, that of a model that takes a picture also the image projection, and mostly more: the VAE, the text encoder, the image tower. The official ones are
nested under `state_dict`, those that DeepSpeed wrote under `module`.
"""
import re
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import torch
from comfy.model_detection import detect_unet_config
from torch import nn

from .files import DYNAMICRAFTER, Reader, kind_of
from .image_projection import DIM_HEAD, ResamplerSize, image_projection, size_of
from .lvdm_unet import CONVOLUTIONS, CROSS, HEAD, TABLE, TOKENS, TRANSFORMER, Layout, LvdmUNet, as_ours, layout_of, sites

LOADER = "Load DynamiCrafter"
UNET, PROJECTION, VAE, TEXT, VISION = "model.diffusion_model.", "image_proj_model.", "first_stage_model.", "cond_stage_model.model.", "embedder.model.visual."
PARTS = (UNET, PROJECTION, VAE, TEXT, VISION)
# what is computed anew, and a text tower that nobody asks
OTHERS = re.compile(r"embedder\.model\.(?!visual\.)|betas$|alphas_|sqrt_|log_one_minus_|posterior_|scale_arr$|logvar$|lvlb_weights$")
DEEPSPEED = "_forward_module."
PLAIN_VAE = re.compile(r"(?:en|de)coder\.(?:conv_in|conv_out|norm_out|mid\.(?:block_[12]|attn_1)|(?:down|up)\.\d\.(?:block\.\d|(?:down|up)sample))\.|(?:post_)?quant_conv\.|loss\.")
TOONCRAFTER = "ToonCrafter (its VAE looks at both pictures while it decodes)"
LVDM = re.compile(r"init_attn\.|.*\.temopral_conv\.|(?:(?:in|out)put_blocks\.\d+|middle_block)\.2\.transformer_blocks\.")  # what no image UNet has
AUTO = "auto"
WIDTH = "num_head_channels"  # one number, in files of models with other heads than the published ones; their width is not to be told from the weights
MOST_TOKENS = 1024  # of a picture; published: 256
NOISE, BOTH = 4, 8  # channels that a UNet reads: of the noise alone, and with the picture's latents beside it
# what a UNet may have besides temporal transformers
CONVOLVED, RELATED, RATED, PICTURED, GATED = "temporal convolutions", "relative positions", "frames per second", "image tokens", "gates of the image tokens"


@dataclass(frozen=True)
class Version:
    """base: of the dynamic rescale, None: it has none; fps: what it was shown most, or what its scripts say, for 256 the frame stride, None: it is told none;
    has: what its UNet has, of the words above; channels: NOISE (VideoCrafter) or BOTH."""

    name: str
    base: float | None
    fps: int | None
    size: tuple[int, int]  # width, height
    has: frozenset[str] = frozenset((CONVOLVED, RATED, PICTURED))
    channels: int = BOTH

    @property
    def picture(self) -> bool:
        """Whether it takes one."""
        return PICTURED in self.has


VERSIONS = {v.name: v for v in (
    Version("256", None, 3, (256, 256), frozenset((CONVOLVED, RATED, PICTURED, GATED))), Version("512", 0.7, 24, (512, 320)),
    Version("512 interpolation", 0.7, 5, (512, 320)), Version("1024", 0.3, 10, (1024, 576)),
    Version("VideoCrafter1 512", None, None, (512, 320), frozenset((RELATED,)), NOISE), Version("VideoCrafter1 1024", 0.3, 28, (1024, 576), frozenset((RELATED, RATED)), NOISE),
    Version("VideoCrafter1 512 image to video", 0.7, 8, (512, 320), channels=NOISE), Version("VideoCrafter2 512", 0.7, 28, (512, 320), frozenset((CONVOLVED, RATED)), NOISE))}
# what builds torch's own layers: the host's have no weights before they are loaded where they load lazily
SHAPES = SimpleNamespace(conv_nd=lambda dims, *args, **made: nn.Conv2d(*args, **made),
                         **{name: getattr(nn, name) for name in ("Linear", "Conv1d", "Conv2d", "Conv3d", "GroupNorm", "LayerNorm")})


@dataclass(frozen=True)
class Contents:
    """What a file holds. unet: under LvdmUNet's names; config: the host's, of its spatial part; size: of the projection, None where there is none; the others under their
    published names without the part's, empty where there is none."""

    version: Version
    unet: dict
    config: dict
    layout: Layout
    projection: dict
    size: ResamplerSize | None
    vae: dict
    text: dict
    vision: dict


def reader(name: str) -> Reader:
    return Reader(LOADER, "a DynamiCrafter model (256, 512, 512 interpolation or 1024) or VideoCrafter 1 or 2", name)


def tensors_of(sd: dict) -> dict[str, torch.Tensor]:
    """Flat, whatever wrote the file."""
    for container in ("state_dict", "module"):
        sd = sd[container] if isinstance(sd.get(container), dict) else sd
    return {key.removeprefix(DEEPSPEED): value for key, value in sd.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}


def parts_of(sd: dict, says: Reader) -> dict[str, dict]:
    """{prefix: weights without it}. Raises ValueError for another kind of file, and for keys of no part."""
    found, unknown = {part: {} for part in PARTS}, []
    for key, value in sd.items():
        part = next((part for part in PARTS if key.startswith(part)), None)
        if part:
            found[part][key.removeprefix(part)] = value
        elif key != WIDTH and not OTHERS.match(key):
            unknown.append(key)
    if not any(map(LVDM.match, found[UNET])):
        kind = kind_of(sd)
        raise says.refuse(kind.name if kind else f"{len(sd)} tensors of no kind that this pack knows", (kind or DYNAMICRAFTER).belongs)
    if unknown:
        raise says.refuse(f"one that has the unknown {unknown[0]}")
    says.shape(found[UNET], "input_blocks.0.0.weight", 4)
    if strange := [key for key in found[VAE] if not PLAIN_VAE.match(key)]:
        raise says.refuse(TOONCRAFTER if any(key.startswith("decoder.") for key in strange) else f"one that has the unknown {VAE}{strange[0]}", "That family is not supported.")
    return found


def what_it_has(layout: Layout) -> frozenset[str]:
    seen = {CONVOLVED: layout.convolutions, RELATED: any(size.reach is not None for size in layout.transformers.values()), RATED: layout.embedding,
            PICTURED: layout.images, GATED: any(gate for *_, gate in layout.images.values())}
    return frozenset(name for name, there in seen.items() if there)


def version_of(channels: int, has: frozenset[str], base: float | None, chosen: str, says: Reader) -> Version:
    """base: of the file's scale_arr, None where there is none; chosen: one of VERSIONS, or auto. Raises ValueError where the file says otherwise, or says nothing."""
    like = [v for v in VERSIONS.values() if (v.channels, v.has) == (channels, has)]
    if not like:
        raise says.refuse(f"a UNet of {channels} input channels with {', '.join(sorted(has)) or 'temporal transformers'} alone", "No published model is one.")
    told = [v for v in like if base is None or v.base is not None and abs(v.base - base) < 0.01]
    if not told:
        known = " and ".join(dict.fromkeys(f"{v.base:g} ({v.name})" if v.base else f"none ({v.name})" for v in like))
        raise says.refuse(f"a scale_arr that ends at {base:g}", f"Known for such a UNet: {known}.")
    if chosen == AUTO:
        if len({v.base for v in told}) > 1:
            raise says.refuse("one that does not say whether it is 512 or 1024 (its scale_arr was taken out)", f"Choose it in 'version' of {LOADER}.")
        return told[0]
    if VERSIONS[chosen] not in told:
        family = "a DynamiCrafter " if channels == BOTH else "a "
        raise says.refuse(family + " or ".join(v.name for v in told), f"'version' is {chosen}: set it to {AUTO}, or choose another file.")
    return VERSIONS[chosen]


def head_of(sd: dict, says: Reader) -> int:
    """Width of an attention head. Raises ValueError where the file says one, and it is none."""
    value = sd.get(WIDTH)
    if value is None:
        return HEAD
    if value.numel() != 1 or not float(value).is_integer() or float(value) < 1:
        raise says.refuse(f"{WIDTH} {value.tolist() if value.numel() < 4 else f'of shape {list(value.shape)}'}", "Expected one whole number: the width of an attention head.")
    return int(value)


def config_of(unet: dict, says: Reader, head: int = HEAD) -> dict:
    """The host's configuration of the spatial part. head: width of an attention head. Raises ValueError where there is none."""
    spatial = {key: value for key, value in unet.items() if not key.startswith("video.")}
    try:
        config = detect_unet_config(spatial, "")
    except (KeyError, IndexError, AttributeError, ValueError, TypeError, ZeroDivisionError) as error:  # of a UNet with holes, by where it stops
        raise says.refuse(f"a UNet that lacks layers ({type(error).__name__} {error})") from error
    if config is None or not config.get("model_channels") or config["model_channels"] % 32 or not config.get("context_dim"):
        raise says.refuse("a UNet of no layout that the host knows")
    if config["model_channels"] % head:
        raise says.refuse(f"attention heads {head} wide in a UNet of {config['model_channels']} channels", f"Expected a width that divides them{'' if head == HEAD else f' in {WIDTH}'}.")
    return {**config, "num_heads": -1, "num_head_channels": head, "use_spatial_transformer": True, "legacy": False}


def places_of(unet: dict, says: Reader, head: int = HEAD) -> Layout:
    """`layout_of`. Raises ValueError for temporal layers where no UNet has them, and for sizes that no file has."""
    for ending, name, axes, of in ((".proj_in.weight", TRANSFORMER, (2, 3), head), (".conv1.0.weight", CONVOLUTIONS, (1,), 32), (".to_k_ip.weight", CROSS, (2,), 32),
                                   (TABLE, TRANSFORMER, (2,), 1)):
        for key, value in unet.items():
            if not key.startswith("video.") or not key.endswith(ending):
                continue
            if not name.fullmatch(key.removeprefix("video.").removesuffix(ending)):
                raise says.refuse(f"one that has the unknown {key.removeprefix('video.')}")
            if value.ndim not in axes or value.shape[0] % of or not value.numel():
                raise says.refuse(f"{key.removeprefix('video.')} of shape {list(value.shape)}")
    return layout_of(unet, head)


def shapes(config: dict, layout: Layout, says: Reader) -> dict[str, torch.Size]:
    """{name: shape} of LvdmUNet's weights. Raises ValueError for places that this UNet lacks, and for those where the file lacks what it has elsewhere."""
    made = {key: value for key, value in config.items() if key != "dtype"}
    net = LvdmUNet(layout, device="meta", operations=SHAPES, **made)
    transformers, convolutions, images = sites(net)
    related, gated = {place for place, size in layout.transformers.items() if size.reach is not None}, {place for place, (*_, gate) in layout.images.items() if gate}
    for found, known in ((set(layout.transformers), transformers), (set(layout.convolutions), convolutions), (set(layout.images), images), (related, transformers), (gated, images)):
        if unknown := found - known:
            raise says.refuse(f"one that has {min(unknown)}, where its UNet has no layer for it")
        if found and len(found) < len(known):
            raise says.refuse(f"one that lacks {min(known - found)}, or a part of it, and has the like elsewhere")
    return {name: weight.shape for name, weight in net.state_dict().items()}


def projection_size(projection: dict, version: Version, says: Reader) -> ResamplerSize | None:
    """Raises ValueError unless it is one for this version, every weight of it."""
    if not version.picture:
        if projection:
            raise says.refuse(f"one with an image projection ({PROJECTION}*), and a UNet without layers for its tokens")
        return None
    if not projection:
        raise says.refuse("one without an image projection (image_proj_model)", "Choose a file that has it; the official ones and their pruned copies do.")
    size = size_of(lambda key, axes=None: says.shape(projection, key, axes))
    most, wanted = (MOST_TOKENS, f"a multiple of {TOKENS} tokens, at most {MOST_TOKENS}") if version.channels == BOTH else (TOKENS, f"{TOKENS} tokens, which all frames share")
    if not isinstance(size, ResamplerSize) or size.tokens % TOKENS or size.tokens > most or size.inner % DIM_HEAD:
        raise says.refuse("an image projection of another kind", f"Expected a Resampler with {wanted}.")
    says.check_weights(projection, {key: weight.shape for key, weight in partial(image_projection, size)(device="meta", operations=nn).state_dict().items()})
    return size


def look(sd: dict, name: str, chosen: str = AUTO) -> Contents:
    """Raises ValueError unless every key, shape and number of UNet and projection is a DynamiCrafter's or VideoCrafter's. Nothing is built before."""
    sd, says = tensors_of(sd), reader(name)
    parts = parts_of(sd, says)
    unet, scale, head = as_ours(parts[UNET]), sd.get("scale_arr"), head_of(sd, says)
    config, layout = config_of(unet, says, head), places_of(unet, says, head)
    base = float(scale.flatten()[-1]) if scale is not None and scale.numel() else None
    version = version_of(config["in_channels"], what_it_has(layout), base, chosen, says)
    says.check_weights(unet, shapes(config, layout, says))
    projection = parts[PROJECTION]
    return Contents(version, unet, config, layout, projection, projection_size(projection, version, says), parts[VAE], parts[TEXT], parts[VISION])
