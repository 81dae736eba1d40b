"""Cross-frame attention: frame t's queries meet the keys and values of a set of frames (PiLife Eq. 15).

K and V are projected once per frame by the host's own layers and then gathered, never projected per pair. What
changes is the self-attention (attn1) of the chosen stages; everything else in the block stays the host's.

Axes: c clips (conditionings x videos), f frames, r the rest that another pack may have split off the tokens
(HyperTile's tiles), n tokens, d channels.
"""
from collections.abc import Callable

import torch
from comfy.ldm.modules.attention import optimized_attention

from . import frames as frame_batch
from . import unet_call
from .pcfa import Plan
from .unet import STAGES, check_model, transformer_blocks

WATCHES = "SelfAttentionGuidance."  # the host's class whose attn1 owner leaves attention as it is and keeps the map of one call per layer


def groups(plan: Plan) -> list[tuple[list[int], list[list[int]]]]:
    """(positions, the positions each attends to), gathered by the size of the set: no set is padded."""
    by_size = {}
    for position, sources in enumerate(plan):
        positions, table = by_size.setdefault(len(sources), ([], []))
        positions.append(position)
        table.append(list(sources))
    return [by_size[size] for size in sorted(by_size)]


def gather(kv: torch.Tensor, sources: torch.Tensor) -> torch.Tensor:
    """Keys or values [c,f,r,n,d] of the frames in sources [g,s], side by side along the tokens -> [c*g*r, s*n, d]."""
    c, _, r, n, d = kv.shape
    g, s = sources.shape
    picked = kv.index_select(1, sources.flatten()).view(c, g, s, r, n, d)
    return picked.transpose(2, 3).reshape(c * g * r, s * n, d)


def cross_frame_attention(q, k, v, eo: dict, clips: int, plan, attention: Callable) -> torch.Tensor:
    """Eq. 15 for q, k, v [c*f*r, n, d] after their projections. plan: `groups` as tensors. attention(q, k, v, eo) -> out."""
    f = sum(len(positions) for positions, _ in plan)
    q, k, v = (t.unflatten(0, (clips, f, -1)) for t in (q, k, v))
    out = None
    for positions, sources in plan:
        whole = len(positions) == f
        part = (q if whole else q.index_select(1, positions)).flatten(0, 2)
        seen = dict(eo, sigmas=eo["sigmas"][: len(positions)]) if "sigmas" in eo else eo
        part = attention(part, gather(k, sources), gather(v, sources), seen).unflatten(0, (clips, len(positions), -1))
        if whole:
            return part.flatten(0, 2)
        if out is None:
            out = part.new_empty((clips, f) + part.shape[2:])
        out.index_copy_(1, positions, part)
    return out.flatten(0, 2)


def host_attention(q, k, v, eo: dict) -> torch.Tensor:
    """What the host's block would call itself."""
    return optimized_attention(q, k, v, eo["n_heads"], attn_precision=eo["attn_precision"], transformer_options=eo)


def patch(model, choose: Callable[[frame_batch.FrameBatch, int], Plan], who: str, *, frames=0, start_percent=0.0, end_percent=1.0, stages=STAGES):
    """A clone of `model` whose attn1 follows `choose(FrameBatch, step) -> Plan` within the range; ValueError as in check_model.

    step counts the entries of the run's sigmas from 0. An empty range or no stage returns an unchanged clone.
    """
    check_model(model, who)
    if start_percent >= end_percent or not stages:
        return model.clone()
    channels = model.get_model_object("latent_format").latent_channels
    key = unet_call.key("cross_frame")

    def check(guider, noise, latent_image):
        frame_batch.check_frames(noise.shape[0], frames, who)
        frame_batch.check_channels(latent_image, channels, who)
        frame_batch.check_finite(latent_image, who)

    def with_plan(call, proceed):
        batch = frame_batch.read(call.options, call.x.shape[0], frames)
        plan = [tuple(torch.tensor(t, device=call.x.device) for t in group) for group in groups(choose(batch, call.seen.step()))]
        return proceed((batch.clips, plan))

    def owner(previous):
        watches = getattr(previous, "__qualname__", "").startswith(WATCHES)

        def attn1(q, k, v, eo):
            call = eo.get(key)
            if call is None:
                return previous(q, k, v, eo)
            if watches:
                previous(q, k, v, eo)
            return cross_frame_attention(q, k, v, eo, *call, host_attention if watches else previous)

        attn1.firstframe_owner = who
        return attn1

    m = unet_call.ride(model, key, who, with_plan, start_percent=start_percent, end_percent=end_percent, check=check)
    slots = m.model_options["transformer_options"].get("patches_replace", {}).get("attn1", {})
    for stage, number in transformer_blocks(m.get_model_object("diffusion_model"), stages):
        # (stage, number) is where stock nodes such as PAG put theirs; a longer address of another pack would hide ours
        for address in [(stage, number), *(a for a in slots if len(a) == 3 and a[:2] == (stage, number))]:
            previous = slots.get(address, host_attention)
            if hasattr(previous, "firstframe_owner"):
                raise ValueError(
                    f"{who}: the {stage} blocks of this MODEL already have cross-frame attention from {previous.firstframe_owner}. "
                    f"Remove one of the two nodes, or choose other stages."
                )
            m.set_model_attn1_replace(owner(previous), *address)
    return m
