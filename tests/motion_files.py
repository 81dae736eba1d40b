"""Motion modules and LoRAs with random weights in the published formats. Import as `firstframe.tests.motion_files`."""
import torch
from firstframe.attention_patches.unet import width
from firstframe.networks.motion_module import places, positions

LENGTHS = {"v1": 24, "v2": 32, "v3": 32, "SDXL": 32}


def widths(model, version: str) -> dict[str, int]:
    """{place: channels} of a module of that version for the model's UNet."""
    found = {place: width(layer) for place, layer in places(model.get_model_object("diffusion_model")).items()}
    return {place: c for place, c in found.items() if version == "v2" or not place.startswith("mid_block")}


def shapes(c: int) -> dict[str, tuple]:
    """One temporal transformer in AnimateDiff's names."""
    out = {"norm.weight": (c,), "norm.bias": (c,), "proj_in.weight": (c, c), "proj_in.bias": (c,), "proj_out.weight": (c, c), "proj_out.bias": (c,)}
    block = "transformer_blocks.0."
    for i in (0, 1):
        attention = f"{block}attention_blocks.{i}."
        out |= {f"{attention}{p}.weight": (c, c) for p in ("to_q", "to_k", "to_v", "to_out.0")} | {f"{attention}to_out.0.bias": (c,)}
        out |= {f"{block}norms.{i}.weight": (c,), f"{block}norms.{i}.bias": (c,)}
    return out | {f"{block}ff.net.0.proj.weight": (8 * c, c), f"{block}ff.net.0.proj.bias": (8 * c,), f"{block}ff.net.2.weight": (c, 4 * c),
                  f"{block}ff.net.2.bias": (c,), f"{block}ff_norm.weight": (c,), f"{block}ff_norm.bias": (c,)}


def module(model, version: str = "v3", seed: int = 0, stored_positions: bool = True) -> dict[str, torch.Tensor]:
    """The state dict of a motion module file."""
    generator, sd = torch.Generator().manual_seed(seed), {}
    for place, c in widths(model, version).items():
        base = f"{place}.temporal_transformer."
        for name, shape in shapes(c).items():
            noise = torch.randn(shape, generator=generator)
            sd[base + name] = noise / shape[1] ** 0.5 if len(shape) > 1 else (1 if "norm" in name and name.endswith("weight") else 0) + 0.1 * noise
        if stored_positions:
            for i in (0, 1):
                sd[f"{base}transformer_blocks.0.attention_blocks.{i}.pos_encoder.pe"] = positions(range(LENGTHS[version]), c, torch.zeros(1))[None]
    return sd


def as_diffusers(sd: dict) -> dict:
    """The same as diffusers' MotionAdapter stores it (which is what UNetMotionModel's keys are, too)."""
    out = {}
    for key, value in sd.items():
        if key.endswith("pos_encoder.pe"):
            if "attention_blocks.0." in key:
                out[key.replace("attention_blocks.0.pos_encoder", "pos_embed").replace(".temporal_transformer", "")] = value
            continue
        for ours, theirs in (("attention_blocks.0", "attn1"), ("attention_blocks.1", "attn2"), ("norms.0", "norm1"), ("norms.1", "norm2"), ("ff_norm", "norm3")):
            key = key.replace(f".{ours}.", f".{theirs}.")
        out[key.replace(".temporal_transformer", "")] = value
    return out


def lora(model, version: str = "v2", rank: int = 4, seed: int = 3) -> dict[str, torch.Tensor]:
    """A motion LoRA in AnimateDiff's names."""
    generator, sd = torch.Generator().manual_seed(seed), {}
    for place, c in widths(model, version).items():
        for i in (0, 1):
            for p in ("to_q", "to_k", "to_v", "to_out"):
                base = f"{place}.temporal_transformer.transformer_blocks.0.attention_blocks.{i}.processor.{p}_lora."
                sd[base + "down.weight"] = torch.randn(rank, c, generator=generator) / c**0.5
                sd[base + "up.weight"] = torch.randn(c, rank, generator=generator) / rank**0.5
    return sd


def domain_adapter(model, rank: int = 4, seed: int = 5) -> dict[str, torch.Tensor]:
    """v3's domain adapter: a LoRA of the spatial UNet in AnimateDiff's names."""
    from comfy.utils import unet_to_diffusers
    generator, sd = torch.Generator().manual_seed(seed), {}
    weights = model.model.diffusion_model.state_dict()
    for theirs, ours in unet_to_diffusers(model.model.model_config.unet_config).items():
        place, _, projection = theirs.removesuffix(".weight").partition(".to_")
        if place.endswith((".attn1", ".attn2")) and theirs.endswith(".weight"):
            out, into = weights[ours].shape
            base = f"{place}.processor.to_{projection.removesuffix('.0')}_lora."
            sd[base + "down.weight"] = torch.randn(rank, into, generator=generator) / into**0.5
            sd[base + "up.weight"] = torch.randn(out, rank, generator=generator) / rank**0.5
    return sd
