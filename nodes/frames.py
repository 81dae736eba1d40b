"""Nodes that turn a picture into a clip of frames, whatever the method."""
from comfy_api.latest import io

from ..samplers.first_frame import picture_to_frames
from ..samplers.frame_similarity import as_video, first_latent
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
                io.Latent.Input("samples", tooltip="The picture, from VAE Encode (exactly one). Of a video model's clip (Wan, LTX) the first latent frame."),
                io.Int.Input("frames", default=8, min=2, max=256,
                             tooltip="Length of the clip in latent frames (at least 2). Wan has 4 video frames in each but the first, LTX 8; image models 1. "
                                     "More take proportionally more time and memory."),
                io.Boolean.Input("keep_first", default=True,
                                 tooltip="On: frame 1 stays the picture, through a noise mask (replaces a mask that is already there). "
                                         "Off: all frames are sampled alike; nothing is kept."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The clip: frames along the batch, a video model's in its own axis. Give it to a sampler with denoise below 1.")],
        )

    @classmethod
    def execute(cls, samples, frames, keep_first) -> io.NodeOutput:
        z = samples["samples"]
        clip, mask = picture_to_frames(first_latent(z, "Picture to Frames"), frames, keep_first)
        if z.ndim == 5:
            clip, mask = as_video(clip), as_video(mask) if keep_first else None
        out = {k: v for k, v in samples.items() if k not in ("noise_mask", "batch_index")}
        return io.NodeOutput({**out, "samples": clip, **({"noise_mask": mask} if keep_first else {})})
