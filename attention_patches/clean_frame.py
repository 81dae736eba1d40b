"""A first frame that is free of noise at every step (I2V-Adapter 3.2): the UNet is given the clean latent, the frame's prediction is that
latent, and sampling ends with exactly its bits.

A context window that lacks frame 1 is called with it at its head, as one frame more; so all windows see it. ControlNets see it clean too, as
they are given what the UNet is given.
"""
import copy

import torch
from comfy.patcher_extension import WrappersMP

from . import frames as frame_batch
from . import masks, unet_call


def with_frame(value, size: int, clips: int):
    """A tensor [size,...] of clips x frames with each clip's first entry once more in front; anything else as it is. Goes into lists and dicts."""
    if isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == size:
        parts = value.unflatten(0, (clips, -1))
        return torch.cat([parts[:, :1], parts], 1).flatten(0, 1)
    if isinstance(value, dict):
        return {k: with_frame(v, size, clips) for k, v in value.items()}
    if isinstance(value, list):
        return [with_frame(v, size, clips) for v in value]
    return value


def window_with_frame(options: dict, size: int, clips: int, numbers: tuple[int, ...]) -> dict:
    """transformer_options of a context window of these frames, with frame 1 in front of them."""
    options = {**options, "sigmas": with_frame(options.get("sigmas"), size, clips)}
    if (window := options.get("context_window")) is not None:
        options["context_window"] = window = copy.copy(window)
        window.index_list, window.causal_anchor_index = list(numbers), 0  # numbers: with the host's own anchor where it has set one
    if (params := options.get("ad_params") or {}).get("sub_idxs") is not None:
        options["ad_params"] = {**params, "sub_idxs": [0, *params["sub_idxs"]]}
    return options


def placed(z: torch.Tensor, batch, options: dict, size: tuple[int, int], who: str) -> torch.Tensor:
    """The clean frame of each clip in this call [clips,C,*size]: z [v,C,h,w] goes round the videos of each conditioning, cropped as an area prompt is."""
    crops = masks.crops_of(options, size, who)
    rows = z.repeat(batch.clips // len(z), 1, 1, 1)
    if crops is None:
        return rows
    areas = crops[1]
    each = batch.clips // len(areas)
    return torch.cat([rows[i * each:(i + 1) * each, :, y:y + h, x:x + w] for i, (y, x, h, w) in enumerate(areas)])


def replaced(x: torch.Tensor, clean: torch.Tensor, clips: int, position: int) -> torch.Tensor:
    """x [c*f,C,h,w] with `clean` [c,C,h,w] for the frame at `position` of each clip."""
    out = x.unflatten(0, (clips, -1)).clone()
    out[:, position] = clean.to(out)
    return out.flatten(0, 1)


def check_latent(z: torch.Tensor, latent: torch.Tensor, frames: int, who: str) -> None:
    """Raises ValueError unless z is one clean frame, or one for each clip, of the size of the latents that are sampled."""
    if z.shape[1:] != latent.shape[1:]:
        raise ValueError(f"{who}: the first frame is {list(z.shape[1:])}, the clip that is sampled {list(latent.shape[1:])} (channels, height / 8, width / 8). "
                         f"Encode the picture at the clip's size: put Upscale Image in front of VAE Encode.")
    clips = latent.shape[0] // (frames or latent.shape[0])
    if len(z) not in (1, clips):
        raise ValueError(f"{who} got {len(z)} first frames for {clips} clip{'s' if clips > 1 else ''}. Connect one picture, or one for each clip.")


def keep(model, z: torch.Tensor, who: str, *, frames: int = 0):
    """A clone of `model` whose clips keep z [1 or clips,C,h,w] (the host's latent space) as their clean first frame."""
    key = unet_call.key("clean_frame")
    inner = model.get_model_object("latent_format").process_in(z)

    def check(guider, noise, latent_image):
        frame_batch.check_frames(noise.shape[0], frames, who)
        check_latent(z, latent_image, frames, who)

    def call(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):  # noqa: B006
        batch, options = frame_batch.read(transformer_options, x.shape[0], frames), transformer_options
        more = 0 not in batch.numbers
        if more:
            size, clips = x.shape[0], batch.clips
            x, t, c_concat, c_crossattn, control, kwargs = with_frame([x, t, c_concat, c_crossattn, control, kwargs], size, clips)
            options = window_with_frame(options, size, clips, batch.numbers)
        out = executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        if more:
            return out.unflatten(0, (batch.clips, -1))[:, 1:].flatten(0, 1)
        return replaced(out, placed(inner.to(out), batch, options, tuple(out.shape[2:]), who), batch.clips, batch.numbers.index(0))

    def for_controls(executor, model, conds, x_in, timestep, model_options):
        """The host scales this for its ControlNets as for the UNet; with the noisy latents of frame 1 they would steer by another picture."""
        batch = frame_batch.read(model_options.get("transformer_options", {}), x_in.shape[0], frames)
        if 0 in batch.numbers:
            scale = model.model_sampling.calculate_input(timestep[:1], torch.ones_like(x_in[:1]))
            clean = inner.to(x_in) / scale
            x_in = replaced(x_in, clean.repeat(batch.clips // len(clean), 1, 1, 1), batch.clips, batch.numbers.index(0))
        return executor(model, conds, x_in, timestep, model_options)

    def clean_input(call, proceed):
        batch = frame_batch.read(call.options, call.x.shape[0], frames)
        clean = placed(inner.to(call.x), batch, call.options, tuple(call.x.shape[2:]), who)
        return proceed(x=replaced(call.x, clean, batch.clips, batch.numbers.index(0)))

    def ends_with_it(executor, noise, latent_image, *args, **kwargs):
        out = executor(noise, latent_image, *args, **kwargs)
        return replaced(out, z, out.shape[0] // (frames or out.shape[0]), 0)

    m = unet_call.ride(model, key, who, clean_input, check=check)
    m.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, key, for_controls)
    m.add_wrapper_with_key(WrappersMP.APPLY_MODEL, key, call)
    m.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, ends_with_it)
    unet_call.add_once(m, WrappersMP.CALC_COND_BATCH, masks.AREAS, masks.note_areas)
    return m
