"""Which entry of the batch is which frame. Every patch of the pack asks here and nowhere else.

The host hands the UNet a batch in which conditionings and frames share one axis: chunk 0 with all its frames, then
chunk 1, ... A chunk is one entry of `cond_or_uncond`; it may hold several clips one after another. A context window
holds only some frames of the clip, each with its number in the whole clip.
"""
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class FrameBatch:
    """The batch axis as [clips, frames]: clips counts conditionings x videos; numbers[i] is the frame at position i (0 = first)."""

    clips: int
    numbers: tuple[int, ...]
    total: int  # frames of the whole clip, of which a context window shows some


def window_of(transformer_options: dict) -> tuple[tuple[int, ...], int] | None:
    """(frame numbers, frames of the whole clip) of the context window in this call, or None.

    Reads the host's `context_window` along the batch (its causal anchor is an extra frame in front) and
    AnimateDiff-Evolved's `ad_params`.
    """
    window = transformer_options.get("context_window")
    if window is not None and getattr(window, "dim", 0) == 0:
        anchor = getattr(window, "causal_anchor_index", None)
        front = [anchor] if anchor is not None and anchor >= 0 else []
        return tuple(front + list(window.index_list)), window.total_frames
    params = transformer_options.get("ad_params") or {}
    if params.get("sub_idxs") is not None:
        return tuple(params["sub_idxs"]), params["full_length"]
    return None


def check_frames(batch: int, frames: int, who: str) -> None:
    """Raises ValueError unless `batch` latents are one or more clips of `frames` frames (0: one clip) of at least two."""
    if batch < 2 or frames == 1:
        raise ValueError(
            f"{who} relates the frames of a clip and needs at least 2, got {min(batch, frames or batch)}. "
            f"Give the latent one entry per frame: raise 'frames' in Picture to Frames (or batch_size in Empty Latent Image)."
        )
    check_clips(batch, frames, who)


def check_clips(batch: int, frames: int, who: str) -> None:
    """Raises ValueError unless `batch` latents are whole clips of `frames` frames (0: one clip)."""
    if frames and batch % frames:
        raise ValueError(
            f"{who} got {batch} latents, which are not whole clips of {frames} frames. "
            f"Set its 'frames' to 0 (all latents are one clip) or to a number that divides {batch}."
        )


def check_channels(z: torch.Tensor, channels: int, who: str) -> None:
    """Raises ValueError unless z is [B,channels,h,w]."""
    if z.ndim != 4 or z.shape[1] != channels:
        raise ValueError(
            f"{who} got latents {list(z.shape)}, this model works on [frames, {channels}, height/8, width/8]. "
            f"Encode the picture with the model's own VAE (or make the latent with Empty Latent Image)."
        )


def check_finite(z: torch.Tensor, who: str) -> None:
    """Raises ValueError if a latent holds NaN or infinity, which attention would spread over all frames."""
    if not torch.isfinite(z).all():
        bad = sum(not torch.isfinite(frame).all() for frame in z)
        raise ValueError(
            f"{who} got latents with NaN or infinite values in {bad} of {len(z)} entries. Look at the node that made the latent: "
            f"often a VAE that overflows in half precision (start the host with --fp32-vae) or a broken checkpoint."
        )


def read(transformer_options: dict, batch: int, frames: int = 0) -> FrameBatch:
    """The layout of this UNet call. batch: size of its first axis; frames: of one clip, 0 = all latents are one clip.

    A context window decides for itself. Outside a guider (no `cond_or_uncond`) the batch is one chunk.
    """
    chunks = len(transformer_options.get("cond_or_uncond") or (0,))
    window = window_of(transformer_options)
    if window is not None:
        numbers, total = window
    else:
        total = frames or batch // chunks
        numbers = tuple(range(total))
    if not numbers or batch % (chunks * len(numbers)):
        raise ValueError(
            f"A batch of {batch} (for {chunks} conditionings) cannot be divided into clips of {len(numbers)} frames. "
            f"Set 'frames' to 0 (all latents are one clip) or to a number that divides the batch."
        )
    return FrameBatch(batch // len(numbers), numbers, total)


def conditional_rows(transformer_options: dict, batch: int) -> list[int]:
    """Rows of the batch that carry a positive conditioning (0 in `cond_or_uncond`); all of them outside a guider."""
    chunks = transformer_options.get("cond_or_uncond") or (0,)
    size = batch // len(chunks)
    return [row for i, chunk in enumerate(chunks) if chunk == 0 for row in range(i * size, (i + 1) * size)]
