"""What the demo's DynamiCrafter makes of one picture, and of two.   ./scripts/demo --table dynamicrafter [pictures] [sheet.jpg]

Per picture: the first frame of a drawn clip of one shape (shape, colour and background held back in training; a motion word in turn) and its caption become 16 frames with the
node's settings and the host's sampler; then once more with the clip's last frame as the second picture. The rows "drawn" are the clip itself, through the VAE.

Picture to video. background PSNR: of the first frame against the picture, where both show background. colour and shape: whether the first frame's largest shape has those of the
caption; later: the share of the other frames that have them. moves so: share of the clips that move as their caption says, those that should spin apart (as in the table motion).
Two pictures. distance: of the last frame's largest shape from the second picture's, in percent of the picture's side; within 10 %: share of the clips where it is no more, which
one without a shape never is. PSNR of the first and last frame against the pictures. The row "picture to video" is the clip that knew the first picture alone.
"""
import sys
from functools import cache, partial

import numpy as np
import torch

from .. import in_process
from ..cli import outputs
from ..world import scene
from ..world.judge import judge
from . import motion, prompts, report

SETTINGS = prompts.SETTINGS
OURS, DRAWN = "DynamiCrafter", "drawn"
PICTURE = "picture to video"
NEAR = 10.0  # % of the picture's side


@cache
def models() -> tuple:
    """(model, image projector, clip with the LoRA of motion words, vae, CLIP_VISION), as the loaders give them."""
    image_model, clip, vae = in_process.load()
    import comfy.clip_vision
    import comfy.sd
    import comfy.utils

    from ...networks.image_projector import image_projector
    from ...networks.lvdm_files import AUTO, look
    from ...networks.lvdm_model import from_file
    _, clip = comfy.sd.load_lora_for_models(image_model, clip, comfy.utils.load_torch_file(str(in_process.MOTION_WORDS_LORA)), 1.0, 1.0)
    source, name = partial(comfy.utils.load_torch_file, str(in_process.DYNAMICRAFTER)), in_process.DYNAMICRAFTER.name
    contents = look(source(), name)
    return from_file(source, name, AUTO, contents), image_projector(source, name, AUTO, contents), clip, vae, comfy.clip_vision.load(str(in_process.CLIP_VISION))


@torch.inference_mode()
def clip_of(picture: torch.Tensor, last: torch.Tensor | None, caption: str, seed: int) -> np.ndarray:
    """[16,128,128,3] in 0..1 of pictures [1,128,128,3]; last: the second one, or None."""
    from ...nodes.dynamicrafter import DynamiCrafterConditioning
    model, projector, clip, vae, vision = models()
    said = (in_process.encode(clip, [text]) for text in (caption, ""))
    positive, negative, latent = DynamiCrafterConditioning.execute(*said, projector, vision, vae, picture, scene.SIZE, scene.SIZE, scene.FRAMES, 0, last).result
    return vae.decode(in_process.ksampler(model, latent, positive, negative, seed=seed, **SETTINGS)).numpy()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """dB, of values in 0..1."""
    return float(-10 * np.log10(max(1e-10, np.square(a - b).mean())))


def is_like(seen, body: scene.Body) -> tuple[bool, bool]:
    """Whether the largest shape has the body's colour, and its outline."""
    largest = seen.shapes[0] if seen.shapes else None
    return bool(largest and largest.colour == body.colour), bool(largest and largest.name == body.shape)


def compare(clip: np.ndarray, s: scene.Scene, picture: np.ndarray) -> dict:
    """The columns of picture to video. picture [H,W,3]."""
    body, seen, given = s.bodies[0], [judge(frame) for frame in clip], judge(picture)
    colour, shape = 100.0 * np.array([is_like(frame, body) for frame in seen]).T
    ground = seen[0].background & given.background
    spins = body.motion == "spinning"
    moves = 100.0 * (motion.motion_of(clip) == body.motion)
    return {"background PSNR, dB": psnr(clip[0][ground], picture[ground]) if ground.any() else np.nan, "colour, %": colour[0], "shape, %": shape[0], "colour later, %": colour[1:].mean(),
            "shape later, %": shape[1:].mean(), "moves so, %": np.nan if spins else moves, "spins, %": moves if spins else np.nan}


def compare_ends(clip: np.ndarray, first: np.ndarray, last: np.ndarray) -> dict:
    """The columns of two pictures, which are [H,W,3]."""
    found, wanted = (judge(frame).shapes for frame in (clip[-1], last))
    distance = 100 * float(np.linalg.norm(np.subtract(found[0].centre, wanted[0].centre))) / last.shape[1] if found and wanted else np.nan
    return {"distance, %": distance, "within 10 %, %": 100.0 * (distance <= NEAR), "PSNR first, dB": psnr(clip[0], first), "PSNR last, dB": psnr(clip[-1], last)}


def main(argv: list[str]) -> int:
    pictures, sheet = report.arguments(argv, 100)
    if not in_process.DYNAMICRAFTER.exists():
        print(f"scripts/demo: there is no {in_process.DYNAMICRAFTER} yet; demo/run.py train.dynamicrafter makes it (docs/training.md).", file=sys.stderr)
        return 1
    vae, shown, ends = models()[3], [], {PICTURE: [], OURS: [], DRAWN: []}

    def measure(seed: int) -> dict:
        s = motion.scene_of(seed)
        first, last = s.draw([0.0]), s.draw([1.0])
        with torch.inference_mode():
            clips = {OURS: clip_of(first, None, s.caption(), seed), DRAWN: vae.decode(vae.encode(s.clip())).numpy()}
            between = clip_of(first, last, s.caption(), seed)
        for name, clip in ((PICTURE, clips[OURS]), (OURS, between), (DRAWN, clips[DRAWN])):
            ends[name].append(compare_ends(clip, first[0].numpy(), last[0].numpy()))
        shown.extend(((s.caption(), clips[OURS][::2]), ("two pictures: " + s.caption(), between[::2])) if seed < len(motion.WORDS) else ())
        return {name: compare(clip, s, first[0].numpy()) for name, clip in clips.items()}

    rows = report.collect(pictures, measure)
    print(report.report(f"picture to video, {pictures} pictures", rows))
    print("\n" + report.report(f"two pictures, {pictures} pairs", ends))
    if sheet:
        outputs.save_clips(shown, sheet)
    return 0
