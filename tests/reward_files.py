"""Small reward models with random weights in the published formats, and pictures. Import as `firstframe.tests.reward_files`."""
import string
from functools import partial

import torch
from firstframe.networks.blip import Blip, BlipSize
from firstframe.networks.clip_reward import ClipPair
from firstframe.networks.reward import shapes
from firstframe.tests import adapter_files

PROMPT = "a red circle moving over a blue background"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase, *(f"##{c}" for c in string.ascii_lowercase), ",", ".", "(", ")",
         *PROMPT.split()[1:4], "over", "blue", "background"]
BLIP = BlipSize(patch=8, places=17, width=128, hidden=96, depth=2, vocabulary=len(WORDS) + 2, positions=40, text_width=64, text_hidden=80, text_depth=3)
SIDE = 28  # of a picture, for the small CLIP
TEXT_TOWER = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=96, hidden_act="gelu", max_position_embeddings=77, eos_token_id=49407)
VISION_TOWER = dict(hidden_size=128, num_hidden_layers=3, num_attention_heads=2, intermediate_size=160, hidden_act="gelu", model_type="clip_vision_model", num_channels=3,
                    image_size=SIDE, patch_size=14, projection_dim=64)


def image_reward(seed: int = 0, size: BlipSize = BLIP) -> dict[str, torch.Tensor]:
    """As in ImageReward.pt, with what the official file has beside the weights that count."""
    sd = adapter_files.random({k: tuple(v) for k, v in shapes(partial(Blip, size)).items()}, seed)
    return sd | {"blip.text_encoder.embeddings.position_ids": torch.arange(size.positions)[None], "blip.vision_proj.weight": torch.ones(2, size.width), "blip.text_proj.bias": torch.ones(2)}


def vocabulary(folder, words=WORDS) -> str:
    path = folder / "vocab.txt"
    path.write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    return str(path)


def clip(seed: int = 0, text: dict = TEXT_TOWER, vision: dict = VISION_TOWER) -> dict[str, torch.Tensor]:
    """As PickScore's model.safetensors."""
    wanted = {k.partition(".")[2]: tuple(v) for k, v in shapes(partial(ClipPair, text, vision)).items()}
    return adapter_files.random(wanted, seed) | {"logit_scale": torch.tensor(4.6)}


def open_clip(sd: dict) -> dict:
    """The same under OpenCLIP's names, as HPSv2 has them; written down apart from the host's tables, which go the other way."""
    out = {"logit_scale": sd["logit_scale"], "attn_mask": torch.full((77, 77), -torch.inf).triu_(1), "text_projection": sd["text_projection.weight"].T.contiguous(),
           "visual.proj": sd["visual_projection.weight"].T.contiguous(), "visual.class_embedding": sd["vision_model.embeddings.class_embedding"],
           "visual.conv1.weight": sd["vision_model.embeddings.patch_embedding.weight"], "token_embedding.weight": sd["text_model.embeddings.token_embedding.weight"]}
    for tower, to, ends in (("text_model", "", {"final_layer_norm": "ln_final"}), ("vision_model", "visual.", {"pre_layrnorm": "ln_pre", "post_layernorm": "ln_post"})):
        out[f"{to}positional_embedding"] = sd[f"{tower}.embeddings.position_embedding.weight"]
        for part in ("weight", "bias"):
            out |= {f"{to}{new}.{part}": sd[f"{tower}.{old}.{part}"] for old, new in ends.items()}
            for n in range(sum(k.startswith(f"{tower}.encoder.layers.") and k.endswith("fc1.bias") for k in sd)):
                old, new = f"{tower}.encoder.layers.{n}.", f"{to}transformer.resblocks.{n}."
                out[f"{new}attn.in_proj_{part}"] = torch.cat([sd[f"{old}self_attn.{qkv}_proj.{part}"] for qkv in "qkv"])
                for mine, theirs in (("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("self_attn.out_proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")):
                    out[f"{new}{theirs}.{part}"] = sd[f"{old}{mine}.{part}"]
    return out


def pictures(count: int = 3, height: int = 40, width: int = 53) -> torch.Tensor:
    """Smooth ones, each unlike the others."""
    coarse = torch.rand(count, 3, 4, 5, generator=torch.Generator().manual_seed(6))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").movedim(1, -1)
