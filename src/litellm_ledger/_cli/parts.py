"""A table of Rich's in parts, so that a long one need not be in memory: they look as one would.

Owns the widths of the parts.  Imports Rich; imported where one is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

from rich import box
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

__all__ = ["Parts"]

_ROWS: Final = 500
"""Rows of a part."""


class _Wide(Text):
    """Text that takes as much room as the widest of its column."""

    def __init__(self, text: Text, room: int) -> None:
        super().__init__(text.plain, text.style)
        self._room = room

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(self._room, self._room)


class Parts:
    """A table whose columns are as wide as they are said to be."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._columns: list[dict[str, Any]] = []
        self._widths: list[int] = []
        self._footer = False

    def add(
        self, title: str, width: int, *, left: bool, whole: bool, style: str, footer: str | None
    ) -> None:
        """Add a column; ``whole``: text is not folded, as numbers never are."""
        self._widths.append(width)
        self._footer = footer is not None
        self._columns.append(
            {
                "header": _Wide(Text(title), width),  # not markup: a query names its columns
                "justify": "left" if left else "right",
                "overflow": "fold",
                "no_wrap": whole or not left,
                "footer": Text(footer or ""),
                "style": style,
            }
        )

    def print(self, rows: Iterable[Sequence[Text]]) -> None:
        """Print the table."""
        found = iter(rows)
        part, first = list(islice(found, _ROWS)), True
        while True:
            after = list(islice(found, _ROWS))
            self._console.print(self._table(part, first=first, last=not after))
            if not after:
                return
            part, first = after, False

    def _table(self, rows: list[Sequence[Text]], *, first: bool, last: bool) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD,
            show_header=first,
            show_edge=False,
            pad_edge=False,
            show_footer=self._footer and last,
            header_style="bold",
            footer_style="bold",
        )
        for column in self._columns:
            table.add_column(**column)
        for at, row in enumerate(rows):
            table.add_row(*(row if at or first else map(_Wide, row, self._widths)))
        return table
