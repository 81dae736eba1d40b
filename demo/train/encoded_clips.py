"""Clips as the model sees them, encoded once and kept on disk: latents in the model's own space and what goes with them, by the host's VAE and text encoder.

Each clip is a file of a cache folder, {z [n,C,h,w], features [n,l,E] where CLIP's are asked for, and the model's conditions by name}, in half precision.
Its name holds a stamp of all that it was made of.
"""
import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from .clip_folder import UNREADABLE, Clip, frames
from .workers import Workers

AT_ONCE = 16  # frames in a call of the VAE
PER_FRAME = "z", "features"


class Unreadable(ValueError):
    """A clip that training goes on without."""


def stamp(*parts) -> str:
    """Twelve characters that change when a part does; a Path counts as the file, with its size and date."""
    told = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) if isinstance(p, Path) else p for p in parts]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Encoded:
    """A clip in the cache. length: its frames."""

    file: Path
    length: int

    def read(self, start: int, n: int, name: str = "z") -> torch.Tensor:
        """n of its latents, or of its features, from `start`."""
        with safe_open(self.file, "pt") as f:
            return f.get_slice(name)[start:start + n]

    def conditions(self) -> dict[str, torch.Tensor]:
        with safe_open(self.file, "pt") as f:
            return {key: f.get_tensor(key) for key in f.keys() if key not in PER_FRAME}


def opened(file: Path) -> Encoded:
    with safe_open(file, "pt") as f:
        return Encoded(file, f.get_slice("z").get_shape()[0])


class Encoder:
    """The host's VAE and text encoder for one model, one size and one rate of frames. made_of: what else the result depends on, Paths or values.

    features: of pictures [n,h,w,3], kept beside their latents; None: none are.
    """

    def __init__(self, folder: Path, model, clip, vae, size: tuple[int, int], fps: float, made_of: tuple, features: Callable | None = None):
        self.folder, self.model, self.clip, self.vae, self.size, self.fps, self.features = folder, model.model, clip, vae, size, fps, features
        self.made_of = (*made_of, size, fps)

    def file(self, clip: Clip) -> Path:
        return self.folder / f"{clip.path.name}-{stamp(clip.caption, *clip.files, *self.made_of)}.safetensors"

    def per_frame(self, clip: Clip) -> dict[str, torch.Tensor]:
        """Latents and features. Raises Unreadable for a clip that is damaged or has no frames, ValueError for a VAE of another kind of model."""
        (width, height), read, found, seen = self.size, self.read(clip), [], []
        while some := list(islice(read, AT_ONCE)):
            pictures = torch.stack(some)
            found.append(self.model.process_latent_in(self.vae.encode(pictures)))
            if self.features:
                seen.append(self.features(pictures))
        if not found:
            raise Unreadable(f"{clip.path.name} is left out: it has no frames.")
        z, wanted = torch.cat(found), [self.model.latent_format.latent_channels, height // 8, width // 8]
        if list(z.shape[1:]) != wanted:
            raise ValueError(f"The VAE makes latents {list(z.shape[1:])}, the model works on {wanted}. Give --vae the one that belongs to the checkpoint.")
        return {"z": z, "features": torch.cat(seen)} if seen else {"z": z}

    def read(self, clip: Clip) -> Iterator[torch.Tensor]:
        try:
            yield from frames(clip, self.fps, *self.size)
        except UNREADABLE as error:
            raise Unreadable(f"{clip.path.name} is left out: it cannot be read ({error}).") from error

    def conditions(self, caption: str, z: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the UNet is given for a caption beside z, by its names in the host: c_crossattn, for SDXL y too."""
        (cond, more), *_ = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(caption))
        width, height = self.size
        made = self.model.extra_conds(**more, cross_attn=cond, noise=z[:1], device=z.device, width=width, height=height, prompt_type="positive")
        return {name: value.cond for name, value in made.items()}

    @torch.no_grad()
    def encoded(self, clip: Clip) -> Encoded:
        """From the cache, else made. Raises as `per_frame`."""
        file = self.file(clip)
        if not file.exists():
            made = self.per_frame(clip)
            save(file, made | self.conditions(clip.caption, made["z"]))
        return opened(file)

    @torch.no_grad()
    def without_caption(self) -> dict[str, torch.Tensor]:
        width, height = self.size
        return {k: v.half() for k, v in self.conditions("", torch.zeros(1, self.model.latent_format.latent_channels, height // 8, width // 8)).items()}


def save(file: Path, tensors: dict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    save_file({k: v.half().cpu().contiguous() for k, v in tensors.items()}, part)
    part.replace(file)


def tell(sentence: str, workers: Workers) -> None:
    if workers.rank == 0:
        print(sentence, file=sys.stderr, flush=True)


def encoded_clips(encoder, clips: list, frames: int, workers: Workers) -> list:
    """Each worker encodes its share, then all read all. Clips that cannot be read or are too short are left out, with a sentence."""
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
        raise ValueError(f"None of the {len(clips)} clips " + (f"has {frames} frames. Lower --frames, or raise --fps (0: every frame counts)." if frames > 1 else "can be read."))
    return found


def batch_of(clips: list, without: dict, n: int, frames: int, no_caption: float, rng) -> tuple[torch.Tensor, dict]:
    """(latents [n*frames,C,h,w], conditions {name: [n,...]}) of n clips that rng picks, from frames that it picks."""
    z, said = [], []
    for _ in range(n):
        clip = rng.choice(clips)
        z.append(clip.read(rng.randrange(clip.length - frames + 1), frames))
        said.append(without if rng.random() < no_caption else clip.conditions())
    return torch.cat(z).float(), together(said)


def together(said: list[dict]) -> dict:
    """The conditions of several clips as those of one batch."""
    from comfy.conds import CONDCrossAttn, CONDRegular
    kinds = {name: CONDCrossAttn if name == "c_crossattn" else CONDRegular for name in said[0]}  # captions may differ in length
    return {name: kind(said[0][name]).concat([kind(more[name]) for more in said[1:]]) for name, kind in kinds.items()}
