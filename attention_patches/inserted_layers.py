"""Layers of another network inside the host's UNet, each after the layer that it names.

The UNet itself is not changed: hooks run the layers while a call of our model's UNet is under way, and are gone afterwards.
"""
import logging
from contextlib import ExitStack, contextmanager

from comfy.patcher_extension import WrappersMP

from . import frames as frame_batch
from . import unet_call
from .group_norm import norms, over_frames
from .masks import AREAS, CallMask, crops_of, note_areas
from .unet import check_model, width


@contextmanager
def added(layers: dict, add):
    """Meanwhile `add(place, x)` is added to what comes out of each layer of {place: layer}."""
    with ExitStack() as stack:
        for place, layer in layers.items():
            stack.callback(layer.register_forward_hook(lambda module, args, x, place=place: x + add(place, x)).remove)
        yield


def check_fits(model, network, who: str) -> None:
    """Raises ValueError unless the UNet has every place of the network with its width."""
    check_model(model, who, "puts layers between those")
    unet = {place: width(layer) for place, layer in network.places(model.get_model_object("diffusion_model")).items()}
    own = {place: size.channels for place, size in network.layout.items()}
    wrong = [place for place, channels in own.items() if unet.get(place) != channels]
    if wrong:
        def widths(found):
            return "-".join(str(found.get(f"down_blocks.{i}.motion_modules.0", "none")) for i in range(4))
        raise ValueError(
            f"{who}: the motion module {network.name!r} does not fit this {type(model.model.model_config).__name__} model: its levels are {widths(own)} wide, "
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
        clean = unet_call.rides(guider.model_patcher, "clean_frame")  # frame 1 too
        frames, advice = windows.context_length + fix + clean, f"Lower context_length{' or switch causal_window_fix off' if fix else ''} in Context Windows."
    if frames > length:
        raise ValueError(f"{who}: the motion module {name!r} knows {length} frames, one call would hold {frames}. {advice}")
    if frames < total and fix:
        logging.warning(f"{who}: causal_window_fix is on in Context Windows, so each window but the first brings the frame before it along and the motion module "
                        f"sees {frames} frames instead of {frames - 1}. It is meant for video models; switch it off for motion modules.")


def insert(model, network, who: str, *, strength=1.0, mask=None, over_all_frames=False, frames=0, start_percent=0.0, end_percent=1.0):
    """A clone of `model` whose UNet calls run the layers of `network` (networks' MotionModule and its like) within the range.

    network: patcher_for(model), its weights in the host's patcher; name and length (frames that it knows), for errors; layout {place: size with .channels};
    places(unet) -> {place: the layer of the UNet that it follows}; adding(net, numbers, options) -> add(place, h), made once per call:
    what the layer at place adds to h [c*f,C,h,w]. numbers count from the first frame of the context window.
    frames: of one clip, 0: the batch is one. mask [1 or F,H,W] in 0..1 scales the strength from place to place. Raises ValueError
    as check_fits; while sampling, before the first step, for a clip of one frame or of more than the network knows.
    """
    check_fits(model, network, who)
    if strength == 0 or start_percent >= end_percent:
        return model.clone()
    key = unet_call.key("inserted")

    def check(guider, noise, latent_image):
        frame_batch.check_frames(noise.shape[0], frames, who)
        clip = frames or noise.shape[0]
        if mask is not None and len(mask) not in (1, clip):
            raise ValueError(f"{who} got {len(mask)} masks for {clip} frames. Give it one mask, or one for each frame.")
        check_length(guider, clip, network.length, network.name, who)

    def with_layers(call, proceed):
        batch, unet_layers = frame_batch.read(call.options, call.x.shape[0], frames), network.places(call.unet)
        add = network.adding(call.seen.network(key, who), range(len(batch.numbers)), call.options)
        masked = None if mask is None else CallMask(mask, batch.numbers, batch.clips, crops_of(call.options, tuple(call.x.shape[2:]), who))

        def scaled(place, h):
            out = add(place, h)
            if masked is not None:
                return out * (strength * masked.at(h))
            return out if strength == 1 else out * strength

        with added({place: unet_layers[place] for place in network.layout}, scaled), over_frames(norms(call.unet) if over_all_frames else (), batch.clips):
            return proceed()

    m = unet_call.ride(model, key, who, with_layers, start_percent=start_percent, end_percent=end_percent, check=check)
    m.set_additional_models(key, [network.patcher_for(model)])
    if mask is not None:
        unet_call.add_once(m, WrappersMP.CALC_COND_BATCH, AREAS, note_areas)
    return m
