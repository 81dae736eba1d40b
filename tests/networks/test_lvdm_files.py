"""Reading DynamiCrafter's files: every container, every version, every key of the published ones; and what is refused."""
import json
from pathlib import Path

import pytest
import torch
from firstframe.networks import lvdm_files as files
from firstframe.networks.lvdm_unet import as_ours, layout_of

GOLDEN = Path(__file__).parents[1] / "golden"


def published(version: str, narrow: int = 5) -> dict:
    """The file's keys, a fifth of the channels; narrow 1: as wide as they are, each tensor one number seen as often as need be."""
    schema = json.loads((GOLDEN / f"dynamicrafter_{'256' if version == '256' else '512'}_unet_and_image_proj.json").read_text())
    generator = torch.Generator().manual_seed(0)

    def size(key, n):
        return n // narrow if n % 320 == 0 and not key.startswith("image_proj_model.") and "init_attn.0.transformer" not in key else n
    def tensor(shape):
        value = torch.randn((), generator=generator).half()
        return value.expand(shape) if narrow == 1 else value.repeat(shape)
    sd = {key: tensor([size(key, n) for n in shape]) for key, shape in schema.items()}
    if version != "256":
        sd["scale_arr"] = torch.full((1400,), 0.3 if version == "1024" else 0.7)
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


def test_the_real_widths_fit_too():
    unet = as_ours({k.removeprefix(files.UNET): v for k, v in published("512", narrow=1).items() if k.startswith(files.UNET)})
    config = files.config_of(unet, files.reader("f"))
    assert config["model_channels"] == 320 and files.shapes(config, layout_of(unet), files.reader("f")) == {k: v.shape for k, v in unet.items()}


def test_what_the_file_cannot_say_is_asked():
    sd = published("512")
    assert files.look(sd, "f", "512 interpolation").version.fps == 5
    pruned = {k: v for k, v in sd.items() if k != "scale_arr"}
    with pytest.raises(ValueError, match="Load DynamiCrafter expected a DynamiCrafter model .* does not say whether it is 512 or 1024 .* Choose it in 'version'"):
        files.look(pruned, "f")
    assert files.look(pruned, "f", "1024").version.base == 0.3


def changed(**more):
    return lambda sd: sd | more


@pytest.mark.parametrize("change, chosen, says", [
    (changed(), "1024", "found a DynamiCrafter 512 or 512 interpolation. 'version' is 1024: set it to auto"),
    (changed(scale_arr=torch.full((1400,), 0.5)), "auto", "a scale_arr that ends at 0.5"),
    (changed(**{"first_stage_model.decoder.up.0.attn_refine.weight": torch.zeros(1)}), "auto", r"found ToonCrafter \(its VAE looks at both pictures"),
    (changed(more=torch.zeros(1)), "auto", "has the unknown more"),
    (lambda sd: {k: v for k, v in sd.items() if not k.startswith("image_proj")}, "auto", "without an image projection"),
    (lambda sd: {k: v for k, v in sd.items() if "input_blocks.4.0.in_layers.2" not in k}, "auto", "found one that lacks input_blocks.4.0.in_layers.2"),
    (lambda sd: {k: v for k, v in sd.items() if "input_blocks.4.2.norm" not in k}, "auto", "found one that lacks video.input_blocks.4.2.norm"),
    (changed(**{"model.diffusion_model.out.2.bias": torch.full((4,), torch.nan)}), "auto", "NaN or infinity in out.2.bias"),
    (changed(**{"model.diffusion_model.out.2.bias": torch.zeros(5)}), "auto", r"out.2.bias of shape \[5\] instead of \[4\]"),
    (changed(**{"model.diffusion_model.init_attn.1.proj_in.weight": torch.zeros(64, 64)}), "auto", "has the unknown init_attn.1.proj_in.weight"),
    (changed(**{"model.diffusion_model.input_blocks.3.2.proj_in.weight": torch.zeros(64, 64)}), "auto", "has input_blocks.3.2, where its UNet has no layer for it"),
    (changed(**{"model.diffusion_model.input_blocks.1.2.proj_in.weight": torch.zeros(64)}), "auto", r"input_blocks.1.2.proj_in.weight of shape \[64\]"),
    (changed(**{"model.diffusion_model.input_blocks.90.0.temopral_conv.conv1.0.weight": torch.zeros(64)}), "auto", "has input_blocks.90.0.temopral_conv, where its UNet has no layer"),
    (changed(**{"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(64, 4, 3, 3)}), "auto", "found a VideoCrafter model"),
    (lambda sd: {f"model.diffusion_model.{i}": torch.zeros(1) for i in range(3)}, "auto", "found a checkpoint. Checkpoints belong into models/checkpoints"),
    (lambda sd: {"a": torch.zeros(1)}, "auto", "found 1 tensors of no kind that this pack knows"),
    (lambda sd: {k: v for k, v in sd.items() if "input_blocks.0.0" not in k}, "auto", "found no input_blocks.0.0.weight"),
])
def test_what_is_refused(change, chosen, says):
    with pytest.raises(ValueError, match=says):
        files.look(change(published("512")), "f", chosen)
