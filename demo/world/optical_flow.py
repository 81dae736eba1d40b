"""Motion and steadiness of a clip by dense optical flow (OpenCV's DIS), as video papers measure them."""
import cv2
import numpy as np


def flow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[H,W,2]: how far each pixel of picture a [H,W,3] in 0..1 goes in b, in pixels (x, y)."""
    a, b = (cv2.cvtColor((255 * image).round().astype(np.uint8), cv2.COLOR_RGB2GRAY) for image in (a, b))
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(a, b, None)


def warped(b: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Picture b seen from where its pixels come from."""
    y, x = np.mgrid[:b.shape[0], :b.shape[1]].astype(np.float32)
    return cv2.remap(b, x + moves[..., 0], y + moves[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def measure(clip: np.ndarray) -> dict:
    """Of a clip [F,H,W,3] in 0..1. motion: mean length of the flow between neighbouring frames; warping error: mean difference of a frame from the next one, warped back, 0..255."""
    moves = [flow(a, b) for a, b in zip(clip, clip[1:])]
    error = [255 * np.abs(a - warped(b, m)).mean() for a, b, m in zip(clip, clip[1:], moves)]
    return {"motion, px a frame": float(np.mean([np.hypot(m[..., 0], m[..., 1]).mean() for m in moves])), "warping error": float(np.mean(error))}
