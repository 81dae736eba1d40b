"""One temporal transformer against the official numbers (golden c1), an obvious slow version, and the reading of files."""
from pathlib import Path

import comfy.ops
import pytest
import torch
from firstframe.networks.motion_lora import apply_lora
from firstframe.networks.motion_module import MotionModel, Size, TemporalTransformer, positions
from firstframe.networks.motion_module_files import layout_of, motion_module
from firstframe.tests import motion_files as files
from firstframe.tests import tiny_models as tiny
from safetensors.torch import load_file

GOLDEN = Path(__file__).parents[1] / "golden"


def frames_first(x):
    return x.transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize("case,frames", [("sample_6f", 6), ("sample_16f", 16)])
def test_official_temporal_transformer(case, frames):
    g = load_file(GOLDEN / "c1_animatediff_motion_module.safetensors")
    net = TemporalTransformer(Size(64), operations=comfy.ops.disable_weight_init)
    net.load_state_dict({k.removeprefix("w.temporal_transformer."): v for k, v in g.items() if k.startswith("w.") and not k.endswith(".pe")})
    x = frames_first(g[f"in.{case}"])
    with torch.no_grad():
        assert tiny.difference(x + net(x, range(frames), {}), frames_first(g[f"out.{case}"])) <= 1e-5
    stored = g["w.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"]
    torch.testing.assert_close(positions(range(32), 64, stored), stored[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape,version,places", [("SD1.5", "v1", 20), ("SD1.5", "v2", 21), ("SD1.5", "v3", 20), ("SDXL", "SDXL", 15)])
def test_versions_are_told_by_keys_and_shapes(shape, version, places):
    sd = files.module(tiny.model(shape), version)
    assert len(sd) == 28 * places  # as in the published files
    read = motion_module({**sd, "animatediff_config": {"some": "object"}}, "f")
    assert (read.version, read.length, read.over_frames, len(read.layout)) == (version, files.LENGTHS[version], version == "v1", places)
    for other in ({f"module.{k}": v for k, v in sd.items()}, files.as_diffusers(sd)):
        again = motion_module(other, "f")
        assert (again.version, again.length, again.layout) == (read.version, read.length, read.layout)
        for (k, a), (n, b) in zip(again.patcher.model.state_dict().items(), read.patcher.model.state_dict().items()):
            assert k == n and torch.equal(a, b)
    bare = motion_module(files.module(tiny.model(shape), version, stored_positions=False), "f")
    assert bare.version == ("v3" if version == "v1" else version)


def broken(sd, kind):
    some = next(k for k in sd if k.endswith("to_q.weight"))
    if kind == "truncated":
        return {k: v for k, v in sd.items() if k != some}
    if kind == "norm missing":
        return {k: v for k, v in sd.items() if not k.endswith("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight")}
    if kind == "shape":
        return {**sd, some: sd[some][:, 1:]}
    if kind == "more":
        return {**sd, some.replace("to_q", "to_z"): sd[some]}
    if kind == "odd place":
        return {**sd, "front.motion_modules.0.norm.weight": torch.zeros(3)}
    return {"lora": files.lora(tiny.model()), "other": {"a": torch.zeros(2)}, "PIA": {**sd, "conv_in.weight": torch.zeros(2)}, "empty": {},
            "HotShot": {"down_blocks.0.temporal_attentions.0.pos_encoder.positional_encoding": torch.zeros(2)}}[kind]


@pytest.mark.parametrize("kind,says", [
    ("truncated", "lacks .*to_q.weight"), ("norm missing", "no down_blocks.0.motion_modules.0.norm.weight"), ("shape", "of shape"), ("more", "to_z"), ("odd place", "front"),
    ("lora", "models/animatediff_motion_lora"), ("other", "none in a 'motion_modules'"), ("PIA", "PIA"), ("HotShot", "HotShot"), ("empty", "0 tensors")])
def test_other_files_are_refused_by_name(kind, says):
    with pytest.raises(ValueError, match=f"f.ckpt.*{says}"):
        motion_module(broken(files.module(tiny.model()), kind), "f.ckpt")


def weights(motion) -> dict:
    """As the host patches them."""
    motion.patcher.patch_model()
    out = {k: v.clone() for k, v in motion.patcher.model.state_dict().items()}
    motion.patcher.unpatch_model()
    return out


@pytest.mark.parametrize("wrap", [lambda sd: sd, files.as_diffusers, lambda sd: {f"unet.{k}": v for k, v in files.as_diffusers(sd).items()}])
def test_motion_lora_adds_up_times_down(wrap):
    model = tiny.model()
    motion, lora = motion_module(files.module(model, "v2"), "f"), files.lora(model)
    before, after = weights(motion), weights(apply_lora(motion, wrap(lora), "l", 0.5))
    changed = 0
    for key, old in before.items():
        name = key.replace(".transformer_blocks", ".temporal_transformer.transformer_blocks").replace(".to_", ".processor.to_").removesuffix(".weight").removesuffix(".0")
        down, up = lora.get(f"{name}_lora.down.weight"), lora.get(f"{name}_lora.up.weight")
        want = old if down is None else old + 0.5 * up @ down
        changed += down is not None
        torch.testing.assert_close(after[key], want, rtol=1e-5, atol=1e-6)
    assert changed == 21 * 8
    assert all(torch.equal(a, b) for a, b in zip(before.values(), weights(motion).values()))  # the module itself is as it was


def test_motion_loras_add_up_and_skip_a_middle_block_that_is_not_there():
    model = tiny.model()
    motion, lora = motion_module(files.module(model, "v3"), "f"), files.lora(model, "v2")
    twice = weights(apply_lora(apply_lora(motion, lora, "l", 1.0), lora, "l", -1.0))
    for key, value in weights(motion).items():
        torch.testing.assert_close(twice[key], value, rtol=0, atol=1e-5)
    assert apply_lora(motion, lora, "l", 0.0) is motion


@pytest.mark.parametrize("make,says", [
    (lambda: files.module(tiny.model()), "expected a LoRA"),
    (lambda: {"lora_unet_x.lora_up.weight": torch.zeros(2, 2)}, "models/loras"),
    (lambda: {k.replace("down_blocks", "blocks").replace("up_blocks", "blocks"): v for k, v in files.lora(tiny.model()).items()}, "names no layer"),
    (lambda: files.lora(tiny.model(model_channels=64)), "has \\[32, 32\\]")])
def test_other_loras_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        apply_lora(motion_module(files.module(tiny.model()), "f"), make(), "l", 1.0)


SD15 = {f"{side}_blocks.{i}": (c, n) for side, levels, n in (("down", (320, 640, 1280, 1280), 2), ("up", (1280, 1280, 640, 320), 3)) for i, c in enumerate(levels)}
SDXL = {f"{side}_blocks.{i}": (c, n) for side, levels, n in (("down", (320, 640, 1280), 2), ("up", (1280, 640, 320), 3)) for i, c in enumerate(levels)}


@pytest.mark.parametrize("levels,tensors,millions", [(SD15, 560, 417), (SD15 | {"mid_block": (1280, 1)}, 588, 453), (SDXL, 420, 237)])
def test_published_sizes(levels, tensors, millions):
    """Modules of the published widths have the published numbers of tensors and parameters."""
    layout = {f"{level}.motion_modules.{j}": Size(c) for level, (c, n) in levels.items() for j in range(n)}
    weights = MotionModel(layout, device="meta", operations=comfy.ops.manual_cast).state_dict()
    positions_of_both = 2 * len(layout)
    assert len(weights) + positions_of_both == tensors and round(sum(v.numel() for v in weights.values()) / 1e6) == millions
    assert layout_of(weights, "f") == layout


def test_the_domain_adapter_loads_with_the_stock_lora_loader(tmp_path):
    from nodes import LoraLoaderModelOnly
    model = tiny.model()
    sd = files.domain_adapter(model)
    assert len(sd) == 256 and sd["down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora.up.weight"].shape == (32, 4)  # as in the published file
    torch.save({"state_dict": sd}, tmp_path / "v3_sd15_adapter.ckpt")
    import folder_paths
    folder_paths.add_model_folder_path("loras", str(tmp_path))
    m, = LoraLoaderModelOnly().load_lora_model_only(model, "v3_sd15_adapter.ckpt", 0.5)
    assert len(m.patches) == 128
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    before = model.model.state_dict()[key].clone()
    m.patch_model()
    up, down = (sd[f"down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.{side}.weight"] for side in ("up", "down"))
    torch.testing.assert_close(model.model.state_dict()[key], before + 0.5 * up @ down, rtol=1e-5, atol=1e-6)
    m.unpatch_model()
    assert torch.equal(model.model.state_dict()[key], before)
