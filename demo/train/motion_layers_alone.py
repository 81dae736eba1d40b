"""Teaches each layer of the motion module, by itself, what word and frame number make together.

    COMFYUI_PATH=... python demo/run.py train.motion_layers_alone
    COMFYUI_PATH=... torchrun --nproc-per-node 2 demo/run.py train.motion_layers_alone     # every other layer each

Steered by the last layer's loss alone, the module finds growing and shrinking, but after thousands of steps not yet left and
right. A temporal layer sees one cell of the picture in all frames and nothing else; so features can be caught once, and
each layer trained on them without the UNet, in half a minute: linear readers (demo/train/motion_readers.py) shall tell
from what leaves it where the shape lies and how it has moved since the middle of the clip, while it stays close to what
it gave before. It starts from the published module and replaces it; train.motion_module goes on from there (take its
state file away).
"""
import random

import torch
import torch.nn.functional as F

from ..world import shapes
from .image_model import OPTIONS, Tokens, load_encoder
from .motion_module import (
    FRAMES,
    alphas_cumprod,
    drawn_pool,
    few_frames,
    high_noise,
    join_workers,
    middle_noise,
    pick_clips,
    published,
    save,
)
from .motion_readers import readers_loss

CALLS, CLIPS, CELLS, STEPS, BATCH, LR = 160, 2, 32, 1400, 64, 2e-3  # BATCH: cells of all frames


@torch.no_grad()
def catch(unet, text, net, layers: dict, own: list, pool: dict, rng) -> tuple:
    """({place of `own`: (features into the layer after its norm, the same before, what left it, how much of the cell is covered)}, paths), each [n,FRAMES,C] over n cells."""
    from ...attention_patches.inserted_layers import added
    tokens, abar, caught, paths, clips = Tokens(), alphas_cumprod(), {place: [] for place in own}, [], {}

    def add(place, h):
        layer = net.get_submodule(place)
        out = layer(h.contiguous(), range(FRAMES), OPTIONS)
        if place in own:
            covered, cells = F.adaptive_avg_pool2d(clips["covered"], h.shape[2:]), torch.randint(h.shape[2] * h.shape[3], (CELLS,))
            caught[place].append([x.flatten(2)[:, :, cells].unflatten(0, (CLIPS, FRAMES)).permute(0, 3, 1, 2).flatten(0, 1).half() for x in (layer.norm(h.float()), h, h + out, covered)])
        return out

    with added(layers, add):
        for i in range(CALLS):
            pick = pick_clips(pool["captions"], CLIPS, rng)
            clips["covered"] = shapes.coverage(pool["distance"][pick].flatten(0, 1).float())
            t = (middle_noise if i % 2 else high_noise)(CLIPS).repeat_interleave(FRAMES)
            a, z = abar[t, None, None, None], pool["z"][pick].flatten(0, 1).float()
            with torch.autocast("cpu", torch.bfloat16):
                context = text(input_ids=tokens([pool["captions"][k] for k in pick])).last_hidden_state.repeat_interleave(FRAMES, 0)
                unet(a.sqrt() * z + (1 - a).sqrt() * torch.randn_like(z), t, context, transformer_options=OPTIONS)
            paths.append(pool["paths"][pick].repeat_interleave(CELLS, 0))
    return {place: [torch.cat(kind) for kind in zip(*calls)] for place, calls in caught.items()}, torch.cat(paths)


def teach(layer, caught: list, paths: torch.Tensor, rng) -> float:
    """Trains one temporal layer. Returns the readers' loss over the last hundred steps."""
    from ...networks.motion_module import positions
    C, losses = caught[0].shape[-1], []
    head, told = torch.nn.Linear(C, 1 + paths.shape[-1]), (~paths.isnan().any(-1).any(-1)).nonzero()[:, 0]
    weights, scale, pe = list(layer.parameters()), caught[2].float().var(), positions(range(FRAMES), C, torch.zeros(1))
    optimiser = torch.optim.AdamW([*weights, *head.parameters()], betas=(0.9, 0.99), fused=True)
    for step in range(STEPS):
        numbers = few_frames(rng) if step % 2 else list(range(FRAMES))
        pick = told[torch.randint(len(told), (BATCH * FRAMES // len(numbers),))]
        normed, x, before, lies, path = (v[pick][:, numbers].float() for v in (*caught, paths))
        y = layer.proj_in(normed)
        for block in layer.transformer_blocks:
            y = block(y, pe[numbers], OPTIONS)
        out = x + layer.proj_out(y)
        read = readers_loss(head(out / out.std((0, 1), keepdim=True).clamp(min=1e-3)), lies, path)
        for g in optimiser.param_groups:
            g["lr"] = LR * min(1.0, (step + 1) / 50, (STEPS - step) / 300)
        optimiser.zero_grad(set_to_none=True)
        (read + F.mse_loss(out, before) / scale).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        losses.append(read.item())
    return sum(losses[-100:]) / 100


def main(argv: list[str]):
    rank, workers = join_workers()
    torch.manual_seed(1)
    rng = random.Random("alone")
    unet, text, net, layers, steps = published()
    places = list(layers)
    own = places[rank::workers]
    caught, paths = catch(unet, text, net, layers, own, drawn_pool(load_encoder(), rank), rng)
    for place in own:
        print(f"{place}: readers' loss {teach(net.get_submodule(place), caught[place], paths, rng):.3f}", flush=True)
    if workers > 1:
        for i, place in enumerate(places):
            for p in net.get_submodule(place).parameters():
                torch.distributed.broadcast(p.data, i % workers)
    if rank == 0:
        save(net, layers, steps)
