"""Does the motion LoRA pan the camera?   ./scripts/demo --table motion_lora [clips] [sheet.jpg]

Prompts of one shape that stands still (held back in training), sampled with the LoRA at several strengths and the same
seeds: how far the shape travels to the right, and how its size changes, from the first frames to the last; mean ± standard
deviation over the clips.
"""
import math

import numpy as np

from .. import in_process
from ..cli import outputs
from ..world import scene
from . import report
from .motion import change_of, moving_model, video

STRENGTHS = (-1.0, 0.0, 0.5, 1.0)


def panning_model(strength: float) -> tuple:
    """As moving_model, with the motion LoRA between the two nodes of the motion module."""
    def change(module):
        import comfy.utils

        from ...networks.motion_lora import apply_lora
        return apply_lora(module, comfy.utils.load_torch_file(str(in_process.MOTION_LORA)), in_process.MOTION_LORA.name, strength)

    return moving_model(change)


def main(argv: list[str]) -> int:
    clips, sheet = report.arguments(argv, 16)
    models, shown = {strength: panning_model(strength) for strength in STRENGTHS}, []

    def measure(i: int) -> dict:
        s = scene.held_back_scene(f"motion LoRA {i}", ("standing still",))
        videos = {strength: video(of_strength, s.caption(), i) for strength, of_strength in models.items()}
        shown.extend((f"{s.caption()}: {strength}", frames[::2]) for strength, frames in videos.items() if i < 2)
        return {strength: change_of(frames) for strength, frames in videos.items()}

    rows = []
    for strength, changes in report.collect(clips, measure).items():
        seen = [c for c in changes if c]
        rows.append([strength, report.cell((c["x"] for c in seen), spread=np.std),
                     report.cell((math.exp(c["growth"]) for c in seen), digits=2, spread=np.std), len(seen)])
    print(report.markdown([f"{clips} clips, strength", "travel to the right, px", "ratio of sizes", "clips with a shape"], rows))
    if sheet:
        outputs.save_clips(shown, sheet)
    return 0
