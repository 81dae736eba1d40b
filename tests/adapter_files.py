"""IP-Adapters with random weights in the published format, and a small CLIP that sees. Import as `firstframe.tests.adapter_files`."""
import comfy.clip_vision
import comfy.memory_management
import torch
from firstframe.attention_patches.unet import cross_layers
from firstframe.tests import tiny_models

HIDDEN, PROJECTED, SIDE = 32, 48, 28  # of the small CLIP
CLIP = dict(num_hidden_layers=3, hidden_size=HIDDEN, num_attention_heads=4, intermediate_size=64, hidden_act="gelu", model_type="clip_vision_model",
            num_channels=3, image_size=SIDE, patch_size=14, projection_dim=PROJECTED)


def plain(width: int, embedding: int, tokens: int = 4) -> dict[str, tuple]:
    return {"proj.weight": (tokens * width, embedding), "proj.bias": (tokens * width,), "norm.weight": (width,), "norm.bias": (width,)}


def full(width: int, embedding: int) -> dict[str, tuple]:
    return {"proj.0.weight": (embedding, embedding), "proj.0.bias": (embedding,), "proj.2.weight": (width, embedding), "proj.2.bias": (width,),
            "proj.3.weight": (width,), "proj.3.bias": (width,)}


def plus(width: int, embedding: int, dim: int = 64, depth: int = 4, tokens: int = 16, inner: int | None = None) -> dict[str, tuple]:
    inner = inner or dim
    shapes = {"latents": (1, tokens, dim), "proj_in.weight": (dim, embedding), "proj_in.bias": (dim,), "proj_out.weight": (width, dim), "proj_out.bias": (width,),
              "norm_out.weight": (width,), "norm_out.bias": (width,)}
    for n in range(depth):
        shapes |= {f"layers.{n}.0.norm{i}.{part}": (dim,) for i in (1, 2) for part in ("weight", "bias")}
        shapes |= {f"layers.{n}.0.to_q.weight": (inner, dim), f"layers.{n}.0.to_kv.weight": (2 * inner, dim), f"layers.{n}.0.to_out.weight": (dim, inner),
                   f"layers.{n}.1.0.weight": (dim,), f"layers.{n}.1.0.bias": (dim,), f"layers.{n}.1.1.weight": (4 * dim, dim), f"layers.{n}.1.3.weight": (dim, 4 * dim)}
    return shapes


def layers(channels, width: int) -> dict[str, tuple]:
    return {f"{2 * m + 1}.to_{part}_ip.weight": (c, width) for m, c in enumerate(channels) for part in "kv"}


SD15 = [320] * 2 + [640] * 2 + [1280] * 5 + [640] * 3 + [320] * 3 + [1280]
SDXL = [640] * 4 + [1280] * 50 + [640] * 6 + [1280] * 10
PUBLISHED = {  # name: (image_proj, channels of the layers, width)
    "ip-adapter_sd15": (plain(768, 1024), SD15, 768), "ip-adapter-plus_sd15": (plus(768, 1280, 768), SD15, 768), "ip-adapter-full-face_sd15": (full(768, 1280), SD15, 768),
    "ip-adapter_sdxl": (plain(2048, 1280), SDXL, 2048), "ip-adapter_sdxl_vit-h": (plain(2048, 1024), SDXL, 2048), "ip-adapter-plus_sdxl_vit-h": (plus(2048, 1280, 1280), SDXL, 2048)}


def random(shapes: dict[str, tuple], seed: int = 0) -> dict[str, torch.Tensor]:
    generator, weights = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        norm = len(shape) == 1 and name.endswith("weight")
        weights[name] = noise / shape[-1] ** 0.5 if len(shape) > 1 else (1 if norm else 0) + 0.1 * noise
    return weights


def published(image_proj: dict, channels, width: int) -> dict[str, tuple]:
    """{key: shape} of a file."""
    return {f"image_proj.{k}": v for k, v in image_proj.items()} | {f"ip_adapter.{k}": v for k, v in layers(channels, width).items()}


def adapter(model, kind: str = "plain", seed: int = 0, width: int | None = None) -> dict[str, torch.Tensor]:
    """The state dict of a file for the model's UNet and for the small CLIP."""
    found = [layer.widths for layer in cross_layers(model.get_model_object("diffusion_model"))]
    width = width or found[0][1]
    shapes = {"plain": plain(width, PROJECTED), "plus": plus(width, HIDDEN), "full": full(width, HIDDEN)}[kind]
    return random(published(shapes, [c for c, _ in found], width), seed)


def nested(sd: dict, second: str = "ip_adapter") -> dict:
    """As a .bin holds it."""
    return {name: {k.removeprefix(f"{part}."): v for k, v in sd.items() if k.startswith(f"{part}.")} for part, name in (("image_proj", "image_proj"), ("ip_adapter", second))}


def clip_vision(seed: int = 2, **config):
    """The host's, with random weights."""
    def made():
        return comfy.clip_vision.ClipVisionModel({**CLIP, **config})

    lazy, comfy.memory_management.aimdo_enabled = comfy.memory_management.aimdo_enabled, False  # such layers have no weights whose shapes could be read
    try:
        shapes = {k: tuple(v.shape) for k, v in made().model.state_dict().items()}
    finally:
        comfy.memory_management.aimdo_enabled = lazy
    clip = made()
    clip.load_sd({k: v.half() for k, v in random(shapes, seed).items()})  # as published; in dynamic mode the host keeps the precision of the file
    return clip


def pictures(count: int = 1, height: int = 40, width: int = 33, seed: int = 6) -> torch.Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def tokens(count: int = 1, m: int = 4, seed: int = 3, width: int = tiny_models.CONTEXT) -> tuple:
    """(of `count` pictures, of no picture): m tokens each."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, m, width, generator=generator), torch.randn(1, m, width, generator=generator)
