"""Dual cross-attention: the queries that meet the text in attn2 also meet keys and values of image tokens (DynamiCrafter Eq. 4, IP-Adapter Eq. 5).

    out = to_out( Attn(q, K_txt, V_txt) + g Attn(q, K_img, V_img) )

No slot of the UNet is taken: hooks that live only during our model's call take q where it leaves to_q and add the second term where
to_out begins, whoever runs the attention between them (the host's block, or another pack's replacement of attn2).

Axes: b rows of the UNet's batch (clips x frames), r the rest that another pack may have split off the places, n places, m image tokens, d channels.
"""
import math
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP

from . import frames as frame_batch
from . import unet_call
from .masks import AREAS, CallMask, crops_of, note_areas
from .unet import check_model

BASES = {768: "SD1.5", 1024: "SD2", 2048: "SDXL"}  # by the width of the context


@contextmanager
def added(layers: dict, add):
    """Meanwhile `add(place, q, size)` is added to what goes into to_out of each layer of {place: CrossLayer}. q: what left its to_q; size: (h, w) of the features."""
    queries, sizes = {}, {}

    def see(transformer, args):
        sizes[transformer] = args[0].shape[2:]

    with ExitStack() as stack:
        for transformer in {layer.transformer for layer in layers.values()}:
            stack.callback(transformer.register_forward_pre_hook(see).remove)
        for place, layer in layers.items():
            def keep(to_q, args, q, place=place):
                queries[place] = q

            def amend(to_out, args, place=place, transformer=layer.transformer):
                return (args[0] + add(place, queries.pop(place), sizes.get(transformer)),)

            stack.callback(layer.attention.to_q.register_forward_hook(keep).remove)
            stack.callback(layer.attention.to_out.register_forward_pre_hook(amend).remove)
        yield


def image_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer, options: dict) -> torch.Tensor:
    """Attn(q, K_img, V_img) [b*r,n,d] of q [b*r,n,d], k and v [b,m,d], as the layer's own attention is computed."""
    k, v = (t.repeat_interleave(len(q) // len(t), 0) if len(q) != len(t) else t for t in (k, v))
    stage, number, index = layer.address
    options = {**options, "block": (stage, number), "block_index": index}
    return optimized_attention(q, k, v, layer.attention.heads, attn_precision=layer.attention.attn_precision, transformer_options=options)


class CallTokens:
    """For one call: the image tokens of the rows of its batch.

    tokens: (for positive conditionings, for the others), each [1 or F,m,D], F the frames of the whole clip; positive: whether each chunk is.
    """

    def __init__(self, tokens, positive: list[bool], batch: frame_batch.FrameBatch, like: torch.Tensor):
        self.frames = len(batch.numbers)
        self.clips = [side for side in positive for _ in range(batch.clips // len(positive))]
        self.sides = {side: (t[list(batch.numbers)] if len(t) > 1 else t).to(like) for side, t in zip((True, False), tokens) if side in positive}

    def through(self, project) -> torch.Tensor:
        """project(tokens) as [b,m,d]: once for each side, not once for each frame."""
        sides = {side: project(t).expand(self.frames, -1, -1) for side, t in self.sides.items()}
        return torch.cat([sides[side] for side in self.clips]) if len(self.clips) > 1 else sides[self.clips[0]]


class CallScale:
    """For one call: what the second term is multiplied by. weights: a number for each frame of the whole clip, or None; masked: a CallMask, or None."""

    def __init__(self, strength: float, weights, masked: CallMask | None, batch: frame_batch.FrameBatch, like: torch.Tensor, who: str):
        self.strength, self.masked, self.who = strength, masked, who
        self.weights = None if weights is None else torch.tensor([weights[i] for i in batch.numbers]).repeat(batch.clips)[:, None, None].to(like)

    def at(self, q: torch.Tensor, rows: int, size):
        """A number, or a tensor for q [rows*r,n,d]."""
        scale = self.strength
        if self.weights is not None:
            scale = scale * self.weights.repeat_interleave(len(q) // rows, 0)
        if self.masked is not None:
            if q.shape[:2] != (rows, size[0] * size[1]):
                raise ValueError(f"{self.who}: another patch of this MODEL splits or merges the places of the cross-attention ({list(q.shape[:2])} instead of "
                                 f"{[rows, size[0] * size[1]]}), so where the mask lies in them is not known. Disconnect the mask, or take that patch off.")
            scale = scale * self.masked.at(q[..., :1].transpose(1, 2).unflatten(2, tuple(size))).flatten(2).transpose(1, 2)
        return scale


def check_fits(model, network, who: str) -> None:
    """Raises ValueError unless the UNet has every cross-attention of the network, no others, with its widths."""
    check_model(model, who, "adds to the cross-attention")
    unet = {place: layer.widths for place, layer in network.places(model.get_model_object("diffusion_model")).items()}
    own = {place: (channels, network.width) for place, channels in network.layout.items()}
    if own != unet:
        def described(widths):
            channels, contexts = (dict.fromkeys(pair[i] for pair in widths.values()) for i in (0, 1))
            bases = "".join(f" ({BASES[c]})" for c in contexts if c in BASES)
            return f"{len(widths)} cross-attentions of {'-'.join(map(str, channels))} channels and embeddings {'-'.join(map(str, contexts))} wide{bases}"
        raise ValueError(f"{who}: {network.name!r} does not fit this {type(model.model.model_config).__name__} model: it is for {described(own)}, the model has {described(unet)}. "
                         f"Choose a file for this checkpoint in {network.loader}, or another checkpoint.")


def patch(model, network, tokens, who: str, *, weight=1.0, weights=None, mask=None, frames=0, start_percent=0.0, end_percent=1.0):
    """A clone of `model` whose cross-attention also attends to image tokens within the range.

    network (networks' ContentAdapter and its like): patcher, the host's; name and loader, for errors; width of the tokens; layout {place: channels};
    places(unet) -> {place: CrossLayer}; projections(net, place) -> (to_k, to_v); gate(net, place) -> a tensor of one number, or None.
    tokens: as CallTokens has them. weights: one for each frame, times `weight`; mask [1 or F,H,W] in 0..1; frames: of one clip, 0: the batch is one.
    Raises ValueError as check_fits; while sampling, before the first step, when the numbers of frames differ.
    """
    check_fits(model, network, who)
    if weights is not None and len(weights) == 1:
        weight, weights = weight * weights[0], None
    if weight == 0 or start_percent >= end_percent or weights is not None and not any(weights):
        return model.clone()
    key = unet_call.key("dual_cross")
    counted = {"pictures": len(tokens[0]), "weights": 1 if weights is None else len(weights), "masks": 1 if mask is None else len(mask)}

    def check(guider, noise, latent_image):
        frame_batch.check_clips(noise.shape[0], frames, who)
        clip = frames or noise.shape[0]
        for what, n in counted.items():
            if n not in (1, clip):
                raise ValueError(f"{who} got {n} {what} for {clip} frames. Give it one for all of them, or one for each.")

    def with_image(call, proceed):
        rows, batch = call.x.shape[0], frame_batch.read(call.options, call.x.shape[0], frames)
        net, layers = call.seen.network(key, who), network.places(call.unet)
        seen = CallTokens(tokens, call.seen.positive(call.options), batch, call.x)
        masked = None if mask is None else CallMask(mask, batch.numbers, batch.clips, crops_of(call.options, tuple(call.x.shape[2:]), who))
        scale = CallScale(weight, weights, masked, batch, call.x, who)

        def attend(place, q, size):
            k, v = (seen.through(project) for project in network.projections(net, place))
            out, gate = image_attention(q, k, v, layers[place], call.options), network.gate(net, place)
            g = scale.at(q, rows, size) if gate is None else gate.to(q) * scale.at(q, rows, size)
            return out if isinstance(g, float) and g == 1 else out * g

        with added({place: layers[place] for place in network.layout}, attend):
            return proceed()

    m = unet_call.ride(model, key, who, with_image, start_percent=start_percent, end_percent=end_percent, check=check, relates_frames=False)
    m.set_additional_models(key, [network.patcher])
    if mask is not None:
        unet_call.add_once(m, WrappersMP.CALC_COND_BATCH, AREAS, note_areas)
    return m


WEIGHT = "firstframe_image_weight_"  # what the keys of `weigh` begin with


def weigh(model, who: str, *, weight=1.0, mask=None, frames=0, start_percent=0.0, end_percent=1.0):
    """A clone of a `model` whose UNet has the second term by itself (its `attends_to_pictures`), which is weighed within the range; several multiply.

    mask [1 or F,H,W] in 0..1. Raises ValueError for another UNet; while sampling, before the first step, when the numbers of frames differ.
    """
    if not getattr(model.get_model_object("diffusion_model"), "attends_to_pictures", False):
        raise ValueError(f"{who} weighs the picture in a model that attends to one by itself (DynamiCrafter), got {type(model.model).__name__}. "
                         f"Connect the MODEL of Load DynamiCrafter; for others there is Apply Content-Adapter.")
    if weight == 1 and mask is None or start_percent >= end_percent:
        return model.clone()

    def check(guider, noise, latent_image):
        frame_batch.check_clips(noise.shape[0], frames, who)
        if mask is not None and len(mask) not in (1, clip := frames or noise.shape[0]):
            raise ValueError(f"{who} got {len(mask)} masks for {clip} frames. Give it one for all of them, or one for each.")

    def weighed(call, proceed):
        rows, batch = call.x.shape[0], frame_batch.read(call.options, call.x.shape[0], frames)
        masked = None if mask is None else CallMask(mask, batch.numbers, batch.clips, crops_of(call.options, tuple(call.x.shape[2:]), who))
        return proceed(partial(CallScale(weight, None, masked, batch, call.x, who).at, rows=rows))

    m = unet_call.ride(model, unet_call.key("image_weight"), who, weighed, start_percent=start_percent, end_percent=end_percent, check=check, relates_frames=False)
    if mask is not None:
        unet_call.add_once(m, WrappersMP.CALC_COND_BATCH, AREAS, note_areas)
    return m


def scale_of(options: dict, q: torch.Tensor, size):
    """What all riders of `weigh` make of the second term in this call: a number, or a tensor for q [b*r,n,d]."""
    return math.prod(at(q, size=size) for key, at in options.items() if isinstance(key, str) and key.startswith(WEIGHT))
