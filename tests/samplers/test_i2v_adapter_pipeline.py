"""The official I2V-Adapter sampling (golden i1): clean first frame, betas of the motion module, guidance, DDIM; through the host's sampler and our patch, step by step."""
from pathlib import Path

import comfy.sample
import comfy.samplers
import torch
from firstframe.attention_patches import clean_frame
from firstframe.samplers.beta_schedule import with_betas
from firstframe.samplers.ddim import sigmas_of
from firstframe.tests import tiny_models as tiny
from firstframe.tests.golden_stub import stub
from safetensors.torch import load_file

GOLDEN = Path(__file__).parents[1] / "golden" / "i1_i2v_adapter_pipeline.safetensors"


def test_every_step_is_the_official_one():
    g = load_file(GOLDEN)
    model, frames = tiny.model(), g["in.noise"].shape[2]
    model.model.diffusion_model._forward = stub(g, frames)
    space = model.get_model_object("latent_format")
    model = with_betas(model, "sqrt_linear", 0.00085, 0.012, "N")
    picture = space.process_out(g["in.first_frame_latent"][:, :, 0])
    m = clean_frame.keep(model, picture, "N")
    sigmas = torch.cat([sigmas_of(m.get_model_object("model_sampling"), g["out.timesteps"].tolist()), torch.zeros(1)])
    start = g["out.initial_latents"][0].transpose(0, 1) * (1 + sigmas[0] ** 2) ** 0.5
    seen = []
    out = comfy.sample.sample_custom(m, torch.zeros_like(start), 7.5, comfy.samplers.sampler_object("euler"), sigmas, [[g["in.context_cond"], {}]], [[g["in.context_uncond"], {}]],
                                     space.process_out(start), callback=lambda i, x0, x, total: seen.append(x / (1 + sigmas[i] ** 2) ** 0.5), disable_pbar=True, seed=0)
    found = [x.transpose(0, 1)[None] for x in (*seen[1:], space.process_in(out))]
    for x, expected in zip(found, g["out.latents_after_step"]):
        assert tiny.difference(x[:, :, 1:], expected[:, :, 1:]) <= 1e-4
    assert torch.equal(out[0], picture[0]) and tiny.difference(found[-1], g["out.latents_after_step"][-1]) <= 1e-4
