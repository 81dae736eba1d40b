"""The node of the Frame Similarity Prior. It wires; the maths is in samplers/frame_similarity.py and samplers/start_level.py."""
from comfy.samplers import SCHEDULER_NAMES
from comfy_api.latest import io

from ..samplers.first_frame import picture_to_frames
from ..samplers.frame_similarity import OFFICIAL, as_video, check_format, check_kernel, first_latent, similar_frames
from ..samplers.start_level import schedule_from
from .inputs import Node

OWN, AUTHORS = "own values", "official"


class FrameSimilarityPrior(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FrameSimilarityPrior",
            display_name="Frame Similarity Prior (I2V-Adapter)",
            category="FirstFrame/I2V-Adapter",
            search_aliases=["FirstFrame", "I2V-Adapter", "frame similarity", "start latent", "SDEdit", "image to video", "i2v", "video", "motion amount"],
            description="Starts every frame of a clip from a partly blurred copy of the first one, at a chosen noise level: how far the frames may leave the "
                        "picture, and how much of it is blurred (I2V-Adapter, Eq. 7). For image models with frames along the batch, SVD, Wan, LTX.",
            inputs=[
                io.Model.Input("model", tooltip="The model as the sampler gets it: its noise schedule gives the level that t0 stands for. It is not changed."),
                io.Latent.Input("samples", tooltip="The first frame, from VAE Encode with the model's own VAE (exactly one picture). Of a video model's clip the first latent frame."),
                io.Int.Input("frames", default=16, min=2, max=256,
                             tooltip="Length of the clip in latent frames (at least 2). Wan has 4 video frames in each but the first, LTX 8; image models and SVD 1. "
                                     "More take proportionally more time and memory."),
                io.Float.Input("p", default=0.5, min=0.0, max=1.0, step=0.01,
                               tooltip="Share of each later frame that is blurred, drawn cell by cell. 0: none, the picture is repeated exactly. Higher: more motion. 1: all of it."),
                io.Float.Input("t0", default=0.8, min=0.01, max=1.0, step=0.01,
                               tooltip="Noise level that sampling starts at, as a share of the noise schedule. Higher: more motion, less of the picture. 1: the scheduler's "
                                       "whole schedule; of flow models (Wan, LTX) nothing of the picture is then left in the later frames."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                             tooltip="Of what is blurred. Same seed, same bits; more frames leave the first ones as they are. The noise comes from the sampler."),
                io.Combo.Input("scheduler", options=SCHEDULER_NAMES, default="ddim_uniform",
                               tooltip="How the steps are laid out; for KSampler the same as there. ddim_uniform is the authors'."),
                io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Sampling steps from t0 down; for KSampler the same as there. More are slower and finer."),
                io.Boolean.Input("keep_first", default=True,
                                 tooltip="On: frame 1 stays the picture, through a noise mask (replaces a mask that is already there). Off: it gets noise and is sampled like the others."),
                io.Combo.Input("preset", options=[OWN, AUTHORS], default=OWN,
                               tooltip=f"{AUTHORS}: the constants of the authors' code (p 0.5, t0 1, kernel 9, sigma 18); those four inputs then do nothing. {OWN}: they count."),
                io.Int.Input("kernel", default=OFFICIAL["kernel"], min=1, max=127, step=2, optional=True, advanced=True,
                             tooltip="Width of the blur in latent cells (8 pixels of SD), odd. 1: no blur. Higher: blurred from farther around, more motion."),
                io.Float.Input("sigma", default=OFFICIAL["sigma"], min=0.1, max=1000.0, step=0.1, optional=True, advanced=True,
                               tooltip="Standard deviation of the blur in latent cells. Far below the kernel's width it blurs little; from about twice that width it is the plain mean."),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The clip without noise. Give it to the sampler as latent_image, with its noise on."),
                io.Sigmas.Output(display_name="sigmas", tooltip="The schedule from t0 down, for SamplerCustomAdvanced."),
                io.Float.Output(display_name="denoise", tooltip="For KSampler with the same scheduler and steps: it starts at the level nearest to t0 that it can."),
            ],
        )

    @classmethod
    def execute(cls, model, samples, frames, p, t0, seed, scheduler, steps, keep_first, preset, kernel=OFFICIAL["kernel"], sigma=OFFICIAL["sigma"]) -> io.NodeOutput:
        who, z = "Frame Similarity Prior", samples["samples"]
        if preset == AUTHORS:
            p, t0, kernel, sigma = (OFFICIAL[name] for name in ("p", "t0", "kernel", "sigma"))
        x = first_latent(z, who)
        check_format(z, model.get_model_object("latent_format"), type(model.model).__name__, who)
        check_kernel(kernel, x, who)
        sigmas, denoise = schedule_from(model.get_model_object("model_sampling"), scheduler, steps, t0, who)
        clip, (_, mask) = similar_frames(x, frames, p, kernel, sigma, seed), picture_to_frames(x, frames, keep_first)
        out = {k: v for k, v in samples.items() if k not in ("noise_mask", "batch_index")} | ({"noise_mask": mask} if keep_first else {})
        if z.ndim == 5:
            clip, out = as_video(clip), out | ({"noise_mask": as_video(mask)} if keep_first else {})
        return io.NodeOutput({**out, "samples": clip}, sigmas, denoise)
