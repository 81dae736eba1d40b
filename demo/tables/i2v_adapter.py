"""I2V-Adapter and what each of its parts does (the paper's Tables 2 and 3).   ./scripts/demo --table i2v_adapter [pictures] [sheet.jpg]

Per picture: the first frame of a drawn clip of one shape (shape, colour and background held back in training; a motion word in turn) and its
caption become 16 frames with the nodes and the settings of the demo's first template. The first row is that graph, the others are:

- without adapter: frames do not look at frame 1, which is still free of noise in every call; without Content-Adapter; without both;
- plain AnimateDiff: without both, and frame 1 is kept by a noise mask, as stock nodes do it;
- PCFA alone: the template of that name, no motion module, but this cfg; it starts at denoise 0.75;
- t0 and p: of the Frame Similarity Prior, on the first fifth of the pictures, in a table of their own.

Columns. first-frame similarity: mean cosine of the later frames' CLIP embeddings with frame 1's (the demo's image tower), in percent. motion and
warping error: optical flow (demo/world/optical_flow.py). Errors of background and shape's colour against frame 1, 0..255, and the shares of frames
with its shape and with its colour: as in the table cross_frame. moves so: share of the clips that move as their caption says (as in the table motion; spinning aside);
in the end for twice as many pictures.
"""
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from .. import in_process
from ..cli import outputs
from ..world import optical_flow, scene
from . import cross_frame, motion, prompts, report

FULL, T0, P, CONTENT = "full", 1.0, 0.5, 1.0
SETTINGS = {**prompts.SETTINGS, "cfg": 2.0}
PARTS = {
    FULL: {},
    "without adapter": {"adapter": 0},
    "without Content-Adapter": {"content": 0},
    "without both": {"adapter": 0, "content": 0},
    "plain AnimateDiff": {"adapter": 0, "content": 0, "clean": False},
}
PRIOR = {**{f"t0 {t0}": {"t0": t0} for t0 in (0.9, 0.8, 0.7, 0.6)}, **{f"p {p}": {"p": p} for p in (0.1, 0.3, 0.7, 1.0)}}
PCFA = "PCFA alone"


@cache
def adapters() -> tuple:
    """(I2V-Adapter, Content-Adapter, CLIP_VISION), as the loaders give them."""
    in_process.load()
    import comfy.clip_vision
    import comfy.utils

    from ...networks.content_adapter import content_adapter
    from ...networks.i2v_adapter import i2v_adapter
    i2v, content = (make(comfy.utils.load_torch_file(str(file)), file.name) for make, file in ((i2v_adapter, in_process.I2V_ADAPTER), (content_adapter, in_process.CONTENT_ADAPTER)))
    return i2v, content, comfy.clip_vision.load(str(in_process.CLIP_VISION))


def clip_of(models: tuple, picture: torch.Tensor, caption: str, seed: int, *, adapter=1.0, content=CONTENT, clean=True, t0=T0, p=P) -> np.ndarray:
    """[16,128,128,3] in 0..1 of a picture [1,128,128,3]."""
    from ...attention_patches import clean_frame
    from ...nodes.content_adapter import ContentAdapterApply
    from ...nodes.frame_similarity import FrameSimilarityPrior
    from ...nodes.i2v_adapter import I2VAdapterApply
    (model, clip, vae), (i2v, of_picture, vision) = models, adapters()
    z = vae.encode(picture)
    if adapter:
        model = I2VAdapterApply.execute(model, i2v, {"samples": z}, adapter, 0.0, 1.0).result[0]
    elif clean:
        model = clean_frame.keep(model, z, "the table")
    if content:
        model = ContentAdapterApply.execute(model, of_picture, vision, picture, content, 0.0, 1.0).result[0]
    latent, _, denoise = FrameSimilarityPrior.execute(model, {"samples": z}, scene.FRAMES, p, t0, seed, SETTINGS["scheduler"], SETTINGS["steps"], True, "own values").result
    positive, negative = (in_process.encode(clip, [text]) for text in (caption, ""))
    return vae.decode(in_process.ksampler(model, latent, positive, negative, seed=seed, denoise=denoise, **SETTINGS)).numpy()


@torch.inference_mode()
def first_frame_similarity(clip: np.ndarray) -> float:
    """Percent."""
    seen = F.normalize(adapters()[2].encode_image(torch.as_tensor(clip))["image_embeds"].float(), dim=-1)
    return 100 * float((seen[1:] @ seen[0]).mean())


def compare(clip: np.ndarray, word: str) -> dict:
    """The columns, of a clip that should move as the word says."""
    errors = cross_frame.compare(clip)
    moves = np.nan if word == "spinning" else 100.0 * (motion.motion_of(clip) == word)
    return {"first-frame similarity, %": first_frame_similarity(clip), **optical_flow.measure(clip), "background error": errors["background error"],
            "shape-colour error": errors["shape-colour error"], **{key: errors[key] for key in ("same shape, %", "same colour, %")}, "moves so, %": moves}


@torch.inference_mode()
def clips_of(models: tuple, seed: int, kinds: dict) -> dict:
    """{row: clip} of the seed's picture."""
    s = motion.scene_of(seed)
    picture = s.draw([0.0])
    return {name: clip_of(models, picture, s.caption(), seed, **parts) for name, parts in kinds.items()}


def main(argv: list[str]) -> int:
    pictures, sheet = report.arguments(argv, 50)
    models, shown, few = motion.moving_model(), [], -(-pictures // 5)

    def measure(seed: int) -> dict:
        s = motion.scene_of(seed)
        clips = clips_of(models, seed, {**PARTS, **(PRIOR if seed < few else {})})
        clips[PCFA] = cross_frame.clip_of(s, "PCFA", seed, scene.FRAMES, 0.0, moving=True, settings=SETTINGS)
        shown.extend((f"{name}: {s.caption()}", clip[::2]) for name, clip in clips.items() if seed < 6 and name in (FULL, "without adapter", PCFA))
        return {name: compare(clip, s.bodies[0].motion) for name, clip in clips.items()}

    rows = report.collect(pictures, measure)
    print(report.report(f"I2V-Adapter, {pictures} pictures", {name: rows[name] for name in (*PARTS, PCFA)}, [(FULL, name) for name in PARTS if name != FULL]))
    print("\n" + report.report(f"Frame Similarity Prior, {few} pictures", {f"t0 {T0}, p {P}": rows[FULL][:few], **{name: rows[name] for name in PRIOR}}))
    more = report.collect(pictures, lambda i: {FULL: compare(clips_of(models, pictures + i, {FULL: {}})[FULL], motion.scene_of(pictures + i).bodies[0].motion)})
    print("\n" + report.report(f"{2 * pictures} pictures", {FULL: rows[FULL] + more[FULL]}))
    if sheet:
        outputs.save_clips(shown, sheet)
    return 0
