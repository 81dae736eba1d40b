"""Noise schedules of motion modules against published values."""
import comfy.model_sampling
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from firstframe.nodes.motion_module import BETAS
from firstframe.samplers.beta_schedule import with_betas
from firstframe.tests import tiny_models as tiny

VALUES = {  # alpha-bar at some timesteps, from the official configurations
    "AnimateDiff (sqrt_linear)": {0: 0.9991500, 1: 0.9982895, 361: 0.3539084, 481: 0.1813882, 961: 0.00247833, 999: 0.00157896},
    "AnimateDiff SDXL (linear, 0.020)": {0: 0.9991500, 999: 2.30013e-4},
    "SD (linear)": {0: 0.9991500, 1: 0.9982960, 481: 0.3022955, 961: 0.00728172, 981: 0.00577550, 999: 0.00466010},
}


def sampling(model):
    return model.get_model_object("model_sampling")


@pytest.mark.parametrize("name", BETAS)
def test_published_values(name):
    model = tiny.model()
    before = sampling(model).sigmas.clone()
    sigmas = sampling(with_betas(model, *BETAS[name], "test")).sigmas.double()
    for t, abar in VALUES[name].items():
        assert float(1 / (1 + sigmas[t] ** 2)) == pytest.approx(abar, rel=2e-6)
    assert torch.equal(sampling(model).sigmas, before)


@pytest.mark.parametrize("kind,base", [("v_prediction", comfy.model_sampling.V_PREDICTION), ("eps", comfy.model_sampling.EPS)])
def test_what_the_model_predicts_stays(kind, base):
    m = ModelSamplingDiscrete().patch(tiny.model(), kind, False)[0]
    new = sampling(with_betas(m, *BETAS["AnimateDiff (sqrt_linear)"], "test"))
    assert isinstance(new, base) and float(new.sigma_max) == pytest.approx(25.1461, rel=1e-4)


def test_models_without_betas_are_refused():
    from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM
    m = ModelSamplingContinuousEDM().patch(tiny.model(), "v_prediction", 120.0, 0.002)[0]
    with pytest.raises(ValueError, match="has none.*choose beta_schedule 'keep'"):
        with_betas(m, *BETAS["SD (linear)"], "Apply Motion Module")
