"""DDIM inversion with the host's sampler against the update written out, and the start of I2V-Zero built from it."""
import pytest
import torch
from firstframe.samplers.ddim import invert, sigmas_of, timestep_grid
from firstframe.samplers.i2v_zero import prepare
from firstframe.samplers.latent_translation import translate
from firstframe.tests import tiny_models as tiny


@pytest.fixture(scope="module")
def m():
    m = tiny.model()
    with torch.no_grad():  # eps of unit size, as a trained model's is
        for p in m.model.diffusion_model.out[2].parameters():
            p.mul_(0.2)
    return m


def test_the_official_grid():
    assert timestep_grid(50, 941)[:2] == [1, 21] and timestep_grid(50, 881)[-1] == 881 and len(timestep_grid(50, 941)) == 48
    assert len(timestep_grid(30, 999)) == 30 and timestep_grid(30, 999)[-1] == 958 and timestep_grid(50, 1) == [1]


def test_inversion_is_ddim_upwards(m):
    """x_{t'} = sqrt(a') x0(x_t) + sqrt(1-a') eps(x_t), in variance-preserving space, with the conditional prompt alone."""
    space, sampling, c = m.get_model_object("latent_format"), m.get_model_object("model_sampling"), tiny.conditioning(1)
    z0, grid = tiny.latents(1), timestep_grid(10, 600)
    sigmas = sigmas_of(sampling, grid)
    ours = space.process_in(invert(m, z0, sigmas, c, tiny.conditioning(2), 1.0))
    x = space.process_in(z0)  # x / sqrt(a) throughout
    with torch.no_grad():
        for s, s_next in zip(sigmas, sigmas[1:]):
            a, a_next = 1 / (1 + s**2), 1 / (1 + s_next**2)
            denoised = m.model.apply_model(x, s[None], c_crossattn=c[0][0])
            vp = x * a**0.5
            eps = (vp - a**0.5 * denoised) / (1 - a) ** 0.5
            x = (a_next**0.5 * denoised + (1 - a_next) ** 0.5 * eps) / a_next**0.5
    assert tiny.difference(ours, x) < 1e-5


def test_start_latents(m):
    positive, negative, z0 = tiny.conditioning(1), tiny.conditioning(2), tiny.latents(1)
    space, sampling = m.get_model_object("latent_format"), m.get_model_object("model_sampling")
    kw = dict(frames=4, dx=60.0, dy=0.0, t0=601, t1=801, steps=10, cfg=1.0, seed=9)
    latent, sigmas = prepare(m, z0, positive, negative, **kw)
    grid = timestep_grid(10, 801)
    assert torch.equal(sigmas, torch.cat([sigmas_of(sampling, grid).flip(0), torch.zeros(1)]))
    assert torch.equal(latent, prepare(m, z0, positive, negative, **kw)[0])  # same seed, same bits
    x = space.process_in(latent)
    whole = space.process_in(invert(m, z0, sigmas_of(sampling, grid), positive, negative, 1.0))
    assert tiny.difference(x[:1], whole) < 1e-5  # the first frame is the inverted picture
    low = sigmas_of(sampling, timestep_grid(10, 601))
    moved = translate(space.process_in(invert(m, z0, low, positive, negative, 1.0)).expand(3, -1, -1, -1), 60.0, 0.0)
    eps = (x[1:] - moved) / (sigmas[0] ** 2 - low[-1] ** 2) ** 0.5
    assert torch.allclose(eps, torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(9)), atol=1e-4)


def test_the_lowest_level_is_the_picture_itself(m):
    z0 = tiny.latents(1)
    latent, _ = prepare(m, z0, tiny.conditioning(1), tiny.conditioning(2), frames=2, dx=0.0, dy=0.0, t0=1, t1=1, steps=10, cfg=1.0, seed=1)
    assert torch.allclose(latent, z0.expand(2, -1, -1, -1), atol=1e-5)


def test_equal_levels_need_no_noise(m):
    latent, _ = prepare(m, tiny.latents(1), tiny.conditioning(1), tiny.conditioning(2), frames=3, dx=0.0, dy=0.0, t0=601, t1=601, steps=10, cfg=1.0, seed=1)
    assert torch.allclose(latent[1], latent[0]) and torch.allclose(latent[2], latent[0])
