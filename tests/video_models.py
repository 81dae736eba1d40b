"""Tiny random video transformers of the host's own classes, in the real patcher. Import as `firstframe.tests.video_models`."""
import json

import comfy.model_patcher
import comfy.sd
import torch
from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE
from comfy.ldm.wan.vae import WanVAE
from comfy.supported_models import LTXV, WAN21_I2V, WAN21_T2V
from firstframe.tests.tiny_models import CPU

WAN = dict(image_model="wan2.1", model_type="t2v", dim=128, ffn_dim=64, num_heads=1, num_layers=1, in_dim=16, out_dim=16, text_dim=32, freq_dim=64)
KINDS = {
    "Wan": (WAN21_T2V, WAN),
    "Wan i2v": (WAN21_I2V, {**WAN, "model_type": "i2v", "in_dim": 36}),
    "LTX": (LTXV, dict(image_model="ltxv", in_channels=128, cross_attention_dim=64, attention_head_dim=32, num_attention_heads=2, caption_channels=32, num_layers=1)),
}


def model(kind: str, seed: int = 0) -> comfy.model_patcher.ModelPatcher:
    """With random weights."""
    cls, config = KINDS[kind]
    supported = cls(dict(config))
    supported.set_inference_dtype(torch.float32, None)
    base = supported.get_model({}, "", device=CPU)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(1, parameter[0].numel()) ** 0.5)
    return comfy.model_patcher.ModelPatcher(base, load_device=CPU, offload_device=CPU)


LTX_BLOCKS = [*[["compress_all", 1]] * 3, ["res_x", 1]]
LTX_VAE = {"dims": 3, "in_channels": 3, "out_channels": 3, "latent_channels": 128, "blocks": LTX_BLOCKS, "patch_size": 4, "latent_log_var": "uniform", "norm_layer": "pixel_norm",
           "causal_decoder": False, "encoder_base_channels": 16, "decoder_base_channels": 16}


def vae(kind: str) -> comfy.sd.VAE:
    """A tiny one with random weights, as the host finds it in a file."""
    net = VideoVAE(config=LTX_VAE) if kind == "LTX" else WanVAE(dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[], temperal_downsample=[False, True, True])
    generator = torch.Generator().manual_seed(0)
    sd = {key: torch.randn(value.shape, generator=generator) / max(1, value[0].numel()) ** 0.5 if value.ndim > 1 and "gamma" not in key else torch.ones_like(value)
          for key, value in net.state_dict().items()}
    return comfy.sd.VAE(sd=sd, metadata={"config": json.dumps({"vae": LTX_VAE})} if kind == "LTX" else None, device=CPU)


def latent(m, frames: int = 3, size: int = 8, seed: int = 2) -> torch.Tensor:
    """[1,C,frames,size,size]."""
    return torch.randn(1, m.get_model_object("latent_format").latent_channels, frames, size, size, generator=torch.Generator().manual_seed(seed))


def conditioning(seed: int, **options) -> list:
    """attention_mask: LTX needs one."""
    return [[torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(seed)), {"attention_mask": torch.ones(1, 7, dtype=torch.long), **options}]]
