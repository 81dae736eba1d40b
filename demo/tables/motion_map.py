"""Does the motion attention map find the shape that moves?   ./scripts/demo --table motion_map [pictures] [sheet.jpg]

Drawn pictures of one shape (shape, colour and background held back in training) and their own captions with motion
words ("a red circle moving right on a blue striped background"); the map as FF_MotionAttentionMap gives it (Eq. 11),
against the cells of the latent that the shape covers. Per map, the mean over the pictures and its standard error:

- IoU of the map cut at one threshold for all pictures (the best one for that map);
- IoU at each picture's own best threshold, which a user finds by looking: even useless maps gain from it;
- r, the correlation of map and mask over the cells: below 0, the map is high where the shape is not.

Baselines: the whole picture; a prior that knows only that shapes lie near the centre; the same attention for the words
that name the shape ("red circle") and, as a control, for those that name the rest ("blue striped background"). The last
rows are differences within each picture.

Two rows for the motion words: the node's default layers (1/2 and 1/4 of the latent, usual for SD1.5's 64x64 cells), and
the full-size ones alone, which on the demo's 16x16 cells are as fine as those of 1/4 are in SD1.5.

How far it carries: the demo's image model has seen still pictures only, half of them with motion words in the caption,
and nothing in a still tells which way a circle moves. What "moving right" finds may be the shape because the text encoder
reads from left to right and has read "a red circle" by then; the row for the words of the shape is there to compare
with. The shape is also the only thing in the picture besides the background, so this does not show that the map tells
what moves from what stands still, nor how it does on photographs.
"""

import numpy as np
import torch
from PIL import Image

from .. import in_process
from ..cli import outputs
from ..world import scene, shapes
from . import report

SIZE = 16          # the latent's side
SHOWN = 24         # pictures on the sheet
MOTION, FINE, THING, THING_FINE = "motion words", "motion words, full-size layers", "words of the shape", "words of the shape, full-size layers"
GROUND = "words of the background, full-size layers"
CENTRE, WHOLE = "centre of the picture", "whole picture"
DIFFERENCES = ((MOTION, THING), (MOTION, CENTRE), (MOTION, WHOLE), (FINE, THING_FINE), (FINE, GROUND), (FINE, CENTRE))
THRESHOLDS = np.linspace(0, 1, 101)


def picture_of(seed: int) -> scene.Scene:
    return scene.held_back_scene(f"motion map {seed}", scene.MOVING)


def true_mask(s: scene.Scene) -> np.ndarray:
    """[SIZE,SIZE] bool: latent cells of which the shape covers at least half."""
    body = s.bodies[0]
    x, y, size, angle = (torch.tensor([v]) for v in body.at(0.5))
    inside = shapes.coverage(shapes.outline_distance(body.shape, torch.stack([x, y], 1), size, angle, scene.SIZE, scene.SIZE))
    return (torch.nn.functional.avg_pool2d(inside, scene.SIZE // SIZE)[0] >= 0.5).numpy()


def positions(tokenizer, caption: str, words: str) -> tuple[int, ...]:
    """Columns of `words` (neighbours in the caption) in the conditioning of `caption`; tokenizer: transformers' CLIP tokenizer."""
    ids = [tokenizer(word)["input_ids"][1:-1] for word in caption.split()]
    found, n = words.split(), len(words.split())
    at = next(i for i in range(len(ids)) if caption.split()[i:i + n] == found)
    start = 1 + sum(map(len, ids[:at]))
    return tuple(range(start, start + sum(map(len, ids[at:at + n]))))


def centre_prior() -> np.ndarray:
    """1 in the middle, falling to 0 in the corners."""
    i = np.arange(SIZE) + 0.5 - SIZE / 2
    distance = np.hypot(i, i[:, None])
    return 1 - distance / distance.max()


@torch.inference_mode()
def maps_of(s: scene.Scene, seed: int) -> dict:
    """{name: map [SIZE,SIZE] in 0..1} for the scene's picture and caption."""
    from ...nodes.attention_map import MotionAttentionMap
    from ...prompts.tokens import MotionTokens
    model, clip, vae = in_process.load()
    caption, body = s.caption(), s.bodies[0]
    positive, latent = in_process.encode(clip, [caption]), {"samples": vae.encode(s.draw([0.5]))}

    def node(words, **layers):
        tokens = MotionTokens(positions(clip.tokenizer.clip_l.tokenizer, caption, words), positive[0][0].shape[1], (words,))
        return MotionAttentionMap.execute(model, latent, positive, tokens, 761, 401, 4, seed, 0.0, 1.0, 0.0, **layers).result[0][0].numpy()

    thing, full = f"{body.colour} {body.shape}", dict(resolutions="1/1")
    return {MOTION: node(body.motion), FINE: node(body.motion, **full), THING: node(thing), THING_FINE: node(thing, **full),
            GROUND: node(caption.split(" on ")[1].split(maxsplit=1)[1], **full), CENTRE: centre_prior(), WHOLE: np.ones((SIZE, SIZE))}


def ious(a: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[101] IoU of a >= threshold with the mask, for THRESHOLDS."""
    cut = a >= THRESHOLDS[:, None, None]
    return (cut & mask).sum((1, 2)) / (cut | mask).sum((1, 2))


def correlation(a: np.ndarray, mask: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), mask.ravel())[0, 1]) if a.std() > 0 else np.nan


def measure(maps: list, masks: list) -> list[dict]:
    """{column: value} of each picture, for one kind of map."""
    table = np.stack([ious(a, mask) for a, mask in zip(maps, masks)])
    best = table.mean(0).argmax()
    return [{"IoU, one threshold": 100 * row[best], "IoU, own threshold": 100 * row.max(), "r": 100 * correlation(a, mask)} for row, a, mask in zip(table, maps, masks)]


def overlaid(picture: np.ndarray, a: np.ndarray) -> Image.Image:
    """The picture, darkened where the map is low."""
    seen = np.asarray(Image.fromarray((a * 255).round().astype(np.uint8)).resize(picture.shape[1::-1], Image.Resampling.BICUBIC))[..., None] / 255
    return Image.fromarray((picture * (0.15 + 0.85 * seen) * 255).round().astype(np.uint8))


def sheet(scenes: list, maps: dict) -> Image.Image:
    """Per picture: the picture, then its motion words' map over it, of the usual layers and of the full-size ones."""
    pictures, labels = [], []
    for s, usual, fine in zip(scenes, maps[MOTION], maps[FINE]):
        picture, body = s.draw([0.5])[0].numpy(), s.bodies[0]
        pictures += [Image.fromarray((picture * 255).round().astype(np.uint8)), overlaid(picture, usual), overlaid(picture, fine)]
        labels += [f"{body.colour} {body.shape}", body.motion, "full-size layers"]
    return outputs.contact_sheet(pictures, columns=12, labels=labels)


def main(argv: list[str]) -> int:
    pictures, to = report.arguments(argv, 50)
    scenes = [picture_of(seed) for seed in range(pictures)]
    maps, masks = report.collect(pictures, lambda seed: maps_of(scenes[seed], seed)), [true_mask(s) for s in scenes]
    print(report.report(f"motion attention map, {pictures} pictures (in %)", {name: measure(found, masks) for name, found in maps.items()}, DIFFERENCES))
    if to:
        sheet(scenes[:SHOWN], maps).save(to, quality=88, optimize=True)
    return 0
