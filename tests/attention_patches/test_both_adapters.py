"""The official spatial transformer with both adapters in it (golden a3): first-frame attention in attn1, image tokens in attn2, by the hooks that the patches use."""
from pathlib import Path
from types import SimpleNamespace

import comfy.ops
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import SpatialTransformer
from firstframe.attention_patches import dual_cross
from firstframe.attention_patches.first_frame import branches
from firstframe.attention_patches.unet import CrossLayer
from firstframe.tests import tiny_models as tiny
from safetensors.torch import load_file

TEXT = 7  # tokens


@torch.no_grad()
def test_official_spatial_transformer():
    g = load_file(Path(__file__).parents[1] / "golden" / "a3_i2v_spatial_transformer.safetensors")
    w = {k.removeprefix("w."): v for k, v in g.items() if k.startswith("w.")}
    layer = SpatialTransformer(64, 8, 8, depth=1, context_dim=48, use_linear=False, operations=comfy.ops.disable_weight_init)
    layer.load_state_dict({k: v for k, v in w.items() if "_ff." not in k and "_ip." not in k})
    block, own = layer.transformer_blocks[0], "transformer_blocks.0.attn1"
    x, context = g["in.sample"].transpose(1, 2).flatten(0, 1), g["in.context"].repeat_interleave(5, 0)
    adapter = SimpleNamespace(to_q_ff=lambda t: F.linear(t, w[f"{own}.to_q_ff.weight"]), to_out_ff=lambda t: F.linear(t, w[f"{own}.to_out_ff.weight"], w[f"{own}.to_out_ff.bias"]))
    k, v = (F.linear(context[:, TEXT:], w[f"transformer_blocks.0.attn2.to_{part}_ip.weight"]) for part in "kv")
    place = CrossLayer(("input", 1, 0), block.attn2, layer)

    def image(_, q, size):
        return dual_cross.image_attention(q, k, v, place, {})

    def result():
        return layer(x, context[:, :TEXT], transformer_options={}).unflatten(0, (2, 5)).transpose(1, 2)

    plain = result()
    with branches({"a": block.attn1}, lambda _: adapter, 0, 2, 5, 1.0, {}), dual_cross.added({"a": place}, image):
        assert tiny.difference(result(), g["out.sample"]) <= 1e-5
    with branches({"a": block.attn1}, lambda _: adapter, 0, 2, 5, 1.0, {}):
        assert tiny.difference(result(), g["out.sample"]) > 1e-3
    with dual_cross.added({"a": place}, image):
        assert tiny.difference(result(), g["out.sample"]) > 1e-3
    assert torch.equal(result(), plain)
