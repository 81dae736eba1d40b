"""Which frames of a user's clip are taken, in which order, and how they are cut."""
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from firstframe.demo.train.clip_folder import Clip, find_clips, frames
from PIL import Image


def grey(n: int, width=96, height=64) -> list:
    """n pictures, each a little lighter than the one before."""
    return [np.full((height, width, 3), 8 * i, np.uint8) for i in range(n)]


def video(path, pictures: list, rate: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(rate), width=pictures[0].shape[1], height=pictures[0].shape[0], pix_fmt="yuv420p", bit_rate=4_000_000)
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def numbers(path, fps: float) -> list[int]:
    """Which of `grey` are taken."""
    return [round(float(frame.mean()) * 255 / 8) for frame in frames(Clip(path, ""), fps, 64, 64)]


def test_frames_a_second(tmp_path):
    video(tmp_path / "a.mp4", grey(25), 24)
    assert numbers(tmp_path / "a.mp4", 8) == list(range(0, 25, 3))
    assert numbers(tmp_path / "a.mp4", 0) == numbers(tmp_path / "a.mp4", 60) == list(range(25))
    first, *rest = [Image.fromarray(picture) for picture in grey(12)]
    for name, milliseconds in (("a.webp", 125), ("a.gif", 120)):
        first.save(tmp_path / name, save_all=True, append_images=rest, duration=milliseconds, **({"lossless": True} if name == "a.webp" else {}))
        assert len(numbers(tmp_path / name, 4)) == 6 and numbers(tmp_path / name, 0) == list(range(12))
    assert numbers(tmp_path / "a.webp", 8) == list(range(12))


def test_pictures_come_in_the_order_of_their_numbers(tmp_path):
    (tmp_path / "a").mkdir()
    for i, picture in enumerate(grey(12)):
        Image.fromarray(picture).save(tmp_path / "a" / f"frame{i}.png")
    (tmp_path / "a" / "notes.txt").write_text("not a picture")
    assert numbers(tmp_path / "a", 8) == list(range(12))


def test_the_middle_is_cut_out(tmp_path):
    (tmp_path / "a").mkdir()
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, 32:96] = 255
    Image.fromarray(picture).save(tmp_path / "a" / "0.png")
    only, = frames(Clip(tmp_path / "a", ""), 0, 32, 32)
    assert only.shape == (32, 32, 3) and torch.equal(only, torch.ones(32, 32, 3))


def test_captions_lie_beside_the_clips(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "not a clip").mkdir()
    for name in ("a.mp4", "c.webm", "d.gif", "b/1.png", "readme.md"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.txt").write_text("\ufeffa red\n circle ", "utf-8")
    (tmp_path / "b.txt").write_text("a blue square")
    (tmp_path / "d.txt").write_text(" \n")
    clips, left_out = find_clips(tmp_path)
    assert [(clip.path.name, clip.caption) for clip in clips] == [("a.mp4", "a red circle"), ("b", "a blue square")]
    assert [sentence.split(":")[0] for sentence in left_out] == ["c.webm is left out", "d.gif is left out"]
    with pytest.raises(ValueError, match="no folder"):
        find_clips(tmp_path / "a.mp4")
