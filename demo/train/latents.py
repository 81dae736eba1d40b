"""Latents of drawn pictures with their captions, and which of their cells lie near a shape."""
import random

import torch
from safetensors.torch import load_file

from ..in_process import VAE
from ..world import scene, shapes

CELLS, PIXELS, BATCH = 16, 8, 40  # cells of a side; pixels of a cell's side; pictures encoded at once


def load_encoder():
    from comfy.taesd.taesd import TAESD
    vae = TAESD(latent_channels=4).float()
    vae.load_state_dict({k: v.float() for k, v in load_file(VAE).items()})
    return vae.taesd_encoder.to(memory_format=torch.channels_last).requires_grad_(False)


@torch.no_grad()
def encoded(encoder, images: torch.Tensor) -> torch.Tensor:
    """[n,4,CELLS,CELLS] fp16 of pictures [n,3,H,W]."""
    with torch.autocast("cpu", torch.bfloat16):
        return encoder(images.contiguous(memory_format=torch.channels_last)).half()


def distance(s: scene.Scene, t: float) -> torch.Tensor:
    """[1,CELLS,CELLS]: how far each latent cell is from the nearest outline, in cells, negative inside."""
    nearest = torch.full((1, CELLS, CELLS), torch.inf)
    for body in s.bodies:
        x, y, size, angle = (torch.tensor([v]) for v in body.at(t))
        nearest = nearest.minimum(shapes.outline_distance(body.shape, torch.stack([x, y], 1) / PIXELS, size / PIXELS, angle, CELLS, CELLS))
    return nearest


@torch.no_grad()
def draw_latents(encoder, n: int, seed: int, look=lambda images: images, also=lambda images: None):
    """(latents [n,4,CELLS,CELLS] fp16, captions [(with, without motion words)], near [n,1,CELLS,CELLS] bool) of random frames of
    random scenes; near: less than a cell away from a shape, or in it. n: a multiple of BATCH.

    look(images [BATCH,3,H,W] in 0..1) changes the pictures first; also(images) may return something else to keep of them, then
    the fourth of the results.
    """
    rng, z, captions, near, more = random.Random(f"frames {seed}"), [], [], [], []
    for _ in range(0, n, BATCH):
        drawn = []
        for _ in range(BATCH):
            s = scene.random_scene(rng)
            drawn.append((s, rng.random()))
        images = look(torch.cat([s.draw([t]) for s, t in drawn]).permute(0, 3, 1, 2))
        z.append(encoded(encoder, images))
        captions += [(s.caption(), s.caption(motion=False)) for s, _ in drawn]
        near += [distance(s, t) < 1 for s, t in drawn]
        more.append(also(images))
    found = torch.cat(z), captions, torch.stack(near)
    return found if more[0] is None else (*found, torch.cat(more))


def pick_captioned(captions: list, n: int, no_prompt: float, rng: random.Random) -> tuple[list, list]:
    """(n indices, a caption for each) of [captions that a picture may go by]; a share no_prompt goes by none."""
    pick = [rng.randrange(len(captions)) for _ in range(n)]
    return pick, ["" if rng.random() < no_prompt else rng.choice(captions[i]) for i in pick]
