"""Nodes of I2V-Adapter. They wire; the attention is in attention_patches/first_frame.py, files in networks/i2v_adapter.py."""
from functools import partial

import folder_paths
from comfy_api.latest import io

from ..attention_patches.first_frame import patch
from ..attention_patches.frames import check_channels, check_finite
from ..networks import i2v_adapter as files
from .folders import read, register_folder
from .inputs import Node

I2VAdapterWire = io.Custom("I2V_ADAPTER")
FOLDER = "i2v_adapter"
register_folder(FOLDER, "model_patches")


class I2VAdapterLoader(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_I2VAdapterLoader",
            display_name="Load I2V-Adapter",
            category="FirstFrame/I2V-Adapter",
            search_aliases=["FirstFrame", "I2V-Adapter", "i2v", "image to video", "first frame", "i2v_module"],
            description="Reads an I2V-Adapter: what the frames of a clip need to look at a given first frame. The kind is told by what is in the file.",
            inputs=[io.Combo.Input("i2v_adapter", options=folder_paths.get_filename_list(FOLDER),
                                   tooltip="A file of models/i2v_adapter or models/model_patches, such as i2v_module.pth; its kind must be that of the checkpoint (SD1.5 or SDXL).")],
            outputs=[I2VAdapterWire.Output(display_name="i2v_adapter", tooltip="For Apply I2V-Adapter.")],
        )

    @classmethod
    def execute(cls, i2v_adapter) -> io.NodeOutput:
        return io.NodeOutput(files.i2v_adapter(partial(read, FOLDER, i2v_adapter, "Load I2V-Adapter"), i2v_adapter))


class I2VAdapterApply(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="I2VAdapterApply",
            display_name="Apply I2V-Adapter",
            category="FirstFrame/I2V-Adapter",
            search_aliases=["FirstFrame", "I2V-Adapter", "i2v", "image to video", "first frame", "animate picture", "AnimateDiff", "video"],
            description="Your picture is frame 1, free of noise at every step, and every frame looks at it (I2V-Adapter, Eq. 5-6). Goes with a motion module, on SD1.5 and SDXL.",
            inputs=[
                io.Model.Input("model", tooltip="SD1.5 or SDXL model, with any LoRA or ControlNet; Apply Motion Module goes in front of this node or behind it. Left unchanged."),
                I2VAdapterWire.Input("i2v_adapter", tooltip="From Load I2V-Adapter, of the same kind as the model."),
                io.Latent.Input("first_frame", tooltip="The picture, from VAE Encode, at the size of the clip: one for all clips of the batch, or one for each."),
                io.Float.Input("strength", default=1.0, min=0.0, max=2.0, step=0.01,
                               tooltip="How much of the look at frame 1 counts. 0: off, exactly as without this node; 1: as trained. Higher holds the frames nearer to the picture."),
                io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001,
                               tooltip="Where in sampling the look at frame 1 begins, as a share of the noise schedule (0: from the first step). Frame 1 is free of noise throughout. "
                                       "At or above end_percent the node does nothing."),
                io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001,
                               tooltip="Where it ends (1: never). Lower values free the last steps' detail from frame 1; 0 switches the node off."),
                io.Int.Input("frames", default=0, min=0, max=4096, optional=True, advanced=True,
                             tooltip="Frames of one clip when the latent holds several clips one after another. 0: the whole batch is one clip."),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model, for a latent with one entry per frame. Frame 1 comes out as the given latent, to the bit.")],
        )

    @classmethod
    def execute(cls, model, i2v_adapter, first_frame, strength, start_percent, end_percent, frames=0) -> io.NodeOutput:
        who, z = "Apply I2V-Adapter", first_frame["samples"]
        check_channels(z, model.get_model_object("latent_format").latent_channels, who)
        check_finite(z, who)
        return io.NodeOutput(patch(model, i2v_adapter, z, who, strength=strength, frames=frames, start_percent=start_percent, end_percent=end_percent))
