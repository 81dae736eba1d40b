"""Nodes of SparseCtrl. They wire; the network and its place in sampling are in networks/sparse_*.py."""
from functools import partial

import folder_paths
from comfy_api.latest import io

from nodes import ControlNetApplyAdvanced  # the host's

from ..networks import sparse_ctrl_files as files
from ..networks.sparse_control import WHO, SparseControl
from .content_adapter import check_pictures
from .folders import read
from .inputs import Node
from .number_lists import numbers

FOLDER = "controlnet"
FARTHEST = 4095


class SparseCtrlLoader(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_SparseCtrlLoader",
            display_name="Load SparseCtrl",
            category="FirstFrame/motion module",
            search_aliases=["FirstFrame", "SparseCtrl", "sparse control", "AnimateDiff", "ControlNet", "video", "v3_sd15_sparsectrl_rgb", "v3_sd15_sparsectrl_scribble"],
            description="Reads AnimateDiff's SparseCtrl (rgb or scribble): a ControlNet that knows pictures of some frames of a clip. The kind is told by what is in the file.",
            inputs=[io.Combo.Input("sparse_ctrl", options=folder_paths.get_filename_list(FOLDER), tooltip="A file of models/controlnet, such as v3_sd15_sparsectrl_rgb.ckpt.")],
            outputs=[io.ControlNet.Output(display_name="control_net", tooltip="For Apply SparseCtrl. Apply ControlNet takes it too; the pictures are then the first frames.")],
        )

    @classmethod
    def execute(cls, sparse_ctrl) -> io.NodeOutput:
        return io.NodeOutput(files.sparse_control(partial(read, FOLDER, sparse_ctrl, files.LOADER), sparse_ctrl))


def as_frame_numbers(text: str, pictures: int) -> list[int]:
    """Raises ValueError for what is no whole number, and unless there is one for each picture (none: they are the first frames)."""
    found = numbers(text, WHO, "frame_numbers", -FARTHEST, FARTHEST, "0, 15")
    if any(n % 1 for n in found):
        raise ValueError(f"{WHO} needs whole numbers in 'frame_numbers', such as 0, 15, got {text!r:.100}. Correct it, or leave it empty.")
    if found and len(found) != pictures:
        raise ValueError(f"{WHO} got {pictures} pictures and {len(found)} frame numbers ({text!r:.100}). Give it one for each picture, or leave it empty: they are then the first frames.")
    return [int(n) for n in found]


class SparseCtrlApply(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_SparseCtrlApply",
            display_name="Apply SparseCtrl",
            category="FirstFrame/motion module",
            search_aliases=["FirstFrame", "SparseCtrl", "sparse control", "AnimateDiff", "ControlNet", "key frames", "interpolation", "image to video", "i2v", "video"],
            description="Pictures for some frames of a clip, which the others follow (SparseCtrl). Goes with an SD1.5 motion module, best v3; further ControlNets before or after it.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="What is to be seen. Left unchanged; the pictures are on the output."),
                io.Conditioning.Input("negative", tooltip="What is to be avoided; it gets the same pictures."),
                io.ControlNet.Input("control_net", tooltip="From Load SparseCtrl: rgb takes pictures as they are, scribble white lines on black."),
                io.Image.Input("image", tooltip="One or several pictures, one for each frame number. They are scaled to the clip's size; what stands out on a side is cut off."),
                io.String.Input("frame_numbers", default="0",
                                tooltip="The frame of each picture, with commas between them: 0 is the first, -1 the last (such as 0, -1). Empty: the pictures are the first frames."),
                io.Float.Input("strength", default=1.0, min=0.0, max=10.0, step=0.01,
                               tooltip="How much of it counts. 0: off, exactly as without this node; 1: as trained. Higher holds the frames nearer to the pictures."),
                io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001,
                               tooltip="Where in sampling it begins, as a share of the noise schedule (0: from the first step). At or above end_percent the node does nothing."),
                io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001,
                               tooltip="Where it ends (1: never). Lower values free the last steps' detail from the pictures; 0 switches the node off."),
                io.Vae.Input("vae", optional=True, tooltip="The model's VAE. rgb needs it, since it looks at latents; scribble does not."),
                io.Int.Input("frames", default=0, min=0, max=4096, optional=True, advanced=True,
                             tooltip="Frames of one clip when the latent holds several clips one after another; each gets the same pictures. 0: the whole batch is one clip."),
            ],
            outputs=[io.Conditioning.Output(display_name="positive", tooltip="The same prompt with the pictures, for the sampler."),
                     io.Conditioning.Output(display_name="negative", tooltip="The same prompt with the pictures, for the sampler.")],
        )

    @classmethod
    def execute(cls, positive, negative, control_net, image, frame_numbers, strength, start_percent, end_percent, vae=None, frames=0) -> io.NodeOutput:
        check_pictures(image, WHO, "image")
        if not isinstance(control_net, SparseControl):
            raise ValueError(f"{WHO} needs the control_net of Load SparseCtrl, got a {type(control_net).__name__}. For other ControlNets there is Apply ControlNet.")
        if control_net.layout.latents and vae is None:
            raise ValueError(f"{WHO} needs the VAE for {control_net.name!r}, which looks at latents. Connect 'vae'.")
        for name, said in (("positive", positive), ("negative", negative)):
            if found := {e[0].shape[-1] for e in said} - {control_net.layout.context}:
                raise ValueError(f"{WHO} got embeddings of width {max(found)} in {name!r}, {control_net.name!r} reads {control_net.layout.context}. Use the CLIP of an SD1.5 checkpoint.")
        placed = control_net.at(as_frame_numbers(frame_numbers, len(image)), frames)
        if start_percent >= end_percent:
            return io.NodeOutput(positive, negative)
        return io.NodeOutput(*ControlNetApplyAdvanced().apply_controlnet(positive, negative, placed, image, strength, start_percent, end_percent, vae=vae))
