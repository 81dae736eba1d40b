"""Reading motion modules: AnimateDiff's own files and diffusers' MotionAdapter, told by their keys and shapes."""
import re
from dataclasses import dataclass
from functools import partial

import comfy.model_patcher

from .files import MOTION_MODULE, Reader, tensors_of
from .motion_module import MotionModel, Size, adding, places, shapes
from .patcher import for_model, in_patcher

# the places of a UNet of up to 4 levels with up to 2 ResBlocks each, as SD1.5 and SDXL
PLACE = re.compile(r"(down_blocks\.[0-3]\.motion_modules\.[01]|up_blocks\.[0-3]\.motion_modules\.[0-2]|mid_block\.motion_modules\.0)\.(.+)")
WIDEST = 1280  # channels, in every published file
DIFFUSERS = (("attn1.", "attention_blocks.0."), ("attn2.", "attention_blocks.1."), ("norm1.", "norms.0."), ("norm2.", "norms.1."), ("norm3.", "ff_norm."))
# what betas a family was trained with (checkpoints of AnimateDiff): the host's name, first and last beta
SCHEDULES = {"SD1.5": ("sqrt_linear", 0.00085, 0.012), "SDXL": ("linear", 0.00085, 0.020)}
LENGTHS = {"v1": 24, "v2": 32, "v3": 32, "SDXL": 32}  # frames that a module knows whose file does not say


@dataclass(frozen=True)
class MotionModule:
    """What MOTION_MODULE wires carry. patcher: the host's, around a MotionModel; length: frames that it knows;
    over_frames: whether the UNet's own GroupNorms take their statistics over all frames (v1)."""

    patcher: comfy.model_patcher.ModelPatcher
    name: str
    layout: dict
    version: str
    length: int
    over_frames: bool
    places = staticmethod(places)
    adding = staticmethod(adding)

    def patcher_for(self, model) -> comfy.model_patcher.ModelPatcher:
        return for_model(self.patcher, model)

    @property
    def family(self) -> str:
        return "SDXL" if self.version == "SDXL" else "SD1.5"


def as_published(key: str) -> str:
    """A key of either format as MotionModel has it."""
    key = key.removeprefix("module.").replace(".temporal_transformer.", ".")
    for theirs, ours in DIFFUSERS:
        key = key.replace(f".{theirs}", f".{ours}")
    return key


def reader(name: str) -> Reader:
    return Reader("Load Motion Module", "an AnimateDiff motion module (v1, v2, v3, SDXL) or diffusers' MotionAdapter", name)


def sort_out(sd: dict, name: str) -> tuple[dict, int | None]:
    """(weights under MotionModel's names, frames that the stored positions reach or None). Raises ValueError for another kind of file."""
    sd = tensors_of(sd)
    reader(name).check_kind(sd, MOTION_MODULE)
    found = {as_published(k): v for k, v in sd.items() if "motion_modules." in k}
    reach = {v.shape[1] for k, v in found.items() if k.endswith(".pe") and v.ndim == 3}
    return {k: v for k, v in found.items() if not k.endswith(".pe")}, min(reach, default=None)


def layout_of(weights: dict, name: str) -> dict[str, Size]:
    """Places and sizes. Raises ValueError for keys that no place has, for places that no UNet has, or lacks, and for widths that no module has."""
    places, refuse = {}, reader(name).refuse
    for key in weights:
        match = PLACE.fullmatch(key)
        if not match:
            raise refuse(f"the key {key!r}", "The file is of a kind that this pack does not know.")
        places.setdefault(match[1])
    for place in places:
        width = weights.get(f"{place}.norm.weight")
        if width is None:
            raise refuse(f"no {place}.norm.weight")
        if width.ndim != 1 or len(width) not in range(32, WIDEST + 1, 32):
            raise refuse(f"{place}.norm.weight of shape {list(width.shape)}", f"Expected one number for each channel: a multiple of 32, at most {WIDEST}.")
        places[place] = Size(len(width))
    at = [(place[0], int(place.split(".")[1]), int(place[-1])) for place in places if not place.startswith("mid")]
    levels = max([0, *(i for _, i, _ in at)]) + 1
    blocks = max([1, *(j + (side == "d") for side, _, j in at)])  # on the way up there is one more
    every = [f"{side}_blocks.{i}.motion_modules.{j}" for side, n in (("down", blocks), ("up", blocks + 1)) for i in range(levels) for j in range(n)]
    if missing := [place for place in every if place not in places]:
        raise refuse(f"one that lacks {missing[0]} (and {len(missing) - 1} more)")
    return places


def version_of(layout: dict, reach: int | None) -> str:
    """v1 and v3 differ in how far their positions reach, and in nothing else that a file shows; without positions it counts as v3."""
    if not any(place.startswith("down_blocks.3.") for place in layout):
        return "SDXL"
    if any(place.startswith("mid_block.") for place in layout):
        return "v2"
    return "v1" if reach == 24 else "v3"


def look(sd: dict, name: str) -> tuple[dict, dict, int | None]:
    """(weights under MotionModel's names, layout, frames that the stored positions reach). Raises ValueError unless every key, shape and number is a motion module's.

    Nothing is built before: a file must not make the server allocate what it only claims to hold.
    """
    weights, reach = sort_out(sd, name)
    layout = layout_of(weights, name)
    reader(name).check_weights(weights, shapes(layout))
    return weights, layout, reach


def weights_again(source, name: str, layout: dict) -> dict:
    """The weights for another copy of a module that was read before. Raises ValueError when the file is another one by now."""
    weights, found, _ = look(source(), name)
    if found != layout:
        raise ValueError(f"Load Motion Module read {name!r}, which has been replaced by a module of another size since. Give that one a name of its own, press R and choose it.")
    return weights


def motion_module(source, name: str) -> MotionModule:
    """The file's module in the host's patcher, not yet on any device. Raises ValueError for another kind of file, or an incomplete one.

    source: a function that reads the file's tensors, each time that the host needs another copy; or the tensors, which are then kept.
    """
    read = source if callable(source) else lambda: source
    weights, layout, reach = look(read(), name)
    version = version_of(layout, reach)
    patcher = in_patcher(partial(MotionModel, layout), weights, partial(weights_again, read, name, layout))
    return MotionModule(patcher, name, layout, version, reach or LENGTHS[version], version == "v1")
