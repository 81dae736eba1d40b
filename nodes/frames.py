"""Nodes that turn a picture into a clip of frames, whatever the method."""
from comfy_api.latest import io

from ..samplers.first_frame import check_picture, picture_to_frames
from .inputs import Node


class PictureToFrames(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_PictureToFrames",
            display_name="Picture to Frames",
            category="FirstFrame/latent",
            search_aliases=["FirstFrame", "first frame", "image to video", "i2v", "picture to video", "animate picture", "repeat latent", "video"],
            description="Repeats a picture's latent as the frames of a clip. The first frame can be kept: sampling then leaves it exactly "
                        "as it is, and cross-frame attention reads it at every step.",
            inputs=[
                io.Latent.Input("samples", tooltip="The picture, from VAE Encode (exactly one)."),
                io.Int.Input("frames", default=8, min=2, max=256,
                             tooltip="Length of the clip in frames (at least 2). More frames take proportionally more time and memory."),
                io.Boolean.Input("keep_first", default=True,
                                 tooltip="On: frame 1 stays the picture, through a noise mask (replaces a mask that is already there). "
                                         "Off: all frames are sampled alike; nothing is kept."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The clip: frames along the batch. Give it to a sampler with denoise below 1.")],
        )

    @classmethod
    def execute(cls, samples, frames, keep_first) -> io.NodeOutput:
        z = samples["samples"]
        check_picture(z, "Picture to Frames")
        clip, mask = picture_to_frames(z, frames, keep_first)
        out = {k: v for k, v in samples.items() if k not in ("noise_mask", "batch_index")}
        return io.NodeOutput({**out, "samples": clip, **({"noise_mask": mask} if keep_first else {})})
