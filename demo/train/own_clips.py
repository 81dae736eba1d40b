"""Trains an I2V-Adapter for your own checkpoint, beside your own motion module, on a folder of clips with captions (docs/training.md).

    COMFYUI_PATH=... python demo/run.py train.own_clips --checkpoint FILE --motion-module FILE --clips FOLDER --out my_i2v.safetensors
    COMFYUI_PATH=... torchrun --nproc-per-node 2 demo/run.py train.own_clips ...     # one process a GPU

As in the paper (sections 3.2 and 4): checkpoint and motion module stay as they are; the first frame is free of noise and out of the loss, one timestep a clip,
AnimateDiff's noise schedule, AdamW at 1e-4.
"""
import argparse
import json
import os
import shutil
import signal
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from ..in_process import use_host
from .clip_folder import find_clips
from .denoising import noised
from .files import save_half
from .fit import constant, fit
from .stage import Stage
from .workers import Workers, join_workers

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


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="demo/run.py train.own_clips", description=__doc__.splitlines()[0])
    p.add_argument("--checkpoint", metavar="FILE", type=Path, required=True, help="SD1.5 or SDXL checkpoint")
    p.add_argument("--motion-module", metavar="FILE", type=Path, required=True, help="AnimateDiff motion module of the same kind")
    p.add_argument("--clips", metavar="FOLDER", type=Path, required=True, help="NAME.mp4 (.webm, .gif, .webp, ...) or a folder NAME of numbered pictures, each beside NAME.txt, its caption")
    p.add_argument("--out", metavar="FILE", type=Path, required=True, help="the adapter, .safetensors; state, log and cache lie in the folder FILE.training")
    p.add_argument("--vae", metavar="FILE", type=Path, help="instead of the checkpoint's own")
    p.add_argument("--lora", metavar="FILE[:STRENGTH]", type=file_and_strength, action="append", default=[], help="on the checkpoint meanwhile; may be repeated (strength 1)")
    p.add_argument("--begin-with", metavar="FILE", type=Path, help="an I2V-Adapter to go on from, instead of one that does nothing")
    p.add_argument("--steps", metavar="N", type=at_least(1), default=5000, help="in all, those of earlier runs included (%(default)s)")
    p.add_argument("--size", metavar="WxH", type=two_sizes, default=(256, 256), help="pixels; clips are scaled and their middle is cut out (256x256)")
    p.add_argument("--frames", metavar="N", type=at_least(2), default=16, help="of a clip in one step; of longer ones a random stretch (%(default)s)")
    p.add_argument("--fps", metavar="N", type=float, default=8.0, help="frames a second that are taken of a clip; 0: every one (%(default)g)")
    p.add_argument("--batch", metavar="N", type=at_least(1), default=1, help="clips in one step, of each process (%(default)s)")
    p.add_argument("--lr", metavar="X", type=float, default=1e-4, help="learning rate (%(default)g)")
    p.add_argument("--no-caption", metavar="X", type=float, default=0.1, help="share of clips that are seen without their caption (%(default)g)")
    p.add_argument("--average", metavar="X", type=float, default=0.0, help="what is saved is a moving average of the weights with this decay, such as 0.999; 0: the weights (%(default)g)")
    p.add_argument("--save-every", metavar="N", type=at_least(1), default=500, help="steps (%(default)s)")
    p.add_argument("--precision", choices=PRECISIONS, help="of frozen weights and of computing; the adapter itself is float32 (bfloat16 on a GPU that has it, else float32)")
    p.add_argument("--save-memory", action=argparse.BooleanOptionalAction, default=True, help="compute parts of the UNet twice instead of keeping them for the way back")
    return p


class Progress(Stage):
    """State and log in a folder of their own, and a bar."""

    def __init__(self, name: str, folder: Path, steps: int):
        super().__init__(name, folder=folder)
        self.steps, self.seen, self.mean = steps, 0, 0.0

    @contextmanager
    def bar(self, shown: bool):
        with tqdm(total=self.steps, unit="step", disable=not shown) as self.shown:
            yield

    def say(self, row: dict) -> None:
        bar, step = self.shown, row["step"]
        if not self.seen:
            bar.n = bar.initial = step - 1  # what earlier runs have done is not this one's speed
        self.seen += 1
        self.mean += (row["loss"] - self.mean) / min(self.seen, 100)  # one step's says little: it depends on the timestep
        bar.update()
        bar.set_postfix(loss=f"{self.mean:.4f}")


@contextmanager
def ctrl_c():
    """Meanwhile Ctrl-C (or SIGTERM) makes the function that comes out return True; a second one stops at once."""
    asked, before = [], {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(*_):
        asked.append(True)
        restore()

    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: bool(asked)
    finally:
        restore()


def check_same(state: Path, settings: dict, workers: Workers) -> None:
    """Raises ValueError when a state is there that was begun with other settings: it would be of no use."""
    file = state.with_name("settings.json")
    if not state.exists():
        if workers.rank == 0:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings, indent=1))
        return
    for name, was in json.loads(file.read_text()).items():
        if was != settings.get(name):
            raise ValueError(f"The training in {str(file.parent)!r} was begun with {name} {was}, now it is {settings.get(name)}. Choose another --out, or take that folder away.")


def encoded_clips(encoder, clips: list, frames: int, workers: Workers) -> list:
    """Each worker encodes its share, then all read all. Clips that cannot be read or are too short are left out, with a sentence."""
    from .encoded_clips import Unreadable
    for clip in tqdm(clips[workers.rank::workers.count], desc="encoding", unit="clip", disable=workers.rank > 0):
        try:
            encoder.encoded(clip)
        except Unreadable:
            continue  # the second look says so
    workers.wait()
    found = []
    for clip in clips:
        try:
            one = encoder.encoded(clip)
        except Unreadable as error:
            tell(str(error), workers)
            continue
        if one.length < frames:
            tell(f"{clip.path.name} is left out: it has {one.length} frames{f' at {encoder.fps:g} a second' if encoder.fps else ''}, --frames asks for {frames}.", workers)
        else:
            found.append(one)
    if not found:
        raise ValueError(f"None of the {len(clips)} clips has {frames} frames. Lower --frames, or raise --fps (0: every frame counts).")
    return found


def tell(sentence: str, workers: Workers) -> None:
    if workers.rank == 0:
        print(sentence, file=sys.stderr, flush=True)


def batch_of(clips: list, without: dict, n: int, frames: int, no_caption: float, rng) -> tuple[torch.Tensor, dict]:
    """(latents [n*frames,C,h,w], conditions {name: [n,...]}) of n clips that rng picks, from frames that it picks."""
    from comfy.conds import CONDCrossAttn, CONDRegular
    z, said = [], []
    for _ in range(n):
        clip = rng.choice(clips)
        z.append(clip.read(rng.randrange(clip.length - frames + 1), frames))
        said.append(without if rng.random() < no_caption else clip.conditions())
    kinds = {name: CONDCrossAttn if name == "c_crossattn" else CONDRegular for name in without}  # captions may differ in length
    return torch.cat(z).float(), {name: kind(said[0][name]).concat([kind(more[name]) for more in said[1:]]) for name, kind in kinds.items()}


def loss_of(own, z: torch.Tensor, conditions: dict, t: torch.Tensor) -> torch.Tensor:
    """Mean squared error of what the UNet predicts (noise or velocity) in all frames but the first."""
    frames = len(z) // len(t)
    z_t, eps, a, counts = noised(z, t, own.abar, frames, clean_first=True)
    wanted = a.sqrt() * eps - (1 - a).sqrt() * z if own.velocity else eps
    return ((own.predicted(z_t, t, conditions) - wanted).square() * counts).mean() / counts.mean()


def train(args, workers: Workers) -> bool:
    """Whether it came to its end. Raises ValueError for what cannot be trained, before the first step."""
    from .. import comfy_support  # noqa: F401  (so that the demo's own checkpoint is known)
    from .encoded_clips import Encoder
    from .i2v_adapter import build
    from .own_model import OwnModel, read_model, read_motion, weights_of
    for file in filter(None, (args.checkpoint, args.motion_module, args.vae, args.begin_with, *(file for file, _ in args.lora))):
        if not file.is_file():
            raise ValueError(f"There is no file {str(file)!r}.")
    if args.out.suffix != ".safetensors":
        raise ValueError(f"--out is {args.out.name!r}, expected a name that ends in .safetensors.")
    clips, left_out = find_clips(args.clips)
    for sentence in left_out:
        tell(sentence, workers)
    import comfy.model_management as host
    folder, precision = args.out.with_name(f"{args.out.name}.training"), args.precision
    if precision is None:
        precision = "bfloat16" if host.get_torch_device().type != "cpu" and host.should_use_bf16(host.get_torch_device()) else "float32"
    precision = PRECISIONS[precision]
    model, clip, vae = read_model(args.checkpoint, args.vae, args.lora, precision)
    motion = read_motion(args.motion_module, model, args.frames)
    progress = Progress("i2v_adapter", folder, args.steps)
    check_same(progress.file, {"--checkpoint": args.checkpoint.name, "--motion-module": args.motion_module.name, "--average": args.average,
                               "--lora": [[file.name, strength] for file, strength in args.lora]}, workers)
    made_of = (args.checkpoint, args.vae or "", *(part for lora in args.lora for part in lora))
    encoder = Encoder(folder / "cache", model, clip, vae, args.size, args.fps, made_of)
    found, without = encoded_clips(encoder, clips, args.frames, workers), encoder.without_caption()
    del encoder, clip, vae
    host.unload_all_models()
    own = OwnModel(model, motion, precision)
    adapter, layers = build(own.unet)
    if args.begin_with:
        begin_with(adapter, weights_of(args.begin_with), args.begin_with.name)
    adapter.to(own.device)
    tell(f"{len(found)} clips, {sum(p.numel() for p in adapter.parameters()) / 1e6:.1f} million weights to train, on {own.device} in {str(precision).removeprefix('torch.')}", workers)

    def loss(step, rng, rate):
        z, conditions = batch_of(found, without, args.batch, args.frames, args.no_caption, rng)
        value = loss_of(own, z.to(own.device), conditions, torch.randint(0, len(own.abar), (args.batch,)).to(own.device))
        return value, {"loss": value.detach()}

    with ctrl_c() as stop, own.with_adapter(adapter, layers, args.batch, args.frames, args.save_memory), progress.bar(shown=workers.rank == 0):
        fit("i2v_adapter", adapter.parameters(), loss, args.steps, lr=args.lr, betas=(0.9, 0.999), course=constant, decay=args.average or None, log_every=1, save_every=args.save_every,
            save=partial(save, adapter, args.out, folder), workers=workers, stage=progress, stop=stop)
        return not stop()


def begin_with(adapter, weights: dict, name: str) -> None:
    from ...networks.i2v_adapter import look
    found, _ = look(weights, name)
    shapes = {key: value.shape for key, value in adapter.state_dict().items()}
    if {key: value.shape for key, value in found.items()} != shapes:
        raise ValueError(f"The I2V-Adapter {name!r} of --begin-with is for another kind of checkpoint.")
    adapter.load_state_dict({key: value.float() for key, value in found.items()})


def save(adapter, out: Path, folder: Path, step: int) -> None:
    """The adapter after this step, among those of the folder and as `out`."""
    file, part = folder / f"step_{step:06}.safetensors", out.with_suffix(".part")
    save_half(adapter.state_dict(), file, step)
    shutil.copyfile(file, part)
    part.replace(out)


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))  # the host takes the current one
    use_host()
    workers = join_workers()
    try:
        done = train(args, workers)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    tell(f"{args.out} is trained." if done else "Stopped; the state is saved. The same command goes on from here.", workers)
    return 0 if done else 130
