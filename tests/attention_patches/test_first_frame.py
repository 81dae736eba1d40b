"""First-frame attention and the clean first frame: against the official layer, against a UNet with the branch written out, and beside other patches."""
from pathlib import Path

import comfy.context_windows
import comfy.sample
import comfy.samplers
import pytest
import torch
import torch.nn.functional as F
from comfy_extras.nodes_hypertile import HyperTile
from firstframe.attention_patches import unet_call
from firstframe.attention_patches.first_frame import branch, patch
from firstframe.attention_patches.inserted_layers import insert
from firstframe.attention_patches.unet import named_blocks
from firstframe.networks.i2v_adapter import i2v_adapter
from firstframe.networks.motion_module_files import motion_module
from firstframe.nodes.pilife import PCFAPatch
from firstframe.tests import i2v_adapter_files as files
from firstframe.tests import motion_files
from firstframe.tests import tiny_models as tiny
from safetensors.torch import load_file

WHO = "Apply I2V-Adapter"
PICTURE = tiny.latents(1, seed=21)


def heads_attention(q, k, v, heads):
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def test_official_layer():
    """golden a1: two videos of five frames; the first frame of the other video does not leak."""
    g = load_file(Path(__file__).parents[1] / "golden" / "a1_i2v_mixed_attention.safetensors")
    x, w = g["in.hidden_states"], {k.removeprefix("w."): v for k, v in g.items() if k.startswith("w.")}

    def project(name):
        return lambda t: F.linear(t, w[f"{name}.weight"], w.get(f"{name}.bias"))
    own = project("to_out.0")(heads_attention(*(project(f"to_{n}")(x) for n in "qkv"), 8))
    first = x.view(2, 5, 30, 64)[:, :1]
    added = branch(x, project("to_q_ff"), project("to_k")(first), project("to_v")(first), project("to_out_ff"), lambda q, k, v: heads_attention(q, k, v, 8), 2)
    assert tiny.difference(own + added, g["out.hidden_states"]) <= 1e-5


def test_tokens_that_another_pack_has_split_off_meet_their_own_part_of_the_first_frame():
    """Clips c, frames f, parts r, row by row."""
    c, f, r, n, d = 2, 3, 4, 5, 8
    x, k1, v1, weights = (torch.randn(size, generator=torch.Generator().manual_seed(i)) for i, size in enumerate(((c * f * r, n, d), (c, r, n, d), (c, r, n, d), (2, d, d))))
    q, out = (lambda t, w=w: t @ w for w in weights)
    found = branch(x, q, k1, v1, out, lambda q, k, v: heads_attention(q, k, v, 2), c).view(c, f, r, n, d)
    for i, j, part in torch.cartesian_prod(*map(torch.arange, (c, f, r))).tolist():
        row = x.view(c, f, r, n, d)[i, j, part][None]
        torch.testing.assert_close(found[i, j, part][None], out(heads_attention(q(row), k1[i, part][None], v1[i, part][None], 2)))


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture(scope="module")
def adapter(model):
    return i2v_adapter(files.i2v_adapter(model), "a")


def applied(model, adapter, z=PICTURE, **options):
    return patch(model, adapter, z, WHO, needs_motion=False, **options)


class Written:
    """The self-attention with the branch, frame by frame, in the layer's place; weights by the published names."""

    def __init__(self, attn1, sd, place, frames, strength=1.0):
        self.attn1, self.frames, self.strength = attn1, frames, strength
        self.q, self.out, self.bias = (sd[f"{place}.attn1.{part}"] for part in ("to_q_ff.weight", "to_out_ff.weight", "to_out_ff.bias"))

    def __call__(self, x, context=None, value=None, mask=None, transformer_options=None):
        a, out = self.attn1, []
        for i, frame in enumerate(x):
            first = x[i - i % self.frames][None]
            frame = frame[None]
            own = a.to_out(heads_attention(a.to_q(frame), a.to_k(frame), a.to_v(frame), a.heads))
            added = F.linear(heads_attention(F.linear(frame, self.q), a.to_k(first), a.to_v(first), a.heads), self.out, self.bias)
            out.append(own + self.strength * added)
        return torch.cat(out)


@torch.no_grad()
def slow_denoised(model, sd, z, sigma, frames, strength=1.0, seed=1):
    """The model's x0 of one conditioning, with the first frame clean; apply_model written out."""
    base, unet = model.model, model.model.diffusion_model
    picture = base.process_latent_in(PICTURE)
    xc = base.model_sampling.calculate_input(torch.tensor([sigma]), z).clone()
    xc[::frames] = picture
    kept = {block: block.attn1.forward for block in named_blocks(unet).values()}
    for place, block in named_blocks(unet).items():
        block.attn1.forward = Written(block.attn1, sd, place, frames, strength)
    try:
        t = base.model_sampling.timestep(torch.tensor([sigma])).expand(len(z)).float()
        prompt, options = tiny.conditioning(seed)[0]
        y = base.encode_adm(**options, width=128, height=128, device=tiny.CPU).expand(len(z), -1) if base.adm_channels else None
        out = unet(xc, t, context=prompt.expand(len(z), -1, -1), y=y)
    finally:
        for block, forward in kept.items():
            del block.attn1.forward
            assert block.attn1.forward == forward
    x0 = base.model_sampling.calculate_denoised(torch.tensor([sigma]), out, z)
    x0[::frames] = picture
    return x0


@pytest.mark.parametrize("shape, layers, strength, overrides", [("SD1.5", 16, 1.0, {}), ("SD1.5", 16, 0.4, {}), ("SDXL", 28, 1.0, {}), ("SDXL", 70, 1.0, tiny.DEEP)])
def test_the_whole_unet_with_the_branch_written_out(shape, layers, strength, overrides):
    model = tiny.model(shape, **overrides)
    adapter = i2v_adapter(files.i2v_adapter(model), "a")
    assert len(adapter.layout) == layers
    z, sigma = tiny.latents(4), 1.5
    x = sigma * tiny.latents(4, seed=11) + model.model.process_latent_in(z)
    expected = model.model.process_latent_out(slow_denoised(model, files.i2v_adapter(model), x, sigma, 4, strength))
    found = tiny.sample(applied(model, adapter, strength=strength), z, cfg=1.0, sigma=sigma)
    assert tiny.difference(found, expected) <= 1e-4
    assert tiny.difference(tiny.sample(model, z, cfg=1.0, sigma=sigma)[1:], expected[1:]) > 0.05  # it does something


def test_off_is_the_graph_without_the_node(model, adapter):
    z = tiny.latents(3)
    plain = tiny.sample(model, z, steps=2)
    for options in (dict(strength=0.0), dict(start_percent=0.5, end_percent=0.5)):
        assert torch.equal(tiny.sample(applied(model, adapter, **options), z, steps=2), plain)
    applied_too = tiny.sample(applied(model, adapter), z, steps=2)
    assert not torch.equal(applied_too, plain) and torch.equal(tiny.sample(model, z, steps=2), plain)
    assert sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.model.modules()) == 0


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "lcm", "ddim", "heun"])
def test_every_sampler_ends_with_exactly_the_given_frame(model, adapter, sampler):
    seen, z = [], tiny.latents(3)
    sigmas = torch.tensor([8.0, 3.0, 1.0, 0.0])
    out = comfy.sample.sample_custom(applied(model, adapter), tiny.latents(3, seed=4), 5.0, comfy.samplers.sampler_object(sampler), sigmas, tiny.conditioning(1), tiny.conditioning(2), z,
                                     callback=lambda step, x0, x, total: seen.append(x0[0]), disable_pbar=True, seed=3)
    assert torch.equal(out[0], PICTURE[0]) and not torch.equal(out[1], PICTURE[0])
    assert all(torch.allclose(x0, model.model.process_latent_in(PICTURE)[0], atol=1e-5) for x0 in seen) and len(seen) == 3


def test_conditionings_and_clips_do_not_mix(model, adapter):
    """Both halves together or one after the other; two clips of their own first frames or each alone."""
    z = tiny.latents(4)
    m = applied(model, adapter)
    together = tiny.sample(m, z, cfg=3.0)
    apart = 3 * tiny.sample(m, z, cfg=1.0) - 2 * tiny.sample(m, z, cfg=1.0, positive=tiny.conditioning(2))
    assert tiny.difference(together[1:], apart[1:]) <= 1e-4
    firsts = torch.cat([PICTURE, tiny.latents(1, seed=22)])
    both = tiny.sample(applied(model, adapter, firsts, frames=2), z, cfg=1.0)
    x = tiny.latents(4, seed=11)
    for i in range(2):
        clip = slice(2 * i, 2 * i + 2)
        alone = comfy.sample.sample_custom(applied(model, adapter, firsts[i:i + 1]), x[clip], 1.0, comfy.samplers.sampler_object("euler"), torch.tensor([1.5, 0.0]), tiny.conditioning(1),
                                           tiny.conditioning(2), z[clip], disable_pbar=True, seed=11)
        assert tiny.difference(alone, both[clip]) <= 1e-4


def windowed(m, length: int, causal: bool = False):
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode
    return ContextWindowsManualNode.execute(m, context_length=length, context_overlap=2, context_schedule="standard_static", context_stride=1, closed_loop=False,
                                            fuse_method="pyramid", dim=0, freenoise=False, causal_window_fix=causal).result[0]


@pytest.mark.parametrize("causal", [False, True])
def test_every_context_window_sees_the_clean_first_frame(model, adapter, causal):
    """A window without frame 1 is the clip of frame 1 and its frames; with the host's causal_window_fix, its default, the frame before the window lies between them."""
    z, sigma = tiny.latents(9), 1.5
    noisy = sigma * tiny.latents(9, seed=11) + model.model.process_latent_in(z)
    windows = [list(range(4)), list(range(2, 6)), list(range(4, 8)), list(range(5, 9))]
    m = applied(model, adapter)
    calls = []
    handle = model.model.diffusion_model.input_blocks[0][0].register_forward_pre_hook(lambda module, args: calls.append(args[0].clone()))
    out = tiny.sample(windowed(m, 4, causal), z, cfg=1.0, sigma=sigma)
    handle.remove()
    assert [len(x) for x in calls] == [4] + 3 * [5 + causal] and all(torch.equal(x[0], model.model.process_latent_in(PICTURE)[0]) for x in calls)
    assert torch.equal(out[0], PICTURE[0])
    sd = files.i2v_adapter(model)
    shown = [0, *[4] * causal, *windows[-1]]
    last = slow_denoised(model, sd, noisy[shown], sigma, len(shown))[-1]  # frame 9 is in the last window alone
    assert tiny.difference(out[-1:], model.model.process_latent_out(last[None])) <= 1e-4


def test_windows_of_animatediff_evolved_too(model, adapter):
    """By what it writes into the model call: frames 6 to 9 of 9, which are called with frame 1 in front."""
    sigma, window = 1.5, [5, 6, 7, 8]
    noisy = sigma * tiny.latents(9, seed=11) + tiny.latents(9)
    m = applied(model, adapter)
    run = unet_call.Run(m.get_model_object("model_sampling"), None, m)
    options = {**m.model_options["transformer_options"], "wrappers": m.wrappers, unet_call.RUN: run, "sigmas": torch.full((4,), sigma),
               "ad_params": {"sub_idxs": window, "full_length": 9}}
    with torch.no_grad():
        found = m.model.apply_model(noisy[window], torch.full((4,), sigma), c_crossattn=tiny.conditioning(1)[0][0].expand(4, -1, -1), transformer_options=options)
    assert tiny.difference(found, slow_denoised(model, files.i2v_adapter(model), noisy[[0, *window]], sigma, 5)[1:]) <= 1e-4


def test_with_a_motion_module_in_either_order(model, adapter):
    motion = motion_module(motion_files.module(model, "v1"), "m")
    z = tiny.latents(4)
    first = tiny.sample(patch(insert(model, motion, "Apply Motion Module", over_all_frames=True), adapter, PICTURE, WHO), z)
    second = tiny.sample(insert(patch(model, adapter, PICTURE, WHO), motion, "Apply Motion Module", over_all_frames=True), z)
    assert tiny.difference(first, second) <= 1e-5
    with pytest.raises(ValueError, match="has none. Put Apply Motion Module in front of Apply I2V-Adapter"):
        tiny.sample(patch(model, adapter, PICTURE, WHO), z)


def test_beside_cross_frame_attention_and_hypertile(model, adapter):
    z = tiny.latents(3)

    def pcfa(m):
        return PCFAPatch.execute(m, 0.5, 0, 0.0, 1.0).result[0]

    def tiled(m):
        return HyperTile.execute(m, 64, 2, 0, False)[0]
    for other in (pcfa, tiled):
        a, b = tiny.sample(applied(other(model), adapter), z), tiny.sample(other(applied(model, adapter)), z)
        assert tiny.difference(a, b) <= 1e-5 and tiny.difference(a, tiny.sample(applied(model, adapter), z)) > 1e-3


def test_a_lora_on_the_keys_counts(model, adapter):
    z, key = tiny.latents(3), "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight"
    m = model.clone()
    m.add_patches({key: ("diff", (torch.ones(32, 32),))}, 0.3)
    own, patched = (tiny.sample(applied(x, adapter), z) for x in (model, m))
    assert tiny.difference(own, patched) > 1e-3


def test_an_area_prompt_gets_its_part_of_the_frame(model, adapter):
    """A prompt whose area is the whole picture changes nothing; in a part of it the clean frame is cropped with the latent."""
    z = tiny.latents(3)
    m = applied(model, adapter)
    assert tiny.difference(tiny.sample(m, z, positive=tiny.conditioning(1, area=(16, 16, 0, 0), strength=1.0)), tiny.sample(m, z)) <= 1e-5
    inputs = []
    handle = model.model.diffusion_model.input_blocks[0][0].register_forward_pre_hook(lambda module, args: inputs.append(args[0].clone()))
    tiny.sample(m, z, positive=tiny.conditioning(1, area=(8, 8, 8, 4), strength=1.0), negative=tiny.conditioning(2, area=(8, 8, 8, 4), strength=1.0))
    handle.remove()
    assert inputs and all(torch.equal(x[::3], model.model.process_latent_in(PICTURE)[:, :, 8:16, 4:12].expand(len(x) // 3, -1, -1, -1)) for x in inputs)


def test_what_does_not_fit_is_refused_before_the_first_step(model, adapter):
    with pytest.raises(ValueError, match="'a' is for SD1.5 .16 self-attention layers. and does not fit this SDXL model, which has 28"):
        applied(tiny.model("SDXL"), adapter)
    with pytest.raises(ValueError, match=r"first frame is \[4, 8, 8\], the clip that is sampled \[4, 16, 16\]"):
        tiny.sample(applied(model, adapter, tiny.latents(1, 8)), tiny.latents(3))
    with pytest.raises(ValueError, match="got 2 first frames for 1 clip. Connect one picture"):
        tiny.sample(applied(model, adapter, tiny.latents(2)), tiny.latents(4))
    with pytest.raises(ValueError, match="at least 2"):
        tiny.sample(applied(model, adapter), tiny.latents(1))
    with pytest.raises(ValueError, match=f"{WHO} got 4 latents, which are not whole clips of 3 frames"):
        tiny.sample(applied(model, adapter, frames=3), tiny.latents(4))
    with pytest.raises(ValueError, match="got 3 first frames for 2 clips. Connect one picture, or one for each clip"):
        tiny.sample(applied(model, adapter, tiny.latents(3), frames=2), tiny.latents(4))
