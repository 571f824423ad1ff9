"""The commands about this moment: ``statusline`` and ``watch``.

Owns their words, and what they print.  ``statusline`` imports little, so that a prompt can call it;
``watch`` imports Rich, and draws until it is interrupted.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Final

from litellm_ledger._aggregates.formatting import amounts, clean, counted

from .flags import Output, emit, paths_dict, place, zone_name
from .parameters import option
from .tables import on_terminal, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from litellm_ledger._aggregates.groups import Row
    from litellm_ledger._reports.ledger import Ledger
    from litellm_ledger._reports.today import Today

__all__ = ["statusline", "watch"]

_RATE: Final = 300.0
"""Seconds over which a rate is taken."""

Zone = Annotated[
    str | None,
    option(
        "--tz",
        "-z",
        metavar="ZONE",
        help="Time zone of the day: Europe/Berlin, local. Default: that of this machine on a "
        "terminal, else UTC.",
    ),
]


def statusline(output: Output, ledger: Ledger, tz: Zone = None) -> int:
    """Print one line for prompts and bars: spend today and this hour, in flight, errors."""
    from litellm_ledger._reports.today import look

    tz = zone_name(tz, local=on_terminal())
    found = look(ledger, tz=tz)
    return emit(
        output,
        lambda: {**paths_dict(ledger), "tz": tz, **found.to_dict()},
        lambda: write(_line(found)),
    )


def _line(found: Today) -> str:
    day, hour = _costs(found.total, found.this_hour)
    return (
        f"today {day}, this hour {hour}, {found.in_flight:,} in flight, "
        f"{counted(found.total.error, 'error')}"
    )


def _costs(*rows: Row) -> list[str]:
    """Write the costs of rows, with a mark where one is a minimum."""
    from litellm_ledger._reports.report import floor_mark

    texts = amounts([row.known_cost for row in rows], exact=False)
    return [text + floor_mark(row) for text, row in zip(texts, rows, strict=True)]


def watch(
    ledger: Ledger,
    output: Output,
    by: Annotated[str, option(metavar="KEY", help="Group key to list the most expensive of.")] = (
        "model"
    ),
    limit: Annotated[int, option("--limit", "-n", help="Rows to list; 0: all.")] = 10,
    interval: Annotated[int, option(help="Seconds between two looks.")] = 2,
    tz: Zone = None,
) -> int:
    """Show spend today, rate, errors and the most expensive, until Ctrl-C; needs a terminal."""
    if not on_terminal():
        raise ValueError("watch needs a terminal; litellm-ledger statusline prints one line")
    from rich.console import Console
    from rich.live import Live

    from litellm_ledger._aggregates.calendar import calendar
    from litellm_ledger._reports.today import look, midnight

    tz = zone_name(tz, local=True)
    console = Console(file=sys.stdout, no_color=not output.color or None, highlight=False)
    samples: deque[tuple[float, Today]] = deque()
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                now = datetime.now(UTC)
                found = look(ledger, tz=tz, now=now)
                top = ledger.report([by], since=midnight(calendar(tz), now), tz=tz, limit=limit)
                _note(samples, found)
                live.update(_drawn(ledger, found, by, top.rows, _rate(samples)), refresh=True)
                time.sleep(max(interval, 1))
    except KeyboardInterrupt:
        return 0


def _drawn(ledger: Ledger, found: Today, by: str, rows: Sequence[Row], rate: str) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    day, hour = _costs(found.total, found.this_hour)
    total = found.total
    states = [
        counted(total.calls, "call"),
        f"{found.in_flight:,} in flight",
        counted(total.error, "error"),
        f"{total.unpriced:,} without a price",
    ]
    lines = [
        (f"{found.day}: {day}", "bold"),
        (f"this hour: {hour}; {rate}", ""),
        (", ".join(states), ""),
    ]
    if found.cut_off:
        lines.append((f"{counted(found.cut_off, 'call')} cut off: litellm-ledger recover", ""))
    table = Table(box=None, pad_edge=False)
    table.add_column(clean(by), overflow="fold")
    for title in ("calls", "errors", "cost"):
        table.add_column(title, justify="right")
    for row, cost in zip(rows, _costs(*rows), strict=True):
        name = Text(clean(next(iter(row.group.values()))))  # not markup: others name models
        table.add_row(name, f"{row.calls:,}", f"{row.error:,}", cost)
    path = Text(f"{clean(place(ledger))}  (Ctrl-C ends)", style="dim")
    return Group(*(Text(text, style=style) for text, style in lines), Text(), table, Text(), path)


def _note(samples: deque[tuple[float, Today]], found: Today) -> None:
    """Keep what a rate is taken from: the looks of the last minutes of the same day."""
    now = time.monotonic()
    samples.append((now, found))
    while samples[0][0] < now - _RATE or samples[0][1].day != found.day:
        samples.popleft()


def _rate(samples: deque[tuple[float, Today]]) -> str:
    (began, first), (ended, last) = samples[0], samples[-1]
    seconds = ended - began
    if seconds < 1:
        return "-"
    calls = (last.total.calls - first.total.calls) * 60 / seconds
    spent = (last.total.cost - first.total.cost) * 3600 / Decimal(seconds)
    return f"{calls:,.1f} calls a minute, ${spent:,.2f} an hour"
