"""Tiny random video transformers of the host's own classes, in the real patcher. Import as `firstframe.tests.video_models`."""
import comfy.model_patcher
import torch
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


def latent(m, frames: int = 3, size: int = 8, seed: int = 2) -> torch.Tensor:
    """[1,C,frames,size,size]."""
    return torch.randn(1, m.get_model_object("latent_format").latent_channels, frames, size, size, generator=torch.Generator().manual_seed(seed))


def conditioning(seed: int, **options) -> list:
    """attention_mask: LTX needs one."""
    return [[torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(seed)), {"attention_mask": torch.ones(1, 7, dtype=torch.long), **options}]]
