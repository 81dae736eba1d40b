"""The motion attention map in real tiny UNets against a softmax written out, and its maths against the definitions."""
import logging
import math

import pytest
import torch
from firstframe.attention_patches.attention_map import attention_share, capture, level, smooth, to_map
from firstframe.prompts.tokens import MotionTokens
from firstframe.tests import tiny_models as tiny
from firstframe.tests.attention_map_reference import HALVED, TOKENS, Z, node, slow_map


@pytest.fixture(scope="module")
def m():
    return tiny.model()


def slow_share(q, k, columns, heads):
    """The definition, one head, token and picture at a time, in double precision."""
    b, n, c = q.shape
    d, out = c // heads, torch.zeros(b, n, dtype=torch.float64)
    for i in range(b):
        for h in range(heads):
            for j in range(n):
                weights = torch.softmax(k[i, :, h * d:(h + 1) * d].double() @ q[i, j, h * d:(h + 1) * d].double() / math.sqrt(d), 0)
                out[i, j] += weights[list(columns)].sum() / heads
    return out


NAMES = ("1/1", "1/2", "1/4", "1/8")


@pytest.mark.parametrize("shape", HALVED)
def test_equals_a_softmax_written_out(shape):
    m = tiny.model(shape)
    expected = slow_map(m, HALVED[shape][1] + HALVED[shape][2], TOKENS.positions)
    assert tiny.difference(node(m), expected) < 1e-4
    assert tiny.difference(slow_map(m, HALVED[shape][1] + HALVED[shape][2], (3,)), expected) > 0.05  # other words look elsewhere


@pytest.mark.parametrize("shape, i", [(shape, i) for shape in ("SD1.5", "SDXL") for i in HALVED[shape]])
def test_each_resolution(shape, i):
    m = tiny.model(shape)
    got = node(m, resolutions=NAMES[i])
    assert tiny.difference(got, slow_map(m, HALVED[shape][i], TOKENS.positions)) < 1e-4


@pytest.mark.parametrize("stage", ["input", "output"])
def test_each_stage(m, stage):
    got = node(m, stages=stage)
    assert tiny.difference(got, slow_map(m, [a for i in (1, 2) for a in HALVED["SD1.5"][i] if a[0] == stage], TOKENS.positions)) < 1e-4


def test_odd_sides():
    z = torch.randn(1, 4, 10, 13, generator=torch.Generator().manual_seed(2))
    a = node(tiny.model(), z)
    assert a.shape == (1, 10, 13) and a.min() == 0 and a.max() == 1
    assert [level((13, 10), s) for s in ((13, 10), (7, 5), (4, 3), (2, 2))] == [0, 1, 2, 3]


@pytest.mark.parametrize("heads, limit", [(1, 2**24), (4, 2**24), (4, 1), (4, 2 * 2 * 9 * 5)])
def test_share_equals_the_definition(heads, limit):
    q, k = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(1)) * 3, torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3)) * 3
    for columns in ((0,), (1, 4), (0, 1, 2, 3, 4)):
        torch.testing.assert_close(attention_share(q, k, torch.tensor(columns), heads, limit).double(), slow_share(q, k, columns, heads), atol=1e-6, rtol=1e-5)


def test_share_does_not_overflow():
    q = k = torch.full((1, 2, 8), 200.0, dtype=torch.float16)  # logits far beyond what half precision holds
    assert torch.allclose(attention_share(q, k, torch.tensor([1]), 2), torch.full((1, 2), 0.5))


def test_smoothing_equals_the_definition():
    a, sigma = torch.rand(7, 5, generator=torch.Generator().manual_seed(1)), 0.8
    expected = torch.zeros(7, 5)
    for y in range(7):
        for x in range(5):
            near = [(math.exp(-((y - i) ** 2 + (x - j) ** 2) / (2 * sigma**2)), float(a[i, j])) for i in range(7) for j in range(5)]
            expected[y, x] = sum(w * value for w, value in near) / sum(w for w, _ in near)
    torch.testing.assert_close(smooth(a, sigma), expected)
    assert smooth(a, 0) is a
    torch.testing.assert_close(smooth(a, 0.1), a)
    torch.testing.assert_close(smooth(a, 1000.0), a.mean().expand(7, 5), atol=1e-4, rtol=0)


def test_gamma_and_threshold():
    a = torch.tensor([[0.25, 0.375], [0.5, 0.75]])
    plain = torch.tensor([[0, 0.25], [0.5, 1]])
    torch.testing.assert_close(to_map(a), plain)
    torch.testing.assert_close(to_map(a, gamma=2), plain**2)
    assert to_map(a, threshold=0.5).tolist() == [[0, 0], [1, 1]] and to_map(a, threshold=1).tolist() == [[0, 0], [0, 1]]
    assert to_map(a, gamma=0.5, threshold=0.5).tolist() == [[0, 1], [1, 1]]


def test_a_map_without_spread_takes_the_whole_picture(m, caplog):
    with caplog.at_level(logging.WARNING):
        a = node(m, tokens=MotionTokens(tuple(range(7)), 7, ("everything",)))
    assert torch.equal(a, torch.ones(1, 16, 16)) and "same everywhere" in caplog.text


def test_listening_does_not_change_what_the_model_computes(m):
    clone, _ = capture(m, TOKENS, (16, 16), "test")
    assert torch.equal(tiny.sample(clone, Z), tiny.sample(m, Z))


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.15), (torch.float16, 0.03)])
def test_half_precision(m, dtype, tolerance):
    half = node(tiny.model(dtype=dtype))
    assert half.dtype == torch.float32 and half.min() == 0 and half.max() == 1
    assert (half - node(m)).abs().max() < tolerance
