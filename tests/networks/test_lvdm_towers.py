"""What lies in a DynamiCrafter file besides the UNet, through the host's loaders; the towers are as large as they are, since the host knows no smaller ones."""
import json
from pathlib import Path

import pytest
import torch
from firstframe.networks.lvdm_files import reader
from firstframe.networks.lvdm_towers import IN_LAYER, image_tower, text_encoder, vae

SCHEMA = Path(__file__).parents[1] / "golden" / "dynamicrafter_first_stage_model.json"
SAYS = reader("f")


def tensor(*shape) -> torch.Tensor:
    return torch.zeros((), dtype=torch.float16).expand(shape)


def tower(layers: int, width: int) -> dict:
    sizes = dict(zip(IN_LAYER, ((3 * width, width), (3 * width,), (width, width), *[(width,)] * 5, (4 * width, width), (4 * width,), (width, 4 * width), (width,))))
    return {f"transformer.resblocks.{i}.{name}": tensor(*size) for i in range(layers) for name, size in sizes.items()}


def text(layers: int = 24) -> dict:
    return tower(layers, 1024) | {"token_embedding.weight": tensor(49408, 1024), "positional_embedding": tensor(77, 1024), "ln_final.weight": tensor(1024), "ln_final.bias": tensor(1024),
                                  "text_projection": tensor(1024, 1024), "logit_scale": tensor(), "attn_mask": tensor(77, 77)}


def vision() -> dict:
    return tower(32, 1280) | {"class_embedding": tensor(1280), "positional_embedding": tensor(257, 1280), "conv1.weight": tensor(1280, 3, 14, 14), "proj": tensor(1280, 1024),
                              **{f"ln_{end}.{part}": tensor(1280) for end in ("pre", "post") for part in ("weight", "bias")}}


def autoencoder() -> dict:
    return {key.removeprefix("first_stage_model."): tensor(*shape) for key, shape in json.loads(SCHEMA.read_text()).items()}


def without(sd: dict, key: str) -> dict:
    return {k: v for k, v in sd.items() if k != key}


def test_the_text_encoder_is_sd2s():
    clip = text_encoder(text, SAYS)
    assert type(clip.cond_stage_model).__name__ == "SD2ClipModel" and clip.cond_stage_model.clip_h.transformer.text_model.embeddings.token_embedding.weight.shape == (49408, 1024)
    assert clip.encode_from_tokens(clip.tokenize("a fox")).shape == (1, 77, 1024)
    assert clip.patcher.cached_patcher_init[1][0] is text
    assert not any(p.isnan().any() for p in clip.cond_stage_model.parameters())


def test_the_image_tower_is_vit_h():
    found = image_tower(vision, SAYS)
    assert found.encode_image(torch.rand(1, 224, 224, 3))["last_hidden_state"].shape == (1, 257, 1280)


def test_the_vae_is_sd1s():
    assert vae(autoencoder, SAYS).encode(torch.rand(1, 64, 64, 3)).shape == (1, 4, 8, 8)


@pytest.mark.parametrize("make", [text_encoder, image_tower, vae])
def test_a_pruned_file_has_none(make):
    assert make(dict, SAYS) is None


@pytest.mark.parametrize("make, sd, says", [
    (text_encoder, without(text(), "ln_final.weight"), "text encoder or image tower lacks ln_final.weight"),
    (text_encoder, without(text(), "transformer.resblocks.7.mlp.c_fc.bias"), "lacks transformer.resblocks.7.mlp.c_fc.bias"),
    (text_encoder, text() | {"transformer.resblocks.0.ln_1.weight": tensor(768)}, "another tower in place of the text encoder"),
    (image_tower, without(vision(), "proj"), "lacks proj"), (vae, without(autoencoder(), "quant_conv.bias"), "a VAE of 247 weights instead of 248")])
def test_what_has_holes_is_refused(make, sd, says):
    with pytest.raises(ValueError, match=f"Load DynamiCrafter expected .* in 'f', found .*{says}"):
        make(lambda: sd, SAYS)


def test_the_last_text_layer_may_be_left_out():
    assert text_encoder(lambda: text(23), SAYS) is not None
