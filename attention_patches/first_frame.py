"""First-frame attention (I2V-Adapter Eq. 5, 6): each frame's own queries W'_Q look at the clean first frame through the layer's own keys and values.

    Attn(Q, K, V) W_O + s Attn(X W'_Q, K^1, V^1) W'_O

The branch is added after the layer's own output projection, by hooks that live while a call of our model's UNet is under way: so
attention of other nodes in the layer stays what it is, and LoRAs on to_k and to_v count.

Axes: c clips (conditionings x videos), f frames, r the rest that another pack may have split off the tokens (HyperTile's tiles), n tokens, d channels.
"""
from contextlib import ExitStack, contextmanager

import torch
from comfy.ldm.modules.attention import optimized_attention

from . import clean_frame, unet_call
from . import frames as frame_batch
from .unet import check_model, named_blocks


def branch(x: torch.Tensor, q, k1: torch.Tensor, v1: torch.Tensor, out, attention, clips: int) -> torch.Tensor:
    """Attn(X W'_Q, K^1, V^1) W'_O for x [c*f*r,n,d], which went into the layer; k1, v1 [c,r,n,d] of the first frames; q and out: the two projections."""
    r, n = k1.shape[1:3]
    queries = q(x).unflatten(0, (clips, -1, r)).transpose(1, 2)  # all frames ask the same keys, so they ask as one: none is copied
    found = attention(queries.flatten(2, 3).flatten(0, 1), k1.flatten(0, 1), v1.flatten(0, 1))
    return out(found.unflatten(1, (-1, n)).unflatten(0, (clips, r)).transpose(1, 2).flatten(0, 2))


@contextmanager
def branches(layers: dict, branch_of, first: int, clips: int, frames: int, strength: float, options: dict):
    """Meanwhile each self-attention of {place: attn1} has its branch. branch_of(place) -> a module with to_q_ff and to_out_ff; first: position of the clean frame in each clip."""
    seen = {}

    def before(place):
        def hook(module, args):
            seen[place] = args[0]
        return hook

    def after(place, attn1):
        def hook(module, args, out):
            x, own = seen.pop(place), branch_of(place)
            of_first = x.unflatten(0, (clips, frames, -1))[:, first]
            k1, v1 = (project(of_first.flatten(0, 1)).unflatten(0, (clips, -1)) for project in (attn1.to_k, attn1.to_v))

            def attention(q, k, v):
                return optimized_attention(q, k, v, attn1.heads, attn_precision=attn1.attn_precision, transformer_options=options)
            added = branch(x, own.to_q_ff, k1, v1, own.to_out_ff, attention, clips)
            return out + (added if strength == 1 else strength * added)
        return hook

    with ExitStack() as stack:
        for place, attn1 in layers.items():
            stack.callback(attn1.to_q.register_forward_pre_hook(before(place)).remove)
            stack.callback(attn1.to_out.register_forward_hook(after(place, attn1)).remove)
        yield


def check_fits(model, adapter, who: str) -> None:
    """Raises ValueError unless each self-attention of the UNet has its place in the adapter, with its width."""
    check_model(model, who)
    unet = {place: block.attn1.to_q.in_features for place, block in named_blocks(model.get_model_object("diffusion_model")).items()}
    wrong = [place for place in {**unet, **adapter.layout} if unet.get(place) != adapter.layout.get(place)]
    if wrong:
        raise ValueError(f"{who}: the I2V-Adapter {adapter.name!r} is for {adapter.family} ({len(adapter.layout)} self-attention layers) and does not fit this "
                         f"{type(model.model.model_config).__name__} model, which has {len(unet)} (at {wrong[0]} and {len(wrong) - 1} more places). "
                         f"Choose an adapter for this checkpoint in Load I2V-Adapter, or another checkpoint.")


def check_motion(guider, who: str) -> None:
    """Raises ValueError for a MODEL on which nothing relates the frames in time: neither Apply Motion Module nor AnimateDiff-Evolved."""
    patcher = guider.model_patcher
    if not unet_call.rides(patcher, "inserted") and not any("ADE" in key for key in patcher.additional_models):
        raise ValueError(f"{who}: the I2V-Adapter was trained with a motion module, and this MODEL has none. Put Apply Motion Module in front of {who}, or behind it.")


def patch(model, adapter, z: torch.Tensor, who: str, *, strength=1.0, frames=0, start_percent=0.0, end_percent=1.0, needs_motion=True):
    """A clone of `model` on which frame 1 of each clip is the clean latent z [1 or clips,C,h,w] (the host's latent space) at every step, and all frames
    have the adapter's first-frame attention within the range.

    Raises ValueError as check_fits; before the first step as clean_frame.keep, and as check_motion unless needs_motion is False. strength 0 or an
    empty range returns an unchanged clone.
    """
    check_fits(model, adapter, who)
    if strength == 0 or start_percent >= end_percent:
        return model.clone()
    key = unet_call.key("first_frame")

    def with_branches(call, proceed):
        batch, net = frame_batch.read(call.options, call.x.shape[0], frames), call.seen.network(key, who)
        if 0 not in batch.numbers:
            raise RuntimeError(f"{who}: a call of the UNet lacks frame 1. Sample through the host's samplers.")
        blocks = named_blocks(call.unet)
        with branches({place: blocks[place].attn1 for place in adapter.layout}, net.branch, batch.numbers.index(0), batch.clips, len(batch.numbers), strength, call.options):
            return proceed()

    m = clean_frame.keep(model, z, who, frames=frames)
    check = (lambda guider, noise, latent_image: check_motion(guider, who)) if needs_motion else None
    m = unet_call.ride(m, key, who, with_branches, start_percent=start_percent, end_percent=end_percent, check=check, relates_frames=False)
    m.set_additional_models(key, [adapter.patcher_for(model)])
    return m
