"""I4VGen: what the search for the anchor image keeps, and what each stage does (the paper's Table 2).   ./scripts/demo --table i4vgen [prompts] [sheet.jpg]

Prompts of one shape (shape, colour and background held back in training) with each motion word in turn. The model is the demo's with its motion module, the
reward CLIPScore of the demo's CLIP pair, 25 steps as in the paper.

Search. 16 candidate pictures are sampled to the end by the checkpoint as it is (without motion module, its LoRA and its noise schedule, of which single pictures
have nothing), and as drafts of fewer steps; each one's denoised prediction is scored on the way, each draft at its end, and the search of the node
*Search Anchor Image* (samplers/anchor_search.py) runs on these scores. winner kept: its anchor is the one of the highest score of all 16; within 1 %: or one whose score, sampled to
the end, is at most that much lower; score lost: of the reward's 100; right: shape, its colour and the background's colour are those of the prompt (by
analysis, demo/world/judge.py); units: model calls, counted for the whole batch of 16.

Stages, on the first eighth of the prompts; each row but the first changes one thing of the full one:

- plain AnimateDiff;
- without selection: the anchor is the first candidate;
- without NI-VSDS: the still video of the anchor goes into the last sampling;
- full: the search of the node's own values (drafts of 6 steps, 2 finalists), NI-VSDS with the authors' settings, regeneration from noise (p_re 1, the paper's for AnimateDiff).

Columns. right, %: of the frames, as above. moves so: share of the clips (as in the table motion; spinning aside). motion and warping error: optical flow
(demo/world/optical_flow.py). temporal consistency: mean cosine of neighbouring frames' CLIP embeddings, in percent. background error, same shape and same
colour: against the clip's first frame, as in the table cross_frame. units: model calls, counted for a clip of 16 frames; a candidate is one frame.
"""
import numpy as np
import torch
import torch.nn.functional as F

from ...samplers import anchor_search
from .. import in_process
from ..cli import outputs
from ..world import optical_flow, scene
from . import cross_frame, motion, prompts, report

CANDIDATES, STEPS = 16, 25
SETTINGS = {**prompts.SETTINGS, "steps": STEPS}
ITERATIONS = int(0.6 * STEPS) + 1  # of NI-VSDS, as the authors' code has it
OFF, DEFAULT = "off", "drafts of 6 steps, 2 finalists"
SEARCHES = {  # (cuts, share that each drops, steps of a draft, finalists)
    OFF: ((), 0.0, 0, 0), DEFAULT: ((), 0.0, 6, 2), **{f"drafts of {n}, {k}": ((), 0.0, n, k) for n, k in ((6, 1), (6, 4), (8, 1), (8, 2))},
    **{f"half after {', '.join(map(str, cuts))}": (cuts, 0.5, 0, 0) for cuts in ((4, 8, 12, 16), (8, 12, 16), (8, 16), (12,))}}
SCORED = sorted({cut for cuts, *_ in SEARCHES.values() for cut in cuts})
DRAFTS = sorted({n for *_, n, _ in SEARCHES.values() if n})
PLAIN, ANY, STILL, FULL = STAGES = "plain", "without selection", "without NI-VSDS", "full"


def reward():
    """CLIPScore of the demo's pair: its checkpoint's CLIP with the projection that a LoRA brings, and its image tower."""
    model, clip, _ = in_process.load()
    import comfy.clip_vision
    import comfy.sd
    import comfy.utils

    from ...networks.clip_score import ClipScore
    _, clip = comfy.sd.load_lora_for_models(model, clip, comfy.utils.load_torch_file(str(in_process.CLIP_TEXT)), 1.0, 1.0)
    return ClipScore(clip, comfy.clip_vision.load(str(in_process.CLIP_VISION)))


class Pipeline:
    """The models of the table, and what the nodes compute with them."""

    def __init__(self):
        self.images, self.image_clip, self.vae = in_process.load()
        self.model, self.clip, _ = motion.moving_model()
        self.reward = reward()

    def said(self, caption: str, clip=None) -> tuple:
        """clip: of single pictures, None: of videos."""
        return tuple(in_process.encode(clip or self.clip, [text]) for text in (caption, ""))

    def candidates(self, caption: str, seed: int) -> tuple[torch.Tensor, dict]:
        """(latents [16,4,16,16], scores [16]: {steps: of the denoised predictions after so many steps, STEPS: of the pictures, minus n: of drafts of n steps})."""
        from comfy.samplers import calculate_sigmas
        seen, out = {}, self.images.model.process_latent_out
        said, empty = self.said(caption, self.image_clip), {"samples": torch.zeros(CANDIDATES, 4, 16, 16)}
        z = in_process.ksampler(self.images, empty, *said, seed=seed, **SETTINGS, callback=lambda i, x0, *_: seen.update({i + 1: out(x0)}) if i + 1 in SCORED else None)
        levels = calculate_sigmas(self.images.get_model_object("model_sampling"), SETTINGS["scheduler"], STEPS)
        for n in DRAFTS:
            seen[-n] = in_process.ksampler(self.images, empty, *said, seed=seed, **SETTINGS, sigmas=anchor_search.coarse(levels, n))
        return z, {steps: self.reward.scores(self.vae.decode(x), caption, "the table") for steps, x in {**seen, STEPS: z}.items()}

    def animated(self, caption: str, anchor: torch.Tensor, seed: int) -> torch.Tensor:
        """NI-VSDS's [16,4,16,16] of an anchor's latent [1,4,16,16]."""
        from ...nodes.i4vgen import CODE, AnimateAnchor
        settings = seed, SETTINGS["steps"], SETTINGS["cfg"], SETTINGS["scheduler"], CODE, 0.4, "1"
        return AnimateAnchor.execute(self.model, *self.said(caption), {"samples": anchor}, scene.FRAMES, *settings).result[0]["samples"]

    def clip_of(self, caption: str, z: torch.Tensor, seed: int) -> np.ndarray:
        """[16,128,128,3] in 0..1 of a sampling from noise over z."""
        return self.vae.decode(in_process.ksampler(self.model, {"samples": z}, *self.said(caption), seed=seed, **SETTINGS)).numpy()


def search(scores: dict, cuts: tuple, drop: float, steps: int, finalists: int):
    """What the node's search finds among candidates with these scores."""
    now = []

    def sample(rows, latents, begin, end):
        now[:] = [end]
        return latents, latents

    def draft(rows, latents):
        now[:] = [-steps]
        return latents

    return anchor_search.search(sample, lambda rows, _: scores[now[0]][rows], torch.zeros(len(scores[STEPS]), 1), STEPS, list(cuts), drop, "the table",
                                anchor_search.Drafts(draft, steps, finalists) if steps else None)


def fits(s: scene.Scene, picture: np.ndarray) -> bool:
    found = prompts.right(s, picture)
    return found["shape"] and found["shape colour"] and found["background colour"]


def found_by(s: scene.Scene, scores: dict, pictures: np.ndarray) -> dict:
    """{search: the columns of the table of searches} of one prompt."""
    end, rows = scores[STEPS], {}
    best, random = float(end.max()), {"winner kept, %": 100 / len(end), "score lost": float(end.max() - end.mean()), "right, %": 100 * np.mean([fits(s, p) for p in pictures])}
    for name, how in SEARCHES.items():
        found = search(scores, *how)
        score = float(end[found.index])
        rows[name] = {"winner kept, %": 100.0 * (score == best), "within 1 %, %": 100.0 * (score >= best - 0.01 * abs(best)), "score lost": best - score,
                      "right, %": 100.0 * fits(s, pictures[found.index]), "units": found.calls / len(end)}
    return rows | {"any of them": {**rows[OFF], **random, "within 1 %, %": 100 * float((end >= best - 0.01 * abs(best)).float().mean()), "units": np.nan}}


@torch.inference_mode()
def temporal_consistency(clip_vision, clip: np.ndarray) -> float:
    """Percent."""
    seen = F.normalize(clip_vision.encode_image(torch.as_tensor(clip))["image_embeds"].float(), dim=-1)
    return 100 * float((seen[1:] * seen[:-1]).sum(-1).mean())


def compare(pipeline: Pipeline, s: scene.Scene, clip: np.ndarray, units: float) -> dict:
    """The columns of the table of stages."""
    errors, word = cross_frame.compare(clip), s.bodies[0].motion
    return {"right, %": 100 * np.mean([fits(s, frame) for frame in clip]), "moves so, %": np.nan if word == "spinning" else 100.0 * (motion.motion_of(clip) == word),
            **optical_flow.measure(clip), "temporal consistency, %": temporal_consistency(pipeline.reward.clip_vision, clip),
            **{key: errors[key] for key in ("background error", "same shape, %", "same colour, %")}, "units": units}


@torch.inference_mode()
def stages(pipeline: Pipeline, s: scene.Scene, seed: int, latents: torch.Tensor, scores: dict) -> dict:
    """{row: (clip, units)}."""
    caption, found = s.caption(), search(scores, *SEARCHES[DEFAULT])
    first, best = latents[:1], latents[found.index:found.index + 1]
    searched = found.calls / scene.FRAMES
    return {
        PLAIN: (pipeline.clip_of(caption, torch.zeros(scene.FRAMES, 4, 16, 16), seed), STEPS),
        ANY: (pipeline.clip_of(caption, pipeline.animated(caption, first, seed), seed), STEPS / scene.FRAMES + ITERATIONS + STEPS),
        STILL: (pipeline.clip_of(caption, best.repeat(scene.FRAMES, 1, 1, 1), seed), searched + STEPS),
        FULL: (pipeline.clip_of(caption, pipeline.animated(caption, best, seed), seed), searched + ITERATIONS + STEPS),
    }


def main(argv: list[str]) -> int:
    n, sheet = report.arguments(argv, 100)
    pipeline, shown, few = Pipeline(), [], n // 8

    @torch.inference_mode()
    def measure(seed: int) -> dict:
        s = motion.scene_of(seed)
        latents, scores = pipeline.candidates(s.caption(), seed)
        rows = found_by(s, scores, pipeline.vae.decode(latents).numpy())
        clips = stages(pipeline, s, seed, latents, scores) if seed < few else {}
        shown.extend((f"{name}: {s.caption()}", clip[::2]) for name, (clip, _) in clips.items() if seed < 4)
        return rows | {name: compare(pipeline, s, clip, units) for name, (clip, units) in clips.items()}

    rows = report.collect(n, measure)
    print(report.report(f"search, {n} prompts", {name: found for name, found in rows.items() if name not in STAGES}))
    print("\n" + report.report(f"I4VGen, {few} prompts", {name: rows[name] for name in STAGES}, [(FULL, name) for name in STAGES if name != FULL]))
    if sheet:
        outputs.save_clips(shown, sheet)
    return 0
