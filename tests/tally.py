"""What the long runs tried and what they found lost, added up and written to ``docs/MATRIX.md``."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

PAGE: Final = Path(__file__).parents[1] / "docs" / "MATRIX.md"

Tally = Callable[..., None]
"""``tally(method, tried=…, promised=…, lost=…)``: faults tried, records that somebody was promised,
promised records that were not there."""

_HEAD: Final = """# The fault matrix, in figures

Written by `make matrix`, which runs every test that is marked `matrix`; do not edit. What is
promised stands in [GUARANTEES.md](GUARANTEES.md).

| method | faults tried | promised records | of these lost |
| --- | ---: | ---: | ---: |
"""


def add_up(properties: Iterable[tuple[str, Any]]) -> dict[str, list[int]]:
    """Sum what single tests have noted, by method."""
    total: dict[str, list[int]] = {}
    for name, value in properties:
        if name == "tally":
            method, *counts = value
            row = total.setdefault(method, [0, 0, 0])
            row[:] = [a + b for a, b in zip(row, counts, strict=True)]
    return dict(sorted(total.items()))


def page(total: dict[str, list[int]], outcome: str, seconds: float) -> str:
    """The page of one run."""
    rows = [[method, *counts] for method, counts in total.items()]
    sums = [sum(counts[column] for counts in total.values()) for column in range(3)]
    rows.append(["**all**", *sums])
    lines = (
        f"| {m} | {tried:,} | {promised:,} | {lost:,} |\n" for m, tried, promised, lost in rows
    )
    when = datetime.now(UTC)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return (
        f"{_HEAD}{''.join(lines)}\n{outcome}, in {seconds / 60:.0f} minutes, on {when:%Y-%m-%d}, "
        f"Python {platform.python_version()}, {machine}.\n"
    )


BEGAN: Final = time.monotonic()
