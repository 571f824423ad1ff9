"""``BudgetStatus``: what stands against each budget, as the ledger says it.

Owns the figures and the projection.  Reads the ledger and no table: what it finds is what a table
is made from.  Never writes, and blocks: for a thread, or the command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from litellm_ledger._reading.lines import Line
from litellm_ledger._records.money import usd
from litellm_ledger._storage.live_file import lives

from .amounts import UNITS
from .budget import Budget
from .jobs import what_began
from .rebuild import Counted, count, names_of
from .table import Spot
from .windows import Window

__all__ = ["BudgetStatus", "Gathered", "SharedLimit", "Standing", "standing", "status_of"]

_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_LEAST: Final = 50
"""A window of which less than a 50th has passed tells nothing of how it ends."""


class Standing(NamedTuple):
    """What the ledger says of one budget and scope, in its window of now, in whole units.

    Attributes:
        at_risk: what calls in flight may cost beyond what is held for them; ``None``: no bound is
            known.
        refused: calls that were refused, by this budget or by another one that is for them, too.
    """

    budget: Budget
    scope: str
    window: Window
    settled: int
    held: int
    at_risk: int | None
    refused: int = 0


class SharedLimit(msgspec.Struct, frozen=True, kw_only=True):
    """What a process knows of a limit that many machines share.  Amounts as in ``BudgetStatus``.

    Attributes:
        leased: what this process may spend, of which it has spent some.
        lent: what all processes may spend, as the database said last.
        used: what all processes have spent or hold, as they said last.
        away: why the database cannot be asked; ``None``: it can.
    """

    leased: Decimal | int
    lent: Decimal | int
    used: Decimal | int
    away: str | None = None


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
        refused: calls of the window that were refused, by this budget or by another one that is
            for them, too.
        warned: the thresholds that are reached, as ``warn`` gives them.
        start: when the window began; ``None``: there was no beginning.
        resets_at: when it ends; ``None``: never, or it is a rolling one.
        shared: where many machines share the limit: what is known of the others.  The other
            figures are those of this ledger.
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
    refused: int
    warned: tuple[Decimal, ...]
    start: datetime | None
    resets_at: datetime | None
    shared: SharedLimit | None = None

    def figures(self) -> dict[str, Any]:
        """Return the fields that are of this ledger, all but ``shared``."""
        return {name: getattr(self, name) for name in self.__struct_fields__ if name != "shared"}

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
        refused=found.refused,
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
    if not measured:
        return []
    every = names_of(root)
    began = partial(what_began, root, every)
    gathered = Gathered(measured, now)
    for writer, names in every.items():
        alive = any(name.open for name in names) and lives(root, writer)
        counted = count(root, writer, every, measured, now)
        gathered.add(counted, counted.figures(alive=alive, began=began), alive=alive)
    return gathered.standings()


class Gathered:
    """What all writers count for budgets, in their windows of now.

    Args:
        budgets: by their numbers.
        now: the moment.
    """

    def __init__(self, budgets: Mapping[int, Budget], now: datetime) -> None:
        self._budgets = budgets
        self._windows = {number: budget.window_at(now) for number, budget in budgets.items()}
        self._sums: dict[tuple[int, str], tuple[int, int]] = {
            (number, ""): (0, 0) for number, budget in budgets.items() if budget.per is None
        }
        self._risks: dict[tuple[int, str], int | None] = {}
        self._refused: dict[tuple[int, str], int] = {}

    def add(
        self, counted: Counted, figures: Mapping[Spot, tuple[int, int]], *, alive: bool
    ) -> None:
        """Add what one writer counts.

        Args:
            counted: as far as its lines were read.
            figures: what these come to.
            alive: whether its process lives.
        """
        for spot, (spent, held) in figures.items():
            if self._is_now(spot.measure, spot.window):
                before = self._sums.get((spot.measure, spot.scope), (0, 0))
                self._sums[spot.measure, spot.scope] = before[0] + spent, before[1] + held
        for spot, number_of in counted.refused.items():
            if self._is_now(spot.measure, spot.window):
                at = spot.measure, spot.scope
                self._sums.setdefault(at, (0, 0))
                self._refused[at] = self._refused.get(at, 0) + number_of
        if alive:
            for line in counted.running.values():
                self._add_risk(line)

    def _is_now(self, number: int, key: int) -> bool:
        window = self._windows[number]
        return window.since <= key <= window.key

    def _add_risk(self, line: Line) -> None:
        """Add what a call in flight may cost beyond what is held for it."""
        for number, budget in self._budgets.items():
            scope = budget.scope_of(line.model, line.tags)
            if scope is None or line.ts is None or UNITS[budget.unit] == UNITS["calls"]:
                continue
            if self._is_now(number, budget.window_at(line.ts).key):
                before = self._risks.get((number, scope), 0)
                more = _beyond(line, budget.unit)
                self._risks[number, scope] = (
                    None if before is None or more is None else before + more
                )

    def standings(self) -> list[Standing]:
        """Return what stands against each budget; those with the most spent first."""
        found = [
            Standing(
                self._budgets[number],
                scope,
                self._windows[number],
                *both,
                self._risks.get((number, scope), 0),
                self._refused.get((number, scope), 0),
            )
            for (number, scope), both in self._sums.items()
        ]
        order = {budget.label: number for number, budget in self._budgets.items()}
        found.sort(key=lambda one: (order[one.budget.label], -one.settled - one.held, one.scope))
        return found


def _beyond(line: Line, unit: str) -> int | None:
    """Return what a call in flight may cost beyond what is held for it; ``None``: without bound."""
    dollars = unit == "usd"
    hold = line.hold_picousd if dollars else line.hold_tokens
    most = line.most_picousd if dollars else line.most_tokens
    return None if hold is None else max(0, (most or 0) - hold)
