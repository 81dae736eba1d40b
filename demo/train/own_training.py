"""Trains an I2V-Adapter for your own checkpoint, beside your own motion module, on a folder of clips with captions (docs/training.md).

    COMFYUI_PATH=... python demo/run.py train.own_clips --checkpoint FILE --motion-module FILE --clips FOLDER --out my_i2v.safetensors
    COMFYUI_PATH=... torchrun --nproc-per-node 2 demo/run.py train.own_clips ...     # one process a GPU

As in the paper (sections 3.2 and 4): checkpoint and motion module stay as they are; the first frame is free of noise and out of the loss, one timestep a clip,
AnimateDiff's noise schedule, AdamW at 1e-4.
"""
import json
import os
import shutil
import signal
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from ..in_process import use_host
from .clip_folder import find_clips
from .denoising import noised
from .encoded_clips import Encoder, batch_of, encoded_clips, tell
from .files import save_half
from .fit import constant, fit
from .own_options import PRECISIONS, parser
from .stage import Stage
from .workers import Workers, join_workers


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


def check_files(args) -> None:
    for file in filter(None, (args.checkpoint, args.motion_module, args.vae, args.begin_with, *(file for file, _ in args.lora))):
        if not file.is_file():
            raise ValueError(f"There is no file {str(file)!r}.")
    if args.out.suffix != ".safetensors":
        raise ValueError(f"--out is {args.out.name!r}, expected a name that ends in .safetensors.")


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


def loss_of(own, z: torch.Tensor, conditions: dict, t: torch.Tensor) -> torch.Tensor:
    """Mean squared error of what the UNet predicts (noise or velocity) in all frames but the first."""
    frames = len(z) // len(t)
    z_t, eps, a, counts = noised(z, t, own.abar, frames, clean_first=True)
    wanted = a.sqrt() * eps - (1 - a).sqrt() * z if own.velocity else eps
    return ((own.predicted(z_t, t, conditions) - wanted).square() * counts).mean() / counts.mean()


def best_precision(device: torch.device) -> torch.dtype:
    from comfy.model_management import should_use_bf16
    return torch.bfloat16 if device.type != "cpu" and should_use_bf16(device) else torch.float32


def train(args, workers: Workers) -> bool:
    """Whether it came to its end. Raises ValueError for what cannot be trained, before the first step."""
    from .. import comfy_support  # noqa: F401  (so that the demo's own checkpoint is known)
    from .i2v_adapter import build
    from .own_model import OwnModel, read_model, read_motion, weights_of
    check_files(args)
    clips, left_out = find_clips(args.clips)
    for sentence in left_out:
        tell(sentence, workers)
    import comfy.model_management as host
    folder, precision = args.out.with_name(f"{args.out.name}.training"), PRECISIONS[args.precision] if args.precision else best_precision(host.get_torch_device())
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
