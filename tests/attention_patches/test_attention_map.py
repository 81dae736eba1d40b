"""The motion attention map in real tiny UNets against a softmax written out, and what may not change it."""
import logging
import math
from contextlib import contextmanager

import comfy.model_management
import comfy.samplers
import pytest
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from firstframe.attention_patches.attention_map import attention_share, capture, level, smooth, to_map
from firstframe.attention_patches.frames import conditional_rows
from firstframe.nodes.attention_map import MotionAttentionMap, timesteps
from firstframe.prompts.tokens import MotionTokens
from firstframe.samplers.ddim import sigmas_of
from firstframe.samplers.noised_calls import call_at
from firstframe.tests import tiny_models as tiny

import nodes

SETTINGS = dict(start_timestep=700, end_timestep=300, count=2, seed=7, smoothing=0.0, gamma=1.0, threshold=0.0)
TOKENS = MotionTokens((2, 4), 7, ("moving", "right"))
Z = tiny.latents(1)


@pytest.fixture(scope="module")
def m():
    return tiny.model()


def node(m, z=Z, positive=None, tokens=TOKENS, **settings) -> torch.Tensor:
    return MotionAttentionMap.execute(m, {"samples": z}, positive or tiny.conditioning(1), tokens, **{**SETTINGS, **settings}).result[0]


def slow_share(q, k, columns, heads):
    """The definition, one head, token and picture at a time, in double precision."""
    b, n, c = q.shape
    d, out = c // heads, torch.zeros(b, n, dtype=torch.float64)
    for i in range(b):
        for h in range(heads):
            for j in range(n):
                weights = torch.softmax(k[i, :, h * d:(h + 1) * d].double() @ q[i, j, h * d:(h + 1) * d].double() / math.sqrt(d), 0)
                out[i, j] += weights[list(columns)].sum() / heads
    return out


@contextmanager
def listening(m, addresses):
    """{block address: [(q, k)]} as the layers' own projections give them, by hooks on the modules of the model itself."""
    heard, handles, unet = {}, [], m.model.diffusion_model
    for address in addresses:
        stage, number = address
        block = {"input": unet.input_blocks, "middle": [unet.middle_block], "output": unet.output_blocks}[stage][number]
        for i, transformer in enumerate(layer for layer in block.modules() if isinstance(layer, BasicTransformerBlock)):
            parts = heard.setdefault((stage, number, i), {"q": [], "k": [], "heads": transformer.attn2.heads})
            for name, layer in (("q", transformer.attn2.to_q), ("k", transformer.attn2.to_k)):
                handles.append(layer.register_forward_hook(lambda mod, a, out, to=parts[name]: to.append(out.float())))
    yield heard
    for h in handles:
        h.remove()


def slow_map(m, addresses, columns, positive=None, z=Z, steps=(700, 300), seed=7):
    """A written out: apply_model on z + sigma noise; full softmax, columns, mean over heads, resize, mean over layers and timesteps, min-max."""
    positive = positive or tiny.conditioning(1)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad(), listening(m, addresses) as heard:
        for sigma in sigmas_of(m.get_model_object("model_sampling"), steps):
            x = m.get_model_object("latent_format").process_in(z) + sigma * noise
            y = {"y": m.model.encode_adm(**positive[0][1], width=8 * z.shape[-1], height=8 * z.shape[-2], device=tiny.CPU)} if m.model.adm_channels else {}
            m.model.apply_model(x, sigma[None], c_crossattn=positive[0][0], **y)
    maps = []
    for parts in heard.values():
        assert len(parts["q"]) == len(parts["k"]) == len(steps)
        for q, k in zip(parts["q"], parts["k"]):
            q, k = (t.unflatten(-1, (parts["heads"], -1)).transpose(1, 2) for t in (q, k))
            weights = torch.softmax(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5, -1)
            side = int(q.shape[2] ** 0.5)
            a = weights[..., list(columns)].sum(-1).mean(1).view(1, 1, side, -1)
            maps.append(F.interpolate(a, size=z.shape[-2:], mode="bilinear")[0, 0])
    a = torch.stack(maps).mean(0)
    return ((a - a.min()) / (a.max() - a.min()))[None]


# which layers work at 1, 1/2, 1/4 and 1/8 of the latent
HALVED = {
    "SD1.5": {0: [("input", 1), ("input", 2), ("output", 9), ("output", 10), ("output", 11)],
              1: [("input", 4), ("input", 5), ("output", 6), ("output", 7), ("output", 8)],
              2: [("input", 7), ("input", 8), ("output", 3), ("output", 4), ("output", 5)], 3: [("middle", 0)]},
    "SDXL": {1: [("input", 4), ("input", 5), ("output", 3), ("output", 4), ("output", 5)],
             2: [("input", 7), ("input", 8), ("middle", 0), ("output", 0), ("output", 1), ("output", 2)]},
}
HALVED["demo"] = HALVED["SD1.5"]
NAMES = ("1/1", "1/2", "1/4", "1/8")


@pytest.mark.parametrize("shape", HALVED)
def test_equals_a_softmax_written_out(shape):
    m = tiny.model(shape)
    expected = slow_map(m, HALVED[shape][1] + HALVED[shape][2], TOKENS.positions)
    assert tiny.difference(node(m), expected) < 1e-4
    assert tiny.difference(slow_map(m, HALVED[shape][1] + HALVED[shape][2], (3,)), expected) > 0.05  # other words look elsewhere


@pytest.mark.parametrize("shape, i", [(shape, i) for shape in ("SD1.5", "SDXL") for i in HALVED[shape]])
def test_each_resolution(shape, i):
    m = tiny.model(shape)
    got = node(m, resolutions=NAMES[i])
    assert tiny.difference(got, slow_map(m, HALVED[shape][i], TOKENS.positions)) < 1e-4


@pytest.mark.parametrize("stage", ["input", "output"])
def test_each_stage(m, stage):
    got = node(m, stages=stage)
    assert tiny.difference(got, slow_map(m, [a for i in (1, 2) for a in HALVED["SD1.5"][i] if a[0] == stage], TOKENS.positions)) < 1e-4


def test_odd_sides():
    z = torch.randn(1, 4, 10, 13, generator=torch.Generator().manual_seed(2))
    a = node(tiny.model(), z)
    assert a.shape == (1, 10, 13) and a.min() == 0 and a.max() == 1
    assert [level((13, 10), s) for s in ((13, 10), (7, 5), (4, 3), (2, 2))] == [0, 1, 2, 3]


@pytest.mark.parametrize("heads, limit", [(1, 2**24), (4, 2**24), (4, 1), (4, 2 * 2 * 9 * 5)])
def test_share_equals_the_definition(heads, limit):
    q, k = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(1)) * 3, torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3)) * 3
    for columns in ((0,), (1, 4), (0, 1, 2, 3, 4)):
        torch.testing.assert_close(attention_share(q, k, torch.tensor(columns), heads, limit).double(), slow_share(q, k, columns, heads), atol=1e-6, rtol=1e-5)


def test_share_does_not_overflow():
    q = k = torch.full((1, 2, 8), 200.0, dtype=torch.float16)  # logits far beyond what half precision holds
    assert torch.allclose(attention_share(q, k, torch.tensor([1]), 2), torch.full((1, 2), 0.5))


def test_smoothing_equals_the_definition():
    a, sigma = torch.rand(7, 5, generator=torch.Generator().manual_seed(1)), 0.8
    expected = torch.zeros(7, 5)
    for y in range(7):
        for x in range(5):
            near = [(math.exp(-((y - i) ** 2 + (x - j) ** 2) / (2 * sigma**2)), float(a[i, j])) for i in range(7) for j in range(5)]
            expected[y, x] = sum(w * value for w, value in near) / sum(w for w, _ in near)
    torch.testing.assert_close(smooth(a, sigma), expected)
    assert smooth(a, 0) is a
    torch.testing.assert_close(smooth(a, 0.1), a)
    torch.testing.assert_close(smooth(a, 1000.0), a.mean().expand(7, 5), atol=1e-4, rtol=0)


def test_gamma_and_threshold():
    a = torch.tensor([[0.25, 0.375], [0.5, 0.75]])
    plain = torch.tensor([[0, 0.25], [0.5, 1]])
    torch.testing.assert_close(to_map(a), plain)
    torch.testing.assert_close(to_map(a, gamma=2), plain**2)
    assert to_map(a, threshold=0.5).tolist() == [[0, 0], [1, 1]] and to_map(a, threshold=1).tolist() == [[0, 0], [0, 1]]
    assert to_map(a, gamma=0.5, threshold=0.5).tolist() == [[0, 1], [1, 1]]


def test_a_map_without_spread_takes_the_whole_picture(m, caplog):
    with caplog.at_level(logging.WARNING):
        a = node(m, tokens=MotionTokens(tuple(range(7)), 7, ("everything",)))
    assert torch.equal(a, torch.ones(1, 16, 16)) and "same everywhere" in caplog.text


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


def test_listening_does_not_change_what_the_model_computes(m):
    clone, _ = capture(m, TOKENS, (16, 16), "test")
    assert torch.equal(tiny.sample(clone, Z), tiny.sample(m, Z))


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


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.15), (torch.float16, 0.03)])
def test_half_precision(m, dtype, tolerance):
    half = node(tiny.model(dtype=dtype))
    assert half.dtype == torch.float32 and half.min() == 0 and half.max() == 1
    assert (half - node(m)).abs().max() < tolerance


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
