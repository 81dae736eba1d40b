"""A small DynamiCrafter through the host's patcher, guider and samplers: what its calls get, in whatever pieces they come."""
import comfy.model_patcher
import comfy.sample
import pytest
import torch
from firstframe.networks.lvdm_model import LvdmConfig
from firstframe.networks.lvdm_unet import as_ours, layout_of
from firstframe.samplers.dynamic_rescale import DynamicRescale
from firstframe.tests import tiny_models as tiny
from firstframe.tests.networks.test_lvdm_unet import CONFIG, FILE
from safetensors.torch import load_file

G = load_file(FILE)
F = 4


def model(rescale_base=None):
    sd = as_ours({k.removeprefix("w.model.diffusion_model."): v.float() for k, v in G.items() if k.startswith("w.")})
    config = LvdmConfig(CONFIG, layout_of(sd, head=16), rescale_base)
    config.set_inference_dtype(torch.float32, None)
    patcher = comfy.model_patcher.CoreModelPatcher(config.get_model({}, device=tiny.CPU), load_device=tiny.CPU, offload_device=tiny.CPU)
    patcher.model.load_model_weights(sd, assign=patcher.is_dynamic())
    return patcher


def said(row: int, **options) -> list:
    """CONDITIONING of the golden file's text, image tokens and frame stride."""
    z = G["in.x_noisy_then_concat"][row, 4:].transpose(0, 1) / 0.18215
    return [[G["in.context"][row:row + 1, :77], {"image_tokens": G["in.context"][row:row + 1, 77:], "fps": int(G["in.fs"][row]), "concat_latent_image": z, **options}]]


def sampled(m, positive=None, negative=None, cfg=3.0, **rest):
    noise = torch.randn(F, 4, 16, 8, generator=torch.Generator().manual_seed(1))
    return comfy.sample.sample(m, noise, 3, cfg, "euler", "normal", positive or said(0), negative or said(1), torch.zeros_like(noise), disable_pbar=True, seed=1, **rest)


def test_a_call_is_the_official_one():
    m, x = model(), G["in.x_noisy_then_concat"]
    m.patch_model()
    sampling, expected = m.model.model_sampling, G["out.eps_or_v"]
    for row in (0, 1):
        sigma = sampling.sigma(G["in.timesteps"][row].float())[None]
        z = x[row, :4].transpose(0, 1) * (1 + sigma**2) ** 0.5
        conds = m.model.extra_conds(noise=z, device=tiny.CPU, cross_attn=said(row)[0][0], **said(row)[0][1])
        given = {k: cond.process_cond(batch_size=F, area=None).cond for k, cond in conds.items()}
        D = m.model.apply_model(z, sigma.repeat(F), transformer_options={"cond_or_uncond": [0]}, **given)
        assert tiny.difference((z - D) / sigma, expected[row].transpose(0, 1)) <= 1e-4
    m.unpatch_model()


def test_each_conditioning_keeps_its_own():
    m = model()
    whole = sampled(m)
    assert torch.equal(whole, sampled(m)) and torch.isfinite(whole).all()
    for option in ("image_tokens", "fps", "concat_latent_image"):
        assert tiny.difference(sampled(m, said(0, **{option: None})), whole) > 1e-4 and tiny.difference(sampled(m, negative=said(1, **{option: None})), whole) > 1e-4, option


def test_however_the_host_splits_the_batch(monkeypatch):
    m = model()
    together = sampled(m)
    monkeypatch.setattr(type(m.model), "memory_required", lambda *_, **__: 1e15)
    assert tiny.difference(sampled(m), together) <= 1e-5


@pytest.mark.parametrize("base", [None, 0.7])
def test_its_noise_schedule(base):
    sampling = model(base).get_model_object("model_sampling")
    assert isinstance(sampling, DynamicRescale) == (base is not None) and (sampling.sigma_max > 1000) == (base is not None)


def test_no_class_of_the_host_is_touched():
    import comfy.supported_models
    assert LvdmConfig not in comfy.supported_models.models
