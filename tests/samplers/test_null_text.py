"""Null-text inversion against the published arithmetic (golden numbers), and the optimisation of Eq. 6 against its definition."""
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from firstframe.samplers.null_text import OPTIMISERS, PUBLISHED, Optimisation, ddim, optimise_embeddings, trajectory
from safetensors.torch import load_file

GOLDEN = Path(__file__).parents[1] / "golden" / "k1_null_text_inversion.safetensors"


@pytest.fixture(scope="module")
def g():
    return load_file(GOLDEN)


@pytest.fixture(scope="module")
def ladder(g):
    """sigmas [51] of alpha-bar 0 (the picture), 1, 21, ..., 981, and the timesteps."""
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
    timesteps = [0, *g["out.timesteps"].flip(0).tolist()]
    return ((1 - alphas[timesteps]) / alphas[timesteps]).sqrt(), timesteps


def stub(g, ladder):
    """eps of the variance-exploding x at timestep i in the context psi[0]."""
    sigmas, timesteps = ladder

    def predict(x, i, psi):
        z = (x / (1 + sigmas[i] ** 2) ** 0.5)[:, :, None]
        context = torch.tanh(psi[0]).mean(1)
        t = F.linear(torch.tensor([[timesteps[i] / 1000]]), g["w.tl.weight"], g["w.tl.bias"])
        h = F.conv3d(z, g["w.conv1.weight"], g["w.conv1.bias"], padding=1) + (t + F.linear(context, g["w.cl.weight"], g["w.cl.bias"]))[:, :, None, None, None]
        return (z + F.conv3d(F.silu(h), g["w.conv2.weight"], g["w.conv2.bias"], padding=1))[:, :, 0]
    return predict


def vp(Z, sigmas):
    return Z / (1 + sigmas[:, None, None, None] ** 2) ** 0.5


def null_text(g, ladder, options):
    """(trajectory, found) with guidance 7.5 around the optimised unconditional embedding."""
    predict, (sigmas, _), c = stub(g, ladder), ladder, g["in.context_cond"]
    Z = trajectory(lambda x, i: predict(x, i, [c]), g["in.latent"] * (1 + sigmas[0] ** 2) ** 0.5, sigmas)
    kept = {}

    def prepare(x, i):
        kept["c"] = predict(x, i, [c])

    def branch(x, i, psi):
        u = predict(x, i, psi)
        return u + 7.5 * (kept["c"] - u)
    return Z, optimise_embeddings(branch, Z, sigmas, [g["in.context_uncond_start"]], options, prepare=prepare)


def close(a, b, tolerance):
    assert float((a - b).abs().max() / b.abs().max()) < tolerance


def test_golden_null_text_inversion(g, ladder):
    Z, found = null_text(g, ladder, PUBLISHED)
    sigmas = ladder[0]
    close(vp(Z, sigmas), g["out.inverted_latents_0_to_50"][:, 0], 1e-5)
    assert [len(n) for n in found.losses[:0:-1]] == g["out.inner_iterations"].tolist()
    close(torch.cat([n[-1:] and torch.tensor(n[-1:]) for n in found.losses[:0:-1]]), g["out.last_loss"], 1e-3)
    close(torch.stack([p[0] for p in found.psi[:0:-1]]), g["out.null_embeddings"], 1e-3)
    close(vp(found.Z, sigmas).flip(0), g["out.reconstructed_latents"][:, 0], 1e-3)


def pliable(ladder):
    """A predictor whose embedding [1,5,8] can reach any direction of the latent [1,4,3,3]; with it the losses can go to 0."""
    sigmas, M = ladder[0], torch.randn(40, 36, generator=torch.Generator().manual_seed(1)) / 6

    def predict(x, i, psi):
        return 0.8 * x / (1 + sigmas[i] ** 2) ** 0.5 + (torch.sin(psi[0].flatten()) @ M).view(1, 4, 3, 3)
    return predict, sigmas, torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(2)), torch.zeros(1, 5, 8)


def test_signum_comes_as_near_as_adam_with_a_third_of_the_backward_passes(ladder):
    predict, sigmas, x0, c = pliable(ladder)
    Z = trajectory(lambda x, i: predict(x, i, [c + 0.5]), x0, sigmas)
    adam, signum = (optimise_embeddings(predict, Z, sigmas, [c], options) for options in (PUBLISHED, Optimisation()))
    error = [float((w.Z[0] - x0).square().mean()) for w in (adam, signum)]
    backward = [adam.backward, signum.backward]
    assert error[1] < error[0] and backward[1] < backward[0] / 3, (error, backward)


def test_a_refined_trajectory_leads_back(g, ladder):
    """Every timestep fulfils x_i = x_{i-1} + (sigma_i - sigma_{i-1}) eps(x_i, i), so plain sampling returns the picture."""
    predict, (sigmas, _), c = stub(g, ladder), ladder, g["in.context_cond"]
    x0 = g["in.latent"]
    plain, fine = (trajectory(lambda x, i: predict(x, i, [c]), x0, sigmas, refine) for refine in (0, 6))
    for i in range(1, 51):
        close(ddim(fine[i - 1:i], predict(fine[i:i + 1], i, [c]), sigmas[i - 1], sigmas[i]), fine[i:i + 1], 1e-4)
    back = [optimise_embeddings(predict, Z, sigmas, [c], Optimisation(inner=0)).Z[:1] for Z in (plain, fine)]
    assert (back[1] - x0).abs().max() < 1e-3 < (back[0] - x0).abs().max()


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_timestep_starts_warm_and_lands_nearer(ladder, optimiser):
    predict, sigmas, x0, c = pliable(ladder)
    Z = trajectory(lambda x, i: predict(x, i, [c + 0.3]), x0, sigmas)
    found = optimise_embeddings(predict, Z, sigmas, [c], Optimisation(stop=0.0, growth=0.0, inner=4, optimiser=optimiser))
    plain = optimise_embeddings(predict, Z, sigmas, [c], Optimisation(inner=0))
    assert (found.Z[0] - x0).square().mean() < 0.5 * (plain.Z[0] - x0).square().mean()
    assert torch.equal(found.Z[-1], Z[-1]) and found.psi[0] is None and torch.equal(plain.psi[7][0], c)
    for i in range(1, 51):  # the found's latents follow from its embeddings alone
        close(ddim(found.Z[i:i + 1], predict(found.Z[i:i + 1], i, found.psi[i]), sigmas[i], sigmas[i - 1]), found.Z[i - 1:i], 1e-5)
        if optimiser == OPTIMISERS[1]:
            again = predict(found.Z[i:i + 1], i, found.psi[min(i + 1, 50)] if i < 50 else [c])
            loss = (ddim(found.Z[i:i + 1], again, sigmas[i], sigmas[i - 1]) - Z[i - 1:i]).square().mean() / (1 + sigmas[i - 1] ** 2)
            assert found.losses[i][0] == pytest.approx(float(loss), rel=1e-3, abs=1e-9)


def test_signum_step_by_step(ladder):
    """Two inner steps at each of the upper three timesteps, three below, written out: the mean of the logarithms of loss / |g|_1, the momentum of g / |g|, a step along its sign."""
    predict, sigmas, x0, c = pliable(ladder)
    sigmas, Z = sigmas[:7], trajectory(lambda x, i: predict(x, i, [c + 0.3]), x0, sigmas[:7])
    found = optimise_embeddings(predict, Z, sigmas, [c], Optimisation(stop=0.0, growth=0.0))
    psi, x, m, mean = c.clone(), Z[-1:], 0.0, None
    for i in range(6, 0, -1):
        for _ in range(2 if i > 3 else 3):
            psi = psi.detach().requires_grad_()
            y = x + (sigmas[i - 1] - sigmas[i]) * predict(x, i, [psi])
            loss = F.mse_loss(y / (1 + sigmas[i - 1] ** 2).sqrt(), Z[i - 1:i] / (1 + sigmas[i - 1] ** 2).sqrt())
            g, = torch.autograd.grad(loss, psi)
            used = psi.detach()
            log = (loss / g.abs().sum()).log().item()
            mean = log if mean is None else 0.9 * mean + 0.1 * log
            m = 0.4 * m + 0.6 * g / g.norm()
            psi = used - 0.3 * torch.tensor(mean).exp() * m.sign()
        close(found.psi[i][0], used, 1e-4)
        x = y.detach()
        close(found.Z[i - 1:i], x, 1e-4)


def test_nan_stops_with_the_timestep(g, ladder):
    predict, (sigmas, _), c = stub(g, ladder), ladder, g["in.context_cond"]
    Z = trajectory(lambda x, i: predict(x, i, [c]), g["in.latent"], sigmas)

    def broken(x, i, psi):
        return predict(x, i, psi) * (float("nan") if i == 48 else 1)
    for optimiser in OPTIMISERS:
        with pytest.raises(ValueError, match="timestep 48, inner step 1"):
            optimise_embeddings(broken, Z, sigmas, [c], Optimisation(optimiser=optimiser))
