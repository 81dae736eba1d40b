"""A custom node for tests: bad values of every wire type, which a prompt's JSON cannot carry, by name. As `firstframe.tests.hostile.source_nodes` the names.

HostileValue has an output of the type *, which the host connects to anything.
"""
import sys
from pathlib import Path

import comfy.clip_vision
import comfy.memory_management
import torch
from comfy_api.latest import ComfyExtension, io
from safetensors.torch import load_file

NAN, INF = float("nan"), float("inf")


class Noise:
    """A NOISE that makes what it is told."""

    def __init__(self, make):
        self.seed, self.make = 0, make

    def generate_noise(self, latent):
        return self.make(latent["samples"])


def spoilt(z: torch.Tensor, bad: float) -> torch.Tensor:
    z = z.clone()
    z.view(-1)[len(z.view(-1)) // 2] = bad
    return z


def latent(change):
    return lambda good: {**good, "samples": change(good["samples"])}


def conditioning(change):
    return lambda good: [[change(c), options] for c, options in good]


def limited(**more):
    return lambda good: [[c, {**options, **more}] for c, options in good]


ANY = {"nothing": lambda good: None, "a text": lambda good: "text", "a number": lambda good: 7, "a list": lambda good: [1, 2], "an object": lambda good: object()}
NUMBERS = {"NaN": lambda good: NAN, "infinity": lambda good: INF, "minus infinity": lambda good: -INF, "huge": lambda good: 2**70, "a huge negative": lambda good: -(2**70),
           "true": lambda good: True, "a half": lambda good: 0.5, "a tensor": lambda good: torch.ones(2), "a digit": lambda good: "3"}
BAD = {  # wire type: {name: the bad value, from the good one that stood there}
    "INT": NUMBERS | {"1500000": lambda good: 1500000},
    "FLOAT": NUMBERS,
    "BOOLEAN": {"a tensor": lambda good: torch.ones(2)},
    "STRING": {"bytes": lambda good: b"text"},
    "COMBO": {},
    "LATENT": {
        "no frame": latent(lambda z: z[:0]), "no cells": latent(lambda z: z[..., :0]), "three axes": latent(lambda z: z[0]), "five axes": latent(lambda z: z[:, :, None]),
        "many channels": latent(lambda z: z.repeat(1, 4, 1, 1)), "one channel": latent(lambda z: z[:, :1]), "NaN": latent(lambda z: spoilt(z, NAN)),
        "infinity": latent(lambda z: spoilt(z, INF)), "another size": latent(lambda z: torch.nn.functional.pad(z, (0, 1))), "one cell": latent(lambda z: z[..., :1, :1]),
        "two pictures": latent(lambda z: z.repeat(2, 1, 1, 1)), "whole numbers": latent(lambda z: z.long()), "halves": latent(lambda z: z.half()),
        "an empty dict": lambda good: {}, "no tensor": lambda good: {"samples": [1.0]}},
    "IMAGE": {"[h,w]": lambda good: good[0, ..., 0], "no frame": lambda good: good[:0], "NaN": lambda good: spoilt(good, NAN)},
    "MASK": {
        "[h,w]": lambda good: good[0], "[1,1,h,w]": lambda good: good[:1, None], "[h]": lambda good: good[0, 0], "no frame": lambda good: good[:0], "NaN": lambda good: spoilt(good, NAN),
        "infinity": lambda good: spoilt(good, INF), "two": lambda good: good[:1].repeat(2, 1, 1), "whole numbers": lambda good: good.long(), "above one": lambda good: good + 9},
    "CONDITIONING": {
        "no entry": lambda good: [], "no token": conditioning(lambda c: c[:, :0]), "wide": conditioning(lambda c: c.repeat(1, 1, 2)), "two axes": conditioning(lambda c: c[0]),
        "NaN": conditioning(lambda c: spoilt(c, NAN)), "three entries a batch": conditioning(lambda c: c.repeat(3, 1, 1)), "two entries": lambda good: [*good, *good],
        "early": limited(start_percent=0.0, end_percent=0.1), "late": limited(start_percent=0.9, end_percent=1.0), "never": limited(start_percent=0.7, end_percent=0.3),
        "an area": limited(area=(4, 4, 2, 2), strength=1.0, set_area_to_bounds=False), "a mask": limited(mask=torch.ones(1, 64, 64), mask_strength=1.0, set_area_to_bounds=False),
        "a mask with bounds": limited(mask=torch.nn.functional.pad(torch.ones(1, 16, 16), (8, 40, 8, 40)), mask_strength=1.0, set_area_to_bounds=True),
        "no options": lambda good: [[c] for c, _ in good]},
    "MODEL": {},
    "CLIP": {},
    "VAE": {},
    "NOISE": {"NaN": lambda good: Noise(lambda z: z * NAN), "one frame": lambda good: Noise(lambda z: torch.zeros_like(z[:1])), "zeros": lambda good: Noise(torch.zeros_like),
              "five axes": lambda good: Noise(lambda z: torch.zeros_like(z)[:, :, None])},
    "SIGMAS": {"none": lambda good: good[:0], "NaN": lambda good: good * NAN},
    "INVERSION": {}, "MOTION_TOKENS": {}, "FF_MOTION_MODULE": {}, "I2V_ADAPTER": {}, "CONTENT_ADAPTER": {}, "CLIP_VISION": {}, "CONTROL_NET": {},
    "REWARD_MODEL": {}, "GUIDER": {}, "SAMPLER": {},
}


class HostileValue(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="HostileValue", category="tests",
                         inputs=[io.String.Input("type"), io.String.Input("name"), io.AnyType.Input("good", optional=True)], outputs=[io.AnyType.Output()])

    @classmethod
    def execute(cls, type, name, good=None) -> io.NodeOutput:
        return io.NodeOutput(good if name.startswith("as it is") else (BAD[type] | ANY)[name](good))


class SmallClipVision(io.ComfyNode):
    """The stock loader knows CLIPs of 300 million weights and more."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="SmallClipVision", category="tests", inputs=[io.Int.Input("hidden_size")], outputs=[io.ClipVision.Output()])

    @classmethod
    def execute(cls, hidden_size) -> io.NodeOutput:
        def made():
            return comfy.clip_vision.ClipVisionModel(dict(
                num_hidden_layers=3, hidden_size=hidden_size, num_attention_heads=4, intermediate_size=64, hidden_act="gelu", model_type="clip_vision_model",
                num_channels=3, image_size=28, patch_size=14, projection_dim=48))

        lazy, comfy.memory_management.aimdo_enabled = comfy.memory_management.aimdo_enabled, False  # such layers have no weights whose shapes could be read
        try:
            shapes = {k: v.shape for k, v in made().model.state_dict().items()}
        finally:
            comfy.memory_management.aimdo_enabled = lazy
        clip, generator = made(), torch.Generator().manual_seed(0)
        clip.load_sd({k: torch.randn(shape, generator=generator).half() / 5 for k, shape in shapes.items()})
        return io.NodeOutput(clip)


class SmallDynamiCrafter(io.ComfyNode):
    """The golden file's UNet in the pack's own class, with its prompts and pictures."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="SmallDynamiCrafter", category="tests", inputs=[io.Float.Input("rescale_base")],
                         outputs=[io.Model.Output(), io.Conditioning.Output(), io.Conditioning.Output()])

    @classmethod
    def execute(cls, rescale_base) -> io.NodeOutput:
        pack = next(module for name, module in list(sys.modules.items()) if name.endswith("ComfyUI-FirstFrame.networks.lvdm_model"))
        unet = sys.modules[pack.__name__.replace("lvdm_model", "lvdm_unet")]
        g = load_file(Path(__file__).resolve().parents[2] / "golden" / "d2_dynamicrafter_unet_256.safetensors")
        sd = unet.as_ours({k.removeprefix("w.model.diffusion_model."): v.float() for k, v in g.items() if k.startswith("w.")})
        config = dict(image_size=32, in_channels=8, out_channels=4, transformer_depth_middle=1, use_linear_in_transformer=True, use_spatial_transformer=True, legacy=False,
                      use_checkpoint=False, model_channels=64, num_res_blocks=[1, 1], channel_mult=[1, 1], transformer_depth=[1, 0], transformer_depth_output=[1, 1, 0, 0],
                      num_head_channels=16, context_dim=40)
        text, z = g["in.context"], g["in.x_noisy_then_concat"][0, 4:].transpose(0, 1)
        said = ([[text[row:row + 1, :77], {"image_tokens": text[row:row + 1, 77:], "fps": 3, "concat_latent_image": z}]] for row in (0, 1))
        return io.NodeOutput(pack.in_patcher(sd, config, unet.layout_of(sd, head=16), rescale_base), *said)


class Sources(ComfyExtension):
    async def get_node_list(self):
        return [HostileValue, SmallClipVision, SmallDynamiCrafter]


async def comfy_entrypoint():
    return Sources()
