"""Tiny random UNets of the host's own classes, in the real patcher, and one way to sample with them. Import as `firstframe.tests.tiny_models`."""
import functools

import comfy.controlnet
import comfy.memory_management
import comfy.model_patcher
import comfy.ops
import comfy.sample
import comfy.samplers
import comfy.supported_models
import torch
from comfy.cldm.cldm import ControlNet
from firstframe.demo import comfy_support

CPU = torch.device("cpu")
CONTEXT = 64
COMMON = dict(
    image_size=32, in_channels=4, out_channels=4, model_channels=32, context_dim=CONTEXT, use_spatial_transformer=True, legacy=False,
    use_checkpoint=False, use_temporal_resblock=False, use_temporal_attention=False,
)
SD15 = dict(COMMON, num_res_blocks=[2, 2, 2, 2], channel_mult=[1, 1, 1, 1], transformer_depth=[1] * 6 + [0] * 2,
            transformer_depth_output=[1] * 9 + [0] * 3, transformer_depth_middle=1, use_linear_in_transformer=False, adm_in_channels=None)
SDXL = dict(COMMON, num_res_blocks=[2, 2, 2], channel_mult=[1, 2, 2], transformer_depth=[0, 0, 2, 2, 3, 3],
            transformer_depth_output=[0, 0, 0, 2, 2, 2, 3, 3, 3], transformer_depth_middle=3, use_linear_in_transformer=True,
            adm_in_channels=2816, num_classes="sequential")
DEEP = dict(  # of SDXL, in the overrides of `model`: as many attention layers as the real one has, 70
    transformer_depth=[0, 0, 2, 2, 10, 10], transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10], transformer_depth_middle=10)
SMALL = dict(  # of SD1.5, in the overrides of `model`: two levels
    num_res_blocks=[1, 1], channel_mult=[1, 1], transformer_depth=[1, 1], transformer_depth_output=[1, 1, 1, 1])
SHAPES = {
    "SD1.5": (comfy.supported_models.SD15, SD15),
    "SDXL": (comfy.supported_models.SDXL, SDXL),
    "demo": (comfy_support.FirstFrameDemo, comfy_support.UNET),
}


def model(shape: str = "SD1.5", dtype=torch.float32, seed: int = 0, device=CPU, disable_dynamic: bool = False, **overrides) -> comfy.model_patcher.ModelPatcher:
    """A model of that family with random weights (no layer is zero), the same in dynamic mode; overrides: of the UNet's configuration."""
    cls, config = SHAPES[shape]

    def made():
        supported = cls({**config, **overrides})
        supported.set_inference_dtype(dtype, None)
        return supported.get_model({}, "", device=CPU)

    lazy, comfy.memory_management.aimdo_enabled = comfy.memory_management.aimdo_enabled, False  # such layers have no weights to fill
    try:
        base = made()
    finally:
        comfy.memory_management.aimdo_enabled = lazy
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in base.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(noise / p[0].numel() ** 0.5 if p.ndim > 1 else 1 + 0.1 * noise)
    if lazy:
        weights, base = base.state_dict(), made()
        base.load_state_dict(weights, assign=True)
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = kind(base, load_device=device, offload_device=CPU)
    patcher.cached_patcher_init = (functools.partial(model, **overrides), (shape, dtype, seed, device))
    return patcher


def control_net(seed: int = 1):
    """(a ControlNet for the SD1.5 model with random weights, a hint [1,128,128,3])."""
    config = {k: v for k, v in SD15.items() if k not in ("out_channels", "transformer_depth_output")}
    net = ControlNet(hint_channels=3, dtype=torch.float32, device=CPU, operations=comfy.ops.disable_weight_init, num_heads=8, **config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / (p[0].numel() ** 0.5 if p.ndim > 1 else 10))
    return comfy.controlnet.ControlNet(net, load_device=CPU, manual_cast_dtype=None), torch.rand(1, 128, 128, 3, generator=generator)


def conditioning(seed: int, tokens: int = 7, batch: int = 1, **options) -> list:
    generator = torch.Generator().manual_seed(seed)
    pooled = torch.randn(batch, 1280, generator=generator)
    return [[torch.randn(batch, tokens, CONTEXT, generator=generator), {"pooled_output": pooled, **options}]]


def latents(frames: int, size: int = 16, seed: int = 5) -> torch.Tensor:
    return torch.randn(frames, 4, size, size, generator=torch.Generator().manual_seed(seed))


def sample(m, z, *, positive=None, negative=None, cfg=3.0, steps=1, sigma=1.5, seed=11, noise_mask=None) -> torch.Tensor:
    """Euler from sigma to 0 through the host's guider; with one step this is the model's x0 after guidance."""
    sigmas = torch.cat([torch.linspace(sigma, sigma / steps, steps), torch.zeros(1)])
    return comfy.sample.sample_custom(
        m, latents(len(z), z.shape[-1], seed), cfg, comfy.samplers.sampler_object("euler"), sigmas,
        positive or conditioning(1), negative or conditioning(2), z, noise_mask=noise_mask, disable_pbar=True, seed=seed)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """max|a-b| / max|b|."""
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())
