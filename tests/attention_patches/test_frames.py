"""Which batch entry is which frame, for every way in which the host and other packs may lay out a call."""
from types import SimpleNamespace

import pytest
import torch
from comfy.context_windows import IndexListContextWindow
from firstframe.attention_patches.frames import FrameBatch, check_finite, check_frames, read


def test_conditionings_together_and_split():
    assert read({"cond_or_uncond": [1, 0]}, 10) == FrameBatch(2, (0, 1, 2, 3, 4), 5)
    assert read({"cond_or_uncond": [1]}, 5) == FrameBatch(1, (0, 1, 2, 3, 4), 5)
    assert read({}, 5) == FrameBatch(1, (0, 1, 2, 3, 4), 5)


def test_several_clips_in_one_latent():
    assert read({"cond_or_uncond": [1, 0]}, 12, frames=3) == FrameBatch(4, (0, 1, 2), 3)


def test_host_windows_and_their_causal_anchor():
    window = IndexListContextWindow([4, 5, 6], dim=0, total_frames=12)
    window.causal_anchor_index = None
    assert read({"cond_or_uncond": [1, 0], "context_window": window}, 6) == FrameBatch(2, (4, 5, 6), 12)
    window.causal_anchor_index = 3
    assert read({"cond_or_uncond": [1, 0], "context_window": window}, 8) == FrameBatch(2, (3, 4, 5, 6), 12)


def test_a_window_along_another_axis_says_nothing_about_the_batch():
    assert read({"context_window": SimpleNamespace(dim=2, index_list=[4, 5], total_frames=9)}, 3).numbers == (0, 1, 2)


def test_animatediff_evolved_windows():
    params = {"sub_idxs": [2, 3, 4, 5], "full_length": 20, "context_length": 4}
    assert read({"cond_or_uncond": [1, 0], "ad_params": params}, 8) == FrameBatch(2, (2, 3, 4, 5), 20)
    assert read({"cond_or_uncond": [0], "ad_params": {"sub_idxs": None, "full_length": 8}}, 8).numbers == tuple(range(8))


def test_a_batch_that_is_no_whole_clips_is_refused():
    with pytest.raises(ValueError, match="10 .*clips of 4 frames"):
        read({"cond_or_uncond": [1, 0]}, 10, frames=4)
    with pytest.raises(ValueError, match="10 latents, which are not whole clips of 4"):
        check_frames(10, 4, "X")
    for batch, frames in ((1, 0), (0, 0), (4, 1)):
        with pytest.raises(ValueError, match="needs at least 2"):
            check_frames(batch, frames, "X")
    check_frames(12, 4, "X")


def test_nan_is_refused_with_the_number_of_bad_frames():
    z = torch.zeros(4, 4, 2, 2)
    check_finite(z, "X")
    z[2, 0, 0, 0], z[3, 1, 1, 1] = float("nan"), float("inf")
    with pytest.raises(ValueError, match="in 2 of 4 entries"):
        check_finite(z, "X")
