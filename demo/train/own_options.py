"""The options of train.own_clips and train.own_content."""
import argparse
import math
from pathlib import Path

import torch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def two_sizes(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()) or int(width) % 8 or int(height) % 8 or min(int(width), int(height)) < 64:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected WIDTHxHEIGHT in pixels, multiples of 8 from 64 on, such as 512x320")
    return int(width), int(height)


def file_and_strength(text: str) -> tuple[Path, float]:
    name, _, strength = text.rpartition(":")
    try:
        return Path(name), float(strength)
    except ValueError:  # no strength, or the colon of a Windows drive
        return Path(text), 1.0


def at_least(least: int):
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from {least} on")
        return int(text)
    return number


def decimal(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number from 0 on")
    return value


def common(command: str, adapter: str, beside: str, at_first: str, batch: int) -> argparse.ArgumentParser:
    """adapter, beside, at_first: what is trained, beside what, and what it is at first, in words. batch: how many are in one step."""
    p = argparse.ArgumentParser(prog=f"demo/run.py {command}", description=f"Trains {adapter} for your own checkpoint{beside}, on a folder of clips with captions (docs/training.md).")
    p.add_argument("--checkpoint", metavar="FILE", type=Path, required=True, help="SD1.5 or SDXL checkpoint")
    p.add_argument("--clips", metavar="FOLDER", type=Path, required=True, help="NAME.mp4 (.webm, .gif, .webp, ...) or a folder NAME of numbered pictures, each beside NAME.txt, its caption")
    p.add_argument("--out", metavar="FILE", type=Path, required=True, help="the adapter, .safetensors; state, log and cache lie in the folder FILE.training")
    p.add_argument("--vae", metavar="FILE", type=Path, help="instead of the checkpoint's own")
    p.add_argument("--lora", metavar="FILE[:STRENGTH]", type=file_and_strength, action="append", default=[], help="on the checkpoint meanwhile; may be repeated (strength 1)")
    p.add_argument("--begin-with", metavar="FILE", type=Path, help=f"{adapter} to go on from, instead of {at_first}")
    p.add_argument("--steps", metavar="N", type=at_least(1), default=5000, help="in all, those of earlier runs included (%(default)s)")
    p.add_argument("--size", metavar="WxH", type=two_sizes, default=(256, 256), help="pixels; clips are scaled and their middle is cut out (256x256)")
    p.add_argument("--fps", metavar="N", type=decimal, default=8.0, help="frames a second that are taken of a clip; 0: every one (%(default)g)")
    p.add_argument("--batch", metavar="N", type=at_least(1), default=batch, help="clips in one step, of each process (%(default)s)")
    p.add_argument("--lr", metavar="X", type=decimal, default=1e-4, help="learning rate (%(default)g)")
    p.add_argument("--no-caption", metavar="X", type=decimal, default=0.1, help="share of clips that are seen without their caption (%(default)g)")
    p.add_argument("--average", metavar="X", type=decimal, default=0.0, help="what is saved is a moving average of the weights with this decay, such as 0.999; 0: the weights (%(default)g)")
    p.add_argument("--save-every", metavar="N", type=at_least(1), default=500, help="steps (%(default)s)")
    p.add_argument("--precision", choices=PRECISIONS, help="of frozen weights and of computing; the adapter itself is float32 (bfloat16 on a GPU that has it, else float32)")
    p.add_argument("--save-memory", action=argparse.BooleanOptionalAction, default=True, help="compute parts of the UNet twice instead of keeping them for the way back")
    return p


def i2v_adapter() -> argparse.ArgumentParser:
    p = common("train.own_clips", "an I2V-Adapter", ", beside your own motion module", "one that does nothing", batch=1)
    p.add_argument("--motion-module", metavar="FILE", type=Path, required=True, help="AnimateDiff motion module of the same kind")
    p.add_argument("--frames", metavar="N", type=at_least(2), default=16, help="of a clip in one step; of longer ones a random stretch (%(default)s)")
    return p


def content_adapter() -> argparse.ArgumentParser:
    p = common("train.own_content", "a Content-Adapter (IP-Adapter plus)", " and your own CLIP image tower", "one that knows nothing of pictures", batch=8)
    p.add_argument("--clip-vision", metavar="FILE", type=Path, required=True, help="for Load CLIP Vision, such as ViT-H/14")
    p.add_argument("--no-picture", metavar="X", type=decimal, default=0.1, help="share of clips that are seen without their picture (%(default)g)")
    return p
