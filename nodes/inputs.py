"""What reaches a node, held against its schema before it runs.

The host compares typed values with their ranges and the types of wires with each other. It does not look at what a link brings: any
number into a number, any text into a list of choices, and anything at all out of a wire of type *. That is done here, for every node.
"""
import functools
import inspect
import math
import numbers
import traceback

import torch
from comfy_api.latest import io

from ..networks.content_adapter import ContentAdapter
from ..networks.i2v_adapter import I2VAdapter
from ..networks.image_projector import ImageProjector
from ..networks.motion_module_files import MotionModule
from ..networks.reward import RewardModel
from ..prompts.tokens import MotionTokens
from ..samplers.inversion import Inversion
from .choices import known


def is_latent(v) -> bool:
    return isinstance(v, dict) and isinstance(v.get("samples"), torch.Tensor)  # the host's nested tensors are none


def is_conditioning(v) -> bool:
    return isinstance(v, list | tuple) and all(
        isinstance(e, list | tuple) and len(e) == 2 and isinstance(e[0], torch.Tensor) and e[0].ndim == 3 and isinstance(e[1], dict) for e in v)


def has(*names):
    return lambda v: all(hasattr(v, name) for name in names)


WIRES = {  # type: (whether a value is of it, in words)
    "MODEL": (has("get_model_object", "clone"), "a model"),
    "CLIP": (lambda v: v is None or has("tokenize", "encode_from_tokens_scheduled")(v), "a CLIP"),  # a checkpoint without one: the node says so
    "VAE": (has("decode", "encode"), "a VAE, as of Load VAE"),
    "CONTROL_NET": (has("get_control", "copy"), "a CONTROL_NET, as of Load SparseCtrl"),
    "CLIP_VISION": (has("encode_image"), "a CLIP_VISION, as of Load CLIP Vision"),
    "NOISE": (has("generate_noise", "seed"), "a noise, as of RandomNoise"),
    "GUIDER": (has("sample", "model_patcher"), "a guider, as of CFGGuider"),
    "SAMPLER": (has("sample"), "a sampler, as of KSamplerSelect"),
    "SIGMAS": (lambda v: isinstance(v, torch.Tensor) and v.ndim == 1, "noise levels, as of Basic Scheduler"),
    "LATENT": (is_latent, "latents of one tensor"),
    "CONDITIONING": (is_conditioning, "embeddings [batch, tokens, width], as of CLIP Text Encode"),
    "IMAGE": (lambda v: isinstance(v, torch.Tensor), "images"),
    "MASK": (lambda v: isinstance(v, torch.Tensor), "a mask"),
    "INVERSION": (lambda v: isinstance(v, Inversion), "the inversion of Motion-Aware Inversion"),
    "MOTION_TOKENS": (lambda v: isinstance(v, MotionTokens), "the motion_tokens of Motion Tokens"),
    "I2V_ADAPTER": (lambda v: isinstance(v, I2VAdapter), "the i2v_adapter of Load I2V-Adapter"),
    "FF_MOTION_MODULE": (lambda v: isinstance(v, MotionModule), "the motion_module of Load Motion Module"),
    "CONTENT_ADAPTER": (lambda v: isinstance(v, ContentAdapter), "the content_adapter of Load Content-Adapter"),
    "FF_IMAGE_PROJECTOR": (lambda v: isinstance(v, ImageProjector), "the image_projector of Load DynamiCrafter (a VideoCrafter for text alone has none)"),
    "REWARD_MODEL": (lambda v: isinstance(v, RewardModel), "a reward_model, as of Load Reward Model or CLIPScore"),
}


def shown(value) -> str:
    """What came, for an error."""
    if value is None:
        return "nothing"
    if isinstance(value, str | numbers.Number):
        return repr(value)[:100]
    if isinstance(value, torch.Tensor):
        return f"a tensor {list(value.shape)}"
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, list | tuple | dict) else "")


def check_number(value, widget, who: str) -> None:
    """Raises ValueError unless value is a finite number in the range of an Int or Float input."""
    whole = widget.get_io_type() == "INT"
    fits = isinstance(value, numbers.Integral) and not isinstance(value, bool) or not whole and isinstance(value, numbers.Real) and math.isfinite(value)
    low, high = widget.min, widget.max
    if not fits or (low is not None and value < low) or (high is not None and value > high):
        ends = "".join(f" {word} {end}" for word, end in (("from", low), ("to", high)) if end is not None)
        raise ValueError(f"{who} needs {'a whole number' if whole else 'a number'}{ends} in {widget.id!r}, got {shown(value)}. Change it there, or in the node that is connected to it.")


def check_conditioning(value, wire, who: str) -> None:
    """Raises ValueError for a conditioning without entries, or with one that has no tokens or is not finite."""
    if not value:
        raise ValueError(f"{who} got an empty conditioning in {wire.id!r}. Connect CLIP Text Encode, with an empty text if need be.")
    if not all(e[0].numel() for e in value):
        raise ValueError(f"{who} got a conditioning without tokens in {wire.id!r}. Connect CLIP Text Encode, with an empty text if need be.")
    if not all(torch.isfinite(e[0]).all() for e in value):
        raise ValueError(f"{who} got a conditioning with NaN or infinite values in {wire.id!r}. Look at the node that made it: often a text encoder that "
                         f"overflows in half precision (start the host with --fp32-text-enc).")


def check_input(value, spec, who: str) -> None:
    """Raises ValueError unless value is what the input `spec` of a schema takes. who: the node's display name."""
    kind = spec.get_io_type()
    if kind in ("INT", "FLOAT"):
        return check_number(value, spec, who)
    if kind == "COMBO":
        known(value, spec.options, who, f"choice in {spec.id!r}")
    elif kind == "STRING" and isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(f"{who} got half a character in {spec.id!r}, which no text may hold: a part of an emoji, say, that was cut in two. Type that place again.")
    elif kind in ("STRING", "BOOLEAN"):
        if not isinstance(value, str if kind == "STRING" else numbers.Integral):
            raise ValueError(f"{who} needs {'a text' if kind == 'STRING' else 'on or off'} in {spec.id!r}, got {shown(value)}. Change the node that is connected to it.")
    elif value is None and spec.optional:
        return None
    elif kind in WIRES:
        fits, words = WIRES[kind]
        if not fits(value):
            raise ValueError(f"{who} needs {words} in {spec.id!r}, got {shown(value)}. Change the node that is connected to it.")
        if kind == "CONDITIONING":
            check_conditioning(value, spec, who)
    return None


def checked(execute):
    """A node's `execute(cls, ...)`, run only with inputs that its schema takes. What was left out keeps its default."""
    signature = inspect.signature(execute)

    @functools.wraps(execute)
    def run(cls, *args, **kwargs):
        given, schema = signature.bind(cls, *args, **kwargs).arguments, cls.define_schema()
        for spec in schema.inputs:
            if spec.id in given:
                for value in (given[spec.id] or [None]) if schema.is_input_list else [given[spec.id]]:
                    check_input(value, spec, schema.display_name.split(" (")[0])
        try:
            return execute(cls, *args, **kwargs)
        except BaseException as error:
            # else the host keeps the frames with our clones of the model in them until they are collected all at once, and then holds the model for leaked
            traceback.clear_frames(error.__traceback__)
            raise

    run.checked = True
    return run


class Node(io.ComfyNode):
    """The base of every node of the pack."""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        own = vars(cls).get("execute")
        if own is not None and not hasattr(own.__func__, "checked"):  # the host makes a subclass with the same functions for each run
            cls.execute = classmethod(checked(own.__func__))
