"""Dual cross-attention: against the official numbers (golden b1, d5), diffusers' UNet with the same IP-Adapter, and a slow version row by row."""
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import comfy.context_windows
import comfy.ops
import comfy.samplers
import comfy.utils
import pytest
import torch
from comfy.ldm.modules.attention import CrossAttention
from firstframe.attention_patches import cross_frame, dual_cross
from firstframe.attention_patches.dual_cross import patch
from firstframe.attention_patches.unet import CrossLayer
from firstframe.attention_patches.unet_call import check_single
from firstframe.networks.content_adapter import content_adapter, places
from firstframe.nodes.pilife import chooser
from firstframe.tests import adapter_files as files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.motion_reference import call
from safetensors.torch import load_file

WHO = "Apply Content-Adapter"
GOLDEN = Path(__file__).parents[1] / "golden"
F = 3


def tokens(count: int = 1, m: int = 4, seed: int = 3, width: int = tiny.CONTEXT):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, m, width, generator=generator), torch.randn(1, m, width, generator=generator)


@pytest.fixture(scope="module")
def model():
    return tiny.model(**tiny.SMALL)


@pytest.fixture(scope="module")
def adapter(model):
    return content_adapter(files.adapter(model), "f")


def hooks(model) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.model.modules())


# one layer

@torch.no_grad()
@pytest.mark.parametrize("file, heads, text, gates", [
    ("b1_ip_adapter_attention", 8, 9, {"hidden_states": 1, "text_only_scale0": 0}),
    ("d5_lvdm_image_cross_attention", 4, 77, {"plain_sum_512": 1, "gated_tanh_alpha_plus_1_256": "alpha"})])
def test_official_layers(file, heads, text, gates):
    g = load_file(GOLDEN / f"{file}.safetensors")
    x, context = (g["in.hidden_states"], g["in.context_text_then_image"]) if heads == 8 else (g["in.x"], g["in.context"])
    layer = CrossAttention(64, context.shape[-1], heads, 64 // heads, operations=comfy.ops.disable_weight_init)
    layer.load_state_dict({k.removeprefix("w."): v for k, v in g.items() if k.startswith("w.") and "_ip" not in k and "alpha" not in k})
    k, v = (context[:, text:] @ g[f"w.to_{part}_ip.weight"].T for part in "kv")
    place = CrossLayer(("input", 1, 0), layer, torch.nn.Module())
    for name, gate in gates.items():
        scale = g["w.alpha"].tanh() + 1 if gate == "alpha" else gate
        with dual_cross.added({"a": place}, lambda _, q, size, scale=scale: scale * dual_cross.image_attention(q, k, v, place, {})):
            out = layer(x, context[:, :text])
        assert tiny.difference(out, g[f"out.{name}"]) <= 1e-5
    assert not layer.to_q._forward_hooks and not layer.to_out._forward_pre_hooks


# the whole UNet

def diffusers_unet(config: dict, family: str):
    from diffusers import UNet2DConditionModel
    common = dict(cross_attention_dim=config["context_dim"], block_out_channels=tuple(config["model_channels"] * m for m in config["channel_mult"]), norm_num_groups=32)
    if family == "SDXL":
        return UNet2DConditionModel(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=tuple(max(1, depth) for depth in config["transformer_depth"][::2]), use_linear_projection=True,
            attention_head_dim=tuple(max(1, config["model_channels"] * m // 64) for m in config["channel_mult"]),
            addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816, **common)
    return UNet2DConditionModel(attention_head_dim=config["num_heads"], **common)


@torch.no_grad()
@pytest.mark.parametrize("shape, kind", [("SD1.5", "plain"), ("SD1.5", "plus"), ("SDXL", "plain")])
def test_the_whole_unet_is_that_of_diffusers(shape, kind):
    """Also their numbering of the layers and their reading of the file."""
    model = tiny.model(shape)
    config, sd = model.model.model_config.unet_config, files.adapter(model, kind)
    unet = diffusers_unet(config, shape)
    host = model.model.diffusion_model.state_dict()
    found = unet.load_state_dict({theirs: host[ours] for theirs, ours in comfy.utils.unet_to_diffusers(config).items() if ours in host and not theirs.startswith("class_emb")}, strict=False)
    assert not found.unexpected_keys and not found.missing_keys, found
    unet._load_ip_adapter_weights([files.nested(sd)], low_cpu_mem_usage=False)
    adapter = content_adapter(sd, "f")
    generator = torch.Generator().manual_seed(8)
    x, t, context = tiny.latents(2), torch.tensor([500.0]), torch.randn(2, 7, config["context_dim"], generator=generator)
    features = torch.randn(2, adapter.size.embedding, generator=generator)
    features = features if kind == "plain" else features[:, None] * torch.linspace(-1, 1, 5)[:, None]
    y, added = None, {"image_embeds": [features[:, None]]}
    if shape == "SDXL":
        pooled, ids = torch.randn(2, 1280, generator=generator), torch.tensor([[128.0, 128, 0, 0, 128, 128]] * 2)
        y = torch.cat([pooled, unet.add_time_proj(ids.flatten()).reshape(2, -1)], 1)
        added |= dict(text_embeds=pooled, time_ids=ids)
    shown = adapter.projection.model(features), torch.zeros(1, 1, tiny.CONTEXT)
    ours, alone = (call(m, x, t.expand(2), context, y) for m in (patch(model, adapter, shown, WHO), model))
    theirs = unet.eval()(x, t, context, added_cond_kwargs=added).sample
    assert tiny.difference(ours, theirs) <= 1e-4 < 0.02 < tiny.difference(alone, theirs)


@contextmanager
def written_out(model, adapter, image, scale):
    """Meanwhile every attn2 is softmax(q k') v, head by head, plus scale times the same with the tokens `image` [m,D]. scale: {(h, w): [h*w] or a number}."""
    def heads(t, n):
        return t.unflatten(-1, (n, -1)).transpose(0, 1)

    def slow(layer, number):
        def forward(x, context=None, value=None, mask=None, transformer_options={}):  # noqa: B006
            net, n = adapter.patcher.model.get_submodule(number), layer.attention.heads
            at = layer.attention
            q, outs = heads(at.to_q(x[0]), n), []
            for k, v in ((at.to_k(context[0]), at.to_v(context[0])), (net["to_k_ip"](image), net["to_v_ip"](image))):
                outs.append((torch.softmax(q @ heads(k, n).transpose(1, 2) / q.shape[-1] ** 0.5, -1) @ heads(v, n)).transpose(0, 1).flatten(1))
            g = scale(len(outs[0]))
            return at.to_out(outs[0] + g * outs[1])[None]
        return forward

    layers = places(model.model.diffusion_model)
    for number, layer in layers.items():
        layer.attention.forward = slow(layer, number)
    yield
    for layer in layers.values():
        del layer.attention.forward


def at_size(mask, side=16):
    """{number of places: the mask [n,1] there}, of one [H,W]."""
    found = {}
    for s in (side, side // 2):
        found[s * s] = torch.nn.functional.interpolate(mask[None, None], (s, s), mode="bilinear", antialias=True).flatten()[:, None]
    return found


@torch.no_grad()
def row_by_row(model, adapter, shown, x, t, context, positive, frames, scale=lambda frame: lambda n: 1.0):
    """Each row of the batch by itself; positive[i]: of the chunk i."""
    rows = []
    for i in range(len(x)):
        frame, chunk = i % frames, i // (len(x) // len(positive))
        side = shown[0 if positive[chunk] else 1]
        with written_out(model, adapter, side[frame if len(side) > 1 else 0], scale(frame)):
            rows.append(call(model, x[i:i + 1], t[i:i + 1], context[i:i + 1]))
    return torch.cat(rows)


def batch(chunks=2, clips=1):
    n = chunks * clips * F
    generator = torch.Generator().manual_seed(9)
    return tiny.latents(n), torch.full((n,), 500.0), torch.randn(n, 7, tiny.CONTEXT, generator=generator)


MASK = torch.rand(F, 32, 32, generator=torch.Generator().manual_seed(4))
WEIGHTS = [0.5, 1.0, -2.0]


@torch.no_grad()
@pytest.mark.parametrize("pictures", [1, F])
@pytest.mark.parametrize("options, scale", [
    ({}, lambda frame: lambda n: 1.0), ({"weight": 0.3}, lambda frame: lambda n: 0.3), ({"weights": WEIGHTS, "weight": 0.5}, lambda frame: lambda n: 0.5 * WEIGHTS[frame]),
    ({"weights": [0.7]}, lambda frame: lambda n: 0.7), ({"mask": MASK[:1]}, lambda frame: lambda n: at_size(MASK[0])[n]),
    ({"mask": MASK, "weights": WEIGHTS}, lambda frame: lambda n: WEIGHTS[frame] * at_size(MASK[frame])[n])],
    ids=["plain", "weight", "weights", "one weight", "mask", "mask and weights"])
def test_equals_the_slow_version(model, adapter, pictures, options, scale):
    """Two conditionings, two clips of three frames; negative first, as the host has it."""
    shown, (x, t, context) = tokens(pictures), batch(clips=2)
    expected = row_by_row(model, adapter, shown, x, t, context, [False, True], F, scale)
    found = call(patch(model, adapter, shown, WHO, frames=F, **options), x, t, context, cond_or_uncond=[1, 0])
    assert tiny.difference(found, expected) <= 1e-5 < 0.01 < tiny.difference(call(model, x, t, context), expected)


@torch.no_grad()
def test_a_window_shows_the_tokens_weights_and_masks_of_its_frames(model, adapter):
    shown, mask, weights = tokens(6), torch.rand(6, 32, 32, generator=torch.Generator().manual_seed(4)), [1.0, 0.2, 0.9, 0.4, 1.3, 0.1]
    numbers, (x, t, context) = [2, 4, 5], batch(1)
    window = comfy.context_windows.IndexListContextWindow(numbers, dim=0, total_frames=6)
    found = call(patch(model, adapter, shown, WHO, mask=mask, weights=weights), x, t, context, context_window=window, cond_or_uncond=[0])
    short = patch(model, adapter, (shown[0][numbers], shown[1]), WHO, mask=mask[numbers], weights=[weights[i] for i in numbers])
    assert torch.equal(found, call(short, x, t, context, cond_or_uncond=[0]))


@pytest.mark.parametrize("options", [{}, {"mask": MASK, "weights": WEIGHTS}])
def test_gradients_reach_the_text(model, adapter, options):
    """As the null-text inversion needs them: what was made in the host's inference mode is no obstacle."""
    with torch.inference_mode():
        m = patch(model, adapter, tuple(t.clone() for t in tokens(F)), WHO, **{k: v.clone() if k == "mask" else v for k, v in options.items()})
    x, t, context = batch(1)
    context.requires_grad_()
    call(m, x, t, context).sum().backward()
    assert context.grad.abs().max() > 0 and adapter.patcher.model.get_submodule("1")["to_k_ip"].weight.grad is None


# how it rides along

def test_off_is_the_graph_without_the_node(model, adapter):
    z = tiny.latents(F)
    plain = tiny.sample(model, z, steps=2)
    for options in (dict(weight=0.0), dict(start_percent=0.5, end_percent=0.5), dict(end_percent=0.0), dict(weights=[0.0] * F), dict(mask=torch.zeros(1, 128, 128))):
        m = patch(model, adapter, tokens(), WHO, **options)
        assert torch.equal(tiny.sample(m, z, steps=2), plain) and bool(m.additional_models) == ("mask" in options)


def test_the_model_is_left_as_it_was(model, adapter):
    z = tiny.latents(F)
    before, keys = tiny.sample(model, z), set(model.model.state_dict())
    m = patch(model, adapter, tokens(), WHO)
    found = tiny.sample(m, z)
    assert tiny.difference(found, before) > 0.01 and torch.equal(tiny.sample(m, z), found)
    assert torch.equal(tiny.sample(model, z), before) and set(model.model.state_dict()) == keys and hooks(model) == 0
    assert "patches_replace" not in m.model_options["transformer_options"]
    check_single(m, "another node")  # frames are not related


def test_the_range_is_that_of_the_schedule(model, adapter):
    z, sampling = tiny.latents(F), model.get_model_object("model_sampling")
    sigmas = [float(sampling.percent_to_sigma(p)) for p in (0.3, 0.6)]
    early, late, whole = (patch(model, adapter, tokens(), WHO, **r) for r in (dict(end_percent=0.5), dict(start_percent=0.5), {}))
    for sigma, on, off in ((sigmas[0], early, late), (sigmas[1], late, early)):
        assert torch.equal(tiny.sample(on, z, sigma=sigma), tiny.sample(whole, z, sigma=sigma))
        assert torch.equal(tiny.sample(off, z, sigma=sigma), tiny.sample(model, z, sigma=sigma))


def test_conditionings_together_or_one_after_the_other(model, adapter, monkeypatch):
    """With guidance; prompts of two lengths that the host cannot put into one batch give the same as those that it can."""
    m, z = patch(model, adapter, tokens(), WHO), tiny.latents(F)
    together, calls = tiny.sample(m, z), []
    monkeypatch.setattr(comfy.samplers, "can_concat_cond", lambda a, b: a is b)
    watch = model.model.diffusion_model.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    apart = tiny.sample(m, z)
    watch.remove()
    assert calls == [F, F] and tiny.difference(together, apart) <= 1e-5


def test_a_guider_that_counts_from_the_negative_gets_the_picture_in_the_positive(model, adapter):
    """DualCFGGuider's order is negative, middle, positive: with its middle left out by cfg it is the plain guidance."""
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG
    m, z, shown = patch(model, adapter, tokens(), WHO), tiny.latents(F), []
    watch = model.model.diffusion_model.register_forward_pre_hook(lambda module, args: shown.append(len(args[0])))

    def guided(guider):
        return guider.sample(tiny.latents(F, seed=11), z, comfy.samplers.sampler_object("euler"), torch.tensor([1.5, 0.0]), disable_pbar=True, seed=11)

    plain = comfy.samplers.CFGGuider(m)
    plain.set_conds(tiny.conditioning(1), tiny.conditioning(2))
    plain.set_cfg(3.0)
    dual = Guider_DualCFG(m)
    dual.set_conds(tiny.conditioning(1), tiny.conditioning(2), tiny.conditioning(2))
    dual.set_cfg(3.0, 2.0)  # negative and middle are the same, so what their difference counts is nothing
    assert tiny.difference(guided(dual), guided(plain)) <= 1e-4
    watch.remove()
    assert shown[0] == 3 * F


def owner(q, k, v, eo):
    return 0.5 * dual_cross.optimized_attention(q, k, v, eo["n_heads"], attn_precision=eo["attn_precision"])


@pytest.mark.parametrize("address", [("output", 1), ("output", 1, 0)])
def test_another_owner_of_attn2_in_either_order(model, adapter, address):
    """Both act: its half of the text's attention, and ours."""
    z = tiny.latents(F)

    def other(m):
        m = m.clone()
        m.set_model_attn2_replace(owner, *address)
        return m

    one, two = (tiny.sample(m, z) for m in (patch(other(model), adapter, tokens(), WHO), other(patch(model, adapter, tokens(), WHO))))
    assert torch.equal(one, two)
    for alone in (model, other(model), patch(model, adapter, tokens(), WHO)):
        assert tiny.difference(tiny.sample(alone, z), one) > 1e-3


def test_the_slot_of_an_owner_that_is_called_is_the_one_that_the_host_would_call(model, adapter):
    heard = []
    m = model.clone()
    m.set_model_attn2_replace(lambda q, k, v, eo: heard.append("short") or owner(q, k, v, eo), "output", 1)
    m.set_model_attn2_replace(lambda q, k, v, eo: heard.append("long") or owner(q, k, v, eo), "output", 1, 0)
    tiny.sample(patch(m, adapter, tokens(), WHO), tiny.latents(F))
    assert heard == ["long"]


def test_two_adapters_add_up(model, adapter):
    z, other = tiny.latents(F), content_adapter(files.adapter(model, "plus", seed=7), "g")
    a, b = tokens(), tokens(m=16, seed=5)
    one = tiny.sample(patch(patch(model, adapter, a, WHO), other, b, WHO), z)
    two = tiny.sample(patch(patch(model, other, b, WHO), adapter, a, WHO), z)
    assert tiny.difference(one, two) <= 1e-5 < 0.005 < tiny.difference(one, tiny.sample(patch(model, adapter, a, WHO), z))
    same = tiny.sample(patch(patch(model, adapter, a, WHO, weight=0.5), adapter, a, WHO, weight=0.5), z)
    assert tiny.difference(same, tiny.sample(patch(model, adapter, a, WHO), z)) <= 1e-5


def test_a_gate_of_each_layer_scales_it(model, adapter):
    """As DynamiCrafter's tanh(alpha) + 1."""
    class Gated:
        def __getattr__(self, name):
            return getattr(adapter, name)

        def gate(self, net, place):
            return torch.tensor(0.3)

    z = tiny.latents(F)
    assert tiny.difference(tiny.sample(patch(model, Gated(), tokens(), WHO), z), tiny.sample(patch(model, adapter, tokens(), WHO, weight=0.3), z)) <= 1e-6


def test_keys_and_values_are_projected_once_a_call_for_each_side(model, adapter):
    seen = []
    layer = adapter.patcher.model.get_submodule("1")["to_k_ip"]
    watch = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    tiny.sample(patch(model, adapter, tokens(), WHO), tiny.latents(F))
    watch.remove()
    assert seen == [(1, 4, tiny.CONTEXT)] * 2


def test_an_override_of_the_attention_is_told_the_block():
    """Also where another rider's call has options of its own, in which the host then writes."""
    seen, model = [], tiny.model("SDXL")
    m = cross_frame.patch(patch(model, content_adapter(files.adapter(model), "f"), tokens(m=5), WHO), chooser("PCFA", 0.4, 3), "test")

    def override(func, q, k, v, *args, **kwargs):
        if k.shape[1] == 5:
            seen.append((*kwargs["transformer_options"]["block"], kwargs["transformer_options"]["block_index"]))
        return func(q, k, v, *args, **kwargs)

    m.model_options["transformer_options"]["optimized_attention_override"] = override
    tiny.sample(m, tiny.latents(F), cfg=1.0)
    assert sorted(seen) == sorted(layer.address for layer in places(model.model.diffusion_model).values())


def merging(m):
    """Another patch that halves the places which meet the text."""
    m = m.clone()
    m.set_model_attn2_patch(lambda n, k, v, eo: (n[:, ::2], k, v))
    m.set_model_attn2_output_patch(lambda n, eo: n.repeat_interleave(2, 1))
    return m


def splitting(m):
    """Another patch that splits the places of each row into two rows, as HyperTile does in self-attention."""
    m = m.clone()
    m.set_model_attn2_patch(lambda n, k, v, eo: (n.unflatten(1, (2, -1)).flatten(0, 1), k.repeat_interleave(2, 0), v.repeat_interleave(2, 0)))
    m.set_model_attn2_output_patch(lambda n, eo: n.unflatten(0, (-1, 2)).flatten(1, 2))
    return m


def test_places_that_another_patch_splits_or_merges(model, adapter):
    z, options = tiny.latents(F), dict(weights=WEIGHTS)
    assert tiny.difference(tiny.sample(splitting(patch(model, adapter, tokens(F), WHO, **options)), z), tiny.sample(patch(model, adapter, tokens(F), WHO, **options), z)) <= 1e-5
    assert tiny.difference(tiny.sample(merging(patch(model, adapter, tokens(F), WHO)), z), tiny.sample(merging(model), z)) > 0.01
    for other, shape in ((splitting, r"\[12, 128\] instead of \[6, 256\]"), (merging, r"\[6, 128\] instead of \[6, 256\]")):
        with pytest.raises(ValueError, match=f"{WHO}: another patch of this MODEL splits or merges.*{shape}.*Disconnect the mask"):
            tiny.sample(other(patch(model, adapter, tokens(), WHO, mask=MASK)), z)
    assert hooks(model) == 0


def test_the_mask_stays_where_it_lies_under_an_area_prompt(model, adapter):
    """The model sees the upper half alone: with a mask of the lower half it is off there, with one of the upper half wholly on."""
    z, area = tiny.latents(F), tiny.conditioning(1, area=(8, 16, 0, 0), strength=1.0)
    lower, upper = torch.zeros(1, 128, 128), torch.zeros(1, 128, 128)
    lower[:, 72:], upper[:, :72] = 1, 1
    for mask, same, most in ((lower, model, 0), (upper, patch(model, adapter, tokens(), WHO), 1e-5)):
        found = tiny.sample(patch(model, adapter, tokens(), WHO, mask=mask), z, positive=area, cfg=1.0)
        assert tiny.difference(found, tiny.sample(same, z, positive=area, cfg=1.0)) <= most


def test_a_lora_on_the_model_reaches_the_queries(model, adapter):
    """The same as with the LoRA's weights in the model."""
    key, z = "diffusion_model.output_blocks.1.1.transformer_blocks.0.attn2.to_q.weight", tiny.latents(F)
    change = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    other, lora = tiny.model(**tiny.SMALL), model.clone()
    with torch.no_grad():
        dict(other.model.named_parameters())[key] += 0.5 * change
    assert lora.add_patches({key: ("diff", (change,))}, 0.5)
    found = tiny.sample(patch(lora, adapter, tokens(), WHO), z)
    assert tiny.difference(found, tiny.sample(patch(other, adapter, tokens(), WHO), z)) <= 1e-6
    assert tiny.difference(found, tiny.sample(patch(model, adapter, tokens(), WHO), z)) > 1e-3


def test_a_compiled_model_gives_the_same(model, adapter):
    """In the first step the picture is there, in the second not."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from comfy_extras.nodes_torch_compile import skip_torch_compile_dict
    z, m = tiny.latents(F), patch(model, adapter, tokens(), WHO, end_percent=0.5, mask=MASK)
    compiled = m.clone(disable_dynamic=True)
    set_torch_compile_wrapper(model=compiled, backend="eager", options={"guard_filter_fn": skip_torch_compile_dict})  # as TorchCompileModel; "eager": traced, no C++ compiler
    expected = tiny.sample(m, z, steps=2, sigma=3.0)
    assert torch.equal(tiny.sample(compiled, z, steps=2, sigma=3.0), expected)
    assert tiny.difference(expected, tiny.sample(patch(model, adapter, tokens(), WHO, mask=MASK), z, steps=2, sigma=3.0)) > 1e-3
    torch.compiler.reset()


def test_numbers_of_frames_that_differ_are_named_before_the_first_step(model, adapter):
    z = tiny.latents(4)
    for options, shown, said in ((dict(weights=WEIGHTS), tokens(), "3 weights for 4 frames"), (dict(mask=MASK), tokens(), "3 masks for 4 frames"), ({}, tokens(3), "3 pictures for 4 frames"),
                                 (dict(frames=2), tokens(4), "4 pictures for 2 frames"), (dict(frames=3), tokens(), "whole clips of 3")):
        with pytest.raises(ValueError, match=f"{WHO} got .*{said}"):
            tiny.sample(patch(model, adapter, shown, WHO, **options), z)
    tiny.sample(patch(model, adapter, tokens(), WHO), tiny.latents(1))  # one picture is a clip of one frame


@pytest.mark.parametrize("shape, overrides, said", [
    ("SD1.5", {}, "16 cross-attentions of 32 channels"), ("SD1.5", {**tiny.SMALL, "model_channels": 64}, "7 cross-attentions of 64 channels"),
    ("SD1.5", {**tiny.SMALL, "context_dim": 768}, r"embeddings 768 wide \(SD1.5\)"), ("SDXL", {}, "cross-attentions of 64 channels")])
def test_another_base_is_named_with_both(adapter, shape, overrides, said):
    with pytest.raises(ValueError, match=f"{WHO}: 'f' does not fit this SD.* model: it is for 7 cross-attentions of 32 .*{said}.*Load Content-Adapter"):
        patch(tiny.model(shape, **overrides), replace(adapter), tokens(), WHO)
