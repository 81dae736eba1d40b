"""Optical flow on clips whose motion is known."""
import numpy as np
import pytest
from firstframe.demo.world import optical_flow
from scipy.ndimage import gaussian_filter


def texture(shift: float = 0.0, side: int = 128) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(3).random((side, 2 * side, 3)), (3, 3, 0))
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    return noise[:, int(10 + shift):int(10 + shift) + side].astype(np.float32)


def test_a_clip_that_stands_still_has_no_motion():
    assert optical_flow.measure(np.stack([texture()] * 3)) == {"motion, px a frame": pytest.approx(0, abs=0.05), "warping error": pytest.approx(0, abs=0.2)}


def test_a_pan_of_three_pixels_a_frame():
    found = optical_flow.measure(np.stack([texture(3 * i) for i in range(4)]))
    assert found["motion, px a frame"] == pytest.approx(3, abs=0.3) and found["warping error"] < 3


def test_frames_that_flicker_cannot_be_warped_into_one_another():
    frames = [texture() + 0.1 * (i % 2) for i in range(4)]
    assert optical_flow.measure(np.clip(frames, 0, 1))["warping error"] > 15
