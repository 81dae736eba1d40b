"""Reading DynamiCrafter's and VideoCrafter's files: every container, every version, every key of the published ones; and what is refused."""
import json
import re
from pathlib import Path

import pytest
import torch
from firstframe.networks import lvdm_files as files
from firstframe.networks.files import DYNAMICRAFTER, kind_of
from firstframe.networks.image_projector import image_projector
from firstframe.networks.lvdm_unet import as_ours, layout_of

GOLDEN = Path(__file__).parents[1] / "golden"


# {version: (what its keys have not, of DynamiCrafter 512's; whether it has tables of relative positions; tensors of its UNet, counted in the official one)}
VIDEOCRAFTER = {"VideoCrafter1 512": (r"temopral_conv|to_._ip|fps_embedding|image_proj", True, 1196), "VideoCrafter1 1024": (r"temopral_conv|to_._ip|image_proj", True, 1200),
                "VideoCrafter2 512": (r"to_._ip|image_proj", False, 1484), "VideoCrafter1 512 image to video": (r"(?!)", False, 1516)}


def videocrafter(schema: dict, version: str) -> dict:
    lacks, related, _ = VIDEOCRAFTER[version]
    found = {key: shape for key, shape in schema.items() if not re.search(lacks, key)}
    for key in [key for key in found if re.search(r"(\.2|init_attn\.0)\.proj_in\.weight$", key)] if related else ():
        found |= {key.replace("proj_in.weight", f"transformer_blocks.0.attn{i}.relative_position_{side}.embeddings_table"): [33, 64] for i in (1, 2) for side in "kv"}
    found["model.diffusion_model.input_blocks.0.0.weight"] = [320, 4, 3, 3]
    return found | ({"image_proj_model.latents": [1, 16, 1024]} if "image_proj_model.latents" in found else {})


def published(version: str, narrow: int = 5) -> dict:
    """The file's keys, a fifth of the channels; narrow 1: as wide as they are, each tensor one number seen as often as need be."""
    schema = json.loads((GOLDEN / f"dynamicrafter_{'256' if version == '256' else '512'}_unet_and_image_proj.json").read_text())
    schema = videocrafter(schema, version) if version in VIDEOCRAFTER else schema
    generator = torch.Generator().manual_seed(0)

    def size(key, n):
        return n // narrow if n % 320 == 0 and not key.startswith("image_proj_model.") and "init_attn.0.transformer" not in key else n
    def tensor(shape):
        value = torch.randn((), generator=generator).half()
        return value.expand(shape) if narrow == 1 else value.repeat(shape)
    sd = {key: tensor([size(key, n) for n in shape]) for key, shape in schema.items()}
    if version not in ("256", "VideoCrafter1 512"):
        sd["scale_arr"] = torch.full((1400,), 0.3 if "1024" in version else 0.7)
    return sd | {"betas": torch.zeros(1000), "sqrt_alphas_cumprod": torch.zeros(1000), "first_stage_model.decoder.conv_in.weight": torch.zeros(1),
                 "cond_stage_model.model.ln_final.weight": torch.zeros(1), "embedder.model.visual.proj": torch.zeros(1), "embedder.model.ln_final.weight": torch.zeros(1)}


@pytest.mark.parametrize("version", ["256", "512", "1024"])
def test_every_key_has_its_part(version):
    sd = published(version)
    found = files.look(sd, "f")
    assert found.version.name == version and (found.size.tokens, found.size.width, found.config["in_channels"], found.config["context_dim"]) == (256, 1024, 8, 1024)
    assert len(found.unet) + len(found.projection) == (1583 if version == "256" else 1567)
    assert (set(found.vae), set(found.text), set(found.vision)) == ({"decoder.conv_in.weight"}, {"ln_final.weight"}, {"proj"})
    for other in ({"state_dict": sd, "global_step": 3}, {"module": {f"_forward_module.{k}": v for k, v in sd.items()}}):
        assert files.look(other, "f").unet.keys() == found.unet.keys()


@pytest.mark.parametrize("version", VIDEOCRAFTER)
def test_videocrafters_are_told_by_their_keys(version):
    sd = published(version)
    for file in (sd, {k: v for k, v in sd.items() if k != "scale_arr"}):
        for chosen in ("auto", version):
            found = files.look(file, "f", chosen)
            assert (found.version.name, len(found.unet), found.config["in_channels"]) == (version, VIDEOCRAFTER[version][2], 4)
    picture = version.endswith("image to video")
    assert picture or image_projector(lambda: sd, "f", version, found) is None
    assert (found.version.picture, bool(found.projection), found.size.tokens if found.size else None) == (picture, picture, 16 if picture else None)
    assert {size.reach for size in found.layout.transformers.values()} == {16 if VIDEOCRAFTER[version][1] else None}
    assert (found.version.base, found.version.fps, found.version.size) == {
        "VideoCrafter1 512": (None, None, (512, 320)), "VideoCrafter1 1024": (0.3, 28, (1024, 576)), "VideoCrafter2 512": (0.7, 28, (512, 320))}.get(version, (0.7, 8, (512, 320)))


@pytest.mark.parametrize("version", ["512", "VideoCrafter1 1024"])
def test_the_real_widths_fit_too(version):
    unet = as_ours({k.removeprefix(files.UNET): v for k, v in published(version, narrow=1).items() if k.startswith(files.UNET)})
    config = files.config_of(unet, files.reader("f"))
    assert config["model_channels"] == 320 and files.shapes(config, layout_of(unet), files.reader("f")) == {k: v.shape for k, v in unet.items()}


def test_what_the_file_cannot_say_is_asked():
    sd = published("512")
    assert files.look(sd, "f", "512 interpolation").version.fps == 5
    pruned = {k: v for k, v in sd.items() if k != "scale_arr"}
    with pytest.raises(ValueError, match="Load DynamiCrafter expected a DynamiCrafter model .* does not say whether it is 512 or 1024 .* Choose it in 'version'"):
        files.look(pruned, "f")
    assert files.look(pruned, "f", "1024").version.base == 0.3


def test_heads_of_another_width_are_said_by_the_file():
    sd = published("256")
    assert (files.look(sd, "f").config["num_head_channels"], files.look(sd, "f").layout.transformers["middle_block.2"].heads) == (64, 4)
    found = files.look(sd | {"num_head_channels": torch.tensor(16.0).half()}, "f")
    assert (found.version.name, found.config["num_head_channels"], found.layout.transformers["middle_block.2"].heads) == ("256", 16, 16)


def changed(**more):
    return lambda sd: sd | more


@pytest.mark.parametrize("change, chosen, says", [
    (changed(), "1024", "found a DynamiCrafter 512 or 512 interpolation. 'version' is 1024: set it to auto"),
    (changed(scale_arr=torch.full((1400,), 0.5)), "auto", "a scale_arr that ends at 0.5"),
    (changed(**{"first_stage_model.decoder.up.0.attn_refine.weight": torch.zeros(1)}), "auto", r"found ToonCrafter \(its VAE looks at both pictures"),
    (changed(more=torch.zeros(1)), "auto", "has the unknown more"),
    *((changed(num_head_channels=torch.tensor(value)), "auto", f"found num_head_channels {said}. Expected one whole number: the width") for value, said in
      ((16.5, "16.5"), (0, "0"), (-16, "-16"), (float("nan"), "nan"), (float("inf"), "inf"), ([16, 16], r".16, 16."), ([16] * 9, r"of shape .9."), ([], r".."))),
    (changed(num_head_channels=torch.tensor(24)), "auto", "attention heads 24 wide in a UNet of 64 channels. Expected a width that divides them in num_head_channels"),
    (lambda sd: {k: v for k, v in sd.items() if not k.startswith("image_proj")}, "auto", "without an image projection"),
    (lambda sd: {k: v for k, v in sd.items() if "input_blocks.4.0.in_layers.2" not in k}, "auto", "found one that lacks input_blocks.4.0.in_layers.2"),
    (lambda sd: {k: v for k, v in sd.items() if "input_blocks.4.2.norm" not in k}, "auto", "found one that lacks video.input_blocks.4.2.norm"),
    (changed(**{"model.diffusion_model.out.2.bias": torch.full((4,), torch.nan)}), "auto", "NaN or infinity in out.2.bias"),
    (changed(**{"model.diffusion_model.out.2.bias": torch.zeros(5)}), "auto", r"out.2.bias of shape \[5\] instead of \[4\]"),
    (changed(**{"model.diffusion_model.init_attn.1.proj_in.weight": torch.zeros(64, 64)}), "auto", "has the unknown init_attn.1.proj_in.weight"),
    (changed(**{"model.diffusion_model.input_blocks.3.2.proj_in.weight": torch.zeros(64, 64)}), "auto", "has input_blocks.3.2, where its UNet has no layer for it"),
    (changed(**{"model.diffusion_model.input_blocks.1.2.proj_in.weight": torch.zeros(64)}), "auto", r"input_blocks.1.2.proj_in.weight of shape \[64\]"),
    (changed(**{"model.diffusion_model.input_blocks.90.0.temopral_conv.conv1.0.weight": torch.zeros(64)}), "auto", "has input_blocks.90.0.temopral_conv, where its UNet has no layer"),
    (changed(**{"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(64, 4, 3, 3)}), "auto", "Expected a Resampler with 16 tokens, which all frames share"),
    (lambda sd: {k: v for k, v in sd.items() if "input_blocks.4.2." not in k}, "auto", "lacks input_blocks.4.2, or a part of it, and has the like elsewhere"),
    (lambda sd: {k: v for k, v in sd.items() if "middle_block.3.temopral_conv." not in k}, "auto", "lacks middle_block.3.temopral_conv"),
    (lambda sd: {k: v for k, v in sd.items() if "output_blocks.7.1.transformer_blocks.0.attn2.to_k_ip" not in k}, "auto", "lacks output_blocks.7.1.transformer_blocks.0.attn2"),
    (changed(**{"model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.alpha": torch.zeros(())}), "256", "a scale_arr that ends at 0.7. Known for such a UNet: none .256."),
    (lambda sd: {k: v for k, v in sd.items() if "temopral_conv" not in k}, "auto", "a UNet of 8 input channels with frames per second, image tokens alone. No published model is one"),
    (lambda sd: {k: v for k, v in sd.items() if not re.search(r"temopral_conv|init_attn|\.2\.tr|_ip\.", k)}, "auto", "found a checkpoint. Checkpoints belong into models/checkpoints"),
    (lambda sd: {f"model.diffusion_model.{i}": torch.zeros(1) for i in range(3)}, "auto", "found a checkpoint. Checkpoints belong into models/checkpoints"),
    (lambda sd: {"a": torch.zeros(1)}, "auto", "found 1 tensors of no kind that this pack knows"),
    (lambda sd: {k: v for k, v in sd.items() if "input_blocks.0.0" not in k}, "auto", "found no input_blocks.0.0.weight"),
])
def test_what_is_refused(change, chosen, says):
    with pytest.raises(ValueError, match=says):
        files.look(change(published("512")), "f", chosen)


T = "relative_position_k.embeddings_table"


def without(part: str):
    return lambda sd: {k: v for k, v in sd.items() if part not in k}


@pytest.mark.parametrize("version, change, chosen, says", [
    ("VideoCrafter2 512", changed(), "512", "found a VideoCrafter2 512. 'version' is 512: set it to auto"),
    ("VideoCrafter1 512", changed(scale_arr=torch.full((1400,), 0.7)), "auto", "a scale_arr that ends at 0.7. Known for such a UNet: none .VideoCrafter1 512."),
    ("VideoCrafter2 512", changed(scale_arr=torch.full((1400,), 0.3)), "auto", "a scale_arr that ends at 0.3. Known for such a UNet: 0.7 .VideoCrafter2 512."),
    ("VideoCrafter2 512", without("fps_embedding"), "auto", "a UNet of 4 input channels with temporal convolutions alone. No published model is one"),
    ("VideoCrafter1 512", without("relative_position"), "auto", "a UNet of 4 input channels with temporal transformers alone"),
    ("VideoCrafter2 512", changed(**{"image_proj_model.latents": torch.zeros(1, 16, 1024)}), "auto", "with an image projection .image_proj_model.... and a UNet without layers for it"),
    ("VideoCrafter1 512 image to video", without("image_proj"), "auto", "without an image projection"),
    ("VideoCrafter1 1024", without(f"middle_block.2.transformer_blocks.0.attn1.{T}"), "auto", "lacks middle_block.2, or a part of it"),
    ("VideoCrafter1 1024", without(f"middle_block.2.transformer_blocks.0.attn2.{T}"), "auto", f"lacks video.middle_block.2.transformer_blocks.0.attn2.{T} .and 0 more"),
    ("VideoCrafter1 1024", changed(**{f"model.diffusion_model.init_attn.0.transformer_blocks.0.attn1.{T}": torch.zeros(32, 64)}), "auto", r"of shape \[32, 64\] instead of \[31, 64\]"),
    ("VideoCrafter1 1024", changed(**{f"model.diffusion_model.init_attn.0.transformer_blocks.0.attn1.{T}": torch.zeros(64)}), "auto", r"embeddings_table of shape \[64\]"),
    ("VideoCrafter1 1024", changed(**{f"model.diffusion_model.init_attn.0.transformer_blocks.0.attn1.{T}": torch.full((33, 64), torch.nan)}), "auto", "NaN or infinity in video.init_attn"),
    ("VideoCrafter1 512", changed(more=torch.zeros(1)), "auto", "has the unknown more"),
])
def test_what_is_refused_of_videocrafter(version, change, chosen, says):
    with pytest.raises(ValueError, match=f"Load DynamiCrafter expected .* in 'f', .*{says}"):
        files.look(change(published(version)), "f", chosen)


@pytest.mark.parametrize("version", ["256", "512", *VIDEOCRAFTER])
def test_other_loaders_know_it(version):
    assert kind_of(published(version)) is DYNAMICRAFTER
