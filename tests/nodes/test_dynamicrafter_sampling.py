"""The nodes of DynamiCrafter's sampling: what they hand on, and what they refuse before sampling."""
import pytest
import torch
from firstframe.nodes.dynamicrafter_sampling import DynamiCrafterSampler, MultiConditionGuiderNode
from firstframe.samplers.lvdm_ddim import lvdm_ddim
from firstframe.tests import tiny_models as tiny
from firstframe.tests.dynamic_mode import dynamic_mode
from firstframe.tests.networks.test_lvdm_model import F, model, said


def guider(m, positive=None, negative=None, **rest):
    return MultiConditionGuiderNode.execute(m, positive or said(0), negative or said(1), **{"text_cfg": 7.5, "image_cfg": 3.0, "guidance_rescale": 0.7, **rest}).result[0]


def clip(m) -> torch.Tensor:
    noise = torch.randn(F, 4, 16, 8, generator=torch.Generator().manual_seed(1))
    sampler = DynamiCrafterSampler.execute(1.0, True).result[0]
    return guider(m).sample(noise, torch.zeros_like(noise), sampler, torch.tensor([5.0, 1.0, 0.0]), seed=3, disable_pbar=True)


def test_their_widgets_arrive():
    sampler, made = DynamiCrafterSampler.execute(0.5, False).result[0], guider(model())
    assert sampler.extra_options == lvdm_ddim(0.5, False).extra_options == {"eta": 0.5, "end_as_published": False}
    assert (made.cfg, made.image_cfg, made.rescale) == (7.5, 3.0, 0.7)


def test_the_same_bits_in_dynamic_mode_and_the_model_stays():
    m = model(0.7)
    before, options = clip(m), m.model_options
    assert torch.isfinite(before).all() and torch.equal(clip(m), before) and m.model_options is options and not options.get("sampler_cfg_function")
    with dynamic_mode():
        m = model(0.7)
        assert m.is_dynamic() and torch.equal(clip(m), before)


@pytest.mark.parametrize("m, positive, message", [
    (lambda: tiny.model("SD1.5", **tiny.SMALL), None, "only DynamiCrafter reads, got BaseModel. Connect Load DynamiCrafter"),
    (model, [[torch.ones(1, 77, 64), said(0)[0][1]]], "'positive' has 64"),
    (model, [[said(0)[0][0], {}]], "tokens in 'positive'"),
])
def test_what_is_refused(m, positive, message):
    with pytest.raises(ValueError, match=f"Multi-Condition Guider.*{message}"):
        guider(m(), positive)
