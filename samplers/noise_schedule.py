"""Which models have the noise schedule that DDIM needs: 1000 discrete timesteps, and a prediction of noise or velocity."""
from comfy.model_sampling import EPS, V_PREDICTION, ModelSamplingDiscrete

from .beta_schedule import OwnTables

PREDICTIONS = (EPS.calculate_denoised, V_PREDICTION.calculate_denoised)


def check_schedule(model, who: str) -> None:
    """Raises ValueError for flow matching, EDM, distilled (LCM) and other models whose timesteps are not those of DDIM."""
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, ModelSamplingDiscrete) and is_plain(sampling):
        return
    kinds = " + ".join(base.__name__ for base in type(sampling).__mro__ if base.__module__.startswith(("comfy.model_sampling", "comfy_extras", "nodes")))
    raise ValueError(f"{who} needs the noise schedule of models such as SD1.5 and SDXL, which predict noise or velocity at 1000 timesteps, got {type(model.model).__name__} "
                     f"sampled as {kinds}. Move the Model Sampling node (flow, EDM, LCM) behind this one, or load such a checkpoint in Load Checkpoint.")


def is_plain(sampling) -> bool:
    """Whether timesteps and prediction are the host's plain ones, inherited or not."""
    timesteps = next(base for base in type(sampling).__mro__ if "sigma" in vars(base) and base is not OwnTables)
    return timesteps is ModelSamplingDiscrete and type(sampling).calculate_denoised in PREDICTIONS
