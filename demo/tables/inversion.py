"""How well the inversion brings a picture back, and at what cost.   ./scripts/demo --table inversion [pictures] [beginning of a row's name]

Drawn pictures (shape, colour and background held back in training) with their captions, inverted as the node
MotionAwareInversion does it (50 steps, start timestep 761). PSNR of the decoded reconstruction against the decoded latent
of the picture, so that the VAE's own loss does not count. Pictures 0 to 3 chose Signum's constants and are left out. Every mode as published (`refine 0`, Adam) and with this pack's
defaults; all in one run, taking turns within each picture. Guidance left: how much of cfg acts with the found embeddings as the
negative, against an empty one (samplers/guidance_left.py); where it is 0 the embeddings are the prompt's own, and a better PSNR is
bought with it. null-text `begin positive` is Negative-prompt Inversion (Miyake et al.).
"""
import time

import numpy as np
import torch

from .. import in_process
from ..world import scene
from . import report

# name: mode, as published, extra calls per level on the way up, begin
KINDS = {
    "none (DDIM), published": ("none", True, 0, "positive"),
    "none, refine 1": ("none", False, 1, "positive"),
    "null-text, published": ("null-text", True, 0, "negative"),
    "null-text, refine 0": ("null-text", False, 0, "negative"),
    "null-text, default": ("null-text", False, 1, "negative"),
    "null-text, begin positive": ("null-text", False, 1, "positive"),
    "conditional, published": ("conditional", True, 0, "positive"),
    "conditional, default": ("conditional", False, 0, "positive"),
    "conditional, refine 1": ("conditional", False, 1, "positive"),
}
GUIDANCE = 7.5
FIRST = 4  # the first picture that no constant was chosen on


def picture_of(seed: int) -> scene.Scene:
    return scene.held_back_scene(f"inversion {seed}")


@torch.inference_mode()
def measure(s: scene.Scene, mode: str, published: bool, refine: int, begin: str) -> dict:
    from ...nodes.inversion import psnr_of_picture
    from ...samplers.inversion import invert_picture
    from ...samplers.null_text import PUBLISHED, Optimisation
    model, clip, vae = in_process.load()
    z0 = vae.encode(s.draw([0.5]))
    positive, negative = (in_process.encode(clip, [text]) for text in (s.caption(), ""))
    options = Optimisation(inner=0) if mode == "none" else PUBLISHED if published else Optimisation()
    began = time.perf_counter()
    z, inversion = invert_picture(model, z0, positive, negative, mode=mode, steps=50, start=761, guidance=GUIDANCE, refine=refine, begin=begin, options=options)
    seconds = time.perf_counter() - began
    return {"PSNR, dB": psnr_of_picture(vae, z, z0), "guidance left, %": 100 * inversion.guidance,
            "model calls": inversion.calls, "of them with gradients": inversion.backward, "seconds": seconds}


def main(argv: list[str]) -> int:
    pictures, beginning = report.arguments(argv, 50)
    kinds = {name: how for name, how in KINDS.items() if name.startswith(beginning or "")}
    rows = report.collect(pictures, lambda seed: {name: measure(picture_of(FIRST + seed), *how) for name, how in kinds.items()})
    print(report.report(f"inversion, {pictures} pictures", rows))
    seconds = {name: np.sum([row["seconds"] for row in found]) for name, found in rows.items()}
    if published := seconds.pop("null-text, published", 0):
        for name, took in seconds.items():
            print(f"time of {name} over null-text, published: {took / published:.3f}")
    return 0
