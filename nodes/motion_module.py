"""Nodes of AnimateDiff-type motion modules. They wire; layers and files are in networks/, their place in the UNet in attention_patches/."""
from functools import partial

import folder_paths
from comfy_api.latest import io

from ..attention_patches.inserted_layers import check_fits, insert
from ..networks import motion_module_files as files
from ..networks.motion_lora import apply_lora
from ..samplers.beta_schedule import with_betas
from ..samplers.motion_noise import mask_to_attention
from ..samplers.start_noise import check_mask
from .folders import read, register_folder
from .inputs import Node

MotionModuleWire = io.Custom("FF_MOTION_MODULE")
MODULES, LORAS = "animatediff_models", "animatediff_motion_lora"  # the folders that users of AnimateDiff-Evolved have
BETAS = {"AnimateDiff (sqrt_linear)": files.SCHEDULES["SD1.5"], "AnimateDiff SDXL (linear, 0.020)": files.SCHEDULES["SDXL"], "SD (linear)": ("linear", 0.00085, 0.012)}
AUTO, KEEP = "auto", "keep"
NORMS = {AUTO: None, "per frame": False, "over all frames": True}


for _folder in (MODULES, LORAS):
    register_folder(_folder)


class MotionModuleLoader(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_MotionModuleLoader",
            display_name="Load Motion Module",
            category="FirstFrame/motion module",
            search_aliases=["FirstFrame", "AnimateDiff", "motion model", "MotionAdapter", "temporal", "video", "text to video", "v3_sd15_mm", "mm_sd_v15"],
            description="Reads an AnimateDiff motion module (v1, v2, v3 for SD1.5, or the SDXL one) or diffusers' MotionAdapter. The kind is told by what is in the file.",
            inputs=[io.Combo.Input("motion_module", options=folder_paths.get_filename_list(MODULES),
                                   tooltip="A file of models/animatediff_models, such as v3_sd15_mm.ckpt; its kind must be that of the checkpoint (SD1.5 or SDXL).")],
            outputs=[MotionModuleWire.Output(display_name="motion_module", tooltip="For Apply Motion Module.")],
        )

    @classmethod
    def execute(cls, motion_module) -> io.NodeOutput:
        return io.NodeOutput(files.motion_module(partial(read, MODULES, motion_module, "Load Motion Module"), motion_module))


class MotionLoraLoader(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_MotionLoraLoader",
            display_name="Load Motion LoRA",
            category="FirstFrame/motion module",
            search_aliases=["FirstFrame", "AnimateDiff", "motion lora", "camera movement", "pan", "zoom", "video", "temporal"],
            description="Adds a motion LoRA (camera zoom, pan, tilt, roll) to a motion module. Several may follow one another.",
            inputs=[
                MotionModuleWire.Input("motion_module", tooltip="From Load Motion Module. Left unchanged; the LoRA is on the output. The published LoRAs were trained on v2."),
                io.Combo.Input("lora", options=folder_paths.get_filename_list(LORAS), tooltip="A file of models/animatediff_motion_lora, such as v2_lora_ZoomIn.ckpt."),
                io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.01,
                               tooltip="Share of the LoRA that is added. 0: none, 1: as trained, below 0: the other way. Raising it makes its movement stronger."),
            ],
            outputs=[MotionModuleWire.Output(display_name="motion_module", tooltip="The same module with the LoRA.")],
        )

    @classmethod
    def execute(cls, motion_module, lora, strength) -> io.NodeOutput:
        return io.NodeOutput(apply_lora(motion_module, read(LORAS, lora, "Load Motion LoRA"), lora, strength))


class MotionModuleApply(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_MotionModuleApply",
            display_name="Apply Motion Module",
            category="FirstFrame/motion module",
            search_aliases=["FirstFrame", "AnimateDiff", "motion model", "temporal layers", "video", "text to video", "image to video", "i2v"],
            description="Lets the frames of a batch move as one video: temporal layers run inside the UNet (AnimateDiff). Give the sampler a latent with one entry per frame.",
            inputs=[
                io.Model.Input("model", tooltip="SD1.5 or SDXL model, with any LoRA or ControlNet. Left unchanged; the motion is on the output."),
                MotionModuleWire.Input("motion_module", tooltip="From Load Motion Module, of the same kind as the model."),
                io.Float.Input("strength", default=1.0, min=0.0, max=2.0, step=0.01,
                               tooltip="How much of the temporal layers' change counts. 0: off, exactly as without this node; 1: as trained. Lower holds the movement back."),
                io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001,
                               tooltip="Where in sampling it begins, as a share of the noise schedule (0: from the first step). At or above end_percent the node does nothing."),
                io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001,
                               tooltip="Where it ends (1: never). The movement is made in the first half; 0 switches the node off."),
                io.Mask.Input("mask", optional=True, tooltip="Scales the strength from place to place, 0 to 1: one mask for all frames or one a frame. Left out: 1 everywhere."),
                io.Combo.Input("beta_schedule", options=[AUTO, KEEP, *BETAS], default=AUTO, optional=True, advanced=True,
                               tooltip="Noise schedule. auto: the one that the motion module was trained with; keep: the model's own (for LCM and the like)."),
                io.Combo.Input("group_norm", options=list(NORMS), default=AUTO, optional=True, advanced=True,
                               tooltip="Where the model's own normalisation takes its statistics. auto: over all frames for v1, per frame for the others. "
                                       "Only to be set for a v1 module whose file has no positions (brightness flickers)."),
                io.Int.Input("frames", default=0, min=0, max=4096, optional=True, advanced=True,
                             tooltip="Frames of one clip when the latent holds several clips one after another. 0: the whole batch is one clip. "
                                    "1: single pictures, on which the temporal layers rest; only the noise schedule is the motion module's (for I4VGen's candidates)."),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model with temporal layers.")],
        )

    @classmethod
    def execute(cls, model, motion_module, strength, start_percent, end_percent, mask=None, beta_schedule=AUTO, group_norm=AUTO, frames=0) -> io.NodeOutput:
        who = "Apply Motion Module"
        if mask is not None:
            check_mask(mask, who, "mask")
            mask = mask_to_attention(mask, *mask.shape[-2:])[:, 0]
        on = strength != 0 and start_percent < end_percent
        if on and beta_schedule != KEEP:
            model = with_betas(model, *(files.SCHEDULES[motion_module.family] if beta_schedule == AUTO else BETAS[beta_schedule]), who)
        if frames == 1:
            check_fits(model, motion_module, who)
            return io.NodeOutput(model.clone())
        norms = NORMS[group_norm]
        return io.NodeOutput(insert(model, motion_module, who, strength=strength, mask=mask, over_all_frames=motion_module.over_frames if norms is None else norms,
                                    frames=frames, start_percent=start_percent, end_percent=end_percent))
