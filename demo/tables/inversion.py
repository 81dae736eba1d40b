"""How well, and how dearly, the inversion brings a picture back.   ./scripts/demo --table inversion [pictures]

Drawn pictures (shape, colour and background held back in training) with their captions, inverted as the node
MotionAwareInversion does with its defaults (50 steps, start timestep 761). PSNR of the decoded reconstruction against
the decoded latent of the picture, so that the VAE's own loss does not count. Every mode as published (`refine 0`, Adam)
and with this pack's defaults; all in one run, taking turns within each picture.
"""
import random
import time

import numpy as np
import torch

from .. import in_process
from ..world import scene
from .cross_frame import cell

# name: mode, optimiser, extra calls per level on the way up
KINDS = {
    "none (DDIM)": ("none", None, 0),
    "none, refined": ("none", None, 2),
    "null-text, published Adam": ("null-text", "Adam (paper)", 0),
    "null-text, Polyak": ("null-text", "Polyak", 0),
    "null-text, Polyak, refined": ("null-text", "Polyak", 2),
    "conditional, published Adam": ("conditional", "Adam (paper)", 0),
    "conditional, Polyak": ("conditional", "Polyak", 0),
    "conditional, Polyak, refined": ("conditional", "Polyak", 2),
}
GUIDANCE = 7.5


def picture_of(seed: int) -> scene.Scene:
    rng = random.Random(f"inversion {seed}")
    shape, colour, ground = rng.choice(scene.held_back())
    return scene.make_scene(rng, [(shape, colour, rng.choice(scene.MOTIONS))], ground, rng.choice(scene.BACKGROUNDS))


@torch.inference_mode()
def measure(s: scene.Scene, mode: str, optimiser: str | None, refine: int) -> dict:
    from ...samplers.motion_aware_inversion import OPTIMISERS, Optimisation
    from ...samplers.picture_inversion import invert_picture
    model, clip, vae = in_process.load()
    z0 = vae.encode(s.draw([0.5]))
    positive, negative = (in_process.encode(clip, [text]) for text in (s.caption(), ""))
    options = Optimisation(inner=0) if mode == "none" else Optimisation(optimiser=optimiser or OPTIMISERS[0])
    began = time.perf_counter()
    z, inversion = invert_picture(model, z0, positive, negative, mode=mode, steps=50, start=761, guidance=GUIDANCE, refine=refine, options=options)
    seconds = time.perf_counter() - began
    error = (vae.decode(z) - vae.decode(z0)).square().mean()
    return {"PSNR, dB": float(-10 * error.log10()), "model calls": inversion.calls, "of them with gradients": inversion.backward, "seconds": seconds}


def main(argv: list[str]) -> int:
    n = int(argv[0]) if argv else 50
    in_process.load()
    rows = {name: [] for name in KINDS}
    for seed in range(n):
        for name, kind in KINDS.items():
            rows[name].append(measure(picture_of(seed), *kind))
        print(f"{seed + 1}/{n}", end="\r", flush=True)
    columns = list(rows["none (DDIM)"][0])
    print(f"inversion, {n} pictures | " + " | ".join(columns), "---" + "|---" * len(columns), sep="\n")
    for name, found in rows.items():
        print(" | ".join([name, *(cell([row[c] for row in found], c) for c in columns)]))
    for mode in ("null-text", "conditional"):
        ours, published = (np.sum([row["seconds"] for row in rows[name]]) for name in (f"{mode}, Polyak, refined", f"{mode}, published Adam"))
        print(f"{mode}: time of the default over time as published {ours / published:.2f}")
    return 0
