"""Tables and amounts for people: Rich on a terminal, aligned plain text anywhere else, Markdown.

Owns the looks of the command line's output: whatever is written here has its control characters
escaped.  Computes nothing but widths, bars and sparklines, imports Rich only when standard output
is a terminal, never writes colour, bars or boxes into a pipe.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final
from unicodedata import combining, east_asian_width

from litellm_ledger._records.escaping import escaped

__all__ = [
    "Column",
    "aside",
    "bar",
    "headline",
    "on_terminal",
    "put_text",
    "show",
    "show_upright",
    "sparkline",
    "tell",
    "too_wide",
    "write",
    "write_marked",
    "write_notes",
]

_BAR: Final = 20
_RISING: Final = "▁▂▃▄▅▆▇█"
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, its cells, and how willingly it goes when the terminal is narrow.

    Attributes:
        keep: columns of the lowest number are left out first.
        left: text is set flush left, numbers are not.
        bars: shares of 1 drawn beside the cells on a terminal that has room.
        style: Rich's, for the cells.
        whole: its cells are never folded, so that they can be copied.
        short: cells for a terminal that is too narrow for the others.
    """

    title: str
    cells: list[str]
    keep: int = 9
    left: bool = False
    bars: Sequence[float] | None = None
    style: str = ""
    whole: bool = False
    short: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", escaped(self.title))
        object.__setattr__(self, "cells", [escaped(cell) for cell in self.cells])

    @property
    def width(self) -> int:
        """Terminal cells that the widest entry takes."""
        return max(map(_width, [self.title, *self.cells]))


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def _terminal() -> os.terminal_size:
    """Return the size of the terminal, which ``$COLUMNS`` overrides."""
    from shutil import get_terminal_size  # its import takes time, and a pipe has no size

    return get_terminal_size()


def on_terminal() -> bool:
    """Whether people see the output as it comes."""
    return sys.stdout.isatty()


def write(text: str = "") -> None:
    """Write one line to standard output."""
    sys.stdout.write(escaped(text) + "\n")


def put_text(text: str) -> None:
    """Write text that is not ours: exactly into a pipe, escaped but for its lines to people."""
    sys.stdout.write(escaped(text, "\n\t") if on_terminal() else text)


def aside(sentence: str) -> None:
    """Write one line to standard error, beside output that is for programs."""
    sys.stderr.write(escaped(sentence) + "\n")


def write_marked(mark: str, style: str, text: str, *, color: bool = True) -> None:
    """Write a line that begins with a short word, coloured on a terminal, folded under itself."""
    if not on_terminal():
        write(f"{mark:<5} {text}")
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=5, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(mark, style=style), Text(escaped(text)))
    _console(color=color).print(grid)


def headline(text: str, values: Sequence[float] = (), *, color: bool = True) -> None:
    """Write a line above a table, with a sparkline: on a terminal only."""
    if not on_terminal():
        return
    room = _terminal().columns - _width(text) - 3
    drawn = sparkline(values, min(room, 60)) if len(values) > 1 and room >= 8 else ""
    from rich.text import Text

    line = Text(escaped(text), style="bold")
    line.append(f"  {drawn}", style="not bold cyan")
    _console(color=color).print(line, soft_wrap=True)
    write()


def tell(sentence: str) -> None:
    """Write a sentence, on a terminal folded between words."""
    if not on_terminal():
        write(sentence)
        return
    from rich.text import Text

    _console(color=True).print(Text(escaped(sentence)))


def write_notes(notes: Iterable[str], *, md: bool = False) -> None:
    """Write the sentences under a table, on a terminal folded between words."""
    for note in notes:
        if md:
            write(f"- {note}")
        else:
            tell(note)


def show(
    columns: Sequence[Column],
    *,
    total: bool = False,
    below: Collection[int] = (),
    md: bool = False,
    color: bool = True,
) -> None:
    """Print a table; ``total``: the last row is set apart; ``below``: rows that are quieter."""
    if md:
        _markdown(columns, total=total)
    elif on_terminal():
        _rich(columns, total=total, below=below, color=color)
    else:
        _plain(columns)


def too_wide(columns: Sequence[Column]) -> bool:
    """Tell whether a terminal is too narrow for these columns."""
    return on_terminal() and _needed(columns) > _terminal().columns


def _needed(columns: Sequence[Column]) -> int:
    return sum(column.width + 3 for column in columns) + 1


def show_upright(columns: Sequence[Column]) -> None:
    """Print each row as lines of a title and a cell, for rows that are too wide."""
    longest = max(_width(column.title) for column in columns)
    for at in range(len(columns[0].cells)):
        if at:
            write()
        for column in columns:
            space = " " * (longest - _width(column.title))
            write(f"{column.title}{space}  {column.cells[at]}".rstrip())


def _plain(columns: Sequence[Column]) -> None:
    widths = [column.width for column in columns]
    for row in zip(*([column.title, *column.cells] for column in columns), strict=True):
        cells = []
        for cell, width, column in zip(row, widths, columns, strict=True):
            space = " " * (width - _width(cell))
            cells.append(cell + space if column.left else space + cell)
        write("  ".join(cells).rstrip())


def _markdown(columns: Sequence[Column], *, total: bool) -> None:
    def line(cells: Iterable[str]) -> None:
        write("| " + " | ".join(cell.strip().replace("|", "\\|") for cell in cells) + " |")

    line(column.title for column in columns)
    line(":--" if column.left else "--:" for column in columns)
    rows = list(zip(*(column.cells for column in columns), strict=True))
    for at, row in enumerate(rows):
        last = total and at == len(rows) - 1
        line(f"**{cell}**" if last and cell.strip() else cell for cell in row)


def _console(*, color: bool) -> Any:
    from rich.console import Console

    size = _terminal()  # given to Rich, which takes any "dumb" terminal for 80 wide
    return Console(width=size.columns, height=size.lines, no_color=not color or None)


def _rich(columns: Sequence[Column], *, total: bool, below: Collection[int], color: bool) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = _console(color=color)
    kept = list(columns)
    if _needed(kept) > console.width:
        kept = [replace(c, cells=list(c.short), short=()) if c.short else c for c in kept]
    while _needed(kept) > console.width and len(kept) > 2:
        least = min(range(len(kept)), key=lambda at: (kept[at].keep, -at))
        if kept[least].keep >= 9:
            break  # what must stay is folded instead
        del kept[least]
    room = console.width - _needed(kept)
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        show_footer=total,
        header_style="bold",
        footer_style="bold",
    )
    drawn: list[list[str]] = []
    for column in kept:
        cells = column.cells
        table.add_column(
            Text(column.title),  # not markup: a query names its columns
            justify="left" if column.left else "right",
            overflow="fold",
            no_wrap=column.whole or not column.left,
            footer=Text(cells[-1]) if total else "",
            style=column.style,
        )
        drawn.append(cells[:-1] if total else cells)
        if column.bars is not None and room >= 11:
            width = min(_BAR, room - 3)
            room -= width + 3
            table.add_column("", style="cyan", no_wrap=True, min_width=width)
            drawn.append([bar(share, width) for share in column.bars][: len(drawn[0])])
    for at, row in enumerate(zip(*drawn, strict=True)):
        quiet = "dim" if at in below else ""
        table.add_row(*(Text(cell, "dim" if cell in ("0", "-") else quiet) for cell in row))
    console.print(table)
    if len(kept) < len(columns):
        shown = {column.title for column in kept}
        left_out = ", ".join(c.title for c in columns if c.title not in shown)
        console.print(Text(f"(left out to fit: {left_out}; --json has everything)", style="dim"))


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw one character a value, or the sums of neighbours where there are more than ``width``.

    Anything above nothing is seen: only 0 (and less) is the lowest character.
    """
    if width < 1 or not values:
        return ""
    if len(values) > width:
        edges = [at * len(values) // width for at in range(width + 1)]
        values = [sum(values[a:b]) for a, b in pairwise(edges)]
    most = max(values)
    if most <= 0:
        return _RISING[0] * len(values)
    top = len(_RISING) - 1
    return "".join(
        _RISING[0 if value <= 0 else max(1, round(value / most * top))] for value in values
    )


def bar(share: float, width: int) -> str:
    """Draw a share of 1 as a bar, to an eighth of a character; a share above 0 is always seen."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    if share > 0:
        eighths = max(1, eighths)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")
