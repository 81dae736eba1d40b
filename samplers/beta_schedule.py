"""Another noise schedule for a model, as motion modules bring one."""
import copy
from types import SimpleNamespace

import comfy.model_sampling
import torch
from comfy.patcher_extension import WrappersMP

KEY = "firstframe_betas"


class OwnTables:
    """Before a ModelSamplingDiscrete in the order of bases: keeps its tables as plain attributes, under names that the host cannot write to.

    In dynamic mode the host puts buffers back by their names after other nodes' model_sampling has taken this one's place, or the other
    way round; each run would have the noise levels of the one before.
    """

    def register_buffer(self, name, tensor, persistent=True):
        if self.fixed:
            return  # the host, putting another schedule's table back
        self.__dict__[name] = tensor

    def on(self, device):
        """The same with its tables on the device of the call, so that none is read back."""
        if device not in self.copies:
            there = copy.copy(self)
            there.__dict__.update({name: table.to(device) for name, table in self.__dict__.items() if isinstance(table, torch.Tensor)})
            self.copies[device] = there
        return self.copies[device]

    def timestep(self, sigma):
        return super(OwnTables, self.on(sigma.device)).timestep(sigma)

    def sigma(self, timestep):
        return super(OwnTables, self.on(timestep.device)).sigma(timestep)


def own_tables(kind: type, settings: dict):
    """A model_sampling of that kind and these settings, with OwnTables."""
    cls = type(kind.__name__, (OwnTables, kind), {"fixed": False})
    sampling = cls.__new__(cls)
    torch.nn.Module.__init__(sampling)
    sampling.copies = {}
    kind.__init__(sampling, SimpleNamespace(sampling_settings=settings))
    sampling.fixed = True
    return sampling


def with_betas(model, schedule: str, first: float, last: float, who: str):
    """A clone of `model` with 1000 betas from `first` to `last`. schedule: the host's name (linear: evenly spaced roots; sqrt_linear:
    evenly spaced betas). What the model predicts (noise or velocity) stays. Raises ValueError for a model without betas, and when a run
    starts for a model whose schedule another node has replaced since."""
    old = model.get_model_object("model_sampling")
    if not isinstance(old, comfy.model_sampling.ModelSamplingDiscrete) or not hasattr(old, "linear_start"):
        raise ValueError(f"{who} sets the betas of the noise schedule, {type(model.model).__name__} with {type(old).__name__} has none. "
                         f"Load an SD1.5 or SDXL checkpoint, or choose beta_schedule 'keep'.")
    kind = next(base for base in type(old).__mro__ if not issubclass(base, OwnTables))
    sampling = own_tables(kind, dict(model.model.model_config.sampling_settings, beta_schedule=schedule, linear_start=first, linear_end=last, zsnr=old.zsnr))

    def check(executor, *args, **kwargs):
        now = executor.class_obj.model_patcher.get_model_object("model_sampling")
        if not isinstance(now, OwnTables):
            raise ValueError(f"{who} set the noise schedule of its motion module, and a later node has replaced it by its own ({type(now).__name__}): the clip would not hold "
                             f"together. Move the Model Sampling node in front of {who}, or set beta_schedule there to 'keep' if that is what you want.")
        return executor(*args, **kwargs)

    m = model.clone()
    m.add_object_patch("model_sampling", sampling)
    m.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    m.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, check)
    return m
