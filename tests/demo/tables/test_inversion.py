"""The measurements behind the table of inversions."""
import pytest
from firstframe.demo.tables import inversion


def test_plain_inversion_and_what_refining_adds():
    plain, refined = (inversion.measure(inversion.picture_of(0), *inversion.KINDS[name]) for name in ("none (DDIM), published", "none, refine 1"))
    assert [row["model calls"] for row in (plain, refined)] == [2 * 39, 3 * 39]
    assert [row["of them with gradients"] for row in (plain, refined)] == [0, 0]
    assert [row["PSNR, dB"] for row in (plain, refined)] == pytest.approx([38.5, 56.3], abs=1)
    assert [row["guidance left, %"] for row in (plain, refined)] == [0, 0]  # the prompt's own embeddings are the negative
