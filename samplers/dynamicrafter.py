"""What DynamiCrafter makes of a picture before sampling (Xing et al. 2023, its published scripts): the frame's cut, CLIP's view of it, the latents beside the noise.

Pictures [1,H,W,3] in 0..1, latents [n,4,h,w] in the space of LATENTs.
"""
import torch
import torch.nn.functional as F
from comfy.utils import common_upscale
from kornia.geometry.transform import resize

CLIP_SIDE = 224
OFFICIAL, FILL, STRETCH = "official: cut, black beside a narrow picture", "cut", "stretch (ComfyUI-DynamiCrafterWrapper)"
FITS = (OFFICIAL, FILL, STRETCH)
FRAME, WHOLE, MIDDLE = "frame, squashed (official script)", "whole picture, squashed (official page)", "frame's middle square (other packs)"
VIEWS = (FRAME, WHOLE, MIDDLE)
GREY, BLACK, NOISE = "grey (official)", "black (ComfyUI_Native_DynamiCrafter)", "noise (ComfyUI-DynamiCrafterWrapper)"
BLANKS = (GREY, BLACK, NOISE)


def cut(picture: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """[1,height,width,3]: the shorter side is scaled to the shorter of both, the middle is cut out; what a narrow picture lacks at its sides is black."""
    H, W = picture.shape[1:3]
    scale = min(width, height) / min(H, W)
    size = [max(1, int(n * scale)) for n in (H, W)]
    scaled = F.interpolate(picture[..., :3].movedim(-1, 1), size, mode="bilinear", antialias=True)
    for axis, n in ((-2, height), (-1, width)):
        lack = max(0, n - scaled.shape[axis])
        sides = (lack // 2, lack - lack // 2)
        scaled = F.pad(scaled, (*sides, 0, 0) if axis == -1 else (0, 0, *sides))
        scaled = scaled.narrow(axis, round((scaled.shape[axis] - n) / 2), n)
    return scaled.movedim(1, -1).clamp(0, 1)


def fitted(picture: torch.Tensor, width: int, height: int, fit: str) -> torch.Tensor:
    """[1,height,width,3], as one of FITS has it."""
    if fit == OFFICIAL:
        return cut(picture, width, height)
    channels = picture[..., :3].movedim(-1, 1)
    if fit == FILL:
        return common_upscale(channels, width, height, "bilinear", "center").movedim(1, -1)
    return F.interpolate(channels, (height, width), mode="bilinear").movedim(1, -1)


def squashed(picture: torch.Tensor) -> torch.Tensor:
    """[1,224,224,3]: the whole picture as the image tower gets it, its proportions lost."""
    small = resize(picture[..., :3].movedim(-1, 1), (CLIP_SIDE, CLIP_SIDE), interpolation="bicubic", align_corners=True, antialias=True)
    return small.movedim(1, -1).clamp(0, 1)


def seen(picture: torch.Tensor, frame: torch.Tensor, view: str) -> torch.Tensor:
    """What the image tower gets to see of a picture and the frame that was made of it, by one of VIEWS. It cuts out the middle square itself."""
    return frame if view == MIDDLE else squashed(picture if view == WHOLE else frame)


def blank(kind: str) -> torch.Tensor:
    """[1,224,224,3]: what the image tower gets for no picture, one of BLANKS. The noise is always the same."""
    if kind == NOISE:
        return torch.rand(1, 3, CLIP_SIDE, CLIP_SIDE, generator=torch.Generator().manual_seed(0)).movedim(1, -1)
    return torch.full((1, CLIP_SIDE, CLIP_SIDE, 3), 0.5 if kind == GREY else 0.0)


def beside_noise(first: torch.Tensor, last: torch.Tensor | None, frames: int) -> torch.Tensor:
    """The latents that stand beside each frame's noise: [1,4,h,w], the picture's for all frames; with a last one [frames,4,h,w], both at their ends and zero between."""
    if last is None:
        return first[:1]
    z = first.new_zeros(frames, *first.shape[1:])
    z[0], z[-1] = first[0], last[0]
    return z
