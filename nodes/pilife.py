"""Nodes of PiLife and of its baseline I2V-Zero. They wire; the maths is in attention_patches/ and samplers/."""
from comfy_api.latest import io

from ..attention_patches.cross_frame import patch
from ..attention_patches.frames import check_channels
from ..attention_patches.pcfa import attended, draws
from ..attention_patches.unet import check_model
from ..attention_patches.unet_call import check_single
from ..samplers.embeddings import check_width
from ..samplers.first_frame import check_picture
from ..samplers.i2v_zero import prepare
from ..samplers.noise_schedule import check_schedule
from .inputs import Node
from .stages import STAGE_CHOICES

P_TOOLTIP = (
    "Probability p of the geometric distribution (0 to 1) that picks the third frame, t-k. Larger p means nearer frames (1: always the "
    "previous one, no chance left); smaller p reaches further back (0: all earlier frames alike). The paper's text says that larger p "
    "gives more motion; its Eq. 13, which is what runs here, makes it the other way round."
)
SEED_TOOLTIP = "Which frames are drawn at each step. Same seed, same frames, whatever the batching; independent of the sampler's seed."


def chooser(mode: str, p: float, seed: int):
    """choose(FrameBatch, step) -> plan for attention_patches.cross_frame.patch."""
    def choose(batch, step):
        return attended(batch.numbers, mode, p, draws(seed, step, batch.total) if mode == "PCFA" else None)
    return choose


class PCFAPatch(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PCFAPatch",
            display_name="Probabilistic Cross-Frame Attention (PiLife)",
            category="FirstFrame/PiLife",
            search_aliases=["FirstFrame", "PCFA", "PiLife", "cross-frame attention", "image to video", "i2v", "video", "temporal consistency"],
            description="Self-attention of frame t looks at the first frame, the previous one and a randomly drawn earlier one "
                        "(PiLife, Eq. 13-15). Keeps subject and background of the first frame; training-free, for SD1.5 and SDXL.",
            inputs=[
                io.Model.Input("model", tooltip="SD1.5- or SDXL-type model, with any LoRA or ControlNet. Left unchanged; the patch is on the output."),
                io.Float.Input("p", default=0.5, min=0.0, max=1.0, step=0.01, tooltip=P_TOOLTIP),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip=SEED_TOOLTIP),
                io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001,
                               tooltip="Where in sampling it begins, as a share of the noise schedule (0: from the first step). At or above end_percent the node does nothing."),
                io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001,
                               tooltip="Where it ends (1: never). Lower values free the last steps' detail from the other frames; 0 switches the node off."),
                io.Combo.Input("stages", options=list(STAGE_CHOICES), default="all", optional=True, advanced=True,
                               tooltip="Which parts of the UNet are patched: its downward half (input), its middle block, its upward half (output), which matters most for "
                                       "appearance. all is usual."),
                io.Int.Input("frames", default=0, min=0, max=4096, optional=True, advanced=True,
                             tooltip="Frames of one clip when the latent holds several clips one after another. 0: the whole batch is one clip."),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model with cross-frame attention.")],
        )

    @classmethod
    def execute(cls, model, p, seed, start_percent, end_percent, stages="all", frames=0) -> io.NodeOutput:
        return io.NodeOutput(patch(model, chooser("PCFA", p, seed), "Probabilistic Cross-Frame Attention",
                                   frames=frames, start_percent=start_percent, end_percent=end_percent, stages=STAGE_CHOICES[stages]))


class I2VZero(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_I2VZero",
            display_name="I2V-Zero (Text2Video-Zero from a picture)",
            category="FirstFrame/PiLife",
            search_aliases=["FirstFrame", "Text2Video-Zero", "I2V-Zero", "PiLife", "image to video", "i2v", "cross-frame", "first frame", "inversion"],
            description="The baseline of the PiLife paper: inverts the picture, shifts its latent from frame to frame, re-noises it and "
                        "samples all frames with cross-frame attention. Give the three outputs to SamplerCustom with add_noise off.",
            inputs=[
                io.Model.Input("model", tooltip="SD1.5- or SDXL-type model, with any LoRA or ControlNet. Left unchanged; the patch is on the output."),
                io.Latent.Input("samples", tooltip="The picture, from VAE Encode (exactly one)."),
                io.Conditioning.Input("positive", tooltip="What the picture shows. The inversion uses it too."),
                io.Conditioning.Input("negative", tooltip="Only used by the inversion when inversion_cfg is not 1."),
                io.Int.Input("frames", default=8, min=2, max=256, tooltip="Length of the clip in frames (at least 2; 8 in Text2Video-Zero)."),
                io.Combo.Input("attention", options=["first", "first+previous", "PCFA", "none"], default="first",
                               tooltip="Frames that every frame attends to. first: the baseline; first+previous: without chance; PCFA: PiLife's, "
                                       "with p and seed; none: the model's own self-attention, for comparison."),
                io.Float.Input("p", default=0.5, min=0.0, max=1.0, step=0.01, tooltip="Only with attention PCFA. " + P_TOOLTIP),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                             tooltip="Noise of the re-noising, and the frames that PCFA draws. Same seed, same bits."),
                io.Float.Input("motion_x", default=12.0, min=-512.0, max=512.0, step=0.5,
                               tooltip="Shift per frame in pixels of a 512-pixel picture; positive moves the content left. 0: no shift. 12 is the official value; "
                                       "latents move in whole cells (8 pixels), the nearest one."),
                io.Float.Input("motion_y", default=12.0, min=-512.0, max=512.0, step=0.5,
                               tooltip="The same upwards: positive moves the content up. 0: no shift."),
                io.Int.Input("t0", default=881, min=1, max=999, optional=True, advanced=True,
                             tooltip="Timestep at which the latent is shifted (881 of 1000). Lower keeps more of the picture in every frame. Rounded down to the grid of 'steps'."),
                io.Int.Input("t1", default=941, min=1, max=999, optional=True, advanced=True,
                             tooltip="Timestep up to which the shifted frames are re-noised and from which sampling starts (941). Not below t0; equal to t0: no re-noising."),
                io.Int.Input("steps", default=50, min=2, max=1000, optional=True, advanced=True,
                             tooltip="Length of the full DDIM schedule; inversion and sampling each use its part below t1. More is slower and inverts more exactly."),
                io.Float.Input("inversion_cfg", default=1.0, min=1.0, max=30.0, step=0.1, optional=True, advanced=True,
                               tooltip="Guidance during inversion. 1 (neutral): most exact and half the time."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the chosen cross-frame attention."),
                io.Latent.Output(display_name="latent", tooltip="The clip at noise level t1. It holds its noise already: sample with add_noise off."),
                io.Sigmas.Output(display_name="sigmas", tooltip="Noise levels from t1 down to 0."),
            ],
        )

    @classmethod
    def execute(cls, model, samples, positive, negative, frames, attention, p, seed, motion_x, motion_y,
                t0=881, t1=941, steps=50, inversion_cfg=1.0) -> io.NodeOutput:
        z0 = samples["samples"]
        check_picture(z0, "I2V-Zero")
        check_model(model, "I2V-Zero")
        check_single(model, "I2V-Zero")
        check_schedule(model, "I2V-Zero")
        check_channels(z0, model.get_model_object("latent_format").latent_channels, "I2V-Zero")
        for name, conditioning in (("positive", positive), ("negative", negative)):
            check_width(model, conditioning, "I2V-Zero", name)
        if t0 > t1:
            raise ValueError(f"I2V-Zero re-noises from t0 up to t1, got t0 = {t0} above t1 = {t1}. Lower t0 or raise t1.")
        latent, sigmas = prepare(model, z0, positive, negative, frames=frames, dx=motion_x, dy=motion_y, t0=t0, t1=t1, steps=steps, cfg=inversion_cfg, seed=seed)
        if attention != "none":
            model = patch(model, chooser(attention, p, seed), "I2V-Zero")
        return io.NodeOutput(model, {"samples": latent}, sigmas)
