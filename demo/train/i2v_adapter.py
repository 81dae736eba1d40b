"""Trains the demo world's I2V-Adapter: first-frame attention in the image model, beside its motion module; both stay as they are.

    COMFYUI_PATH=... python demo/run.py train.i2v_adapter [steps]
    COMFYUI_PATH=... torchrun --nproc-per-node 2 demo/run.py train.i2v_adapter [steps]     # twice the batch on two cores

Most steps see few frames of many clips, the others whole clips; most are at high noise, where it is decided what a frame takes over from the first one.
All cells count the same: what the other trainings' weights favour, a shape's outline, moves, and the background is what should stay. As in the paper
(section 3.2): the first frame of each clip is free of noise and out of the loss, one timestep a clip, AnimateDiff's noise schedule, AdamW. W'_O is 0 at
first; W'_Q begins as the layer's own W_Q, so that what is asked of the first frame makes sense from the start. The learning rate is twenty times the
paper's 1e-4: the layers are a twentieth as wide and the steps a hundredth as many. It goes on from its state file, else from the published weights,
else from nothing (take the weights away for that).
"""
from functools import partial

import torch
from safetensors.torch import load_file

from ..in_process import I2V_ADAPTER
from .clips import FRAMES, drawn_pool, few_frames, pick_clips, renew
from .denoising import Tokens, denoising_loss
from .files import save_half, steps_of
from .fit import fit, warm_cosine
from .host_layers import OPTIONS, zero
from .latents import load_encoder
from .motion_module_file import published
from .motion_steps import alphas_cumprod, inserted
from .workers import join_workers

BATCH, FEW, NO_PROMPT, LR = 32, 0.7, 0.1, 2e-3  # frames; share of steps that see few of a clip


def build(unet):
    """(the adapter, {place: the self-attention that it stands beside}); at first it adds nothing."""
    import comfy.ops

    from ...attention_patches.unet import named_blocks
    from ...networks.i2v_adapter import I2VAdapterModel
    layers = {place: block.attn1 for place, block in named_blocks(unet).items()}
    adapter = I2VAdapterModel({place: attn1.to_q.in_features for place, attn1 in layers.items()}, operations=comfy.ops.disable_weight_init)
    for place, attn1 in layers.items():
        branch = adapter.branch(place)
        branch.to_q_ff.weight.data.copy_(attn1.to_q.weight)
        zero(branch.to_out_ff)
    return adapter, layers


def timesteps(n: int) -> torch.Tensor:
    return torch.where(torch.rand(n) < 0.7, torch.randint(600, 1000, (n,)), torch.randint(0, 1000, (n,)))


def load_published(adapter) -> int:
    """Returns the steps that the weights have had."""
    adapter.load_state_dict({k: v.float() for k, v in load_file(I2V_ADAPTER).items()})
    return steps_of(I2V_ADAPTER)


def main(argv: list[str]):
    steps, workers = int(argv[0]) if argv else 3000, join_workers()
    unet, text, net, places, _ = published()
    net.requires_grad_(False)
    adapter, layers = build(unet)
    had = load_published(adapter) if I2V_ADAPTER.exists() else 0
    from ...attention_patches.first_frame import branches
    encoder, tokens, abar, pool = load_encoder(), Tokens(), alphas_cumprod(), drawn_pool(saves=workers.rank == 0)

    def loss(step, rng, rate):
        renew(pool, step, step * workers.count + workers.rank, encoder)
        numbers = [0, *few_frames(rng)[1:]] if rng.random() < FEW else list(range(FRAMES))
        clips = BATCH // len(numbers)
        pick = pick_clips(pool["captions"], clips, rng, spinning=0)
        z = pool["z"][pick][:, numbers].flatten(0, 1).float()
        said = ["" if rng.random() < NO_PROMPT else pool["captions"][i] for i in pick]
        with inserted(net, places, numbers, {}), branches(layers, adapter.branch, 0, clips, len(numbers), 1.0, OPTIONS):
            value = denoising_loss(unet, text, z, torch.zeros_like(z[:, :1]), tokens(said), abar, frames=len(numbers), levels=timesteps, clean_first=True)
        return value, {"loss": value}

    fit("i2v_adapter", adapter.parameters(), loss, steps, lr=LR, course=partial(warm_cosine, warm=50), decay=0.99, start=had,
        save=lambda step: save_half(adapter.state_dict(), I2V_ADAPTER, step), workers=workers, save_every=100)
