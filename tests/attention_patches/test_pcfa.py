"""PiLife Eq. 13-14 against the distribution and the sets written out."""
import pytest
from firstframe.attention_patches.pcfa import attended, draws, geometric_k


@pytest.mark.parametrize("p", [0.0, 0.05, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_k_follows_the_truncated_geometric_distribution(p, n):
    weight = [p * (1 - p) ** (k - 1) if p else 1.0 for k in range(1, n + 1)]
    grid = 20000
    counts = [0] * (n + 1)
    for i in range(grid):
        counts[geometric_k((i + 0.5) / grid, p, n)] += 1
    assert counts[0] == 0
    for k in range(1, n + 1):
        assert counts[k] / grid == pytest.approx(weight[k - 1] / sum(weight), abs=1.5 / grid)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_the_ends_of_u_stay_in_range(p):
    assert geometric_k(0.0, p, 5) == 1
    assert geometric_k(1 - 2**-53, p, 5) == (1 if p == 1 else 5)


def test_sets_of_the_three_modes():
    u = [0.0, 0.9, 0.9, 0.999, 0.0]
    assert attended(tuple(range(4)), "first") == ((0,),) * 4
    assert attended(tuple(range(4)), "first+previous") == ((0,), (0,), (0, 1), (0, 2))
    for t, sources in enumerate(attended(tuple(range(5)), "PCFA", 0.5, u)):
        assert sources == tuple(sorted({0, t - 1, t - geometric_k(u[t], 0.5, t)})) if t else sources == (0,)


def test_a_window_without_the_first_frame_uses_its_own_earliest_and_the_nearest_earlier():
    assert attended((4, 6, 9), "first+previous") == ((0,), (0,), (0, 1))
    assert attended((6, 9, 4), "first+previous") == ((2,), (2, 0), (2,))  # a window that wraps around


def test_draws_depend_on_seed_and_step_alone():
    assert draws(3, 5, 8) == draws(3, 5, 8)
    assert draws(3, 5, 16)[:8] == draws(3, 5, 8)
    assert len({tuple(draws(s, t, 4)) for s in range(3) for t in range(3)}) == 9
