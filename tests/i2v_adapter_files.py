"""Files of I2V-Adapters with random weights for a tiny UNet, in the published format. Import as `firstframe.tests.i2v_adapter_files`."""
import comfy.utils
import torch
from firstframe.attention_patches.unet import named_blocks
from firstframe.tests import adapter_files, motion_files


def i2v_adapter(model, seed: int = 3) -> dict:
    """As i2v_module.pth, no weight zero."""
    generator, sd = torch.Generator().manual_seed(seed), {}
    for place, block in named_blocks(model.get_model_object("diffusion_model")).items():
        C = block.attn1.to_q.in_features
        for part, size in (("to_q_ff.weight", (C, C)), ("to_out_ff.weight", (C, C)), ("to_out_ff.bias", (C,))):
            sd[f"{place}.attn1.{part}"] = torch.randn(size, generator=generator) / C**0.5
    return sd


def in_unet(model, sd: dict) -> dict:
    """The layers of an IP-Adapter file under diffusers' names, each found by its cross-attention in the host's UNet."""
    places = {block.attn2: place for place, block in named_blocks(model.get_model_object("diffusion_model")).items()}
    numbers = {2 * m + 1: layer.attention for m, layer in enumerate(adapter_files.cross_layers(model.get_model_object("diffusion_model")))}
    return {f"{places[layer]}.attn2.{part}.weight": sd[f"ip_adapter.{n}.{part}.weight"] for n, layer in numbers.items() for part in ("to_k_ip", "to_v_ip")}


def whole_unet(model, sd: dict) -> dict:
    """As animatediff_v15_v1_ipplus.pth: the model's own weights in diffusers' naming, a motion module and the layers of the IP-Adapter file `sd`."""
    base = model.get_model_object("diffusion_model")
    names = {ours: theirs for theirs, ours in comfy.utils.unet_to_diffusers(model.model.model_config.unet_config).items() if not theirs.startswith("class_embedding")}
    return {names[key]: value for key, value in base.state_dict().items()} | motion_files.module(model, "v1") | in_unet(model, sd)
