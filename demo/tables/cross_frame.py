"""What cross-frame attention keeps of the first frame.   ./scripts/demo --table cross_frame [seeds] [sheet.jpg]

Per seed: a drawn picture (shape, colour and background held back in training) becomes 8 frames with the nodes and the
settings of the demo's template "Picture to video, no extra weights (PCFA)" and its own caption as the prompt, once per kind
of attention; noise and prompt are the same for all kinds. Each frame after the first is compared with the first: the colour of the background, pixel by
pixel where both frames show background; the mean colour of the largest shape, and its name; the shape's name; frames without any
shape. Errors in steps of 0..255, mean over channels; ± is the standard error over seeds. In the last rows the error of PCFA is the
smaller one below 0.
"""
import numpy as np
import torch

from .. import in_process
from ..cli import outputs
from ..world import scene
from ..world.judge import judge
from . import report
from .prompts import SETTINGS

FRAMES, DENOISE = 8, 0.75
PCFA = "PCFA (p 0.5)"
KINDS = {"none": None, "first frame": "first", "first + previous": "first+previous", PCFA: "PCFA"}  # by which a row is called: the attention


def picture_of(seed: int) -> scene.Scene:
    return scene.held_back_scene(f"cross-frame {seed}", ("standing still",))


@torch.inference_mode()
def clip_of(s: scene.Scene, attention: str | None, seed: int, frames: int = FRAMES, at: float = 0.5, moving: bool = False, settings: dict = SETTINGS) -> np.ndarray:
    """[frames,128,128,3] in 0..1 that the nodes and the host's sampler make of the scene's picture at the time `at`; moving: the prompt says how it moves."""
    from ...attention_patches.cross_frame import patch
    from ...nodes.frames import PictureToFrames
    from ...nodes.pilife import PCFAPatch, chooser
    model, clip, vae = in_process.load()
    latent = PictureToFrames.execute({"samples": vae.encode(s.draw([at]))}, frames, True).result[0]
    if attention == "PCFA":
        model = PCFAPatch.execute(model, 0.5, seed, 0.0, 1.0).result[0]
    elif attention:
        model = patch(model, chooser(attention, 0.5, seed), "the table")
    positive, negative = (in_process.encode(clip, [text]) for text in (s.caption(moving), ""))
    return vae.decode(in_process.ksampler(model, latent, positive, negative, seed=seed, denoise=DENOISE, **settings)).numpy()


def compare(clip: np.ndarray) -> dict:
    """Means over the frames after the first; a frame without any shape counts as another shape and not for the colour."""
    first, *others = [judge(frame) for frame in clip]
    ground, colour, same, alike, lost = [], [], [], [], []
    for frame, seen in zip(clip[1:], others):
        both = first.background & seen.background
        if both.any():
            ground.append(255 * np.abs(frame - clip[0])[both].mean())
        if first.shapes and seen.shapes:
            a, b = (image[verdict.shapes[0].mask].mean(0) for image, verdict in ((clip[0], first), (frame, seen)))
            colour.append(255 * np.abs(a - b).mean())
        lost.append(not seen.shapes)
        both = first.shapes and seen.shapes
        same.append(bool(both and seen.shapes[0].name == first.shapes[0].name))
        alike.append(bool(both and seen.shapes[0].colour == first.shapes[0].colour))
    return {"background error": np.mean(ground) if ground else np.nan, "shape-colour error": np.mean(colour) if colour else np.nan,
            "same shape, %": 100 * np.mean(same), "same colour, %": 100 * np.mean(alike), "no shape, %": 100 * np.mean(lost)}


def main(argv: list[str]) -> int:
    seeds, sheet = report.arguments(argv, 50)
    shown = []

    def measure(seed: int) -> dict:
        s = picture_of(seed)
        clips = {name: clip_of(s, attention, seed) for name, attention in KINDS.items()}
        shown.extend(clips.items() if seed == 0 else ())
        return {name: compare(clip) for name, clip in clips.items()}

    rows = report.collect(seeds, measure)
    print(report.report(f"cross-frame attention, {seeds} seeds", rows, [(PCFA, name) for name in KINDS if name != PCFA]))
    if sheet:
        outputs.save_clips(shown, sheet)
    return 0
