"""Cross-frame attention in real UNets against loops over frames and sets, and against the official implementation."""
import types
from contextlib import contextmanager

import comfy.context_windows as windows
import pytest
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, attention_basic
from firstframe.attention_patches import cross_frame
from firstframe.attention_patches.pcfa import attended, draws
from firstframe.nodes.pilife import chooser
from firstframe.tests import tiny_models as tiny
from safetensors.torch import load_file


def patched(m, mode="PCFA", p=0.4, seed=3, **kw):
    return cross_frame.patch(m, chooser(mode, p, seed), "test", **kw)


@contextmanager
def obvious(m, plan, chunks):
    """Every self-attention as Eq. 15 reads: for each frame, project the tokens of its set, attend, softmax. K and V are projected per pair."""
    def forward(self, x, context=None, value=None, mask=None, transformer_options=None):
        out, frames = torch.empty_like(x), len(plan)
        for chunk in range(x.shape[0] // frames):
            for t in range(frames):
                i = chunk * frames + t
                seen = torch.cat([x[chunk * frames + s] for s in plan[t]])
                q, k, v = (w.unflatten(-1, (self.heads, -1)).transpose(0, 1) for w in (self.to_q(x[i]), self.to_k(seen), self.to_v(seen)))
                weights = torch.softmax(q @ k.transpose(1, 2) * self.dim_head**-0.5, -1)
                out[i] = self.to_out((weights @ v).transpose(0, 1).flatten(1))
        return out

    layers = [b.attn1 for b in m.model.modules() if isinstance(b, BasicTransformerBlock)]
    assert layers
    try:
        for layer in layers:
            layer.forward = types.MethodType(forward, layer)
        yield
    finally:
        for layer in layers:
            del layer.forward


@pytest.mark.parametrize("shape", tiny.SHAPES)
@pytest.mark.parametrize("mode", ["first", "first+previous", "PCFA"])
def test_equals_the_obvious_loop(shape, mode):
    m, z = tiny.model(shape), tiny.latents(5)
    with obvious(m, attended(tuple(range(5)), mode, 0.4, draws(3, 0, 5)), 2):
        expected = tiny.sample(m, z)
    got = tiny.sample(patched(m, mode), z)
    assert tiny.difference(got, expected) < 1e-5
    assert tiny.difference(tiny.sample(m, z), expected) > 1e-3  # the unpatched model is something else


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_equals_the_obvious_loop_in_half_precision(dtype, tolerance):
    exact, half, z = tiny.model(), tiny.model(dtype=dtype), tiny.latents(4)
    with obvious(exact, attended(tuple(range(4)), "PCFA", 0.4, draws(3, 0, 4)), 2):
        expected = tiny.sample(exact, z, cfg=1.0)
    assert tiny.difference(tiny.sample(patched(half), z, cfg=1.0), expected) < tolerance


def test_official_first_frame_attention():
    """golden g1: the same layer as Text2Video-Zero's processor."""
    from pathlib import Path
    g = load_file(Path(__file__).parents[1] / "golden" / "g1_t2vzero_cross_frame_attention.safetensors")
    x, heads = g["in.hidden_states"], 8
    q, k, v = (x @ g[f"w_self.to_{n}.weight"].T for n in "qkv")
    plan = [tuple(torch.tensor(t) for t in group) for group in cross_frame.groups(attended(tuple(range(5)), "first"))]
    out = cross_frame.cross_frame_attention(q, k, v, {}, 2, plan, lambda q, k, v, eo: attention_basic(q, k, v, heads))
    out = out @ g["w_self.to_out.0.weight"].T + g["w_self.to_out.0.bias"]
    assert tiny.difference(out, g["out.self_attention"]) < 1e-5


def test_sets_are_grouped_by_size_and_never_padded():
    plan = ((0,), (0,), (0, 1), (0, 1, 2), (0, 3))
    assert cross_frame.groups(plan) == [([0, 1], [[0], [0]]), ([2, 4], [[0, 1], [0, 3]]), ([3], [[0, 1, 2]])]


def test_keys_are_projected_once_per_frame():
    m, z, rows = tiny.model(), tiny.latents(6), []
    handles = [b.attn1.to_k.register_forward_hook(lambda mod, a, out: rows.append(a[0].shape[:2])) for b in m.model.modules() if isinstance(b, BasicTransformerBlock)]
    tiny.sample(m, z)
    plain, rows[:] = list(rows), []
    tiny.sample(patched(m), z)
    for h in handles:
        h.remove()
    assert rows == plain and len(plain) == 16


@pytest.mark.parametrize("off", [dict(start_percent=0.5, end_percent=0.5), dict(end_percent=0.0), dict(stages=()), dict(start_percent=0.9, end_percent=0.95)])
def test_off_is_bit_identical(off):
    m, z = tiny.model(), tiny.latents(3)
    assert torch.equal(tiny.sample(patched(m, **off), z, steps=2), tiny.sample(m, z, steps=2))


def test_the_given_model_is_left_alone():
    m, z = tiny.model(), tiny.latents(3)
    before = tiny.sample(m, z)
    tiny.sample(patched(m), z)
    assert torch.equal(tiny.sample(m, z), before)


def test_the_range_limits_it_to_its_steps():
    m, z = tiny.model(), tiny.latents(3)
    sampling = m.get_model_object("model_sampling")
    edge = next(p / 1000 for p in range(1000) if sampling.percent_to_sigma(p / 1000) < 1.2)  # between the steps at 1.5 and 0.75
    first, last = tiny.sample(patched(m, end_percent=edge), z, steps=2), tiny.sample(patched(m, start_percent=edge), z, steps=2)
    whole, none = tiny.sample(patched(m), z, steps=2), tiny.sample(m, z, steps=2)
    assert all(not torch.equal(a, b) for i, a in enumerate((first, last, whole, none)) for b in (first, last, whole, none)[:i])
    assert torch.equal(tiny.sample(patched(m, end_percent=edge), z, sigma=0.75), tiny.sample(m, z, sigma=0.75))
    assert torch.equal(tiny.sample(patched(m, start_percent=edge), z, sigma=0.75), tiny.sample(patched(m), z, sigma=0.75))


@pytest.mark.parametrize("stage, blocks", [("input", 6), ("middle", 1), ("output", 9)])
def test_stages(stage, blocks):
    m = tiny.model()
    assert [s for s, _ in cross_frame.transformer_blocks(m.model.diffusion_model, [stage])] == [stage] * blocks
    z = tiny.latents(3)
    assert not torch.equal(tiny.sample(patched(m, stages=[stage]), z), tiny.sample(m, z))


def test_splitting_the_conditionings_changes_no_more_than_in_the_plain_model(monkeypatch):
    """A convolution over 4 latents may round otherwise than one over 8: then the plain model differs as well."""
    m, z, calls = tiny.model(), tiny.latents(4), []
    runs = [m, patched(m)]
    together = [tiny.sample(r, z, steps=2) for r in runs]
    m.model.diffusion_model.register_forward_pre_hook(lambda mod, a: calls.append(a[0].shape[0]))
    monkeypatch.setattr(m.model, "memory_required", lambda *a, **k: 1e30)  # nothing fits together
    split = [tiny.sample(r, z, steps=2) for r in runs]
    assert calls == [4] * 8
    plain, ours = (tiny.difference(a, b) for a, b in zip(split, together))
    assert ours == 0 if plain == 0 else ours < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_whatever_shares_the_batch(dtype):
    q, k, v = torch.randn(3, 2 * 5, 64, 32, generator=torch.Generator().manual_seed(1)).to(dtype)
    plan = [tuple(torch.tensor(t) for t in group) for group in cross_frame.groups(attended(tuple(range(5)), "PCFA", 0.4, draws(1, 1, 5)))]
    eo = {"n_heads": 4, "attn_precision": None, "sigmas": torch.ones(5)}
    together = cross_frame.cross_frame_attention(q, k, v, eo, 2, plan, cross_frame.host_attention)
    split = [cross_frame.cross_frame_attention(q[i:i + 5], k[i:i + 5], v[i:i + 5], eo, 1, plan, cross_frame.host_attention) for i in (0, 5)]
    assert torch.equal(together, torch.cat(split))


def test_several_clips_do_not_see_each_other():
    m, z = tiny.model(), tiny.latents(6)
    both = tiny.sample(patched(m, frames=3), z)
    other = torch.cat([z[:3], tiny.latents(3, seed=99)])
    assert tiny.difference(tiny.sample(patched(m, frames=3), other)[:3], both[:3]) < 1e-6
    assert not torch.allclose(tiny.sample(patched(m), z), both)


def test_masked_and_area_conditionings():
    """Other crops and other numbers of chunks: every call still knows its frames."""
    m, z = tiny.model(), tiny.latents(4)
    mask = torch.zeros(1, 16, 16)
    mask[:, :, :8] = 1
    positive = [*tiny.conditioning(1, mask=mask), *tiny.conditioning(3, area=(8, 8, 4, 4)), *tiny.conditioning(4, tokens=14)]
    out = tiny.sample(patched(m, "first"), z, positive=positive)
    assert torch.isfinite(out).all()
    plan = attended(tuple(range(4)), "first")
    with obvious(m, plan, None):
        assert tiny.difference(out, tiny.sample(m, z, positive=positive)) < 1e-5


@pytest.mark.parametrize("causal", [True, False])
def test_host_context_windows(causal):
    m, z, seen = tiny.model(), tiny.latents(10), []
    m = m.clone()
    m.model_options["context_handler"] = windows.IndexListContextHandler(
        context_schedule=windows.get_matching_context_schedule(windows.ContextSchedules.STATIC_STANDARD),
        fuse_method=windows.get_matching_fuse_method(windows.ContextFuseMethods.FLAT),
        context_length=4, context_overlap=1, dim=0, causal_window_fix=causal)
    windows.create_prepare_sampling_wrapper(m)

    def choose(batch, step):
        seen.append((batch.numbers, batch.total, batch.clips))
        return attended(batch.numbers, "PCFA", 0.4, draws(3, step, batch.total))

    out = tiny.sample(cross_frame.patch(m, choose, "test"), z)
    assert torch.isfinite(out).all() and {total for _, total, _ in seen} == {10} and {clips for *_, clips in seen} == {2}
    assert [n[-4:] for n, *_ in seen] == [(0, 1, 2, 3), (3, 4, 5, 6), (6, 7, 8, 9)]
    assert [len(n) for n, *_ in seen] == ([4, 5, 5] if causal else [4, 4, 4])


def test_bad_input_is_refused_before_sampling():
    m, calls = tiny.model(), []
    m.model.diffusion_model.register_forward_pre_hook(lambda mod, a: calls.append(1))
    with pytest.raises(ValueError, match="needs at least 2, got 1"):
        tiny.sample(patched(m), tiny.latents(1))
    with pytest.raises(ValueError, match="5 latents, which are not whole clips of 3"):
        tiny.sample(patched(m, frames=3), tiny.latents(5))
    z = tiny.latents(3)
    z[1, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="in 1 of 3 entries"):
        tiny.sample(patched(m), z)
    with pytest.raises(ValueError, match="already have cross-frame attention from test"):
        patched(patched(m))
    assert calls == []


def test_a_model_of_another_kind_is_refused():
    import comfy.supported_models
    config = dict(tiny.SD15, in_channels=8, use_temporal_resblock=True, use_temporal_attention=True, adm_in_channels=768, num_classes="sequential",
                  video_kernel_size=[3, 1, 1], extra_ff_mix_layer=True, use_spatial_context=True, merge_strategy="learned_with_images", merge_factor=0.0)
    svd = comfy.supported_models.SVD_img2vid(config)
    svd.set_inference_dtype(torch.float32, None)
    m = comfy.model_patcher.ModelPatcher(svd.get_model({}, "", device=tiny.CPU), tiny.CPU, tiny.CPU)
    with pytest.raises(ValueError, match="needs an image UNet .* got the video model SVD_img2vid"):
        patched(m)
