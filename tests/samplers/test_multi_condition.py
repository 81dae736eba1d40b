"""Multi-condition guidance through the host: the published formula written out, what is left out, guidance rescale, and what else hangs on the host's guidance."""
import comfy.samplers
import pytest
import torch
from firstframe.samplers.multi_condition import NO_TEXT, MultiConditionGuider, picture_without_text, rescaled
from firstframe.tests import tiny_models as tiny
from firstframe.tests.networks.test_lvdm_model import F, model, said


def guided(m, cfg: float, image_cfg: float, rescale: float = 0.0, sigma: float = 3.0, positive=None) -> torch.Tensor:
    """D after guidance at one level, by the guider's own way through the host: one step of euler to 0."""
    made = MultiConditionGuider(m)
    made.set_conds(positive or said(0), said(1))
    made.set_cfg(cfg, image_cfg, rescale)
    return sampled(m, made, sigma)


def sampled(m, made, sigma: float = 3.0) -> torch.Tensor:
    noise = torch.randn(F, 4, 16, 8, generator=torch.Generator().manual_seed(1))
    out = made.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), torch.tensor([sigma, 0.0]), seed=1, disable_pbar=True)
    return m.get_model_object("latent_format").process_in(out)


def plain(m, positive: list, negative: list, cfg: float, sigma: float = 3.0) -> torch.Tensor:
    made = comfy.samplers.CFGGuider(m)
    made.set_conds(positive, negative)
    made.set_cfg(cfg)
    return sampled(m, made, sigma)


def of_each(m, sigma: float = 3.0) -> tuple:
    """D of the three conditionings, one call for each."""
    return tuple(plain(m, said_, said_, 1.0, sigma) for said_ in (said(0), said(1), picture_without_text(said(0), said(1))))


def calls(m, monkeypatch) -> list:
    """Fills with the conditionings of each UNet call."""
    counted, forward = [], type(m.model.diffusion_model)._forward
    monkeypatch.setattr(type(m.model.diffusion_model), "_forward", lambda self, x, *args, **kwargs: counted.append(len(x) // F) or forward(self, x, *args, **kwargs))
    return counted


@pytest.mark.parametrize("base", [None, 0.7])
@pytest.mark.parametrize("cfg, image_cfg", [(7.5, 3.0), (3.0, 7.5), (1.0, 3.0), (0.0, 3.0), (3.0, 0.0), (1.1, 7.5)])
def test_it_is_the_published_formula(base, cfg, image_cfg):
    m = model(base)
    c, u, u_img = of_each(m)
    assert tiny.difference(guided(m, cfg, image_cfg), u + image_cfg * (u_img - u) + cfg * (c - u_img)) <= 1e-5


@pytest.mark.parametrize("cfg, image_cfg, conditionings", [(3.0, 3.0, 2), (3.0, 1.0, 2), (1.0, 1.0, 1), (1.0, 3.0, 3), (3.0, 2.0, 3)])
def test_what_counts_for_nothing_is_not_called(cfg, image_cfg, conditionings, monkeypatch):
    m = model()
    counted = calls(m, monkeypatch)
    guided(m, cfg, image_cfg)
    assert sum(counted) == conditionings


def test_with_equal_scales_it_is_the_hosts_guider_to_the_bit_and_with_image_cfg_1_the_one_by_text():
    m = model()
    assert torch.equal(guided(m, 3.0, 3.0), plain(m, said(0), said(1), 3.0))
    assert torch.equal(guided(m, 3.0, 1.0), plain(m, said(0), picture_without_text(said(0), said(1)), 3.0))
    near = guided(m, 3.0, 3.0 + 1e-5)
    assert 0 < tiny.difference(near, guided(m, 3.0, 3.0)) < 1e-4


def test_equals_the_hosts_dual_guider():
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG
    m = model(0.7)
    dual = Guider_DualCFG(m)
    dual.set_conds(said(0), picture_without_text(said(0), said(1)), said(1))
    dual.set_cfg(7.5, 3.0)
    assert tiny.difference(guided(m, 7.5, 3.0), sampled(m, dual)) <= 1e-5


@pytest.mark.parametrize("base, sigma", [(None, 3.0), (0.7, 3.0), (0.7, 0.1), (0.3, 20.0)])
@pytest.mark.parametrize("cfg, image_cfg", [(7.5, 7.5), (7.5, 3.0)])
def test_rescale_is_that_of_the_networks_output(base, sigma, cfg, image_cfg):
    """By hand: v (or noise) from each D, guidance, rescale by the standard deviations over the clip, and back."""
    m = model(base)
    sampling = m.get_model_object("model_sampling")
    level = torch.tensor([sigma], dtype=torch.float64)
    s = sampling.scale(level, torch.ones(1, dtype=torch.float64)) if base else torch.ones((), dtype=torch.float64)
    true, noise = level * s, torch.randn(F, 4, 16, 8, generator=torch.Generator().manual_seed(1)).double() * level  # the guider's x at that level, if it is not the highest
    c, u, u_img = (D.double() for D in of_each(m, sigma))
    x = noise * s
    outputs = [(x / (1 + true**2) - D * s) * (1 + true**2).sqrt() / true if base else (x - D) / true for D in (c, u, u_img)]
    o = outputs[1] + image_cfg * (outputs[2] - outputs[1]) + cfg * (outputs[0] - outputs[2])
    o = 0.7 * o * outputs[0].std() / o.std() + 0.3 * o
    D = (x / (1 + true**2) - o * true / (1 + true**2).sqrt()) / s if base else x - true * o
    found = guided(m, cfg, image_cfg, 0.7, sigma)
    assert tiny.difference(found, D) <= 1e-4 and tiny.difference(found, guided(m, cfg, image_cfg, 0.0, sigma)) > 1e-3


def test_the_hosts_rescale_is_this_one_for_a_single_frame_and_another_for_a_clip():
    """The stock node takes each frame by itself, and knows of no dynamic rescale."""
    from comfy_extras.nodes_model_advanced import RescaleCFG
    D, x = tiny.latents(3, seed=2), 3 * tiny.latents(3, seed=3)
    m = model(1.0)
    stock = RescaleCFG().patch(m, 0.7)[0].model_options["sampler_cfg_function"]
    sampling, sigma = m.get_model_object("model_sampling"), torch.full((3,), 2.0)

    def both(D_cond, D_uncond, x, sigma):
        D = D_uncond + 7.5 * (D_cond - D_uncond)
        theirs = x - stock({"cond": x - D_cond, "uncond": x - D_uncond, "cond_scale": 7.5, "sigma": sigma, "input": x})
        return rescaled(D, D_cond, sampling.calculate_denoised(sigma, torch.zeros_like(x), x), 0.7), theirs
    ours, theirs = both(D[:1], 0.8 * D[:1] + 0.1, x[:1], sigma[:1])
    assert tiny.difference(ours, theirs) <= 1e-5
    D = D * torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1, 1)
    ours, theirs = both(D, 0.8 * D + 0.1, x, sigma)
    assert tiny.difference(ours, theirs) > 0.01


def test_rescale_0_and_no_guidance_leave_everything():
    m = model()
    assert torch.equal(guided(m, 3.0, 3.0, 0.0), plain(m, said(0), said(1), 3.0)) and tiny.difference(guided(m, 1.0, 1.0, 0.7), guided(m, 1.0, 1.0)) <= 1e-6


def test_guidance_functions_of_other_nodes_get_the_prompts_prediction_and_one_to_guide_against():
    m, seen = model(), []
    c, u, u_img = of_each(m)
    mixed = u + (7.5 - 3.0) / 6.5 * (u_img - u)
    patched = m.clone()
    patched.set_model_sampler_pre_cfg_function(lambda args: seen.append(("before", *args["conds_out"])) or args["conds_out"])
    patched.set_model_sampler_cfg_function(lambda args: args["input"] - 0.5 * (args["uncond_denoised"] + args["cond_scale"] * (args["cond_denoised"] - args["uncond_denoised"])))
    patched.set_model_sampler_post_cfg_function(lambda args: seen.append(("after", args["cond_denoised"], args["uncond_denoised"])) or args["denoised"] + 1)
    expected = 0.5 * (u + 3.0 * (u_img - u) + 7.5 * (c - u_img))
    assert tiny.difference(guided(patched, 7.5, 3.0), expected + 1) <= 1e-5
    assert [name for name, *_ in seen] == ["before", "after"] and all(tiny.difference(a, c) + tiny.difference(b, mixed) <= 1e-5 for _, a, b in seen)
    rescaled_too = guided(patched, 7.5, 3.0, 0.7)
    assert tiny.difference(rescaled_too, expected + 1) > 1e-3 and torch.isfinite(rescaled_too).all()


def test_a_function_that_makes_the_calls_itself_gets_pairs():
    m, pairs = model(), []
    patched = m.clone()

    def theirs(args):
        cond, uncond = args["conds"]
        pairs.append((cond is not None, uncond is not None))
        return comfy.samplers.calc_cond_batch(args["model"], [cond, uncond], args["input"], args["sigma"], args["model_options"])
    patched.set_model_sampler_calc_cond_batch_function(theirs)
    assert tiny.difference(guided(patched, 7.5, 3.0), guided(m, 7.5, 3.0)) <= 1e-5 and pairs == [(True, True), (False, True)]


def test_however_the_host_splits_the_batch(monkeypatch):
    m = model(0.7)
    counted = calls(m, monkeypatch)
    together = guided(m, 7.5, 3.0, 0.7)
    monkeypatch.setattr(type(m.model), "memory_required", lambda *_, **__: 1e15)
    assert tiny.difference(guided(m, 7.5, 3.0, 0.7), together) <= 1e-5 and counted == [3, 1, 1, 1]


def test_areas_and_ranges_are_the_hosts():
    m = model()
    half = [*said(0, area=(16, 4, 0, 0), strength=1.0, set_area_to_bounds=False), *said(1, area=(16, 4, 0, 4), strength=1.0, set_area_to_bounds=False)]
    half[1][1]["image_tokens"] = said(0)[0][1]["image_tokens"]
    out = guided(m, 7.5, 3.0, positive=half)
    assert torch.isfinite(out).all() and tiny.difference(out, guided(m, 7.5, 3.0)) > 1e-3
    assert torch.equal(guided(m, 7.5, 3.0, positive=said(0, start_percent=0.0, end_percent=1.0)), guided(m, 7.5, 3.0))


def test_the_third_conditioning_is_made_of_the_two_and_they_stay():
    positive, negative = said(0), said(1)
    tokens = negative[0][1]["image_tokens"]
    made = MultiConditionGuider(model())
    made.set_conds(positive, negative)
    third = made.original_conds[NO_TEXT][0]
    assert torch.equal(third["cross_attn"], negative[0][0]) and torch.equal(third["image_tokens"], positive[0][1]["image_tokens"])
    assert third["fps"] == negative[0][1]["fps"] and third["concat_latent_image"] is negative[0][1]["concat_latent_image"]
    assert negative[0][1]["image_tokens"] is tokens and "prompt_type" not in negative[0][1]


@pytest.mark.parametrize("positive, negative, message", [
    (said(0, image_tokens=None), said(1), "tokens in 'positive', and there are none"), (said(0), said(1, image_tokens=None), "tokens in 'negative', and there are none"),
    (said(0) + said(1), said(1), "tokens of several pictures in 'positive'"), (said(0), said(0), "same picture in 'positive' and 'negative'.*set image_cfg to 1"),
])
def test_what_is_refused(positive, negative, message):
    with pytest.raises(ValueError, match=f"Multi-Condition Guider .*{message}"):
        picture_without_text(positive, negative)


def test_context_windows_are_the_hosts():
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode
    m = ContextWindowsManualNode.execute(model(), 2, 1, "standard_static", 1, False, "pyramid", 0, False).result[0]
    c, u, u_img = of_each(m)
    assert tiny.difference(c, of_each(model())[0]) > 1e-3 and tiny.difference(guided(m, 7.5, 3.0), u + 3.0 * (u_img - u) + 7.5 * (c - u_img)) <= 1e-5
