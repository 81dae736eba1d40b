"""Dual cross-attention: against the official numbers (golden b1, d5), diffusers' UNet with the same IP-Adapter, and a slow version row by row."""
from contextlib import contextmanager
from pathlib import Path

import comfy.context_windows
import comfy.ops
import comfy.utils
import pytest
import torch
from comfy.ldm.modules.attention import CrossAttention
from firstframe.attention_patches import dual_cross
from firstframe.attention_patches.dual_cross import patch
from firstframe.attention_patches.unet import CrossLayer
from firstframe.networks.content_adapter import content_adapter, places
from firstframe.tests import adapter_files as files
from firstframe.tests import tiny_models as tiny
from firstframe.tests.adapter_files import tokens
from firstframe.tests.motion_reference import call
from safetensors.torch import load_file

WHO = "Apply Content-Adapter"
GOLDEN = Path(__file__).parents[1] / "golden"
F = 3


@pytest.fixture(scope="module")
def model():
    return tiny.model(**tiny.SMALL)


@pytest.fixture(scope="module")
def adapter(model):
    return content_adapter(files.adapter(model), "f")


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
@pytest.mark.parametrize("shape, kind, overrides", [("SD1.5", "plain", {}), ("SD1.5", "plus", {}), ("SDXL", "plain", {}), ("SDXL", "plus", tiny.DEEP)])
def test_the_whole_unet_is_that_of_diffusers(shape, kind, overrides):
    """Also their numbering of the layers and their reading of the file."""
    model = tiny.model(shape, **overrides)
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
