"""Noise schedules of motion modules against published values."""
from types import SimpleNamespace

import comfy.model_sampling
import comfy.sd
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from firstframe.demo import in_process
from firstframe.nodes.motion_module import BETAS
from firstframe.samplers.beta_schedule import own_tables, with_betas
from firstframe.tests import tiny_models as tiny
from firstframe.tests.dynamic_mode import dynamic_mode

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


@pytest.mark.parametrize("kind", ["eps", "v_prediction", "lcm"])
def test_tables_of_its_own_are_those_of_the_hosts_buffers(kind):
    """The same numbers as a stock model_sampling with these settings, from a table on the device of the call."""
    old = sampling(ModelSamplingDiscrete().patch(tiny.model(), kind, False)[0] if kind != "eps" else tiny.model())
    settings = dict(beta_schedule="sqrt_linear", linear_start=0.00085, linear_end=0.012)
    stock, ours = type(old)(SimpleNamespace(sampling_settings=settings)), own_tables(type(old), settings)
    assert not dict(ours.named_buffers()) and torch.equal(stock.sigmas, ours.sigmas) and torch.equal(stock.log_sigmas, ours.log_sigmas)
    t = torch.linspace(0, 999, 37)
    assert torch.equal(stock.sigma(t), ours.sigma(t)) and torch.equal(stock.timestep(stock.sigma(t)), ours.timestep(ours.sigma(t)))
    assert stock.percent_to_sigma(0.37) == ours.percent_to_sigma(0.37)
    ours.register_buffer("sigmas", torch.zeros(3))
    assert torch.equal(stock.sigmas, ours.sigmas)
    with torch.device("meta"):
        assert ours.on(torch.device("meta")).log_sigmas.device.type == "meta" and ours.log_sigmas.device.type == "cpu"


def demo_model():
    return comfy.sd.load_checkpoint_guess_config(str(in_process.CHECKPOINT), output_vae=False, output_clip=False)[0]


def test_in_dynamic_mode_no_run_has_the_noise_levels_of_the_one_before():
    """plain, motion, plain, motion, plain: each as in ordinary mode."""
    with torch.inference_mode():
        def runs():
            plain = demo_model()
            moving = with_betas(plain, *BETAS["AnimateDiff (sqrt_linear)"], "test")
            return [tiny.sample(m, tiny.latents(2), steps=2, sigma=8.0) for m in (plain, moving, plain, moving, plain)]
        expected = runs()
        assert not torch.equal(expected[0], expected[1])
        with dynamic_mode():
            assert all(torch.equal(a, b) for a, b in zip(runs(), expected))


def test_a_later_model_sampling_node_is_noticed_before_sampling():
    """It would drop AnimateDiff's schedule without a word: first sigma 14.6 instead of 25.1."""
    moving, z = with_betas(tiny.model(), *BETAS["AnimateDiff (sqrt_linear)"], "Apply Motion Module"), tiny.latents(2)
    for kind in ("lcm", "v_prediction"):
        with pytest.raises(ValueError, match="Apply Motion Module set the noise schedule.*Move the Model Sampling node in front of Apply Motion Module.*'keep'"):
            tiny.sample(ModelSamplingDiscrete().patch(moving, kind, False)[0], z)
    before = with_betas(ModelSamplingDiscrete().patch(tiny.model(), "lcm", False)[0], *BETAS["AnimateDiff (sqrt_linear)"], "Apply Motion Module")
    assert float(sampling(before).sigma_max) == pytest.approx(25.1461, rel=1e-4)
    twice = with_betas(moving, *BETAS["SD (linear)"], "Apply Motion Module")  # a second module decides
    for m in (before, twice):
        assert torch.isfinite(tiny.sample(m, z)).all()
