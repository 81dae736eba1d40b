"""Animate Anchor Image on tiny video transformers of the host: frames in their own axis, the same bits as the sampler, what it refuses."""
import comfy.sample
import pytest
import torch
from firstframe.nodes.i4vgen import CODE, OF_PAPER, OWN, AnimateAnchor
from firstframe.samplers.ni_vsds import PAPER, NIVSDSSampler
from firstframe.samplers.start_level import last_steps
from firstframe.tests import tiny_models as tiny
from firstframe.tests import video_models as video

DEFAULTS = dict(frames=3, seed=4, steps=5, cfg=3.0, scheduler="simple", preset=OF_PAPER, tau=0.4, step_sizes="1")


def run(m, z, said=video.conditioning, **rest):
    return AnimateAnchor.execute(m, said(1), said(2), {"samples": z}, **{**DEFAULTS, **rest}).result[0]["samples"]


@pytest.mark.parametrize("kind", ["Wan", "LTX"])
def test_a_video_models_picture(kind):
    m = video.model(kind)
    z = video.latent(m, frames=1)
    out, clip = run(m, z), z.repeat(1, 1, 3, 1, 1)
    sigmas = last_steps(m.get_model_object("model_sampling"), "simple", 5, 5, "N")
    by_hand = comfy.sample.sample_custom(m, comfy.sample.prepare_noise(clip, 4), 3.0, NIVSDSSampler(PAPER), sigmas, video.conditioning(1), video.conditioning(2), clip,
                                         disable_pbar=True, seed=4)
    assert out.shape == clip.shape and torch.equal(out, by_hand) and not torch.allclose(out[:, :, 0], out[:, :, 1], atol=1e-3)
    assert torch.equal(out, run(m, video.latent(m, frames=1).repeat(1, 1, 4, 1, 1)))  # of a clip the first frame


def test_presets_and_own_values():
    m = tiny.model("SD1.5", **tiny.SMALL)
    z, said = tiny.latents(1), tiny.conditioning
    paper = run(m, z, said)
    assert torch.equal(paper, run(m, z, said, preset=OWN)) and torch.equal(paper, run(m, z, said, step_sizes="9", tau=0.0))  # a preset does not look at them
    assert not torch.equal(paper, run(m, z, said, preset=CODE)) and not torch.equal(paper, run(m, z, said, preset=OWN, step_sizes="2"))
    assert torch.equal(paper, run(m, z, said, preset=OWN, step_sizes=""))  # an empty list: 1, as in the paper


@pytest.mark.parametrize("rest, message", [
    (dict(step_sizes="1, 101", preset=OWN), "Animate Anchor Image needs numbers from 0 to 100"), (dict(frames=1), "from 2 to 256 in 'frames', got 1"),
    (dict(steps=2, preset=OWN, tau=0.0, step_sizes="1, 1, 1"), "3 step sizes for 2 iterations"),
])
def test_what_is_refused(rest, message):
    m = tiny.model("SD1.5", **tiny.SMALL)
    with pytest.raises(ValueError, match=message):
        run(m, tiny.latents(1), tiny.conditioning, **rest)


def test_latents_of_another_model_are_refused():
    with pytest.raises(ValueError, match=r"Animate Anchor Image got a latent \[1, 4, 16, 16\], and those of the connected model \(WAN21\)"):
        run(video.model("Wan"), tiny.latents(1))
