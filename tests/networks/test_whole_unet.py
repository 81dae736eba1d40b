"""I2V-Adapter's animatediff_v15_v1_ipplus.pth, a whole UNet in diffusers' naming: each loader takes its part, the stock one the UNet, and no tensor is left."""
import json
from pathlib import Path

import comfy.model_detection
import comfy.utils
import folder_paths
import pytest
import torch
from firstframe.attention_patches.dual_cross import patch
from firstframe.networks import content_adapter as content
from firstframe.networks import i2v_adapter, motion_module_files
from firstframe.networks.patcher import another
from firstframe.tests import adapter_files, i2v_adapter_files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.dynamic_mode import dynamic_mode

import nodes

SCHEMA = Path(__file__).parents[1] / "golden" / "i2v_adapter_animatediff_v15_v1_ipplus.json"
PLACE = "down_blocks.1.attentions.0.transformer_blocks.0"
MODELS = {"SD1.5": tiny.model(), "SDXL": tiny.model("SDXL")}


def published(make=lambda value, shape: value.expand(shape)) -> dict[str, torch.Tensor]:
    """The file's keys and shapes; each tensor is one number, seen as often as need be."""
    generator = torch.Generator().manual_seed(0)
    return {key: make(torch.randn((), generator=generator).half(), shape) for key, shape in json.loads(SCHEMA.read_text()).items()}


def narrow(value, shape):
    """A tenth of the channels, each with its own place in memory: the pack's loaders refuse others."""
    return value.repeat([n // 10 if n % 320 == 0 else n for n in shape])


def plus_of_sd15() -> dict:
    return {f"image_proj.{key}": torch.zeros(shape).half() for key, shape in adapter_files.PUBLISHED["ip-adapter-plus_sd15"][0].items()}


def test_every_tensor_of_the_published_file_has_its_node():
    sd = published(narrow)
    motion, places, reach = motion_module_files.look(sd, "f")
    assert len(places) == 20 and motion_module_files.version_of(places, reach) == "v1"
    parts, size, layers = content.look(sd, "f", (plus_of_sd15(), "g"))
    assert len(layers) == 16 and (size.tokens, size.width) == (16, 768)
    names = comfy.utils.unet_to_diffusers(comfy.model_detection.model_config_from_diffusers_unet(published()).unet_config)  # what the stock loader reads
    read = [*motion.values(), *parts["ip_adapter."].values(), *(sd[key] for key in names if key in sd), *(sd[key] for key in sd if key.endswith(".pe"))]
    assert len(read) == len(sd) == 1278 and {id(value) for value in read} == {id(value) for value in sd.values()}


def test_the_stock_node_takes_the_unet(tmp_path, monkeypatch):
    """Load Diffusion Model, from the file. In dynamic mode, in which its layers hold the file's own tensors: nothing of this size is written or allocated."""
    sd = published()
    torch.save(sd, tmp_path / "animatediff_v15_v1_ipplus.pth")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", ([str(tmp_path)], folder_paths.supported_pt_extensions))
    with dynamic_mode():
        model, = nodes.UNETLoader().load_unet("animatediff_v15_v1_ipplus.pth", "default")
        loaded = model.model.diffusion_model.state_dict()
        names = {ours: theirs for theirs, ours in comfy.utils.unet_to_diffusers(model.model.model_config.unet_config).items() if theirs in sd}
        assert loaded.keys() == names.keys() and len(loaded) == 686
        assert all(value.shape == sd[names[key]].shape and value.flatten()[0] == sd[names[key]].flatten()[0] for key, value in loaded.items())
    assert type(model.model.model_config).__name__ == "SD15"


def test_layers_are_numbered_as_in_ip_adapter_files():
    """By the table of the published ones: down, up, the middle last."""
    sd = published(narrow)
    parts, _, layout = content.look(sd, "f", (plus_of_sd15(), "g"))
    assert layout == {str(2 * m + 1): c // 10 for m, c in enumerate(adapter_files.SD15)}
    order = [f"down_blocks.{i}.attentions.{j}" for i in range(3) for j in range(2)] + [f"up_blocks.{i}.attentions.{j}" for i in (1, 2, 3) for j in range(3)] + ["mid_block.attentions.0"]
    for m, place in enumerate(order):
        for part in ("to_k_ip", "to_v_ip"):
            assert parts["ip_adapter."][f"{2 * m + 1}.{part}.weight"] is sd[f"{place}.transformer_blocks.0.attn2.{part}.weight"]


def test_the_numbers_of_sdxl():
    """Its 70 layers by the table of the published files."""
    model = tiny.model("SDXL", **tiny.DEEP)
    sd = adapter_files.adapter(model, "plus")
    parts, _, layout = content.look(i2v_adapter_files.whole_unet(model, sd), "f", (sd, "g"))
    assert list(layout) == [str(n) for n in range(1, 140, 2)]
    for n, place in ((1, "down_blocks.1.attentions.0.transformer_blocks.0"), (7, "down_blocks.1.attentions.1.transformer_blocks.1"), (47, "down_blocks.2.attentions.1.transformer_blocks.9"),
                     (49, "up_blocks.0.attentions.0.transformer_blocks.0"), (119, "up_blocks.1.attentions.2.transformer_blocks.1"), (139, "mid_block.attentions.0.transformer_blocks.9")):
        assert torch.equal(parts["ip_adapter."][f"{n}.to_v_ip.weight"], i2v_adapter_files.in_unet(model, sd)[f"{place}.attn2.to_v_ip.weight"])


def of_two_files(model, sd):
    return content.content_adapter(i2v_adapter_files.whole_unet(model, sd), "whole", (sd, "plus"))


@pytest.mark.parametrize("base", MODELS)
def test_under_either_names_the_layers_give_the_same_bits(base):
    model, z = MODELS[base], tiny.latents(3)
    sd = adapter_files.adapter(model, "plus")
    pictures, clip = adapter_files.pictures(), adapter_files.clip_vision()
    clips = []
    for adapter in (content.content_adapter(sd, "f"), of_two_files(model, sd)):
        clips.append(tiny.sample(patch(model, adapter, content.image_tokens(adapter, clip, pictures, "test"), "test"), z))
    assert torch.equal(*clips) and tiny.difference(clips[0], tiny.sample(model, z)) > 0.003


def test_the_other_file_gives_the_projection_and_nothing_else():
    model = MODELS["SD1.5"]
    one, two = (adapter_files.adapter(model, "plus", seed) for seed in (0, 1))
    found = content.content_adapter(one, "f", (two, "g"))
    for part, sd, prefix in ((found.projection, two, "image_proj."), (found.patcher, one, "ip_adapter.")):
        assert all(torch.equal(value, sd[prefix + key]) for key, value in part.model.state_dict().items())


@pytest.mark.parametrize("mode", ["ordinary", "dynamic"])
def test_further_copies_come_from_both_files(mode):
    model = MODELS["SD1.5"]
    sd, read = adapter_files.adapter(model, "plus"), []
    sources = [lambda: read.append("whole") or i2v_adapter_files.whole_unet(model, sd), lambda: read.append("plus") or sd]

    def check():
        adapter = content.content_adapter(sources[0], "whole", (sources[1], "plus"))
        for patcher in (adapter.projection, adapter.patcher):
            copy = another(patcher)
            assert copy.model is not patcher.model and all(torch.equal(a, b) for a, b in zip(copy.model.state_dict().values(), patcher.model.state_dict().values()))
        assert read == ["whole", "plus"] * 3

    if mode == "ordinary":
        return check()
    with dynamic_mode():
        check()


def without(part):
    return lambda sd: {k: v for k, v in sd.items() if part not in k}


def changed(key, value):
    return lambda sd: {**sd, key: value}


@pytest.mark.parametrize("change, says", [
    (without(f"{PLACE}.attn2.to_v_ip"), f"lacks {PLACE}.attn2.to_v_ip.weight .and 0 more"), (without(f"{PLACE}.attn2.to_k_ip"), f"lacks {PLACE}.attn2.to_k_ip.weight .and 0 more"),
    (without("_ip."), "a whole UNet in diffusers' naming. Of such a file Load Diffusion Model"),
    (without("mid_block.attentions.0.transformer_blocks.0.attn2.to_k.w"), "has the unknown mid_block"),
    (changed(f"{PLACE}.attn2.to_v_ip.weight", torch.zeros(32, 63)), rf"{PLACE}.attn2.to_v_ip.weight of shape \[32, 63\] instead of \[32, 64\]"),
    (changed(f"{PLACE}.attn2.to_k_ip.weight", torch.full((32, 64), torch.nan)), f"NaN or infinity in {PLACE}.attn2.to_k_ip.weight"),
    (changed(f"{PLACE}.attn2.to_k_ip.0.weight", torch.zeros(32, 64)), f"has the unknown {PLACE}.attn2.to_k_ip.0.weight")])
def test_layers_that_are_incomplete_are_named_as_in_the_file(change, says):
    model = MODELS["SD1.5"]
    sd = adapter_files.adapter(model, "plus")
    with pytest.raises(ValueError, match=f"Load Content-Adapter expected an IP-Adapter .* in 'whole.pth', found .*{says}"):
        content.content_adapter(change(i2v_adapter_files.whole_unet(model, sd)), "whole.pth", (sd, "plus"))


def other(kind, **options):
    model = MODELS["SD1.5"]
    if kind == "whole":
        return i2v_adapter_files.whole_unet(model, adapter_files.adapter(model, "plus"))
    if kind == "I2V-Adapter":
        return i2v_adapter_files.i2v_adapter(model)
    if kind == "8 tokens":
        return adapter_files.random({f"image_proj.{k}": v for k, v in adapter_files.plus(tiny.CONTEXT, adapter_files.HIDDEN, tokens=8).items()})
    sd = adapter_files.adapter(model, kind, **options)
    return {k: v for k, v in sd.items() if k.startswith("ip_adapter.")} if options.get("seed") else sd


@pytest.mark.parametrize("projection, says", [
    (None, "'whole', found one without an image projection. Choose a file that has it as the image projection: ip-adapter-plus_sd15"),
    (("whole", {}), "'other', found one without an image projection"), (("plus", {"seed": 1}), "'other', found one without an image projection"),
    (("plus", {"width": 96}), "'other', found an image projection that makes 16 tokens of a picture .plus., 96 wide, for layers that take 16 tokens of a picture .plus., 64 wide. Choose"),
    (("plain", {}), "'other', found an image projection that makes 4 tokens of a picture .plain., 64 wide, for layers that take 16 tokens"),
    (("8 tokens", {}), "'other', found an image projection that makes 8 tokens .* for layers that take 16 tokens"),
    (("full", {}), "'other', found an image projection that makes a token for each feature of a picture .full-face., 64 wide"),
    (("I2V-Adapter", {}), "'other', found an I2V-Adapter. I2V-Adapters belong into models/i2v_adapter")])
def test_projections_that_the_layers_were_not_trained_with_are_named(projection, says):
    with pytest.raises(ValueError, match=f"Load Content-Adapter expected an IP-Adapter .* in {says}"):
        content.content_adapter(other("whole"), "whole", projection and (other(projection[0], **projection[1]), "other"))


def test_a_projection_of_another_kind_than_the_files_own_is_named():
    with pytest.raises(ValueError, match="in 'g', found an image projection that makes 16 .* for layers that take 4 tokens of a picture .plain., 64 wide"):
        content.content_adapter(other("plain"), "f", (other("plus"), "g"))


def test_it_is_no_i2v_adapter_and_one_with_the_branches_in_it_serves_all():
    model = MODELS["SD1.5"]
    sd = other("whole")
    with pytest.raises(ValueError, match="Load I2V-Adapter expected .* in 'f', found a whole UNet in diffusers' naming. .*Load Motion Module .*Load Content-Adapter"):
        i2v_adapter.look(sd, "f")
    everything = sd | i2v_adapter_files.i2v_adapter(model)
    assert len(i2v_adapter.look(everything, "f")[1]) == 16 and len(motion_module_files.look(everything, "f")[1]) == 20
    assert len(content.look(everything, "f", (adapter_files.adapter(model, "plus"), "g"))[2]) == 16
