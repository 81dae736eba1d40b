"""Motion Attention Map: what takes part in what it reads, what does not, and what it refuses."""
import logging

import comfy.model_management
import comfy.samplers
import pytest
import torch
import torch.nn.functional as F
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from firstframe.attention_patches.attention_map import attention_share, capture, to_map
from firstframe.attention_patches.frames import conditional_rows
from firstframe.nodes.attention_map import timesteps
from firstframe.prompts.tokens import MotionTokens
from firstframe.samplers.ddim import sigmas_of
from firstframe.samplers.noised_calls import call_at
from firstframe.tests import tiny_models as tiny
from firstframe.tests.attention_map_reference import HALVED, TOKENS, Z, listening, node

import nodes


@pytest.fixture(scope="module")
def m():
    return tiny.model()


def test_no_motion_words(m, caplog):
    calls = []
    handle = m.model.diffusion_model.register_forward_pre_hook(lambda mod, a: calls.append(1))
    with caplog.at_level(logging.WARNING):
        a = node(m, tokens=MotionTokens((), 7, ()))
    handle.remove()
    assert torch.equal(a, torch.ones(1, 16, 16)) and calls == []
    assert [r.getMessage() for r in caplog.records if "no motion words" in r.getMessage()] and len(caplog.records) == 1


def test_same_seed_same_bits_and_the_model_is_left_alone(m):
    z = tiny.latents(2)
    before, options, first = tiny.sample(m, z), str(m.model_options), node(m)
    assert torch.equal(node(m), first) and not torch.allclose(node(m, seed=8), first, atol=1e-3)
    assert torch.equal(tiny.sample(m, z), before) and str(m.model_options) == options and not m.wrappers
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in m.model.modules())


def test_only_the_positive_prompt_counts_batched_or_split(m, monkeypatch):
    negative, found = tiny.conditioning(2), []

    def run(cfg):
        clone, captured = capture(m, TOKENS, (16, 16), "test")
        tiny.sample(clone, Z, cfg=cfg, negative=negative)
        found.append(captured.mean())
        return captured

    alone, together = run(1.0), run(3.0)
    monkeypatch.setattr(m.model, "memory_required", lambda *a, **k: 1e30)  # nothing fits together
    split = run(3.0)
    assert alone.layers == together.layers == split.layers == 10
    assert all(tiny.difference(a, found[0]) < 1e-5 for a in found[1:])
    assert conditional_rows({"cond_or_uncond": [1, 0, 0]}, 6) == [2, 3, 4, 5]
    assert conditional_rows({}, 2) == [0, 1] and conditional_rows({"cond_or_uncond": [1]}, 2) == []


def test_a_prompt_that_shares_the_batch_with_a_longer_one(m):
    """The host repeats the shorter prompt; the share of its words stays what it was."""
    clone, captured = capture(m, TOKENS, (16, 16), "test")
    tiny.sample(clone, Z, negative=tiny.conditioning(2, tokens=14))
    alone, expected = capture(m, TOKENS, (16, 16), "test")
    tiny.sample(alone, Z, cfg=1.0)
    assert tiny.difference(captured.mean(), expected.mean()) < 1e-4


@pytest.mark.parametrize("ours_first", [True, False])
def test_another_patch_of_the_cross_attention(m, ours_first):
    """Before ours its keys are the ones that are read; after ours it still runs."""
    def other(m):
        m = m.clone()
        m.set_model_attn2_patch(lambda q, k, v, eo: (q, torch.cat([k * 1.5, k[:, :2]], 1), torch.cat([v, v[:, :2]], 1)))
        return m

    if ours_first:
        clone, captured = capture(m, TOKENS, (16, 16), "test")
        assert torch.equal(tiny.sample(other(clone), Z), tiny.sample(other(m), Z)) and captured.layers == 10
    else:
        both = other(m)
        assert tiny.difference(node(both), node(m)) > 1e-3
        patched = node(both)
        wider = tiny.conditioning(1)
        wider[0][0] = torch.cat([wider[0][0] * 1.5, wider[0][0][:, :2]], 1)
        layers = HALVED["SD1.5"][1] + HALVED["SD1.5"][2]
        with listening(m, layers) as heard:
            call_at(other(m), Z, tiny.conditioning(1), sigmas_of(m.get_model_object("model_sampling"), (700, 300)), 7)
        assert {k.shape[1] for parts in heard.values() for k in parts["k"]} == {9}
        shares = [attention_share(q, k, torch.tensor(TOKENS.positions), parts["heads"]) for parts in heard.values() for q, k in zip(parts["q"], parts["k"])]
        maps = [F.interpolate(a.view(1, 1, int(a.shape[1] ** 0.5), -1), size=(16, 16), mode="bilinear")[0, 0] for a in shares]
        assert tiny.difference(patched[0], to_map(torch.stack(maps).mean(0))) < 1e-4


def test_the_slot_of_another_pack_is_neither_taken_nor_hidden(m):
    def other(m):
        from firstframe.attention_patches.cross_frame import host_attention
        m = m.clone()
        m.set_model_attn2_replace(lambda q, k, v, eo: 0.5 * host_attention(q, k, v, eo), "output", 5)
        return m

    clone, captured = capture(other(m), TOKENS, (16, 16), "test")
    assert torch.equal(tiny.sample(clone, Z), tiny.sample(other(m), Z)) and captured.layers == 10


def test_lora_is_seen(m):
    key = "diffusion_model.output_blocks.5.1.transformer_blocks.0.attn2.to_k.weight"
    weight = dict(m.model.named_parameters())[key]
    before, lora = node(m), m.clone()
    assert lora.add_patches({key: ("diff", (torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)),))}, 1.0)
    assert tiny.difference(node(lora), before) > 1e-3
    assert torch.equal(node(m), before)


def test_a_controlnet_takes_part_and_is_not_read_itself(m):
    positive, _ = nodes.ControlNetApplyAdvanced().apply_controlnet(tiny.conditioning(1), tiny.conditioning(2), *tiny.control_net(), 0.8, 0.0, 1.0)
    assert tiny.difference(node(m, positive=positive), node(m)) > 1e-3
    clone, captured = capture(m, TOKENS, (16, 16), "test")
    tiny.sample(clone, Z, positive=positive, cfg=1.0)
    assert captured.layers == 10


def test_the_passes_of_guidance_nodes_are_not_overheard(m):
    pag = PerturbedAttentionGuidance.execute(m, 3.0).result[0]
    assert torch.equal(node(pag), node(m))


def test_a_prompt_in_timestep_ranges(m):
    """As an optimised prompt per step comes: every call sees the one entry that is active."""
    one, two = tiny.conditioning(1), tiny.conditioning(3)
    both = [[one[0][0], {**one[0][1], "start_percent": 0.0, "end_percent": 0.5}],
            [two[0][0], {**two[0][1], "start_percent": 0.5, "end_percent": 1.0}]]
    for part, when in ((one, dict(start_timestep=800, end_timestep=700)), (two, dict(start_timestep=300, end_timestep=200))):
        assert torch.equal(node(m, positive=both, **when), node(m, positive=part, **when))


def test_a_mask_on_the_prompt_changes_nothing_and_an_area_is_refused(m):
    mask = torch.zeros(1, 16, 16)
    mask[:, :, :8] = 1
    assert torch.equal(node(m, positive=tiny.conditioning(1, mask=mask)), node(m))
    with pytest.raises(ValueError, match=r"whole picture, got a part of \[8, 8\] of its \[16, 16\] cells"):
        node(m, positive=tiny.conditioning(1, area=(8, 8, 4, 4)))


def test_one_call_per_timestep_at_the_levels_asked_for(m):
    seen = []
    handle = m.model.diffusion_model.register_forward_pre_hook(lambda mod, a: seen.append((len(a[0]), round(float(a[1])))))
    node(m, start_timestep=900, end_timestep=300, count=4)
    handle.remove()
    assert seen == [(1, 900), (1, 700), (1, 500), (1, 300)]
    assert timesteps(761, 401, 1) == [761] and timesteps(500, 500, 4) == [500] and timesteps(100, 300, 3) == [100, 200, 300]


def test_an_interrupt_leaves_nothing_behind(m):
    before, calls = node(m), []

    def stop(mod, a):
        calls.append(1)
        comfy.model_management.interrupt_current_processing()

    handle = m.model.diffusion_model.register_forward_pre_hook(stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        node(m, count=8)
    handle.remove()
    assert calls == [1] and torch.equal(node(m), before)


def test_bad_input_is_refused(m):
    with pytest.raises(ValueError, match=r"one picture .* got \[2, 4, 16, 16\]"):
        node(m, tiny.latents(2))
    with pytest.raises(ValueError, match="NaN"):
        node(m, torch.full((1, 4, 16, 16), float("nan")))
    with pytest.raises(ValueError, match=r"got latents \[1, 16, 16, 16\], this model works on \[frames, 4,"):
        node(m, torch.zeros(1, 16, 16, 16))
    with pytest.raises(ValueError, match="counted in a prompt of 77 tokens, 'positive' has 7"):
        node(m, tokens=MotionTokens((3,), 77, ("moving",)))
    with pytest.raises(ValueError, match="as a share of the latent's width: 1/8"):
        node(m, stages="middle")
    with pytest.raises(ValueError, match="limited to other timesteps"):
        node(m, positive=tiny.conditioning(1, start_percent=0.9, end_percent=1.0))


def test_a_model_that_overflows():
    m = tiny.model()
    with torch.no_grad():
        m.model.diffusion_model.input_blocks[4][1].transformer_blocks[0].attn2.to_k.weight[:] = float("inf")
    with pytest.raises(ValueError, match="cross-attention holds NaN"):
        node(m)


def test_a_model_of_another_kind_is_refused():
    import comfy.supported_models
    config = dict(tiny.SD15, in_channels=8, use_temporal_resblock=True, use_temporal_attention=True, adm_in_channels=768, num_classes="sequential",
                  video_kernel_size=[3, 1, 1], extra_ff_mix_layer=True, use_spatial_context=True, merge_strategy="learned_with_images", merge_factor=0.0)
    svd = comfy.supported_models.SVD_img2vid(config)
    svd.set_inference_dtype(torch.float32, None)
    video = comfy.model_patcher.ModelPatcher(svd.get_model({}, "", device=tiny.CPU), tiny.CPU, tiny.CPU)
    with pytest.raises(ValueError, match="Motion Attention Map needs an image UNet .* got the video model SVD_img2vid"):
        node(video)
