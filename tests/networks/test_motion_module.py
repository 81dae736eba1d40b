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
SMALL = tiny.model(num_res_blocks=[1, 1], channel_mult=[1, 1], transformer_depth=[1, 0], transformer_depth_output=[1, 1, 0, 0])


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


def test_the_module_inside_a_whole_unet_is_taken():
    """As in animatediff_v15_v1_ipplus.pth: diffusers' names, with image tokens' layers in it."""
    model = tiny.model()
    sd = files.module(model, "v1")
    place = "down_blocks.0.attentions.0.transformer_blocks.0"
    whole = {**sd, "conv_in.weight": torch.zeros(32, 4, 3, 3), "time_embedding.linear_1.weight": torch.zeros(128, 32), f"{place}.attn1.to_q.weight": torch.zeros(32, 32),
             f"{place}.attn2.to_k_ip.weight": torch.zeros(32, 64)}
    found, alone = motion_module(whole, "f"), motion_module(sd, "f")
    assert found.version == "v1" and found.over_frames and found.layout == alone.layout
    assert all(torch.equal(a, b) for a, b in zip(found.patcher.model.state_dict().values(), alone.patcher.model.state_dict().values()))


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
    if kind in ("down_blocks.4.motion_modules.0", "up_blocks.0.motion_modules.3"):
        return sd | {k.replace("down_blocks.0.motion_modules.0", kind): v for k, v in sd.items()}
    if kind == "place missing":
        return {k: v for k, v in sd.items() if not k.startswith("up_blocks.1.motion_modules.2")}
    if kind == "the middle alone":
        return {k.replace("down_blocks.0.motion_modules.0", "mid_block.motion_modules.0"): v for k, v in sd.items() if "down_blocks.0.motion_modules.0" in k}
    if kind in ("transformer_blocks.1.", "attention_blocks.2.", "attention_blocks.50000."):
        old = kind.split(".")[0] + ".0."
        return sd | {k.replace(old, kind): v for k, v in sd.items() if old in k and k.startswith("down_blocks.0.motion_modules.0")}
    if kind == "one attention":
        return {k: v for k, v in sd.items() if "attention_blocks.1." not in k and "norms.1." not in k}
    if isinstance(kind, tuple):  # the shape of a norm
        return {**sd, NORM: torch.zeros(kind)}
    if isinstance(kind, int):  # wide everywhere
        return {k: torch.zeros(1).expand(*(kind * n // 32 for n in v.shape)) for k, v in sd.items() if not k.endswith(".pe")}
    return {"lora": files.lora(tiny.model()), "other": {"a": torch.zeros(2)}, "PIA": {**sd, "conv_in.weight": torch.zeros(2)}, "empty": {},
            "HotShot": {"down_blocks.0.temporal_attentions.0.pos_encoder.positional_encoding": torch.zeros(2)}}[kind]


NORM = "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"


@pytest.mark.parametrize("kind,says", [
    ("down_blocks.4.motion_modules.0", "the key 'down_blocks.4"), ("up_blocks.0.motion_modules.3", "the key 'up_blocks.0.motion_modules.3"),
    ("place missing", "lacks up_blocks.1.motion_modules.2"), ("the middle alone", "lacks down_blocks.0.motion_modules.0"),
    ("transformer_blocks.1.", "has the unknown .*transformer_blocks.1.*and 19 more"), ("attention_blocks.2.", "has the unknown .*attention_blocks.2.*and 4 more"),
    ("attention_blocks.50000.", "has the unknown .*attention_blocks.50000.*and 4 more"), ("one attention", "lacks .*attention_blocks.1"),
    ((200000,), "norm.weight of shape \\[200000\\]"), ((), "norm.weight of shape \\[\\]"), ((32, 32), "norm.weight of shape \\[32, 32\\]"), ((0,), "norm.weight of shape \\[0\\]"),
    *((c, f"norm.weight of shape \\[{c}\\]. Expected .* multiple of 32") for c in (8, 10, 40, 60, 200000)),
    ("truncated", "lacks .*to_q.weight"), ("norm missing", "no down_blocks.0.motion_modules.0.norm.weight"), ("shape", "of shape"), ("more", "to_z"), ("odd place", "front"),
    ("lora", "models/animatediff_motion_lora"), ("other", "of no kind that this pack knows"), ("PIA", "PIA"), ("HotShot", "HotShot"), ("empty", "0 tensors")])
def test_other_files_are_refused_by_name(kind, says):
    with pytest.raises(ValueError, match=f"f.ckpt.*{says}"):
        motion_module(broken(files.module(tiny.model()), kind), "f.ckpt")


UNFIT = {
    "NaN": lambda v: v.index_fill(0, torch.tensor([1]), torch.nan), "NaN in half precision": lambda v: UNFIT["NaN"](v).half(), "NaN in bfloat16": lambda v: UNFIT["NaN"](v).bfloat16(),
    "NaN in 8 bits": lambda v: UNFIT["NaN"](v).to(torch.float8_e4m3fn), "infinity": lambda v: v - torch.inf,
    "infinity in 8 bits": lambda v: torch.full(v.shape, torch.inf).to(torch.float8_e5m2),
    "int8": lambda v: v.char(), "int64": lambda v: v.long(), "bool": lambda v: v > 0, "complex64": lambda v: v.to(torch.complex64),
    "no number": lambda v: v.to("meta"), "no number in a sparse tensor": lambda v: v.to_sparse(), "no number for most": lambda v: torch.zeros(1).expand(v.shape),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_tensors_that_are_no_weights_are_refused_by_name(kind):
    sd, says = files.module(SMALL, "v3"), kind.split(" in ")[0].removesuffix(" for most").replace("NaN", "NaN or").replace("infinity", "or infinity")
    key = "up_blocks.1.motion_modules.1.temporal_transformer.transformer_blocks.0.ff.net.0.proj.weight"
    with pytest.raises(ValueError, match=f"in 'f.ckpt', found .*{says}.* in {key.replace('.temporal_transformer', '')}"):
        motion_module({**sd, key: UNFIT[kind](sd[key])}, "f.ckpt")
    lora = files.lora(SMALL)
    for half in ("up", "down"):
        key = f"up_blocks.1.motion_modules.1.temporal_transformer.transformer_blocks.0.attention_blocks.1.processor.to_q_lora.{half}.weight"
        with pytest.raises(ValueError, match=f"Load Motion LoRA .* in 'l.ckpt', found .*{says}.* in {key.replace('.temporal_transformer', '')}"):
            apply_lora(motion_module(sd, "f"), {**lora, key: UNFIT[kind](lora[key])}, "l.ckpt", 1.0)


def test_weights_of_every_precision_are_taken():
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        sd = {k: v.to(dtype) for k, v in files.module(SMALL).items()}
        loaded = motion_module(sd, "f").patcher.model.state_dict()
        for key, value in sd.items():
            assert key.endswith(".pe") or torch.equal(loaded[key.replace(".temporal_transformer", "")], value.float())


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
