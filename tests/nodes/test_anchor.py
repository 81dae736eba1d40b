"""Select Anchor Image on lists of sizes and Search Anchor Image on video models, with a reward whose scores are known; the contact sheet."""
import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy_execution.graph import ExecutionBlocker
from firstframe.networks.reward import RewardModel
from firstframe.nodes.anchor import AnchorImageSearch, latent_of
from firstframe.nodes.contact_sheet import contact_sheet
from firstframe.nodes.inputs import WIRES
from firstframe.samplers.anchor_search import ranking
from firstframe.tests import tiny_models as tiny
from firstframe.tests import video_models as video


class Brightness(RewardModel):
    name = "brightness"

    def read(self, prompt, who):
        return prompt

    def score(self, picture, prompt):
        return picture.mean()


def grey(*values, side=8) -> torch.Tensor:
    return torch.stack([torch.full((side, side, 3), v) for v in values])


def test_it_is_a_reward_model():
    assert WIRES["REWARD_MODEL"][0](Brightness()) and Brightness().scores(grey(0.2, 0.6), "p", "N").tolist() == pytest.approx([0.2, 0.6])


def test_a_broken_picture_and_a_broken_score_come_last():
    images = torch.cat([grey(0.6) / 0, grey(0.2), grey(0.6)])
    scores = Brightness().scores(images, "p", "N")
    assert scores.isnan().tolist() == [True, False, False] and ranking(scores, "N") == [2, 1, 0]


def test_the_latent_of_an_image_in_a_list_of_batches():
    a, b = torch.randn(2, 4, 2, 2), torch.randn(1, 4, 3, 3)
    samples = [{"samples": a, "batch_index": [4, 5]}, {"samples": b}]
    assert torch.equal(latent_of(samples, 1, 3)["samples"], a[1:]) and torch.equal(latent_of(samples, 2, 3)["samples"], b) and set(latent_of(samples, 1, 3)) == {"samples"}
    assert isinstance(latent_of((), 0, 3), ExecutionBlocker) and isinstance(latent_of([None], 0, 3), ExecutionBlocker)
    with pytest.raises(ValueError, match="Select Anchor Image got 3 latents in 'samples' for 2 images"):
        latent_of(samples, 0, 2)


def test_the_sheet_holds_every_picture_in_order():
    sheet = contact_sheet([grey(0.2), grey(0.4, side=600), grey(0.8)], ["a", "b", "c"])
    assert sheet.shape == (1, 2 * 282, 2 * 262, 3) and 0 <= sheet.min() and sheet.max() <= 1
    seen = [sheet[0, y, x, 0].item() for x, y in ((4, 4), (262 + 4, 4), (4, 282 + 4))]
    assert seen == pytest.approx([0.2, 0.4, 0.8], abs=0.01) and (sheet[0, 258:276, :256] < 0.5).any()  # a label


class Seed(int):
    """A NOISE, as RandomNoise makes it."""
    seed = property(int)

    def generate_noise(self, latent):
        return comfy.sample.prepare_noise(latent["samples"], self)


@pytest.mark.parametrize("kind", ["Wan", "LTX"])
@torch.inference_mode()
def test_the_search_on_a_video_models_single_frames(kind):
    m, vae = video.model(kind), video.vae(kind)
    guider = comfy.samplers.CFGGuider(m)
    guider.set_conds(video.conditioning(1), video.conditioning(2))
    guider.set_cfg(3.0)
    sampler, sigmas = comfy.samplers.sampler_object("euler"), comfy.samplers.calculate_sigmas(m.get_model_object("model_sampling"), "simple", 4)
    empty = {"samples": torch.zeros_like(video.latent(m, frames=1)).repeat(3, 1, 1, 1, 1)}

    def found(halve_after, draft_steps=0):
        return AnchorImageSearch.execute(Seed(5), guider, sampler, sigmas, empty, vae, Brightness(), "p", halve_after, 0.5, draft_steps).result

    image, latent, index, said = found("")
    every = guider.sample(Seed(5).generate_noise(empty), empty["samples"], sampler, sigmas, seed=5)
    pictures = vae.decode(every).flatten(0, 1)
    assert index == int(pictures.mean((1, 2, 3)).argmax()) and torch.equal(latent["samples"], every[index:index + 1])
    assert tiny.difference(image, pictures[index:index + 1]) < 1e-4 and said.startswith(f"image {index + 1} of 3; 12 model calls")
    image, latent, index, said = found("2")
    assert said.startswith(f"image {index + 1} of 3; 10 model calls") and tiny.difference(latent["samples"], every[index:index + 1]) < 1e-4
    image, latent, index, said = found("", 2)
    assert said.startswith(f"image {index + 1} of 3; 14 model calls") and tiny.difference(latent["samples"], every[index:index + 1]) < 1e-4
