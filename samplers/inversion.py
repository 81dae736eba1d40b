"""Inversion of a picture inside the host: loading, conditionings (LoRA, ControlNet, areas), previews and interrupts around the
optimisation of samplers/null_text.py.
"""
from dataclasses import dataclass

import comfy.model_management
import comfy.samplers
import latent_preview
import torch

from .branch_guider import BranchGuider
from .ddim import sigmas_of, timestep_grid
from .gradients import (
    Ungraded,
    checkpointed,
    differentiable_attention,
    keep_whole,
    ordinary_weights,
    plain,
    plain_weights,
    separate_skips,
    wants_checkpointing,
)
from .guidance_left import few_timesteps, guidance_left
from .motion_noise import recovered_noise
from .null_text import Optimisation, optimise_embeddings, trajectory

MODES = ("conditional", "null-text", "none")
STARTS = ("negative", "positive")
REFINE = {"conditional": 0, "null-text": 1, "none": 0}  # extra calls a timestep that leave guidance alive
WHO = "Motion-Aware Inversion"


@dataclass(frozen=True)
class Inversion:
    """What INVERSION wires carry. Model latent space, variance-exploding, on the CPU; everything ascends from the picture (sigma 0).

    timesteps [T] and sigmas [T+1]; edges [T-1]: noise levels half-way in time between neighbouring timesteps; trajectory [T+1,C,h,w]:
    Z_0 .. Z_T; reconstruction [T+1,C,h,w]: Z*_0 .. Z*_T; psi[i]: embeddings of timestep i, one per entry of the conditioning (psi[0] is None), found
    from those of `began`, positive or negative;
    losses[i]: of its inner steps; calls and backward: model evaluations and gradients spent; guidance: what `guidance_left` finds, None
    without a negative prompt; space: the model's latent format.
    """

    timesteps: tuple
    sigmas: torch.Tensor
    edges: torch.Tensor
    trajectory: torch.Tensor
    reconstruction: torch.Tensor
    psi: list
    began: str
    losses: list
    calls: int
    backward: int
    guidance: float | None
    space: object

    @property
    def eps_rec(self) -> torch.Tensor:
        """Eq. 8: the noise [1,C,h,w] that takes the reconstruction z*_0 to the inverted latent Z_T."""
        return recovered_noise(self.reconstruction[-1:], self.reconstruction[:1], self.sigmas[-1])

    @property
    def psnr(self) -> float:
        """Of the reconstruction, in dB of the latent's own range."""
        z, error = self.trajectory[0], (self.reconstruction[0] - self.trajectory[0]).square().mean()
        return float(10 * ((z.max() - z.min()) ** 2 / error.clamp_min(1e-20)).log10())


class InversionSampler(comfy.samplers.Sampler):
    """Inverts and optimises under a BranchGuider with the branches positive, psi (whose embeddings are optimised) and perhaps negative;
    `trajectory`, `optimised` (of optimise_embeddings) and `guidance` hold the result. checkpointing: auto, on or off."""

    def __init__(self, mode: str, timesteps, begin: str, guidance: float, refine: int, options: Optimisation, checkpointing: str):
        self.mode, self.timesteps, self.begin, self.scale, self.refine, self.options, self.checkpointing = mode, timesteps, begin, guidance, refine, options, checkpointing
        self.calls, self.optimised, self.trajectory, self.guidance = 0, None, None, None

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False):
        check_active(model_wrap.conds, sigmas, self.timesteps, self.mode)
        gradients = self.options.inner > 0
        if gradients:
            check_whole(model_wrap)
        on = gradients and (wants_checkpointing(model_wrap.model_patcher, latent_image.shape) if self.checkpointing == "auto" else self.checkpointing == "on")
        with torch.inference_mode(False), torch.enable_grad(), checkpointed(model_wrap.inner_model.diffusion_model, on):
            if gradients:
                self._ordinary(model_wrap)
            self._run(model_wrap, sigmas.clone(), extra_args, callback, latent_image.clone())
        return self.optimised.Z[:1]

    @staticmethod
    def _ordinary(guider) -> None:
        """Everything that the backward pass may keep must be an ordinary tensor: weights and conditionings. ControlNets take no part in it."""
        plain_weights(guider.inner_model)
        controls = {id(c["control"]): Ungraded(c["control"]) for entries in guider.conds.values() for c in entries if "control" in c}
        guider.conds = {name: [{k: controls[id(v)] if k == "control" else plain(v) for k, v in c.items()} for c in entries] for name, entries in guider.conds.items()}

    def _run(self, guider, sigmas, extra_args, callback, x0):
        T, done = len(sigmas) - 1, 0
        total = T + T * max(1, self.options.inner)

        def show(count, x, y, i):
            nonlocal done
            done = count
            if callback is not None:
                # y is one DDIM step below x: the picture that the same noise prediction points at
                eps = (x - y) / (sigmas[i] - sigmas[i - 1])
                callback(done - 1, x - sigmas[i] * eps, x, total)

        def predict(x, i, branch, psi=None):
            comfy.model_management.throw_exception_if_processing_interrupted()
            self.calls += 1
            guider.branch = branch
            if psi is not None:
                guider.replace(branch, psi)
            sigma = sigmas[i].expand(len(x))
            return (x - guider(x, sigma, **extra_args)) / sigmas[i]

        Z = self.trajectory = trajectory(lambda x, i: predict(x, i, "positive"), x0, sigmas, self.refine,
                                         lambda i, x, eps: show(i, x, x - (sigmas[i] - sigmas[i - 1]) * eps, i))
        kept = {}

        def conditional(x, i):
            if self.mode == "null-text":
                kept["eps"] = predict(x, i, "positive")

        def branch(x, i, psi):
            if self.mode != "null-text":
                return predict(x, i, "psi", psi)
            eps_u = predict(x, i, "psi", psi)
            return eps_u + self.scale * (kept["eps"] - eps_u)

        found = self.optimised = optimise_embeddings(branch, Z, sigmas, guider.embeddings(self.begin), self.options,
                                     lambda i, j, x, y: show(T + (T - i) * max(1, self.options.inner) + max(1, min(j, self.options.inner)), x, y, i), conditional)
        if "negative" in guider.conds:
            spent = self.calls
            with torch.no_grad():
                self.guidance = guidance_left([(predict(Z[i:i + 1], i, "positive"), predict(Z[i:i + 1], i, "psi", found.psi[i]), predict(Z[i:i + 1], i, "negative"))
                                               for i in few_timesteps(T)])
            self.calls = spent  # a measurement, no part of the inversion


def check_active(conds: dict, sigmas: torch.Tensor, timesteps, mode: str) -> None:
    """Raises ValueError for the first timestep at which an input that is used has no entry; conds: the guider's, with its timestep ranges as noise levels."""
    for name in ("positive", *(["negative"] if mode == "null-text" else [])):
        for i, sigma in enumerate(sigmas.tolist()):
            if i and not any(c.get("timestep_end", 0.0) <= sigma <= c.get("timestep_start", float("inf")) for c in conds[name]):
                raise ValueError(f"{WHO}: {name!r} holds nothing for timestep {timesteps[i - 1]} ({i} of {len(timesteps)}): its entries are limited to other timesteps. "
                                 f"Connect it without ConditioningSetTimestepRange, or lower start_timestep to where it is active.")


def check_whole(guider) -> None:
    """Raises ValueError when some of the model's weights are still in main memory: they are cast through a buffer that the backward pass would find overwritten."""
    if guider.model_patcher.model.model_lowvram:
        raise ValueError(f"{WHO} needs the whole model in the card's memory for its gradients, and the host keeps part of it in main memory. "
                         f"Start the host without --novram, or set mode to none (or inner_steps to 0), which needs no gradients.")


def invert_picture(model, z0: torch.Tensor, positive, negative, *, mode: str, steps: int, start: int, guidance: float, refine: int,
                   options: Optimisation, begin: str = STARTS[0], checkpointing: str = "auto") -> tuple[torch.Tensor, Inversion]:
    """(z0* in the host's latent space, Inversion) of one picture's latent z0 [1,C,h,w].

    The noise levels are those of a DDIM schedule of `steps` from timestep `start` down, then 0. negative (None: none) takes part in
    mode null-text only; elsewhere the guidance that is left is measured against it. guidance and begin are only used with mode
    null-text. begin: whose embedding its optimisation sets out from. From the negative prompt's (Mokady et al.) it has far to go; with
    the positive prompt's in the negative branch guidance drops out and sampling retraces the refined trajectory (Negative-prompt
    Inversion, Miyake et al.), so that little or nothing is left to optimise, and nothing for guidance to act on. That needs as many
    positive entries as negative ones, or it begins at the negative. MODEL keeps its values, also when this is interrupted. Raises
    ValueError for what `check_active`, `check_whole` and `ordinary_weights` refuse.
    """
    if mode != "null-text" or len(positive) != len(negative):
        begin = "negative" if mode == "null-text" else "positive"
    optimised = negative if mode == "null-text" else positive
    grid, sampling = timestep_grid(steps, start), model.get_model_object("model_sampling")
    sigmas = torch.cat([torch.zeros(1), sigmas_of(sampling, grid)])
    edges = sigmas_of(sampling, [(t + later) / 2 for t, later in zip(grid, grid[1:])]) if len(grid) > 1 else torch.zeros(0)
    m = model
    if options.inner:
        m = keep_whole(differentiable_attention(ordinary_weights(model, WHO)))
        if any("control" in entry for _, entry in [*positive, *optimised]):
            m = separate_skips(m)
    sampler = InversionSampler(mode, grid, begin, guidance, refine, options, checkpointing)
    guider = BranchGuider(m, positive=positive, psi=optimised, **({"negative": negative} if negative else {}))
    callback = latent_preview.prepare_callback(m, 1)
    z = guider.sample(torch.zeros_like(z0), z0, sampler, sigmas, callback=callback, seed=0)
    found = sampler.optimised
    psi = [p and [e.cpu() for e in p] for p in found.psi]
    return z.cpu(), Inversion(tuple(grid), sigmas, edges, sampler.trajectory.cpu(), found.Z.cpu(), psi, begin, found.losses, sampler.calls, found.backward,
                              sampler.guidance, m.get_model_object("latent_format"))
