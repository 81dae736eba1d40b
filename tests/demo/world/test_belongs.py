"""Which pictures the demo's tiny model can hold."""
import random

import numpy as np
import pytest
from firstframe.demo.cli import command, workflow
from firstframe.demo.world import scene
from firstframe.demo.world.belongs import belongs
from PIL import Image


def test_what_was_drawn_belongs():
    rng = random.Random(1)
    drawn = [s.draw([rng.random()])[0] for s in (scene.random_scene(rng) for _ in range(60))]
    assert sum(map(belongs, drawn)) >= 58
    with Image.open(command.PICTURE) as picture:
        assert belongs(np.asarray(picture.convert("RGB")) / 255)


def noise(side: int = 128):
    return np.random.default_rng(1).random((side, side, 3))


def ramps():
    x = np.linspace(0, 1, 128)
    return np.stack(np.broadcast_arrays(x[None], x[:, None], 1 - x[None]), -1)


def two_grounds():
    image = scene.random_scene(random.Random(2)).draw([0.5])[0].numpy()
    image[64:] = image[64:, :, ::-1] * 0.4
    return image


@pytest.mark.parametrize("image", [noise(), ramps(), two_grounds(), np.full((128, 128, 3), 0.5)], ids=["noise", "ramps", "two grounds", "grey"])
def test_what_was_not_drawn_does_not(image):
    assert not belongs(image)


def test_the_demo_says_so(tmp_path):
    own, users = (workflow.load(path) for path in (command.WORKFLOW, command.PACK / "workflows" / command.WORKFLOW.name))
    Image.fromarray((255 * noise(300)).astype(np.uint8)).save(tmp_path / "photo.png")
    assert "photo.png' is none of the demo's drawn pictures" in command.remark(own, tmp_path / "photo.png")
    assert command.remark(own, command.PICTURE) is None and command.remark(users, tmp_path / "photo.png") is None
