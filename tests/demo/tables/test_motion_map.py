"""The measurements behind the table of motion attention maps, on maps whose overlap is known."""
import numpy as np
import pytest
from firstframe.demo.tables import motion_map
from firstframe.demo.world import scene
from firstframe.demo.world.judge import judge


def test_the_mask_is_the_shape_and_every_picture_was_held_back():
    for seed in range(20):
        s = motion_map.picture_of(seed)
        body, mask = s.bodies[0], motion_map.true_mask(s)
        assert (body.shape, body.colour, s.ground) in scene.HELD_BACK and body.motion != "standing still" and body.motion in s.caption()
        seen = judge(s.draw([0.5])[0]).shapes[0].mask.reshape(16, 8, 16, 8).mean((1, 3)) >= 0.5
        assert (seen & mask).sum() / (seen | mask).sum() > 0.85


def test_a_perfect_an_inverted_and_an_even_map():
    mask = np.zeros((16, 16), bool)
    mask[4:8, 4:8] = True
    found = motion_map.measure([mask * 0.8, 0.3 + 0.7 * ~mask, np.ones((16, 16))], [mask] * 3)
    assert [row["IoU, own threshold"] for row in found] == pytest.approx([100, 100 / 16, 100 / 16])
    assert [row["r"] for row in found] == pytest.approx([100, -100, np.nan], nan_ok=True)


def test_one_threshold_for_all_is_not_each_pictures_own():
    mask = np.zeros((16, 16), bool)
    mask[:8] = True
    weak, strong = np.where(mask, 0.4, 0.2), np.where(mask, 0.9, 0.6)  # told apart at 0.3 and at 0.8; together 0.5 at most
    found = motion_map.measure([weak, strong], [mask, mask])
    assert [row["IoU, own threshold"] for row in found] == pytest.approx([100, 100])
    assert sorted(row["IoU, one threshold"] for row in found) == pytest.approx([50, 100])


def test_words_are_found_among_the_tokens():
    from comfy.sd1_clip import SDTokenizer
    tokenizer = SDTokenizer().tokenizer
    caption = "a zebralike circle moving right on a blue background"
    pieces = len(tokenizer("zebralike")["input_ids"]) - 2
    assert pieces > 1 and motion_map.positions(tokenizer, caption, "zebralike circle") == tuple(range(2, 3 + pieces))
    assert motion_map.positions(tokenizer, caption, "moving right") == (3 + pieces, 4 + pieces)
