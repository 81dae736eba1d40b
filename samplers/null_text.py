"""Null-text optimisation (Mokady et al.), of which motion-aware diffusion inversion (PiLife Eq. 6) is the conditional form: the DDIM
inversion's latents, and the embeddings psi_t that make DDIM sampling retrace them.

x [1,C,h,w] is variance-exploding, x = x0 + sigma eps. Timesteps are numbered 1..T from the lowest; 0 is the picture, sigmas [T+1] ascend.
`predict(x, i)` is eps_theta at timestep i = 1..T; `branch(x, i, psi)` is the same with the embeddings psi (a list of
tensors, one per entry of the conditioning), with gradients where autograd is on.
"""
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

OPTIMISERS = ("Signum", "Adam (paper)")
OVERFLOW = "The model may overflow in half precision (start the host with --force-fp32), or its file or the prompt's be broken."


def ddim(x: torch.Tensor, eps: torch.Tensor, sigma, sigma_to) -> torch.Tensor:
    """One deterministic DDIM step from noise level sigma to sigma_to, either way (Eq. 4, variance-exploding)."""
    return x + (sigma_to - sigma) * eps


def scaled_for(x: torch.Tensor, sigma, sigma_to) -> torch.Tensor:
    """What the network has to be given at sigma_to so that it sees the variance-preserving latent that x is at sigma."""
    return x * ((1 + sigma_to**2) / (1 + sigma**2)) ** 0.5


@torch.no_grad()
def trajectory(predict: Callable, x0: torch.Tensor, sigmas: torch.Tensor, refine: int = 0, seen: Callable = lambda i, x, eps: None) -> torch.Tensor:
    """DDIM inversion, Z_0 .. Z_T of Eq. 6: [T+1,C,h,w].

    As published, the noise of a step is predicted from the lower latent at the upper timestep. `refine` more evaluations
    a step solve the step's own equation instead, x_i = x_{i-1} + (sigma_i - sigma_{i-1}) eps(x_i, i), by fixed point:
    from a latent that fulfils it, the DDIM step back with the same embedding lands on x_{i-1}. Raises ValueError for NaN.
    """
    Z = [x0]
    for i in range(1, len(sigmas)):
        low, high = sigmas[i - 1], sigmas[i]
        eps = predict(scaled_for(Z[-1], low, high), i)
        x = ddim(Z[-1], eps, low, high)
        for _ in range(refine):
            eps = predict(x, i)
            x = ddim(Z[-1], eps, low, high)
        if not torch.isfinite(x).all():
            raise ValueError(f"Motion-Aware Inversion stopped: the model gave NaN or infinite values at timestep {i} of the inversion. {OVERFLOW}")
        Z.append(x)
        seen(i, x, eps)
    return torch.cat(Z)


@dataclass(frozen=True)
class Optimisation:
    """How each psi_t is found. inner: inner steps at a timestep at most, with Signum one less in the noisier half (but 1); lr: Adam's, at the
    first timestep; stop: loss at which it ends early there.

    From timestep to timestep lr falls to half in all and stop grows by `growth`; both are meant for 50 timesteps in the whole
    schedule and scale with `steps` (null-text inversion: lr (1 - n/100), stop + n growth).
    """

    inner: int = 3
    lr: float = 1e-2
    stop: float = 1e-5
    growth: float = 2e-5
    steps: int = 50
    optimiser: str = OPTIMISERS[0]

    def at(self, n: int) -> tuple[float, float]:
        """(learning rate, loss at which it ends early) of the n-th timestep from the top."""
        n = n * 50 / self.steps
        return self.lr * (1 - n / 100), self.stop + n * self.growth


PUBLISHED = Optimisation(inner=10, optimiser=OPTIMISERS[1])


@dataclass(frozen=True)
class Optimised:
    """Z: Z*_T .. Z*_0 reversed to ascend like the inversion's latents, [T+1,C,h,w]; psi[i]: that of timestep i (psi[0] is None);
    losses[i]: those of its inner steps in their order; backward: backward passes spent."""

    Z: torch.Tensor
    psi: list
    losses: list
    backward: int


@dataclass(frozen=True)
class Timestep:
    """What an optimiser made of one timestep: y, the latent below; psi, which led there; onward, where the next timestep starts; losses; backward passes."""

    y: torch.Tensor
    psi: list
    onward: list
    losses: list
    backward: int


def sampling_step(branch, x, i, psi, sigmas):
    return ddim(x, branch(x, i, psi), sigmas[i], sigmas[i - 1])


def mean_square(y: torch.Tensor, target: torch.Tensor, sigma) -> float:
    """The loss: mean squared error of the variance-preserving latents y and target at sigma."""
    return float((y - target).detach().square().mean() / (1 + sigma**2))


def gradient(y: torch.Tensor, target: torch.Tensor, sigma, psi: list) -> list:
    """That of mean_square(y, target, sigma) with respect to psi.

    The residual enters the backward pass with magnitude 1 and its scale comes in afterwards, or half precision would lose it.
    """
    r = (y - target).detach() / (1 + sigma**2)
    scale = r.abs().amax().clamp_min(1e-30)
    grads = torch.autograd.grad(y, psi, (r / scale).to(y.dtype), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g * (2 * scale / r.numel()) for p, g in zip(psi, grads)]


def check(loss: float, i: int, inner: int) -> None:
    if not loss < float("inf"):
        raise ValueError(
            f"Motion-Aware Inversion stopped: the loss became {loss} at timestep {i}, inner step {inner}. "
            f"Lower the learning rate. {OVERFLOW}"
        )


class Adam:
    """The published arithmetic: a new Adam at each timestep; a step is taken before its loss is compared."""

    def optimise(self, branch, x, i, psi, target, sigmas, options: Optimisation, n: int, seen) -> Timestep:
        lr, stop = options.at(n)
        optimiser, losses = torch.optim.Adam(psi, lr=lr), []
        for j in range(options.inner):
            y = sampling_step(branch, x, i, psi, sigmas)
            loss = mean_square(y, target, sigmas[i - 1])
            check(loss, i, j + 1)
            losses.append(loss)
            for p, g in zip(psi, gradient(y, target, sigmas[i - 1], psi)):
                p.grad = g
            optimiser.step()
            seen(i, j + 1, x, y.detach())
            if loss < stop:
                break
        with torch.no_grad():
            y = sampling_step(branch, x, i, psi, sigmas)
        psi = [p.detach() for p in psi]
        return Timestep(y, psi, psi, losses, len(losses))


class Signum:
    """Signed momentum (Signum; Bernstein et al. 2018, Alg. 2), kept from timestep to timestep, with a step length of its own.

    For the sign of g, Polyak's length is loss / |g|_1; single ones jump by an order of magnitude, so a running geometric
    mean is taken, and SHARE of it, as the losses never reach 0. Neighbouring timesteps want much the same change, so the step
    after the last loss of one serves the next, and an inner step costs one call and one backward pass.
    """

    BETA, SHARE, MEMORY = 0.4, 0.3, 0.9  # of the momentum; of Polyak's length; of the running mean

    def __init__(self):
        self.momentum, self.length = None, None

    def optimise(self, branch, x, i, psi, target, sigmas, options: Optimisation, n: int, seen) -> Timestep:
        stop = options.at(n)[1] / 4  # Adam takes one more step before it stops, and ends about that far below its own mark
        losses, backward = [], 0
        inner = max(1, options.inner - (n < (len(sigmas) - 1) // 2))  # an error left at high noise is corrected at the timesteps below
        for j in range(inner):
            y = sampling_step(branch, x, i, psi, sigmas)
            loss = mean_square(y, target, sigmas[i - 1])
            check(loss, i, j + 1)
            losses.append(loss)
            seen(i, j + 1, x, y.detach())
            used = [p.detach().clone() for p in psi]
            if loss < stop:
                break
            self.step(psi, loss, gradient(y, target, sigmas[i - 1], psi))
            backward += 1
        return Timestep(y.detach(), used, [p.detach() for p in psi], losses, backward)

    def step(self, psi: list, loss: float, grads: list) -> None:
        total, square = (sum(float(f(g).sum()) for g in grads) for f in (torch.abs, torch.square))
        if square == 0:
            return
        length = math.log(loss / total)
        self.length = length if self.length is None else self.MEMORY * self.length + (1 - self.MEMORY) * length
        m, b = self.momentum or [torch.zeros_like(g) for g in grads], self.BETA
        # normalised, since gradients differ in size from timestep to timestep much more than in direction
        self.momentum = [b * a + (1 - b) / square**0.5 * g for a, g in zip(m, grads)]
        for p, a in zip(psi, self.momentum):
            p.data.sub_(a.sign(), alpha=self.SHARE * math.exp(self.length))


def optimise_embeddings(branch: Callable, Z: torch.Tensor, sigmas: torch.Tensor, psi: list, options: Optimisation, seen: Callable = lambda i, j, x, y: None,
              prepare: Callable = lambda x, i: None) -> Optimised:
    """Eq. 6 for t = T..1: psi_t, warm-started from psi_{t+1}, is optimised so that one DDIM step from Z*_t lands on Z_{t-1}.

    psi: the starting embeddings. options.inner 0: none is optimised. prepare(x, i) is called once before timestep i (a place
    for what does not depend on psi); seen(i, j, x, y) after each inner step. Raises ValueError when a loss is not finite.
    """
    T = len(sigmas) - 1
    optimiser = dict(zip(OPTIMISERS, (Signum, Adam)))[options.optimiser]()
    x, found_Z, kept, losses = Z[-1:], [Z[-1:]], [None] * (T + 1), [[] for _ in range(T + 1)]
    backward = 0
    for n, i in enumerate(range(T, 0, -1)):
        with torch.no_grad():
            prepare(x, i)
        if options.inner:
            psi = [p.detach().clone().requires_grad_() for p in psi]
            found = optimiser.optimise(branch, x, i, psi, Z[i - 1:i], sigmas, options, n, seen)
        else:
            with torch.no_grad():
                found = Timestep(sampling_step(branch, x, i, psi, sigmas), psi, psi, [], 0)
            seen(i, 0, x, found.y)
        kept[i], psi, x, losses[i] = found.psi, found.onward, found.y, found.losses
        backward += found.backward
        found_Z.append(x)
    return Optimised(torch.cat(found_Z[::-1]), kept, losses, backward)
