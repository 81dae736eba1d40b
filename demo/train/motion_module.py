"""Trains the demo world's motion module: temporal layers on the frozen image model.

    COMFYUI_PATH=... python demo/run.py train.motion_module [steps]
    COMFYUI_PATH=... torchrun --nproc-per-node 2 demo/run.py train.motion_module [steps]     # twice the batch on two cores

Clips of 16 frames; AnimateDiff's noise schedule, one timestep a clip; the loss is the image model's, and that of linear
readers after each layer (demo/train/motion_readers.py). Three kinds of step take turns: few frames of many clips at high
noise, where it is decided which way a shape goes and few frames tell it; whole clips at middle noise, where it is decided
how a shape turns; whole clips at all levels. Spinning is the slowest to be learned and is seen more often than the rest.

The image model stays as it is. Its LoRA of motion words (train.motion_words) learns along, in all of the UNet's attention and
convolution layers: by itself the image model cannot draw a shape that is turned, and no temporal layer can ask for what
it does not know. Training goes on from its state file, else from the published module, else from nothing (take the file
away for that). The learning rate falls to its end at `steps`.
"""
from functools import partial

from ..in_process import MOTION_MODULE
from .clips import drawn_pool, renew
from .denoising import Tokens
from .fit import constant, fit, warm_cosine
from .image_model import frozen
from .latents import load_encoder
from .motion_module_file import build, load_published, save
from .motion_readers import READING, MotionReaders
from .motion_steps import READ, alphas_cumprod, loss_of_clips
from .motion_words import save_unets_part, trainable_motion_words
from .workers import join_workers

NO_PROMPT, WARM = 0.1, 100


def main(argv: list[str]):
    steps, workers = int(argv[0]) if argv else 3000, join_workers()
    unet, text = frozen()
    lora = trainable_motion_words(unet, text)
    net, layers = build(unet)
    had = load_published(net) if MOTION_MODULE.exists() else 0
    encoder, tokens, abar, readers = load_encoder(), Tokens(), alphas_cumprod(), MotionReaders(net, layers)
    pool = drawn_pool(saves=workers.rank == 0)

    def loss(step, rng, rate):
        renew(pool, step, step * workers.count + workers.rank, encoder)
        picture, read = loss_of_clips(unet, text, net, layers, readers, pool, lambda pick: ["" if rng.random() < NO_PROMPT else pool["captions"][i] for i in pick],
                                      tokens, abar, rng)
        return picture + READ * rate * read, {"loss": picture, "read": read}  # towards the end the picture alone counts

    def save_both(step: int) -> None:
        save(net, layers, step)
        save_unets_part(lora)

    fit("motion_module", [*net.parameters(), *lora.parameters()], loss, steps, lr=1e-3, course=partial(warm_cosine, warm=WARM),
        beside=[{"params": readers.parameters(), "lr": READING, "course": constant}], decay=0.995, start=had, save=save_both, workers=workers)
