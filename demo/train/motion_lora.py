"""Trains the demo world's motion LoRA on the motion module: the camera pans to the left.

    COMFYUI_PATH=... python demo/run.py train.motion_lora [steps]

In AnimateDiff's file format, rank 8, on the attention layers alone. Every clip drifts PAN px to the right on top of what
its caption says, or, in every other step, to the left, with the LoRA at strength -1. Backgrounds are plain, so that nothing
else would have to drift.

First the readers (demo/train/motion_readers.py) learn to read the module as it is published, and then stay as they are:
the LoRA shall make each layer say that the shape drifts, in the module's own words. Nearly all steps are at the highest
noise: taught at all levels alike, it follows a drift that it sees and does not begin one.
"""
import random
from dataclasses import dataclass, replace
from functools import partial

from ..in_process import MOTION_LORA
from ..world import scene, shapes
from .clips import clip_scene, draw_clips, drawn_pool
from .denoising import Tokens, timesteps
from .files import save_half
from .fit import fit, warm_cosine
from .latents import load_encoder
from .low_rank import LowRank
from .motion_module_file import published
from .motion_readers import READING, MotionReaders
from .motion_steps import READ, Kind, alphas_cumprod, loss_of_clips, timesteps_in

PAN, POOL = 44.0, 120  # px in a clip; clips each way
KINDS = Kind(0.9, True, timesteps_in(850, 1000)), Kind(0.1, False, timesteps)
READERS_STEPS = 250
COURSE = partial(warm_cosine, warm=50)


@dataclass(frozen=True)
class Panned(scene.Body):
    """Seen by the camera that pans."""
    pan: float  # px to the right in a clip

    def at(self, t: float) -> tuple:
        x, y, size, angle = super().at(t)
        return x + self.pan * (t - 0.5), y, size, angle


def panned_scene(rng: random.Random, pan: float) -> scene.Scene:
    """A random scene on a plain background whose one body drifts `pan` px to the right and stays in the picture."""
    while True:
        s = clip_scene(rng)
        if len(s.bodies) > 1:
            continue
        body = Panned(**vars(s.bodies[0]), pan=pan)
        if all(shapes.tip_radius(body.shape, size) <= min(x, scene.SIZE - x) for x, _, size, _ in (body.at(i / 8) for i in range(9))):
            return replace(s, bodies=(body,), kind="plain")


def in_animatediffs_format(lora: LowRank) -> dict:
    sd = {}
    for name, (down, up) in lora.pairs.items():
        base = name.replace(".transformer_blocks.", ".temporal_transformer.transformer_blocks.").removesuffix(".0").replace(".to_", ".processor.to_") + "_lora."
        sd |= {f"{base}down.weight": down.weight.data, f"{base}up.weight": up.weight.data}
    return sd


def main(argv: list[str]):
    unet, text, net, layers, _ = published()
    net.requires_grad_(False)
    readers, encoder, tokens, abar = MotionReaders(net, layers), load_encoder(), Tokens(), alphas_cumprod()

    def losses(clips, rng, **how):
        return loss_of_clips(unet, text, net, layers, readers, clips, lambda pick: [clips["captions"][i] for i in pick], tokens, abar, rng, **how)

    def readers_loss(step, rng, rate):
        _, read = losses(pool, rng)
        return read, {"loss": read}

    pool = drawn_pool()
    fit("motion_lora_readers", readers.parameters(), readers_loss, READERS_STEPS, lr=READING, course=COURSE)
    for p in readers.parameters():
        p.requires_grad_(False)

    lora = LowRank(net, ".attention_blocks.")
    panned = {side: draw_clips(encoder, POOL, 1, partial(panned_scene, pan=side * PAN)) for side in (1, -1)}

    def loss(step, rng, rate):
        lora.strength = 1 if step % 2 else -1
        picture, read = losses(panned[lora.strength], rng, kinds=KINDS, spinning=0.0)
        return picture + READ * read, {"loss": picture + READ * read}

    fit("motion_lora", lora.parameters(), loss, int(argv[0]) if argv else 1000, lr=5e-3, course=COURSE, save=lambda step: save_half(in_animatediffs_format(lora), MOTION_LORA))
