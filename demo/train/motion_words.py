"""Trains the LoRA that goes with the demo's motion module, as AnimateDiff v3's domain adapter does with its own.

    COMFYUI_PATH=... python demo/run.py train.motion_words [steps]

The image model saw stills, where "moving left" looks like "moving right", and has learned to drop these words before any
temporal layer could read them. The LoRA (text encoder and cross-attention) keeps them: from the features at each place of a
motion module a linear layer shall tell which motion words the prompt has; the picture shall stay as it is.
"""
from functools import partial

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from ..in_process import MOTION_WORDS_LORA
from ..world import scene
from .denoising import Tokens, alphas_cumprod, denoising_loss
from .files import save_half
from .fit import fit, warm_cosine
from .image_model import frozen
from .latents import draw_latents, load_encoder, pick_captioned
from .low_rank import LowRank, add_lora

BATCH, POOL, NO_PROMPT, WARM = 16, 2000, 0.1, 50
OF_UNET = "lora_unet_"


def text_prefix(text) -> str:
    """kohya's, of the text encoder's keys."""
    return "lora_te_" if any(name.startswith("text_model.") for name, _ in text.named_modules()) else "lora_te_text_model_"


def add_motion_words(unet, text) -> None:
    """Adds the published LoRA to the weights of both."""
    sd = load_file(MOTION_WORDS_LORA)
    add_lora(unet, sd, OF_UNET)
    add_lora(text, sd, text_prefix(text))


def trainable_motion_words(unet, text) -> LowRank:
    """The UNet's part of the published LoRA, to go on learning, with the rest of the attention and ResBlocks' layers; the text encoder's part is added to its weights."""
    sd, lora = load_file(MOTION_WORDS_LORA), LowRank(unet, ".transformer_blocks.", ".in_layers.", ".out_layers.")
    add_lora(text, sd, text_prefix(text))
    lora.load(sd, OF_UNET)
    return lora


def save_unets_part(lora: LowRank) -> None:
    """Beside the text encoder's part, which stays as it is."""
    save_half({k: v for k, v in load_file(MOTION_WORDS_LORA).items() if k.startswith("lora_te_")} | lora.tensors(OF_UNET), MOTION_WORDS_LORA)


class WordReaders:
    """Linear layers that read the motion words from the features at each place of a motion module."""

    def __init__(self, unet):
        from ...attention_patches.unet import width
        from ...networks.motion_module import places
        self.seen, self.heads = {}, {}
        for place, layer in places(unet).items():
            self.heads[place] = torch.nn.Linear(width(layer), len(scene.MOTIONS))
            layer.register_forward_hook(lambda m, args, out, place=place: self.seen.__setitem__(place, out))

    def parameters(self) -> list:
        return [p for head in self.heads.values() for p in head.parameters()]

    def loss(self, captions) -> torch.Tensor:
        """Of the UNet's last call; every cell of the picture is read by itself."""
        said = torch.tensor([[float(m in caption) for m in scene.MOTIONS] for caption in captions])[:, None]
        read = (head(F.group_norm(self.seen[place].float(), 32).flatten(2).mT) for place, head in self.heads.items())
        losses = [F.binary_cross_entropy_with_logits(r, said.expand_as(r)) for r in read]
        return len(scene.MOTIONS) * sum(losses) / len(losses)


def main(argv: list[str]):
    unet, text = frozen()
    of_unet, of_text, readers = LowRank(unet, ".attn2."), LowRank(text, "encoder.layers."), WordReaders(unet)
    tokens, abar = Tokens(), alphas_cumprod()
    z, captions, near = draw_latents(load_encoder(), POOL, 3)
    with_motion = [(caption,) for caption, _ in captions]

    def loss(step, rng, rate):
        pick, said = pick_captioned(with_motion, BATCH, NO_PROMPT, rng)
        value = denoising_loss(unet, text, z[pick].float(), near[pick], tokens(said), abar) + readers.loss(said)
        return value, {"loss": value}

    fit("motion_words", [p for part in (of_unet, of_text, readers) for p in part.parameters()], loss, int(argv[0]) if argv else 1200, lr=6e-3,
        course=partial(warm_cosine, warm=WARM), save=lambda step: save_half(of_unet.tensors(OF_UNET) | of_text.tensors(text_prefix(text)), MOTION_WORDS_LORA))
