"""``Fixed``: the part of an answer that stays while no segment is sealed, changed or pruned.

Owns the sums of one question over what never grows, the rows that are made of them once, and how
the few groups that grow are put into these.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec

from litellm_ledger._aggregates.calendar import Calendar
from litellm_ledger._aggregates.groups import Row
from litellm_ledger._aggregates.quantiles import Spread
from litellm_ledger._aggregates.totals import FIGURES, Totals, row_of
from litellm_ledger._reading.lines import Problem
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._reports.report import MAX_GROUPS, Report, finish, in_order, measured_row

from .state import State

__all__ = ["Amounts", "Fixed"]

_place: Final = itemgetter(0)
_LARGE: Final = 20_000
"""Groups of which no rows are kept."""

Figures = dict[str, int]


class Amounts(NamedTuple):
    """What outcomes come to: sums, and what was measured, where that is asked for."""

    totals: Totals
    spread: Spread | None

    def add(self, other: Amounts) -> None:
        """Add what others come to."""
        self.totals.merge(other.totals)
        if self.spread is not None and other.spread is not None:
            self.spread.merge_all(other.spread)

    def plus(self, other: Amounts) -> Amounts:
        """Return what both come to."""
        both = Amounts(self.totals.copy(), self.spread.copy() if self.spread is not None else None)
        both.add(other)
        return both


class Fixed:
    """The sums of one question over segments that do not grow.

    Args:
        by: group keys, as ``check_by`` returns them.
        calendar: what the periods among them are of.
        timed: whether quantiles are asked for.

    Attributes:
        state: of the ledger, which these sums are of; ``None``: of none yet.
        names: the segments in ``sealed``; the SHA-256 of each.
        sealed: what these come to.
        left: segments whose lines are read for each answer.
        problems: of lines that were read for these sums.
        grown: of open segments how many outcomes were added up, and what these come to.
        told: members of the report that follow from what was pruned or priced again.
    """

    def __init__(self, by: Sequence[str], calendar: Calendar, *, timed: bool) -> None:
        self._by = by
        self._calendar = calendar
        self._timed = timed
        self.state: State | None = None
        self.left: list[SegmentName] = []
        self.problems: list[Problem] = []
        self.grown: dict[SegmentName, tuple[int, Amounts]] = {}
        self.told: dict[str, Any] = {}
        self.names: dict[SegmentName, str] = {}
        self.sealed = self.none()
        self._whole = self.none()
        self._figures: dict[tuple[str, ...], Figures] = {}
        self._sum: Figures = {}
        self._rows: list[tuple[Any, Row]] = []
        self._report = Report(by=tuple(by), rows=[], total=Row())

    def none(self) -> Amounts:
        """Return what nothing comes to, for this question."""
        totals = Totals(self._by, max_groups=MAX_GROUPS, calendar=self._calendar)
        return Amounts(totals, Spread(self._by, self._calendar) if self._timed else None)

    def begin(self) -> None:
        """Forget the sums of segments."""
        self.state, self.names = None, {}
        self.sealed = self.none()

    @property
    def is_large(self) -> bool:
        """Whether there are too many groups to keep them."""
        return self._whole.totals.groups > _LARGE

    @property
    def size(self) -> int:
        """Groups that are kept."""
        return (
            len(self._rows)
            + self._whole.totals.groups
            + sum(one.totals.groups for _, one in self.grown.values())
        )

    def finish(self, state: State, rest: Amounts) -> None:
        """Take what the rest comes to, and make rows of everything.

        Args:
            state: of the ledger that everything is of.
            rest: what is not in ``sealed``.
        """
        self._whole = self.sealed.plus(rest) if rest.totals.groups else self.sealed
        self.state = state
        for name in self.grown.keys() - {*state.growing}:
            del self.grown[name]
        if self.is_large:
            return
        whole, measured = self._whole
        self._figures = whole.figures(self._by)
        (self._sum,) = whole.figures([]).values() or (dict.fromkeys(FIGURES, 0),)
        made = finish(whole, self._by, [], measured.quantiles if measured else None)
        place = in_order(self._by)
        self._rows = [(place(row), row) for row in made.rows]
        self._report = msgspec.structs.replace(made, **self.told)

    def report(self, grown: Amounts, problems: list[Problem]) -> Report:
        """Return the report of these sums and of what has grown.

        Args:
            grown: what that comes to.
            problems: of all that was read.
        """
        totals, spread = grown
        if self.is_large or totals.groups > _LARGE:
            whole, measured = self._whole.plus(grown)
            found = finish(whole, self._by, problems, measured.quantiles if measured else None)
            return msgspec.structs.replace(found, **self.told)
        found = msgspec.structs.replace(self._report, problems=problems)
        if not totals.groups:
            return found
        if self._by:
            found = msgspec.structs.replace(found, rows=self._with(totals, spread))
        (more,) = totals.figures([]).values()
        return msgspec.structs.replace(found, total=self._row(None, self._sum, more, spread))

    def _with(self, totals: Totals, spread: Spread | None) -> list[Row]:
        grown = totals.figures(self._by)
        of = [*self._by]
        rows = [
            pair for pair in self._rows if tuple([pair[1].group[key] for key in of]) not in grown
        ]
        place = in_order(self._by)
        for group, more in grown.items():
            row = self._row(group, self._figures.get(group), more, spread)
            insort(rows, (place(row), row), key=_place)
        return [row for _, row in rows]

    def _row(
        self,
        group: tuple[str, ...] | None,
        fixed: Figures | None,
        more: Figures,
        spread: Spread | None,
    ) -> Row:
        sums = {**more} if fixed is None else {name: fixed[name] + more[name] for name in FIGURES}
        row = row_of(dict(zip(self._by, group or (), strict=False)), sums)
        measured = self._whole.spread
        if measured is None:
            return row
        return measured_row(
            row, group, lambda key, name: measured.quantiles(key, name, also=spread)
        )
