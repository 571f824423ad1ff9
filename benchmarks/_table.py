"""A table of results: as Markdown for the page, as text for the terminal.  Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Table", "per_second", "quantity", "spread", "times"]


@dataclass
class Table:
    """One question and its answers; ``notes`` says what is measured, and against what."""

    title: str
    head: list[str]
    notes: str = ""
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Add one row; what is missing at its end is left empty."""
        self.rows.append([*cells, *[""] * (len(self.head) - len(cells))])

    def markdown(self) -> str:
        """Return the table under its heading."""
        lines = [f"### {self.title}", ""]
        if self.notes:
            lines += [self.notes, ""]
        lines += [_bar(self.head), _bar(["---"] + ["---:"] * (len(self.head) - 1))]
        return "\n".join([*lines, *map(_bar, self.rows)]) + "\n"

    def text(self) -> str:
        """Return the table in columns."""
        cells = [self.head, *self.rows]
        width = [max(len(row[i]) for row in cells) for i in range(len(self.head))]
        lines = [
            "  ".join(
                c.ljust(w) if not i else c.rjust(w)
                for i, (c, w) in enumerate(zip(row, width, strict=True))
            )
            for row in cells
        ]
        return "\n".join([f"\n{self.title}", *lines])

    def json(self) -> dict[str, Any]:
        """Return what ``Table(**...)`` takes."""
        return asdict(self)


def _bar(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def quantity(value: float) -> str:
    """Write a number with three digits that say something."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 or not size else f"{value:.3f}"


def spread(values: Sequence[float], unit: str = "") -> str:
    """Write median and quartiles: ``0.71 (0.69–0.72)``."""
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]
    return f"{quantity(statistics.median(ordered))}{unit} ({quantity(low)}–{quantity(high)})"


def times(values: Sequence[float]) -> str:
    """Write a ratio, median and quartiles: ``3.1× (3.0–3.3)``."""
    return spread(values, "×")


def per_second(seconds: float) -> str:
    """Write seconds per record as records per second, in two digits: more would be noise."""
    rate = 1 / seconds
    power = 10 ** max(0, len(str(int(rate))) - 2)
    return f"{round(rate / power) * power:,.0f}"
