"""Algorithm 1 line by line on tensors against the one-touch form."""
import random

import pytest
import torch
from firstframe.samplers.noise_clip import clip_noise


def algorithm_1(eps_M, eps_rec, rng, eta):
    """As printed, every iteration on the whole tensor."""
    gamma, bound = eps_M.double(), eps_M.double().norm()
    while (gamma - eps_rec).norm() > bound:
        t = rng.uniform(eta, 1 - eta)
        gamma = (1 - t) * eps_rec + t * gamma
    return gamma


@pytest.mark.parametrize("eta", [0.02, 0.1, 0.5])
def test_equals_the_algorithm(eta):
    eps_M, eps_rec = torch.randn(5, 4, 6, 6, generator=torch.Generator().manual_seed(0)), torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    eps_M[2] = eps_rec[0] * 1.1  # within its bound: untouched
    gamma, report = clip_noise(eps_M, eps_rec, 3, eta)
    rng = random.Random(3)
    torch.testing.assert_close(gamma.double(), torch.stack([algorithm_1(e, eps_rec[0], rng, eta) for e in eps_M]), atol=1e-5, rtol=1e-5)
    assert torch.equal(gamma[2], eps_M[2]) and not torch.equal(gamma[1], eps_M[1])
    for noise, g, (before, length, after) in zip(eps_M, gamma, report):
        assert before == pytest.approx(float((noise - eps_rec).norm()), rel=1e-5) and length == pytest.approx(float(noise.norm()), rel=1e-5)
        assert after == pytest.approx(float((g - eps_rec).norm()), rel=1e-4, abs=1e-4) and after <= length * (1 + 1e-5)


def test_unit_variance_can_be_restored_where_it_was_taken():
    eps_M, eps_rec = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    plain, restored = clip_noise(eps_M, eps_rec, 3)[0], clip_noise(eps_M, eps_rec, 3, restore=True)[0]
    assert plain[1].std() < 0.95 and restored[1].std() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("margin", [0.0, -0.1, 0.6])
def test_a_margin_outside_its_range(margin):
    with pytest.raises(ValueError, match="margin"):
        clip_noise(torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2), 0, margin)
