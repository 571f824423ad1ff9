"""``Order``: the rows of a report by another column than the cost.

Owns the names of the columns that rows can be sorted by, and how ``--sort`` is written.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from .calendar import PERIODS, moment_of
from .groups import MONEY, Row
from .quantiles import MEASURED

__all__ = ["COLUMNS", "Order", "read_order"]

_TITLES: Final = {
    "input": "input_tokens",
    "output": "output_tokens",
    "tokens": "total_tokens",
    "cached": "cache_read_tokens",
    "reasoning": "reasoning_tokens",
    "saved": "saved_cost",
    "wasted": "wasted_cost",
}
"""What tables call a figure, where that is not its name."""

_KEPT: Final = {name: name.replace("_cost", "_pico") for name in MONEY} | {
    "cost": "pico",
    "saved_cost": "saved",
}
"""What ``Totals`` call the amounts of a row."""

COLUMNS: Final = tuple(
    name for name in Row.__struct_fields__ if name != "group" and name not in MEASURED
)
"""The figures of a row that it can be sorted by."""


class Order(NamedTuple):
    """A column and a direction.  Rows that are equal in it stay in the order of a report.

    Attributes:
        column: a group key or one of ``COLUMNS``.
        down: whether the largest comes first.
    """

    column: str
    down: bool

    @property
    def is_key(self) -> bool:
        """Whether it is a group key."""
        return self.column not in COLUMNS

    @property
    def figure(self) -> str:
        """What ``Totals`` call the column."""
        return _KEPT.get(self.column, self.column)

    def value(self, row: Row) -> Any:
        """Return what a row is sorted by."""
        if not self.is_key:
            return getattr(row, self.column)
        text = row.group[self.column]
        if self.column not in PERIODS:
            return text
        return moment_of(self.column, text)


def read_order(text: str, by: Sequence[str], *, flag: str = "--sort") -> Order:
    """Read ``COLUMN``, ``COLUMN:asc`` or ``COLUMN:desc``; keys ascend, figures descend.

    Args:
        by: the group keys of the rows.

    Raises:
        ValueError: there is no such column; the text lists them.
    """
    given = text.strip()
    name, direction = given, ""
    if _column(given, by) is None:
        name, _, direction = given.rpartition(":")
        name, direction = name.strip(), direction.strip().lower()
    column = _column(name, by)
    if column is None or direction not in ("", "asc", "desc"):
        shown = [key.removeprefix("tag:") for key in by]
        aliases = [word for word in _TITLES if word not in COLUMNS]
        raise ValueError(
            f"{flag} {text!r}: there is no such column; use COLUMN, COLUMN:asc or COLUMN:desc, "
            f"with one of {', '.join([*shown, *COLUMNS, *aliases])}"
        )
    descending = column in COLUMNS if not direction else direction == "desc"
    return Order(column, descending)


def _column(word: str, by: Sequence[str]) -> str | None:
    """Return the group key or the figure that a word names; a key before a figure."""
    if word in by:
        return word
    if f"tag:{word}" in by:
        return f"tag:{word}"
    return _TITLES.get(word, word if word in COLUMNS else None)
