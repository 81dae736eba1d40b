"""Reading motion modules and motion LoRAs: AnimateDiff's own files and diffusers' MotionAdapter, told by their keys and shapes."""
import re
from dataclasses import dataclass

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch

from .motion_module import MotionModel, Size

PLACE = re.compile(r"((?:(?:down|up)_blocks\.\d+|mid_block)\.motion_modules\.\d+)\.(.+)")
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

    @property
    def family(self) -> str:
        return "SDXL" if self.version == "SDXL" else "SD1.5"


def as_published(key: str) -> str:
    """A key of either format as MotionModel has it."""
    key = key.removeprefix("module.").replace(".temporal_transformer.", ".")
    for theirs, ours in DIFFUSERS:
        key = key.replace(f".{theirs}", f".{ours}")
    return key


def is_lora(key: str) -> bool:
    return "lora" in key.lower()


def refuse(name: str, found: str, instead: str) -> ValueError:
    return ValueError(f"Load Motion Module expected an AnimateDiff motion module (v1, v2, v3, SDXL) or diffusers' MotionAdapter in {name!r}, found {found}. {instead}")


def sort_out(sd: dict, name: str) -> tuple[dict, int | None]:
    """(weights under MotionModel's names, frames that the stored positions reach or None). Raises ValueError for another kind of file."""
    sd = {k: v for k, v in sd.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if any(is_lora(k) for k in sd):
        raise refuse(name, "a LoRA", "Motion LoRAs belong into models/animatediff_motion_lora and the node Load Motion LoRA, others into models/loras.")
    if any("temporal_attentions." in k or k.endswith("pos_encoder.positional_encoding") for k in sd):
        raise refuse(name, "a HotShot-XL module", "That family is not supported.")
    found = {as_published(k): v for k, v in sd.items() if "motion_modules." in k}
    if not found:
        raise refuse(name, f"{len(sd)} tensors, none in a 'motion_modules'", "Put a motion module such as v3_sd15_mm.ckpt into models/animatediff_models.")
    if "conv_in.weight" in sd:
        raise refuse(name, "a PIA module (it brings a first layer for the UNet)", "That family is not supported.")
    reach = {v.shape[1] for k, v in found.items() if k.endswith((".pe",)) and v.ndim == 3}
    return {k: v for k, v in found.items() if not k.endswith(".pe")}, min(reach, default=None)


def layout_of(weights: dict, name: str) -> dict[str, Size]:
    """Places and sizes. Raises ValueError for keys that no place has, or whose place has no width."""
    places = {}
    for key in weights:
        match = PLACE.fullmatch(key)
        if not match:
            raise refuse(name, f"the key {key!r}", "The file is of a kind that this pack does not know.")
        places.setdefault(match[1], []).append(match[2])
    layout = {}
    for place, keys in places.items():
        width = weights.get(f"{place}.norm.weight")
        if width is None:
            raise refuse(name, f"no {place}.norm.weight", "The file is incomplete; fetch it again.")

        def count(pattern, keys=keys):
            return 1 + max((int(m[1]) for k in keys if (m := re.search(pattern, k))), default=-1)

        layout[place] = Size(width.shape[0], count(r"transformer_blocks\.(\d+)\."), count(r"attention_blocks\.(\d+)\."))
    return layout


def version_of(layout: dict, reach: int | None) -> str:
    """v1 and v3 differ in how far their positions reach, and in nothing else that a file shows; without positions it counts as v3."""
    if not any(place.startswith("down_blocks.3.") for place in layout):
        return "SDXL"
    if any(place.startswith("mid_block.") for place in layout):
        return "v2"
    return "v1" if reach == 24 else "v3"


def motion_module(sd: dict, name: str) -> MotionModule:
    """The file's module in the host's patcher, not yet on any device. Raises ValueError for another kind of file, or an incomplete one."""
    weights, reach = sort_out(sd, name)
    layout = layout_of(weights, name)
    version = version_of(layout, reach)
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    dtype = comfy.model_management.unet_dtype(device=device, model_params=sum(v.numel() for v in weights.values()))
    net = MotionModel(layout, dtype=dtype, device=offload, operations=comfy.ops.manual_cast).eval()
    wanted = net.state_dict()
    for what, keys in (("lacks", wanted.keys() - weights.keys()), ("has, unlike any motion module,", weights.keys() - wanted.keys())):
        if keys:
            raise refuse(name, f"one that {what} {min(keys)} (and {len(keys) - 1} more)", "Fetch the file again.")
    for key, value in wanted.items():
        if value.shape != weights[key].shape:
            raise refuse(name, f"{key} of shape {list(weights[key].shape)} instead of {list(value.shape)}", "Fetch the file again.")
    patcher = comfy.model_patcher.CoreModelPatcher(net, load_device=device, offload_device=offload)
    net.load_state_dict(weights, assign=getattr(patcher, "is_dynamic", lambda: False)())
    return MotionModule(patcher, name, layout, version, reach or LENGTHS[version], version == "v1")
