"""Translation and re-noising of Text2Video-Zero against the official numbers (golden g2)."""
from pathlib import Path

import pytest
import torch
from firstframe.samplers.latent_translation import renoise, translate
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def golden():
    return load_file(Path(__file__).parents[1] / "golden" / "g2_t2vzero_warp.safetensors")


def frames_first(x):
    """[1,C,F,h,w] -> [F,C,h,w]"""
    return x[0].transpose(0, 1)


@pytest.mark.parametrize("size, dx, dy, frames", [("64", 12, 12, 7), ("40x32", 12, -7, 3)])
def test_official_warp(golden, size, dx, dy, frames):
    z = frames_first(golden[f"in.latent_{size}"]).expand(frames, -1, -1, -1)
    assert torch.equal(translate(z, dx, dy), frames_first(golden[f"out.warped_{size}"]))


def test_official_renoising(golden):
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, 0)
    low, high = abar[880], abar[940]  # the official product runs over indices 881..940
    assert float(golden["out.alpha_product"]) == pytest.approx(float(high / low), rel=1e-5)
    sigma, sigma_to = ((1 - a) ** 0.5 / a**0.5 for a in (low, high))
    x = frames_first(golden["out.warped_40x32"]) / low**0.5  # variance preserving -> exploding
    ours = renoise(x, float(sigma), float(sigma_to), frames_first(golden["in.ddpm_eps"])) * high**0.5
    expected = frames_first(golden["out.renoised_40x32"])
    assert (ours - expected).abs().max() / expected.abs().max() < 1e-5


def test_content_moves_up_and_left_by_whole_cells():
    z = torch.zeros(3, 1, 64, 64)
    z[:, :, 30, 40] = 1
    moved = translate(z, 12, 12)
    assert [tuple(i[1:].tolist()) for i in moved.nonzero()[:, 1:]] == [(29, 39), (27, 37), (26, 36)]


def test_no_motion_is_exactly_none():
    z = torch.randn(4, 4, 16, 16)
    assert torch.equal(translate(z, 0.0, 0.0), z)
    assert torch.equal(renoise(z, 2.0, 2.0, torch.randn_like(z)), z)
