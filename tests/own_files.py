"""What the trainings on a user's own files are tested with: drawn clips in a folder, conditions, somebody who presses Ctrl-C. Import as `firstframe.tests.own_files`."""
import random
import signal
from contextlib import contextmanager

import torch
from firstframe.demo.world import scene
from firstframe.tests import tiny_models as tiny
from PIL import Image


def drawn_clips(clips) -> None:
    """Fills a folder: two drawn clips with captions, an animation and numbered pictures; a third has none, a fourth is damaged, a fifth is short."""
    rng = random.Random(1)
    clips.mkdir()
    for name, frames in (("one", 5), ("two", 4), ("three", 4), ("five", 2)):
        s = scene.random_scene(rng)
        drawn = [Image.fromarray(frame) for frame in (s.clip(frames) * 255).byte().numpy()]
        if name == "two":
            (clips / "two").mkdir()
            for i, picture in enumerate(drawn):
                picture.save(clips / "two" / f"{i + 8}.png")
        else:
            drawn[0].save(clips / f"{name}.webp", save_all=True, append_images=drawn[1:], duration=125, lossless=True)
        if name != "three":
            (clips / f"{name}.txt").write_text(s.caption())
    (clips / "four.mp4").write_bytes(b"no video")
    (clips / "four.txt").write_text("x")


def conditions(own, clips: int) -> dict:
    said = [tiny.conditioning(9 + i)[0] for i in range(clips)]
    made = [own.base.extra_conds(cross_attn=cond, **more, noise=tiny.latents(1), device=tiny.CPU, width=128, height=128) for cond, more in said]
    return {name: torch.cat([one[name].cond for one in made]) for name in made[0]}


def stops_after_a_step(ctrl_c):
    """ctrl_c, and somebody who presses it."""
    @contextmanager
    def pressed():
        with ctrl_c() as stop:
            signal.raise_signal(signal.SIGINT)
            yield stop
    return pressed


def words(**options) -> list[str]:
    """The command line of these options; _ stands for -."""
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
