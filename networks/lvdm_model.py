"""DynamiCrafter's and VideoCrafter's UNet as a model of the host: what goes into its calls, and its noise schedule.

The classes are ours alone: nothing is added to the host's list of models, so that other loaders go on as before.
"""
from functools import partial

import comfy.conds
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import comfy.utils
import torch
from comfy.model_base import ModelType

from ..samplers.dynamic_rescale import DynamicRescale, DynamicRescaleEPS
from .lvdm_files import AUTO, Contents, look
from .lvdm_unet import Layout, LvdmUNet

IMAGE_TOKENS, FPS, CONCAT = "image_tokens", "fps", "concat_latent_image"  # in a CONDITIONING's options
FPS_UNSAID = 16  # VideoCrafter's published UNet, where a call says none


class LvdmModel(comfy.model_base.BaseModel):
    """Frames along the batch. A CONDITIONING brings image_tokens [1,m,D]; fps, a number; concat_latent_image [1 or F,4,h,w], in the space of LATENTs. VideoCrafter takes no
    concat_latent_image, and image_tokens only where it has layers for them."""

    def __init__(self, model_config, layout: Layout, model_type=ModelType.EPS, device=None):
        super().__init__(model_config, model_type, device, partial(LvdmUNet, layout))
        if "rescale_base" in model_config.sampling_settings:
            self.model_sampling = (DynamicRescale if model_type == ModelType.V_PREDICTION else DynamicRescaleEPS)(model_config)

    def extra_conds(self, **kwargs):
        found, noise = super().extra_conds(**kwargs), kwargs["noise"]
        if self.diffusion_model.in_channels > noise.shape[1]:
            z = kwargs.get(CONCAT)
            z = torch.zeros_like(noise) if z is None else self.process_latent_in(z)
            if z.shape[-2:] != noise.shape[-2:]:
                z = comfy.utils.common_upscale(z, noise.shape[-1], noise.shape[-2], "bilinear", "center")
            found["c_concat"] = comfy.conds.CONDNoiseShape(comfy.utils.resize_to_batch_size(z, noise.shape[0]))
        if (tokens := kwargs.get(IMAGE_TOKENS)) is not None:
            found[IMAGE_TOKENS] = comfy.conds.CONDRegular(tokens)
        fps = kwargs.get(FPS)
        if fps is None and self.model_config.videocrafter:
            fps = FPS_UNSAID
        if fps is not None and self.model_config.layout.embedding:
            found[FPS] = comfy.conds.CONDRegular(torch.tensor([float(fps)]))
        return found


class LvdmConfig(comfy.supported_models.SD20):
    """Of a model of that layout. unet_config: the host's, of the spatial part; rescale_base: of the dynamic rescale, None: without. DynamiCrafters with it
    predict velocity, with zero terminal SNR; those without and all VideoCrafters predict noise."""

    def __init__(self, unet_config: dict, layout: Layout, rescale_base: float | None = None):
        super().__init__(unet_config)
        self.unet_config |= {key: unet_config[key] for key in self.unet_extra_config.keys() & unet_config.keys()}
        self.layout = layout
        if rescale_base is not None:
            self.sampling_settings |= {"rescale_base": rescale_base, "zsnr": not self.videocrafter}

    @property
    def videocrafter(self) -> bool:
        """Its UNet sees no latents beside the noise."""
        return self.unet_config["in_channels"] == self.latent_format.latent_channels

    def model_type(self, state_dict, prefix=""):
        return ModelType.V_PREDICTION if self.sampling_settings.get("zsnr") else ModelType.EPS

    def get_model(self, state_dict, prefix="", device=None):
        return LvdmModel(self, self.layout, self.model_type(state_dict, prefix), device)


def in_patcher(unet: dict, config: dict, layout: Layout, rescale_base: float | None, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The model with these weights (under LvdmUNet's names) in the host's patcher, in the precision that the host chooses, not yet on the card."""
    device, parameters = comfy.model_management.get_torch_device(), sum(v.numel() for v in unet.values())
    made = LvdmConfig(config, layout, rescale_base)
    dtype = comfy.model_management.unet_dtype(model_params=parameters, supported_dtypes=made.supported_inference_dtypes, weight_dtype=comfy.utils.weight_dtype(unet))
    made.set_inference_dtype(dtype, comfy.model_management.unet_manual_cast(dtype, device, made.supported_inference_dtypes), device=device)
    model = made.get_model({}, device=comfy.model_management.unet_inital_load_device(parameters, dtype))
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = kind(model, load_device=device, offload_device=comfy.model_management.unet_offload_device())
    model.load_model_weights(dict(unet), assign=patcher.is_dynamic())
    return patcher


def from_file(source, name: str, chosen: str = AUTO, contents: Contents | None = None, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The file's UNet. source(): its tensors, each time that the host needs another copy (another device, one outside dynamic VRAM); contents: what `look` found in them."""
    found = contents or look(source(), name, chosen)
    patcher = in_patcher(found.unet, found.config, found.layout, found.version.base, disable_dynamic)
    patcher.cached_patcher_init = (from_file, (source, name, chosen))
    return patcher
