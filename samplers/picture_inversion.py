"""Inversion of a picture inside the host: its loading, conditionings (LoRA, ControlNet, areas), previews and interrupts
around the walk of samplers/motion_aware_inversion.py.
"""
from dataclasses import dataclass

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import latent_preview
import torch

from .branch_guider import BranchGuider
from .gradients import checkpointed, differentiable_attention, plain, plain_weights, separate_skips, wants_checkpointing
from .inversion import sigmas_of, timestep_grid
from .motion_aware_inversion import Optimisation, trajectory, walk_back
from .motion_noise import recovered_noise

MODES = ("conditional", "null-text", "none")
STARTS = ("positive", "negative")


@dataclass(frozen=True)
class Inversion:
    """What INVERSION wires carry. Model latent space, variance-exploding, on the CPU; levels ascend from the picture (sigma 0).

    timesteps [T] and sigmas [T+1]; trajectory [T+1,C,h,w]: Z_0 .. Z_T; walked [T+1,C,h,w]: Z*_0 .. Z*_T; psi[i]: embeddings
    of level i, one per entry of the conditioning (psi[0] is None), found from those of `began`, positive or negative;
    losses[i]: of its inner steps; calls and backward: model evaluations and gradients spent; space: the model's latent format.
    """

    timesteps: tuple
    sigmas: torch.Tensor
    trajectory: torch.Tensor
    walked: torch.Tensor
    psi: list
    began: str
    losses: list
    calls: int
    backward: int
    space: object

    @property
    def eps_rec(self) -> torch.Tensor:
        """Eq. 8: the noise [1,C,h,w] that takes the reconstruction z*_0 to the inverted latent Z_T."""
        return recovered_noise(self.walked[-1:], self.walked[:1], self.sigmas[-1])

    @property
    def psnr(self) -> float:
        """Of the reconstruction, in dB of the latent's own range."""
        z, error = self.trajectory[0], (self.walked[0] - self.trajectory[0]).square().mean()
        return float(10 * ((z.max() - z.min()) ** 2 / error.clamp_min(1e-20)).log10())


class InversionSampler(comfy.samplers.Sampler):
    """Walks up and back under a BranchGuider; `trajectory` and `walk` (a Walk) hold the result."""

    def __init__(self, mode: str, begin: str, guidance: float, refine: int, options: Optimisation, checkpointing: bool):
        self.mode, self.begin, self.guidance, self.refine, self.options, self.checkpointing = mode, begin, guidance, refine, options, checkpointing
        self.calls, self.walk, self.trajectory = 0, None, None

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False):
        with torch.inference_mode(False), torch.enable_grad(), checkpointed(model_wrap.inner_model.diffusion_model, self.checkpointing):
            self._ordinary(model_wrap)
            self._run(model_wrap, sigmas.clone(), extra_args, callback, latent_image.clone())
        return self.walk.Z[:1]

    @staticmethod
    def _ordinary(guider) -> None:
        """Everything that the backward pass may keep must be an ordinary tensor: weights, control nets and conditionings."""
        extra, _ = comfy.sampler_helpers.get_additional_models(guider.conds, guider.inner_model.get_dtype())
        for m in [guider.inner_model, *(e.model for e in extra if isinstance(getattr(e, "model", None), torch.nn.Module))]:
            plain_weights(m)
        guider.conds = {name: [{k: v if k == "control" else plain(v) for k, v in c.items()} for c in entries] for name, entries in guider.conds.items()}

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

        self.trajectory = trajectory(lambda x, i: predict(x, i, "positive"), x0, sigmas, self.refine,
                                     lambda i, x, eps: show(i, x, x - (sigmas[i] - sigmas[i - 1]) * eps, i))
        kept = {}

        def conditional(x, i):
            if self.mode == "null-text":
                kept["eps"] = predict(x, i, "positive")

        def branch(x, i, psi):
            if self.mode != "null-text":
                return predict(x, i, "positive", psi)
            eps_u = predict(x, i, "negative", psi)
            return eps_u + self.guidance * (kept["eps"] - eps_u)

        self.walk = walk_back(branch, self.trajectory, sigmas, guider.embeddings(self.begin), self.options,
                              lambda i, j, x, y: show(T + (T - i) * max(1, self.options.inner) + max(1, min(j, self.options.inner)), x, y, i), conditional)


def invert_picture(model, z0: torch.Tensor, positive, negative, *, mode: str, steps: int, start: int, guidance: float, refine: int,
                   options: Optimisation, begin: str = STARTS[0], checkpointing: str = "auto", seed: int = 0) -> tuple[torch.Tensor, Inversion]:
    """(z0* in the host's latent space, Inversion) of one picture's latent z0 [1,C,h,w].

    The noise levels are those of a DDIM schedule of `steps` from timestep `start` down, then 0. negative, guidance and begin are
    only used with mode null-text. begin: whose embedding its optimisation sets out from. From the negative prompt's (Mokady et
    al.) it has far to go; with the positive prompt's in the negative branch guidance drops out and the walk back retraces
    the refined trajectory (Negative-prompt Inversion, Miyake et al.), so that little or nothing is left to optimise. That
    needs as many positive entries as negative ones, or it begins at the negative. checkpointing: auto, on or off. MODEL
    keeps its values, also when this is interrupted.
    """
    if mode != "null-text" or len(positive) != len(negative):
        begin = "negative" if mode == "null-text" else "positive"
    grid = timestep_grid(steps, start)
    sigmas = torch.cat([torch.zeros(1), sigmas_of(model.get_model_object("model_sampling"), grid)])
    m = differentiable_attention(model.get_non_dynamic_delegate() if getattr(model, "is_dynamic", lambda: False)() else model)
    if any("control" in options for _, options in [*positive, *(negative if mode == "null-text" else [])]):
        m = separate_skips(m)
    comfy.model_management.load_models_gpu([m], force_full_load=True)  # offloaded weights are cast through a buffer that the backward pass would find overwritten
    on = wants_checkpointing(m, z0.shape) if checkpointing == "auto" else checkpointing == "on"
    sampler = InversionSampler(mode, begin, guidance, refine, options, on)
    guider = BranchGuider(m, positive=positive, negative=negative if mode == "null-text" else positive)
    callback = latent_preview.prepare_callback(m, 1)
    z = guider.sample(torch.zeros_like(z0), z0, sampler, sigmas, callback=callback, seed=seed)
    walk = sampler.walk
    psi = [p and [e.cpu() for e in p] for p in walk.psi]
    return z.cpu(), Inversion(tuple(grid), sigmas, sampler.trajectory.cpu(), walk.Z.cpu(), psi, begin, walk.losses, sampler.calls, walk.backward,
                              m.get_model_object("latent_format"))


def percents(timesteps, i: int) -> tuple[float, float]:
    """(start, end) as the host's share of the schedule: half-way from level i = 1..T to its neighbours; the ends are open."""
    def share(t):
        return 1 - t / 999
    T = len(timesteps)
    start = 0.0 if i == T else share((timesteps[i - 1] + timesteps[i]) / 2)
    end = 1.0 if i == 1 else share((timesteps[i - 1] + timesteps[i - 2]) / 2)
    return start, end


def as_conditioning(inversion: Inversion, original) -> list:
    """CONDITIONING with every psi_t on its own timestep range, within the entry's own; the rest of each entry (ControlNet, area, pooled) as it was."""
    out = []
    for i in range(len(inversion.timesteps), 0, -1):
        start, end = percents(inversion.timesteps, i)
        for psi, (_, options) in zip(inversion.psi[i], original):
            own = max(start, options.get("start_percent", 0.0)), min(end, options.get("end_percent", 1.0))
            if own[0] < own[1]:
                out.append([psi, {**options, "start_percent": own[0], "end_percent": own[1]}])
    return out
