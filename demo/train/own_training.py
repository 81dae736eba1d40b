"""What the trainings on a user's own files (train.own_clips, train.own_content) have in common: files checked and read, clips encoded, the loop, its bar, Ctrl-C."""
import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from ..in_process import use_host
from .clip_folder import find_clips
from .denoising import noised
from .encoded_clips import Encoder, encoded_clips, tell
from .files import save_half
from .fit import constant, fit
from .own_options import PRECISIONS
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


def check_files(args, beside: Path) -> None:
    for file in filter(None, (args.checkpoint, beside, args.vae, args.begin_with, *(file for file, _ in args.lora))):
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


def save(adapter, out: Path, folder: Path, step: int) -> None:
    """The adapter after this step, among those of the folder and as `out`."""
    file, part = folder / f"step_{step:06}.safetensors", out.with_suffix(".part")
    save_half(adapter.state_dict(), file, step)
    shutil.copyfile(file, part)
    part.replace(out)


def loss_of(own, z: torch.Tensor, conditions: dict, t: torch.Tensor, clean_first: bool) -> torch.Tensor:
    """Mean squared error of what the UNet predicts (noise or velocity) of latents z [n*frames,C,h,w] at timesteps t [n]; clean_first: in all frames but the first of each clip."""
    z_t, eps, a, counts = noised(z, t, own.abar, len(z) // len(t), clean_first)
    wanted = a.sqrt() * eps - (1 - a).sqrt() * z if own.velocity else eps
    return ((own.predicted(z_t, t, conditions) - wanted).square() * counts).mean() / counts.mean()


def best_precision(device: torch.device) -> torch.dtype:
    from comfy.model_management import should_use_bf16
    return torch.bfloat16 if device.type != "cpu" and should_use_bf16(device) else torch.float32


class Training:
    """The training `name` by the options that both commands have. beside: the file that goes with the checkpoint. All but `fit` raises ValueError for what cannot be trained."""

    def __init__(self, name: str, args, beside: Path, workers: Workers):
        from .. import comfy_support  # noqa: F401  (so that the demo's own checkpoint is known)
        from .own_model import read_model
        check_files(args, beside)
        self.clips, left_out = find_clips(args.clips)
        for sentence in left_out:
            tell(sentence, workers)
        import comfy.model_management as host
        self.name, self.args, self.workers, self.folder = name, args, workers, args.out.with_name(f"{args.out.name}.training")
        self.precision = PRECISIONS[args.precision] if args.precision else best_precision(host.get_torch_device())
        self.model, self.clip, self.vae = read_model(args.checkpoint, args.vae, args.lora, self.precision)
        self.progress = Progress(name, self.folder, args.steps)

    def check_same(self, settings: dict) -> None:
        """settings: those of this kind of training alone."""
        args = self.args
        common = {"--checkpoint": args.checkpoint.name, "--average": args.average, "--lora": [[file.name, strength] for file, strength in args.lora]}
        check_same(self.progress.file, common | settings, self.workers)

    def encoded(self, frames: int, features: Callable | None = None, made_of: tuple = ()) -> tuple[list, dict]:
        """(the clips that have so many frames, the conditions of no caption). features, made_of: as Encoder has them. VAE and text encoder are gone then."""
        import comfy.model_management as host
        args = self.args
        made_of = (args.checkpoint, args.vae or "", *(part for lora in args.lora for part in lora), *made_of)
        encoder = Encoder(self.folder / "cache", self.model, self.clip, self.vae, args.size, args.fps, made_of, features)
        self.clips, without = encoded_clips(encoder, self.clips, frames, self.workers), encoder.without_caption()
        del encoder, self.clip, self.vae
        host.unload_all_models()
        return self.clips, without

    def fit(self, own, adapter, batch: Callable, meanwhile, clean_first: bool) -> bool:
        """Whether it came to its end. batch(rng) -> (latents, conditions); meanwhile: a context in which the UNet has the adapter; clean_first: as in `loss_of`."""
        args, workers = self.args, self.workers
        adapter.to(own.device)
        tell(f"{len(self.clips)} clips, {sum(p.numel() for p in adapter.parameters()) / 1e6:.1f} million weights to train, on {own.device} "
             f"in {str(self.precision).removeprefix('torch.')}", workers)

        def loss(step, rng, rate):
            z, conditions = batch(rng)
            value = loss_of(own, z.to(own.device), conditions, torch.randint(0, len(own.abar), (args.batch,)).to(own.device), clean_first)
            return value, {"loss": value.detach()}

        with ctrl_c() as stop, meanwhile, self.progress.bar(shown=workers.rank == 0):
            fit(self.name, adapter.parameters(), loss, args.steps, lr=args.lr, betas=(0.9, 0.999), course=constant, decay=args.average or None, log_every=1, save_every=args.save_every,
                save=partial(save, adapter, args.out, self.folder), workers=workers, stage=self.progress, stop=stop)
            return not stop()


def run(args, train: Callable) -> int:
    """train(args, workers) -> whether it came to its end."""
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
