"""Scenes: what is in a clip, how it moves, its caption, its pixels.

A Scene is plain numbers, drawn from a seeded generator; everything a judge may ask about is one of its fields.
"""
import math
import random
from dataclasses import dataclass

import torch

from . import palette, shapes

SIZE = 128     # pixels
FRAMES = 16
BACKGROUNDS = ("plain", "gradient", "striped")
MOTIONS = ("moving right", "moving left", "moving up", "moving down", "growing", "shrinking", "spinning", "bouncing", "standing still")
MOVING = tuple(m for m in MOTIONS if m != "standing still")
STAYS = ("growing", "shrinking", "spinning", "standing still")
TILT = 0.25    # radians: what does not spin stands nearly upright
DIRECTION = {"moving right": (1, 0), "moving left": (-1, 0), "moving up": (0, -1), "moving down": (0, 1)}


@dataclass(frozen=True)
class Body:
    """One shape. centre [px] and size [px, disc of equal area] are those of the middle of the clip; angle in radians."""
    shape: str
    colour: str
    rgb: tuple
    centre: tuple
    size: float
    angle: float
    motion: str
    amount: float  # px travelled, ratio of the last size to the first, or radians turned

    def at(self, t: float) -> tuple:
        """(centre x, centre y, size, angle) at time t in [0, 1]."""
        (x, y), s, a, u = self.centre, self.size, self.angle, t - 0.5
        if self.motion in DIRECTION:
            dx, dy = DIRECTION[self.motion]
            x, y = x + dx * u * self.amount, y + dy * u * self.amount
        elif self.motion == "growing":
            s = s * self.amount**u
        elif self.motion == "shrinking":
            s = s * self.amount**-u
        elif self.motion == "spinning":
            a = a + u * self.amount
        elif self.motion == "bouncing":
            y = y + self.amount * (0.5 - abs(math.sin(2 * math.pi * t)))
        return x, y, s, a


def _a(word: str) -> str:
    return ("an " if word[0] in "aeiou" else "a ") + word


@dataclass(frozen=True)
class Scene:
    bodies: tuple
    ground: str       # colour name
    kind: str         # one of BACKGROUNDS
    rgb: tuple
    direction: float  # radians

    def caption(self, motion: bool = True) -> str:
        """"a red circle moving right on a blue striped background"; without motion words if asked."""
        things = [f"{_a(b.colour)} {b.shape}" + (f" {b.motion}" if motion else "") for b in self.bodies]
        kind = "" if self.kind == "plain" else self.kind + " "
        return " and ".join(things) + f" on {_a(self.ground)} {kind}background"

    def draw(self, times) -> torch.Tensor:
        """Frames [F,SIZE,SIZE,3] in 0..1 at the given times in [0, 1]."""
        colour = torch.tensor(self.rgb)
        image = shapes.background(self.kind, colour, colour * palette.SHADE, self.direction, SIZE, SIZE).expand(len(times), SIZE, SIZE, 3)
        for body in self.bodies:
            x, y, s, a = torch.tensor([body.at(t) for t in times]).T
            inside = shapes.coverage(shapes.outline_distance(body.shape, torch.stack([x, y], 1), s, a, SIZE, SIZE))
            image = torch.lerp(image, torch.tensor(body.rgb), inside[..., None])
        return image

    def clip(self, frames: int = FRAMES) -> torch.Tensor:
        """The whole clip [frames,SIZE,SIZE,3] in 0..1."""
        return self.draw([i / (frames - 1) for i in range(frames)])


def held_back() -> tuple:
    """The (shape, colour, ground) triples that training never sees: 70 of 224, the same in every run."""
    triples = [(s, c, g) for s in shapes.SHAPES for c in palette.NAMES for g in palette.NAMES if c != g]
    random.Random(2404).shuffle(triples)
    return tuple(triples[:70])


HELD_BACK = frozenset(held_back())


def held_back_scene(name: str, motions: tuple = MOTIONS) -> Scene:
    """A scene of one body that training never saw, for measurements; the same for the same name."""
    rng = random.Random(name)
    shape, colour, ground = rng.choice(held_back())
    motion = rng.choice(motions) if len(motions) > 1 else motions[0]
    return make_scene(rng, [(shape, colour, motion)], ground, rng.choice(BACKGROUNDS))


def _jitter(name: str, rng: random.Random) -> tuple:
    return tuple(min(1.0, max(0.0, c + rng.uniform(-palette.JITTER, palette.JITTER))) for c in palette.COLOURS[name])


def _amount(motion: str, rng: random.Random, room: float) -> float:
    if motion in DIRECTION:
        return rng.uniform(0.6, 1.0) * room
    if motion in ("growing", "shrinking"):
        return rng.uniform(1.6, 2.2)
    if motion == "spinning":
        return rng.uniform(0.5, 1.0) * math.pi
    return rng.uniform(0.5, 0.8) * room if motion == "bouncing" else 0.0


def random_body(rng: random.Random, shape: str, colour: str, motion: str, left: float, right: float) -> Body:
    """A body that stays between the columns left and right [px] of the picture for the whole clip."""
    alone, most = right - left > SIZE / 2, 1.48 if motion in ("growing", "shrinking") else 1.0  # 1.48: the root of the largest amount
    room = (right - left) / 2 - (1 if motion in STAYS else 16 if alone else 8)  # what moves has 16 px and more to do so, alone 32
    size = min(rng.uniform(22, 34) if alone else rng.uniform(14, 20), room / most / shapes.tip_radius(shape, 1.0))
    reach = shapes.tip_radius(shape, size) * most
    free_x, free_y = max(0.0, right - left - 2 * reach), max(0.0, SIZE - 2 * reach)
    amount = _amount(motion, rng, min(56.0, free_x if motion in ("moving right", "moving left") else free_y))
    dx = amount if motion in ("moving right", "moving left") else 0.0
    dy = amount if motion in ("moving up", "moving down", "bouncing") else 0.0
    x = rng.uniform(left + reach + dx / 2, max(left + reach + dx / 2, right - reach - dx / 2))
    y = rng.uniform(reach + dy / 2, max(reach + dy / 2, SIZE - reach - dy / 2))
    return Body(shape, colour, _jitter(colour, rng), (x, y), size, rng.uniform(-TILT, TILT) if motion != "spinning" else rng.uniform(-math.pi, math.pi), motion, amount)


def make_scene(rng: random.Random, bodies, ground: str, kind: str) -> Scene:
    """A scene with the given [(shape, colour, motion), ...] (one or two), everything else random."""
    half = SIZE / 2
    spans = [(0, SIZE)] if len(bodies) == 1 else [(0, half), (half, SIZE)]
    made = tuple(random_body(rng, *b, *span) for b, span in zip(bodies, spans))
    return Scene(made, ground, kind, _jitter(ground, rng), rng.choice([0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]) * math.pi)


def random_scene(rng: random.Random, two: float = 0.12) -> Scene:
    """A training scene: never a held-back triple. `two` is the chance of two bodies."""
    while True:
        ground, kind = rng.choice(palette.NAMES), rng.choice(BACKGROUNDS)
        bodies = [(rng.choice(shapes.SHAPES), rng.choice(palette.NAMES), rng.choice(MOTIONS)) for _ in range(2 if rng.random() < two else 1)]
        if all(c != ground and (s, c, ground) not in HELD_BACK for s, c, _ in bodies) and len({(s, c) for s, c, _ in bodies}) == len(bodies):
            return make_scene(rng, bodies, ground, kind)
