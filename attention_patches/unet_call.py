"""The one way in which a patch of ours rides along on a MODEL: on a clone, under a key of its own, within a range of sampling,
with a check before the first step and a plan made once per call of the UNet.

All riders of a MODEL share what is read: the run's sigmas come to the CPU once per run, the call's sigma once per call. It stays
a tensor there, so that a compiled UNet decides by its value and not by what it was at the first call.
"""
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from comfy.patcher_extension import WrappersMP

RUN, CALL = "firstframe_run", "firstframe_call"  # in transformer_options
_ids = itertools.count()


class Run:
    """What holds for one sampling run. sampling: the noise schedule of the model that samples; sigmas: the run's, or None; conds: the guider's, by name."""

    def __init__(self, sampling, sigmas: torch.Tensor | None, patcher=None, conds: dict | None = None):
        self.sampling, self.patcher, self.positive = sampling, patcher, positive_ones(conds or {})
        self.sigmas = None if sigmas is None else sigmas.detach().cpu()
        self.limits = {}

    def sigma_at(self, percent: float) -> torch.Tensor:
        """float64, on the CPU."""
        if percent not in self.limits:
            self.limits[percent] = torch.tensor(float(self.sampling.percent_to_sigma(percent)), dtype=torch.float64)
        return self.limits[percent]


def positive_ones(conds: dict) -> dict:
    """{uuid of a conditioning: whether it is a positive one}, without those in both lists (the host copies an area's into the other)."""
    if "positive" not in conds:
        return {}
    uuids = {name: {c["uuid"] for c in entries if "uuid" in c} for name, entries in conds.items()}
    positive, rest = uuids["positive"], set().union(*(found for name, found in uuids.items() if name != "positive"))
    return {uuid: uuid in positive for uuid in positive ^ rest}


class Seen:
    """What the first rider of a model call has read, for all of them. model: the host's BaseModel of the call's device, None for a bare UNet."""

    def __init__(self, options: dict, model=None, patcher=None):
        sigmas = options.get("sigmas")
        self.sigma = None if sigmas is None else sigmas[0].detach().cpu()  # the one number that is read back per call
        self.run = options.get(RUN) or Run(getattr(model, "model_sampling", None), options.get("sample_sigmas"))
        self.patchers = [p for p in (patcher or getattr(model, "current_patcher", None), self.run.patcher) if p is not None]

    def within(self, start: float, end: float) -> bool:
        """Whether this call lies in the share start..end of the schedule; outside any sampling it does."""
        if start <= 0 and end >= 1 or self.sigma is None or self.run.sampling is None:
            return True
        sigma = self.sigma.double()
        return bool((self.run.sigma_at(end) <= sigma) & (sigma <= self.run.sigma_at(start)))

    def step(self) -> int:
        """Index of the nearest entry of the run's sigmas, from 0; 0 outside any sampling."""
        return 0 if self.sigma is None or self.run.sigmas is None else int((self.run.sigmas - float(self.sigma)).abs().argmin())

    def positive(self, options: dict) -> list[bool]:
        """Of each conditioning in the call's batch whether it is a positive one. Guiders number them as they like, so the run's own lists count before the number 0."""
        chunks = options.get("cond_or_uncond") or (0,)
        uuids = options.get("uuids") or [None] * len(chunks)
        return [self.run.positive.get(uuid, chunk == 0) for uuid, chunk in zip(uuids, chunks)]

    def network(self, key: str, who: str):
        """The network that rides under `key` on the model of this call: on each device another copy. RuntimeError if there is none."""
        for patcher in self.patchers:
            for rider in patcher.get_additional_models_with_key(key):
                return rider.model
        raise RuntimeError(f"{who}: this call of the UNet comes from a model that does not carry the layers. Sample with the MODEL that comes out of {who}, through the host's samplers.")


@dataclass
class Call:
    """One call of the UNet within a rider's range: the UNet, its input x [B,C,h,w] and context, the transformer_options, and what was read."""

    unet: torch.nn.Module
    x: torch.Tensor
    context: torch.Tensor | None
    options: dict
    seen: Seen


def key(kind: str) -> str:
    """A name that no other rider has."""
    return f"firstframe_{kind}_{next(_ids)}"


def rides(model, kind: str) -> bool:
    """Whether a rider of that kind is on the MODEL."""
    return any(key.startswith(f"firstframe_{kind}_") for key in model.wrappers.get(WrappersMP.DIFFUSION_MODEL, {}))


def begin_run(executor, guider, sigmas, extra_args, *args, **kwargs):
    options = extra_args["model_options"].setdefault("transformer_options", {})
    options[RUN] = Run(guider.model_patcher.get_model_object("model_sampling"), sigmas, guider.model_patcher, guider.conds)
    return executor(guider, sigmas, extra_args, *args, **kwargs)


def begin_call(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):  # noqa: B006
    options = {**transformer_options, CALL: Seen(transformer_options, executor.class_obj)}
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def add_once(m, kind: str, name: str, wrapper: Callable) -> None:
    """A wrapper that all riders of `m` share."""
    if not m.get_wrappers(kind, name):
        m.add_wrapper_with_key(kind, name, wrapper)


def ride(model, key: str, who: str, during: Callable, *, start_percent=0.0, end_percent=1.0, check: Callable | None = None, relates_frames=True):
    """A clone of `model` whose UNet calls within the range go through during(Call, proceed) -> output.

    proceed() calls the UNet, proceed(told) with transformer_options[key] = told for the layers' patches, proceed(x=x) with another input. check(guider, noise, latent_image)
    runs before anything is loaded and raises what it finds. The percentages are those of the model that samples, at the time.
    relates_frames: see `riders`.
    """
    m = model.clone()

    def before(executor, noise, latent_image, *args, **kwargs):
        check(executor.class_obj, noise, latent_image)
        return executor(noise, latent_image, *args, **kwargs)

    def call(executor, x, timesteps, context=None, y=None, control=None, transformer_options={}, **kwargs):  # noqa: B006
        def proceed(told=None, x=x):
            options = transformer_options if told is None else {**transformer_options, key: told}
            return executor(x, timesteps, context, y, control, options, **kwargs)

        seen = transformer_options.get(CALL) or Seen(transformer_options)
        if not seen.within(start_percent, end_percent):
            return proceed()
        return during(Call(executor.class_obj, x, context, transformer_options, seen), proceed)

    if relates_frames:
        call.rider = who
    if check is not None:
        m.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, before)
    add_once(m, WrappersMP.SAMPLER_SAMPLE, RUN, begin_run)
    add_once(m, WrappersMP.APPLY_MODEL, CALL, begin_call)
    m.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, key, call)
    return m


def check_single(model, who: str) -> None:
    """Raises ValueError for a MODEL on which nodes of ours relate frames: `who` runs it on a single picture."""
    if found := riders(model):
        raise ValueError(f"{who} runs the model on one picture, and this MODEL relates the frames of a clip, since {' and '.join(found)}. "
                         f"Connect to the input 'model' of {who} what goes into {found[0]}, and put {found[0]} on the MODEL that samples the clip.")


def riders(model) -> list[str]:
    """The nodes of ours that relate frames on this MODEL, in the order in which they were put on; empty: it may run a single picture."""
    return [wrapper.rider for wrapper in model.get_all_wrappers(WrappersMP.DIFFUSION_MODEL) if hasattr(wrapper, "rider")]
