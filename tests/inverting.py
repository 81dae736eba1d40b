"""Inversions of a tiny UNet with few steps. Import as `firstframe.tests.inverting`."""
import torch
from firstframe.samplers.inversion import invert_picture
from firstframe.samplers.null_text import Optimisation
from firstframe.tests import tiny_models as tiny

FEW = dict(steps=8, start=761, guidance=3.0, refine=0, begin="negative")


def calm(m):
    """eps of about unit size, as a trained model's is."""
    with torch.no_grad():
        for p in m.model.diffusion_model.out[2].parameters():
            p.mul_(0.3)
    return m


def invert(m, mode="conditional", options=None, positive=None, **rest):
    return invert_picture(m, tiny.latents(1), positive or tiny.conditioning(1), tiny.conditioning(2), mode=mode,
                          options=options or Optimisation(inner=3, steps=8), **{**FEW, **rest})


def percent_of(m):
    return m.get_model_object("model_sampling").percent_to_sigma
