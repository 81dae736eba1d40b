"""Null-text inversion on the host against the published procedure written with diffusers' scheduler: variance-preserving
latents, the same tiny UNet called without the host's samplers and model_sampling."""
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from firstframe.samplers.inversion import invert_picture
from firstframe.samplers.null_text import OPTIMISERS, Optimisation
from firstframe.tests import tiny_models as tiny

STEPS, START, GUIDANCE, INNER = 10, 701, 4.0, 4


@pytest.fixture(scope="module")
def m():
    model = tiny.model()
    with torch.no_grad():
        for p in model.model.diffusion_model.out[2].parameters():
            p.mul_(0.3)  # eps of about unit size, as a trained model's is
    return model


def reference(unet, z, c, u):
    """([z_0 .. z_T], [z*_T .. z*_0], [psi_T .. psi_1]) after Mokady et al.'s NullInversion."""
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=True, steps_offset=1)
    scheduler.set_timesteps(STEPS)
    timesteps = [t for t in scheduler.timesteps.tolist() if t <= START]

    def alpha(t):
        return scheduler.alphas_cumprod[t] if t >= 0 else scheduler.final_alpha_cumprod

    def eps(z, t, context):
        return unet(z, torch.tensor([t]), context)

    up = [z]
    with torch.no_grad():
        for t in reversed(timesteps):
            e, a, b = eps(up[-1], t, c), alpha(t - 1000 // STEPS), alpha(t)
            up.append(b.sqrt() * (up[-1] - (1 - a).sqrt() * e) / a.sqrt() + (1 - b).sqrt() * e)
    walked, found, psi = [up[-1]], [], u
    for i, t in enumerate(timesteps):
        psi = psi.detach().clone().requires_grad_()
        adam = torch.optim.Adam([psi], lr=1e-2 * (1 - i * 50 / STEPS / 100))
        with torch.no_grad():
            e_c = eps(walked[-1], t, c)
        for _ in range(INNER):
            e = eps(walked[-1], t, psi)
            loss = F.mse_loss(scheduler.step(e + GUIDANCE * (e_c - e), t, walked[-1]).prev_sample, up[-2 - i])
            adam.zero_grad()
            loss.backward()
            adam.step()
            if loss.item() < 1e-5 + i * 50 / STEPS * 2e-5:
                break
        found.append(psi.detach())
        with torch.no_grad():
            e = eps(walked[-1], t, psi)
            walked.append(scheduler.step(e + GUIDANCE * (e_c - e), t, walked[-1]).prev_sample)
    return up, walked, found


def test_the_published_procedure_gives_the_same_latents(m):
    z0, positive, negative = tiny.latents(1), tiny.conditioning(1), tiny.conditioning(2)
    _, ours = invert_picture(m, z0, positive, negative, mode="null-text", steps=STEPS, start=START, guidance=GUIDANCE, refine=0, begin="negative",
                             options=Optimisation(INNER, steps=STEPS, optimiser=OPTIMISERS[1]))
    up, walked, found = reference(m.model.diffusion_model, m.get_model_object("latent_format").process_in(z0), positive[0][0], negative[0][0])
    scale = (1 + ours.sigmas[:, None, None, None] ** 2).sqrt()
    assert tiny.difference(ours.trajectory / scale, torch.cat(up)) < 1e-4
    assert tiny.difference(ours.reconstruction / scale, torch.cat(walked[::-1])) < 1e-4
    assert tiny.difference(torch.cat([p[0] for p in ours.psi[:0:-1]]), torch.cat(found)) < 1e-3
    assert not torch.allclose(torch.cat(walked[::-1])[0], torch.cat(up)[0], rtol=0.01)  # there is something to optimise
