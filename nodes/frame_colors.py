"""The node that holds a clip's colours to its first frame. It wires; the maths is in samplers/frame_colors.py."""
import comfy.utils
import torch
from comfy_api.latest import io

from ..samplers.frame_colors import SPACES, TRUE, check_clip, colors_of
from .inputs import Node


class MatchFrameColors(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_MatchFrameColors",
            display_name="Match Frame Colors (I2V-Adapter)",
            category="FirstFrame/I2V-Adapter",
            search_aliases=["FirstFrame", "I2V-Adapter", "color match", "colour match", "histogram", "color drift", "LAB", "video"],
            description="Gives every frame of a decoded clip the colours of the first one: the histograms of a and b in LAB; lightness stays. Against colours that drift.",
            inputs=[
                io.Image.Input("images", tooltip="The clip, from VAE Decode (at least 2 frames). The first frame stays as it is."),
                io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.05,
                               tooltip="How far the later frames go towards the first one's colours. 0: off, exactly the clip that came; 1: its histograms."),
                io.Combo.Input("space", options=list(SPACES), default=TRUE, optional=True, advanced=True,
                               tooltip="What a and b are taken from. official: as the authors' code, which reads red as blue and blue as red and rounds to 8 bit."),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The clip in the first frame's colours, same size.")],
        )

    @classmethod
    def execute(cls, images, strength, space=TRUE) -> io.NodeOutput:
        check_clip(images, "Match Frame Colors")
        if strength == 0:
            return io.NodeOutput(images)
        matched, out, progress = colors_of(images[0], space), images.clone(), comfy.utils.ProgressBar(len(images) - 1)
        for i in range(1, len(images)):
            out[i] = torch.lerp(images[i], matched(images[i]), strength)
            progress.update(1)
        return io.NodeOutput(out)
