"""CLIPScore (Hessel et al. 2021) of the host's own CLIP and CLIP_VISION: 100 cos(text, picture).

Neither weighted by 2.5 nor cut off at 0, as in that paper: the order is the same, and pictures below 0 still differ.
"""
import comfy.memory_management
import comfy.sd
import comfy.utils
import torch
from comfy.clip_model import CLIPTextModel, CLIPVisionModelProjection
from comfy.sd1_clip import SDClipModel
from safetensors import safe_open
from torch import nn
from torch.nn.functional import normalize

from .reward import RewardModel

NODE = "CLIPScore"
LOAD = "Connect Load CLIP with a file that has the projection, of CLIP_VISION's pair: clip_l.safetensors for ViT-L/14."
PAIRS = "Load ViT-L/14 for clip_l, ViT-H/14 for clip_h, ViT-bigG/14 for clip_g."


class ClipScore(RewardModel):
    """part: the name of what in the CLIP goes with the CLIP_VISION: clip_l, clip_g or clip_h."""

    name = NODE

    def __init__(self, clip, clip_vision):
        self.clip, self.clip_vision = clip, clip_vision
        self.part = part_for(clip, width_of(clip_vision))

    def read(self, prompt: str, who: str) -> torch.Tensor:
        """[1,D]: the projected end token of the text up to the first 75 tokens, of the last layer whatever CLIP Set Last Layer says."""
        tokens, whole = self.clip.tokenize(prompt), self.clip.cond_stage_model
        self.clip.load_model(tokens)
        whole.reset_clip_options()
        whole.set_clip_options({"projected_pooled": True, "execution_device": self.clip.patcher.load_device})
        found = getattr(whole, self.part).encode_token_weights(tokens[self.part.removeprefix("clip_")][:1])[1].float()
        whole.reset_clip_options()
        if not torch.isfinite(found).all() or not found.any():
            raise ValueError(lacking(self.part))
        return normalize(found, dim=-1)

    def score(self, picture: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        seen = self.clip_vision.encode_image(picture)["image_embeds"].float()
        return 100 * (prompt.to(seen.device) * normalize(seen, dim=-1)).sum(-1)


def lacking(part: str) -> str:
    return (f"{NODE} got a CLIP in 'clip' whose {part} has no text projection that is known to come from a file; without one a text cannot be compared with pictures. "
            f"Checkpoints of SD1.5 have none, those of SDXL none for clip_l. {LOAD}")


def width_of(clip_vision) -> int:
    """Of a picture's embedding. Raises ValueError for an image tower without the projection that a CLIP has."""
    model = getattr(clip_vision, "model", None)
    if not isinstance(model, CLIPVisionModelProjection) or not isinstance(model.visual_projection, nn.Linear):
        raise ValueError(f"{NODE} needs the image tower of a CLIP in 'clip_vision', got a {getattr(clip_vision, 'model_type', type(clip_vision).__name__)}. {PAIRS}")
    return model.visual_projection.out_features


def part_for(clip, width: int) -> str:
    """The name of the part of a CLIP whose projected text is as wide as the picture's embedding. Raises ValueError for none, or one without a projection."""
    if clip is None:
        raise ValueError(f"{NODE} got nothing in 'clip': this checkpoint has no CLIP. {LOAD}")
    parts = {name: part.transformer for name, part in clip.cond_stage_model.named_children() if isinstance(part, SDClipModel) and isinstance(part.transformer, CLIPTextModel)}
    widths = {name: part.text_projection.out_features for name, part in parts.items()}
    fits = [name for name in parts if widths[name] == width]
    if not fits:
        has = ", ".join(f"{name}, {wide} wide" for name, wide in widths.items()) or "no CLIP"
        raise ValueError(f"{NODE} needs a CLIP and a CLIP_VISION of one pair: in 'clip' there is {has}; a picture's embedding is {width} wide. {PAIRS}")
    if not projects(clip.patcher, parts[fits[0]].text_projection.weight, fits[0]):
        raise ValueError(lacking(fits[0]))
    return fits[0]


def projects(patcher, weight: torch.Tensor, part: str) -> bool:
    """Whether the text projection was in the file, or a LoRA sets it.

    The host keeps no record of what a file lacks. Layers that load lazily are zero then; others are memory that nobody wrote to, which may look like
    anything, so that the file is asked again: the host's loaders leave its path behind.
    """
    if any(isinstance(patch[1], tuple) and patch[1][0] == "set" for patch in patcher.patches.get(f"{part}.transformer.text_projection.weight", ())):
        return True
    if not weight.any():
        return False
    if comfy.memory_management.aimdo_enabled:
        return True
    loader, args = (patcher.cached_patcher_init or (None, ()))[:2]
    checkpoint = loader is comfy.sd.load_checkpoint_clip_patcher
    files = [args[0]] if checkpoint else args[0] if loader is comfy.sd.load_clip_model_patcher else []
    return any(is_projection(key, part, checkpoint) and shape == weight.shape for path in files for key, shape in shapes_in(path).items())


def shapes_in(path: str) -> dict:
    """{key: shape} of a file."""
    if path.lower().endswith((".safetensors", ".sft")):
        with safe_open(path, "pt") as file:
            return {key: torch.Size(file.get_slice(key).get_shape()) for key in file.keys()}
    return {key: value.shape for key, value in comfy.utils.load_torch_file(path, safe_load=True).items() if isinstance(value, torch.Tensor)}


def is_projection(key: str, part: str, checkpoint: bool) -> bool:
    """Whether the host takes what a file calls `key` for the text projection of `part`; of clip_l in SD1.5's and SDXL's checkpoints it takes none."""
    if not checkpoint:
        return key in ("text_projection", "text_projection.weight")
    return key.endswith(f"{part}.transformer.text_projection.weight") or part != "clip_l" and key.endswith((".model.text_projection", ".model.text_projection.weight"))
