"""Trains the demo world's motion module: temporal layers on the frozen image model, in AnimateDiff's file format (v2: with a middle block).

    COMFYUI_PATH=... python demo/run.py train.motion_module [steps]
    COMFYUI_PATH=... torchrun --nproc-per-node 2 demo/run.py train.motion_module [steps]     # twice the batch on two cores

Clips of 16 frames; AnimateDiff's noise schedule, one timestep a clip; the loss is the image model's. Most steps see
few frames of more clips, with much noise: which way the words send a shape is decided there, few frames tell it, and
the network finds the words worth hearing sooner where it sees less else. The image model
wears the LoRA of motion words (train.adapters), and neither learns. It goes on from its state file, else from the published module, else from nothing (take the file away for
that). The learning rate falls to its end at `steps`.
"""
import os
import random

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ..world import scene
from .adapters import wear_motion_words
from .common import WEIGHTS, Average, Run, initialise, warm_cosine
from .image_model import OPTIONS, Tokens, build, focus, group_norm_fp32, load_encoder, load_published, loss_of, timesteps

BATCH, POOL, FRAMES, NO_PROMPT, LR = 32, 240, scene.FRAMES, 0.1, 1e-3  # BATCH: frames
FEW, MOSTLY = 4, 0.75  # frames of a clip in a step that sees few; the share of such steps
CLIPS = BATCH // FEW   # of such a step
FILE = WEIGHTS / "animatediff_models" / "firstframe_demo_motion.safetensors"


def alphas_cumprod() -> torch.Tensor:
    """AnimateDiff's schedule."""
    from comfy.ldm.modules.diffusionmodules.util import make_beta_schedule

    from ...networks.motion_module_files import SCHEDULES
    schedule, first, last = SCHEDULES["SD1.5"]
    return torch.cumprod(1 - torch.as_tensor(make_beta_schedule(schedule, 1000, first, last), dtype=torch.float64), 0).float()


@torch.no_grad()
def draw_clips(encoder, n: int, seed: int, draw=scene.random_scene) -> dict:
    """{z [n,FRAMES,4,16,16] fp16, near [n,FRAMES,1,16,16] bool, captions} of scenes that `draw` makes of a generator."""
    rng, z, near, captions = random.Random(f"clips {seed}"), [], [], []
    for _ in range(n):
        s = draw(rng)
        with torch.autocast("cpu", torch.bfloat16):
            z.append(encoder(s.clip(FRAMES).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)).half())
        near.append(torch.stack([focus(s, i / (FRAMES - 1)) for i in range(FRAMES)]))
        captions.append(s.caption())
    return {"z": torch.stack(z), "near": torch.stack(near), "captions": captions}


def build_module(unet):
    """(the module, {place: layer of the UNet}); at first it adds nothing."""
    import comfy.ops

    from ...attention_patches.motion_layers import places, width
    from ...networks.motion_module import MotionModel, Size
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


def frozen_image_model() -> tuple:
    """(unet, text encoder) with the LoRA of motion words."""
    unet, text = build()
    load_published(unet, text)
    wear_motion_words(unet, text)
    return unet.requires_grad_(False), text.requires_grad_(False)


def share(grads: list, workers: int) -> None:
    """Gives every worker the mean of their gradients."""
    flat = torch.cat([g.flatten() for g in grads])
    torch.distributed.all_reduce(flat)
    for g, mean in zip(grads, (flat / workers).split([g.numel() for g in grads])):
        g.copy_(mean.view_as(g))


def inserted(net, layers: dict, numbers):
    """Meanwhile the module `net` runs at its places, on clips of the frames `numbers`. contiguous: torch's GroupNorm crashes going backward from a
    channels-last input to a gradient that is none."""
    from ...attention_patches.motion_layers import temporal
    return temporal(layers, lambda place, h: net.get_submodule(place)(h.contiguous(), numbers, OPTIONS))


def high_noise(n: int) -> torch.Tensor:
    """Timesteps at which the motion is decided."""
    return torch.randint(600, 1000, (n,))


def loss_of_clips(unet, text, net, layers: dict, pool: dict, pick, captions, tokens, abar, rng) -> torch.Tensor:
    """One step's: of those of the clips `pick` that make up BATCH frames. rng draws which frames are seen."""
    few, spread = rng.random() < MOSTLY, FRAMES // FEW
    numbers = [i * spread + rng.randrange(spread) for i in range(FEW)] if few else list(range(FRAMES))
    pick, captions = (chosen[:BATCH // len(numbers)] for chosen in (pick, captions))
    z, near = (pool[k][pick][:, numbers].flatten(0, 1) for k in ("z", "near"))
    with inserted(net, layers, numbers):
        return loss_of(unet, text, z.float(), near, tokens(captions), abar, frames=len(numbers), levels=high_noise if few else timesteps)


def main(argv: list[str]):
    steps = int(argv[0]) if argv else 3000
    rank, workers = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if workers > 1:
        torch.distributed.init_process_group("gloo")
    torch.manual_seed(1)
    unet, text = frozen_image_model()
    net, layers = build_module(unet)
    encoder, tokens, abar, stage = load_encoder(), Tokens(), alphas_cumprod(), Run("motion_module")
    parameters = list(net.parameters())
    optimiser, average, start = torch.optim.AdamW(parameters, lr=LR, weight_decay=1e-2, betas=(0.9, 0.99), fused=True), Average([net], 0.995), 0
    began = 0  # the step at which the learning rate starts
    pool = Run("motion_pool").load()
    if pool is None:
        pool = draw_clips(encoder, POOL, 0)
        if rank == 0:  # one worker writes
            Run("motion_pool").save(pool)
    if state := stage.load():
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        average.mean, start, began = state["mean"], state["step"], state["began"]
    elif FILE.exists():
        start = began = load_published_module(net)
        average = Average([net], 0.995)
    average.n = start
    rng, losses = random.Random(), []
    for step in range(start, steps):
        rng.seed(f"motion {step} {rank}")
        torch.manual_seed(step * workers + rank)
        if step % 20 == 19:  # the pool is renewed while training runs
            at = (step // 20 * 6) % POOL
            new = draw_clips(encoder, 6, step * workers + rank)
            pool["z"][at:at + 6], pool["near"][at:at + 6], pool["captions"][at:at + 6] = new["z"], new["near"], new["captions"]
        pick = [rng.randrange(POOL) for _ in range(CLIPS)]
        said = ["" if rng.random() < NO_PROMPT else pool["captions"][i] for i in pick]
        loss = loss_of_clips(unet, text, net, layers, pool, pick, said, tokens, abar, rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        for g in optimiser.param_groups:
            g["lr"] = warm_cosine(step, steps, LR, warm=100, start=began)
        if workers > 1:
            share([p.grad for p in parameters], workers)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        average.update()
        losses.append(loss.item())
        if rank == 0 and ((step + 1) % 50 == 0 or step + 1 == steps):
            stage.log(step=step + 1, loss=sum(losses) / len(losses))
            losses.clear()
            stage.save({"net": net.state_dict(), "optimiser": optimiser.state_dict(), "mean": average.mean, "step": step + 1, "began": began})
            average.swap()
            save(net, layers, step + 1)
            average.swap()
