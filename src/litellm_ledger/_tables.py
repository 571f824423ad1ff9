"""Tables and amounts for people: Rich on a terminal, aligned plain text anywhere else.

Owns the looks of the command line's output.  Computes nothing but widths, imports Rich only when
standard output is a terminal, never writes colour or boxes into a pipe.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from shutil import get_terminal_size
from unicodedata import combining, east_asian_width

from ._report import dollars

__all__ = ["Column", "amounts", "clean", "show", "write"]

_MAX_CELL = 60


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, its cells, and how willingly it goes when the terminal is narrow.

    Attributes:
        keep: columns of the lowest number are left out first.
        left: text is set flush left, numbers are not.
    """

    title: str
    cells: list[str]
    keep: int = 9
    left: bool = False

    @property
    def width(self) -> int:
        """Terminal cells that the widest entry takes."""
        return max(map(_width, [self.title, *self.cells]))


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def clean(text: str | None, longest: int = _MAX_CELL) -> str:
    """Make text from a record safe to print: no control characters, no endless cells."""
    if text is None:
        return "-"
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def amounts(costs: Sequence[Decimal | None]) -> list[str]:
    """Write exact US dollars with the same number of decimals, so that the points line up."""
    texts = [None if cost is None else dollars(cost) for cost in costs]
    places = max([2, *(len(text.partition(".")[2]) for text in texts if text)])
    return [
        "unknown"
        if cost is None
        else f"${cost:,.{places}f}"
        if cost >= 0
        else f"-${-cost:,.{places}f}"
        for cost in costs
    ]


def write(text: str = "") -> None:
    """Write one line to standard output."""
    sys.stdout.write(text + "\n")


def show(columns: Sequence[Column], *, total: bool = False) -> None:
    """Print a table; with ``total`` the last row is set apart."""
    if sys.stdout.isatty():
        _rich(columns, total=total)
        return
    rows = [[column.title for column in columns]]
    rows += [list(row) for row in zip(*(column.cells for column in columns), strict=True)]
    widths = [column.width for column in columns]
    for row in rows:
        cells = []
        for cell, width, column in zip(row, widths, columns, strict=True):
            space = " " * (width - _width(cell))
            cells.append(cell + space if column.left else space + cell)
        write("  ".join(cells).rstrip())


def _rich(columns: Sequence[Column], *, total: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    size = get_terminal_size()  # given to Rich, which takes any "dumb" terminal for 80 wide
    console = Console(width=size.columns, height=size.lines)
    kept = list(columns)
    while sum(column.width + 3 for column in kept) + 1 > console.width and len(kept) > 2:
        least = min(range(len(kept)), key=lambda at: (kept[at].keep, -at))
        if kept[least].keep >= 9:
            break  # what must stay is folded instead
        del kept[least]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_footer=total)
    for column in kept:
        cells = column.cells
        table.add_column(
            column.title,
            justify="left" if column.left else "right",
            overflow="fold",
            no_wrap=not column.left,
            footer=Text(cells[-1]) if total else "",
        )
    body = [column.cells[:-1] if total else column.cells for column in kept]
    for row in zip(*body, strict=True):
        table.add_row(*map(Text, row))
    console.print(table)
    if len(kept) < len(columns):
        left_out = ", ".join(column.title for column in columns if column not in kept)
        console.print(Text(f"(left out to fit: {left_out}; --json has everything)"))
