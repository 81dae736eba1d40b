"""Gradients through the host's UNet with respect to what goes into it (weights stay as they are).

Nodes run in inference mode, and weights loaded there cannot take part in a backward pass. The values never change here:
a MODEL that has been through this samples bit-identically afterwards.
"""
from contextlib import ExitStack, contextmanager

import comfy.model_management
import torch
from comfy.ldm.modules.attention import SpatialTransformer, attention_pytorch
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from comfy.patcher_extension import WrappersMP
from torch.utils.checkpoint import checkpoint

# Kept for the backward pass of SD1.5's UNet, per latent cell of one picture in float32: 0.92e6 at 64x64, with
# checkpointing 0.04e6 (counted with torch's saved_tensors_hooks, attention as it is without a fused kernel)
BYTES_PER_CELL = 1e6


def plain_weights(module: torch.nn.Module) -> None:
    """Replaces inference tensors by equal ordinary ones, in place, one at a time. Nothing happens the second time."""
    for m in module.modules():
        for name, p in list(m._parameters.items()):
            if p is not None and p.is_inference():
                m._parameters[name] = torch.nn.Parameter(p.clone(), requires_grad=False)
        for name, b in list(m._buffers.items()):
            if b is not None and b.is_inference():
                m._buffers[name] = b.clone()


def ordinary_weights(model, who: str):
    """MODEL with weights that stay where they are while a backward pass needs them: in the host's dynamic mode its second, ordinary copy.

    That copy keeps the dtype of the file in layers that are made lazily; they get the one that the model computes in, as in ordinary
    mode. Raises ValueError for a model that cannot be read a second time.
    """
    if not model.is_dynamic():
        return model
    if model.cached_patcher_init is None:
        raise ValueError(f"{who} needs gradients, for which the host reads the model's file once more, and this MODEL does not say from where. "
                         f"Load it with a stock loader such as Load Checkpoint, start the host with --disable-dynamic-vram, or set mode to none.")
    m = model.get_non_dynamic_delegate()
    for layer in m.model.modules():
        for name in ("weight", "bias"):
            dtype, p = getattr(layer, f"{name}_comfy_model_dtype", None), layer._parameters.get(name)
            if dtype is not None and p is not None and p.dtype != dtype:
                layer._parameters[name] = torch.nn.Parameter(p.to(dtype), requires_grad=False)
    return m


def keep_whole(model):
    """A clone of MODEL that the host loads whole wherever it samples: an estimate of its own would move weights out again."""
    def whole(executor, *args, **kwargs):
        return executor(*args, **{**kwargs, "force_full_load": True})
    m = model.clone()
    m.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, "firstframe_whole", whole)
    return m


class Ungraded:
    """A ControlNet of the host whose output is taken as given: no gradient goes through it, and where its weights are does not matter."""

    def __init__(self, control):
        self.control = control

    def __getattr__(self, name):
        return getattr(self.control, name)

    @torch.no_grad()
    def get_control(self, *args, **kwargs):
        return self.control.get_control(*args, **kwargs)


def plain(value):
    """The same tensors, ordinary ones, in nested dicts, lists and the host's COND objects."""
    if isinstance(value, torch.Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(getattr(value, "cond", None), torch.Tensor):
        return value._copy_with(plain(value.cond))
    return value


def differentiable_attention(model):
    """A clone of MODEL whose attention is PyTorch's, the one backend that surely has a backward pass; its own override still has its say."""
    m = model.clone()
    options = m.model_options["transformer_options"] = dict(m.model_options.get("transformer_options", {}))
    own = options.get("optimized_attention_override")

    def attention(func, *args, **kwargs):
        return own(attention_pytorch, *args, **kwargs) if own else attention_pytorch(*args, **kwargs)
    options["optimized_attention_override"] = attention
    return m


def separate_skips(model):
    """A clone of MODEL for ControlNets under gradients: the UNet adds their output in place to skip connections, which
    the next block has by then been given too. Here each gets its own."""
    m = model.clone()
    m.set_model_input_block_patch_after_skip(lambda h, transformer_options: h.clone())
    return m


@contextmanager
def checkpointed(module: torch.nn.Module, on: bool):
    """While open, activations inside residual and transformer blocks are computed again in the backward pass instead of kept."""
    with ExitStack() as stack:
        for block in (m for m in module.modules() if on and isinstance(m, (ResBlock, SpatialTransformer))):
            block.forward = _recomputing(block.forward)
            stack.callback(delattr, block, "forward")
        yield


def _recomputing(forward):
    def again(*args, **kwargs):
        # the UNet writes block numbers into transformer_options as it goes; the second pass has to see those of the first
        held = [dict(a) if isinstance(a, dict) else a for a in args]
        return checkpoint(lambda *a: forward(*[dict(v) if isinstance(v, dict) else v for v in a], **kwargs), *held, use_reentrant=False)
    return again


def wants_checkpointing(model, shape) -> bool:
    """Whether the activations of one picture's latent [1,C,h,w] would not fit beside the loaded model."""
    base = model.model
    width = base.diffusion_model.model_channels / 320 * base.get_dtype_inference().itemsize / 4
    need = BYTES_PER_CELL * width * shape[-2] * shape[-1]
    return need > 0.8 * comfy.model_management.get_free_memory(model.load_device)
