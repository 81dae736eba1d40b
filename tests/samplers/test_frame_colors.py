"""Colours held to the first frame, against histogram matching written out pixel by pixel and OpenCV's published numbers."""
import numpy as np
import pytest
import torch
from firstframe.samplers.frame_colors import (
    SPACES,
    SWAPPED,
    TRUE,
    check_clip,
    colors_of,
    distribution,
    from_swapped_lab,
    match_histogram,
    to_lab,
    to_rgb,
    to_swapped_lab,
)


def slow_match(channel, reference):
    """One value at a time: the share of the channel no larger than it, and the reference's value at that share, linear between two neighbours."""
    values = sorted(set(reference))
    shares = [sum(r <= v for r in reference) / len(reference) for v in values]
    out = []
    for v in channel:
        share = sum(c <= v for c in channel) / len(channel)
        above = next((i for i, s in enumerate(shares) if s >= share), len(values) - 1)
        if above == 0:
            out.append(values[0])
            continue
        t = (share - shares[above - 1]) / (shares[above] - shares[above - 1])
        out.append(values[above - 1] + t * (values[above] - values[above - 1]))
    return np.array(out)


def slow_lab(rgb):
    """sRGB in 0..1 [n,3] -> LAB, from its definition (white D65)."""
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = linear @ np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]).T
    x, y, z = np.where((t := xyz / [0.950456, 1, 1.088754]) > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def pictures(count: int, height: int = 9, width: int = 7, seed: int = 0) -> torch.Tensor:
    """Soft colours that stay inside of RGB when a and b change places between them."""
    return 0.35 + 0.3 * torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("many, few", [(40, 40), (40, 13), (7, 50)])
@pytest.mark.parametrize("levels", [5, 10**6])
def test_histogram_matching_equals_definition(many, few, levels):
    rng = np.random.default_rng(3)
    channel, reference = rng.integers(0, levels, many), rng.integers(0, 2 * levels, few)
    np.testing.assert_allclose(match_histogram(channel, *distribution(reference)), slow_match(channel.tolist(), reference.tolist()), rtol=1e-12, atol=1e-9)


def test_different_values_take_exactly_the_other_histogram():
    rng = np.random.default_rng(4)
    channel, reference = rng.normal(size=200), rng.normal(3, 5, size=200)
    out = match_histogram(channel, *distribution(reference))
    assert np.array_equal(np.sort(out), np.sort(reference)) and np.array_equal(np.argsort(out), np.argsort(channel))
    assert np.array_equal(match_histogram(reference, *distribution(reference)), reference)


def test_matched_frames_have_the_first_ones_colours_and_their_own_lightness():
    first, frame = pictures(1)[0], pictures(1, seed=5)[0] * torch.tensor([1.0, 0.8, 0.7])
    (L, *ab), (_, *wanted), (own, *_) = (to_lab(p.movedim(-1, 0)) for p in (colors_of(first, TRUE)(frame), first, frame))
    for got, want in zip(ab, wanted):
        torch.testing.assert_close(got.flatten().sort().values, want.flatten().sort().values, atol=0.01, rtol=0)
    torch.testing.assert_close(L, own, atol=0.01, rtol=0)


def test_true_lab_is_lab():
    rgb = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(2))
    want = slow_lab(rgb.flatten(1).T.double().numpy())
    np.testing.assert_allclose(to_lab(rgb).flatten(1).T.numpy(), want, atol=0.03)
    torch.testing.assert_close(to_rgb(to_lab(rgb)), rgb, atol=1e-4, rtol=0)


@pytest.mark.parametrize("rgb, lab", [((1, 0, 0), (82, 207, 20)), ((0, 0, 1), (136, 208, 195)), ((0, 1, 0), (224, 42, 211)), ((1, 1, 1), (255, 128, 128)), ((0, 0, 0), (0, 128, 128))])
def test_the_official_space_is_opencvs_with_red_and_blue_swapped(rgb, lab):
    """cv2.cvtColor(..., cv2.COLOR_BGR2LAB) makes [82, 207, 20] of blue and [136, 208, 195] of red."""
    got = to_swapped_lab(torch.tensor(rgb, dtype=torch.float).view(3, 1, 1))
    assert tuple(got.flatten().tolist()) == lab
    torch.testing.assert_close(from_swapped_lab(got).flatten(), torch.tensor(rgb, dtype=torch.float), atol=8 / 255, rtol=0)


def test_official_equals_its_steps():
    first, frame = pictures(1)[0], pictures(1, seed=1)[0] * torch.tensor([1.0, 0.8, 0.7])

    def stored(picture):  # 8 bit; the RGB array read as BGR; OpenCV's 8-bit LAB
        bgr = (picture.numpy().reshape(-1, 3) * np.float32(255)).astype(np.uint8).astype(float) / 255
        return np.rint(slow_lab(bgr[:, ::-1]) * [2.55, 1, 1] + [0, 128, 128]).astype(np.uint8)

    source, reference = stored(frame), stored(first)
    a, b = (slow_match(source[:, i].tolist(), reference[:, i].tolist()).astype(np.uint8) for i in (1, 2))
    got = to_swapped_lab(colors_of(first, SWAPPED)(frame).movedim(-1, 0)).flatten(1).T.numpy()
    assert np.abs(got - np.stack([source[:, 0], a, b], 1)).max() <= 3  # each way through 8-bit RGB costs up to that much of a and b
    true = to_swapped_lab(colors_of(first, TRUE)(frame).movedim(-1, 0)).flatten(1).T.numpy()
    assert np.abs(true - np.stack([source[:, 0], a, b], 1)).max() > 3


@pytest.mark.parametrize("space", SPACES)
def test_a_frame_like_the_first_stays(space):
    first = pictures(1)[0]
    torch.testing.assert_close(colors_of(first, space)(first), first, atol=2e-4 if space == TRUE else 3 / 255, rtol=0)


def test_flat_colours_stay_flat_and_grey_gives_no_error():
    first, flat = pictures(1)[0], torch.full((9, 7, 3), 0.5)
    for space in SPACES:
        out = colors_of(first, space)(flat)
        torch.testing.assert_close(out, out[:1, :1].expand_as(out), atol=1e-5, rtol=0)
        assert torch.isfinite(colors_of(flat, space)(first)).all()


@pytest.mark.parametrize("images, message", [
    (torch.zeros(1, 8, 8, 3), "at least 2, got 1"), (torch.zeros(0, 8, 8, 3), r"got \[0, 8, 8, 3\]"), (torch.zeros(2, 8, 8, 4), r"\[2, 8, 8, 4\]"), (torch.zeros(8, 8, 3), r"\[8, 8, 3\]"),
    (torch.full((2, 8, 8, 3), float("nan")), "NaN")])
def test_what_is_no_clip_is_refused(images, message):
    with pytest.raises(ValueError, match=f"N .*{message}"):
        check_clip(images, "N")
