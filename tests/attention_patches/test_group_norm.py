"""GroupNorms over all frames, against the official ones."""
from pathlib import Path

import torch
from firstframe.attention_patches.group_norm import over_frames
from firstframe.tests import tiny_models as tiny
from safetensors.torch import load_file


@torch.no_grad()
def test_official_group_norms():
    """A ResNet with statistics per frame and over frames (golden a4)."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
    g = load_file(Path(__file__).parents[1] / "golden" / "a4_resnet_groupnorm_modes.safetensors")
    block = ResBlock(32, 48, 0.0, out_channels=64)
    names = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    block.load_state_dict({f"{ours}.{kind}": g[f"w.{theirs}.{kind}"] for theirs, ours in names.items() for kind in ("weight", "bias")})
    x, emb = g["in.sample"].transpose(1, 2).flatten(0, 1), g["in.temb"].repeat_interleave(5, 0)

    def result():
        return block(x, emb).unflatten(0, (2, 5)).transpose(1, 2)

    assert tiny.difference(result(), g["out.per_frame_stats_v2_v3"]) <= 1e-5
    with over_frames([block.in_layers[0], block.out_layers[0]], 2):
        assert tiny.difference(result(), g["out.cross_frame_stats_v1_and_i2v_adapter"]) <= 1e-5
    assert tiny.difference(result(), g["out.per_frame_stats_v2_v3"]) <= 1e-5
