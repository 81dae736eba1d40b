"""Motion LoRA: additions to a motion module's attention weights, delta W = strength up down, without any alpha of its own."""
import re
from dataclasses import replace

import comfy.lora
import torch

from .files import MOTION_LORA, Reader, tensors_of
from .motion_module import shapes
from .motion_module_files import DIFFUSERS, MotionModule, as_published
from .tensors import fault

PROJECTION = re.compile(r"attention_blocks\.\d+\.(to_[qkv]|to_out\.0)\.weight$")
INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)
PAIRS = [(f"{base}{up}.weight", f"{base}{down}.weight") for base, up, down in (  # endings under which the host finds [C,r] and [r,C]
    ("_lora.", "up", "down"), (".lora_", "up", "down"), (".lora.", "up", "down"), (".lora_linear_layer.", "up", "down"),
    (".lora_", "B", "A"), (".lora_", "B.default", "A.default"))] + [(".lora_B", ".lora_A")]
KINDS = {  # what the keys of other additions have: their name
    ".lokr_": "LoKr", ".hada_": "LoHa", ".oft_": "OFT", ".a1.weight": "GLoRA", ".dora_scale": "DoRA", ".lora_mid.": "LoCon with a middle", ".reshape_weight": "reshape",
    ".set_weight": "set_weight", ".diff": "diff", ".w_norm": "diff", ".b_norm": "diff",
}


def names_of(weight: str) -> list[str]:
    """What files call a weight of MotionModel, without their endings: AnimateDiff's, and diffusers' with its prefixes."""
    base = weight.removesuffix(".weight")
    theirs = base
    for diffusers, ours in DIFFUSERS:
        theirs = theirs.replace(f".{ours}", f".{diffusers}")
    names = [base, theirs, *(n.replace(".to_", ".processor.to_").removesuffix(".0") for n in (base, theirs))]
    return names + [f"unet.{n}" for n in names]


def reader(name: str) -> Reader:
    return Reader("Load Motion LoRA", "a LoRA of a motion module", name)


def pairs(sd: dict, name: str) -> dict:
    """Of a file's tensors the halves [C,r] and [r,C] of up/down pairs, and their alphas.

    Raises ValueError for additions of another kind, for lone halves, and for shapes and numbers that are none of a pair's.
    """
    out, refuse = {}, reader(name).refuse
    for key, value in sd.items():
        if kind := next((kind for mark, kind in KINDS.items() if mark in key), None):
            raise ValueError(f"The motion LoRA {name!r} is of kind {kind} ({key}); this node reads up/down pairs. Choose a file such as v2_lora_ZoomIn.ckpt.")
        if key.endswith(".alpha"):
            if value.numel() != 1 or fault(value.double() if value.dtype in INTEGERS else value):
                raise refuse(f"{key} of shape {list(value.shape)} and type {str(value.dtype).removeprefix('torch.')}, which is no finite number")
            out[key] = value
        half = next(((key.removesuffix(mine) + other, mine is up) for up, down in PAIRS for mine, other in ((up, down), (down, up)) if key.endswith(mine)), None)
        if half is None:
            continue
        other, is_up = half
        if other not in sd:
            raise refuse(f"{key} without {other}")
        up, down = (value, sd[other]) if is_up else (sd[other], value)
        if up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0]:
            raise refuse(f"{key} of shape {list(value.shape)} with {other} of shape {list(sd[other].shape)}, which are no pair [C, r] and [r, C]")
        if found := fault(value):
            raise refuse(f"{found} in {key}")
        out[key] = value
    return out


def apply_lora(motion: MotionModule, sd: dict, name: str, strength: float) -> MotionModule:
    """The module with the LoRA added. Raises ValueError when the file holds no LoRA of up/down pairs, or nothing of it, or nothing of its size, is in the module.

    What lies in a middle block is passed over where the module has none (LoRAs made for v2, on v1 and v3).
    """
    tensors = {as_published(k): v for k, v in tensors_of(sd).items()}
    sd = pairs({k: v for k, v in tensors.items() if "motion_modules." in k}, name)
    if not sd:
        reader(name).check_kind(tensors, MOTION_LORA)
    weights = {n: shape for n, shape in shapes(motion.layout).items() if PROJECTION.search(n)}
    if not any(k.startswith("mid_block.") for k in motion.layout):
        sd = {k: v for k, v in sd.items() if "mid_block." not in k}
    found = comfy.lora.load_lora(sd, {n: w for w in weights for n in names_of(w)}, log_missing=False)
    for weight, adapter in found.items():
        up, down = adapter.weights[:2]
        if (up.shape[0], down.shape[1]) != tuple(weights[weight]):
            raise ValueError(f"The motion LoRA {name!r} changes {weight} by {[up.shape[0], down.shape[1]]}, the motion module {motion.name!r} has "
                             f"{list(weights[weight])} there. Choose a LoRA made for {motion.family} modules.")
    if not found:
        raise ValueError(f"The motion LoRA {name!r} names no layer of the motion module {motion.name!r} ({motion.version}). "
                         f"Choose a LoRA made for {motion.family} modules.")
    if strength == 0:
        return motion
    patcher = motion.patcher.clone()
    patcher.add_patches(found, strength)
    return replace(motion, patcher=patcher)
