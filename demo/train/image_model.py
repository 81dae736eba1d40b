"""Trains the demo world's text-to-image model: the host's UNet and a tiny CLIP text encoder, together, on the frozen latents.

    COMFYUI_PATH=... python demo/run.py train.image_model [steps]

It goes on from its state file, else from the published weights, else from nothing (take the weights away for that).
"""
import torch
from safetensors.torch import load_file

from ..in_process import CHECKPOINT, use_host
from .denoising import Tokens, alphas_cumprod, denoising_loss
from .files import save_half, steps_of
from .fit import fit
from .host_layers import initialise, norms_in_fp32
from .latents import draw_latents, load_encoder, pick_captioned
from .stage import drawn_once

BATCH, POOL, NO_PROMPT = 32, 10000, 0.1
RENEWED, EVERY = 40, 20  # frames of the pool that are drawn anew, every so many steps
UNET, TEXT = "model.diffusion_model.", "cond_stage_model.transformer."  # prefixes in a checkpoint


def build():
    use_host()
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from .. import comfy_support as demo
    torch.manual_seed(1)
    heads = demo.FirstFrameDemo.unet_extra_config["num_heads"]
    unet = UNetModel(**demo.UNET, num_heads=heads, operations=comfy.ops.disable_weight_init)
    initialise(unet)
    for name, p in unet.named_parameters():
        if name.endswith(("out_layers.3.weight", "out_layers.3.bias", "proj_out.weight", "proj_out.bias")) or name.startswith("out.2."):
            torch.nn.init.zeros_(p)
    # the host computes this encoder's attention with its own function; transformers' class has the same arithmetic and trains
    text = CLIPTextModel(CLIPTextConfig(**demo.TEXT, vocab_size=49408, bos_token_id=49406, pad_token_id=49407))
    norms_in_fp32(unet, torch.nn.GroupNorm)
    return unet.to(memory_format=torch.channels_last), text


def text_keys(text) -> dict:
    """{key in a checkpoint: key of the text encoder}; transformers 5 leaves `text_model.` out."""
    return {TEXT + ("" if k.startswith("text_model.") else "text_model.") + k: k for k in text.state_dict()}


def save(unet, text, steps: int) -> None:
    sd, of_text = {UNET + k: v for k, v in unet.state_dict().items()}, text.state_dict()
    save_half(sd | {key: of_text[k] for key, k in text_keys(text).items() if not k.endswith("position_ids")}, CHECKPOINT, steps)


def load_published(unet, text) -> int:
    """The inverse of `save`: weights without the optimiser's memory, for a machine that has no state file. Returns the steps they have had."""
    sd, keys = load_file(CHECKPOINT), text_keys(text)
    unet.load_state_dict({k.removeprefix(UNET): v.float() for k, v in sd.items() if k.startswith(UNET)})
    text.load_state_dict({keys[k]: v.float() for k, v in sd.items() if k.startswith(TEXT)}, strict=False)
    return steps_of(CHECKPOINT)


def frozen() -> tuple:
    """(unet, text encoder) as published, for what is trained beside them."""
    unet, text = build()
    load_published(unet, text)
    return unet.requires_grad_(False), text.requires_grad_(False)


def main(argv: list[str]):
    steps = int(argv[0]) if argv else 12000
    unet, text = build()
    had = load_published(unet, text) if CHECKPOINT.exists() else 0
    encoder, tokens, abar = load_encoder(), Tokens(), alphas_cumprod()
    pool = drawn_once("image_pool", lambda: dict(zip(("z", "captions", "near"), draw_latents(encoder, POOL, 0))))
    z, captions, near = pool["z"], pool["captions"], pool["near"]

    def loss(step, rng, rate):
        if step % EVERY == EVERY - 1:
            at = slice(first := (step // EVERY * RENEWED) % POOL, first + RENEWED)
            z[at], captions[at], near[at] = draw_latents(encoder, RENEWED, step)
        pick, said = pick_captioned(captions, BATCH, NO_PROMPT, rng)
        value = denoising_loss(unet, text, z[pick].float(), near[pick], tokens(said), abar)
        return value, {"loss": value}

    fit("image_model", [*unet.parameters(), *text.parameters()], loss, steps, lr=8e-4, decay=0.998, start=had, save_every=500,
        save=lambda step: save(unet, text, step))
