"""Trains the demo world's Content-Adapter, an IP-Adapter plus: the projector of CLIP's features, keys and values for its tokens. All else stays as it is.

    COMFYUI_PATH=... python demo/run.py train.content_adapter [steps]

As IP-Adapter: the image model's loss on single pictures; text, picture or both are left out of some. But CLIP sees another moment of the scene than
the one that is denoised: so the tokens say what is there, not where, and hold no frame of a clip at frame 1's place.
"""
import random
from collections.abc import Callable

import torch

from ..in_process import CONTENT_ADAPTER
from ..world import scene
from .clip_pair import normalised, tower_as_published
from .denoising import Tokens, alphas_cumprod, denoising_loss
from .files import save_half
from .fit import fit
from .host_layers import OPTIONS, initialise
from .image_model import frozen
from .latents import distance, encoded, load_encoder
from .motion_words import add_motion_words
from .stage import drawn_once

BATCH, POOL, LR = 32, 2000, 1e-3
RENEWED, EVERY = 40, 20
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
    unet, text = frozen()
    add_motion_words(unet, text)
    tower, encoder, tokens, abar = tower_as_published(), load_encoder(), Tokens(), alphas_cumprod()
    side = tower.config.image_size
    nothing = features(tower, torch.zeros(1, 3, side, side)).float()
    adapter, layers = build(unet, size_for(nothing.shape[-1]))
    pool = drawn_once("content_pool", lambda: draw(encoder, tower, POOL, 0))

    def loss(step, rng, rate):
        if step % EVERY == EVERY - 1:
            new, first = draw(encoder, tower, RENEWED, step), step // EVERY * RENEWED % POOL
            for k, kept in pool.items():
                kept[first:first + RENEWED] = new[k]
        pick = [rng.randrange(POOL) for _ in range(BATCH)]
        said = ["" if rng.random() < NO_PROMPT else pool["captions"][i] for i in pick]
        shown = torch.tensor([rng.random() >= NO_PICTURE for _ in pick])[:, None, None]
        with torch.autocast("cpu", torch.bfloat16):
            seen = adapter["image_proj"](torch.where(shown, pool["features"][pick].float(), nothing))
        with attending(layers, adapter, lambda: seen):
            value = denoising_loss(unet, text, pool["z"][pick].float(), pool["near"][pick], tokens(said), abar)
        return value, {"loss": value}

    fit("content_adapter", adapter.parameters(), loss, int(argv[0]) if argv else 1500, lr=LR, decay=0.99, save_every=100,
        save=lambda step: save_half(adapter.state_dict(), CONTENT_ADAPTER, step))
