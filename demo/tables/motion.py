"""Does a clip move as its prompt says?   ./scripts/demo --table motion [clips] [sheet.jpg]

Text to video with the demo's motion module and its LoRA of motion words: prompts of one shape (shape, colour and background held back in training) with each motion
word in turn, 16 frames, sampled as a KSampler node would. The motion is measured from the pictures (demo/world/judge.py): how
far the shape's centre travels from the first frames to the last, how its size changes, how far it turns; the one that is
largest beside its threshold is what the clip shows, and below all thresholds it stands still.
"""
import math

import numpy as np
import torch

from .. import in_process
from ..cli import outputs
from ..world import scene, shapes
from ..world.judge import judge
from .prompts import SETTINGS

WORDS = tuple(m for m in scene.MOTIONS if m != "bouncing")
TRAVEL, RATIO, TURN = 10.0, 1.25, math.pi / 4  # half of the least that the drawn clips show: px, ratio of sizes, radians
MODULE = in_process.WEIGHTS / "animatediff_models" / "firstframe_demo_motion.safetensors"
LORA = in_process.WEIGHTS / "loras" / "firstframe_demo_motion_words.safetensors"


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
    model, clip = comfy.sd.load_lora_for_models(model, clip, comfy.utils.load_torch_file(str(LORA)), 1.0, 1.0)
    module = motion_module(comfy.utils.load_torch_file(str(MODULE)), MODULE.name)
    return MotionModuleApply.execute(model, change(module), 1.0, 0.0, 1.0).result[0], clip, vae


@torch.inference_mode()
def video(models, caption: str, seed: int, frames: int = scene.FRAMES) -> np.ndarray:
    """[frames,128,128,3] in 0..1."""
    model, clip, vae = models
    latent = {"samples": torch.zeros(frames, 4, 16, 16)}
    return vae.decode(in_process.ksampler(model, latent, in_process.encode(clip, [caption]), in_process.encode(clip, [""]), seed=seed, **SETTINGS)).numpy()


def main(argv: list[str]) -> int:
    n = int(argv[0]) if argv else 160
    models = moving_model()
    found, shown = {word: [] for word in WORDS}, []
    for i in range(n):
        s = scene_of(i)
        frames = video(models, s.caption(), i)
        found[s.bodies[0].motion].append(motion_of(frames))
        if i < len(WORDS):
            shown.append((s.caption(), frames[::2]))
        print(f"{i + 1}/{n}", end="\r", flush=True)
    print(f"asked for, {n} clips | moves so | else most often", "---|---|---", sep="\n")
    for word, seen in found.items():
        others = [o for o in seen if o != word]
        most = max(set(others), key=others.count) if others else "-"
        print(f"{word} | {100 * (len(seen) - len(others)) / max(1, len(seen)):.0f} % | {most if most else 'no shape'}")
    print(f"all | {100 * sum(o == word for word, seen in found.items() for o in seen) / n:.1f} % (goal 90 %) |")
    if len(argv) > 1:
        outputs.save_clips(shown, argv[1])
    return 0
