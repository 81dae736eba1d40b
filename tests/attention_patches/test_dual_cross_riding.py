"""Dual cross-attention beside what else lies on a MODEL: off, range, batches of conditionings, other owners of attn2, areas, LoRA, and what does not fit."""
from dataclasses import replace

import comfy.samplers
import pytest
import torch
from firstframe.attention_patches import cross_frame, dual_cross
from firstframe.attention_patches.dual_cross import patch
from firstframe.attention_patches.unet_call import check_single
from firstframe.networks.content_adapter import content_adapter, places
from firstframe.nodes.pilife import chooser
from firstframe.tests import adapter_files as files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.adapter_files import tokens

WHO = "Apply Content-Adapter"
F = 3
WEIGHTS = [0.5, 1.0, -2.0]
MASK = torch.rand(F, 32, 32, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def model():
    return tiny.model(**tiny.SMALL)


@pytest.fixture(scope="module")
def adapter(model):
    return content_adapter(files.adapter(model), "f")


def hooks(model) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.model.modules())


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
