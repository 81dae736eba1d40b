"""Trains the demo world's LoRA and ControlNet on the frozen image model, in the file formats that users' own have.

    COMFYUI_PATH=... python demo/run.py train.adapters lora [steps]
    COMFYUI_PATH=... python demo/run.py train.adapters controlnet [steps]

The LoRA (kohya's format, rank 8, attention and feed-forward layers) has learned the world by night: darker, bluish
colours under the same words. The ControlNet (the SD1.5 format: a copy of the downward half, zero convolutions) has
learned outlines as the host's Canny node draws them.
"""
import random

import torch
from safetensors.torch import save_file

from .common import WEIGHTS, Run, initialise, warm_cosine
from .image_model import Tokens, alphas_cumprod, build, draw_latents, group_norm_fp32, load_encoder, load_published, loss_of

BATCH, POOL, RANK = 16, 2000, 8
NIGHT = (0.45, 0.5, 0.75)  # how much of red, green and blue is left
LOW, HIGH = 0.1, 0.2       # Canny's thresholds
LORA, CONTROLNET = WEIGHTS / "loras" / "firstframe_demo_night.safetensors", WEIGHTS / "controlnet" / "firstframe_demo_outlines.safetensors"


def night(images: torch.Tensor) -> torch.Tensor:
    """[n,3,H,W] in 0..1."""
    return images * torch.tensor(NIGHT).view(3, 1, 1)


def outlines(images: torch.Tensor) -> torch.Tensor:
    """[n,1,H,W] uint8 0 or 1 of pictures [n,3,H,W], as the host's Canny node finds them."""
    from kornia.filters import canny
    return canny(images, LOW, HIGH)[1].to(torch.uint8)


class Lora:
    """Adds up @ down to the output of chosen linear layers."""

    def __init__(self, unet):
        self.pairs = {}
        for name, m in unet.named_modules():
            if isinstance(m, torch.nn.Linear) and ".transformer_blocks." in name:
                down, up = torch.nn.Linear(m.in_features, RANK, bias=False), torch.nn.Linear(RANK, m.out_features, bias=False)
                torch.nn.init.zeros_(up.weight)
                self.pairs[name] = down, up
                m.register_forward_hook(lambda m, args, out, down=down, up=up: out + up(down(args[0])))

    def parameters(self) -> list:
        return [layer.weight for pair in self.pairs.values() for layer in pair]

    def save(self) -> None:
        sd = {}
        for name, (down, up) in self.pairs.items():
            key = "lora_unet_" + name.replace(".", "_")
            sd |= {f"{key}.lora_down.weight": down.weight.data, f"{key}.lora_up.weight": up.weight.data, f"{key}.alpha": torch.tensor(float(RANK))}
        write(sd, LORA)


def write(sd: dict, path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in sd.items()}, path)


def build_controlnet(unet):
    import comfy.ops
    from comfy.cldm.cldm import ControlNet

    from ..comfy_support import UNET, FirstFrameDemo
    config = {k: v for k, v in UNET.items() if k not in ("out_channels", "transformer_depth_output")}
    net = ControlNet(hint_channels=3, operations=comfy.ops.disable_weight_init, num_heads=FirstFrameDemo.unet_extra_config["num_heads"], **config)
    initialise(net)
    net.load_state_dict(unet.state_dict(), strict=False)
    for m in (*net.zero_convs, net.middle_block_out):  # the hint's own last layer is not zero: what the hint says reaches these from the first step
        for p in m.parameters():
            torch.nn.init.zeros_(p)
    for m in net.modules():
        if isinstance(m, torch.nn.GroupNorm):
            m.register_forward_pre_hook(group_norm_fp32)
    return net.to(memory_format=torch.channels_last)


def controlling(net, hints: torch.Tensor):
    """The control argument of loss_of. The UNet takes from the end of each list."""
    def control(z, t, context):
        return net(z, hints.float().expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last), t, context)
    return control


def train(name: str, steps: int, lr: float, parameters: list, pool, loss, no_prompt: float, save) -> None:
    optimiser, run, rng, losses = torch.optim.AdamW(parameters, lr=lr, weight_decay=1e-2, betas=(0.9, 0.99), fused=True), Run(name), random.Random(name), []
    torch.manual_seed(1)
    tokens, captions = Tokens(), pool[1]
    for step in range(steps):
        pick = [rng.randrange(POOL) for _ in range(BATCH)]
        said = ["" if rng.random() < no_prompt else rng.choice(captions[i]) for i in pick]
        value = loss(pick, tokens(said))
        for g in optimiser.param_groups:
            g["lr"] = warm_cosine(step, steps, lr, warm=50)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        losses.append(value.item())
        if (step + 1) % 50 == 0 or step + 1 == steps:
            run.log(step=step + 1, loss=sum(losses) / len(losses))
            losses.clear()
            save()


def main(argv: list[str]):
    kind, steps = argv[0], int(argv[1]) if len(argv) > 1 else None
    unet, text = build()
    load_published(unet, text)
    unet.requires_grad_(False)
    text.requires_grad_(False)
    encoder, abar = load_encoder(), alphas_cumprod()
    if kind == "lora":
        lora, pool = Lora(unet), draw_latents(encoder, POOL, 1, night)
        z, _, near = pool
        train("lora", steps or 300, 1e-3, lora.parameters(), pool, lambda pick, ids: loss_of(unet, text, z[pick].float(), near[pick], ids, abar), 0.1, lora.save)
    elif kind == "controlnet":
        net, pool = build_controlnet(unet), draw_latents(encoder, POOL, 2, also=outlines)
        z, _, near, hints = pool
        train("controlnet", steps or 500, 1e-3, list(net.parameters()), pool,
              lambda pick, ids: loss_of(unet, text, z[pick].float(), near[pick], ids, abar, controlling(net, hints[pick])), 0.3, lambda: write(net.state_dict(), CONTROLNET))
    else:
        raise SystemExit(f"There is nothing to train called {kind!r}: lora or controlnet.")
