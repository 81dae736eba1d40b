"""The host's dynamic VRAM mode on a CPU, as far as that goes. Import as `firstframe.tests.dynamic_mode`; as a custom node of a
server (with FIRSTFRAME_DYNAMIC_MODE set) it switches that server over.

The host's own ModelPatcherDynamic and its lazy layers run; two things stand in for the card's native library: HostBuffer, which pins
pages, has nothing to pin, and safetensors files are read without mapping them. Not reached: the native pages, through which
weights of more than 16 KB get their LoRA, so a LoRA on those is not applied.
"""
import os
from contextlib import contextmanager

import comfy.clip_vision
import comfy.memory_management
import comfy.model_management
import comfy.model_patcher
import comfy.utils
import comfy_aimdo.host_buffer

NODE_CLASS_MAPPINGS = {}


class DynamicPatcher(comfy.model_patcher.ModelPatcherDynamic):
    """The host's, but for the two lines that keep it from a CPU."""

    def __new__(cls, *args, **kwargs):
        return object.__new__(cls)

    def partially_unload(self, device_to, memory_to_free=0, force_patch_weights=False):
        return self.restore_loaded_backups()  # what the host's own does where there are no native pages


class HostBuffer:
    size = 0

    def __init__(self, *args):
        pass

    def truncate(self, *args, **kwargs):
        pass


def read_unmapped(read):
    def load_torch_file(*args, **kwargs):
        on, comfy.memory_management.aimdo_enabled = comfy.memory_management.aimdo_enabled, False
        try:
            return read(*args, **kwargs)
        finally:
            comfy.memory_management.aimdo_enabled = on
    return load_torch_file


def reach() -> list:
    """[(object, attribute, value in dynamic mode)]: all that is different."""
    readers = [(module, "load_torch_file", read_unmapped(module.load_torch_file)) for module in (comfy.utils, comfy.clip_vision)]
    return [(comfy.memory_management, "aimdo_enabled", True), (comfy.model_patcher, "CoreModelPatcher", DynamicPatcher),
            (comfy_aimdo.host_buffer, "HostBuffer", HostBuffer), *readers]


@contextmanager
def dynamic_mode():
    """Meanwhile models are loaded and sampled in dynamic mode; those from before and within must not be used across its border."""
    comfy.model_management.unload_all_models()
    before = [(where, name, getattr(where, name)) for where, name, _ in reach()]
    try:
        for where, name, value in reach():
            setattr(where, name, value)
        yield
    finally:
        comfy.model_management.unload_all_models()
        for where, name, value in before:
            setattr(where, name, value)


if os.environ.get("FIRSTFRAME_DYNAMIC_MODE"):
    for _where, _name, _value in reach():
        setattr(_where, _name, _value)
