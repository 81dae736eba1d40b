"""DynamiCrafter's view of a picture: its cut, CLIP's square, the latents beside the noise."""
import pytest
import torch
from firstframe.samplers.dynamicrafter import beside_noise, cut, squashed


def ramp(height: int, width: int) -> torch.Tensor:
    """Red rises to the right, green downwards."""
    y, x = torch.linspace(0, 1, height)[:, None].expand(height, width), torch.linspace(0, 1, width).expand(height, width)
    return torch.stack([x, y, torch.ones_like(x)], -1)[None]


def test_a_wide_picture_loses_its_sides():
    found = cut(ramp(100, 400), 64, 32)
    assert found.shape == (1, 32, 64, 3) and found[..., 2].min() > 0.999  # nothing black
    assert found[0, 16, 0, 0] == pytest.approx(0.25, abs=0.01) and found[0, 16, -1, 0] == pytest.approx(0.75, abs=0.01)
    assert found[0, 0, 5, 1] < 0.03 and found[0, -1, 5, 1] > 0.97


def test_a_tall_picture_stands_between_black_sides():
    found = cut(ramp(200, 100), 64, 32)
    assert (found[0, :, :16] == 0).all() and (found[0, :, -16:] == 0).all() and found[0, :, 17:-17, 2].min() > 0.99
    assert found[0, 0, 32, 1] == pytest.approx(0.25, abs=0.02) and found[0, -1, 32, 1] == pytest.approx(0.75, abs=0.02)


def test_of_the_right_size_it_stays():
    picture = torch.rand(1, 32, 64, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(cut(picture, 64, 32), picture, atol=1e-6)


def test_clip_sees_all_of_it():
    found = squashed(ramp(300, 500))
    assert found.shape == (1, 224, 224, 3) and found[0, 112, 0, 0] < 0.02 and found[0, 112, -1, 0] > 0.98 and found[0, 0, 112, 1] < 0.02 and found[0, -1, 112, 1] > 0.98


def test_latents_beside_the_noise():
    a, b = torch.full((1, 4, 2, 2), 1.0), torch.full((1, 4, 2, 2), 2.0)
    assert torch.equal(beside_noise(a, None, 5), a)
    assert beside_noise(a, b, 5)[:, 0, 0, 0].tolist() == [1, 0, 0, 0, 2] and beside_noise(a, a, 2)[:, 0, 0, 0].tolist() == [1, 1]
