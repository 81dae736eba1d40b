"""The loop over the seeds and the table that comes of it."""
import numpy as np
import pytest
from firstframe.demo.tables import report

ROWS = {"plain": [{"error": 8.0, "share, %": 50.0, "lost": np.nan}, {"error": 2.0, "share, %": 50.0, "lost": np.nan}],
        "ours": [{"error": 6.0, "share, %": 60.0, "lost": 1.0}, {"error": 0.0, "share, %": 50.0, "lost": np.nan}]}


def test_a_table_can_be_pasted_and_compares_within_each_seed():
    assert report.report("errors, 2 seeds", ROWS, [("ours", "plain")]).splitlines() == [
        "| errors, 2 seeds | error | share, % | lost |",
        "|---|---|---|---|",
        "| plain | 5.0 ± 3.0 | 50.0 ± 0.0 | - |",
        "| ours | 3.0 ± 3.0 | 55.0 ± 5.0 | 1.0 ± 0.0 |",
        "| ours minus plain | -2.0 ± 0.0 | +5.0 ± 5.0 | - |"]  # the seeds differ by 6, the pairs by nothing


def test_the_error_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(size=50)
    n, mean = 50, sum(values) / 50
    error = (sum((v - mean) ** 2 for v in values) / (n - 1) / n) ** 0.5
    assert report.cell(values, digits=6) == f"{mean:.6f} ± {error:.6f}"
    assert report.cell([1.0, 3.0], "+", 2, np.std) == "+2.00 ± 1.00"


def test_each_seed_is_measured_once_and_what_is_done_goes_to_stderr(capsys):
    rows = report.collect(3, lambda seed: {"all": seed, **({"even": seed} if seed % 2 == 0 else {})})
    assert rows == {"all": [0, 1, 2], "even": [0, 2]}
    assert capsys.readouterr() == ("", "1/3\r2/3\r3/3\n")


@pytest.mark.parametrize("argv, expected", [([], (50, None)), (["3"], (3, None)), (["3", "a.jpg"], (3, "a.jpg"))])
def test_arguments(argv, expected):
    assert report.arguments(argv, 50) == expected
