"""The calls on a ledger, as ``simulate`` replays them.

Owns the reading: each attempt with what was held for it, if the ledger says it, and what it counts.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from litellm_ledger._reading.lines import Line, Problem, everything
from litellm_ledger._reading.listing import Snapshot

from .amounts import NOTHING, Amounts, held_by, spent_by
from .simulate import PastCall

__all__ = ["Past", "past_calls", "picodollars"]


class Past(NamedTuple):
    """What was read.

    Attributes:
        calls: attempts that cost or held something, in the order in which they began.
        refused: calls that a budget did refuse: nobody knows what they would have cost.
        problems: places without a valid record.
    """

    calls: list[PastCall]
    refused: int
    problems: list[Problem]


def past_calls(
    root: Path,
    since: datetime | None,
    until: datetime | None,
    fits: Callable[[Line], bool] = lambda _: True,
) -> Past:
    """Read the attempts of a period: some 500 bytes of memory each.

    Costs are those recorded; what ``reprice`` added counts for no window of the past.

    Args:
        fits: which of them.

    Raises:
        LedgerPathError: there is no ledger, or it cannot be read.
        UnsupportedFormat: a newer version wrote it.
        MissingExtra: some of it is in the archive, and DuckDB is not installed.
    """
    problems: list[Problem] = []
    calls: list[PastCall] = []
    refused = 0
    writer = ""
    running: dict[tuple[str, int], Line] = {}
    for entry in everything(Snapshot.take(root), problems):
        line = entry.line
        if entry.segment.writer != writer:
            calls += [_cut_off(one) for one in running.values()]
            running.clear()
            writer = entry.segment.writer
        if line.ts is None or line.kind not in ("started", "usage"):
            continue
        if (since and line.ts < since) or (until and line.ts >= until) or not fits(line):
            continue
        key = line.operation or line.id, line.attempt or 1
        if line.kind == "started":
            running[key] = line
            continue
        started = running.pop(key, None)
        refused += line.status == "refused"
        spent = spent_by(line, picodollars(line))
        if spent != NOTHING:
            calls.append(_call(line, started, spent))
    calls += [_cut_off(one) for one in running.values()]
    calls.sort(key=lambda call: call.began)
    return Past(calls, refused, problems)


def picodollars(line: Any) -> int | None:
    """Return the cost of a line, which has it as on disk; ``None``: unknown."""
    cost: int | None = line.cost
    return cost


def _call(line: Line, started: Line | None, spent: Amounts) -> PastCall:
    assert line.ts is not None
    held = None
    if started is not None and started.hold_picousd is not None:
        held = held_by(started)
        if started.hold_tokens is None:
            held = held._replace(tokens=spent.tokens)
    return PastCall(
        line.operation or line.id,
        line.ts,
        line.ts + timedelta(milliseconds=_bounded(line.latency_ms)),
        line.model,
        line.tags or {},
        held,
        spent,
    )


def _bounded(latency_ms: float | None) -> float:
    """A latency that a time can be moved by: anybody may write a line."""
    return min(latency_ms or 0.0, 86_400_000.0 * 366)


def _cut_off(started: Line) -> PastCall:
    """A call without an outcome: all that it held counts."""
    assert started.ts is not None
    return _call(started, started, held_by(started))
