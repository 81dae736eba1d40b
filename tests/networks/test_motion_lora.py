"""Motion LoRAs: what they add, under every name, and what is refused."""
import pytest
import torch
from firstframe.networks.motion_lora import apply_lora
from firstframe.networks.motion_module_files import motion_module
from firstframe.tests import motion_files as files
from firstframe.tests import tiny_models as tiny

SMALL = tiny.model(num_res_blocks=[1, 1], channel_mult=[1, 1], transformer_depth=[1, 0], transformer_depth_output=[1, 1, 0, 0])


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


BASE = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0"
Q = f"{BASE}.processor.to_q_lora"


@pytest.mark.parametrize("change,says", [
    *(({f"{BASE}.to_q.{key}": torch.ones(32, 32)}, f"is of kind {kind} .*reads up/down pairs") for key, kind in (
        ("lokr_w1", "LoKr"), ("hada_w1_a", "LoHa"), ("oft_blocks", "OFT"), ("a1.weight", "GLoRA"), ("dora_scale", "DoRA"), ("lora_mid.weight", "LoCon"),
        ("diff", "diff"), ("diff_b", "diff"), ("w_norm", "diff"), ("set_weight", "set_weight"), ("reshape_weight", "reshape"))),
    ({f"{Q}.up.weight": torch.ones(128)}, "\\[128\\], which are no pair"), ({f"{Q}.down.weight": torch.ones(())}, "down.weight of shape \\[\\] with .*no pair"),
    ({f"{Q}.up.weight": torch.ones(32, 5)}, "no pair"), ({f"{Q}.up.weight": torch.ones(32, 4, 1, 1)}, "no pair"),
    ({f"{Q}.up.weight": torch.ones(32, 0), f"{Q}.down.weight": torch.ones(0, 32)}, "no numbers"), ({f"{Q}.up.weight": None}, "down.weight without .*up.weight"),
    ({f"{Q}.down.weight": None}, "up.weight without .*down.weight"), ({f"{BASE}.processor.to_q.alpha": torch.ones(3)}, "alpha of shape \\[3\\]"),
    ({f"{BASE}.processor.to_q.alpha": torch.tensor(torch.nan)}, "no finite number"), ({f"{BASE}.processor.to_q.alpha": torch.tensor(1j)}, "complex64, which is no finite number"),
])
def test_loras_of_another_kind_are_named(change, says):
    lora = {k: v for k, v in {**files.lora(SMALL), **change}.items() if v is not None}
    with pytest.raises(ValueError, match=f"'l.ckpt'.*{says}"):
        apply_lora(motion_module(files.module(SMALL), "f"), lora, "l.ckpt", 1.0)
    with pytest.raises(ValueError, match="'l.ckpt'"):  # alone in the file
        apply_lora(motion_module(files.module(SMALL), "f"), {k: v for k, v in change.items() if v is not None}, "l.ckpt", 1.0)


@pytest.mark.parametrize("up,down", [
    ("_lora.up.weight", "_lora.down.weight"), (".lora_up.weight", ".lora_down.weight"), (".lora.up.weight", ".lora.down.weight"), (".lora_B", ".lora_A"),
    (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"), (".lora_B.weight", ".lora_A.weight"), (".lora_B.default.weight", ".lora_A.default.weight")])
def test_pairs_under_every_name_that_the_host_knows(up, down):
    motion, lora = motion_module(files.module(SMALL), "f"), files.lora(SMALL)
    named = {k.replace("_lora.up.weight", up).replace("_lora.down.weight", down): v.bfloat16() for k, v in lora.items()}
    named |= {f"{k.removesuffix(up)}.alpha": torch.tensor(2) for k in named if k.endswith(up)}
    before, after = weights(motion), weights(apply_lora(motion, named, "l", 1.0))
    key = f"{BASE}.to_q.weight".replace(".temporal_transformer", "")
    want = before[key] + 2 / 4 * lora[f"{Q}.up.weight"].bfloat16().float() @ lora[f"{Q}.down.weight"].bfloat16().float()
    torch.testing.assert_close(after[key], want, rtol=1e-5, atol=1e-6)


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
