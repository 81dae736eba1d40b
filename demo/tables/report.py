"""What all tables share: the loop over the seeds, means with their errors, rows of markdown.

A table measures {row: {column: number}} for each seed. Differences of two rows are taken within each seed, so that how
hard a picture is does not count.
"""
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator

import numpy as np


def arguments(argv: list[str], default: int) -> tuple[int, str | None]:
    """(how many to measure, where a sheet of pictures goes or None)."""
    return int(argv[0]) if argv else default, argv[1] if len(argv) > 1 else None


def progress(items: list | range) -> Iterator:
    """Each of them; how many are done goes to stderr, so that the table can be piped."""
    for i, item in enumerate(items, 1):
        yield item
        print(f"{i}/{len(items)}", end="\r" if i < len(items) else "\n", file=sys.stderr, flush=True)


def collect(seeds: int, measure: Callable[[int], dict]) -> dict:
    """{row: [what measure(seed)[row] is, for each seed that has it]}."""
    rows: dict = {}
    for seed in progress(range(seeds)):
        for name, found in measure(seed).items():
            rows.setdefault(name, []).append(found)
    return rows


def standard_error(values: list) -> float:
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def cell(values: Iterable, sign: str = "", digits: int = 1, spread: Callable[[list], float] = standard_error) -> str:
    """Mean ± spread of the values that are there (not NaN)."""
    values = [float(v) for v in values if not np.isnan(v)]
    return f"{np.mean(values):{sign}.{digits}f} ± {spread(values):.{digits}f}" if values else "-"


def markdown(head: Iterable[str], rows: Iterable[Iterable]) -> str:
    head = list(head)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" if line else "|---" * len(head) + "|" for line in (head, None, *rows))


def report(title: str, rows: dict, differences: Iterable[tuple[str, str]] = ()) -> str:
    """The table of {row: [{column: number} of each seed]}; differences: pairs of rows, the first minus the second."""
    columns = list(next(iter(rows.values()))[0])
    lines = [[name, *(cell(row[c] for row in found) for c in columns)] for name, found in rows.items()]
    lines += [[f"{a} minus {b}", *(cell((x[c] - y[c] for x, y in zip(rows[a], rows[b])), "+") for c in columns)] for a, b in differences]
    return markdown([title, *columns], lines)
