"""A SparseCtrl model as the host's CONTROL_NET. Strength, range, chaining, merging and memory are the host's; here is which frame has which picture.

How long the clip is, and which of its frames a call holds, is known only while sampling: the pictures are laid out then, for each call.
"""
import comfy.latent_formats
import comfy.model_management
import comfy.utils
import torch
from comfy.controlnet import ControlNet
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ..attention_patches import frames as frame_batch
from ..attention_patches.unet import width
from .motion_module import places_on
from .sparse_ctrl import Layout

WHO = "Apply SparseCtrl"


def laid_out(pictures: torch.Tensor, shown: list[int], clips: int) -> torch.Tensor:
    """[n,C,h,w] pictures -> [c*f,C+1,h,w]: on a frame with picture k (from 1) that and a mask of ones, on one without (0) zeros."""
    known = torch.cat([pictures, torch.ones_like(pictures[:, :1])], 1)
    return torch.cat([torch.zeros_like(known[:1]), known])[list(shown) * clips]


class SparseControl(ControlNet):
    """patcher: the host's, around a SparseCtrl; length: frames that it knows; numbers: of each picture the frame that it is of, from 0 (below 0: from the end),
    none: they are the first frames; frames: of one clip, 0: the batch is one."""

    def __init__(self, patcher, name: str, layout: Layout, length: int, numbers: tuple[int, ...] = (), frames: int = 0):
        super().__init__(None, compression_ratio=1 if layout.latents else 8, latent_format=comfy.latent_formats.SD15() if layout.latents else None, extra_conds=[])
        self.name, self.layout, self.length, self.numbers, self.frames = name, layout, length, numbers, frames
        self.hold(patcher)
        self.sizes = {}  # of this run: the pictures at each size that was asked for

    def hold(self, patcher) -> None:
        self.control_model_wrapped, self.control_model, self.load_device = patcher, patcher.model, patcher.load_device
        self.manual_cast_dtype = comfy.model_management.unet_manual_cast(patcher.model.dtype, patcher.load_device)

    def at(self, numbers, frames: int = 0) -> "SparseControl":
        """A copy for pictures of these frames."""
        c = self.copy()
        c.numbers, c.frames = tuple(numbers), frames
        return c

    def copy(self) -> "SparseControl":
        c = SparseControl(self.control_model_wrapped, self.name, self.layout, self.length, self.numbers, self.frames)
        self.copy_to(c)
        return c

    def deepclone_multigpu(self, load_device, autoregister=False):
        c = self.copy()
        c.hold(self.control_model_wrapped.deepclone_multigpu(load_device))  # from the file: a network in use must not be copied as an object
        if autoregister:
            self.multigpu_clones[load_device] = c
        return c

    def pre_run(self, model, percent_to_timestep_function):
        self.check_fits(model)
        super().pre_run(model, percent_to_timestep_function)

    def cleanup(self):
        super().cleanup()
        self.sizes = {}

    def check_fits(self, model) -> None:
        """Raises ValueError unless the model's UNet is one of this layout."""
        unet, own = model.diffusion_model, {place: size.channels for place, size in self.layout.motion.items()}
        fits = isinstance(unet, UNetModel) and {place: width(layer) for place, layer in places_on(unet, "down").items()} == own
        if not fits or model.model_config.unet_config.get("context_dim") != self.layout.context:
            raise ValueError(f"{WHO}: {self.name!r} is for SD1.5-type models with levels of {'-'.join(map(str, self.layout.widths))} channels and a text of {self.layout.context}, "
                             f"this {type(model.model_config).__name__} model is another. Choose an SD1.5 checkpoint in Load Checkpoint.")

    def shown(self, batch: frame_batch.FrameBatch, pictures: int) -> list[int]:
        """Of each frame of a call the number of its picture, from 1; 0: none. Raises ValueError for pictures that the clip has no frame for."""
        numbers = self.numbers or tuple(range(pictures))
        if len(numbers) != pictures:
            raise ValueError(f"{WHO} got {pictures} pictures and {len(numbers)} frame numbers. Give it one frame number for each picture.")
        beyond = [n for n in numbers if not -batch.total <= n < batch.total]
        if beyond:
            raise ValueError(f"{WHO} has a picture for frame {beyond[0]}, and the clip has {batch.total} frames: 0 to {batch.total - 1}. Correct 'frame_numbers', or give it fewer pictures.")
        place = {n % batch.total: k + 1 for k, n in enumerate(numbers)}
        if len(place) < len(numbers):
            raise ValueError(f"{WHO} has two pictures for one of the frames {', '.join(map(str, numbers))} of a clip of {batch.total}. Give each a frame of its own in 'frame_numbers'.")
        return [place.get(n, 0) for n in batch.numbers]

    def pictures_at(self, h: int, w: int, x: torch.Tensor) -> torch.Tensor:
        """The pictures for latents of h x w, as the model takes them: scaled to that size, and encoded where it takes latents."""
        if (h, w) not in self.sizes:
            if self.latent_format is not None and self.vae is None:
                raise ValueError(f"{WHO} needs the VAE for {self.name!r}, which looks at latents. Connect 'vae'.")
            scale = self.compression_ratio * (self.vae.spacial_compression_encode() if self.latent_format is not None else 1)
            hint = comfy.utils.common_upscale(self.cond_hint_original[:, :3], w * scale, h * scale, self.upscale_algorithm, "center")
            if self.latent_format is not None:
                loaded = comfy.model_management.loaded_models(only_currently_used=True)
                hint = self.vae.encode(hint.movedim(1, -1))
                comfy.model_management.load_models_gpu(loaded)
                frame_batch.check_channels(hint, 4, WHO)
                hint = self.latent_format.process_in(hint)
            self.sizes[h, w] = hint.to(x.device, self.manual_cast_dtype or self.control_model.dtype)
        return self.sizes[h, w]

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        if frame_batch.window_of(transformer_options) is None:
            frame_batch.check_clips(len(x_noisy) // batched_number, self.frames, WHO)
        batch = frame_batch.read(transformer_options, len(x_noisy), self.frames)
        if len(batch.numbers) > self.length:
            raise ValueError(f"{WHO}: {self.name!r} knows {self.length} frames, one call would hold {len(batch.numbers)}. "
                             f"Put Context Windows (Manual) with context_length 16 on the model, or make fewer frames.")
        shown = self.shown(batch, len(self.cond_hint_original))
        self.cond_hint = laid_out(self.pictures_at(*x_noisy.shape[2:], x_noisy), shown, batch.clips)
        self.set_extra_arg("shown", shown)
        return super().get_control(x_noisy, t, cond, batched_number, transformer_options)
