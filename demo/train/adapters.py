"""Trains the demo world's LoRAs and ControlNet on the frozen image model, in the file formats that users' own have.

    COMFYUI_PATH=... python demo/run.py train.adapters lora [steps]
    COMFYUI_PATH=... python demo/run.py train.adapters motion_words [steps]
    COMFYUI_PATH=... python demo/run.py train.adapters controlnet [steps]

The LoRA (kohya's format, rank 8, attention and feed-forward layers) has learned the world by night: darker, bluish
colours under the same words. The ControlNet (the SD1.5 format: a copy of the downward half, zero convolutions) has
learned outlines as the host's Canny node draws them.

The LoRA of motion words goes with the motion module, as AnimateDiff v3's domain adapter does with its own. The image
model saw stills, where "moving left" looks like "moving right", and has learned to drop these words before any temporal
layer could read them. The LoRA (text encoder and cross-attention) keeps them: from the features at each place of a
motion module a linear layer shall tell which motion words the prompt has; the picture shall stay as it is.
"""
import random

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from ..world import scene
from .common import WEIGHTS, Run, initialise, warm_cosine
from .image_model import Tokens, alphas_cumprod, build, draw_latents, group_norm_fp32, load_encoder, load_published, loss_of

BATCH, POOL, RANK = 16, 2000, 8
NIGHT = (0.45, 0.5, 0.75)  # how much of red, green and blue is left
LOW, HIGH = 0.1, 0.2       # Canny's thresholds
LORA, CONTROLNET = WEIGHTS / "loras" / "firstframe_demo_night.safetensors", WEIGHTS / "controlnet" / "firstframe_demo_outlines.safetensors"
MOTION_WORDS = WEIGHTS / "loras" / "firstframe_demo_motion_words.safetensors"


def night(images: torch.Tensor) -> torch.Tensor:
    """[n,3,H,W] in 0..1."""
    return images * torch.tensor(NIGHT).view(3, 1, 1)


def outlines(images: torch.Tensor) -> torch.Tensor:
    """[n,1,H,W] uint8 0 or 1 of pictures [n,3,H,W], as the host's Canny node finds them."""
    from kornia.filters import canny
    return canny(images, LOW, HIGH)[1].to(torch.uint8)


def low_rank(m) -> tuple:
    """(down, up) beside a linear or a convolution layer."""
    if isinstance(m, torch.nn.Linear):
        return torch.nn.Linear(m.in_features, RANK, bias=False), torch.nn.Linear(RANK, m.out_features, bias=False)
    return torch.nn.Conv2d(m.in_channels, RANK, m.kernel_size, m.stride, m.padding, bias=False), torch.nn.Conv2d(RANK, m.out_channels, 1, bias=False)


class Lora:
    """Adds strength * up(down(x)) to the output of the linear and convolution layers of `net` whose name has one of `where` in it. pairs: {name: (down, up)}."""

    def __init__(self, net, *where: str):
        self.pairs, self.strength = {}, 1.0
        for name, m in net.named_modules():
            if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)) and any(w in name for w in where):
                down, up = self.pairs[name] = low_rank(m)
                torch.nn.init.zeros_(up.weight)
                m.register_forward_hook(lambda m, args, out, down=down, up=up: out + self.strength * up(down(args[0])))

    def parameters(self) -> list:
        return [layer.weight for pair in self.pairs.values() for layer in pair]

    def load(self, sd: dict, prefix: str = "lora_unet_") -> None:
        """Takes from `tensors` of another one what is there."""
        for name, (down, up) in self.pairs.items():
            key = prefix + name.replace(".", "_")
            if f"{key}.lora_up.weight" in sd:
                down.weight.data.copy_(sd[f"{key}.lora_down.weight"])
                up.weight.data.copy_(sd[f"{key}.lora_up.weight"])

    def tensors(self, prefix: str = "lora_unet_") -> dict:
        sd = {}
        for name, (down, up) in self.pairs.items():
            key = prefix + name.replace(".", "_")
            sd |= {f"{key}.lora_down.weight": down.weight.data, f"{key}.lora_up.weight": up.weight.data, f"{key}.alpha": torch.tensor(float(RANK))}
        return sd


def text_prefix(text) -> str:
    """kohya's, of the text encoder's keys."""
    return "lora_te_" if any(name.startswith("text_model.") for name, _ in text.named_modules()) else "lora_te_text_model_"


def wear(net, sd: dict, prefix: str) -> None:
    """Adds a LoRA's tensors to the weights."""
    for name, m in net.named_modules():
        key = prefix + name.replace(".", "_")
        if f"{key}.lora_up.weight" in sd:
            up, down = (sd[f"{key}.lora_{part}.weight"].float().flatten(1) for part in ("up", "down"))
            m.weight.data += (up @ down).view_as(m.weight)


def wear_motion_words(unet, text) -> None:
    """Adds the published LoRA of motion words to the weights."""
    sd = load_file(MOTION_WORDS)
    wear(unet, sd, "lora_unet_")
    wear(text, sd, text_prefix(text))


def learn_motion_words(unet, text) -> Lora:
    """The UNet's part of the published LoRA, to go on learning, with the rest of the attention and ResBlocks' layers; the text encoder wears its own part."""
    sd, lora = load_file(MOTION_WORDS), Lora(unet, ".transformer_blocks.", ".in_layers.", ".out_layers.")
    wear(text, sd, text_prefix(text))
    lora.load(sd)
    return lora


def save_motion_words(of_unet: Lora) -> None:
    """Beside what the text encoder has."""
    write({k: v for k, v in load_file(MOTION_WORDS).items() if k.startswith("lora_te_")} | of_unet.tensors(), MOTION_WORDS)


class WordReaders:
    """Linear layers that read the motion words from the features at each place of a motion module."""

    def __init__(self, unet):
        from ...attention_patches.unet import width
        from ...networks.motion_module import places
        self.seen, self.heads = {}, {}
        for place, layer in places(unet).items():
            self.heads[place] = torch.nn.Linear(width(layer), len(scene.MOTIONS))
            layer.register_forward_hook(lambda m, args, out, place=place: self.seen.__setitem__(place, out))

    def parameters(self) -> list:
        return [p for head in self.heads.values() for p in head.parameters()]

    def loss(self, captions) -> torch.Tensor:
        """Of the UNet's last call; every cell of the picture is read by itself."""
        said = torch.tensor([[float(m in caption) for m in scene.MOTIONS] for caption in captions])[:, None]
        read = (head(F.group_norm(self.seen[place].float(), 32).flatten(2).mT) for place, head in self.heads.items())
        losses = [F.binary_cross_entropy_with_logits(r, said.expand_as(r)) for r in read]
        return len(scene.MOTIONS) * sum(losses) / len(losses)


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


def train(name: str, steps: int, lr: float, parameters: list, pool, loss, no_prompt: float, save, batch: int = BATCH) -> None:
    optimiser, run, rng, losses = torch.optim.AdamW(parameters, lr=lr, weight_decay=1e-2, betas=(0.9, 0.99), fused=True), Run(name), random.Random(name), []
    torch.manual_seed(1)
    captions = pool[1]  # [those that a picture may go by]
    for step in range(steps):
        pick = [rng.randrange(len(captions)) for _ in range(batch)]
        said = ["" if rng.random() < no_prompt else rng.choice(captions[i]) for i in pick]
        value = loss(pick, said)
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
    encoder, tokens, abar = load_encoder(), Tokens(), alphas_cumprod()
    if kind == "lora":
        lora, pool = Lora(unet, ".transformer_blocks."), draw_latents(encoder, POOL, 1, night)
        z, _, near = pool
        train("lora", steps or 300, 1e-3, lora.parameters(), pool, lambda pick, said: loss_of(unet, text, z[pick].float(), near[pick], tokens(said), abar), 0.1,
              lambda: write(lora.tensors(), LORA))
    elif kind == "motion_words":
        of_unet, of_text, readers = Lora(unet, ".attn2."), Lora(text, "encoder.layers."), WordReaders(unet)
        z, captions, near = draw_latents(encoder, POOL, 3)
        pool = z, [(with_motion,) for with_motion, _ in captions]

        def loss(pick, said):
            return loss_of(unet, text, z[pick].float(), near[pick], tokens(said), abar) + readers.loss(said)

        train("motion_words", steps or 1200, 6e-3, [p for part in (of_unet, of_text, readers) for p in part.parameters()], pool, loss, 0.1,
              lambda: write(of_unet.tensors() | of_text.tensors(text_prefix(text)), MOTION_WORDS))
    elif kind == "controlnet":
        net, pool = build_controlnet(unet), draw_latents(encoder, POOL, 2, also=outlines)
        z, _, near, hints = pool
        train("controlnet", steps or 500, 1e-3, list(net.parameters()), pool,
              lambda pick, said: loss_of(unet, text, z[pick].float(), near[pick], tokens(said), abar, controlling(net, hints[pick])), 0.3, lambda: write(net.state_dict(), CONTROLNET))
    else:
        raise SystemExit(f"There is nothing to train called {kind!r}: lora, motion_words or controlnet.")
