"""Trains the demo world's text-to-image model: the host's UNet and a tiny CLIP text encoder, together, on the frozen latents.

    COMFYUI_PATH=... python demo/run.py train.image_model [steps]

It goes on from its state file, else from the published weights, else from nothing (take the weights away for that).

eps-prediction with SD's betas. Those do not end in pure noise, and a flat background leaks through the last timestep:
trained with the plain loss, the background follows the seed instead of the prompt (the effect that the I4VGen paper
describes). Hence the weight 1 + 1/SNR, which counts the error of x0 as much as that of eps. Outlines are a few cells of
256: cells near a shape count FOCUS times more, or the words for shapes are learned long after those for colours.
"""
import random

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ..in_process import CHECKPOINT, use_host
from ..world import scene, shapes
from .common import WEIGHTS, Average, Run, initialise, warm_cosine

BATCH, POOL, NO_PROMPT, NO_MOTION, FOCUS = 32, 10000, 0.1, 0.5, 6.0


def attention_fp32(func, q, k, v, heads, *args, **kwargs):
    """Under autocast, torch's bfloat16 attention is several times slower backward on a CPU than its float32 one."""
    with torch.autocast("cpu", enabled=False):
        q, k, v = (rearrange(t.float(), "b n (h d) -> b h n d", h=heads) for t in (q, k, v))
        return rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")


def group_norm_fp32(module, args):
    return (args[0].float(),)


OPTIONS = {
    "optimized_attention_override": attention_fp32,
    "patches": {"input_block_patch_after_skip": [lambda h, options: h.clone()]},  # a ControlNet's output is added in place to what the next block was given
}


def alphas_cumprod() -> torch.Tensor:
    """SD's schedule: betas linear in their square root."""
    return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0).float()


def load_encoder():
    from comfy.taesd.taesd import TAESD
    vae = TAESD(latent_channels=4).float()
    vae.load_state_dict({k: v.float() for k, v in load_file(WEIGHTS / "vae" / "firstframe_demo_vae.safetensors").items()})
    return vae.taesd_encoder.to(memory_format=torch.channels_last).requires_grad_(False)


def distance(s: scene.Scene, t: float) -> torch.Tensor:
    """[1,16,16]: how far each latent cell is from the nearest outline, in cells, negative inside."""
    nearest = torch.full((1, 16, 16), torch.inf)
    for body in s.bodies:
        x, y, size, angle = (torch.tensor([v]) for v in body.at(t))
        nearest = nearest.minimum(shapes.outline_distance(body.shape, torch.stack([x, y], 1) / 8, size / 8, angle, 16, 16))
    return nearest


def focus(s: scene.Scene, t: float) -> torch.Tensor:
    """[1,16,16] bool: latent cells in which a shape lies, or that are less than a cell away from one."""
    return distance(s, t) < 1


@torch.no_grad()
def draw_latents(encoder, n: int, seed: int, look=lambda images: images, also=lambda images: None):
    """(latents [n,4,16,16] fp16, captions [(with, without motion words)], focus [n,1,16,16]) of random frames of random scenes.

    look(images [40,3,H,W] in 0..1) changes the pictures first; also(images) may return something else to keep of them, then
    the fourth of the results.
    """
    rng, z, captions, near, kept = random.Random(f"frames {seed}"), [], [], [], []
    for _ in range(0, n, 40):
        drawn = []
        for _ in range(40):
            s = scene.random_scene(rng)
            drawn.append((s, rng.random()))
        images = look(torch.cat([s.draw([t]) for s, t in drawn]).permute(0, 3, 1, 2))
        with torch.autocast("cpu", torch.bfloat16):
            z.append(encoder(images.contiguous(memory_format=torch.channels_last)).half())
        captions += [(s.caption(), s.caption(motion=False)) for s, _ in drawn]
        near += [focus(s, t) for s, t in drawn]
        kept.append(also(images))
    found = torch.cat(z), captions, torch.stack(near)
    return found if kept[0] is None else (*found, torch.cat(kept))


class Tokens:
    """Captions as the host's tokenizer gives them: 77 ids, padded with the end token."""

    def __init__(self):
        from comfy.sd1_clip import SDTokenizer
        self.tokenizer, self.seen = SDTokenizer(), {}

    def __call__(self, captions) -> torch.Tensor:
        for c in captions:
            if c not in self.seen:
                self.seen[c] = [t[0] for t in self.tokenizer.tokenize_with_weights(c)[0]]
        return torch.tensor([self.seen[c] for c in captions])


def build():
    use_host()
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from ..comfy_support import TEXT, UNET, FirstFrameDemo
    torch.manual_seed(1)
    heads = FirstFrameDemo.unet_extra_config["num_heads"]
    unet = UNetModel(**UNET, num_heads=heads, operations=comfy.ops.disable_weight_init)
    initialise(unet)
    for name, p in unet.named_parameters():
        if name.endswith(("out_layers.3.weight", "out_layers.3.bias", "proj_out.weight", "proj_out.bias")) or name.startswith("out.2."):
            torch.nn.init.zeros_(p)
    # the host computes this encoder's attention with its own function; transformers' class has the same arithmetic and trains
    text = CLIPTextModel(CLIPTextConfig(**{k: v for k, v in TEXT.items()}, vocab_size=49408, bos_token_id=49406, pad_token_id=49407))
    for m in unet.modules():
        if isinstance(m, torch.nn.GroupNorm):
            m.register_forward_pre_hook(group_norm_fp32)
    return unet.to(memory_format=torch.channels_last), text


def save(unet, text, steps: int) -> None:
    sd = {f"model.diffusion_model.{k}": v for k, v in unet.state_dict().items()}
    prefix = "cond_stage_model.transformer."
    for k, v in text.state_dict().items():
        if not k.endswith("position_ids"):
            sd[prefix + ("" if k.startswith("text_model.") else "text_model.") + k] = v
    CHECKPOINT.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in sd.items()}, CHECKPOINT, metadata={"steps": str(steps)})


def load_published(unet, text) -> int:
    """The inverse of `save`: weights without the optimiser's memory, for a machine that has no state file. Returns the steps they have had."""
    sd, prefix = load_file(CHECKPOINT), "cond_stage_model.transformer."
    unet.load_state_dict({k.removeprefix("model.diffusion_model."): v.float() for k, v in sd.items() if k.startswith("model.")})
    own = {("" if k.startswith("text_model.") else "text_model.") + k: k for k in text.state_dict()}
    text.load_state_dict({own[k.removeprefix(prefix)]: v.float() for k, v in sd.items() if k.startswith(prefix)}, strict=False)
    with safe_open(CHECKPOINT, "pt") as f:
        return int(f.metadata()["steps"])


def timesteps(n: int) -> torch.Tensor:
    """Half of them from the noise levels at which colour, place and outline are decided; the rest from all."""
    return torch.where(torch.rand(n) < 0.5, torch.randint(450, 900, (n,)), torch.randint(0, 1000, (n,)))


def loss_of(unet, text, z0, near, ids, abar, control=lambda z, t, context: None, frames: int = 1, levels=timesteps):
    """Of latents z0 [n*frames,4,h,w] with captions ids [n,77], at the timesteps levels(n) [n]; the frames of a clip share timestep and caption."""
    t = levels(len(z0) // frames).repeat_interleave(frames)
    a, eps = abar[t, None, None, None], torch.randn_like(z0)
    z = a.sqrt() * z0 + (1 - a).sqrt() * eps
    with torch.autocast("cpu", torch.bfloat16):
        context = text(input_ids=ids).last_hidden_state.repeat_interleave(frames, 0)
        z = z.contiguous(memory_format=torch.channels_last)
        out = unet(z, t, context, control=control(z, t, context), transformer_options=OPTIONS).float()
    weight = (1 + ((1 - a) / a)).clamp(max=100)
    attend = 1 + FOCUS * near
    return ((out - eps).square() * weight * attend).mean() / attend.mean()


def main(argv: list[str]):
    steps, lr = int(argv[0]) if argv else 12000, 8e-4
    unet, text = build()
    encoder, tokens, abar, stage = load_encoder(), Tokens(), alphas_cumprod(), Run("image_model")
    parameters = [*unet.parameters(), *text.parameters()]
    optimiser, average, start = torch.optim.AdamW(parameters, lr=lr, weight_decay=1e-2, betas=(0.9, 0.99), fused=True), Average([unet, text], 0.998), 0
    began = 0  # the step at which the learning rate starts
    pool = Run("image_pool").load()
    if pool is None:
        pool = dict(zip(("z", "captions", "near"), draw_latents(encoder, POOL, 0)))
        Run("image_pool").save(pool)
    z, captions, near = pool["z"], pool["captions"], pool["near"]
    if state := stage.load():
        unet.load_state_dict(state["unet"])
        text.load_state_dict(state["text"])
        optimiser.load_state_dict(state["optimiser"])
        average.mean, start, began = state["mean"], state["step"], state["began"]
    elif CHECKPOINT.exists():
        start = began = load_published(unet, text)
        average = Average([unet, text], 0.998)
    average.n = start
    rng, total = random.Random(), 0.0
    for step in range(start, steps):
        rng.seed(f"image {step}")
        torch.manual_seed(step)
        if step % 20 == 19:  # the pool is renewed while training runs: 40 new frames replace old ones
            at = (step // 20 * 40) % POOL
            z[at:at + 40], captions[at:at + 40], near[at:at + 40] = draw_latents(encoder, 40, step)
        pick = [rng.randrange(POOL) for _ in range(BATCH)]
        said = ["" if rng.random() < NO_PROMPT else captions[i][rng.random() < NO_MOTION] for i in pick]
        loss = loss_of(unet, text, z[pick].float(), near[pick], tokens(said), abar)
        for g in optimiser.param_groups:
            g["lr"] = warm_cosine(step, steps, lr, start=began)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        average.update()
        total += loss.item()
        if (step + 1) % 50 == 0:
            stage.log(step=step + 1, loss=total / 50)
            total = 0.0
        if (step + 1) % 500 == 0 or step + 1 == steps:
            stage.save({"unet": unet.state_dict(), "text": text.state_dict(), "optimiser": optimiser.state_dict(), "mean": average.mean, "step": step + 1, "began": began})
            average.swap()
            save(unet, text, step + 1)
            average.swap()
