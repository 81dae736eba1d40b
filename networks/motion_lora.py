"""Motion LoRA: additions to a motion module's attention weights, delta W = strength up down, without any alpha of its own."""
import re
from dataclasses import replace

import comfy.lora
import torch

from .motion_module_files import DIFFUSERS, MotionModule, as_published

PROJECTION = re.compile(r"attention_blocks\.\d+\.(to_[qkv]|to_out\.0)\.weight$")


def names_of(weight: str) -> list[str]:
    """What files call a weight of MotionModel, without their endings: AnimateDiff's, and diffusers' with its prefixes."""
    base = weight.removesuffix(".weight")
    theirs = base
    for diffusers, ours in DIFFUSERS:
        theirs = theirs.replace(f".{ours}", f".{diffusers}")
    names = [base, theirs, *(n.replace(".to_", ".processor.to_").removesuffix(".0") for n in (base, theirs))]
    return names + [f"unet.{n}" for n in names]


def apply_lora(motion: MotionModule, sd: dict, name: str, strength: float) -> MotionModule:
    """The module with the LoRA added. Raises ValueError when nothing of it, or nothing of its size, is in the module.

    What lies in a middle block is passed over where the module has none (LoRAs made for v2, on v1 and v3).
    """
    sd = {as_published(k): v for k, v in sd.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if not any("lora" in k and "motion_modules." in k for k in sd):
        raise ValueError(f"Load Motion LoRA expected a LoRA of a motion module in {name!r}, found {len(sd)} other tensors. "
                         f"Choose a file such as v2_lora_ZoomIn.ckpt; LoRAs of the image model belong into models/loras and Load LoRA.")
    weights = motion.patcher.model.state_dict()
    if not any(k.startswith("mid_block.") for k in motion.layout):
        sd = {k: v for k, v in sd.items() if "mid_block." not in k}
    found = comfy.lora.load_lora(sd, {n: w for w in weights if PROJECTION.search(w) for n in names_of(w)}, log_missing=False)
    for weight, adapter in found.items():
        up, down = adapter.weights[:2]
        if (up.shape[0], down.shape[1]) != tuple(weights[weight].shape):
            raise ValueError(f"The motion LoRA {name!r} changes {weight} by {[up.shape[0], down.shape[1]]}, the motion module {motion.name!r} has "
                             f"{list(weights[weight].shape)} there. Choose a LoRA made for {motion.family} modules.")
    if not found:
        raise ValueError(f"The motion LoRA {name!r} names no layer of the motion module {motion.name!r} ({motion.version}). "
                         f"Choose a LoRA made for {motion.family} modules.")
    if strength == 0:
        return motion
    patcher = motion.patcher.clone()
    patcher.add_patches(found, strength)
    return replace(motion, patcher=patcher)
