"""What cross-frame attention keeps of the first frame.   ./scripts/demo --table cross_frame [seeds] [sheet.jpg]

Per seed: a drawn picture (shape, colour and background held back in training) becomes 8 frames with the nodes and the
settings of the demo's template "Picture to video, no extra weights (PCFA)" and its own caption as the prompt, once per kind
of attention; noise and prompt are the same for all kinds. Each frame after the first is compared with the first: the colour of the background, pixel by
pixel where both frames show background; the mean colour of the largest shape; the shape's name; frames without any
shape. Errors in steps of 0..255, mean over channels; +- is the standard error over seeds. The last rows are differences
within each seed, so that how hard a picture is does not count: below 0 the error of PCFA is the smaller one.
"""
import statistics

import numpy as np
import torch

from .. import in_process, outputs
from ..judge import judge
from ..world import scene
from .prompts import SETTINGS

FRAMES, DENOISE = 8, 0.75
PERCENT = ("same shape", "no shape")
NAMES = {"none": "none", "first": "first frame", "first+previous": "first + previous", "PCFA": "PCFA (p 0.5)"}
OTHERS = ("none", "first", "first+previous")


def picture_of(seed: int) -> scene.Scene:
    return scene.held_back_scene(f"cross-frame {seed}", ("standing still",))


@torch.inference_mode()
def clip_of(s: scene.Scene, attention: str, seed: int) -> np.ndarray:
    """[FRAMES,128,128,3] in 0..1 that the nodes and the host's sampler make of the scene's picture."""
    from ...attention_patches.cross_frame import patch
    from ...nodes.frames import PictureToFrames
    from ...nodes.pilife import PCFAPatch, chooser
    model, clip, vae = in_process.load()
    latent = PictureToFrames.execute({"samples": vae.encode(s.draw([0.5]))}, FRAMES, True).result[0]
    if attention == "PCFA":
        model = PCFAPatch.execute(model, 0.5, seed, 0.0, 1.0).result[0]
    elif attention != "none":
        model = patch(model, chooser(attention, 0.5, seed), "the table")
    positive, negative = (in_process.encode(clip, [text]) for text in (s.caption(motion=False), ""))
    return vae.decode(in_process.ksampler(model, latent, positive, negative, seed=seed, denoise=DENOISE, **SETTINGS)).numpy()


def compare(clip: np.ndarray) -> dict:
    """Means over the frames after the first; a frame without any shape counts as another shape and not for the colour."""
    first, *others = [judge(frame) for frame in clip]
    ground, colour, same, lost = [], [], [], []
    for frame, seen in zip(clip[1:], others):
        both = first.background & seen.background
        if both.any():
            ground.append(255 * np.abs(frame - clip[0])[both].mean())
        if first.shapes and seen.shapes:
            a, b = (image[verdict.shapes[0].mask].mean(0) for image, verdict in ((clip[0], first), (frame, seen)))
            colour.append(255 * np.abs(a - b).mean())
        lost.append(not seen.shapes)
        same.append(bool(seen.shapes and first.shapes and seen.shapes[0].name == first.shapes[0].name))
    return {"background error": np.mean(ground) if ground else np.nan, "shape-colour error": np.mean(colour) if colour else np.nan,
            "same shape": 100 * np.mean(same), "no shape": 100 * np.mean(lost)}


def cell(values, what: str, sign: str = "") -> str:
    """Mean and standard error over the seeds that have a value."""
    values = [float(v) for v in values if not np.isnan(v)]
    if not values:
        return "-"
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{np.mean(values):{sign}.1f} ± {error:.1f}" + (" %" if what in PERCENT else "")


def table(rows: dict) -> list[str]:
    """Markdown lines. rows: {attention: [compare() of each seed]}."""
    columns = list(rows["PCFA"][0])
    lines = [f"cross-frame attention, {len(rows['PCFA'])} seeds | " + " | ".join(columns), "---" + "|---" * len(columns)]
    for attention, found in rows.items():
        lines.append(" | ".join([NAMES[attention], *(cell([row[c] for row in found], c) for c in columns)]))
    for other in OTHERS:
        pairs = list(zip(rows["PCFA"], rows[other]))
        lines.append(" | ".join([f"PCFA minus {NAMES[other]}", *(cell([a[c] - b[c] for a, b in pairs], c, "+") for c in columns)]))
    return lines


def main(argv: list[str]) -> int:
    seeds = int(argv[0]) if argv else 50
    in_process.load()
    rows, shown = {a: [] for a in NAMES}, []
    for seed in range(seeds):
        s = picture_of(seed)
        for attention in NAMES:
            clip = clip_of(s, attention, seed)
            rows[attention].append(compare(clip))
            if seed == 0:
                shown.append((NAMES[attention], clip))
        print(f"{seed + 1}/{seeds}", end="\r", flush=True)
    print(*table(rows), sep="\n")
    if len(argv) > 1:
        outputs.save_clips(shown, argv[1])
    return 0
