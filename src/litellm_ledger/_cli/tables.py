"""Tables and amounts for people: Rich on a terminal, aligned plain text anywhere else, Markdown.

Owns the looks of the command line's output: whatever is written here has its control characters
escaped.  Computes nothing but widths, bars and sparklines, imports Rich only when standard output
is a terminal, never writes colour, bars or boxes into a pipe.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any, Final, NamedTuple
from unicodedata import combining, east_asian_width

from litellm_ledger._records.escaping import escaped

__all__ = [
    "Column",
    "Line",
    "aside",
    "bar",
    "headline",
    "on_terminal",
    "put_text",
    "show",
    "show_lines",
    "show_upright",
    "sparkline",
    "tell",
    "text_width",
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
        style: Rich's, for the cells.
        whole: its cells are never folded, so that they can be copied.
        short: cells for a terminal that is too narrow for the others.
    """

    title: str
    cells: list[str]
    keep: int = 9
    left: bool = False
    style: str = ""
    whole: bool = False
    short: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", escaped(self.title))
        object.__setattr__(self, "cells", [escaped(cell) for cell in self.cells])

    @property
    def width(self) -> int:
        """Terminal cells that the widest entry takes."""
        return max(map(text_width, [self.title, *self.cells]))


class Line(NamedTuple):
    """A line of a table.

    Attributes:
        cells: escaped.
        quiet: whether it is drawn quieter.
        share: of 1; drawn as a bar behind the last column on a terminal that has room, if all lines
            have one.
    """

    cells: Sequence[str]
    quiet: bool = False
    share: float | None = None


def text_width(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
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
    room = _terminal().columns - text_width(text) - 3
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
    md: bool = False,
    color: bool = True,
) -> None:
    """Print a table; ``total``: the last row is set apart."""
    rows = len(columns[0].cells) - total
    lines = (Line([column.cells[at] for column in columns]) for at in range(rows))
    footer = [column.cells[-1] for column in columns] if total else None
    show_lines(columns, lines, footer, md=md, color=color)


def show_lines(
    columns: Sequence[Column],
    lines: Iterable[Line],
    footer: Sequence[str] | None,
    *,
    md: bool = False,
    color: bool = True,
) -> None:
    """Print a table line by line; the widest of its cells are those of ``columns``."""
    if md:
        _markdown(columns, lines, footer)
    elif on_terminal():
        _rich(columns, lines, footer, color=color)
    else:
        _plain(columns, lines, footer)


def too_wide(columns: Sequence[Column]) -> bool:
    """Tell whether a terminal is too narrow for these columns."""
    return on_terminal() and _needed(columns) > _terminal().columns


def _needed(columns: Sequence[Column]) -> int:
    return sum(column.width + 3 for column in columns) + 1


def show_upright(columns: Sequence[Column]) -> None:
    """Print each row as lines of a title and a cell, for rows that are too wide."""
    longest = max(text_width(column.title) for column in columns)
    for at in range(len(columns[0].cells)):
        if at:
            write()
        for column in columns:
            space = " " * (longest - text_width(column.title))
            write(f"{column.title}{space}  {column.cells[at]}".rstrip())


def _plain(columns: Sequence[Column], lines: Iterable[Line], footer: Sequence[str] | None) -> None:
    widths = [column.width for column in columns]
    titles = [Line([column.title for column in columns])]
    for line in chain(titles, lines, [Line(footer)] if footer else ()):
        cells = []
        for cell, width, column in zip(line.cells, widths, columns, strict=True):
            space = " " * (width - text_width(cell))
            cells.append(cell + space if column.left else space + cell)
        write("  ".join(cells).rstrip())


def _markdown(
    columns: Sequence[Column], lines: Iterable[Line], footer: Sequence[str] | None
) -> None:
    def put(cells: Iterable[str]) -> None:
        write("| " + " | ".join(cell.strip().replace("|", "\\|") for cell in cells) + " |")

    put(column.title for column in columns)
    put(":--" if column.left else "--:" for column in columns)
    for line in lines:
        put(line.cells)
    if footer:
        put(f"**{cell}**" if cell.strip() else cell for cell in footer)


def _console(*, color: bool) -> Any:
    from rich.console import Console

    size = _terminal()  # given to Rich, which takes any "dumb" terminal for 80 wide
    return Console(width=size.columns, height=size.lines, no_color=not color or None)


def _kept(columns: Sequence[Column], width: int) -> tuple[dict[int, Column], dict[int, list[str]]]:
    """Return the columns that a terminal has room for, and the cells of those that are short."""
    kept, short = dict(enumerate(columns)), dict[int, list[str]]()
    if _needed(columns) > width:
        for at, column in enumerate(columns):
            if column.short:
                kept[at] = replace(column, cells=list(column.short), short=())
                short[at] = kept[at].cells
    while _needed([*kept.values()]) > width and len(kept) > 2:
        least = min(kept, key=lambda at: (kept[at].keep, -at))
        if kept[least].keep >= 9:
            break  # what must stay is folded instead
        del kept[least]
    return kept, short


def _rich(
    columns: Sequence[Column],
    lines: Iterable[Line],
    footer: Sequence[str] | None,
    *,
    color: bool,
) -> None:
    from rich.text import Text

    from .parts import Parts

    console = _console(color=color)
    kept, short = _kept(columns, console.width)
    parts = Parts(console)
    room = console.width - _needed([*kept.values()])
    bars = 0
    for at, column in kept.items():
        parts.add(
            column.title,
            column.width,
            left=column.left,
            whole=column.whole,
            style=column.style,
            footer=footer[at] if footer else None,
        )
    found = iter(lines)
    first = next(found, None)
    if first is not None and first.share is not None and room >= 11:
        bars = min(_BAR, room - 3)
        parts.add("", bars, left=True, whole=True, style="cyan", footer="" if footer else None)

    def cells() -> Iterator[list[Text]]:
        for number, line in enumerate(chain([first] if first else [], found)):
            quiet = "dim" if line.quiet else ""
            row = [short[at][number] if at in short else line.cells[at] for at in kept]
            drawn = [Text(cell, "dim" if cell in ("0", "-") else quiet) for cell in row]
            if bars:
                drawn.append(Text(bar(line.share or 0.0, bars), quiet))
            yield drawn

    parts.print(cells())
    if len(kept) < len(columns):
        shown = {column.title for column in kept.values()}
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
