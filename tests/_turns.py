"""Chooses the rows of a large table that a test runs by default."""

from collections.abc import Iterable
from typing import Any

import pytest


def in_turn(rows: Iterable[Any], start: int, of: int = 3) -> list[Any]:
    """Marks all rows as slow but every ``of``-th, beginning with row ``start``.

    Tests of one table start at different rows, so that by default every row meets some
    of the tests, and every test some of the rows; ``make test-all`` runs all of them.
    """
    marks = pytest.mark.slow
    return [
        row if (i - start) % of == 0 else pytest.param(row, marks=marks)
        for i, row in enumerate(rows)
    ]


def every_third(cases: Iterable[Any], start: int) -> pytest.MarkDecorator:
    """Makes a test run for every third loss of `tests/losses/_table.py`, by name."""
    rows = in_turn(cases, start)
    return pytest.mark.parametrize("case", rows, ids=lambda case: case.name)
