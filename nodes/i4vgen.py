"""Nodes of I4VGen's second stage. They wire; the maths is in samplers/ni_vsds.py."""
import comfy.sample
import latent_preview
from comfy.samplers import SCHEDULER_NAMES
from comfy_api.latest import io

from ..samplers.embeddings import check_width
from ..samplers.first_frame import picture_to_frames
from ..samplers.frame_similarity import as_video, check_format, first_latent
from ..samplers.ni_vsds import AUTHORS, OFFICIAL_ALPHAS, PAPER, Course, NIVSDSSampler
from ..samplers.start_level import last_steps
from .inputs import Node
from .number_lists import numbers

CODE, OF_PAPER, OWN = "official code", "paper", "own values"
PRESETS = {CODE: AUTHORS, OF_PAPER: PAPER}
LARGEST = 100.0


def course_inputs() -> list:
    return [
        io.Combo.Input("preset", options=[CODE, OF_PAPER, OWN], default=CODE,
                       tooltip="official code: the first 60 % of the steps and one more, step sizes 10, 10, 10, then 1. paper: down to tau 0.4, step size 1. With these two, tau and "
                               "step_sizes do nothing. own values: they count."),
        io.Float.Input("tau", default=0.4, min=0.0, max=1.0, step=0.01,
                       tooltip="Noise level of the last iteration, as a share of the noise schedule. Lower: more iterations, finer. 0: all steps. Only with own values."),
        io.String.Input("step_sizes", default=", ".join(f"{alpha:g}" for alpha in OFFICIAL_ALPHAS),
                        tooltip=f"One number for each iteration with commas between them (0 to {LARGEST:g}); the last one holds for all that follow. Higher: farther from the still "
                                "picture. 0: that iteration changes nothing. Only with own values."),
    ]


def course(preset: str, tau: float, step_sizes: str, who: str) -> Course:
    """Raises ValueError for step sizes that are none."""
    if preset in PRESETS:
        return PRESETS[preset]
    return Course(tuple(numbers(step_sizes, who, "step_sizes", 0.0, LARGEST, "10, 10, 10, 1") or PAPER.alphas), tau)


class NIVSDS(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="NIVSDS",
            display_name="NI-VSDS (animate static video)",
            category="FirstFrame/I4VGen",
            search_aliases=["FirstFrame", "I4VGen", "video score distillation", "VSDS", "SDS", "animate picture", "text to video", "image to video", "video", "sampler"],
            description="A sampler that brings a still video (one picture, repeated) to life with any video model: AnimateDiff, Wan, LTX (I4VGen, noise-invariant video score "
                        "distillation). For SamplerCustomAdvanced; its result is sampled once more, from noise, for the detail.",
            inputs=course_inputs(),
            outputs=[io.Sampler.Output(display_name="sampler", tooltip="For SamplerCustomAdvanced: latent_image is the still video (Picture to Frames with keep_first off), "
                                                                       "noise on, sigmas the model's whole schedule.")],
        )

    @classmethod
    def execute(cls, preset, tau, step_sizes) -> io.NodeOutput:
        return io.NodeOutput(NIVSDSSampler(course(preset, tau, step_sizes, "NI-VSDS")))


class AnimateAnchor(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_AnimateAnchor",
            display_name="Animate Anchor Image (I4VGen)",
            category="FirstFrame/I4VGen",
            search_aliases=["FirstFrame", "I4VGen", "NI-VSDS", "animate picture", "image to video", "text to video", "static video", "video"],
            description="NI-VSDS in one node: repeats a picture's latent and brings it to life with the video model (I4VGen). Sample the result once more with KSampler: denoise 1 "
                        "for AnimateDiff, 0.8 for others.",
            inputs=[
                io.Model.Input("model", tooltip="Video model: an image model behind Apply Motion Module, Wan, LTX. With any LoRA, ControlNet or I2V-Adapter. Left unchanged."),
                io.Conditioning.Input("positive", tooltip="What is to be seen, and how it moves."),
                io.Conditioning.Input("negative", tooltip="What is to be avoided; an empty prompt will do."),
                io.Latent.Input("samples", tooltip="The anchor image: one picture, from VAE Encode or Select Anchor Image. Of a video model's clip the first latent frame."),
                io.Int.Input("frames", default=16, min=2, max=256,
                             tooltip="Length of the clip in latent frames (at least 2). Wan has 4 video frames in each but the first, LTX 8; image models 1. More take more time."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip="Of the one noise of all iterations. Same seed, same bits."),
                io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Steps of the schedule, of which the iterations take the first part (16 of 25). More are slower and finer."),
                io.Float.Input("cfg", default=7.5, min=0.0, max=100.0, step=0.1,
                               tooltip="Guidance by the prompt, as in the sampler. 1: none, and half the time. Higher follows the prompt more closely."),
                io.Combo.Input("scheduler", options=SCHEDULER_NAMES, default="ddim_uniform", tooltip="How the steps are laid out. ddim_uniform is the authors'; for Wan and LTX: simple."),
                *course_inputs(),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The clip, free of noise, for KSampler.")],
        )

    @classmethod
    def execute(cls, model, positive, negative, samples, frames, seed, steps, cfg, scheduler, preset, tau, step_sizes) -> io.NodeOutput:
        who, z = "Animate Anchor Image", samples["samples"]
        made = course(preset, tau, step_sizes, who)
        x = first_latent(z, who)
        check_format(z, model.get_model_object("latent_format"), type(model.model).__name__, who)
        for name, said in (("positive", positive), ("negative", negative)):
            check_width(model, said, who, name)
        sigmas = last_steps(model.get_model_object("model_sampling"), scheduler, steps, steps, who)
        clip, _ = picture_to_frames(x, frames, keep_first=False)
        clip = as_video(clip) if z.ndim == 5 else clip
        noise = comfy.sample.prepare_noise(clip, seed)
        callback = latent_preview.prepare_callback(model, len(sigmas) - 1)
        video = comfy.sample.sample_custom(model, noise, cfg, NIVSDSSampler(made), sigmas, positive, negative, clip, noise_mask=samples.get("noise_mask"), callback=callback,
                                           seed=seed)
        return io.NodeOutput({**{k: v for k, v in samples.items() if k == "noise_mask"}, "samples": video})
