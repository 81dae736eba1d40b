"""Another noise schedule for a model, as motion modules bring one."""
from types import SimpleNamespace

import comfy.model_sampling


def with_betas(model, schedule: str, first: float, last: float, who: str):
    """A clone of `model` with 1000 betas from `first` to `last`. schedule: the host's name (linear: evenly spaced roots; sqrt_linear:
    evenly spaced betas). What the model predicts (noise or velocity) stays. Raises ValueError for a model without betas."""
    old = model.get_model_object("model_sampling")
    if not isinstance(old, comfy.model_sampling.ModelSamplingDiscrete) or not hasattr(old, "linear_start"):
        raise ValueError(f"{who} sets the betas of the noise schedule, {type(model.model).__name__} with {type(old).__name__} has none. "
                         f"Load an SD1.5 or SDXL checkpoint, or choose beta_schedule 'keep'.")
    settings = dict(model.model.model_config.sampling_settings, beta_schedule=schedule, linear_start=first, linear_end=last, zsnr=old.zsnr)
    m = model.clone()
    m.add_object_patch("model_sampling", type(old)(SimpleNamespace(sampling_settings=settings)))
    return m
