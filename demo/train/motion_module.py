"""Trains the demo world's motion module: temporal layers on the frozen image model, in AnimateDiff's file format (v2: with a middle block).

    COMFYUI_PATH=... python demo/run.py train.motion_module [steps]
    COMFYUI_PATH=... torchrun --nproc-per-node 2 demo/run.py train.motion_module [steps]     # twice the batch on two cores

Clips of 16 frames; AnimateDiff's noise schedule, one timestep a clip; the loss is the image model's, and that of linear
readers after each layer (demo/train/motion_readers.py). Three kinds of step take turns: few frames of many clips at high
noise, where it is decided which way a shape goes and few frames tell it; whole clips at middle noise, where it is decided
how a shape turns; whole clips at all levels. Spinning is the slowest to be learned and is seen more often than the rest.

The image model stays as it is. Its LoRA of motion words (train.adapters) learns along, in all of the UNet's attention and
convolution layers: by itself the image model cannot draw a shape that is turned, and no temporal layer can ask for what
it does not know. Training goes on from its state file, else from the published module, else from nothing (take the file
away for that). The learning rate falls to its end at `steps`.
"""
import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ..world import scene, shapes
from .adapters import learn_motion_words, save_motion_words, wear_motion_words
from .common import WEIGHTS, Average, Run, initialise, warm_cosine
from .image_model import OPTIONS, Tokens, build, distance, group_norm_fp32, load_encoder, load_published, loss_of, timesteps
from .motion_readers import MotionReaders, path

BATCH, POOL, FRAMES, NO_PROMPT, LR = 32, 240, scene.FRAMES, 0.1, 1e-3  # BATCH: frames
READ, READING = 3.0, 3e-3  # weight of the readers' loss at the highest learning rate; their own learning rate
FEW = 4                    # frames of a clip in a step that sees few
SPINNING = 0.5             # share of clips that are picked because they spin
FILE = WEIGHTS / "animatediff_models" / "firstframe_demo_motion.safetensors"


def alphas_cumprod() -> torch.Tensor:
    """AnimateDiff's schedule."""
    from comfy.ldm.modules.diffusionmodules.util import make_beta_schedule

    from ...networks.motion_module_files import SCHEDULES
    schedule, first, last = SCHEDULES["SD1.5"]
    return torch.cumprod(1 - torch.as_tensor(make_beta_schedule(schedule, 1000, first, last), dtype=torch.float64), 0).float()


def clip_scene(rng: random.Random) -> scene.Scene:
    """A random scene in which what spins stands nearly upright in the middle of the clip and turns at one speed: word and
    frame number tell its angle, as they tell how far another shape has moved."""
    s = scene.random_scene(rng)
    upright = {"angle": rng.uniform(-scene.TILT, scene.TILT), "amount": 0.5 * math.pi}
    return replace(s, bodies=tuple(replace(b, **upright) if b.motion == "spinning" else b for b in s.bodies))


@torch.no_grad()
def draw_clips(encoder, n: int, seed: int, draw=clip_scene) -> dict:
    """{z [n,FRAMES,4,16,16] fp16, distance [n,FRAMES,1,16,16] fp16 (cells to the outline), paths [n,FRAMES,4], captions} of scenes that `draw` makes of a generator."""
    rng, z, distances, paths, captions = random.Random(f"clips {seed}"), [], [], [], []
    for _ in range(n):
        s = draw(rng)
        with torch.autocast("cpu", torch.bfloat16):
            z.append(encoder(s.clip(FRAMES).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)).half())
        distances.append(torch.stack([distance(s, i / (FRAMES - 1)) for i in range(FRAMES)]).half())
        paths.append(path(s, FRAMES))
        captions.append(s.caption())
    return {"z": torch.stack(z), "distance": torch.stack(distances), "paths": torch.stack(paths), "captions": captions}


def drawn_pool(encoder, rank: int) -> dict:
    """POOL clips, drawn once; one of the workers keeps them."""
    pool = Run("motion_pool").load()
    if pool is None:
        pool = draw_clips(encoder, POOL, 0)
        if rank == 0:
            Run("motion_pool").save(pool)
    return pool


def pick_clips(captions: list, n: int, rng, spinning: float = SPINNING) -> list:
    """Indices of n clips; a share `spinning` of them is picked among those that spin."""
    every = range(len(captions))
    spin = [i for i in every if "spinning" in captions[i]] or every
    return [rng.choice(spin if rng.random() < spinning else every) for _ in range(n)]


def build_module(unet):
    """(the module, {place: layer of the UNet}); at first it adds nothing."""
    import comfy.ops

    from ...attention_patches.unet import width
    from ...networks.motion_module import MotionModel, Size, places
    layers = places(unet)
    net = MotionModel({place: Size(width(layer)) for place, layer in layers.items()}, operations=comfy.ops.disable_weight_init)
    initialise(net)
    for name, p in net.named_parameters():
        if ".proj_out." in name:
            torch.nn.init.zeros_(p)
    for m in net.modules():
        if isinstance(m, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
            m.register_forward_pre_hook(group_norm_fp32)
    return net, layers


def save(net, layers, steps: int) -> None:
    from ...networks.motion_module import positions
    sd = {}
    for place, transformer in ((place, net.get_submodule(place)) for place in layers):
        base = f"{place}.temporal_transformer."
        sd |= {base + k: v for k, v in transformer.state_dict().items()}
        C = transformer.proj_in.in_features
        sd |= {f"{base}transformer_blocks.0.attention_blocks.{i}.pos_encoder.pe": positions(range(FRAMES), C, torch.zeros(1))[None] for i in (0, 1)}
    FILE.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in sd.items()}, FILE, metadata={"steps": str(steps)})


def load_published_module(net) -> int:
    """The inverse of `save`, without the optimiser's memory. Returns the steps that the weights have had."""
    from ...networks.motion_module_files import sort_out
    net.load_state_dict({k: v.float() for k, v in sort_out(load_file(FILE), FILE.name)[0].items()})
    with safe_open(FILE, "pt") as f:
        return int(f.metadata()["steps"])


def image_model() -> tuple:
    """(unet, text encoder), frozen."""
    unet, text = build()
    load_published(unet, text)
    return unet.requires_grad_(False), text.requires_grad_(False)


def published() -> tuple:
    """(unet and text encoder with the LoRA of motion words, the published module, {place: layer of the UNet}, the module's steps)."""
    unet, text = image_model()
    wear_motion_words(unet, text)
    net, layers = build_module(unet)
    return unet, text, net, layers, load_published_module(net)


def join_workers() -> tuple:
    """(this worker's rank, how many there are)."""
    rank, workers = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if workers > 1:
        torch.distributed.init_process_group("gloo")
    return rank, workers


def share(grads: list, workers: int) -> None:
    """Gives every worker the mean of their gradients."""
    flat = torch.cat([g.flatten() for g in grads])
    torch.distributed.all_reduce(flat)
    for g, mean in zip(grads, (flat / workers).split([g.numel() for g in grads])):
        g.copy_(mean.view_as(g))


def inserted(net, layers: dict, numbers, seen: dict):
    """Meanwhile the module `net` runs at its places, on clips of the frames `numbers`; the features after it are kept in
    `seen`. contiguous: torch's GroupNorm crashes going backward from a channels-last input to a gradient that is none."""
    from ...attention_patches.inserted_layers import added

    def add(place, h):
        out = net.get_submodule(place)(h.contiguous(), numbers, OPTIONS)
        seen[place] = h + out
        return out

    return added(layers, add)


def timesteps_in(first: int, last: int):
    """A function that draws n timesteps, first to last - 1."""
    return lambda n: torch.randint(first, last, (n,))


@dataclass(frozen=True)
class Kind:
    """One kind of training step."""
    share: float          # of steps
    few: bool             # few frames of many clips; else whole clips
    levels: Callable      # n → timesteps [n]
    weight: float = 1.0   # of the picture's loss


high_noise, middle_noise = timesteps_in(600, 1000), timesteps_in(250, 800)  # where it is decided which way a shape goes; how it turns
KINDS = Kind(0.3, True, high_noise), Kind(0.5, False, middle_noise, weight=3.0), Kind(0.2, False, timesteps)


def few_frames(rng) -> list:
    """The numbers of FEW frames, spread over the clip."""
    spread = FRAMES // FEW
    return [i * spread + rng.randrange(spread) for i in range(FEW)]


def loss_of_clips(unet, text, net, layers: dict, readers: MotionReaders, pool: dict, captions, tokens, abar, rng, kinds=KINDS, spinning: float = SPINNING) -> tuple:
    """One step's (loss, readers' loss), of clips that make up BATCH frames, by the captions that captions([index]) returns. rng draws the kind of step and what is seen."""
    kind = rng.choices(kinds, [k.share for k in kinds])[0]
    numbers = few_frames(rng) if kind.few else list(range(FRAMES))
    pick = pick_clips(pool["captions"], BATCH // len(numbers), rng, spinning)
    z, far, paths = (pool[k][pick][:, numbers].flatten(0, 1) for k in ("z", "distance", "paths"))
    with inserted(net, layers, numbers, readers.seen):
        loss = loss_of(unet, text, z.float(), far < 1, tokens(captions(pick)), abar, frames=len(numbers), levels=kind.levels)
    return kind.weight * loss, readers.loss(shapes.coverage(far.float()), paths)


def main(argv: list[str]):
    steps = int(argv[0]) if argv else 3000
    rank, workers = join_workers()
    torch.manual_seed(1)
    unet, text = image_model()
    lora = learn_motion_words(unet, text)
    net, layers = build_module(unet)
    encoder, tokens, abar, stage = load_encoder(), Tokens(), alphas_cumprod(), Run("motion_module")
    readers = MotionReaders(net, layers)
    parameters, of_readers = [*net.parameters(), *lora.parameters()], readers.parameters()
    reading = torch.optim.AdamW(of_readers, lr=READING, fused=True)
    optimiser, average, start = torch.optim.AdamW(parameters, lr=LR, weight_decay=1e-2, betas=(0.9, 0.99), fused=True), Average([net, lora], 0.995), 0
    began = 0  # the step at which the learning rate starts
    pool = drawn_pool(encoder, rank)
    if state := stage.load():
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        for p, kept in zip((*lora.parameters(), *of_readers), (*state["lora"], *state["readers"])):
            p.data.copy_(kept)
        average.mean, start, began = state["mean"], state["step"], state["began"]
    elif FILE.exists():
        start = began = load_published_module(net)
        average = Average([net, lora], 0.995)
    average.n = start
    rng, losses = random.Random(), []
    for step in range(start, steps):
        rng.seed(f"motion {step} {rank}")
        torch.manual_seed(step * workers + rank)
        if step % 20 == 19:  # the pool is renewed while training runs
            at = (step // 20 * 6) % POOL
            new = draw_clips(encoder, 6, step * workers + rank)
            for k, kept in pool.items():
                kept[at:at + 6] = new[k]
        loss, read = loss_of_clips(unet, text, net, layers, readers, pool, lambda pick: ["" if rng.random() < NO_PROMPT else pool["captions"][i] for i in pick], tokens, abar, rng)
        lr = warm_cosine(step, steps, LR, warm=100, start=began)
        optimiser.zero_grad(set_to_none=True)
        reading.zero_grad(set_to_none=True)
        (loss + READ * lr / LR * read).backward()  # towards the end the picture alone counts
        for g in optimiser.param_groups:
            g["lr"] = lr
        if workers > 1:
            share([p.grad for p in (*parameters, *of_readers)], workers)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        reading.step()
        average.update()
        losses.append((loss.item(), read.item()))
        if rank == 0 and ((step + 1) % 50 == 0 or step + 1 == steps):
            stage.log(step=step + 1, **{name: sum(values) / len(values) for name, values in zip(("loss", "read"), zip(*losses))})
            losses.clear()
            state = {"net": net.state_dict(), "lora": lora.parameters(), "readers": of_readers, "optimiser": optimiser.state_dict()}
            stage.save(state | {"mean": average.mean, "step": step + 1, "began": began})
            average.swap()
            save(net, layers, step + 1)
            save_motion_words(lora)
            average.swap()
