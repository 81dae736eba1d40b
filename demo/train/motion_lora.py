"""Trains the demo world's motion LoRA on the motion module: the camera pans to the left.

    COMFYUI_PATH=... python demo/run.py train.motion_lora [steps]

In AnimateDiff's file format, rank 8, on the attention layers alone. Every clip drifts PAN px to the right on top of what
its caption says; backgrounds are plain, so that nothing else would have to drift.
"""
import random
from dataclasses import dataclass, fields, replace

import torch

from ..world import scene, shapes
from .adapters import Lora, train, write
from .common import WEIGHTS
from .image_model import Tokens, load_encoder
from .motion_module import READ, alphas_cumprod, draw_clips, loss_of_clips, published
from .motion_readers import MotionReaders

PAN, POOL = 44.0, 240
FILE = WEIGHTS / "animatediff_motion_lora" / "firstframe_demo_pan.safetensors"


@dataclass(frozen=True)
class Panned(scene.Body):
    """Seen by the camera that pans."""

    def at(self, t: float) -> tuple:
        x, y, size, angle = super().at(t)
        return x + PAN * (t - 0.5), y, size, angle


def panned_scene(rng: random.Random) -> scene.Scene:
    """A random scene on a plain background whose one body stays in the picture."""
    while True:
        s = scene.random_scene(rng, two=0.0)
        body = Panned(*(getattr(s.bodies[0], f.name) for f in fields(scene.Body)))
        if all(shapes.tip_radius(body.shape, size) <= min(x, scene.SIZE - x) for x, _, size, _ in (body.at(i / 8) for i in range(9))):
            return replace(s, bodies=(body,), kind="plain")


def as_published(lora: Lora) -> dict:
    """Its tensors in AnimateDiff's names."""
    sd = {}
    for name, (down, up) in lora.pairs.items():
        base = name.replace(".transformer_blocks.", ".temporal_transformer.transformer_blocks.").removesuffix(".0").replace(".to_", ".processor.to_") + "_lora."
        sd |= {f"{base}down.weight": down.weight.data, f"{base}up.weight": up.weight.data}
    return sd


def main(argv: list[str]):
    torch.manual_seed(1)
    unet, text, net, layers, _ = published()
    net.requires_grad_(False)
    lora, readers, tokens, abar, rng = Lora(net, ".attention_blocks."), MotionReaders(net, layers), Tokens(), alphas_cumprod(), random.Random("pan")
    clips = draw_clips(load_encoder(), POOL, 1, panned_scene)

    def loss(*_):
        loss, read = loss_of_clips(unet, text, net, layers, readers, clips, lambda pick: [clips["captions"][i] for i in pick], tokens, abar, rng)
        return loss + READ * read

    train("motion_lora", int(argv[0]) if argv else 600, 5e-3, [*lora.parameters(), *readers.parameters()], (None, [("",)]), loss, 0.0, lambda: write(as_published(lora), FILE), 1)
