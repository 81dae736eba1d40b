"""Motion-aware diffusion inversion (PiLife Eq. 6) and null-text inversion, which it comes from: the walk up and the walk back.

x [1,C,h,w] is variance-exploding, x = x0 + sigma eps. Levels count upwards: level 0 is the picture, sigmas [T+1] ascend.
`predict(x, i)` is eps_theta at level i = 1..T; `branch(x, i, psi)` is the same with the embeddings psi (a list of
tensors, one per entry of the conditioning), with gradients where autograd is on.
"""
from collections.abc import Callable
from dataclasses import dataclass

import torch

OPTIMISERS = ("Polyak", "Adam (paper)")


def ddim(x: torch.Tensor, eps: torch.Tensor, sigma, sigma_to) -> torch.Tensor:
    """One deterministic DDIM step from noise level sigma to sigma_to, either way (Eq. 4, variance-exploding)."""
    return x + (sigma_to - sigma) * eps


def at_level(x: torch.Tensor, sigma, sigma_to) -> torch.Tensor:
    """What the network has to be given at sigma_to so that it sees the variance-preserving latent that x is at sigma."""
    return x * ((1 + sigma_to**2) / (1 + sigma**2)) ** 0.5


@torch.no_grad()
def trajectory(predict: Callable, x0: torch.Tensor, sigmas: torch.Tensor, refine: int = 0, seen: Callable = lambda i, x, eps: None) -> torch.Tensor:
    """DDIM inversion, Z_0 .. Z_T of Eq. 6: [T+1,C,h,w].

    As published, the noise of a step is predicted from the lower latent at the upper timestep. `refine` more evaluations
    a step solve the step's own equation instead, x_i = x_{i-1} + (sigma_i - sigma_{i-1}) eps(x_i, i), by fixed point:
    from a latent that fulfils it, the DDIM step back with the same embedding lands on x_{i-1}.
    """
    Z = [x0]
    for i in range(1, len(sigmas)):
        low, high = sigmas[i - 1], sigmas[i]
        eps = predict(at_level(Z[-1], low, high), i)
        x = ddim(Z[-1], eps, low, high)
        for _ in range(refine):
            eps = predict(x, i)
            x = ddim(Z[-1], eps, low, high)
        Z.append(x)
        seen(i, x, eps)
    return torch.cat(Z)


@dataclass(frozen=True)
class Optimisation:
    """How each psi_t is found. inner: steps at most; lr: Adam's, of the first level; stop: loss that is good enough there.

    Along the walk lr falls to half and stop grows by `growth` a level; both are meant for 50 levels in the whole
    schedule and scale with `steps` (null-text inversion: lr (1 - n/100), stop + n growth).
    """

    inner: int = 10
    lr: float = 1e-2
    stop: float = 1e-5
    growth: float = 2e-5
    steps: int = 50
    optimiser: str = OPTIMISERS[0]

    def at(self, n: int) -> tuple[float, float]:
        """(learning rate, good enough) of the n-th level from the top."""
        n = n * 50 / self.steps
        return self.lr * (1 - n / 100), self.stop + n * self.growth


@dataclass(frozen=True)
class Walk:
    """The walk back. Z: Z*_T .. Z*_0 reversed to ascend like the trajectory, [T+1,C,h,w]; psi[i]: that of level i (psi[0] is None);
    losses[i]: those of level i's inner steps in their order; backward: backward passes spent."""

    Z: torch.Tensor
    psi: list
    losses: list
    backward: int


def back_step(branch, x, i, psi, sigmas):
    return ddim(x, branch(x, i, psi), sigmas[i], sigmas[i - 1])


def gradient(y: torch.Tensor, target: torch.Tensor, sigma, psi: list) -> tuple[float, list]:
    """(loss, its gradients): mean squared error of the variance-preserving latents y and target at sigma.

    The residual enters the backward pass with magnitude 1 and its scale comes in afterwards, or half precision would lose it.
    """
    r = (y - target).detach() / (1 + sigma**2)
    loss, scale = float((r * (y - target).detach()).mean()), r.abs().amax().clamp_min(1e-30)
    grads = torch.autograd.grad(y, psi, (r / scale).to(y.dtype), allow_unused=True)
    return loss, [torch.zeros_like(p) if g is None else g * (2 * scale / r.numel()) for p, g in zip(psi, grads)]


def check(loss: float, level: int, inner: int) -> None:
    if not loss < float("inf"):
        raise ValueError(
            f"Motion-Aware Inversion stopped: the loss became {loss} at level {level}, inner step {inner}. "
            f"Lower the learning rate; if it stays, the model overflows in half precision (start the host with --force-fp32)."
        )


def adam(branch, x, i, psi, target, sigmas, options: Optimisation, n: int, seen) -> tuple:
    """The published arithmetic: a new Adam each level; the loss is looked at after the step it led to."""
    lr, enough = options.at(n)
    optimiser, losses = torch.optim.Adam(psi, lr=lr), []
    for j in range(options.inner):
        y = back_step(branch, x, i, psi, sigmas)
        loss, grads = gradient(y, target, sigmas[i - 1], psi)
        check(loss, i, j + 1)
        losses.append(loss)
        for p, g in zip(psi, grads):
            p.grad = g
        optimiser.step()
        seen(i, j + 1, x, y.detach())
        if loss < enough:
            break
    return None, losses, len(losses)


def polyak(branch, x, i, psi, target, sigmas, options: Optimisation, n: int, seen) -> tuple:
    """Gradient steps of Polyak's length, loss / |g|^2, which needs no learning rate; the best embedding is kept.

    The length supposes that the loss can reach 0; a step that does not lower it is taken back and the next is a quarter.
    The loss is looked at before the backward pass, so a level whose embedding already serves costs one forward pass, and
    the latent of the kept embedding is not computed again.
    """
    enough = options.at(n)[1] / 4  # Adam, which looks only afterwards, ends about that far below its own mark
    losses, best, share, backward = [], None, 1.0, 0
    for j in range(options.inner + 1):
        last = j == options.inner
        with torch.set_grad_enabled(not last):
            y = back_step(branch, x, i, psi, sigmas)
        loss = float((y - target).detach().square().mean() / (1 + sigmas[i - 1] ** 2))
        check(loss, i, j + 1)
        losses.append(loss)
        seen(i, j + 1, x, y.detach())
        better = best is None or loss < best[0]
        if better:
            best = (loss, y.detach(), [p.detach().clone() for p in psi])
        else:
            share /= 4
        if last or best[0] < enough:
            break
        if better:
            grads, backward = gradient(y, target, sigmas[i - 1], psi)[1], backward + 1
            square = sum(float(g.square().sum()) for g in grads)
            if square == 0:
                break
        for p, b, g in zip(psi, best[2], grads):
            p.data.copy_(b - share * best[0] / square * g)
    for p, b in zip(psi, best[2]):
        p.data.copy_(b)
    return best[1], losses, backward


def walk_back(branch: Callable, Z: torch.Tensor, sigmas: torch.Tensor, psi: list, options: Optimisation, seen: Callable = lambda i, j, x, y: None,
              prepare: Callable = lambda x, i: None) -> Walk:
    """Eq. 6 for t = T..1: psi_t, warm-started from psi_{t+1}, is optimised so that one DDIM step from Z*_t lands on Z_{t-1}.

    psi: the starting embeddings. options.inner 0: none is optimised. prepare(x, i) is called once before level i (a place
    for what does not depend on psi); seen(i, j, x, y) after each inner step. Raises ValueError when a loss is not finite.
    """
    T = len(sigmas) - 1
    update = adam if options.optimiser == OPTIMISERS[1] else polyak
    x, walked, kept, losses = Z[-1:], [Z[-1:]], [None] * (T + 1), [[] for _ in range(T + 1)]
    backward = 0
    for n, i in enumerate(range(T, 0, -1)):
        with torch.no_grad():
            prepare(x, i)
        psi, y = [p.detach().clone().requires_grad_() for p in psi], None
        if options.inner:
            y, losses[i], spent = update(branch, x, i, psi, Z[i - 1:i], sigmas, options, n, seen)
            backward += spent
        if y is None:
            with torch.no_grad():
                y = back_step(branch, x, i, psi, sigmas)
                seen(i, 0, x, y)
        psi = [p.detach() for p in psi]
        kept[i], x = psi, y
        walked.append(y)
    return Walk(torch.cat(walked[::-1]), kept, losses, backward)
