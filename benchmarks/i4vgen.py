"""What I4VGen costs beside plain sampling and FreeInit (the paper's Table 4), on the demo's models, in one run.

    COMFYUI_PATH=... python demo/run.py benchmarks.i4vgen [rounds]

A clip of 16 frames, 25 steps, with guidance. I4VGen: 16 candidates, CLIPScore, NI-VSDS with the authors' settings, regeneration; once with all candidates sampled
to the end and scored there, as the paper has it, once with the search of *Search Anchor Image*. Units: model calls for the 16 frames; a candidate is one frame.
Medians of interleaved rounds, decoding and scoring counted. Paper: 21.73 s, 113.67 s (FreeInit), 53.78 s.
"""
import torch

from ..demo import free_init, in_process
from ..demo.tables import i4vgen, motion, report
from ..demo.world import scene
from .timing import medians, timed


def anchor_of(pipeline, caption: str, seed: int, draft_steps: int) -> torch.Tensor:
    """Of the node; 0: all candidates are sampled to the end."""
    import comfy.sample
    import comfy.samplers

    from ..nodes.anchor import AnchorImageSearch

    class Noise:
        def __init__(self):
            self.seed = seed

        def generate_noise(self, latent):
            return comfy.sample.prepare_noise(latent["samples"], seed)

    guider = comfy.samplers.CFGGuider(pipeline.images)
    guider.set_conds(*pipeline.said(caption, pipeline.image_clip))
    guider.set_cfg(i4vgen.SETTINGS["cfg"])
    sigmas = comfy.samplers.calculate_sigmas(pipeline.images.get_model_object("model_sampling"), i4vgen.SETTINGS["scheduler"], i4vgen.STEPS)
    empty = {"samples": torch.zeros(i4vgen.CANDIDATES, 4, 16, 16)}
    sampler = comfy.samplers.sampler_object(i4vgen.SETTINGS["sampler"])
    return AnchorImageSearch.execute(Noise(), guider, sampler, sigmas, empty, pipeline.vae, pipeline.reward, caption, "", 0.5, draft_steps).result[1]["samples"]


@torch.inference_mode()
def main(argv: list[str]) -> None:
    in_process.use_host()
    from ..nodes.anchor import DRAFT_STEPS
    rounds, pipeline, steps = int(argv[0]) if argv else 3, i4vgen.Pipeline(), i4vgen.STEPS
    captions = [motion.scene_of(i).caption() for i in range(rounds)]

    def plain(i):
        pipeline.clip_of(captions[i], torch.zeros(scene.FRAMES, 4, 16, 16), i)

    def again(i):
        pipeline.vae.decode(free_init.sample(pipeline.model, scene.FRAMES, *pipeline.said(captions[i]), seed=i, **i4vgen.SETTINGS))

    def whole(i, draft_steps):
        pipeline.clip_of(captions[i], pipeline.animated(captions[i], anchor_of(pipeline, captions[i], i, draft_steps), i), i)

    jobs = {"AnimateDiff": plain, "with FreeInit": again, "with I4VGen, all candidates": lambda i: whole(i, 0), "with I4VGen, search": lambda i: whole(i, DRAFT_STEPS)}
    calls = i4vgen.search({k: torch.arange(16.0) for k in (-DRAFT_STEPS, steps)}, *i4vgen.SEARCHES[i4vgen.DEFAULT]).calls / scene.FRAMES
    units = [steps, free_init.ITERATIONS * steps, 2 * steps + i4vgen.ITERATIONS, calls + steps + i4vgen.ITERATIONS]
    plain(0)
    seconds = medians({name: lambda i, job=job: timed(lambda: job(i)) for name, job in jobs.items()}, rounds)
    first = seconds["AnimateDiff"]
    rows = [[name, f"{n:.1f}", f"{s:.1f}", f"{s / first:.2f}"] for (name, s), n in zip(seconds.items(), units)]
    print(report.markdown([f"demo world, {rounds} rounds", "units", "seconds", "of AnimateDiff's"], rows))
