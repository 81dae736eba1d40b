"""Trains a Content-Adapter, an IP-Adapter plus, for your own checkpoint and CLIP image tower on a folder of clips with captions (docs/training.md).

    COMFYUI_PATH=... python demo/run.py train.own_content --checkpoint FILE --clip-vision FILE --clips FOLDER --out my_content.safetensors
    COMFYUI_PATH=... torchrun --nproc-per-node 2 demo/run.py train.own_content ...     # one process a GPU

As IP-Adapter: the checkpoint's own loss on single frames; caption, picture or both are left out of some; AdamW at 1e-4. But CLIP sees another frame of the clip
than the one that is denoised, as in train.content_adapter.
"""
from dataclasses import asdict
from functools import partial

import torch

from .encoded_clips import together
from .own_options import content_adapter
from .own_training import Training, run
from .workers import Workers


def size_for(context: int, embedding: int):
    """As published: 768 wide for SD1.5, 1280 for SDXL. context, embedding: widths of the tokens and of CLIP's features."""
    from ...networks.image_projection import ResamplerSize
    dim = min(context, 1280)
    return ResamplerSize(embedding, context, tokens=16, dim=dim, inner=dim, hidden=4 * dim, depth=4)


@torch.no_grad()
def planned(model, clip_vision, file) -> tuple:
    """(a ContentAdapter without networks, {part: weights} that it begins with or None, CLIP's features of no picture). file: of --begin-with, or None.

    Raises ValueError for a file that is no IP-Adapter plus for this model and this CLIP.
    """
    from ...attention_patches.dual_cross import check_fits
    from ...networks.content_adapter import ContentAdapter, kind_of_tokens, look, nothing, places
    from ...networks.image_projection import ResamplerSize
    from .own_model import WHO, weights_of
    if file:
        begun, size, layout = look(weights_of(file), file.name)
        if not isinstance(size, ResamplerSize):
            raise ValueError(f"The IP-Adapter {file.name!r} of --begin-with has {kind_of_tokens(size)}. Expected one of the kind plus, such as ip-adapter-plus_sd15.")
    else:
        layers = places(model.get_model_object("diffusion_model"))
        begun, layout, context = None, {place: layer.widths[0] for place, layer in layers.items()}, layers["1"].widths[1]
        size = size_for(context, clip_vision.encode_image(torch.zeros(1, 64, 64, 3))["penultimate_hidden_states"].shape[-1])
    plan = ContentAdapter(None, None, file.name if file else "", size, layout)
    check_fits(model, plan, WHO)
    return plan, begun, nothing(clip_vision, None, plan, WHO)


def build_planned(unet, plan, begun: dict | None):
    """As content_adapter.build."""
    from .content_adapter import build
    adapter, layers = build(unet, plan.size)
    for part, weights in (begun or {}).items():
        adapter[part.removesuffix(".")].load_state_dict({key: value.float() for key, value in weights.items()})
    return adapter, layers


def batch_of(clips: list, without: dict, no_picture: torch.Tensor, args, rng) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """(latents [n,C,h,w] of frames that rng picks, CLIP's features [n,l,E] of another frame of each one's clip, conditions {name: [n,...]})."""
    z, seen, said = [], [], []
    for _ in range(args.batch):
        clip = rng.choice(clips)
        now = rng.randrange(clip.length)
        other = (now + rng.randrange(1, max(2, clip.length))) % clip.length  # of a single frame there is no other
        z.append(clip.read(now, 1))
        seen.append(no_picture if rng.random() < args.no_picture else clip.read(other, 1, "features"))
        said.append(without if rng.random() < args.no_caption else clip.conditions())
    return torch.cat(z).float(), torch.cat(seen).float(), together(said)


def train(args, workers: Workers) -> bool:
    """Whether it came to its end. Raises ValueError for what cannot be trained, before the first step."""
    from ...networks.content_adapter import features_of
    from .own_model import WHO, OwnModel, read_clip_vision
    training = Training("content_adapter", args, args.clip_vision, workers)
    clip_vision = read_clip_vision(args.clip_vision)
    plan, begun, no_picture = planned(training.model, clip_vision, args.begin_with)
    training.check_same({"--clip-vision": args.clip_vision.name, "projector": asdict(plan.size)})
    clips, without = training.encoded(1, partial(features_of, clip_vision, adapter=plan, who=WHO), (args.clip_vision,))
    del clip_vision
    own = OwnModel(training.model, None, training.precision)
    adapter, layers = build_planned(own.unet, plan, begun)
    tokens = None

    def batch(rng):
        nonlocal tokens
        z, seen, conditions = batch_of(clips, without, no_picture, args, rng)
        with own.computing():
            tokens = adapter["image_proj"](seen.to(own.device))
        return z, conditions

    return training.fit(own, adapter, batch, own.with_content(adapter, layers, lambda: tokens, args.save_memory), clean_first=False)


def main(argv: list[str]) -> int:
    return run(content_adapter().parse_args(argv), train)
