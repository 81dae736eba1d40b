"""A small DynamiCrafter through the host's patcher, guider and samplers: what its calls get, in whatever pieces they come."""
import comfy.cli_args
import comfy.model_management
import comfy.sample
import pytest
import torch
from comfy.model_sampling import V_PREDICTION
from firstframe.networks.lvdm_model import LvdmConfig, from_file, in_patcher
from firstframe.networks.lvdm_unet import as_ours, layout_of
from firstframe.samplers.dynamic_rescale import DynamicRescale, DynamicRescaleEPS
from firstframe.tests import tiny_models as tiny
from firstframe.tests.dynamic_mode import dynamic_mode
from firstframe.tests.networks.test_lvdm_files import VIDEOCRAFTER, published
from firstframe.tests.networks.test_lvdm_unet import CONFIG, FILE
from safetensors.torch import load_file

G = load_file(FILE)
F = 4


def model(rescale_base=None):
    sd = as_ours({k.removeprefix("w.model.diffusion_model."): v.float() for k, v in G.items() if k.startswith("w.")})
    return in_patcher(sd, CONFIG, layout_of(sd, head=16), rescale_base)


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
    m, calls = model(), []
    forward = type(m.model.diffusion_model)._forward
    monkeypatch.setattr(type(m.model.diffusion_model), "_forward", lambda self, x, *args, **kwargs: calls.append(len(x)) or forward(self, x, *args, **kwargs))
    together = sampled(m)
    monkeypatch.setattr(type(m.model), "memory_required", lambda *_, **__: 1e15)
    assert tiny.difference(sampled(m), together) <= 1e-5 and calls == [2 * F] * 3 + [F] * 6


@pytest.mark.parametrize("base", [None, 0.7])
def test_its_noise_schedule(base):
    sampling = model(base).get_model_object("model_sampling")
    assert isinstance(sampling, DynamicRescale) == (base is not None) and (sampling.sigma_max > 1000) == (base is not None)


def test_no_class_of_the_host_is_touched():
    import comfy.supported_models
    assert LvdmConfig not in comfy.supported_models.models


def of_file(version: str, dtype=torch.float32):
    """A fifth of the width, in the published format, with weights that leave numbers of ordinary size."""
    generator = torch.Generator().manual_seed(5)
    sd = {k: v if k == "scale_arr" else (torch.randn(v.shape, generator=generator) / max(1, v.shape[1:].numel() if v.ndim else 1) ** 0.5).to(dtype)
          for k, v in published(version).items()}
    return from_file(lambda: sd, "f")


def clip_of(m, **options) -> torch.Tensor:
    """Two frames, with tokens for each; options: of the prompt, None: left out."""
    noise, generator = tiny.latents(2, 8, seed=4), torch.Generator().manual_seed(6)
    text, tokens = torch.randn(1, 77, 1024, generator=generator), torch.randn(1, 32, 1024, generator=generator)
    said = {"image_tokens": tokens, "fps": 24, "concat_latent_image": tiny.latents(1, 8)} | options
    cond = [[text, {key: value for key, value in said.items() if value is not None}]]
    return comfy.sample.sample(m, noise, 2, 1.0, "euler", "normal", cond, cond, torch.zeros_like(noise), disable_pbar=True, seed=1)


@pytest.mark.parametrize("version", ["256", "512", "VideoCrafter1 1024"])
def test_the_same_bits_in_dynamic_mode_and_with_little_memory(version, monkeypatch):
    expected = clip_of(of_file(version))
    with dynamic_mode():
        m = of_file(version)
        assert m.is_dynamic() and torch.equal(clip_of(m), expected)
    comfy.model_management.unload_all_models()
    monkeypatch.setattr(comfy.model_management, "vram_state", comfy.model_management.VRAMState.NO_VRAM)
    monkeypatch.setattr(comfy.model_management, "is_device_cpu", lambda device: False)  # on a CPU the host sees no need to save memory
    assert torch.equal(clip_of(of_file(version)), expected)


def test_another_copy_is_read_again():
    m = of_file("512")
    function, args = m.cached_patcher_init
    assert torch.equal(clip_of(function(*args, disable_dynamic=True)), clip_of(m))


@pytest.mark.parametrize("version", VIDEOCRAFTER)
def test_videocrafters_read_what_they_have_layers_for(version):
    m, whole = of_file(version), None
    sampling, tokens = m.get_model_object("model_sampling"), torch.randn(1, 16, 1024, generator=torch.Generator().manual_seed(6))
    assert isinstance(sampling, DynamicRescaleEPS) == (version != "VideoCrafter1 512") and not isinstance(sampling, V_PREDICTION)
    assert float(sampling.sigma_max) == pytest.approx(14.6146 / {"VideoCrafter1 512": 1, "VideoCrafter1 1024": 0.3}.get(version, 0.7), rel=1e-4)
    whole = clip_of(m, image_tokens=tokens)
    assert whole.isfinite().all() and torch.equal(clip_of(m, image_tokens=tokens, concat_latent_image=None), whole)
    assert torch.equal(clip_of(m, image_tokens=tokens, fps=16), clip_of(m, image_tokens=tokens, fps=None))  # what the official UNet takes for unsaid
    for option, counts in (("fps", version != "VideoCrafter1 512"), ("image_tokens", version.endswith("image to video"))):
        assert (tiny.difference(clip_of(m, **{"image_tokens": tokens, option: None}), whole) > 1e-4) == counts, option


@pytest.mark.parametrize("version", VIDEOCRAFTER)
def test_every_weight_of_videocrafter_counts(version):
    """In a clip so long that it asks every row of the tables."""
    unet, generator = of_file(version).model.diffusion_model.requires_grad_(True), torch.Generator().manual_seed(7)
    x, context, tokens = (torch.randn(17, *shape, generator=generator) for shape in ((4, 16, 8), (5, 1024), (16, 1024)))
    unet(x, timesteps=torch.full((17,), 300.0), context=context, fps=torch.full((17,), 8.0), image_tokens=tokens).square().sum().backward()
    for name, weight in unet.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name
        assert not name.endswith("embeddings_table") or weight.grad.any(1).all(), name


def test_videocrafters_tokens_are_for_every_frame():
    m, tokens = of_file("VideoCrafter1 512 image to video"), torch.randn(1, 16, 1024, generator=torch.Generator().manual_seed(6))
    assert tiny.difference(clip_of(m, image_tokens=tokens), clip_of(m, image_tokens=tokens.repeat(1, 2, 1))) <= 1e-6


@pytest.mark.parametrize("option, dtype, most", [("fp8_e4m3fn_unet", torch.float8_e4m3fn, 0.3), ("bf16_unet", torch.bfloat16, 0.03)])
@pytest.mark.parametrize("version", ["256", "VideoCrafter1 1024"])
def test_other_precisions(version, option, dtype, most, monkeypatch):
    expected = clip_of(of_file(version))
    monkeypatch.setattr(comfy.cli_args.args, option, True)
    coarse = of_file(version)
    assert {p.dtype for p in coarse.model.diffusion_model.parameters()} == {dtype} and 0 < tiny.difference(clip_of(coarse), expected) < most
