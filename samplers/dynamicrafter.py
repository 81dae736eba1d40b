"""What DynamiCrafter makes of a picture before sampling (Xing et al. 2023, its published scripts): the frame's cut, CLIP's view of it, the latents beside the noise.

Pictures [1,H,W,3] in 0..1, latents [n,4,h,w] in the space of LATENTs.
"""
import torch
import torch.nn.functional as F
from kornia.geometry.transform import resize

CLIP_SIDE = 224


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


def squashed(picture: torch.Tensor) -> torch.Tensor:
    """[1,224,224,3]: the whole picture as the image tower gets it, its proportions lost."""
    small = resize(picture[..., :3].movedim(-1, 1), (CLIP_SIDE, CLIP_SIDE), interpolation="bicubic", align_corners=True, antialias=True)
    return small.movedim(1, -1).clamp(0, 1)


def beside_noise(first: torch.Tensor, last: torch.Tensor | None, frames: int) -> torch.Tensor:
    """The latents that stand beside each frame's noise: [1,4,h,w], the picture's for all frames; with a last one [frames,4,h,w], both at their ends and zero between."""
    if last is None:
        return first[:1]
    z = first.new_zeros(frames, *first.shape[1:])
    z[0], z[-1] = first[0], last[0]
    return z
