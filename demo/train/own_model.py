"""A user's checkpoint and what goes with it, read by the host and made ready for training an adapter: whole on the device, frozen, on the motion module's noise schedule.

During training the UNet is the host's, with the parts that *Apply Motion Module* and *Apply I2V-Adapter*, or *Apply Content-Adapter*, put into it.
"""
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch
from torch.utils.checkpoint import checkpoint

WHO = "This training"


@contextmanager
def reading(file: Path):
    """Raises ValueError for a file that the host cannot read meanwhile."""
    from ...nodes.folders import reason
    try:
        yield
    except Exception as error:
        raise ValueError(f"{WHO} cannot read {str(file)!r}: {reason(error)}") from error


def read_file(file: Path) -> tuple[dict, dict | None]:
    """(the file's tensors, what it says of itself), through the host's safe loader. Raises ValueError for a file that it cannot read."""
    from comfy.utils import load_torch_file
    with reading(file):
        return load_torch_file(str(file), safe_load=True, return_metadata=True)


def weights_of(file: Path) -> dict:
    return read_file(file)[0]


def read_model(file: Path, vae: Path | None, loras: list[tuple[Path, float]], precision: torch.dtype) -> tuple:
    """(MODEL, CLIP, VAE) as the host's loaders give them. Raises ValueError for a checkpoint that no adapter goes with, or one that lacks a part."""
    import comfy.sd
    from comfy.model_base import ModelType

    from ...attention_patches.unet import check_model
    sd, metadata = read_file(file)
    found = comfy.sd.load_state_dict_guess_config(sd, output_vae=vae is None, model_options={"dtype": precision}, metadata=metadata)
    model, clip, own, _ = found or (None, None, None, None)
    if model is None or clip is None:
        raise ValueError(f"{WHO}: {file.name!r} has no {'UNet' if model is None else 'text encoder'}. Give --checkpoint a whole SD1.5 or SDXL checkpoint.")
    check_model(model, WHO, "goes on beside the attention")
    base = model.model
    if base.model_type not in (ModelType.EPS, ModelType.V_PREDICTION) or base.diffusion_model.in_channels != base.latent_format.latent_channels:
        raise ValueError(f"{WHO}: {file.name!r} is a {base.model_type.name} model with {base.diffusion_model.in_channels} input channels. "
                         f"Expected one that predicts noise or velocity, of latents alone: no inpainting model.")
    for lora, strength in loras:
        model, clip = comfy.sd.load_lora_for_models(model, clip, weights_of(lora), strength, strength)
        if not model.patches:
            raise ValueError(f"{WHO}: nothing in the LoRA {lora.name!r} fits {file.name!r}. Leave it out, or choose one for this kind of checkpoint.")
    vae = own if vae is None else comfy.sd.VAE(sd=weights_of(vae))
    try:
        vae.throw_exception_if_invalid()
    except RuntimeError as error:
        raise ValueError(f"{WHO}: there is no VAE in {file.name!r}. Name one with --vae.") from error
    return model, clip, vae


def read_motion(file: Path, model, frames: int):
    """The motion module. Raises ValueError for one of another kind of checkpoint, or one that knows fewer frames."""
    from ...attention_patches.inserted_layers import check_fits
    from ...networks.motion_module_files import motion_module
    motion = motion_module(partial(weights_of, file), file.name)
    check_fits(model, motion, WHO)
    if frames > motion.length:
        raise ValueError(f"{WHO}: the motion module {file.name!r} knows {motion.length} frames, --frames asks for {frames}.")
    return motion


def read_clip_vision(file: Path):
    """The CLIP_VISION as the host's loader gives it. Raises ValueError for a file that is none."""
    import comfy.clip_vision
    with reading(file):
        found = comfy.clip_vision.load(str(file))
    if found is None:
        raise ValueError(f"{WHO} finds no CLIP image tower in {file.name!r}. Give --clip-vision a file for Load CLIP Vision (ViT-H/14 for the published IP-Adapter plus).")
    return found


def saving_memory(module: torch.nn.Module):
    """Undoes itself when called: meanwhile the module keeps its input alone and computes what lies between once more on the way back."""
    module.forward = partial(checkpoint, module.forward, use_reentrant=False)
    return partial(delattr, module, "forward")


class OwnModel:
    """model: the MODEL, before the motion module; the host has frozen it. motion: the module, or None. precision: of the weights and of what is computed."""

    def __init__(self, model, motion, precision: torch.dtype):
        import comfy.model_management
        from comfy.model_base import ModelType

        from ...networks.motion_module_files import SCHEDULES
        from ...samplers.beta_schedule import with_betas
        if motion:
            model = with_betas(model, *SCHEDULES[motion.family], WHO)
        comfy.model_management.load_models_gpu([model], force_full_load=True)  # LoRAs go into the weights here
        self.base, self.device, self.precision, self.motion = model.model, model.load_device, precision, motion
        self.unet, self.net = self.base.diffusion_model, motion and motion.patcher.model.to(self.device, precision)
        self.velocity = self.base.model_type is ModelType.V_PREDICTION
        self.abar = (1 / (self.base.model_sampling.sigmas.double() ** 2 + 1)).float().to(self.device)

    @contextmanager
    def in_parts(self, save_memory: bool):
        """Meanwhile, where memory is saved, the UNet keeps the inputs of its parts alone. Backward passes have to come to their end in here."""
        from ...attention_patches.unet import spatial_layers
        with ExitStack() as stack:
            for block in (*self.unet.input_blocks, self.unet.middle_block, *self.unet.output_blocks) if save_memory else ():
                for layer in spatial_layers(block):
                    stack.callback(saving_memory(layer))
            yield

    @contextmanager
    def with_adapter(self, adapter, layers: dict, clips: int, frames: int, save_memory: bool):
        """Meanwhile the UNet has the motion module and the I2V-Adapter's branches in {place: attn1}; as `in_parts`."""
        from ...attention_patches.first_frame import branches
        from ...attention_patches.group_norm import norms, over_frames
        from ...attention_patches.inserted_layers import added
        places, add = self.motion.places(self.unet), self.motion.adding(self.net, range(frames), {})
        with ExitStack() as stack:
            stack.enter_context(self.in_parts(save_memory))
            stack.enter_context(added({place: places[place] for place in self.motion.layout}, partial(checkpoint, add, use_reentrant=False) if save_memory else add))
            stack.enter_context(over_frames(norms(self.unet) if self.motion.over_frames else (), clips))
            stack.enter_context(branches(layers, adapter.branch, 0, clips, frames, 1.0, {}))
            yield

    @contextmanager
    def with_content(self, adapter, layers: dict, tokens: Callable, save_memory: bool):
        """Meanwhile the UNet looks at the Content-Adapter's tokens(), as content_adapter.attending; and as `in_parts`."""
        from .content_adapter import attending
        with self.in_parts(save_memory), attending(layers, adapter, tokens, {}):
            yield

    def computing(self):
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def predicted(self, z: torch.Tensor, t: torch.Tensor, conditions: dict) -> torch.Tensor:
        """What the UNet says of latents z [n*frames,C,h,w] at timesteps t [n], with conditions {name: [n,...]}."""
        each = len(z) // len(t)
        given = {k: v.to(self.device, self.precision).repeat_interleave(each, 0) for k, v in conditions.items()}
        with self.computing():
            out = self.unet(z.to(self.precision), t.repeat_interleave(each).float(), context=given.pop("c_crossattn"), transformer_options={}, **given)
        return out.float()
