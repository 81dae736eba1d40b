"""Both adapters of a clip beside what users put next to them: a ControlNet with a hint for each frame, LoRA hooks, FreeU, and the IPAdapter pack, which owns the slots of attn2."""
import folder_paths
import pytest
import torch
from comfy_extras.nodes_freelunch import FreeU
from comfy_extras.nodes_hooks import ConditioningSetProperties, CreateHookLora
from firstframe.attention_patches import dual_cross, first_frame
from firstframe.networks.content_adapter import content_adapter, places
from firstframe.networks.i2v_adapter import i2v_adapter
from firstframe.tests import adapter_files, i2v_adapter_files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.adapter_files import tokens
from safetensors.torch import save_file

import nodes

F = 4
Z, PICTURE, HINTS = tiny.latents(F), tiny.latents(1, seed=21), torch.rand(F, 128, 128, 3, generator=torch.Generator().manual_seed(2))
MODELS = {"SD1.5": tiny.model(), "SDXL": tiny.model("SDXL")}


def first(m):
    return first_frame.patch(m, i2v_adapter(i2v_adapter_files.i2v_adapter(m), "f"), PICTURE, "test", needs_motion=False)


def picture(m):
    return dual_cross.patch(m, content_adapter(adapter_files.adapter(m), "f"), tokens(), "test")


ADAPTERS = pytest.mark.parametrize("adapter", [first, picture, lambda m: picture(first(m))], ids=["first frame", "picture", "both"])


def run(m, **options):
    out = tiny.sample(m, Z, **options)
    if any("clean_frame" in key for key in m.wrappers.get("apply_model", {})):
        assert torch.equal(out[0], PICTURE[0])
    return out


def controlled(hints) -> dict:
    control, _ = tiny.control_net()
    return dict(zip(("positive", "negative"), nodes.ControlNetApplyAdvanced().apply_controlnet(tiny.conditioning(1), tiny.conditioning(2), control, hints, 0.8, 0.0, 1.0)))


@ADAPTERS
def test_a_controlnet_steers_each_frame_by_its_own_hint(adapter):
    m = adapter(MODELS["SD1.5"])
    out = run(m, **controlled(HINTS))
    for alone in (run(m), run(MODELS["SD1.5"], **controlled(HINTS)), run(m, **controlled(HINTS[:1]))):
        assert tiny.difference(out[1:], alone[1:]) > 3e-4
    for i in range(1, F):  # as if the other frames had its hint too
        assert tiny.difference(out[i], run(m, **controlled(torch.cat([HINTS[:1], HINTS[i:i + 1].expand(F - 1, -1, -1, -1)])))[i]) <= 1e-5


def test_a_controlnet_sees_the_clean_first_frame():
    """As the UNet does, also in an area; the other frames are as without the adapter."""
    model, seen = MODELS["SD1.5"], []
    clean = model.model.process_latent_in(PICTURE)[0]
    control, _ = tiny.control_net()
    positive, negative = nodes.ControlNetApplyAdvanced().apply_controlnet(tiny.conditioning(1), tiny.conditioning(2, area=(8, 8, 8, 4), strength=1.0), control, HINTS, 0.8, 0.0, 1.0)
    control.control_model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["x"].unflatten(0, (-1, F))), with_kwargs=True)
    for m in (model, first(model)):
        tiny.sample(m, Z, positive=positive, negative=negative)
    plain, whole = ({x.shape[-1]: x for x in calls} for calls in (seen[:2], seen[2:]))
    for side, part in ((16, clean), (8, clean[:, 8:16, 4:12])):
        assert torch.equal(plain[side][:, 1:], whole[side][:, 1:])
        assert all(tiny.difference(x, part) <= 1e-6 for x in whole[side][:, 0]) and all(tiny.difference(x, part) > 0.1 for x in plain[side][:, 0])


def hooked(strength: float, folder, monkeypatch) -> tuple:
    """(positive conditioning with a LoRA hook on self- and cross-attention, a model on which the same LoRA is everywhere)."""
    model, generator, lora = MODELS["SD1.5"], torch.Generator().manual_seed(0), {}
    for layer in ("output_blocks.5.1.transformer_blocks.0.attn1.to_k", "output_blocks.5.1.transformer_blocks.0.attn2.to_q", "input_blocks.1.1.transformer_blocks.0.attn1.to_v"):
        for part in ("up", "down"):
            lora[f"diffusion_model.{layer}.lora_{part}.weight"] = torch.randn(32, 32, generator=generator) / 8
    save_file(lora, folder / "lora.safetensors")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(folder)], {".safetensors"}))
    hooks, = CreateHookLora().create_hook("lora.safetensors", strength, 0.0)
    everywhere, _ = nodes.LoraLoader().load_lora(model, None, "lora.safetensors", strength, 0.0)
    return ConditioningSetProperties().set_properties(tiny.conditioning(1), 1.0, "default", hooks=hooks)[0], everywhere


@ADAPTERS
def test_a_lora_hook_acts_where_its_conditioning_is(adapter, tmp_path, monkeypatch):
    positive, everywhere = hooked(0.7, tmp_path, monkeypatch)
    model, m = MODELS["SD1.5"], adapter(MODELS["SD1.5"])
    assert tiny.difference(run(m, positive=positive, cfg=1.0), run(adapter(everywhere), cfg=1.0)) <= 1e-5
    guided = run(m, positive=positive)  # 3 positive - 2 negative: the hook is in one of them
    expected = 3 * run(adapter(everywhere), cfg=1.0) - 2 * run(m, cfg=0.0)
    assert tiny.difference(guided[1:], expected[1:]) <= 1e-4
    for alone in (run(m), run(model, positive=positive), run(adapter(everywhere))):
        assert tiny.difference(guided[1:], alone[1:]) > 1e-3
    assert torch.equal(run(m), run(adapter(tiny.model())))  # and leaves nothing behind


@ADAPTERS
def test_freeu_in_either_order(adapter):
    model = MODELS["SDXL"]  # the other tiny one lacks blocks of 2 and 4 times the base width, on which it acts

    def freed(m):
        out = FreeU.execute(m, 1.3, 1.4, 0.9, 0.2)
        return out.result[0] if hasattr(out, "result") else out[0]

    one, two = run(adapter(freed(model))), run(freed(adapter(model)))
    assert torch.equal(one, two)
    for alone in (run(adapter(model)), run(freed(model))):
        assert tiny.difference(one[1:], alone[1:]) > 1e-3


class Slot:
    """An owner of an attn2 as the IPAdapter pack makes it: the text's attention, and a weighted one to image tokens, each conditioning's by cond_or_uncond."""

    def __init__(self, shown, k, v, weight):
        self.shown, self.k, self.v, self.weight = shown, k, v, weight

    def __call__(self, q, k, v, options):
        rows, chunks = len(q) // len(options["cond_or_uncond"]), options["cond_or_uncond"]
        image = [torch.cat([project(self.shown[i]).expand(rows, -1, -1) for i in chunks]) for project in (self.k, self.v)]
        text = dual_cross.optimized_attention(q, k, v, options["n_heads"])
        return text + self.weight * dual_cross.optimized_attention(q, *image, options["n_heads"])


def pack(m, form: str, weight=0.8, seed=0):
    """Every cross-attention has its owner, at the address of the block (as for SD1.5) or of the layer in it (SDXL)."""
    m, adapter = m.clone(), content_adapter(adapter_files.adapter(m, seed=seed), "f")
    for place, layer in places(m.model.diffusion_model).items():
        stage, number, index = layer.address
        if form == "layer" or index == 0:
            m.set_model_attn2_replace(Slot(tokens(), *adapter.projections(adapter.patcher.model, place), weight), stage, number, index if form == "layer" else None)
    return m


FORMS = pytest.mark.parametrize("base, form", [("SD1.5", "block"), ("SD1.5", "layer"), ("SDXL", "layer")])


@FORMS
def test_what_the_pack_does_is_the_content_adapter(base, form):
    """The stand-in is the real thing: same weights, tokens and strength."""
    model = MODELS[base]
    ours = dual_cross.patch(model, content_adapter(adapter_files.adapter(model), "f"), tokens(), "test", weight=0.8)
    assert tiny.difference(run(pack(model, form)), run(ours)) <= 1e-5 < 1e-3 < tiny.difference(run(ours), run(model))


@FORMS
@ADAPTERS
def test_the_ipadapter_pack_in_either_order(adapter, base, form):
    model = MODELS[base]
    one, two = run(adapter(pack(model, form, seed=9))), run(pack(adapter(model), form, seed=9))
    assert torch.equal(one, two)
    for alone in (run(adapter(model)), run(pack(model, form, seed=9))):
        assert tiny.difference(one[1:], alone[1:]) > 1e-3


def test_the_pack_and_the_content_adapter_add_up():
    model = MODELS["SD1.5"]
    whole = dual_cross.patch(model, content_adapter(adapter_files.adapter(model), "f"), tokens(), "test")
    half = dual_cross.patch(pack(model, "block", weight=0.5), content_adapter(adapter_files.adapter(model), "f"), tokens(), "test", weight=0.5)
    assert tiny.difference(run(half), run(whole)) <= 1e-5
