"""Is a clip longer than the motion module knows steady, and do its windows show?   ./scripts/demo --table long_video [clips] [sheet.jpg]

64 frames with the demo's motion module, which knows 16, by the host's Context Windows. Prompts of one shape that spins or stands
still (shape, colour and background held back in training); frames judged one by one (demo/world/judge.py). Shape kept: frames
that show a shape of the same name and colour as most of the clip's frames. Size: its standard deviation over the clip, in
percent of its mean. Change: mean difference of neighbouring frames, in steps of 0..255. At seams: the change where a window
begins or ends, in percent of the change elsewhere; 100 is no seam at all. The rows differ in the windows alone; the last one is of drawn clips.
"""
import numpy as np
import torch

from ..cli import outputs
from ..world import scene
from ..world.judge import judge
from . import report
from .motion import moving_model, video

FRAMES, LENGTH = 64, 16
KINDS = {  # name: overlap, schedule, FreeNoise
    "overlap 8, FreeNoise": (8, "standard_static", True),
    "overlap 8, independent noise": (8, "standard_static", False),
    "no overlap": (0, "batched", False),
}
WORDS = ("standing still", "spinning")


def windows(model, overlap: int, schedule: str, freenoise: bool):
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode
    return ContextWindowsManualNode.execute(model, context_length=LENGTH, context_overlap=overlap, context_schedule=schedule, context_stride=1, closed_loop=False,
                                            fuse_method="pyramid", dim=0, freenoise=freenoise, causal_window_fix=False).result[0]


def most(values: list):
    return max(set(values), key=values.count)


def measure(clip: np.ndarray, step: int) -> dict:
    """clip [F,H,W,3] in 0..1; a window begins every `step` frames."""
    seen = [v.shapes[0] for v in map(judge, clip) if v.shapes]
    kinds, sizes = [(s.name, s.colour) for s in seen], np.array([s.size for s in seen])
    change = 255 * np.abs(np.diff(clip, axis=0)).mean((1, 2, 3))
    seam = np.arange(1, len(clip)) % step == 0
    return {"shape kept, %": 100 * kinds.count(most(kinds)) / len(clip) if kinds else 0.0, "size, %": 100 * sizes.std() / sizes.mean() if kinds else np.nan,
            "change": change[~seam].mean(), "at seams, %": 100 * change[seam].mean() / max(1e-6, change[~seam].mean())}


def scene_of(i: int) -> scene.Scene:
    word = WORDS[i % len(WORDS)]
    tries = (scene.held_back_scene(f"long {i} {k}", (word,)) for k in range(1000))
    return next(s for s in tries if word != "spinning" or s.bodies[0].shape != "circle")


def main(argv: list[str]) -> int:
    clips, sheet = report.arguments(argv, 8)
    model, clip, vae = moving_model()
    shown = []

    def measure_all(i: int) -> dict:
        s, found = scene_of(i), {}
        for name, (overlap, schedule, freenoise) in KINDS.items():
            frames = video((windows(model, overlap, schedule, freenoise), clip, vae), s.caption(), i, FRAMES)
            found[name] = measure(frames, LENGTH - overlap)
            if i < 2:
                shown.append((f"{s.caption()}: {name}", frames[::4]))
        with torch.inference_mode():
            return found | {"drawn": measure(vae.decode(vae.encode(s.clip(FRAMES))).numpy(), LENGTH // 2)}

    print(report.report(f"{FRAMES} frames, {clips} clips", report.collect(clips, measure_all)))
    if sheet:
        outputs.save_clips(shown, sheet)
    return 0
