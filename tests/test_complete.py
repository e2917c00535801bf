"""Parts of a design that lack nothing."""

from __future__ import annotations

import numpy as np
import pytest

from shrinkbench_bert.analysis.complete import complete_part


def part(rows: list[str]) -> list[list[int]]:
    there = np.array([[mark == "x" for mark in row] for row in rows])
    return [kept.tolist() for kept in complete_part(there)]


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        (["xx", "xx"], [[0, 1], [0, 1]]),
        (["xxx", "..x"], [[0], [0, 1, 2]]),  # the second row lacks two of three, the columns one of two
        (["xxx", "xx.", "xx."], [[0, 1, 2], [0, 1]]),
        (["xx", "x."], [[0], [0, 1]]),  # as much is missing of the second row as of the second column
        (["x.", ".x"], [[1], [1]]),
        ([".x."], [[0], [1]]),
        (["..", ".."], [[], []]),
    ],
)
def test_what_lacks_most_goes(rows: list[str], kept: list[list[int]]) -> None:
    assert part(rows) == kept


def test_by_three_factors() -> None:
    """Two pairs, three amounts, three seeds; of the second pair two amounts have one seed each."""
    there = np.ones((2, 3, 3), dtype=bool)
    there[1, 1:, 1:] = False
    assert [kept.tolist() for kept in complete_part(there)] == [[0], [0, 1, 2], [0, 1, 2]]
