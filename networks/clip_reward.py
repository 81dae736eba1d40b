"""CLIPs that were trained to score pictures: PickScore (transformers' names) and HPSv2 (OpenCLIP's names), both ViT-H/14. On the host's own CLIP classes.

score = exp(logit_scale) cos(text, picture).
"""
import math
from dataclasses import dataclass
from functools import partial

import comfy.clip_vision
import comfy.model_management
import comfy.model_patcher
import comfy.utils
import torch
from comfy.clip_model import CLIPTextModel, CLIPVisionModelProjection
from comfy.sd1_clip import SDTokenizer
from torch import nn
from torch.nn.functional import normalize

from .files import Reader
from .patcher import in_patcher
from .reward import RewardModel, again, pixels, plain, shapes

END = 49407  # the token that ends a text
HEADS = {1280: 16, 1408: 16, 1664: 16}  # of ViT-H, -g and -bigG; every other width has heads of 64
TWO_ACTIVATIONS = (768, 1024)  # ViT-B and -L: OpenAI's have another activation than OpenCLIP's, and weights do not say which


class ClipPair(nn.Module):
    def __init__(self, text: dict, vision: dict, dtype=None, device=None, operations=None):
        super().__init__()
        self.text = CLIPTextModel(text, dtype, device, operations)
        self.vision = CLIPVisionModelProjection(vision, dtype, device, operations)


@dataclass(frozen=True)
class ClipReward(RewardModel):
    """patcher: the host's, around a ClipPair. side: of a picture, in pixels; scale: exp(logit_scale)."""

    patcher: comfy.model_patcher.ModelPatcher
    tokenizer: SDTokenizer
    side: int
    scale: float
    name: str

    def read(self, prompt: str, who: str) -> torch.Tensor:
        """[1,P] of length 1: the text up to the first 75 tokens. The tower is causal and read at the end token, so what pads it does not count."""
        comfy.model_management.load_models_gpu([self.patcher])
        ids = [token for token, _ in self.tokenizer.tokenize_with_weights(plain(prompt), disable_weights=True)[0]]
        return normalize(self.patcher.model.text(torch.tensor([ids], device=self.patcher.load_device), num_tokens=[ids.index(END) + 1])[2].float(), dim=-1)

    def score(self, picture: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        seen = self.patcher.model.vision(pixel_values=pixels(picture, self.side).to(self.patcher.load_device))[2]
        return self.scale * (prompt * normalize(seen.float(), dim=-1)).sum(-1)


def renamed(sd: dict, says: Reader) -> dict:
    """transformers' names, where a file has OpenCLIP's; without tables that can be computed. Raises ValueError for what the host could not take apart."""
    sd = {key: value for key, value in sd.items() if key != "attn_mask" and not key.endswith("position_ids")}
    if "transformer.resblocks.0.attn.in_proj_weight" not in sd:
        return sd
    for key in ("visual.proj", "text_projection", *(key for key in sd if "attn.in_proj_" in key)):
        says.shape(sd, key, 1 if key.endswith("bias") else 2)
    sd = comfy.utils.clip_text_transformers_convert(comfy.clip_vision.convert_to_transformers(sd, "visual."), "", "")
    return {key: value.contiguous() for key, value in sd.items()}


def tower(sd: dict, says: Reader, prefix: str, heads: dict) -> dict:
    """What both of the host's configurations have. Raises ValueError for sizes that contradict each other."""
    hidden, width = says.shape(sd, f"{prefix}encoder.layers.0.mlp.fc1.weight", 2)
    depth = 1
    while says.shape(sd, f"{prefix}encoder.layers.{depth}.mlp.fc1.weight"):
        depth += 1
    count = heads.get(width, 0 if width % 64 else width // 64)
    if not count:
        raise says.refuse(f"{prefix}encoder.layers.0.mlp.fc1.weight with {width} columns", "Expected a multiple of 64.")
    return dict(num_hidden_layers=depth, hidden_size=width, num_attention_heads=count, intermediate_size=hidden, hidden_act="gelu")


def sizes(sd: dict, says: Reader) -> tuple[dict, dict]:
    """The host's configurations (text, vision), by keys and shapes."""
    text, vision = tower(sd, says, "text_model.", {}), tower(sd, says, "vision_model.", HEADS)
    if vision["hidden_size"] in TWO_ACTIVATIONS:
        raise says.refuse("a CLIP of the size ViT-B or ViT-L", "PickScore and HPSv2 are ViT-H/14; for a stock CLIP there is the node CLIPScore.")
    positions, places = (says.shape(sd, f"{part}.embeddings.position_embedding.weight", 2)[0] for part in ("text_model", "vision_model"))
    grid, patch = math.isqrt(places - 1), says.shape(sd, "vision_model.embeddings.patch_embedding.weight", 4)[3]
    if places != grid ** 2 + 1 or places < 2 or positions < 3:
        raise says.refuse(f"{positions} places of a text and {places} of a picture", "Expected at least 3, and a square and 1.")
    return (text | dict(max_position_embeddings=positions, eos_token_id=END),
            vision | dict(model_type="clip_vision_model", num_channels=3, image_size=grid * patch, patch_size=patch, projection_dim=says.shape(sd, "visual_projection.weight", 2)[0]))


def look(sd: dict, says: Reader) -> tuple[dict, tuple, float]:
    """(weights, sizes, exp(logit_scale)). Raises ValueError unless every key, shape and number is such a CLIP's."""
    sd = renamed(sd, says)
    found = sizes(sd, says)
    net = {key.partition(".")[2]: (key, shape) for key, shape in shapes(partial(ClipPair, *found)).items()}
    says.check_weights(sd, {key: shape for key, (_, shape) in net.items()} | {"logit_scale": torch.Size()})
    return {name: sd[key] for key, (name, _) in net.items()}, found, sd["logit_scale"].float().exp().item()


def clip_reward(sd: dict, read, says: Reader) -> ClipReward:
    """The towers of a file's tensors in the host's patcher, not yet on any device. read(): the tensors again."""
    weights, found, scale = look(sd, says)
    patcher = in_patcher(partial(ClipPair, *found), weights, partial(again, lambda: look(read(), says), [found, scale], says.name))
    return ClipReward(patcher, SDTokenizer(max_length=found[0]["max_position_embeddings"]), found[1]["image_size"], scale, says.name)
