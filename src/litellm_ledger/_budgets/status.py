"""``BudgetStatus``: what stands against each budget, as the ledger says it.

Owns the figures and the projection.  Reads the ledger and no table: what it finds is what a table
is made from.  Never writes, and blocks: for a thread, or the command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from litellm_ledger._reading.lines import Line, Problem, entries
from litellm_ledger._records.layout import ADJUSTMENTS, SegmentName
from litellm_ledger._records.money import usd
from litellm_ledger._storage.live_file import lives

from .amounts import UNITS
from .budget import Budget
from .rebuild import figures, names_of
from .windows import Window

__all__ = ["BudgetStatus", "Standing", "standing", "status_of"]

_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_LEAST: Final = 50
"""A window of which less than a 50th has passed tells nothing of how it ends."""


class Standing(NamedTuple):
    """What the ledger says of one budget and scope, in its window of now, in whole units.

    Attributes:
        at_risk: what calls in flight may cost beyond what is held for them; ``None``: no bound is
            known.
    """

    budget: Budget
    scope: str
    window: Window
    settled: int
    held: int
    at_risk: int | None


class BudgetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a budget is spent, for one scope.  Amounts: US dollars, or whole numbers.

    Attributes:
        budget: its name.
        scope: whose money it is, for example ``user=alice``; empty: one limit for all.
        unit: ``usd``, ``tokens`` or ``calls``.
        mode: ``strict``, ``adaptive`` or ``soft``.
        limit: what may be spent in the window.
        settled: what is spent.
        held: what calls in flight may still cost.
        free: what is left: ``limit - settled - held``, at least 0.
        projected: what will be spent at the end of the window, if it continues as it began;
            ``None`` early in a window, and where it has no end.
        worst_overspend: by how much the calls in flight now can exceed the limit at most: ``settled
            + held - limit``, and what they may cost beyond what is held for them; ``None``: a call
            without a bound is in flight.
        warned: the thresholds that are reached, as ``warn`` gives them.
        start: when the window began; ``None``: there was no beginning.
        resets_at: when it ends; ``None``: never, or it is a rolling one.
    """

    budget: str
    scope: str
    unit: str
    mode: str
    limit: Decimal | int
    settled: Decimal | int
    held: Decimal | int
    free: Decimal | int
    projected: Decimal | int | None
    worst_overspend: Decimal | int | None
    warned: tuple[Decimal, ...]
    start: datetime | None
    resets_at: datetime | None

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left, calls in flight apart."""
        return self.settled >= self.limit


def status_of(found: Standing, now: datetime) -> BudgetStatus:
    """Return the figures of a standing."""
    budget, window = found.budget, found.window
    said = usd if budget.unit == "usd" else int
    over = found.settled + found.held - budget.limit_units
    projected = _projected(found, now)
    warned = zip(budget.warn_parts, budget.warn_units, strict=True)
    return BudgetStatus(
        budget=budget.label,
        scope=found.scope,
        unit=budget.unit,
        mode=budget.mode,
        limit=said(budget.limit_units),
        settled=said(found.settled),
        held=said(found.held),
        free=said(max(0, -over)),
        projected=None if projected is None else said(projected),
        worst_overspend=None if found.at_risk is None else said(max(0, over + found.at_risk)),
        warned=tuple(part for part, units in warned if units <= found.settled),
        start=None if window.start.year <= 1 else window.start,
        resets_at=None if budget.rolling or window.end == _NEVER else window.end,
    )


def _projected(found: Standing, now: datetime) -> int | None:
    start, end = found.window.start, found.window.end
    if found.budget.rolling is not None or end == _NEVER:
        return None
    passed, whole = now - start, end - start
    if passed < whole / _LEAST:
        return None
    tick = timedelta(microseconds=1)
    return found.settled * (whole // tick) // max(1, passed // tick)


def standing(root: Path, budgets: Sequence[Budget], now: datetime) -> list[Standing]:
    """Return what the ledger says of each budget, scope by scope: those with the most spent first.

    A budget without ``per`` is there also where nothing counts.

    Raises:
        LedgerPathError: there is no ledger, or it cannot be read.
        UnsupportedFormat: a newer version wrote it.
        MissingExtra: some of it is in the archive, and DuckDB is not installed.
    """
    measured = dict(enumerate(budgets))
    windows = [budget.window_at(now) for budget in budgets]
    sums: dict[tuple[int, str], tuple[int, int]] = {
        (number, ""): (0, 0) for number, budget in measured.items() if budget.per is None
    }
    risks: dict[tuple[int, str], int | None] = {}
    if not measured:
        return []
    every = names_of(root)
    for writer, names in every.items():
        alive = any(name.open for name in names) and lives(root, writer)
        found, _ = figures(root, writer, every, measured, now, alive=alive)
        for spot, (spent, held) in found.items():
            window = windows[spot.measure]
            if window.since <= spot.window <= window.key:
                before = sums.get((spot.measure, spot.scope), (0, 0))
                sums[spot.measure, spot.scope] = before[0] + spent, before[1] + held
        if alive and not writer.startswith(ADJUSTMENTS):
            _add_risks(risks, measured, windows, _in_flight(root, names))
    standings = [
        Standing(measured[number], scope, windows[number], *both, risks.get((number, scope), 0))
        for (number, scope), both in sums.items()
    ]
    order = {budget.label: number for number, budget in measured.items()}
    standings.sort(key=lambda one: (order[one.budget.label], -one.settled - one.held, one.scope))
    return standings


def _in_flight(root: Path, names: Sequence[SegmentName]) -> Iterator[Line]:
    """Yield the ``started`` lines of calls that have no outcome."""
    running: dict[tuple[str, int], Line] = {}
    ignored: list[Problem] = []
    for entry in entries(root, names, ignored, family=names):
        line = entry.line
        key = line.operation or line.id, line.attempt or 1
        if line.kind == "started":
            running[key] = line
        elif line.kind == "usage":
            running.pop(key, None)
    yield from running.values()


def _add_risks(
    risks: dict[tuple[int, str], int | None],
    budgets: dict[int, Budget],
    windows: Sequence[Window],
    lines: Iterator[Line],
) -> None:
    for line in lines:
        if line.ts is None:
            continue
        for number, budget in budgets.items():
            scope = budget.scope_of(line.model, line.tags)
            if scope is None or UNITS[budget.unit] == UNITS["calls"]:
                continue
            key = budget.window_at(line.ts).key
            if not windows[number].since <= key <= windows[number].key:
                continue
            before = risks.get((number, scope), 0)
            more = _beyond(line, budget.unit)
            risks[number, scope] = None if before is None or more is None else before + more


def _beyond(line: Line, unit: str) -> int | None:
    """Return what a call in flight may cost beyond what is held for it; ``None``: without bound."""
    dollars = unit == "usd"
    hold = line.hold_picousd if dollars else line.hold_tokens
    most = line.most_picousd if dollars else line.most_tokens
    return None if hold is None else max(0, (most or 0) - hold)
