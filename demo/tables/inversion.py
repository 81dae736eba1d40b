"""How well, and how dearly, the inversion brings a picture back.   ./scripts/demo --table inversion [pictures]

Drawn pictures (shape, colour and background held back in training) with their captions, inverted as the node
MotionAwareInversion does it (50 steps, start timestep 761). PSNR of the decoded reconstruction against the decoded latent
of the picture, so that the VAE's own loss does not count. Pictures 0 to 3 chose Signum's constants and are left out. Every mode as published (`refine 0`, Adam) and with this pack's
defaults; all in one run, taking turns within each picture. The last row starts null-text's embedding from the motion
prompt (which `negative` may be connected to; Miyake et al., Negative-prompt Inversion): guidance has no effect then.
"""
import time

import numpy as np
import torch

from .. import in_process
from ..world import scene
from .cross_frame import cell

# name: mode, as published, extra calls per level on the way up, text of the negative prompt (None: the caption)
KINDS = {
    "none (DDIM), published": ("none", True, 0, ""),
    "none, default": ("none", False, 1, ""),
    "null-text, published": ("null-text", True, 0, ""),
    "null-text, default": ("null-text", False, 0, ""),
    "conditional, published": ("conditional", True, 0, ""),
    "conditional, refine 0": ("conditional", False, 0, ""),
    "conditional, default": ("conditional", False, 1, ""),
    "null-text from the motion prompt": ("null-text", False, 0, None),
}
GUIDANCE = 7.5
FIRST = 4  # the first picture that no constant was chosen on


def picture_of(seed: int) -> scene.Scene:
    return scene.held_back_scene(f"inversion {seed}")


@torch.inference_mode()
def measure(s: scene.Scene, mode: str, published: bool, refine: int, negative: str | None) -> dict:
    from ...nodes.inversion import psnr_of_picture
    from ...samplers.motion_aware_inversion import PUBLISHED, Optimisation
    from ...samplers.picture_inversion import invert_picture
    model, clip, vae = in_process.load()
    z0 = vae.encode(s.draw([0.5]))
    positive, negative = (in_process.encode(clip, [text]) for text in (s.caption(), s.caption() if negative is None else negative))
    options = Optimisation(inner=0) if mode == "none" else PUBLISHED if published else Optimisation()
    began = time.perf_counter()
    z, inversion = invert_picture(model, z0, positive, negative, mode=mode, steps=50, start=761, guidance=GUIDANCE, refine=refine, options=options)
    seconds = time.perf_counter() - began
    return {"PSNR, dB": psnr_of_picture(vae, z, z0), "model calls": inversion.calls, "of them with gradients": inversion.backward, "seconds": seconds}


def main(argv: list[str]) -> int:
    n = int(argv[0]) if argv else 50
    in_process.load()
    rows = {name: [] for name in KINDS}
    for seed in range(n):
        for name, kind in KINDS.items():
            rows[name].append(measure(picture_of(FIRST + seed), *kind))
        print(f"{seed + 1}/{n}", end="\r", flush=True)
    columns = list(rows["null-text, published"][0])
    print(f"inversion, {n} pictures | " + " | ".join(columns), "---" + "|---" * len(columns), sep="\n")
    for name, found in rows.items():
        print(" | ".join([name, *(cell([row[c] for row in found], c) for c in columns)]))
    published = np.sum([row["seconds"] for row in rows["null-text, published"]])
    for name in ("null-text, default", "conditional, published", "conditional, default"):
        print(f"time of {name} over null-text, published: {np.sum([row['seconds'] for row in rows[name]]) / published:.3f}")
    return 0
