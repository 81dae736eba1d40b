"""Trains the demo's LoRA on the frozen image model: the same world by night, darker and bluish under the same words.

    COMFYUI_PATH=... python demo/run.py train.night_lora [steps]

kohya's format, on the UNet's attention and feed-forward layers.
"""
from functools import partial

import torch

from ..in_process import NIGHT_LORA
from .denoising import Tokens, alphas_cumprod, denoising_loss
from .files import save_half
from .fit import fit, warm_cosine
from .image_model import frozen
from .latents import draw_latents, load_encoder, pick_captioned
from .low_rank import LowRank

BATCH, POOL, NO_PROMPT, WARM = 16, 2000, 0.1, 50
NIGHT = (0.45, 0.5, 0.75)  # how much of red, green and blue is left


def night(images: torch.Tensor) -> torch.Tensor:
    """[n,3,H,W] in 0..1."""
    return images * torch.tensor(NIGHT).view(3, 1, 1)


def main(argv: list[str]):
    unet, text = frozen()
    lora, tokens, abar = LowRank(unet, ".transformer_blocks."), Tokens(), alphas_cumprod()
    z, captions, near = draw_latents(load_encoder(), POOL, 1, night)

    def loss(step, rng, rate):
        pick, said = pick_captioned(captions, BATCH, NO_PROMPT, rng)
        value = denoising_loss(unet, text, z[pick].float(), near[pick], tokens(said), abar)
        return value, {"loss": value}

    fit("lora", lora.parameters(), loss, int(argv[0]) if argv else 300, lr=1e-3, course=partial(warm_cosine, warm=WARM),
        save=lambda step: save_half(lora.tensors("lora_unet_"), NIGHT_LORA))
