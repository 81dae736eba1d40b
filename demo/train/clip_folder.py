"""A user's folder of clips: videos, animations and folders of numbered pictures, each beside a text file of its name that holds its caption."""
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image, ImageOps, ImageSequence

VIDEOS, ANIMATIONS, PICTURES = {".mp4", ".mov", ".mkv", ".avi", ".webm"}, {".gif", ".webp"}, {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
UNREADABLE = av.FFmpegError, OSError, ValueError  # what the libraries raise for a damaged file
GRACE = 0.1  # of a frame: files store rounded times


@dataclass(frozen=True)
class Clip:
    """A file or a folder, and its caption."""

    path: Path
    caption: str

    @property
    def files(self) -> list[Path]:
        """Its pictures in the order of their numbers, or the one file."""
        if not self.path.is_dir():
            return [self.path]
        pictures = [file for file in self.path.iterdir() if file.suffix.lower() in PICTURES]
        return sorted(pictures, key=lambda file: ([int(n) for n in re.findall(r"\d+", file.stem)], file.name))


def find_clips(folder: Path) -> tuple[list[Clip], list[str]]:
    """(the clips that have captions, a sentence about each that has none). Raises ValueError for a folder without clips."""
    if not folder.is_dir():
        raise ValueError(f"There is no folder {str(folder)!r}. --clips names the folder that holds the clips.")
    found, left_out = [], []
    for path in sorted(folder.iterdir()):
        text = folder / f"{path.name if path.is_dir() else path.stem}.txt"
        if not (Clip(path, "").files if path.is_dir() else path.suffix.lower() in VIDEOS | ANIMATIONS):
            continue
        caption = " ".join(text.read_text("utf-8-sig", errors="replace").split()) if text.is_file() else ""
        if caption:
            found.append(Clip(path, caption))
        else:
            left_out.append(f"{path.name} is left out: it has no caption. Write one into {text.name}, beside it.")
    if not found:
        raise ValueError(" ".join([f"No clip with a caption in {str(folder)!r}. Expected NAME.mp4 (or .webm, .gif, .webp, ...) or a folder NAME of numbered pictures, beside NAME.txt.",
                                   *left_out[:3]]))
    return found, left_out


def pictures(clip: Clip) -> Iterator[tuple]:
    """(seconds or None, RGB picture) of each frame."""
    if clip.path.is_dir():
        for file in clip.files:
            with Image.open(file) as image:
                yield None, ImageOps.exif_transpose(image).convert("RGB")
    elif clip.path.suffix.lower() in ANIMATIONS:
        with Image.open(clip.path) as image:
            seconds = 0.0
            for frame in ImageSequence.Iterator(image):
                yield seconds, frame.convert("RGB")
                seconds += frame.info.get("duration", 100) / 1000  # browsers show frames without a duration for 0.1 s
    else:
        with av.open(str(clip.path)) as video:
            if not video.streams.video:
                raise ValueError("it has no pictures")
            first = None
            for frame in video.decode(video=0):
                first = frame.time if first is None else first
                yield None if frame.time is None else frame.time - first, frame.to_image()


def fitted(picture: Image.Image, width: int, height: int) -> torch.Tensor:
    """[height,width,3] in 0..1: the middle of the picture, as *Upscale Image* with crop 'center' makes it."""
    from comfy.utils import common_upscale
    image = torch.from_numpy(np.array(picture)).movedim(-1, 0)[None].float() / 255
    return common_upscale(image, width, height, "lanczos", "center")[0].movedim(0, -1)


def frames(clip: Clip, fps: float, width: int, height: int) -> Iterator[torch.Tensor]:
    """[height,width,3] in 0..1, at most fps a second; fps 0, or a clip without times: every frame."""
    last = -1
    for seconds, picture in pictures(clip):
        if fps and seconds is not None:
            if int(seconds * fps + GRACE) <= last:
                continue
            last = int(seconds * fps + GRACE)
        yield fitted(picture, width, height)
