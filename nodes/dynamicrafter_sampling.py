"""Nodes of DynamiCrafter's published sampling. They wire; the maths is in samplers/lvdm_ddim.py and samplers/multi_condition.py."""
from comfy_api.latest import io

from ..networks.lvdm_model import LvdmModel
from ..samplers.embeddings import check_width
from ..samplers.lvdm_ddim import lvdm_ddim
from ..samplers.multi_condition import WHO, MultiConditionGuider
from .inputs import Node

ALIASES = ["FirstFrame", "DynamiCrafter", "image to video"]


class DynamiCrafterSampler(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_DynamiCrafterSampler",
            display_name="DynamiCrafter Sampler (DDIM)",
            category="FirstFrame/DynamiCrafter",
            search_aliases=[*ALIASES, "DDIM", "ddim eta", "LVDM", "sampler"],
            description="DDIM exactly as DynamiCrafter's published code has it, for SamplerCustomAdvanced. Stock samplers do without; they differ in how much fresh noise a step brings "
                        "and in the last step. Works on every model with 1000 noise levels (SD1.5, SDXL, velocity models).",
            inputs=[
                io.Float.Input("eta", default=1.0, min=0.0, max=1.0, step=0.01,
                               tooltip="Share of fresh noise in each step. 1 as published; 0: none, plain DDIM, the same as the stock euler. Higher varies more and forgives more errors."),
                io.Boolean.Input("end_as_published", default=True,
                                 tooltip="On: the last step leaves the little noise of the lowest level (0.03 of its full strength) and the rescale's paler contrast, as published. "
                                         "Off: it ends clean, as stock samplers do. With a noise mask the end is always clean."),
            ],
            outputs=[io.Sampler.Output(display_name="sampler",
                                       tooltip="For SamplerCustomAdvanced. sigmas from Basic Scheduler: simple for 512, 1024 and interpolation, ddim_uniform for 256.")],
        )

    @classmethod
    def execute(cls, eta, end_as_published) -> io.NodeOutput:
        return io.NodeOutput(lvdm_ddim(float(eta), bool(end_as_published)))


class MultiConditionGuiderNode(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_MultiConditionGuider",
            display_name="Multi-Condition Guider (DynamiCrafter)",
            category="FirstFrame/DynamiCrafter",
            search_aliases=[*ALIASES, "cfg", "dual cfg", "guidance rescale", "RescaleCFG", "guider"],
            description="Guides DynamiCrafter by text and picture, each with a strength of its own, and rescales the guidance as published. For SamplerCustomAdvanced.",
            inputs=[
                io.Model.Input("model", tooltip="DynamiCrafter, with any LoRA and patches. Left unchanged. Without RescaleCFG: guidance_rescale does that here."),
                io.Conditioning.Input("positive", tooltip="From DynamiCrafter Conditioning: the prompt with the picture. One picture only."),
                io.Conditioning.Input("negative", tooltip="From DynamiCrafter Conditioning: the empty prompt with tokens of no picture."),
                io.Float.Input("text_cfg", default=7.5, min=0.0, max=100.0, step=0.1,
                               tooltip="Guidance by the text (7.5 as published). 1: none. Higher follows the prompt more closely; too high burns colours."),
                io.Float.Input("image_cfg", default=7.5, min=0.0, max=100.0, step=0.1,
                               tooltip="Guidance by the picture. The same as text_cfg: ordinary guidance, two model calls a step (as published). 1: by the text alone, two calls. Any other "
                                       "value takes three calls. Higher stays closer to the picture."),
                io.Float.Input("guidance_rescale", default=0.7, min=0.0, max=1.0, step=0.01,
                               tooltip="How much of the contrast that guidance adds is taken back. 0: none of it (as published for 256); 0.7 as published for 512, 1024 and interpolation; "
                                       "1: all of it. Higher is paler."),
            ],
            outputs=[io.Guider.Output(display_name="guider", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, model, positive, negative, text_cfg, image_cfg, guidance_rescale) -> io.NodeOutput:
        if not isinstance(model.model, LvdmModel):
            raise ValueError(f"{WHO} guides by a picture's tokens, which only DynamiCrafter reads, got {type(model.model).__name__}. Connect Load DynamiCrafter, or take CFGGuider.")
        for name, said in (("positive", positive), ("negative", negative)):
            check_width(model, said, WHO, name)
        guider = MultiConditionGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(text_cfg, image_cfg, guidance_rescale)
        return io.NodeOutput(guider)
