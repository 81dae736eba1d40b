"""The node of PiLife's motion-aware inversion. It wires; the maths is in samplers/null_text.py."""
import torch
from comfy_api.latest import io, ui

from ..attention_patches.frames import check_channels
from ..attention_patches.unet import check_model
from ..attention_patches.unet_call import check_single
from ..samplers.embeddings import check_width
from ..samplers.first_frame import check_picture
from ..samplers.guidance_left import LITTLE
from ..samplers.inversion import MODES, REFINE, STARTS, WHO, invert_picture
from ..samplers.loss_plot import loss_plot
from ..samplers.noise_schedule import check_schedule
from ..samplers.null_text import OPTIMISERS, Optimisation
from ..samplers.psi_conditioning import as_conditioning
from .inputs import Node

InversionType = io.Custom("INVERSION")
BY_MODE = -1


def psnr_of_picture(vae, z: torch.Tensor, z0: torch.Tensor) -> float:
    """dB, of the decoded reconstruction against the decoded latent of the picture, so that the VAE's own loss does not count."""
    error = (vae.decode(z) - vae.decode(z0)).square().mean()
    return float(-10 * error.clamp_min(1e-12).log10())


def guidance_report(left: float | None) -> str:
    """In words: how much cfg can do in a sampler that has the conditioning as its negative."""
    if left is None:
        return "Guidance left: not measured, 'negative' is not connected."
    text = f"Guidance left: {left:.2f} of what 'negative' by itself gives."
    if left < LITTLE:
        text += " With 'conditioning' as the negative, cfg does next to nothing: set refine to 0, and begin to negative, or give the sampler your own negative prompt."
    return text


def report(inversion, mode: str, picture: float | None = None) -> str:
    seen = "" if picture is None else f", {picture:.1f} dB in the picture"
    began = f" from the {inversion.began} prompt" if mode == "null-text" else ""
    return (f"{mode}{began}: {len(inversion.timesteps)} timesteps up to t = {inversion.timesteps[-1]}; {inversion.calls} model calls, {inversion.backward} of them with gradients. "
            f"{guidance_report(inversion.guidance)} Reconstruction: PSNR {inversion.psnr:.1f} dB in the latent{seen}.")


class MotionAwareInversion(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MotionAwareInversion",
            display_name="Motion-Aware Inversion (PiLife)",
            category="FirstFrame/PiLife",
            search_aliases=["FirstFrame", "PiLife", "DDIM inversion", "null-text inversion", "null text", "image to video", "i2v", "unsampler"],
            description="Turns a picture back into the noise it would be sampled from, and finds for every timestep the prompt embedding "
                        "that brings exactly this picture back (PiLife, Eq. 6; null-text inversion). For SD1.5- and SDXL-type models.",
            inputs=[
                io.Model.Input("model",
                               tooltip="SD1.5- or SDXL-type model, with any LoRA. Without patches that need a clip (put PCFA on the model that samples). "
                                       "Left unchanged."),
                io.Latent.Input("samples", tooltip="The picture, from VAE Encode (exactly one)."),
                io.Conditioning.Input("positive", tooltip="The motion prompt: what the picture shows and how it will move. ControlNet and areas may be in it."),
                io.Combo.Input("mode", options=list(MODES), default="conditional",
                               tooltip="conditional: the prompt's own embedding is optimised, without guidance (the paper). null-text: the negative "
                                       "prompt's is, "
                                       "with guidance (Mokady et al.). none: plain DDIM, nothing is optimised (neutral)."),
                io.Int.Input("steps", default=50, min=2, max=1000,
                             tooltip="Length of the whole DDIM schedule; the part below start_timestep is used. More is slower and follows the picture "
                                     "more closely."),
                io.Int.Input("start_timestep", default=761, min=1, max=999,
                             tooltip="How far up the noise the picture is taken, 1 to 999 (761 in the paper). Higher frees the clip more from the picture. "
                                     "Rounded down to the grid of 'steps'."),
                io.Conditioning.Input("negative", optional=True,
                                      tooltip="The negative prompt, usually an empty one. Mode null-text optimises its embedding; the other modes only measure against it how "
                                              "much guidance is left."),
                io.Float.Input("guidance", default=7.5, min=1.0, max=30.0, step=0.1, optional=True, advanced=True,
                               tooltip="Only for mode null-text: guidance (cfg) under which the picture is reconstructed. Use the same in the "
                                       "sampler. 1: no guidance, and nothing to optimise."),
                io.Combo.Input("optimiser", options=list(OPTIMISERS), default=OPTIMISERS[0], optional=True, advanced=True,
                               tooltip="Signum: signed momentum kept from timestep to timestep, with a step length of its own; 3 inner_steps do, "
                                       "and it takes one less in the noisier half. Adam (paper): the published one; set inner_steps to 10 with it."),
                io.Int.Input("inner_steps", default=Optimisation.inner, min=0, max=500, optional=True, advanced=True,
                             tooltip="Optimisation steps at each timestep, at most (10 in the paper, with Adam). 0: none. More is slower and comes closer "
                                     "to the picture."),
                io.Float.Input("learning_rate", default=1e-2, min=1e-5, max=1.0, step=1e-3, round=False, optional=True, advanced=True,
                               tooltip="Adam's at the first timestep; it falls to half on the way down. Signum ignores it. Too high: the loss rises."),
                io.Float.Input("early_stop", default=1e-5, min=0.0, max=1.0, step=1e-6, round=False, optional=True, advanced=True,
                               tooltip="Mean squared error at which the first timestep ends early; it grows by 2e-5 with each of 50 timesteps. Higher is "
                                       "faster and less exact. 0: smallest."),
                io.Int.Input("refine", default=BY_MODE, min=BY_MODE, max=20, optional=True, advanced=True,
                             tooltip="Extra model calls per timestep of the inversion, which make its latents fit the sampling that follows. 0: DDIM inversion as published. -1: by mode, "
                                     "1 for null-text and 0 for the others. In mode conditional 1 or more brings the picture back more exactly, but leaves the "
                                     "prompt's embedding nearly as it is, and cfg next to nothing to act on."),
                io.Combo.Input("checkpointing", options=["auto", "on", "off"], default="auto", optional=True, advanced=True,
                               tooltip="on: a fraction of the memory, optimisation steps take longer; results agree to rounding. "
                                       "auto: on when memory would not do."),
                io.Vae.Input("vae", optional=True, tooltip="Only for the report: with it the reconstruction is also judged as a picture."),
                io.Combo.Input("begin", options=list(STARTS), default=STARTS[0], optional=True, advanced=True,
                               tooltip="Only for mode null-text: the prompt whose embedding it sets out from. negative: as published; the result stays near the "
                                       "negative prompt, so that cfg acts. positive: the picture comes back most exactly (negative-prompt inversion), but cfg has "
                                       "next to nothing to act on. Where the two prompts have different numbers of areas: negative."),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The reconstruction z0*: the clip's first frame."),
                InversionType.Output(display_name="inversion",
                                     tooltip="Noise levels, the latents of inversion and reconstruction, embeddings and the picture's own noise, for Motion Noise and Noise Clipper."),
                io.Conditioning.Output(display_name="conditioning",
                                       tooltip="The found embeddings, each on its own timestep range: as negative in the sampler (paper), or as positive "
                                               "with cfg 1 to see the reconstruction."),
                io.Sigmas.Output(display_name="sigmas", tooltip="Noise levels from start_timestep down to 0, for SamplerCustomAdvanced."),
                io.Image.Output(display_name="plot", tooltip="The losses by timestep: first of each in grey, least in red."),
                io.String.Output(display_name="report", tooltip="Model calls spent, how much guidance is left, and how close the reconstruction is."),
            ],
        )

    @classmethod
    def execute(cls, model, samples, positive, mode, steps, start_timestep, negative=None, guidance=7.5, optimiser=OPTIMISERS[0], inner_steps=Optimisation.inner,
                learning_rate=1e-2, early_stop=1e-5, refine=BY_MODE, checkpointing="auto", vae=None, begin=STARTS[0]) -> io.NodeOutput:
        z0 = samples["samples"]
        check_picture(z0, WHO)
        check_model(model, WHO)
        check_single(model, WHO)
        check_schedule(model, WHO)
        check_channels(z0, model.get_model_object("latent_format").latent_channels, WHO)
        for name, conditioning in (("positive", positive), ("negative", negative or [])):
            check_width(model, conditioning, WHO, name)
        if mode == "null-text" and negative is None:
            raise ValueError(f"{WHO}: mode null-text optimises the negative prompt's embedding, and 'negative' is not connected. Connect CLIP Text Encode with an empty text.")
        options = Optimisation(0 if mode == "none" else inner_steps, learning_rate, early_stop, steps=steps, optimiser=optimiser)
        z, inversion = invert_picture(model, z0, positive, negative, mode=mode, steps=steps, start=start_timestep, guidance=guidance,
                                      refine=REFINE[mode] if refine == BY_MODE else refine, options=options, begin=begin, checkpointing=checkpointing)
        text = report(inversion, mode, None if vae is None else psnr_of_picture(vae, z, z0))
        plot = loss_plot(inversion.timesteps, inversion.losses, text.split(". ")[-1])
        shown = {**ui.PreviewImage(plot, cls=cls).as_dict(), **ui.PreviewText(text).as_dict()}
        conditioning = as_conditioning(inversion, negative if mode == "null-text" else positive, model.get_model_object("model_sampling").percent_to_sigma)
        return io.NodeOutput({"samples": z}, inversion, conditioning, torch.flip(inversion.sigmas, (0,)), plot, text, ui=shown)
