"""Node of PiLife's motion attention map. It wires; the maths is in attention_patches/attention_map.py."""
import logging

import torch
from comfy_api.latest import io

from ..attention_patches.attention_map import capture, check_length, to_map
from ..attention_patches.frames import check_channels
from ..attention_patches.unet import check_model
from ..attention_patches.unet_call import check_single
from ..samplers.ddim import sigmas_of
from ..samplers.embeddings import check_width
from ..samplers.first_frame import check_picture
from ..samplers.noise_schedule import check_schedule
from ..samplers.noised_calls import call_at
from .inputs import Node
from .motion_tokens import MotionTokensType
from .stages import STAGE_CHOICES

WHO = "Motion Attention Map"
RESOLUTIONS = {  # choices: halvings of the latent's width and height
    "1/2 + 1/4": (1, 2), "1/1": (0,), "1/2": (1,), "1/4": (2,), "1/8": (3,), "1/1 + 1/2": (0, 1), "1/4 + 1/8": (2, 3), "all": (0, 1, 2, 3),
}


def timesteps(start: int, end: int, count: int) -> list[int]:
    """`count` timesteps evenly from start to end, both included (count 1: start alone); equal ones once."""
    return list(dict.fromkeys(torch.linspace(start, end, count).round().int().tolist()))


class MotionAttentionMap(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FF_MotionAttentionMap",
            display_name="Motion Attention Map (PiLife)",
            category="FirstFrame/PiLife",
            search_aliases=["FirstFrame", "PiLife", "motion mask", "cross-attention", "attention map", "image to video"],
            description="Where in the picture the model looks for the prompt's motion words (PiLife, Eq. 11), as a mask: view it, paint over it "
                        "or replace it. Runs the model a few times on the noised picture; nothing is sampled.",
            inputs=[
                io.Model.Input("model", tooltip="SD1.5- or SDXL-type model, with any LoRA or ControlNet. Left unchanged."),
                io.Latent.Input("samples", tooltip="The picture, from VAE Encode (exactly one)."),
                io.Conditioning.Input("positive",
                                      tooltip="The prompt whose motion words were counted, encoded with the same CLIP. ControlNets in it take part."),
                MotionTokensType.Input("motion_tokens", tooltip="From Motion Tokens, for the same prompt. Without motion words the map is 1 everywhere."),
                io.Int.Input("start_timestep", default=761, min=0, max=999,
                             tooltip="The noisiest timestep (0 to 999) at which it is read; 761 is where PiLife starts. Higher: less of the picture is seen."),
                io.Int.Input("end_timestep", default=401, min=0, max=999,
                             tooltip="The least noisy timestep (0 to 999) at which it is read. Lower: the picture is seen more clearly."),
                io.Int.Input("count", default=4, min=1, max=64,
                             tooltip="Timesteps averaged, evenly from start to end (1: start alone). Each costs one model call; more is steadier."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                             tooltip="Noise laid over the picture, the same at all timesteps. Same seed, same bits; independent of the sampler's seed."),
                io.Float.Input("smoothing", default=0.0, min=0.0, max=32.0, step=0.1,
                               tooltip="Blur in latent cells of 8 pixels (standard deviation of a Gaussian). 0: none. Higher gives softer, larger regions."),
                io.Float.Input("gamma", default=1.0, min=0.05, max=20.0, step=0.05,
                               tooltip="The map is raised to this power. 1: as it is. Above 1 only the strongest places stay; below 1 weak ones grow."),
                io.Float.Input("threshold", default=0.0, min=0.0, max=1.0, step=0.01,
                               tooltip="0: off, a soft map. Above 0: places at or above it become 1, all others 0; higher leaves fewer."),
                io.Combo.Input("resolutions", options=list(RESOLUTIONS), default="1/2 + 1/4", optional=True, advanced=True,
                               tooltip="Which layers are read, by their size against the latent's. 1/2 + 1/4 (usual): 32x32 and 16x16 in SD1.5 at 512 pixels; SDXL has "
                                       "these two only. 1/1 is finer, for small pictures; 1/8 is very coarse."),
                io.Combo.Input("stages", options=list(STAGE_CHOICES), default="all", optional=True, advanced=True,
                               tooltip="Which parts of the UNet are read: its downward half (input), its middle block, its upward half (output). all is usual."),
            ],
            outputs=[io.Mask.Output(display_name="mask", tooltip="A, at the latent's size, from 0 (still) to 1 (moves most).")],
        )

    @classmethod
    def execute(cls, model, samples, positive, motion_tokens, start_timestep, end_timestep, count, seed, smoothing, gamma, threshold,
                resolutions="1/2 + 1/4", stages="all") -> io.NodeOutput:
        z = samples["samples"]
        check_picture(z, WHO)
        check_model(model, WHO, "reads the cross-attention")
        check_single(model, WHO)
        check_schedule(model, WHO)
        check_channels(z, model.get_model_object("latent_format").latent_channels, WHO)
        check_width(model, positive, WHO, "positive")
        check_length(positive, motion_tokens, WHO)
        size = tuple(z.shape[-2:])
        if not motion_tokens.positions:
            logging.warning(f"{WHO}: the prompt has no motion words, so the whole picture may move. Type them into Motion Tokens to choose a place.")
            return io.NodeOutput(torch.ones(1, *size))
        m, captured = capture(model, motion_tokens, size, WHO, levels=RESOLUTIONS[resolutions], stages=STAGE_CHOICES[stages])
        call_at(m, z, positive, sigmas_of(model.get_model_object("model_sampling"), timesteps(start_timestep, end_timestep, count)), seed)
        return io.NodeOutput(to_map(captured.mean(), smoothing, gamma, threshold)[None].float().cpu())
