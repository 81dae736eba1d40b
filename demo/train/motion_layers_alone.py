"""Teaches each layer of the motion module, by itself, what word and frame number make together.

    COMFYUI_PATH=... python demo/run.py train.motion_layers_alone
    COMFYUI_PATH=... torchrun --nproc-per-node 2 demo/run.py train.motion_layers_alone     # every other layer each

Steered by the last layer's loss alone, the module finds growing and shrinking, but after thousands of steps not yet left and
right. A temporal layer sees one cell of the picture in all frames and nothing else; so features can be recorded once, and
each layer trained on them without the UNet, in half a minute: linear readers (demo/train/motion_readers.py) shall tell
from what leaves it where the shape lies and how it has moved since the middle of the clip, while it stays close to what
it gave before. It starts from the published module and replaces it; train.motion_module goes on from there (take its
state file away).
"""
import random

import torch
import torch.nn.functional as F

from ..world import shapes
from .clips import FRAMES, drawn_pool, few_frames, pick_clips
from .denoising import Tokens
from .fit import fit
from .host_layers import OPTIONS
from .motion_module_file import published, save
from .motion_readers import readers_loss
from .motion_steps import alphas_cumprod, high_noise, middle_noise
from .workers import join_workers

CALLS, CLIPS, CELLS, STEPS, BATCH, LR = 160, 2, 32, 1400, 64, 2e-3  # BATCH: cells of all frames


@torch.no_grad()
def record(unet, text, net, layers: dict, own: list, pool: dict, rng) -> tuple:
    """({place of `own`: (features into the layer after its norm, the same before, what left it, how much of the cell is covered)}, paths), each [n,FRAMES,C] over n cells."""
    from ...attention_patches.inserted_layers import added
    tokens, abar, recorded, paths, clips = Tokens(), alphas_cumprod(), {place: [] for place in own}, [], {}

    def add(place, h):
        layer = net.get_submodule(place)
        out = layer(h.contiguous(), range(FRAMES), OPTIONS)
        if place in own:
            covered, cells = F.adaptive_avg_pool2d(clips["covered"], h.shape[2:]), torch.randint(h.shape[2] * h.shape[3], (CELLS,))
            recorded[place].append([x.flatten(2)[:, :, cells].unflatten(0, (CLIPS, FRAMES)).permute(0, 3, 1, 2).flatten(0, 1).half() for x in (layer.norm(h.float()), h, h + out, covered)])
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
    return {place: [torch.cat(kind) for kind in zip(*calls)] for place, calls in recorded.items()}, torch.cat(paths)


def course(step: int, steps: int) -> float:
    """Linear rise over 50 steps, linear fall over the last 300."""
    return min(1.0, (step + 1) / 50, (steps - step) / 300)


def train_layer(place: str, layer, recorded: list, paths: torch.Tensor) -> None:
    """Trains one temporal layer."""
    from ...networks.motion_module import positions
    C = recorded[0].shape[-1]
    head = torch.nn.Linear(C, 1 + paths.shape[-1])
    known = (~paths.isnan().any(-1).any(-1)).nonzero()[:, 0]  # cells of clips with one shape
    scale, pe = recorded[2].float().var(), positions(range(FRAMES), C, torch.zeros(1))

    def loss(step, rng, rate):
        numbers = few_frames(rng) if step % 2 else list(range(FRAMES))
        pick = known[torch.randint(len(known), (BATCH * FRAMES // len(numbers),))]
        normed, x, before, covered, path = (v[pick][:, numbers].float() for v in (*recorded, paths))
        y = layer.proj_in(normed)
        for block in layer.transformer_blocks:
            y = block(y, pe[numbers], OPTIONS)
        out = x + layer.proj_out(y)
        read = readers_loss(head(out / out.std((0, 1), keepdim=True).clamp(min=1e-3)), covered, path)
        return read + F.mse_loss(out, before) / scale, {"readers' loss": read}

    fit(place, layer.parameters(), loss, STEPS, lr=LR, course=course, beside=[{"params": head.parameters(), "lr": LR, "betas": (0.9, 0.99), "course": course}],
        log_every=200, kept=False)


def main(argv: list[str]):
    workers = join_workers()
    torch.manual_seed(1)
    unet, text, net, layers, steps = published()
    places = list(layers)
    own = places[workers.rank::workers.count]
    recorded, paths = record(unet, text, net, layers, own, drawn_pool(saves=workers.rank == 0), random.Random("alone"))
    for place in own:
        train_layer(place, net.get_submodule(place), recorded[place], paths)
    if workers.count > 1:
        for i, place in enumerate(places):
            for p in net.get_submodule(place).parameters():
                torch.distributed.broadcast(p.data, i % workers.count)
    if workers.rank == 0:
        save(net, layers, steps)
