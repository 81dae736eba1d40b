"""The host's layers made ready for training: initial values, and what goes backward well on a CPU under autocast to bfloat16."""
import torch
import torch.nn.functional as F
from einops import rearrange


def initialise(module: torch.nn.Module) -> None:
    """torch's default initialisation; the host's layers come uninitialised and have emptied their own reset_parameters."""
    for m in module.modules():
        for layer in (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.Linear, torch.nn.GroupNorm, torch.nn.LayerNorm):
            if isinstance(m, layer):
                layer.reset_parameters(m)


def zero(module: torch.nn.Module) -> None:
    for p in module.parameters():
        torch.nn.init.zeros_(p)


def norms_in_fp32(module: torch.nn.Module, *kinds) -> None:
    for m in module.modules():
        if isinstance(m, kinds):
            m.register_forward_pre_hook(lambda module, args: (args[0].float(),))


def attention_fp32(func, q, k, v, heads, *args, **kwargs):
    """torch's bfloat16 attention is several times slower backward on a CPU than its float32 one."""
    with torch.autocast("cpu", enabled=False):
        q, k, v = (rearrange(t.float(), "b n (h d) -> b h n d", h=heads) for t in (q, k, v))
        return rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")


OPTIONS = {
    "optimized_attention_override": attention_fp32,
    "patches": {"input_block_patch_after_skip": [lambda h, options: h.clone()]},  # a ControlNet's output is added in place to what the next block was given
}
