"""Files of I2V-Adapters with random weights for a tiny UNet, in the published format. Import as `firstframe.tests.i2v_adapter_files`."""
import torch
from firstframe.attention_patches.unet import named_blocks


def i2v_adapter(model, seed: int = 3) -> dict:
    """As i2v_module.pth, no weight zero."""
    generator, sd = torch.Generator().manual_seed(seed), {}
    for place, block in named_blocks(model.get_model_object("diffusion_model")).items():
        C = block.attn1.to_q.in_features
        for part, size in (("to_q_ff.weight", (C, C)), ("to_out_ff.weight", (C, C)), ("to_out_ff.bias", (C,))):
            sd[f"{place}.attn1.{part}"] = torch.randn(size, generator=generator) / C**0.5
    return sd
