"""Reading SparseCtrl models: AnimateDiff's own files and diffusers' SparseControlNetModel, told by their keys and shapes."""
import re
from functools import partial

import comfy.utils

from .files import SPARSE_CTRL, Reader, tensors_of
from .motion_module_files import LENGTHS, WIDEST, as_published
from .patcher import in_patcher
from .sparse_control import SparseControl
from .sparse_ctrl import Layout, SparseCtrl, shapes

LOADER = "Load SparseCtrl"
PLACE = re.compile(r"down_blocks\.([0-3])\.motion_modules\.([01])\.")
TEXT = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def reader(name: str) -> Reader:
    return Reader(LOADER, "a SparseCtrl model for SD1.5 (rgb or scribble)", name)


def layout_of(weights: dict, name: str) -> Layout:
    """Raises ValueError for levels that there are not, and for widths that no published model has."""
    refuse = reader(name).refuse
    at = {(int(match[1]), int(match[2])) for match in map(PLACE.match, weights) if match}
    levels, blocks = (max((place[axis] for place in at), default=-1) + 1 for axis in (0, 1))
    if not at or len(at) != levels * blocks:
        raise refuse(f"temporal layers at {len(at)} places instead of {max(1, levels * blocks)}")
    widths = []
    for i in range(levels):
        key = f"down_blocks.{i}.motion_modules.0.norm.weight"
        shape = list(weights[key].shape) if key in weights else []
        if len(shape) != 1 or shape[0] not in range(32, WIDEST + 1, 32) or shape[0] % (widths or shape)[0]:
            raise refuse(f"{key} of shape {shape}", f"Expected one number for each channel: a multiple of 32 and of the first level's, at most {WIDEST}.")
        widths += shape
    text = list(weights[TEXT].shape) if TEXT in weights else []
    if len(text) != 2:
        raise refuse(f"{TEXT} of shape {text}", "Expected [channels, width of the text].")
    depths = tuple(int(f"down_blocks.{i}.attentions.{j}.norm.weight" in weights) for i in range(levels) for j in range(blocks))
    return Layout(tuple(widths), blocks, depths, text[1], "controlnet_cond_embedding.weight" in weights)


def names(layout: Layout) -> dict[str, str]:
    """{a weight's name in the files, temporal layers as AnimateDiff's modules have them: SparseCtrl's}."""
    own = shapes(layout)
    up = [0] * sum(n + 1 for n in layout.config["num_res_blocks"])
    found = comfy.utils.unet_to_diffusers({**layout.config, "transformer_depth_output": up})
    found |= {key.removeprefix("motion."): key for key in own if key.startswith("motion.")}
    convolutions = sorted({int(key.split(".")[1]) for key in own if key.startswith("pictures.")})
    embedding = [""] if layout.latents else ["conv_in.", *(f"blocks.{i}." for i in range(len(convolutions) - 2)), "conv_out."]
    for end in ("weight", "bias"):
        found |= {f"controlnet_down_blocks.{i}.{end}": f"zero_convs.{i}.0.{end}" for i in range(len(layout.widths) * (layout.blocks + 1))}
        found |= {f"controlnet_cond_embedding.{part}{end}": f"pictures.{i}.{end}" for part, i in zip(embedding, convolutions)}
        found[f"controlnet_mid_block.{end}"] = f"middle_block_out.0.{end}"
    return {theirs: ours for theirs, ours in found.items() if ours in own}


def look(sd: dict, name: str) -> tuple[dict, Layout, int]:
    """(weights under SparseCtrl's names, layout, frames that it knows). Raises ValueError unless every key, shape and number is a SparseCtrl model's."""
    sd = tensors_of(sd)
    reader(name).check_kind(sd, SPARSE_CTRL)
    found = {as_published(k) if "motion_modules." in k else k.removeprefix("module."): v for k, v in sd.items()}
    reach = [v.shape[1] for k, v in found.items() if k.endswith(".pe") and v.ndim == 3]
    weights = {k: v for k, v in found.items() if not k.endswith(".pe")}
    layout = layout_of(weights, name)
    own, renamed = shapes(layout), names(layout)
    reader(name).check_weights(weights, {theirs: own[ours] for theirs, ours in renamed.items()})
    return {renamed[k]: v for k, v in weights.items()}, layout, min(reach, default=LENGTHS["v3"])


def weights_again(source, name: str, layout: Layout) -> dict:
    """The weights for another copy of a model that was read before. Raises ValueError when the file is another one by now."""
    weights, found, _ = look(source(), name)
    if found != layout:
        raise ValueError(f"{LOADER} read {name!r}, which has been replaced by a model of another size since. Give that one a name of its own, press R and choose it.")
    return weights


def sparse_control(source, name: str) -> SparseControl:
    """The file's model as a CONTROL_NET of the host, not yet on any device. source: as of `motion_module`. Raises ValueError as `look`."""
    read = source if callable(source) else lambda: source
    weights, layout, length = look(read(), name)
    return SparseControl(in_patcher(partial(SparseCtrl, layout), weights, partial(weights_again, read, name, layout)), name, layout, length)
