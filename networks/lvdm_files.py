"""Reading DynamiCrafter's files: what lies in which part, and which version it is, told by keys and shapes.

A file holds the UNet and the image projection, and mostly more: the VAE, the text encoder, the image tower. The official ones are nested under `state_dict`, those that
DeepSpeed wrote under `module`.
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
from .lvdm_unet import CONVOLUTIONS, CROSS, HEAD, TOKENS, TRANSFORMER, Layout, LvdmUNet, as_ours, crossed, followed, layout_of

LOADER = "Load DynamiCrafter"
UNET, PROJECTION, VAE, TEXT, VISION = "model.diffusion_model.", "image_proj_model.", "first_stage_model.", "cond_stage_model.model.", "embedder.model.visual."
PARTS = (UNET, PROJECTION, VAE, TEXT, VISION)
# what is computed anew, and a text tower that nobody asks
OTHERS = re.compile(r"embedder\.model\.(?!visual\.)|betas$|alphas_|sqrt_|log_one_minus_|posterior_|scale_arr$|logvar$|lvlb_weights$")
DEEPSPEED = "_forward_module."
PLAIN_VAE = re.compile(r"(?:en|de)coder\.(?:conv_in|conv_out|norm_out|mid\.(?:block_[12]|attn_1)|(?:down|up)\.\d\.(?:block\.\d|(?:down|up)sample))\.|(?:post_)?quant_conv\.|loss\.")
TOONCRAFTER = "ToonCrafter (its VAE looks at both pictures while it decodes)"
AUTO = "auto"
MOST_TOKENS = 1024  # of a picture; published: 256


@dataclass(frozen=True)
class Version:
    """base: of the dynamic rescale, None: the model predicts noise; fps: what it was shown most, for 256 the frame stride."""

    name: str
    base: float | None
    fps: int
    size: tuple[int, int]  # width, height


VERSIONS = {v.name: v for v in (Version("256", None, 3, (256, 256)), Version("512", 0.7, 24, (512, 320)), Version("512 interpolation", 0.7, 5, (512, 320)),
                                Version("1024", 0.3, 10, (1024, 576)))}
# what builds torch's own layers: the host's have no weights before they are loaded where they load lazily
SHAPES = SimpleNamespace(conv_nd=lambda dims, *args, **made: nn.Conv2d(*args, **made),
                         **{name: getattr(nn, name) for name in ("Linear", "Conv1d", "Conv2d", "Conv3d", "GroupNorm", "LayerNorm")})


@dataclass(frozen=True)
class Contents:
    """What a file holds. unet: under LvdmUNet's names; config: the host's, of its spatial part; the others under their published names without the part's, empty where there is none."""

    version: Version
    unet: dict
    config: dict
    layout: Layout
    projection: dict
    size: ResamplerSize
    vae: dict
    text: dict
    vision: dict


def reader(name: str) -> Reader:
    return Reader(LOADER, "a DynamiCrafter model (256, 512, 512 interpolation or 1024)", name)


def tensors_of(sd: dict) -> dict[str, torch.Tensor]:
    """Flat, whatever wrote the file."""
    for container in ("state_dict", "module"):
        sd = sd[container] if isinstance(sd.get(container), dict) else sd
    return {key.removeprefix(DEEPSPEED): value for key, value in sd.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}


def parts_of(sd: dict, says: Reader) -> dict[str, dict]:
    """{prefix: weights without it}. Raises ValueError for another kind of file, and for keys of no part."""
    found = {part: {} for part in PARTS}
    for key, value in sd.items():
        part = next((part for part in PARTS if key.startswith(part)), None)
        if part:
            found[part][key.removeprefix(part)] = value
        elif not OTHERS.match(key) and any(".temopral_conv." in k for k in sd):
            raise says.refuse(f"one that has the unknown {key}")
    unet = found[UNET]
    if not any(".temopral_conv." in key for key in unet):
        kind = kind_of(sd)
        raise says.refuse(kind.name if kind else f"{len(sd)} tensors of no kind that this pack knows", (kind or DYNAMICRAFTER).belongs)
    if says.shape(unet, "input_blocks.0.0.weight", 4)[1] == 4:
        raise says.refuse("a VideoCrafter model", "That family is not supported yet.")
    if strange := [key for key in found[VAE] if not PLAIN_VAE.match(key)]:
        raise says.refuse(TOONCRAFTER if any(key.startswith("decoder.") for key in strange) else f"one that has the unknown {VAE}{strange[0]}", "That family is not supported.")
    if not found[PROJECTION]:
        raise says.refuse("one without an image projection (image_proj_model)", "Choose a file that has it; the official ones and their pruned copies do.")
    return found


def version_of(unet: dict, base: float | None, chosen: str, says: Reader) -> Version:
    """base: of the file's scale_arr, None where there is none; chosen: one of VERSIONS, or auto. Raises ValueError where the file says otherwise, or says nothing."""
    if any(key.endswith(".attn2.alpha") for key in unet):
        told = ["256"]
    elif base is None:
        told = [name for name, version in VERSIONS.items() if version.base is not None]
    else:
        told = [name for name, version in VERSIONS.items() if version.base is not None and abs(version.base - base) < 0.01]
    if not told:
        raise says.refuse(f"a scale_arr that ends at {base:g}", "Known are 0.7 (512) and 0.3 (1024).")
    if chosen == AUTO:
        if len({VERSIONS[name].base for name in told}) > 1:
            raise says.refuse("one that does not say whether it is 512 or 1024 (its scale_arr was taken out)", f"Choose it in 'version' of {LOADER}.")
        return VERSIONS[told[0]]
    if chosen not in told:
        raise says.refuse(f"a DynamiCrafter {' or '.join(told)}", f"'version' is {chosen}: set it to {AUTO}, or choose another file.")
    return VERSIONS[chosen]


def config_of(unet: dict, says: Reader) -> dict:
    """The host's configuration of the spatial part. Raises ValueError where there is none."""
    spatial = {key: value for key, value in unet.items() if not key.startswith("video.")}
    try:
        config = detect_unet_config(spatial, "")
    except (KeyError, IndexError, AttributeError, ValueError, TypeError, ZeroDivisionError) as error:  # of a UNet with holes, by where it stops
        raise says.refuse(f"a UNet that lacks layers ({type(error).__name__} {error})") from error
    if config is None or "model_channels" not in config or config["model_channels"] % HEAD or not config["model_channels"] or not config.get("context_dim"):
        raise says.refuse("a UNet of no layout that the host knows")
    return {**config, "num_heads": -1, "num_head_channels": HEAD, "use_spatial_transformer": True, "legacy": False}


def places_of(unet: dict, says: Reader) -> Layout:
    """`layout_of`. Raises ValueError for temporal layers where no UNet has them, and for sizes that no file has."""
    for ending, name, axes in ((".proj_in.weight", TRANSFORMER, (2, 3)), (".conv1.0.weight", CONVOLUTIONS, (1,)), (".to_k_ip.weight", CROSS, (2,))):
        for key, value in unet.items():
            if not key.startswith("video.") or not key.endswith(ending):
                continue
            if not name.fullmatch(key.removeprefix("video.").removesuffix(ending)):
                raise says.refuse(f"one that has the unknown {key.removeprefix('video.')}")
            if value.ndim not in axes or value.shape[0] % (HEAD if axes == (2, 3) else 32) or not value.numel():
                raise says.refuse(f"{key.removeprefix('video.')} of shape {list(value.shape)}")
    return layout_of(unet)


def shapes(config: dict, layout: Layout, says: Reader) -> dict[str, torch.Size]:
    """{name: shape} of LvdmUNet's weights. Raises ValueError for places that this UNet lacks."""
    made = {key: value for key, value in config.items() if key != "dtype"}
    net = LvdmUNet(layout, device="meta", operations=SHAPES, **made)
    for find, places in ((followed, (*layout.transformers, *layout.convolutions)), (crossed, layout.images)):
        for place in places:
            try:
                find(net, place)
            except (StopIteration, IndexError, KeyError) as error:
                raise says.refuse(f"one that has {place}, where its UNet has no layer for it") from error
    return {name: weight.shape for name, weight in net.state_dict().items()}


def look(sd: dict, name: str, chosen: str = AUTO) -> Contents:
    """Raises ValueError unless every key, shape and number of UNet and projection is a DynamiCrafter's. Nothing is built before."""
    sd, says = tensors_of(sd), reader(name)
    parts = parts_of(sd, says)
    unet, scale = as_ours(parts[UNET]), sd.get("scale_arr")
    version = version_of(unet, float(scale.flatten()[-1]) if scale is not None and scale.numel() else None, chosen, says)
    config, layout = config_of(unet, says), places_of(unet, says)
    says.check_weights(unet, shapes(config, layout, says))
    projection = parts[PROJECTION]
    size = size_of(lambda key, axes=None: says.shape(projection, key, axes))
    if not isinstance(size, ResamplerSize) or size.tokens % TOKENS or size.tokens > MOST_TOKENS or size.inner % DIM_HEAD:
        raise says.refuse("an image projection of another kind", f"Expected a Resampler with a multiple of {TOKENS} tokens, at most {MOST_TOKENS}.")
    says.check_weights(projection, {key: weight.shape for key, weight in partial(image_projection, size)(device="meta", operations=nn).state_dict().items()})
    return Contents(version, unet, config, layout, projection, size, parts[VAE], parts[TEXT], parts[VISION])
