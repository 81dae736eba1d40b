"""What is made for SD2.1 on a small DynamiCrafter: LoRAs find the same weights, a ControlNet guides each frame, and the host's context windows and sizes work."""
import comfy.context_windows
import comfy.controlnet
import comfy.lora
import comfy.model_base
import comfy.ops
import comfy.sample
import comfy.sd
import comfy.supported_models
import pytest
import torch
from comfy.cldm.cldm import ControlNet
from firstframe.networks.lvdm_model import from_file
from firstframe.tests import lvdm_files as files
from firstframe.tests import tiny_models as tiny

WIDTH, FRAMES = 64, 3


@pytest.fixture(scope="module")
def m():
    sd = files.file(WIDTH)
    return from_file(lambda: sd, "f")


def said(seed: int, **options) -> list:
    generator = torch.Generator().manual_seed(seed)
    text, tokens = torch.randn(1, 77, WIDTH, generator=generator), torch.randn(1, files.TOKENS, WIDTH, generator=generator)
    return [[text, {"image_tokens": tokens, "fps": 24, "concat_latent_image": tiny.latents(1, 8), **options}]]


def clip(m, frames: int = FRAMES, positive=None, size: tuple = (8, 8)) -> torch.Tensor:
    noise = torch.randn(frames, 4, *size, generator=torch.Generator().manual_seed(4))
    return comfy.sample.sample(m, noise, 2, 3.0, "euler", "normal", positive or said(1), said(2), torch.zeros_like(noise), disable_pbar=True, seed=1)


def test_every_name_of_an_sd2_lora_finds_the_same_weight(m):
    config = {**files.CONFIG, "context_dim": WIDTH, "in_channels": 4}
    plain = comfy.supported_models.SD20(config)
    plain.unet_config |= config
    plain.set_inference_dtype(torch.float32, None)
    theirs, ours = (comfy.lora.model_lora_keys_unet(model, {}) for model in (plain.get_model({}, "", device=tiny.CPU), m.model))
    assert len(theirs) > 300 and {name: ours.get(name) for name in theirs} == theirs


def test_a_lora_counts_and_can_be_taken_off(m):
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v"
    generator = torch.Generator().manual_seed(3)
    up, down = torch.randn(files.C, 2, generator=generator), torch.randn(2, WIDTH, generator=generator)
    lora = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down, f"{name}.alpha": torch.tensor(2.0)}
    before = clip(m)
    with_lora, _ = comfy.sd.load_lora_for_models(m, None, lora, 1.0, 0.0)
    assert tiny.difference(clip(with_lora), before) > 1e-3 and torch.equal(clip(m), before)


def control_net() -> comfy.controlnet.ControlNet:
    config = {k: v for k, v in files.CONFIG.items() if k not in ("out_channels", "transformer_depth_output", "in_channels")}
    net = ControlNet(hint_channels=3, in_channels=4, context_dim=WIDTH, dtype=torch.float32, device=tiny.CPU, operations=comfy.ops.disable_weight_init, **config)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / (p[0].numel() ** 0.5 if p.ndim > 1 else 10))
    return comfy.controlnet.ControlNet(net, load_device=tiny.CPU, manual_cast_dtype=None)


def test_a_control_net_guides_each_frame(m):
    net, hints = control_net(), torch.rand(FRAMES, 3, 64, 64, generator=torch.Generator().manual_seed(7))

    def guided(strength, hint=hints):
        control = net.copy().set_cond_hint(hint, strength, (0.0, 1.0))
        return clip(m, positive=said(1, control=control, control_apply_to_uncond=False))

    whole = guided(1.0)
    plain = clip(m)
    assert tiny.difference(guided(0.0), plain) <= 5e-3 and tiny.difference(whole, plain) > 0.1  # the halves are then two calls, and the first level is high
    other = hints.clone()
    other[2] = 0
    assert tiny.difference(guided(1.0, other), whole) > 1e-4


@pytest.mark.parametrize("frames, size", [(2, (8, 8)), (5, (8, 16)), (20, (16, 8))])
def test_other_numbers_of_frames_and_sizes(m, frames, size):
    found = clip(m, frames, size=size)
    assert found.shape == (frames, 4, *size) and torch.isfinite(found).all()


def test_in_context_windows_each_frame_is_sampled_with_its_window(m):
    handler = comfy.context_windows.IndexListContextHandler(
        context_schedule=comfy.context_windows.get_matching_context_schedule("standard_static"), fuse_method=comfy.context_windows.get_matching_fuse_method("pyramid"),
        context_length=3, context_overlap=0, dim=0)
    windowed = m.clone()
    windowed.model_options["context_handler"] = handler
    z = tiny.latents(1, 8)
    apart = clip(windowed, 6, positive=said(1, concat_latent_image=torch.cat([z] * 5 + [z * 0])))
    same = clip(windowed, 6, positive=said(1, concat_latent_image=torch.cat([z] * 6)))
    assert tiny.difference(apart[3:], same[3:]) > 1e-4 and tiny.difference(apart[:3], same[:3]) <= 1e-5  # the last frame's picture reaches its own window alone


@pytest.mark.parametrize("preset", ["official code", "paper"])
def test_an_anchor_comes_to_life_on_it(m, preset):
    from firstframe.nodes.i4vgen import AnimateAnchor
    z = tiny.latents(1, 8)
    found = AnimateAnchor.execute(m, said(1), said(2), {"samples": z}, FRAMES, 5, 6, 7.5, "simple", preset, 0.4, "1").result[0]["samples"]
    assert found.shape == (FRAMES, 4, 8, 8) and torch.isfinite(found).all() and tiny.difference(found[1], found[0]) > 1e-3


def test_what_is_for_image_models_is_refused(m):
    from firstframe.networks.motion_module_files import motion_module
    from firstframe.nodes.motion_module import MotionModuleApply
    from firstframe.nodes.pilife import PCFAPatch
    from firstframe.tests import motion_files
    module = motion_module(motion_files.module(tiny.model(**tiny.SMALL), "v3"), "f")
    for apply in (lambda: PCFAPatch.execute(m, 0.5, 0, 0.0, 1.0), lambda: MotionModuleApply.execute(m, module, 1.0, 0.0, 1.0)):
        with pytest.raises(ValueError, match="needs an image UNet .*got the video model LvdmModel, which relates its frames itself"):
            apply()
