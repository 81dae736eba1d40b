"""Does the demo model draw what the prompt says?   ./scripts/demo --table prompts [number of prompts] [grid.jpg]

Prompts whose (shape, colour, background colour) were held back in training, half of them with a motion word, every
background kind in turn; sampled as a KSampler node would; judged by analysis of the picture (demo/world/judge.py).

"Background follows the prompt": flat backgrounds of image models tend to follow the seed (I4VGen). Prompts that differ
in the background's colour alone are sampled from the same noises; the number is the share of the variance of the
background's RGB that the prompt explains, the rest comes with the noise.
"""
import random

import numpy as np
import torch
from PIL import Image

from .. import in_process
from ..cli import outputs
from ..world import palette, scene
from ..world.judge import judge
from . import report

SETTINGS = dict(steps=20, cfg=4.0, sampler="euler", scheduler="normal")
BATCH = 25
GOAL = {"shape colour": 95, "shape": 90, "background colour": 95}


def prompts(n: int) -> list:
    """n scenes of one shape, for their captions."""
    rng, triples = random.Random("measured prompts"), scene.held_back()
    out = []
    for i in range(n):
        shape, colour, ground = triples[i % len(triples)]
        out.append(scene.make_scene(rng, [(shape, colour, rng.choice(scene.MOTIONS))], ground, scene.BACKGROUNDS[i % len(scene.BACKGROUNDS)]))
    return out


@torch.inference_mode()
def pictures(captions, seed: int) -> torch.Tensor:
    """[N,128,128,3] in 0..1, the models' answer to N prompts."""
    model, clip, vae = in_process.load()
    n = len(captions)
    latent = {"samples": torch.zeros(n, 4, 16, 16)}
    return vae.decode(in_process.ksampler(model, latent, in_process.encode(clip, captions), in_process.encode(clip, [""] * n), seed=seed, **SETTINGS))


def right(s: scene.Scene, picture) -> dict:
    seen, body = judge(picture), s.bodies[0]
    first = seen.shapes[0] if seen.shapes else None
    return {
        "shape colour": first is not None and first.colour == body.colour,
        "shape": first is not None and first.name == body.shape,
        "background colour": seen.ground == s.ground,
        "background kind": seen.kind == s.kind,
        "exactly one shape": len(seen.shapes) == 1,
    }


def explained(ground: np.ndarray) -> float:
    """Share of the variance of ground [prompts,seeds,3] that lies between the prompts, 0 to 1."""
    return float(ground.mean(1).var(0).sum() / ground.reshape(-1, 3).var(0).sum())


def background_follows_prompt(seeds: int = 8) -> tuple[float, float]:
    """(share explained by the prompt, standard deviation over the seeds in steps of 0..255)."""
    captions = [scene.make_scene(random.Random(0), [("circle", "red", "standing still")], ground, "plain").caption(motion=False)
                for ground in palette.NAMES if ground != "red"]
    ground = np.array([[judge(picture).rgb for picture in pictures([caption] * seeds, seed=1)] for caption in captions])
    return explained(ground), float(255 * ground.std(1).mean())


def label(s: scene.Scene, caption: str) -> str:
    """The caption in lines that fit under a picture."""
    return caption.replace(f" {s.bodies[0].motion}", f"\n{s.bodies[0].motion}").replace(" on ", "\non ").removesuffix(" background")


def main(argv: list[str]) -> int:
    n, sheet = report.arguments(argv, 200)
    scenes, verdicts, grid = prompts(n), [], []
    for start in report.progress(range(0, n, BATCH)):
        part = scenes[start:start + BATCH]
        captions = [s.caption(motion=i % 2 == 1) for i, s in enumerate(part, start)]
        for s, caption, picture in zip(part, captions, pictures(captions, seed=start)):
            verdicts.append(right(s, picture))
            grid.append((label(s, caption), picture))
    rows = [[what, f"{100 * sum(v[what] for v in verdicts) / n:.1f} %", f"{GOAL[what]} %" if what in GOAL else ""] for what in verdicts[0]]
    share, spread = background_follows_prompt()
    rows.append(["background follows the prompt", f"{100 * share:.1f} % (spread over seeds: {spread:.1f} of 255)", ""])
    print(report.markdown([f"{n} held-back prompts", "right", "goal"], rows))
    if sheet:
        shown = [Image.fromarray((p * 255).round().byte().numpy()) for _, p in grid[:24]]
        outputs.contact_sheet(shown, columns=8, labels=[text for text, _ in grid[:24]]).save(sheet, quality=88, optimize=True)
    return 0
