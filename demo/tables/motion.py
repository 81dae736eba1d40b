"""Does a clip move as its prompt says?   ./scripts/demo --table motion [clips] [sheet.jpg]

Text to video with the demo's motion module and its LoRA of motion words: prompts of one shape (shape, colour and background held back in training) with each motion
word in turn, 16 frames, sampled as a KSampler node would. The motion is measured from the pictures (demo/world/judge.py): how
far the shape's centre travels from the first frames to the last, how its size changes, how far it turns; the one that is
largest beside its threshold is what the clip shows, and below all thresholds it stands still.
"""
import math
from collections import Counter

import numpy as np
import torch

from .. import in_process
from ..cli import outputs
from ..world import scene, shapes
from ..world.judge import judge
from . import report
from .prompts import SETTINGS

WORDS = tuple(m for m in scene.MOTIONS if m != "bouncing")
GOAL = 90  # %
TRAVEL, RATIO, TURN = 10.0, 1.25, math.pi / 4  # half of the least that the drawn clips show: px, ratio of sizes, radians


def scene_of(i: int) -> scene.Scene:
    """The i-th; a circle never spins."""
    word, tries = WORDS[i % len(WORDS)], 0
    while True:
        s = scene.held_back_scene(f"motion {i} {tries}", (word,))
        if word != "spinning" or shapes.TIPS[s.bodies[0].shape]:
            return s
        tries += 1


def turned(angles: list, name: str) -> float:
    """Radians that a shape turned in all, from its angle in each frame, which is known up to its symmetry. Clockwise is above 0."""
    tips = shapes.TIPS.get(name)
    return float(np.diff(np.unwrap(angles, period=2 * math.pi / tips)).sum()) if tips else 0.0


def change_of(clip: np.ndarray) -> dict | None:
    """{"x", "y": px; "growth": logarithm of the ratio of sizes; "turn": radians} from the first frames to the last of a clip [F,H,W,3] in 0..1; None when too few frames show a shape."""
    seen = [s.shapes[0] for s in map(judge, clip) if s.shapes]
    if len(seen) < 0.75 * len(clip):
        return None
    ends = max(1, len(seen) // 5)

    def change(values):
        return np.mean(values[-ends:], 0) - np.mean(values[:ends], 0)

    x, y = change([s.centre for s in seen])
    outlines = [s.nearest for s in seen]  # a badly drawn shape may turn all the same
    outline = max(sorted(set(outlines)), key=outlines.count)
    turn = turned([s.angle_as(outline) for s in seen], outline)
    return {"x": x, "y": y, "growth": float(change([math.log(s.size) for s in seen])), "turn": turn}


def motion_of(clip: np.ndarray) -> str | None:
    """One of WORDS for a clip [F,H,W,3] in 0..1; None when too few frames show a shape."""
    c = change_of(clip)
    if c is None:
        return None
    found = {"moving right": c["x"] / TRAVEL, "moving left": -c["x"] / TRAVEL, "moving down": c["y"] / TRAVEL, "moving up": -c["y"] / TRAVEL,
             "growing": c["growth"] / math.log(RATIO), "shrinking": -c["growth"] / math.log(RATIO), "spinning": abs(c["turn"]) / TURN}
    word = max(found, key=found.get)
    return word if found[word] >= 1 else "standing still"


def moving_model(change=lambda module: module) -> tuple:
    """(model with LoRA and motion module, clip with the LoRA, vae), as the workflow AnimateDiff wires them. change: module → module, between the module's two nodes."""
    model, clip, vae = in_process.load()
    import comfy.sd
    import comfy.utils

    from ...networks.motion_module_files import motion_module
    from ...nodes.motion_module import MotionModuleApply
    model, clip = comfy.sd.load_lora_for_models(model, clip, comfy.utils.load_torch_file(str(in_process.MOTION_WORDS_LORA)), 1.0, 1.0)
    module = motion_module(comfy.utils.load_torch_file(str(in_process.MOTION_MODULE)), in_process.MOTION_MODULE.name)
    return MotionModuleApply.execute(model, change(module), 1.0, 0.0, 1.0).result[0], clip, vae


@torch.inference_mode()
def video(models, caption: str, seed: int, frames: int = scene.FRAMES) -> np.ndarray:
    """[frames,128,128,3] in 0..1."""
    model, clip, vae = models
    latent = {"samples": torch.zeros(frames, 4, 16, 16)}
    return vae.decode(in_process.ksampler(model, latent, in_process.encode(clip, [caption]), in_process.encode(clip, [""]), seed=seed, **SETTINGS)).numpy()


def shares(found: dict) -> str:
    """The table of {word asked for: [word that each clip shows]}."""
    rows = []
    for word, seen in found.items():
        others = [o for o in seen if o != word]
        most = Counter(others).most_common(1)[0][0] or "no shape" if others else "-"
        rows.append([word, f"{100 * seen.count(word) / len(seen):.0f} %", most])
    clips = sum(map(len, found.values()))
    right = 100 * sum(seen.count(word) for word, seen in found.items()) / clips
    return report.markdown([f"asked for, {clips} clips", "moves so", "else most often"], [*rows, ["all", f"{right:.1f} % (goal {GOAL} %)", ""]])


def main(argv: list[str]) -> int:
    clips, sheet = report.arguments(argv, 160)
    models, shown = moving_model(), []

    def measure(i: int) -> dict:
        s = scene_of(i)
        frames = video(models, s.caption(), i)
        if i < len(WORDS):
            shown.append((s.caption(), frames[::2]))
        return {s.bodies[0].motion: motion_of(frames)}

    print(shares(report.collect(clips, measure)))
    if sheet:
        outputs.save_clips(shown, sheet)
    return 0
