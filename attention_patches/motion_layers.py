"""Temporal layers inside the host's UNet: after each block's last spatial layer, before any upsampler.

Nothing is inserted: hooks run the layers while a call of our model's UNet is under way, and are gone afterwards.
"""
import logging
from contextlib import ExitStack, contextmanager

import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, Upsample
from comfy.patcher_extension import WrappersMP

from ..networks.motion_module import positions
from ..networks.patcher import another
from . import frames as frame_batch
from . import unet_call
from .cross_frame import check_model
from .masks import AREAS, CallMask, crops_of, note_areas


def places(unet) -> dict[str, torch.nn.Module]:
    """{place, named as in AnimateDiff's files: the layer of the UNet that it follows}."""
    found = {}

    def walk(side, blocks, last_of_level):
        level = j = 0
        for block in blocks:
            spatial = [layer for layer in block if isinstance(layer, (ResBlock, SpatialTransformer))]
            if spatial:
                found[f"{side}.{level}.motion_modules.{j}"] = spatial[-1]
                j += 1
            if last_of_level(block, spatial):
                level, j = level + 1, 0

    walk("down_blocks", unet.input_blocks[1:], lambda block, spatial: not spatial)  # a downsampler is a block of its own
    walk("up_blocks", unet.output_blocks, lambda block, spatial: any(isinstance(layer, Upsample) for layer in block))
    middle = [layer for layer in unet.middle_block if isinstance(layer, (ResBlock, SpatialTransformer))]
    if len(middle) > 1:
        found["mid_block.motion_modules.0"] = middle[-2]  # before the second ResBlock
    return found


def width(layer) -> int:
    return layer.in_channels if isinstance(layer, SpatialTransformer) else layer.out_channels


def norms(unet) -> list[torch.nn.Module]:
    """The GroupNorms that AnimateDiff v1 takes over all frames: of the ResBlocks, and the last one."""
    blocks = [layer for layer in unet.modules() if isinstance(layer, ResBlock)]
    return [seq[0] for block in blocks for seq in (block.in_layers, block.out_layers)] + [unet.out[0]]


@contextmanager
def over_frames(modules, clips: int):
    """Meanwhile the GroupNorms in `modules` take mean and variance over all frames of a clip: [c*f,C,h,w] goes in as [c,C,f,h,w]."""
    def together(module, args):
        x, = args
        return x.unflatten(0, (clips, -1)).transpose(1, 2),

    def apart(module, args, out):
        return out.transpose(1, 2).flatten(0, 1)

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(together).remove)
            stack.callback(module.register_forward_hook(apart).remove)
        yield


@contextmanager
def temporal(layers: dict, add):
    """Meanwhile `add(place, x)` is added to what comes out of each layer of {place: layer}."""
    with ExitStack() as stack:
        for place, layer in layers.items():
            stack.callback(layer.register_forward_hook(lambda module, args, x, place=place: x + add(place, x)).remove)
        yield


def check_fits(model, layout: dict, name: str, who: str) -> None:
    """Raises ValueError unless the UNet has every place of the module with its width. layout: {place: something with .channels}."""
    check_model(model, who, "puts layers between those")
    unet = {place: width(layer) for place, layer in places(model.get_model_object("diffusion_model")).items()}
    wrong = [place for place, size in layout.items() if unet.get(place) != size.channels]
    if wrong:
        def widths(found):
            return "-".join(str(found.get(f"down_blocks.{i}.motion_modules.0", "none")) for i in range(4))
        raise ValueError(
            f"{who}: the motion module {name!r} does not fit this {type(model.model.model_config).__name__} model: its levels are {widths({p: s.channels for p, s in layout.items()})} wide, "
            f"the model's {widths(unet)} (at {wrong[0]} and {len(wrong) - 1} more places). Choose a module for this checkpoint in Load Motion Module, or another checkpoint."
        )


def check_length(guider, total: int, length: int, name: str, who: str) -> None:
    """Raises ValueError when one call of the model would hold more frames than the module knows; says in the log when context windows bring one more than they are set to."""
    options = guider.model_options
    windows = options.get("context_handler")
    if "ad_params" in options.get("transformer_options", {}):
        return  # AnimateDiff-Evolved cuts the clip itself
    frames, fix, advice = total, False, "Put Context Windows (Manual) with context_length 16 after this node, or make fewer frames."
    if windows is not None and total > windows.context_length:
        fix = getattr(windows, "causal_window_fix", False)  # the frame before the window comes along
        frames, advice = windows.context_length + fix, f"Lower context_length{' or switch causal_window_fix off' if fix else ''} in Context Windows."
    if frames > length:
        raise ValueError(f"{who}: the motion module {name!r} knows {length} frames, one call would hold {frames}. {advice}")
    if frames < total and fix:
        logging.warning(f"{who}: causal_window_fix is on in Context Windows, so each window but the first brings the frame before it along and the motion module "
                        f"sees {frames} frames instead of {windows.context_length}. It is meant for video models; switch it off for motion modules.")


def with_weights_of_its_own(patcher, model):
    """`patcher`; or one around another copy of its network, when `model` runs the same network with other LoRAs already: the host holds one set of weights for each."""
    same = [other for others in model.additional_models.values() for other in others if other.is_clone(patcher)]
    if all(other.patches_uuid == patcher.patches_uuid for other in same):
        return patcher
    return another(patcher)


def insert(model, motion, who: str, *, strength=1.0, mask=None, over_all_frames=False, frames=0, start_percent=0.0, end_percent=1.0):
    """A clone of `model` whose UNet calls run the layers of `motion` (networks' MotionModule) within the range.

    frames: of one clip, 0: the batch is one. mask [1 or F,H,W] in 0..1 scales the strength from place to place. Positions
    count from the first frame of the context window. Raises ValueError as check_fits; while sampling, before the first
    step, for a clip of one frame or of more than the module knows.
    """
    check_fits(model, motion.layout, motion.name, who)
    if strength == 0 or start_percent >= end_percent:
        return model.clone()
    key = unet_call.key("motion")

    def check(guider, noise, latent_image):
        frame_batch.check_frames(noise.shape[0], frames, who)
        clip = frames or noise.shape[0]
        if mask is not None and len(mask) not in (1, clip):
            raise ValueError(f"{who} got {len(mask)} masks for {clip} frames. Give it one mask, or one for each frame.")
        check_length(guider, clip, motion.length, motion.name, who)

    def with_layers(call, proceed):
        batch, net, layers = frame_batch.read(call.options, call.x.shape[0], frames), call.seen.network(key, who), places(call.unet)
        numbers, tables = range(len(batch.numbers)), {}
        masked = None if mask is None else CallMask(mask, batch.numbers, batch.clips, crops_of(call.options, tuple(call.x.shape[2:]), who))

        def add(place, h):
            kind = h.shape[1], h.dtype
            if kind not in tables:
                tables[kind] = positions(numbers, h.shape[1], h)
            out = net.get_submodule(place)(h, numbers, call.options, tables[kind])
            if masked is not None:
                return out * (strength * masked.at(h))
            return out if strength == 1 else out * strength

        with temporal({place: layers[place] for place in motion.layout}, add), over_frames(norms(call.unet) if over_all_frames else (), batch.clips):
            return proceed()

    m = unet_call.ride(model, key, who, with_layers, start_percent=start_percent, end_percent=end_percent, check=check)
    m.set_additional_models(key, [with_weights_of_its_own(motion.patcher, model)])
    if mask is not None:
        unet_call.add_once(m, WrappersMP.CALC_COND_BATCH, AREAS, note_areas)
    return m
