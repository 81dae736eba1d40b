"""Match Frame Colors: off is off, and what reaches the frames."""
import pytest
import torch
from firstframe.nodes.frame_colors import MatchFrameColors
from firstframe.samplers.frame_colors import SWAPPED, TRUE, colors_of


@pytest.fixture
def clip():
    return torch.rand(3, 8, 6, 3, generator=torch.Generator().manual_seed(1))


def run(images, strength=1.0, **rest):
    return MatchFrameColors.execute(images, strength, **rest).result[0]


@pytest.mark.parametrize("space", [TRUE, SWAPPED])
def test_every_frame_but_the_first_is_matched(clip, space):
    before, out = clip.clone(), run(clip, space=space)
    assert torch.equal(clip, before) and torch.equal(out[0], clip[0])
    for i in (1, 2):
        assert torch.equal(out[i], colors_of(clip[0], space)(clip[i])) and not torch.equal(out[i], clip[i])


def test_strength_is_a_share_and_0_is_off(clip):
    assert run(clip, 0.0) is clip
    torch.testing.assert_close(run(clip, 0.25), torch.lerp(clip, run(clip), 0.25))


def test_one_picture_is_refused(clip):
    with pytest.raises(ValueError, match="Match Frame Colors .* at least 2, got 1"):
        run(clip[:1])
    with pytest.raises(ValueError, match="Match Frame Colors needs images in 'images', got 'text'"):
        run("text")
