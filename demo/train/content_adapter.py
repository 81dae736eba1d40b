"""Trains the demo world's Content-Adapter, an IP-Adapter plus: the projector of CLIP's features, keys and values for its tokens. All else stays as it is.

    COMFYUI_PATH=... python demo/run.py train.content_adapter [steps]

As IP-Adapter: the image model's loss on single pictures; text, picture or both are left out of some. But CLIP sees another moment of the scene than
the one that is denoised: so the tokens say what is there, not where, and hold no frame of a clip at frame 1's place. The other steps see clips, with
motion module and I2V-Adapter in their places, and CLIP sees frame 1: so that the tokens add to these, rather than pull against them. It goes on from
its state file, else from the published weights, else from nothing.
"""
import random
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import torch
from safetensors.torch import load_file

from ..in_process import CONTENT_ADAPTER
from ..world import scene
from . import i2v_adapter, motion_steps
from .clip_pair import normalised, tower_as_published
from .clips import FRAMES, POOL, clip_scene, draw_clips, few_frames, pick_clips, renew
from .denoising import Tokens, alphas_cumprod, denoising_loss
from .files import save_half, steps_of
from .fit import fit, warm_cosine
from .host_layers import OPTIONS, initialise
from .latents import distance, encoded, load_encoder
from .motion_module_file import published
from .stage import drawn_once

BATCH, STILLS, LR = 32, 2000, 1e-3
RENEWED, EVERY = 40, 20
CLIPS, FEW = 0.6, 0.7  # share of steps that see clips; of those, that see few frames of many
NO_PROMPT, NO_PICTURE = 0.15, 0.1
TOKENS, DIM, DEPTH = 8, 128, 2


@torch.no_grad()
def features(tower, pictures: torch.Tensor) -> torch.Tensor:
    """[n,l,E] fp16, before the last layer, of pictures [n,3,H,W] as CLIP is given them."""
    with torch.autocast("cpu", torch.bfloat16):
        return tower(pixel_values=pictures, output_hidden_states=True).hidden_states[-2].half()


def draw(encoder, tower, n: int, seed: int) -> dict:
    """{z [n,4,h,w], near [n,1,h,w], captions, features [n,l,E]} of random scenes, the features at another moment of each."""
    rng, parts, captions = random.Random(f"content {seed}"), [], []
    for _ in range(0, n, RENEWED):
        scenes = [(scene.random_scene(rng), rng.random(), rng.random()) for _ in range(RENEWED)]
        pictures, others = torch.stack([s.draw(times) for s, *times in scenes]).permute(1, 0, 4, 2, 3)
        near = torch.stack([distance(s, t) < 1 for s, t, _ in scenes])
        parts.append((encoded(encoder, pictures), near, features(tower, normalised(others))))
        captions += [s.caption(motion=rng.random() < 0.5) for s, *_ in scenes]
    z, near, seen = (torch.cat(part) for part in zip(*parts))
    return {"z": z, "near": near, "features": seen, "captions": captions}


def draw_seen_clips(encoder, tower, n: int, seed: int) -> dict:
    """As draw_clips, and features [n,l,E] of each clip's frame 1."""
    scenes = []

    def draw(rng):
        scenes.append(clip_scene(rng))
        return scenes[-1]

    pool = draw_clips(encoder, n, seed, draw)
    return {**pool, "features": features(tower, normalised(torch.cat([s.draw([0.0]) for s in scenes]).permute(0, 3, 1, 2)))}


def load_published(adapter) -> int:
    """Returns the steps that the weights have had."""
    from ...networks.content_adapter import look
    for part, weights in look(load_file(CONTENT_ADAPTER), CONTENT_ADAPTER.name)[0].items():
        adapter[part.removesuffix(".")].load_state_dict({key: value.float() for key, value in weights.items()})
    return steps_of(CONTENT_ADAPTER)


def size_for(embedding: int):
    """embedding: width of CLIP's features."""
    from ...networks.image_projection import ResamplerSize
    from ..comfy_support import UNET
    return ResamplerSize(embedding, UNET["context_dim"], TOKENS, DIM, DIM, 2 * DIM, DEPTH)


def build(unet, size):
    """(the adapter: its two networks under their names in the files, {number: CrossLayer}); size: a ResamplerSize. Keys and values begin as those of the text."""
    import comfy.ops

    from ...networks.content_adapter import Projections, places
    from ...networks.image_projection import image_projection
    torch.manual_seed(3)
    layers = places(unet)
    made = dict(operations=comfy.ops.disable_weight_init)
    projection, keys = image_projection(size, **made), Projections({place: layer.widths[0] for place, layer in layers.items()}, size.width, **made)
    initialise(projection)
    torch.nn.init.normal_(projection.latents, std=size.dim**-0.5)
    for place, layer in layers.items():
        for name in ("to_k", "to_v"):
            keys.get_submodule(place)[name + "_ip"].weight.data.copy_(getattr(layer.attention, name).weight)
    return torch.nn.ModuleDict({"image_proj": projection, "ip_adapter": keys}), layers


def attending(layers: dict, adapter, tokens: Callable, options: dict = OPTIONS):
    """Meanwhile the cross-attention of `layers` also looks at tokens() [n,m,D]."""
    from ...attention_patches.dual_cross import added, image_attention

    def add(place, q, size):
        own = adapter["ip_adapter"].get_submodule(place)
        return image_attention(q, own["to_k_ip"](tokens()), own["to_v_ip"](tokens()), layers[place], options)

    return added(layers, add)


def main(argv: list[str]):
    unet, text, motion, motion_places, _ = published()
    motion.requires_grad_(False)
    i2v, first_frame_layers = i2v_adapter.build(unet)
    i2v_adapter.load_published(i2v.requires_grad_(False))
    from ...attention_patches.first_frame import branches
    tower, encoder, tokens = tower_as_published(), load_encoder(), Tokens()
    abar_stills, abar_clips = alphas_cumprod(), motion_steps.alphas_cumprod()
    side = tower.config.image_size
    nothing = features(tower, torch.zeros(1, 3, side, side)).float()
    adapter, layers = build(unet, size_for(nothing.shape[-1]))
    had = load_published(adapter) if CONTENT_ADAPTER.exists() else 0
    draw_clips_too = partial(draw_seen_clips, tower=tower)
    stills = drawn_once("content_pool", lambda: draw(encoder, tower, STILLS, 0))
    clips = drawn_once("content_clips", lambda: draw_clips_too(encoder, n=POOL, seed=1))

    def conditions(pool: dict, pick: list, rng) -> tuple[torch.Tensor, list]:
        """(the image's tokens, token ids), of which some are those of nothing."""
        said = ["" if rng.random() < NO_PROMPT else pool["captions"][i] for i in pick]
        shown = torch.tensor([rng.random() >= NO_PICTURE for _ in pick])[:, None, None]
        with torch.autocast("cpu", torch.bfloat16):
            return adapter["image_proj"](torch.where(shown, pool["features"][pick].float(), nothing)), tokens(said)

    def of_stills(rng) -> torch.Tensor:
        pick = [rng.randrange(STILLS) for _ in range(BATCH)]
        seen, said = conditions(stills, pick, rng)
        with attending(layers, adapter, lambda: seen):
            return denoising_loss(unet, text, stills["z"][pick].float(), stills["near"][pick], said, abar_stills)

    def of_clips(rng) -> torch.Tensor:
        numbers = [0, *few_frames(rng)[1:]] if rng.random() < FEW else list(range(FRAMES))
        n = BATCH // len(numbers)
        pick = pick_clips(clips["captions"], n, rng, spinning=0)
        z, near = clips["z"][pick][:, numbers].flatten(0, 1).float(), clips["distance"][pick][:, numbers].flatten(0, 1) < 1
        seen, said = conditions(clips, pick, rng)
        seen = seen.repeat_interleave(len(numbers), 0)
        with ExitStack() as meanwhile:
            meanwhile.enter_context(motion_steps.inserted(motion, motion_places, numbers, {}))
            if rng.random() < 0.5:  # the rest without, for its weight at the node may be 0
                meanwhile.enter_context(branches(first_frame_layers, i2v.branch, 0, n, len(numbers), 1.0, OPTIONS))
            meanwhile.enter_context(attending(layers, adapter, lambda: seen))
            return denoising_loss(unet, text, z, near, said, abar_clips, frames=len(numbers), levels=i2v_adapter.timesteps, clean_first=True)

    def loss(step, rng, rate):
        if step % EVERY == EVERY - 1:
            new, first = draw(encoder, tower, RENEWED, step), step // EVERY * RENEWED % STILLS
            for k, kept in stills.items():
                kept[first:first + RENEWED] = new[k]
        renew(clips, step, step, encoder, draw_clips_too)
        value = (of_clips if rng.random() < CLIPS else of_stills)(rng)
        return value, {"loss": value}

    fit("content_adapter", adapter.parameters(), loss, int(argv[0]) if argv else 2700, lr=LR, course=partial(warm_cosine, warm=50), decay=0.99, start=had, save_every=100,
        save=lambda step: save_half(adapter.state_dict(), CONTENT_ADAPTER, step))
