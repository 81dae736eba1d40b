"""Drawn clips for the motion module: latents, captions, where the shapes lie and how they move."""
import math
import random
from dataclasses import replace

import torch

from ..world import scene
from .latents import distance, encoded, load_encoder
from .motion_readers import path
from .stage import drawn_once

POOL, FRAMES = 240, scene.FRAMES
FEW = 4         # frames of a clip in a step that sees few
SPINNING = 0.5  # share of clips that are picked because they spin: it is the slowest to be learned


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
        z.append(encoded(encoder, s.clip(FRAMES).permute(0, 3, 1, 2)))
        distances.append(torch.stack([distance(s, i / (FRAMES - 1)) for i in range(FRAMES)]).half())
        paths.append(path(s, FRAMES))
        captions.append(s.caption())
    return {"z": torch.stack(z), "distance": torch.stack(distances), "paths": torch.stack(paths), "captions": captions}


def drawn_pool(saves: bool = True) -> dict:
    """POOL clips, drawn once."""
    return drawn_once("motion_pool", lambda: draw_clips(load_encoder(), POOL, 0), saves)


def renew(pool: dict, step: int, seed: int, encoder, draw=draw_clips) -> None:
    """Every 20 steps 6 clips of the pool are drawn anew, by draw(encoder, n=6, seed=seed)."""
    if step % 20 == 19:
        at = (step // 20 * 6) % POOL
        new = draw(encoder, n=6, seed=seed)
        for k, kept in pool.items():
            kept[at:at + 6] = new[k]


def pick_clips(captions: list, n: int, rng, spinning: float = SPINNING) -> list:
    """Indices of n clips; a share `spinning` of them is picked among those that spin."""
    every = range(len(captions))
    spin = [i for i in every if "spinning" in captions[i]] or every
    return [rng.choice(spin if rng.random() < spinning else every) for _ in range(n)]


def few_frames(rng) -> list:
    """The numbers of FEW frames, spread over the clip."""
    spread = FRAMES // FEW
    return [i * spread + rng.randrange(spread) for i in range(FEW)]
