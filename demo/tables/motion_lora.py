"""Does the motion LoRA pan the camera?   ./scripts/demo --table motion_lora [clips] [sheet.jpg]

Prompts of one shape that stands still (held back in training), sampled with the LoRA at several strengths and the same
seeds: how far the shape travels to the right, and how its size changes, from the first frames to the last.
"""
import math

import numpy as np

from .. import in_process
from ..cli import outputs
from ..world import scene
from .motion import change_of, moving_model, video

STRENGTHS = (-1.0, 0.0, 0.5, 1.0)
FILE = in_process.WEIGHTS / "animatediff_motion_lora" / "firstframe_demo_pan.safetensors"


def panning_model(strength: float) -> tuple:
    """As moving_model, with the motion LoRA between the two nodes of the motion module."""
    def change(module):
        import comfy.utils

        from ...networks.motion_lora import apply_lora
        return apply_lora(module, comfy.utils.load_torch_file(str(FILE)), FILE.name, strength)

    return moving_model(change)


def main(argv: list[str]) -> int:
    n, shown = int(argv[0]) if argv else 16, []
    print(f"{n} clips, strength | travel to the right, px | ratio of sizes | clips with a shape", "---|---|---|---", sep="\n")
    for strength in STRENGTHS:
        models, changes = panning_model(strength), []
        for i in range(n):
            s = scene.held_back_scene(f"motion LoRA {i}", ("standing still",))
            frames = video(models, s.caption(), i)
            changes.append(change_of(frames))
            if i < 2:
                shown.append((f"{s.caption()}: {strength}", frames[::2]))
        seen = [c for c in changes if c]
        x, ratio = [c["x"] for c in seen], [math.exp(c["growth"]) for c in seen]
        print(f"{strength} | {np.mean(x):.1f} ± {np.std(x):.1f} | {np.mean(ratio):.2f} ± {np.std(ratio):.2f} | {len(seen)}", flush=True)
    if len(argv) > 1:
        outputs.save_clips(shown, argv[1])
    return 0
