"""A picture's latent as a clip whose first frame stays the picture.

Shapes: z [F,4,h,w], frames along the batch, as the host lays out clips of image models.
"""
import torch


def picture_to_frames(z: torch.Tensor, frames: int, keep_first: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """z [1,C,h,w] -> (the picture `frames` times [F,C,h,w], mask [F,1,h,w] that is 0 where sampling must keep it, or None)."""
    clip = z.expand(frames, *z.shape[1:]).clone()
    if not keep_first:
        return clip, None
    mask = torch.ones(frames, 1, *z.shape[-2:])
    mask[0] = 0
    return clip, mask


def check_picture(z: torch.Tensor, who: str) -> None:
    """Raises ValueError unless z is the finite latent of one picture [1,C,h,w], not empty."""
    if z.ndim != 4 or z.shape[0] != 1 or not z.numel():
        raise ValueError(
            f"{who} needs the latent of one picture [1, channels, height, width], got {list(z.shape)}. "
            f"Connect VAE Encode of a single image; from a batch take one with Get Image from Batch."
        )
    if not torch.isfinite(z).all():
        raise ValueError(
            f"{who} got a latent with NaN or infinite values. Look at the node that made it: often a VAE that overflows "
            f"in half precision (start the host with --fp32-vae)."
        )
