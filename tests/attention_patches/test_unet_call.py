"""What riders of a MODEL share: readings of the device, the range of the model that samples, and who rides."""
import comfy.samplers
import pytest
import torch
from firstframe.attention_patches import cross_frame, unet_call
from firstframe.attention_patches.attention_map import capture
from firstframe.attention_patches.inserted_layers import insert
from firstframe.networks import motion_module as network
from firstframe.networks.motion_module_files import motion_module
from firstframe.nodes.pilife import chooser
from firstframe.prompts.tokens import MotionTokens
from firstframe.samplers.beta_schedule import with_betas
from firstframe.tests import motion_files
from firstframe.tests import tiny_models as tiny


@pytest.fixture(scope="module")
def model():
    return tiny.model(**tiny.SMALL)


@pytest.fixture(scope="module")
def motion(model):
    return motion_module(motion_files.module(model), "f")


def pcfa(m, **options):
    return cross_frame.patch(m, chooser("PCFA", 0.4, 3), "PCFA", **options)


def test_the_step_is_the_nearest_of_the_schedule():
    seen = unet_call.Seen({"sigmas": torch.tensor([3.1, 3.1]), "sample_sigmas": torch.tensor([9.0, 4.0, 3.0, 1.0, 0.0])})
    assert seen.step() == 2 and float(seen.sigma) == pytest.approx(3.1)
    nobody = unet_call.Seen({})
    assert nobody.step() == 0 and nobody.sigma is None and nobody.within(0.3, 0.7)


class CountsReadings(torch.Tensor):
    """The run's sigmas as they would lie on a card: every number that comes back from there is counted."""

    counted: list = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func.__name__ in ("item", "__float__", "__int__", "__bool__", "tolist", "cpu"):
            cls.counted.append(func.__name__)
            args = tuple(a.as_subclass(torch.Tensor) if isinstance(a, cls) else a for a in args)  # what has come back costs nothing more
            return func(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs or {})


def test_one_number_is_read_back_per_call_by_all_riders_together(model, motion, monkeypatch):
    m, heard = insert(insert(pcfa(model, start_percent=0.1), motion, "A", end_percent=0.8), motion, "B", start_percent=0.2, end_percent=0.9), []
    unet = model.get_model_object("diffusion_model")
    monkeypatch.setattr(CountsReadings, "counted", heard)
    sampling, base = m.get_model_object("model_sampling"), m.model
    sigmas = torch.tensor([3.0, 1.5, 0.0])
    options = {**m.model_options["transformer_options"], "wrappers": m.wrappers, unet_call.RUN: unet_call.Run(sampling, sigmas, m),
               "sample_sigmas": sigmas.as_subclass(CountsReadings), "sigmas": torch.full((3,), 1.5).as_subclass(CountsReadings)}
    calls = []
    watch = unet.register_forward_pre_hook(lambda module, args: calls.append(1))
    with torch.no_grad():
        base.apply_model(tiny.latents(3, 8), torch.full((3,), 1.5), c_crossattn=tiny.conditioning(1)[0][0].expand(3, -1, -1), transformer_options=options)
    watch.remove()
    assert calls == [1] and heard == ["cpu"]


def test_positions_are_made_once_per_call(model, motion, monkeypatch):
    made, real = [], network.positions
    monkeypatch.setattr(network, "positions", lambda numbers, channels, like: made.append(channels) or real(numbers, channels, like))
    tiny.sample(insert(model, motion, "A"), tiny.latents(3, 8), steps=2, cfg=1.0)
    assert made == [32, 32]


def test_the_range_is_that_of_the_model_that_samples(model):
    """PCFA before and after a node that changes the betas: the same bits at every noise level."""
    def betas(m):
        return with_betas(m, "sqrt_linear", 0.00085, 0.012, "test")

    before, after, whole = betas(pcfa(model, start_percent=0.3, end_percent=0.7)), pcfa(betas(model), start_percent=0.3, end_percent=0.7), betas(pcfa(model))
    z, acts = tiny.latents(3, 8), []
    theirs, own = (m.get_model_object("model_sampling") for m in (after, model))
    edges = [float(s.percent_to_sigma(p)) for p in (0.3, 0.7) for s in (theirs, own)]
    for sigma in (12.0, sum(edges[:2]) / 2, sum(edges) / 4, sum(edges[2:]) / 2, 0.1):
        one = tiny.sample(before, z, sigma=sigma)
        assert torch.equal(one, tiny.sample(after, z, sigma=sigma))
        acts.append(torch.equal(one, tiny.sample(whole, z, sigma=sigma)))
    assert any(acts) and not all(acts)


def test_the_range_of_motion_layers_is_that_of_the_model_that_samples(model, motion):
    late = with_betas(insert(model, motion, "A", start_percent=0.3, end_percent=0.7), "sqrt_linear", 0.00085, 0.012, "test")
    early = insert(with_betas(model, "sqrt_linear", 0.00085, 0.012, "test"), motion, "A", start_percent=0.3, end_percent=0.7)
    edges = [float(m.get_model_object("model_sampling").percent_to_sigma(0.3)) for m in (early, model)]
    z = tiny.latents(3, 8)
    for sigma in (sum(edges) / 2, 1.0):
        assert torch.equal(tiny.sample(late, z, sigma=sigma), tiny.sample(early, z, sigma=sigma))


def test_the_nodes_that_relate_frames_are_known_by_name(model, motion):
    m = insert(pcfa(model), motion, "Apply Motion Module")
    assert unet_call.riders(model) == [] and unet_call.riders(m) == unet_call.riders(m.clone()) == ["PCFA", "Apply Motion Module"]
    assert unet_call.riders(insert(model, motion, "off", strength=0.0)) == []
    assert unet_call.riders(capture(model, MotionTokens((2,), 7, ("moving",)), (8, 8), "Motion Attention Map")[0]) == []


def test_layers_that_the_model_of_the_call_does_not_carry_are_an_error(model, motion):
    m = insert(model, motion, "A")
    m.additional_models.clear()
    with pytest.raises(RuntimeError, match="A: this call of the UNet comes from a model that does not carry the layers"):
        tiny.sample(m, tiny.latents(3, 8))


def test_the_positive_conditionings_are_those_of_the_guiders_own_list():
    """Not those that a guider happens to pass first; a copy of an area's in both lists is told by its number."""
    conds = {"negative": [{"uuid": "n"}, {"uuid": "both"}], "middle": [{"uuid": "m"}], "positive": [{"uuid": "p"}, {"uuid": "both"}, {}]}
    options = {unet_call.RUN: unet_call.Run(None, None, conds=conds)}

    def positive(**call):
        return unet_call.Seen(options).positive(call)

    assert positive(cond_or_uncond=[0, 1, 2], uuids=["n", "m", "p"]) == [False, False, True]
    assert positive(cond_or_uncond=[1, 0, 0], uuids=["both", "both", "unknown"]) == [False, True, True]
    assert positive(cond_or_uncond=[1, 0]) == [False, True] and positive() == [True]
    only = {unet_call.RUN: unet_call.Run(None, None, conds={"some": [{"uuid": "s"}]})}
    assert unet_call.Seen(only).positive({"cond_or_uncond": [0, 1], "uuids": ["s", "s"]}) == [True, False]


def test_a_pass_of_the_negative_alone_is_one(model):
    """As in SelfAttentionGuidance, which passes it as the first."""
    heard = []

    def during(call, proceed):
        heard.append((list(call.options["cond_or_uncond"]), call.seen.positive(call.options)))
        return proceed()

    def again(args):
        comfy.samplers.calc_cond_batch(args["model"], [args["uncond"]], args["input"], args["sigma"], args["model_options"])
        return args["denoised"]

    m = unet_call.ride(model, "test", "test", during)
    m.set_model_sampler_post_cfg_function(again)
    tiny.sample(m, tiny.latents(2, 8))
    assert heard == [([1, 0], [False, True]), ([0], [False])]
