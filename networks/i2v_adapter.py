"""I2V-Adapter's weights: in each self-attention of the UNet queries of their own for the first frame's keys, and their way out (Eq. 6).

Names are those of the published file, `down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q_ff.weight` and so on.
"""
import re
from dataclasses import dataclass
from functools import partial

import comfy.model_patcher
import torch
from torch import nn

from .files import I2V_ADAPTER, Reader, tensors_of
from .patcher import for_model, in_patcher

PLACE = re.compile(r"((?:(?:down|up)_blocks\.[0-3]\.attentions\.[0-2]|mid_block\.attentions\.0)\.transformer_blocks\.\d{1,2})\.attn1\.(to_q_ff\.weight|to_out_ff\.(?:weight|bias))")
WIDEST = 1280  # channels, in every published UNet


class Branch(nn.Module):
    """W'_Q and W'_O of one self-attention of C channels."""

    def __init__(self, C: int, dtype=None, device=None, operations=None):
        super().__init__()
        self.to_q_ff = operations.Linear(C, C, bias=False, dtype=dtype, device=device)
        self.to_out_ff = operations.Linear(C, C, dtype=dtype, device=device)


class I2VAdapterModel(nn.Module):
    """Branches by place; a dot cannot stand in a module's name, so that a tree holds them."""

    def __init__(self, layout: dict[str, int], dtype=None, device=None, operations=None):
        super().__init__()
        for place, channels in layout.items():
            parent = self
            for step in place.split("."):
                if step not in parent._modules:
                    parent.add_module(step, nn.Module())
                parent = parent._modules[step]
            parent.add_module("attn1", Branch(channels, dtype, device, operations))

    def branch(self, place: str) -> Branch:
        return self.get_submodule(f"{place}.attn1")


@dataclass(frozen=True)
class I2VAdapter:
    """What I2V_ADAPTER wires carry. patcher: the host's, around an I2VAdapterModel; layout {place: channels}."""

    patcher: comfy.model_patcher.ModelPatcher
    name: str
    layout: dict

    def patcher_for(self, model) -> comfy.model_patcher.ModelPatcher:
        return for_model(self.patcher, model)

    @property
    def family(self) -> str:
        return "SD1.5" if any(place.startswith("down_blocks.0.") for place in self.layout) else "SDXL"


def shapes(layout: dict[str, int]) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in I2VAdapterModel(layout, device="meta", operations=nn).state_dict().items()}


def look(sd: dict, name: str) -> tuple[dict, dict]:
    """(weights under I2VAdapterModel's names, layout). Raises ValueError unless the file is an I2V-Adapter, complete and sound.

    Further weights of a UNet in the file are left: each is read by the node that wants it.
    """
    reader = Reader("Load I2V-Adapter", "an I2V-Adapter such as i2v_module.pth", name)
    sd = tensors_of(sd)
    reader.check_kind(sd, I2V_ADAPTER)
    own = {key.removeprefix("module.").removeprefix("unet."): value for key, value in sd.items() if "_ff." in key and ".attn1." in key}
    weights, layout = {}, {}
    for key, value in own.items():
        match = PLACE.fullmatch(key)
        if not match:
            raise reader.refuse(f"the key {key!r}", "The file is of a kind that this pack does not know.")
        weights[key] = value
        if match[2] == "to_q_ff.weight":
            if value.ndim != 2 or value.shape[0] not in range(32, WIDEST + 1, 32):
                raise reader.refuse(f"{key} of shape {list(value.shape)}", f"Expected [C, C] with C a multiple of 32, at most {WIDEST}.")
            layout[match[1]] = value.shape[0]
        else:
            layout.setdefault(match[1], 0)
    if lacking := [place for place, channels in layout.items() if not channels]:
        raise reader.refuse(f"one that lacks {lacking[0]}.attn1.to_q_ff.weight (and {len(lacking) - 1} more)")
    reader.check_weights(weights, shapes(layout))
    return weights, layout


def weights_again(source, name: str, layout: dict) -> dict:
    """The weights for another copy of an adapter that was read before. Raises ValueError when the file is another one by now."""
    weights, found = look(source(), name)
    if found != layout:
        raise ValueError(f"Load I2V-Adapter read {name!r}, which has been replaced by an adapter of another size since. Give that one a name of its own, press R and choose it.")
    return weights


def i2v_adapter(source, name: str) -> I2VAdapter:
    """The file's adapter in the host's patcher, not yet on any device. source: as of `motion_module`. Raises ValueError as `look`."""
    read = source if callable(source) else lambda: source
    weights, layout = look(read(), name)
    return I2VAdapter(in_patcher(partial(I2VAdapterModel, layout), weights, partial(weights_again, read, name, layout)), name, layout)
