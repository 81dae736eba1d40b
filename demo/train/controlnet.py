"""Trains the demo's ControlNet on the frozen image model: outlines as the host's Canny node draws them.

    COMFYUI_PATH=... python demo/run.py train.controlnet [steps]

SD1.5's format: a copy of the downward half, zero convolutions.
"""
from functools import partial

import torch

from ..in_process import CONTROLNET
from .denoising import Tokens, alphas_cumprod, denoising_loss
from .files import save_half
from .fit import fit, warm_cosine
from .host_layers import initialise, norms_in_fp32, zero
from .image_model import frozen
from .latents import draw_latents, load_encoder, pick_captioned

BATCH, POOL, NO_PROMPT, WARM = 16, 2000, 0.3, 50
LOW, HIGH = 0.1, 0.2  # Canny's thresholds


def outlines(images: torch.Tensor) -> torch.Tensor:
    """[n,1,H,W] uint8 0 or 1 of pictures [n,3,H,W], as the host's Canny node finds them."""
    from kornia.filters import canny
    return canny(images, LOW, HIGH)[1].to(torch.uint8)


def build(unet):
    import comfy.ops
    from comfy.cldm.cldm import ControlNet

    from ..comfy_support import UNET, FirstFrameDemo
    config = {k: v for k, v in UNET.items() if k not in ("out_channels", "transformer_depth_output")}
    net = ControlNet(hint_channels=3, operations=comfy.ops.disable_weight_init, num_heads=FirstFrameDemo.unet_extra_config["num_heads"], **config)
    initialise(net)
    net.load_state_dict(unet.state_dict(), strict=False)
    for m in (*net.zero_convs, net.middle_block_out):  # the hint's own last layer is not zero: what the hint says reaches these from the first step
        zero(m)
    norms_in_fp32(net, torch.nn.GroupNorm)
    return net.to(memory_format=torch.channels_last)


def control_by(net, hints: torch.Tensor):
    """The control argument of denoising_loss. The UNet takes from the end of each list."""
    def control(z, t, context):
        return net(z, hints.float().expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last), t, context)
    return control


def main(argv: list[str]):
    unet, text = frozen()
    net, tokens, abar = build(unet), Tokens(), alphas_cumprod()
    z, captions, near, hints = draw_latents(load_encoder(), POOL, 2, also=outlines)

    def loss(step, rng, rate):
        pick, said = pick_captioned(captions, BATCH, NO_PROMPT, rng)
        value = denoising_loss(unet, text, z[pick].float(), near[pick], tokens(said), abar, control_by(net, hints[pick]))
        return value, {"loss": value}

    fit("controlnet", net.parameters(), loss, int(argv[0]) if argv else 500, lr=1e-3, course=partial(warm_cosine, warm=WARM),
        save=lambda step: save_half(net.state_dict(), CONTROLNET))
