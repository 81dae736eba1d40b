"""Drawn clips for the demo's DynamiCrafter: three speeds, what CLIP sees of their first frames, and what of all that one training step is given."""
import random
from dataclasses import dataclass, replace

import torch

from ..world import scene
from .clips import POOL, draw_clips
from .stage import drawn_once

STRIDES = (1, 2, 3, 3)  # frame strides, drawn alike; at 3, the node's default, a clip shows all that happens in its scene
BOTH_ENDS = 0.3         # share of clips that are given their last frame too
NO_PROMPT, NO_PICTURE, NEITHER = 0.1, 0.1, 0.05


@dataclass(frozen=True)
class Slowed(scene.Body):
    """Seen from the time `first` of its scene on, for a share of it."""
    first: float
    share: float

    def at(self, t: float) -> tuple:
        return super().at(self.first + self.share * t)


def slowed(s: scene.Scene, stride: int, rng: random.Random) -> scene.Scene:
    """A part of what happens in the scene, at the frame stride's speed."""
    share = stride / max(STRIDES)
    first = rng.uniform(0, 1 - share)
    return replace(s, bodies=tuple(Slowed(**vars(body), first=first, share=share) for body in s.bodies))


@torch.no_grad()
def features(clip_vision, pictures: torch.Tensor) -> torch.Tensor:
    """[n,l,E] fp16 of pictures [n,H,W,3], as DynamiCrafter Conditioning gets them."""
    from ...samplers.dynamicrafter import FRAME, seen
    return torch.cat([clip_vision.encode_image(seen(picture, picture, FRAME), crop=True)["last_hidden_state"].half() for picture in pictures.split(1)])


def nothing(clip_vision) -> torch.Tensor:
    """[1,l,E]: what CLIP says where no picture is shown."""
    from ...samplers.dynamicrafter import GREY, blank
    return features(clip_vision, blank(GREY)).float()


def draw(encoder, clip_vision, n: int, seed: int) -> dict:
    """As draw_clips, and strides [n], features [n,l,E] of each clip's first frame. What spins does so at any angle: the picture shows it."""
    scenes, strides = [], []

    def one(rng):
        strides.append(rng.choice(STRIDES))
        scenes.append(slowed(scene.random_scene(rng), strides[-1], rng))
        return scenes[-1]

    clips = draw_clips(encoder, n, seed, one)
    return {**clips, "strides": torch.tensor(strides), "features": features(clip_vision, torch.cat([s.draw([0.0]) for s in scenes]))}


def drawn_pool(encoder, clip_vision, saves: bool = True) -> dict:
    """POOL clips, drawn once."""
    return drawn_once("dynamicrafter_pool", lambda: draw(encoder, clip_vision, POOL, 0), saves)


@dataclass(frozen=True)
class Batch:
    """Of c clips with f frames each. z [c*f,4,h,w]; beside [c*f,4,h,w], what stands beside the noise; features [c,l,E]; strides [c*f]; distance and paths as the pool's."""
    z: torch.Tensor
    beside: torch.Tensor
    features: torch.Tensor
    captions: list
    strides: torch.Tensor
    distance: torch.Tensor
    paths: torch.Tensor


def batch(pool: dict, pick: list, numbers: range, nothing: torch.Tensor, rng: random.Random) -> Batch:
    """Of the clips `pick`, the frames `numbers`, which lie equally far apart: a clip of its own, at so much higher a stride. Some without words, without what CLIP sees, without either;
    the picture always stands beside the noise."""
    from ...samplers.dynamicrafter import beside_noise
    z, f, captions, shown, beside = pool["z"][pick][:, list(numbers)].float(), len(numbers), [], [], []
    for i, clip in zip(pick, z):
        left_out = rng.random()
        captions.append("" if left_out < NEITHER + NO_PROMPT else pool["captions"][i])
        shown.append(NEITHER <= left_out < NEITHER + NO_PROMPT or left_out >= NEITHER + NO_PROMPT + NO_PICTURE)
        beside.append(beside_noise(clip[:1], clip[-1:] if rng.random() < BOTH_ENDS else None, f).expand(f, -1, -1, -1))
    seen = torch.where(torch.tensor(shown)[:, None, None], pool["features"][pick].float(), nothing)
    distance, paths = (pool[k][pick][:, list(numbers)].flatten(0, 1) for k in ("distance", "paths"))
    return Batch(z.flatten(0, 1), torch.cat(beside), seen, captions, (numbers.step * pool["strides"][pick]).repeat_interleave(f), distance, paths)
