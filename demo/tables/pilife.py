"""PiLife against its baseline and without its parts (the paper's Fig. 5).   ./scripts/demo --table pilife [seeds] [sheet.jpg]

Per seed: a drawn picture of one shape (shape, colour and background held back in training) and its caption with a motion
word become 6 frames with the nodes of the demo's template of PiLife, with everything and with one part left out at a time; seeds,
prompt, cfg and negative are the same. The inversion brings a negative of its own (psi): it is held where the inversion is left out,
and exchanged for the empty prompt, with the inversion and without, in rows of their own. I2V-Zero has the empty prompt, as it is
published. The inverted picture is the first frame as the paper has it: sampled, not kept by a mask.
Numbers in steps of 0..255, mean over channels and pixels; ± is the standard error over seeds.

- first frame: mean difference of frame 1 from the picture; others: of the later frames from the picture;
- static background: the same for the pixels of the picture's background, a margin around the shape left out;
- between frames: mean difference of neighbouring frames (less is steadier);
- motion: how far the shape's centre strays from its place in frame 1, in pixels, mean over the later frames.
"""

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from .. import in_process
from ..cli import outputs
from ..world import scene
from ..world.judge import judge
from . import report
from .prompts import SETTINGS

FRAMES, STEPS, START, ETA, SMOOTHING = 6, 50, 761, 1.0, 1.0
MARGIN = 6  # px
BASELINE, PILIFE = "I2V-Zero", "PiLife"
KINDS = {  # by which a row is called: what of PiLife is left out
    BASELINE: None,
    PILIFE: {},
    "without inversion (plain DDIM; negative psi)": {"inversion": False},
    "empty negative": {"psi": False},
    "without inversion, empty negative": {"inversion": False, "psi": False},
    "without motion noise": {"noise": False},
    "without clipper": {"clipper": False},
    "without probabilistic frames": {"probabilistic": False},
    "without motion noise and clipper": {"noise": False, "clipper": False},
}


def picture_of(seed: int) -> scene.Scene:
    return scene.held_back_scene(f"pilife {seed}", scene.MOVING)


def sample(model, latent, positive, negative, sigmas, noise, seed: int) -> torch.Tensor:
    """What SamplerCustomAdvanced with a CFGGuider and ddim computes."""
    import comfy.sample
    import comfy.samplers
    return comfy.sample.sample_custom(model, noise, SETTINGS["cfg"], comfy.samplers.sampler_object("ddim"), sigmas, positive, negative, latent, disable_pbar=True, seed=seed)


class Pieces:
    """What the kinds of one seed share."""

    def __init__(self, s: scene.Scene, seed: int):
        from ...nodes.attention_map import MotionAttentionMap
        from ...nodes.inversion import MotionAwareInversion
        from ...nodes.motion_tokens import MotionTokensNode
        from ...prompts.motion_words import find_motion
        self.model, clip, self.vae = in_process.load()
        caption, self.seed = s.caption(), seed
        self.positive, self.negative = (in_process.encode(clip, [text]) for text in (caption, ""))
        self.latent = {"samples": self.vae.encode(s.draw([0.5]))}
        self.inversions = {on: MotionAwareInversion.execute(self.model, self.latent, self.positive, "conditional" if on else "none", STEPS, START).result
                           for on in (True, False)}
        tokens = MotionTokensNode.execute(clip, caption, "" if find_motion(caption) else s.bodies[0].motion).result[1]
        self.A = MotionAttentionMap.execute(self.model, self.latent, self.positive, tokens, START, 401, 4, seed, SMOOTHING, 1.0, 0.0,
                                          resolutions="1/1").result[0]

    def i2v_zero(self) -> torch.Tensor:
        from ...nodes.pilife import I2VZero
        model, latent, sigmas = I2VZero.execute(self.model, self.latent, self.positive, self.negative, FRAMES, "first", 0.5, self.seed, 12.0, 0.0).result
        return sample(model, latent["samples"], self.positive, self.negative, sigmas, torch.zeros_like(latent["samples"]), self.seed)

    def pilife(self, inversion=True, psi=True, noise=True, clipper=True, probabilistic=True) -> torch.Tensor:
        from ...attention_patches.cross_frame import patch
        from ...nodes.pilife import chooser
        from ...samplers.motion_noise import fresh_noise
        from ...samplers.start_noise import attention_noise, clipped_noise
        z, found, _, sigmas, *_ = self.inversions[inversion]
        start = attention_noise(found, self.A, ETA, self.seed) if noise else attention_noise(found, None, 0.0, self.seed)  # eta 0: fresh noise
        assert noise or torch.equal(start.generate_noise({"samples": z["samples"].repeat(2, 1, 1, 1)})[1:], fresh_noise((2, *z["samples"].shape[1:]), self.seed)[0][1:])
        start = clipped_noise(start, found, 0.1, False, self.seed) if clipper else start
        model = patch(self.model, chooser("PCFA" if probabilistic else "first+previous", 0.5, self.seed), "the table")
        latent = z["samples"].repeat(FRAMES, 1, 1, 1)
        negative = self.inversions[True][2] if psi else self.negative
        return sample(model, latent, self.positive, negative, sigmas, start.generate_noise({"samples": latent}), self.seed)


def compare(clip: np.ndarray, picture: np.ndarray, background: np.ndarray) -> dict:
    """clip [F,H,W,3], picture [H,W,3] in 0..1; background [H,W] bool."""
    apart = 255 * np.abs(clip - picture).mean(-1)
    centres = [seen.shapes[0].centre if seen.shapes else None for seen in map(judge, clip)]
    strays = [float(np.hypot(*np.subtract(c, centres[0]))) for c in centres[1:] if c and centres[0]]
    return {"first frame": apart[0].mean(), "others": apart[1:].mean(), "static background": apart[1:, background].mean(),
            "between frames": 255 * np.abs(np.diff(clip, axis=0)).mean(), "motion, px": np.mean(strays) if strays else np.nan}


@torch.inference_mode()
def clips_of(s: scene.Scene, seed: int) -> tuple[np.ndarray, dict]:
    """(the picture as the VAE shows it [H,W,3], {kind: clip [F,H,W,3]})."""
    pieces = Pieces(s, seed)
    picture = pieces.vae.decode(pieces.latent["samples"])[0].numpy()
    return picture, {name: pieces.vae.decode(pieces.i2v_zero() if parts is None else pieces.pilife(**parts)).numpy() for name, parts in KINDS.items()}


def background_of(s: scene.Scene) -> np.ndarray:
    seen = judge(s.draw([0.5])[0].numpy())
    return ndimage.binary_erosion(seen.background, iterations=MARGIN, border_value=1)


def main(argv: list[str]) -> int:
    seeds, sheet = report.arguments(argv, 50)
    frames, labels = [], []

    def measure(seed: int) -> dict:
        s = picture_of(seed)
        picture, clips = clips_of(s, seed)
        for name, clip in clips.items() if seed < 2 else ():
            frames.extend(Image.fromarray((f * 255).round().astype(np.uint8)) for f in (picture, *clip))
            labels.extend({0: name, 3: s.caption() if name == BASELINE else ""}.get(i, "") for i in range(1 + FRAMES))
        return {name: compare(clip, picture, background_of(s)) for name, clip in clips.items()}

    print(report.report(f"PiLife, {seeds} seeds", report.collect(seeds, measure), [(PILIFE, name) for name in KINDS if name != PILIFE]))
    if sheet:
        outputs.contact_sheet(frames, columns=FRAMES + 1, labels=labels).save(sheet, quality=88, optimize=True)
    return 0
