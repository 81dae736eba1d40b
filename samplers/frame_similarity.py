"""Frame Similarity Prior (I2V-Adapter 3.3, Eq. 7): every frame starts from the degraded first one, x_t0^i ~ N(alpha_t0 D(x^1), sigma_t0^2 I).

Made here is D(x^1), the clean clip; the host's sampler adds the noise of t0 (samplers/start_level.py). Both the blur and the mask commute with
a latent's scale and shift, so it does not matter that the host hands latents on unscaled.

Shapes: x [1,C,h,w] the first frame's latent; u [F,C,h,w] uniform draws in [0, 1); clips [F,C,h,w], frames along the batch.
Letters: p is the share that is blurred. The paper's text has it the other way round in one sentence ("dictating the presence of the
original image") and this way in the next and in Table 2, where a larger p is more motion.
"""
import torch
from kornia.filters import gaussian_blur2d

from .first_frame import check_picture

OFFICIAL = dict(p=0.5, t0=1.0, kernel=9, sigma=18.0)  # the authors' code; with 25 steps of ddim_uniform it starts at timestep 961, as theirs


def gaussian_blur(x: torch.Tensor, kernel: int, sigma: float) -> torch.Tensor:
    """GaussianBlur of Eq. 7 on each channel, kernel x kernel cells (odd), the border mirrored. [N,C,h,w] -> float of the same shape."""
    return gaussian_blur2d(x.float(), (kernel, kernel), (sigma, sigma), border_type="reflect")


def degrade(x: torch.Tensor, u: torch.Tensor, p: float, kernel: int, sigma: float) -> torch.Tensor:
    """Eq. 7: D(x) = M_p x + (1 - M_p) GaussianBlur(x) for each frame of u, with M_p = [u >= p] per frame, channel and cell.

    p in [0, 1]: 0 is x itself (bit-identical), 1 its blur. [1,C,h,w], [F,C,h,w] -> [F,C,h,w].
    """
    return torch.where(u >= p, x, gaussian_blur(x, kernel, sigma).to(x.dtype))


def draws(shape, seed: int) -> torch.Tensor:
    """u [F,C,h,w] on the CPU, frame after frame from one generator, so that more frames leave the first ones as they are."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.rand(shape[1:], generator=generator) for _ in range(shape[0])])


def similar_frames(x: torch.Tensor, frames: int, p: float, kernel: int, sigma: float, seed: int) -> torch.Tensor:
    """[1,C,h,w] -> [frames,C,h,w]: frame 1 is x, the others D(x), each with its own mask."""
    u = draws((frames, *x.shape[1:]), seed).to(x.device)
    return torch.cat([x, degrade(x, u[1:], p, kernel, sigma)])


def first_latent(z: torch.Tensor, who: str) -> torch.Tensor:
    """z [1,C,h,w], or a video model's [1,C,T,h,w] with any T -> the first frame [1,C,h,w]. Raises ValueError for anything else."""
    x = z[:, :, 0] if z.ndim == 5 and z.shape[2] else z
    check_picture(x, who)
    return x


def as_video(clip: torch.Tensor) -> torch.Tensor:
    """[F,C,h,w] -> [1,C,F,h,w], as video models have it."""
    return clip.movedim(0, 1)[None].contiguous()


def check_kernel(kernel: int, x: torch.Tensor, who: str) -> None:
    """Raises ValueError unless kernel is odd and the mirrored border of x [1,C,h,w] is wide enough for it."""
    if kernel % 2 == 0:
        raise ValueError(f"{who} blurs around the cell in the middle and needs an odd 'kernel', got {kernel}. Set it to {kernel - 1} or {kernel + 1}.")
    height, width = x.shape[-2:]
    if kernel // 2 >= min(height, width):
        raise ValueError(f"{who} needs a latent of more than {kernel // 2} cells a side for a 'kernel' of {kernel}, got {height} x {width}. "
                         f"Encode a larger picture, or set the kernel to {2 * min(height, width) - 1} or less.")


def check_format(z: torch.Tensor, latent_format, model: str, who: str) -> None:
    """Raises ValueError unless z has the axes and channels of the model's latents. model: its kind, for the message."""
    channels, axes = latent_format.latent_channels, latent_format.latent_dimensions + 2
    if z.ndim != axes or z.shape[1] != channels:
        want = f"[1, {channels}, height, width]" if axes == 4 else f"[1, {channels}, frames, height, width]"
        raise ValueError(f"{who} got a latent {list(z.shape)}, and those of the connected model ({model}) are {want}. Encode the picture with this model's own VAE.")
