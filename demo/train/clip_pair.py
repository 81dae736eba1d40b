"""Trains the demo world's CLIP pair: an image tower, and the projection that the demo's text encoder lacks for it. The text encoder stays as it is.

    COMFYUI_PATH=... python demo/run.py train.clip_pair [steps]

Contrastive, as CLIP: each picture shall be nearest to its own caption, each caption to its own picture. Half of a batch are twins of the other half
with one word of the caption changed, mostly the shape's, or colours alone would do. Outlines are what the tower is slowest to see: linear layers read
from every patch, half-way up, how much of its sixteen parts a shape covers, and at the end which shape that is. With and without the LoRA of motion
words, which changes the text encoder, and with and without these words, which no picture shows.
"""
import random
from dataclasses import replace

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from ..in_process import CLIP_TEXT, CLIP_VISION
from ..world import palette, scene, shapes
from .denoising import Tokens
from .files import save_half
from .fit import fit
from .image_model import frozen
from .motion_words import add_motion_words

BATCH, LR, PARTS = 64, 1e-3, 4
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # the host's
NOISE = 0.03        # most of it; generated pictures are not as clean as drawn ones
SHARPEST = 100.0    # highest factor of the cosines, CLIP's
PROJECTION = "text_encoders.clip_l.transformer.text_projection.set_weight"  # a LoRA that sets it: a checkpoint without one leaves it undefined


def twin(s: scene.Scene, rng: random.Random) -> scene.Scene:
    """The same scene but for one word of its caption."""
    what = rng.choice(("shape", "shape", "shape", "colour", "ground", "kind"))
    if what == "kind":
        return replace(s, kind=rng.choice([k for k in scene.BACKGROUNDS if k != s.kind]))
    free = [c for c in palette.NAMES if c != s.ground and all(c != b.colour for b in s.bodies)]
    if what == "ground":
        ground = rng.choice(free)
        return replace(s, ground=ground, rgb=palette.COLOURS[ground])
    at = rng.randrange(len(s.bodies))
    body = s.bodies[at]
    if what == "shape":
        other = replace(body, shape=rng.choice([name for name in shapes.SHAPES if name != body.shape]))
    else:
        colour = rng.choice(free)
        other = replace(body, colour=colour, rgb=palette.COLOURS[colour])
    return replace(s, bodies=(*s.bodies[:at], other, *s.bodies[at + 1:]))


def batch(rng: random.Random, n: int = BATCH) -> tuple[torch.Tensor, list[scene.Scene], list[float]]:
    """(pictures [n,3,H,W] in 0..1, their scenes, the moments that they show)."""
    scenes = [scene.random_scene(rng, two=0.2) for _ in range(n // 2)]
    scenes += [twin(s, rng) for s in scenes]
    times = [rng.random() for _ in scenes]
    return torch.cat([s.draw([t]) for s, t in zip(scenes, times)]).permute(0, 3, 1, 2), scenes, times


def normalised(pictures: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pictures - mean) / std


def build():
    """(image tower, text projection, logarithm of the cosines' factor)."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from ..comfy_support import VISION
    torch.manual_seed(2)
    config = CLIPVisionConfig(**{k: v for k, v in VISION.items() if k != "model_type"})
    return CLIPVisionModelWithProjection(config), torch.nn.Linear(config.projection_dim, config.projection_dim, bias=False), torch.nn.Parameter(torch.tensor(10.0).log())


def tower_as_published():
    """The image tower, frozen."""
    tower, _, _ = build()
    tower.load_state_dict({k: v.float() for k, v in load_file(CLIP_VISION).items()})
    return tower.requires_grad_(False).eval()


def contrast(images: torch.Tensor, texts: torch.Tensor, captions: list, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(CLIP's loss, share of the pictures whose own caption is nearest) of embeddings [n,E]; a caption that occurs twice is no wrong answer."""
    logits = scale.exp().clamp(max=SHARPEST) * F.normalize(images.float(), dim=-1) @ F.normalize(texts.float(), dim=-1).T
    same = torch.tensor([[a == b for b in captions] for a in captions])
    own = torch.arange(len(captions))
    logits = logits.masked_fill(same & ~torch.eye(len(captions), dtype=torch.bool), -torch.inf)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2, (logits.argmax(1) == own).float().mean()


class PatchReaders(torch.nn.Module):
    """What linear layers read from the patches: half-way up which of a patch's parts a shape covers, at the end which shape."""

    def __init__(self, width: int):
        super().__init__()
        self.where, self.which = torch.nn.Linear(width, PARTS**2), torch.nn.Linear(width, 1 + len(shapes.SHAPES))

    def loss(self, hidden: tuple, scenes: list, times: list) -> torch.Tensor:
        """hidden: what the tower's layers gave [n,1+l,E], of pictures of the scenes at the times."""
        middle, last = (hidden[i][:, 1:].float() for i in (len(hidden) // 2, -1))
        side = round(middle.shape[1] ** 0.5)
        parts, names = zip(*(covered(s, t, side) for s, t in zip(scenes, times)))
        where = F.binary_cross_entropy_with_logits(self.where(middle), torch.stack(parts))
        return where + F.cross_entropy(self.which(last).flatten(0, 1), torch.cat(names))


def covered(s: scene.Scene, t: float, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """([patches, PARTS^2] how much of each part of a patch a shape covers, [patches] 0 or 1 + the number of the shape that covers a tenth of the patch)."""
    cells = side * PARTS
    parts, names = torch.zeros(side**2, PARTS**2), torch.zeros(side**2, dtype=torch.long)
    for body in s.bodies:
        x, y, size, angle = (torch.tensor([v]) for v in body.at(t))
        cell = scene.SIZE / cells
        inside = shapes.coverage(shapes.outline_distance(body.shape, torch.stack([x, y], 1) / cell, size / cell, angle, cells, cells))[0]
        of_body = inside.unflatten(0, (side, PARTS)).unflatten(2, (side, PARTS)).transpose(1, 2).reshape(side**2, PARTS**2)
        parts, names = parts.maximum(of_body), torch.where(of_body.mean(1) > 0.1, 1 + shapes.SHAPES.index(body.shape), names)
    return parts, names


def save(tower, projection, step: int) -> None:
    save_half(tower.state_dict(), CLIP_VISION, step)
    save_half({PROJECTION: projection.weight}, CLIP_TEXT, step)


def main(argv: list[str]):
    (_, plain), (unet, with_words) = frozen(), frozen()
    add_motion_words(unet, with_words)
    tower, projection, scale = build()
    tokens, readers = Tokens(), PatchReaders(tower.config.hidden_size)

    def loss(step, rng, rate):
        pictures, scenes, times = batch(rng)
        captions = [s.caption(motion=rng.random() < 0.5) for s in scenes]
        with torch.no_grad():
            words = rng.choice((plain, with_words))(input_ids=tokens(captions)).pooler_output
        pictures = pictures + NOISE * rng.random() * torch.randn_like(pictures)
        with torch.autocast("cpu", torch.bfloat16):
            seen = tower(pixel_values=normalised(pictures), output_hidden_states=True)
        value, right = contrast(seen.image_embeds, projection(words), captions, scale)
        read = readers.loss(seen.hidden_states, scenes, times)
        return value + read, {"loss": value, "right": right, "read": read}

    fit("clip_pair", [*tower.parameters(), *projection.parameters(), scale, *readers.parameters()], loss, int(argv[0]) if argv else 3000, lr=LR, decay=0.998,
        save=lambda step: save(tower, projection, step))
