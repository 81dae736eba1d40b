"""The kinds of files that lie in a user's folder of models: one table of how each is told, by its keys, and where it belongs.

A loader says which kind it wants; for another one the error names what came and where to put it. A new kind is a line of the table.
"""
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from .tensors import fault

AGAIN = "Fetch the file again."


@dataclass(frozen=True)
class Kind:
    """name: with its article, for errors; belongs: a sentence about where it goes; told: whether a file with these keys is of it."""

    name: str
    belongs: str
    told: Callable[[list[str]], bool]


def some(*parts: str) -> Callable:
    return lambda keys: any(part in key for part in parts for key in keys)


def starts(*prefixes: str) -> Callable:
    return lambda keys: any(key.startswith(prefixes) for key in keys)


def both(a: Callable, b: Callable) -> Callable:
    return lambda keys: a(keys) and b(keys)


def either(a: Callable, b: Callable) -> Callable:
    return lambda keys: a(keys) or b(keys)


def lora(keys) -> bool:
    return any("lora" in key.lower() for key in keys)


NOT_OURS = "That family is not supported."
IP_ADAPTER_PARTS = ("image_proj", "ip_adapter", "adapter_modules")  # the last is what some trainers call the second
ip_adapter = starts(*(f"{part}." for part in IP_ADAPTER_PARTS))
in_unet = some(".attn2.to_k_ip.")  # an IP-Adapter's layers under diffusers' names
MOTION_LORA = Kind("a motion LoRA", "Motion LoRAs belong into models/animatediff_motion_lora and the node Load Motion LoRA.", both(lora, some("motion_modules.")))
I2V_ADAPTER = Kind("an I2V-Adapter", "I2V-Adapters belong into models/i2v_adapter and the node Load I2V-Adapter.", some(".attn1.to_q_ff."))
MOTION_MODULE = Kind("a motion module", "Motion modules belong into models/animatediff_models and the node Load Motion Module.", some("motion_modules."))
IP_ADAPTER = Kind("an IP-Adapter", "IP-Adapters belong into models/ipadapter and the node Load Content-Adapter.", either(ip_adapter, in_unet))
SPARSE_CTRL = Kind("a SparseCtrl model", "SparseCtrl models belong into models/controlnet and the node Load SparseCtrl.", both(some("motion_modules."), some("controlnet_cond_embedding.")))
WHOLE_UNET = Kind("a whole UNet in diffusers' naming", "Of such a file Load Diffusion Model (models/diffusion_models) takes the UNet, Load Motion Module (models/animatediff_models) "
                  "a motion module and Load Content-Adapter (models/ipadapter) layers for image tokens.",
                  lambda keys: {"conv_in.weight", "conv_out.weight", "time_embedding.linear_1.weight"} <= set(keys))
IMAGE_REWARD = Kind("an ImageReward model", "ImageReward belongs into models/reward_models and the node Load Reward Model.", both(starts("blip."), starts("mlp.")))
CLIP_REWARD = Kind("a whole CLIP (text and pictures)", "CLIPs that score pictures (PickScore, HPSv2) belong into models/reward_models and the node Load Reward Model.",
                   either(both(starts("text_model."), starts("vision_model.")), both(starts("transformer.resblocks."), starts("visual.transformer."))))
DYNAMICRAFTER = Kind("a DynamiCrafter or VideoCrafter model", "DynamiCrafter models belong into models/checkpoints, models/diffusion_models or models/dynamicrafter_models and the node "
                     "Load DynamiCrafter.", some(".temopral_conv.", ".init_attn.0."))
KINDS = (  # the first that fits: those that are told by more come before those that they contain
    MOTION_LORA,
    DYNAMICRAFTER,
    Kind("an IP-Adapter FaceID (it needs a face recogniser)", NOT_OURS, both(ip_adapter, some("_lora."))),
    Kind("a LoRA", "LoRAs of the image model belong into models/loras and the node Load LoRA.", lora),
    Kind("a HotShot-XL module", NOT_OURS, some("temporal_attentions.", "pos_encoder.positional_encoding")),
    SPARSE_CTRL,
    WHOLE_UNET,
    I2V_ADAPTER,
    Kind("a PIA module (it brings a first layer for the UNet)", NOT_OURS, both(some("motion_modules."), lambda keys: "conv_in.weight" in keys and not starts("time_embedding.")(keys))),
    MOTION_MODULE,
    IP_ADAPTER,
    Kind("a ControlNet", "ControlNets belong into models/controlnet and the node Load ControlNet Model.", starts("control_model.", "zero_convs.", "controlnet_down_blocks.")),
    Kind("a checkpoint", "Checkpoints belong into models/checkpoints and the node Load Checkpoint.", starts("model.diffusion_model.")),
    Kind("a VAE", "VAEs belong into models/vae and the node Load VAE.", starts("encoder.down.", "encoder.down_blocks.", "taesd_decoder.", "decoder.up.")),
    IMAGE_REWARD,
    CLIP_REWARD,
    Kind("a CLIP vision model", "CLIP vision models belong into models/clip_vision and the node Load CLIP Vision.", starts("vision_model.", "visual.transformer.")),
    Kind("a text encoder", "Text encoders belong into models/text_encoders and the node Load CLIP.", some("text_model.encoder.")),
)


def tensors_of(sd: dict) -> dict[str, torch.Tensor]:
    """What is a named tensor in a file, an IP-Adapter's in its parts and a ControlNet's of a training too; other entries are settings of its training."""
    sd = sd["controlnet"] if isinstance(sd.get("controlnet"), dict) else sd
    parts = {f"{part}.{key}": value for part in IP_ADAPTER_PARTS if isinstance(sd.get(part), dict) for key, value in sd[part].items()}
    return {key: value for key, value in (sd | parts).items() if isinstance(key, str) and isinstance(value, torch.Tensor)}


def kind_of(keys: Iterable[str]) -> Kind | None:
    """The kind of a file with these keys, None for one that is in no line of the table."""
    keys = list(keys)
    return next((kind for kind in KINDS if kind.told(keys)), None)


class Reader:
    """What a loader says about the file `name` that it cannot take. wants: the files that it takes, in words."""

    def __init__(self, who: str, wants: str, name: str):
        self.who, self.wants, self.name = who, wants, name

    def refuse(self, found: str, instead: str = AGAIN) -> ValueError:
        return ValueError(f"{self.who} expected {self.wants} in {self.name!r}, found {found}. {instead}")

    def check_kind(self, keys: Iterable[str], kind: Kind) -> None:
        """Raises ValueError unless a file with these keys is of the kind, or a whole UNet with such a thing in it."""
        keys = list(keys)
        found = kind_of(keys)
        if found is None:
            raise self.refuse(f"{len(keys)} tensors of no kind that this pack knows", kind.belongs)
        if found is not kind and not (found is WHOLE_UNET and kind.told(keys)):
            raise self.refuse(found.name, found.belongs)

    def shape(self, weights: dict[str, torch.Tensor], key: str, axes: int | None = None):
        """Of a weight that must be there and have so many axes; without axes None for one that is not there."""
        found = weights.get(key)
        if axes is None:
            return None if found is None else found.shape
        if found is None:
            raise self.refuse(f"no {key}")
        if found.ndim != axes or not found.numel():
            raise self.refuse(f"{key} of shape {list(found.shape)}", f"Expected {axes} axes.")
        return found.shape

    def check_weights(self, weights: dict[str, torch.Tensor], wanted: dict[str, torch.Size]) -> None:
        """Raises ValueError unless the weights have the wanted names and shapes, no others, and hold numbers."""
        for what, keys in (("lacks", wanted.keys() - weights.keys()), ("has the unknown", weights.keys() - wanted.keys())):
            if keys:
                raise self.refuse(f"one that {what} {min(keys)} (and {len(keys) - 1} more)")
        for key, value in weights.items():
            if value.shape != wanted[key]:
                raise self.refuse(f"{key} of shape {list(value.shape)} instead of {list(wanted[key])}")
            if found := fault(value):
                raise self.refuse(f"{found} in {key}")
