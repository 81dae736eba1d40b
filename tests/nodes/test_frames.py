"""Picture to Frames: the clip, the mask, and what it refuses."""
import pytest
import torch
from firstframe.nodes.frames import PictureToFrames


def run(z, frames=4, keep_first=True, **rest):
    return PictureToFrames.execute({"samples": z, **rest}, frames, keep_first).result[0]


def test_the_picture_is_repeated_and_the_first_frame_masked():
    z = torch.randn(1, 4, 8, 6)
    out = run(z, other="kept", batch_index=[3])
    assert torch.equal(out["samples"], z.repeat(4, 1, 1, 1)) and out["other"] == "kept" and "batch_index" not in out
    assert out["noise_mask"].shape == (4, 1, 8, 6) and out["noise_mask"][0].sum() == 0 and out["noise_mask"][1:].min() == 1
    assert "noise_mask" not in run(z, keep_first=False, noise_mask=torch.ones(1, 8, 6))


def test_a_video_models_latent_keeps_its_axes():
    z = torch.randn(1, 16, 2, 8, 6)
    out = run(z)
    assert torch.equal(out["samples"], z[:, :, :1].repeat(1, 1, 4, 1, 1))
    assert out["noise_mask"].shape == (1, 1, 4, 8, 6) and out["noise_mask"][:, :, 0].sum() == 0 and out["noise_mask"][:, :, 1:].min() == 1


@pytest.mark.parametrize("z, message", [
    (torch.zeros(2, 4, 8, 8), r"one picture .* got \[2, 4, 8, 8\]"),
    (torch.zeros(2, 16, 5, 8, 8), r"one picture"), (torch.zeros(1, 16, 0, 8, 8), r"one picture"),
    (torch.full((1, 4, 8, 8), float("nan")), "NaN"),
])
def test_what_is_no_picture_is_refused(z, message):
    with pytest.raises(ValueError, match=message):
        run(z)


def test_a_clip_of_one_frame_is_refused():
    with pytest.raises(ValueError, match="from 2 to 256 in .frames., got 1"):
        run(torch.zeros(1, 4, 8, 8), frames=1)
