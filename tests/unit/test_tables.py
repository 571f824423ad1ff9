"""Amounts drawn as characters."""

from __future__ import annotations

import pytest

from litellm_ledger._cli.tables import bar, sparkline


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 10, ""),
        ([1], 0, ""),
        ([0, 0], 10, "▁▁"),
        ([0, 1, 2, 4, 7], 10, "▁▂▃▅█"),
        ([0, 0.001, 100], 10, "▁▂█"),
        ([1, 1, 1, 5], 2, "▃█"),
        ([1] * 1000, 7, "▇███▇█▇"),
    ],
)
def test_sparklines(values: list[float], width: int, drawn: str) -> None:
    found = sparkline(values, width)
    assert len(found) == min(len(values), width)
    if len(values) < 1000:
        assert found == drawn
    else:
        assert set(found) <= {"▇", "█"}


@pytest.mark.parametrize(
    ("share", "drawn"),
    [(0, ""), (1, "████"), (2, "████"), (-1, ""), (0.5, "██"), (0.0001, "▏"), (0.28, "█▏")],
)
def test_bars(share: float, drawn: str) -> None:
    assert bar(share, 4) == drawn
