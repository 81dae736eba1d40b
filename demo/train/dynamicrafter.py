"""Trains the demo world's DynamiCrafter: one model that begins with a picture, and that leads from one picture to another.

    COMFYUI_PATH=... python demo/run.py train.dynamicrafter [steps]
    COMFYUI_PATH=... torchrun --nproc-per-node 2 demo/run.py train.dynamicrafter [steps]     # twice the batch on two cores

Of the layout "256": it predicts noise, as the demo's image model does, from which it begins (demo/train/dynamicrafter_file.py) with the LoRA of motion words in its weights; the text
encoder with that LoRA goes with it and stays as it is. All else is trained. Whole clips of 16 frames in most steps; in the others every other frame of twice as many clips, at twice the
frame stride, at high noise, where it is decided which way a shape goes. The loss is the image model's, and that of linear readers after each temporal transformer
(demo/train/motion_readers.py), which fades out. It goes on from its state file, else from the published weights, else from the start (take the weights away for that).
"""
from functools import partial

import torch

from ..in_process import CLIP_VISION
from ..world import shapes
from .clips import FRAMES, pick_clips, renew
from .denoising import Tokens, alphas_cumprod, denoising_loss, timesteps
from .dynamicrafter_clips import Batch, batch, draw, drawn_pool, nothing
from .dynamicrafter_file import build, save
from .fit import constant, fit, warm_cosine
from .latents import load_encoder
from .motion_readers import READING, MotionReaders
from .motion_steps import BATCH, Kind, high_noise, middle_noise
from .workers import join_workers

KINDS = Kind(0.4, True, high_noise), Kind(0.3, False, middle_noise), Kind(0.3, False, timesteps)
SPINNING, LR = 0.2, 5e-4
READ = 1.0  # weight of the readers' loss at the highest learning rate; a third of the motion module's, for here it reaches the image model's own layers


def readers_of(unet) -> MotionReaders:
    """Of the temporal transformers beside the spatial ones."""
    video = unet.video
    places = [place for place, size in unet.layout.transformers.items() if not size.as_convolutions]
    readers = MotionReaders(video, dict.fromkeys(places))
    for place in places:
        video.get_submodule(place).register_forward_hook(lambda module, args, out, place=place: readers.seen.__setitem__(place, args[0] + out))
    return readers


def with_picture(net, given: Batch, numbers: range):
    """The UNet as denoising_loss calls it, with all that a DynamiCrafter is given. numbers: of the frames; each has its 16 tokens."""
    f = len(numbers)
    tokens = net["image_proj_model"](given.features).unflatten(1, (FRAMES, -1))[:, list(numbers)].flatten(1, 2).repeat_interleave(f, 0)

    def unet(z, t, context, control=None, transformer_options={}):  # noqa: B006
        options = {**transformer_options, "cond_or_uncond": [0] * (len(z) // f)}
        x = torch.cat([z, given.beside], 1).contiguous(memory_format=torch.channels_last)
        return net["unet"](x, t, context, transformer_options=options, image_tokens=tokens, fps=given.strides)

    return unet


def loss_of(net, text, readers: MotionReaders, given: Batch, numbers: range, tokens: Tokens, abar: torch.Tensor, levels) -> tuple:
    """(loss, readers' loss)."""
    picture = denoising_loss(with_picture(net, given, numbers), text, given.z, given.distance < 1, tokens(given.captions), abar, frames=len(numbers), levels=levels)
    return picture, readers.loss(shapes.coverage(given.distance.float()), given.paths)


def main(argv: list[str]):
    steps, workers = int(argv[0]) if argv else 7000, join_workers()
    net, text, had = build()
    import comfy.clip_vision
    encoder, clip_vision, tokens, abar, readers = load_encoder(), comfy.clip_vision.load(str(CLIP_VISION)), Tokens(), alphas_cumprod(), readers_of(net["unet"])
    grey, pool = nothing(clip_vision), drawn_pool(encoder, clip_vision, saves=workers.rank == 0)

    def loss(step, rng, rate):
        renew(pool, step, step * workers.count + workers.rank, encoder, partial(draw, clip_vision=clip_vision))
        kind = rng.choices(KINDS, [k.share for k in KINDS])[0]
        numbers = range(0, FRAMES, 2 if kind.few else 1)
        given = batch(pool, pick_clips(pool["captions"], BATCH // len(numbers), rng, SPINNING), numbers, grey, rng)
        picture, read = loss_of(net, text, readers, given, numbers, tokens, abar, kind.levels)
        return picture + READ * rate * read, {"loss": picture, "read": read}

    fit("dynamicrafter", net.parameters(), loss, steps, lr=LR, course=partial(warm_cosine, warm=100), beside=[{"params": readers.parameters(), "lr": READING, "course": constant}],
        decay=0.995, start=had, save=lambda step: save(net, step), workers=workers)
