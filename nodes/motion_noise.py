"""Nodes of PiLife's start noise. They wire; the maths is in samplers/motion_noise.py and samplers/noise_clip.py."""
import logging

from comfy_api.latest import io, ui

from ..samplers.start_noise import attention_noise, clipped_noise, noised_clip
from .inputs import Node
from .inversion import InversionType

INVERSION_TOOLTIP = "From Motion-Aware Inversion. The clip has to have the size of its picture."
CLIP_TOOLTIP = ("The clip, from Picture to Frames with the inversion's latent: it says how many frames there are, and a mask in it goes on to the output 'latent'. "
                "Give the same to the sampler.")


def outputs(what: str) -> list:
    return [
        io.Noise.Output(display_name="noise", tooltip=f"{what} Give it to SamplerCustomAdvanced, with the inversion's latent as a clip and its sigmas."),
        io.Latent.Output(display_name="latent",
                         tooltip="The clip with this noise at the inversion's start timestep, for KSampler (Advanced) with add_noise off."),
    ]


class MotionNoiseInit(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MotionNoiseInit",
            display_name="Motion Noise (PiLife)",
            category="FirstFrame/PiLife",
            search_aliases=["FirstFrame", "PiLife", "motion noise init", "start noise", "video", "image to video"],
            description="Start noise of a clip: the first frame gets the picture's own noise, the others fresh noise where the motion attention "
                        "is high and the picture's where it is low (PiLife, Eq. 7-10, 12).",
            inputs=[
                InversionType.Input("inversion", tooltip=INVERSION_TOOLTIP),
                io.Latent.Input("samples", tooltip=CLIP_TOOLTIP),
                io.Float.Input("eta", default=1.0, min=0.0, max=1000.0, step=0.05,
                               tooltip="Weight of the attention-guided noise against purely random noise (Eq. 12). 0: random everywhere. Higher: the "
                                       "picture's static parts hold; large values: attention alone decides."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                             tooltip="Of the fresh noise. Same seed, same bits; more frames leave the first ones as they are. With 'base' connected: "
                                     "of the guided part alone."),
                io.Mask.Input("motion", optional=True,
                              tooltip="Motion attention A, 0 (keep the picture's noise) to 1 (fresh noise), from Motion Attention Map or painted; one, or "
                                      "one per frame; any size. Not connected: 1 everywhere."),
                io.Noise.Input("base", optional=True, tooltip="Where the purely random noise comes from instead of the seed, e.g. RandomNoise."),
            ],
            outputs=outputs("Motion noise."),
        )

    @classmethod
    def execute(cls, inversion, samples, eta, seed, motion=None, base=None) -> io.NodeOutput:
        if motion is not None and not motion.any():
            logging.warning("Motion Noise: the mask is black, so nothing is marked as moving. Paint the moving part white, or disconnect it.")
        noise = attention_noise(inversion, motion, eta, seed, base)
        return io.NodeOutput(noise, noised_clip(inversion, noise, samples))


class NoiseClipper(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="NoiseClipper",
            display_name="Noise Clipper (PiLife)",
            category="FirstFrame/PiLife",
            search_aliases=["FirstFrame", "PiLife", "clip noise", "start noise", "video"],
            description="Pulls each frame's noise towards the picture's own until their distance is no more than the noise's length "
                        "(PiLife, Algorithm 1). Frames within that bound are left alone.",
            inputs=[
                io.Noise.Input("noise", tooltip="Any noise: from Motion Noise, RandomNoise, ..."),
                InversionType.Input("inversion", tooltip=INVERSION_TOOLTIP),
                io.Latent.Input("samples", tooltip=CLIP_TOOLTIP),
                io.Float.Input("margin", default=0.1, min=0.001, max=0.5, step=0.01,
                               tooltip="The eta of Algorithm 1: each pull keeps a random share between margin and 1 - margin of the distance. 0.5: always "
                                       "half; lower: more varied."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                             tooltip="Of the random shares. Same seed, same bits."),
                io.Boolean.Input("restore_variance", default=False, optional=True, advanced=True,
                                 tooltip="Scale a pulled frame's noise back to standard deviation 1. Off (paper): pulling lowers it."),
            ],
            outputs=[*outputs("Clipped noise."), io.String.Output(display_name="report",
                              tooltip="For each frame: distance to the picture's noise before and after, and the noise's length.")],
        )

    @classmethod
    def execute(cls, noise, inversion, samples, margin, seed, restore_variance=False) -> io.NodeOutput:
        clipped, reports = clipped_noise(noise, inversion, margin, restore_variance, seed), []
        shown = clipped_noise(noise, inversion, margin, restore_variance, seed, reports.append)
        latent = noised_clip(inversion, shown, samples)
        text = "\n".join(f"frame {i}: distance {before:.1f}, length {length:.1f}, after {after:.1f}" for i, (before, length, after) in enumerate(reports[0], 1))
        return io.NodeOutput(clipped, latent, text, ui=ui.PreviewText(text))
