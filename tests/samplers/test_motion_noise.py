"""Eq. 8-10 and 12 element by element, and their limits."""
import math

import pytest
import torch
from firstframe.samplers.motion_noise import fresh_noise, guided, mask_to_attention, mixed, motion_noise, recovered_noise, standardised


@pytest.fixture
def eps_rec():
    return 0.3 + 0.8 * torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def A():
    return torch.rand(1, 1, 5, 6, generator=torch.Generator().manual_seed(2))


def slow(eps_rec, A, eps, guided_eps, eta):
    """The paper's letters, one number at a time."""
    values = eps_rec.flatten().double().tolist()
    mu = sum(values) / len(values)
    s = math.sqrt(sum((v - mu) ** 2 for v in values) / (len(values) - 1))
    out = eps.double().clone()
    for f in range(len(eps)):
        for c in range(eps.shape[1]):
            for y in range(eps.shape[2]):
                for x in range(eps.shape[3]):
                    a, e, g, r = float(A[0, 0, y, x]), float(eps[f, c, y, x]), float(guided_eps[f, c, y, x]), float(eps_rec[0, c, y, x])
                    m = a * g + math.sqrt(1 - a * a) * (r - mu) / s
                    out[f, c, y, x] = r if f == 0 else e / math.sqrt(1 + eta**2) + eta / math.sqrt(1 + eta**2) * m
    return out


@pytest.mark.parametrize("eta", [0.0, 0.7, 5.0])
def test_equals_the_formulas(eps_rec, A, eta):
    eps = fresh_noise((3, 4, 5, 6), 7)
    torch.testing.assert_close(motion_noise(eps_rec, A, *eps, eta).double(), slow(eps_rec, A, *eps, eta), atol=1e-5, rtol=1e-5)


def test_limits(eps_rec, A):
    eps, other = fresh_noise((2, 4, 5, 6), 7)
    m = guided(A, eps, eps_rec)
    assert torch.equal(mixed(eps, m, 0.0), eps)                                             # eta -> 0: eps
    torch.testing.assert_close(mixed(eps, m, 1e4), m, atol=1e-3, rtol=1e-3)                 # eta -> infinity: m_t
    assert torch.equal(guided(torch.ones(1, 1, 5, 6), eps, eps_rec), eps)                   # A 1: free
    torch.testing.assert_close(guided(torch.zeros(1, 1, 5, 6), eps, eps_rec), standardised(eps_rec).expand(2, -1, -1, -1))
    assert torch.equal(motion_noise(eps_rec, A, eps, other, 0.5)[:1], eps_rec)              # frame 1, bit by bit


def test_recovered_noise_takes_the_picture_back_to_the_inverted_latent(eps_rec):
    x_0 = torch.randn(1, 4, 5, 6)
    torch.testing.assert_close(recovered_noise(x_0 + 4.5 * eps_rec, x_0, 4.5), eps_rec, atol=1e-5, rtol=1e-4)


def test_more_frames_leave_the_first_ones():
    for many, few in zip(fresh_noise((5, 4, 3, 3), 9), fresh_noise((2, 4, 3, 3), 9)):
        assert torch.equal(many[:2], few)


@pytest.mark.parametrize("a", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("eta", [0.5, 1.0, 4.0])
def test_unit_variance_for_every_attention_and_weight(a, eta):
    """Eq. 7: eps_M ~ N(0, I)."""
    eps_rec = 0.2 + 1.3 * torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(3))
    out = motion_noise(eps_rec, torch.full((1, 1, 64, 64), a), *fresh_noise((4, 4, 64, 64), 1), eta)[1:]
    assert out.std().item() == pytest.approx(1, abs=0.02) and out.mean().abs() < 0.02


def test_masks_of_any_layout_and_size():
    mask = torch.rand(8, 8)
    assert torch.equal(mask_to_attention(mask, 8, 8)[0, 0], mask) and torch.equal(mask_to_attention(mask[None], 8, 8)[0, 0], mask)
    assert mask_to_attention(torch.ones(3, 64, 48), 8, 6).shape == (3, 1, 8, 6) and mask_to_attention(torch.ones(3, 64, 48), 8, 6).min() > 0.999
