"""``Table``: sums of a segment by quarter of an hour, which answer questions about any period.

Owns the tables of a manifest (docs/FORMAT.md) and how a question is answered from them: exactly or
not at all.  ``segment_sums`` makes them.  Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from typing import Annotated, Any, Final, Protocol, TypeVar, cast

import msgspec

from litellm_ledger._records.record import KEYS, Fields

from .calendar import PERIODS
from .durations import DurationGroup, DurationTable
from .groups import key_of
from .quantiles import MEASURED, Spread
from .selection import Selection
from .steps import EPOCH, QUARTER, Quarter, are_quarters, is_step
from .totals import FIELDS, Totals

__all__ = ["LARGEST", "Group", "Limits", "QuarterQuestion", "Table"]

_TICK: Final = timedelta(microseconds=1)

_HALF_A_DAY: Final = 48
LARGEST: Final = 2**63 - 1
"""Sum that a table can have."""
_FIELDS: Final = frozenset(FIELDS)
_Sum = Annotated[int, msgspec.Meta(ge=-LARGEST, le=LARGEST)]


class Limits(msgspec.Struct, frozen=True, gc=False):
    """What bounds the tables of a segment; docs/FORMAT.md explains each.

    The defaults are those of manifests that do not name theirs, and never change.  The bounds are
    for ``verify --full``, which makes tables anew with the limits that stand in a file.
    """

    rows: Annotated[int, msgspec.Meta(ge=0, le=40_000)] = 20_000
    kept: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 1_000
    share: Annotated[int, msgspec.Meta(ge=1, le=40)] = 4
    steps: Annotated[tuple[int, ...], msgspec.Meta(min_length=1, max_length=12)] = (1, 4, 96)
    values: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 100
    tags: Annotated[int, msgspec.Meta(ge=0, le=50)] = 50
    all_rows: Annotated[int, msgspec.Meta(ge=0, le=120_000)] = 60_000
    short: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 256
    fold: Annotated[int, msgspec.Meta(ge=1_024, le=4_096)] = 4_096

    def __post_init__(self) -> None:
        if list(self.steps) != sorted(set(self.steps)) or not all(map(is_step, self.steps)):
            raise ValueError("steps of tables ascend, and each divides a day")


class Group(msgspec.Struct, frozen=True, gc=False):
    """Outcomes with the same values: their sums for each quarter of an hour."""

    of: list[str | None]
    quarters: list[Quarter | None]
    sums: dict[str, list[_Sum]]

    def is_sound(self, values: int, step: int) -> bool:
        """Whether its parts fit each other: that of what is read from a file nobody promises."""
        return (
            len(self.of) == values
            and are_quarters(self.quarters, step)
            and "calls" in self.sums
            and _FIELDS.issuperset(self.sums)
            and {len(self.quarters)} == {*map(len, self.sums.values())}
        )


class Table(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The groups of one segment, by ``KEYS`` and perhaps by the value of a tag.

    ``step``: how many quarters its sums are over.
    """

    groups: list[Group]
    step: int = 1

    def is_sound(self, of_tag: bool) -> bool:
        """Whether its groups fit it."""
        values = len(KEYS) + of_tag
        return is_step(self.step) and all(g.is_sound(values, self.step) for g in self.groups)


_G = TypeVar("_G", Group, DurationGroup)


class _Table(Protocol[_G]):
    """What tables have in common."""

    @property
    def groups(self) -> list[_G]: ...
    @property
    def step(self) -> int: ...


class QuarterQuestion:
    """A question that is put to many segments: sums by group, of what a selection wants.

    Args:
        by: the group keys.
        selection: which outcomes.
    """

    def __init__(self, by: Sequence[str], selection: Selection) -> None:
        self._selection = selection
        self._keys = [key_of(name, selection.calendar) for name in by]
        asked = {*by, *selection.where, *selection.where_not}
        self.periods = sorted(asked.intersection(PERIODS))
        """The periods that outcomes are told apart by."""
        tags = sorted(name.removeprefix("tag:") for name in asked if name.startswith("tag:"))
        self.tag = tags[0] if tags else None
        self.answerable = len(tags) < 2 and not selection.compared
        """Whether tables of one tag can answer it; what is compared are single records."""
        self._numbers: dict[tuple[int, int], tuple[int, ...] | None] = {}

    def add_to(
        self,
        totals: Totals,
        table: Table,
        spread: Spread | None = None,
        durations: DurationTable | None = None,
    ) -> bool:
        """Add what the outcomes of a table come to; tell whether it could be told exactly.

        Where it could not, nothing is added.  With ``spread``, what was measured is added there.
        """
        try:
            found = self._wanted(table)
            measured = self._wanted(durations) if durations is not None else None
        except OverflowError:  # a time that no calendar has
            return False
        if found is None or (spread is not None and measured is None):
            return False
        for one, group, start, end in found:
            sums = {
                name: sum(group.sums[name][start:end]) if name in group.sums else 0
                for name in FIELDS
            }
            totals.add_sums(one.status, one.usage_source, self._group(one), sums)
        if spread is not None:
            for one, times, start, end in measured or ():
                for name in MEASURED:
                    for sketch in times.sketches(name, start, end):
                        spread.merge(self._group(one), name, sketch)
        return True

    def may_have(self, earliest: datetime | None, latest: datetime | None) -> bool:
        """Whether outcomes between these times, both included, may be of the time asked for."""
        since, until = self._selection.since, self._selection.until
        if earliest is None or latest is None:
            return since is None and until is None
        return (until is None or earliest < until) and (since is None or latest >= since)

    def begins(self, first: int, last: int) -> list[int] | None:
        """Return the quarters, of these, with which other periods begin, and the first of all.

        ``None`` if a quarter is in several.
        """
        found = [first]
        for start in range(first, last, _HALF_A_DAY):
            if not self._part(start, min(start + _HALF_A_DAY, last), found):
                return None
        return found

    def _part(self, start: int, end: int, found: list[int]) -> bool:
        one, other = self._number(start, 1), self._number(end, 1)
        if one is None or other is None:
            return False
        if one == other:
            return True
        if end == start + 1:
            found.append(end)
            return True
        middle = (start + end) // 2
        return self._part(start, middle, found) and self._part(middle, end, found)

    def _group(self, one: Fields) -> tuple[str, ...]:
        return tuple([of(one) for of in self._keys])

    def _wanted(self, table: _Table[_G]) -> list[tuple[Fields, _G, int, int]] | None:
        """Part the groups of a table so that each part is in one group of the answer, or in none.

        Returns those that are wanted: an outcome for all, the group, where in ``quarters`` the part
        starts and ends; ``None`` if that cannot be told.
        """
        found: list[tuple[Fields, _G, int, int]] = []
        for group in table.groups:
            values = dict(zip(KEYS, group.of, strict=False))
            value = group.of[-1] if len(group.of) > len(KEYS) else None
            tags = {} if value is None or self.tag is None else {self.tag: value}
            runs = self._runs(group.quarters, table.step)
            if runs is None:
                return None
            for quarter, start, end in runs:
                ts = None if quarter is None else EPOCH + quarter * QUARTER
                one: Any = Fields(**cast("Any", values), ts=ts, tags=tags)
                if self._selection.fits(one):
                    found.append((one, group, start, end))
        return found

    def _runs(
        self, quarters: Sequence[int | None], step: int
    ) -> list[tuple[int | None, int, int]] | None:
        """Part quarters so that each part is in one period and in or out of the time asked for.

        Returns the first quarter of each part, where it starts and where it ends; ``None`` if a
        quarter is in two of them.
        """
        runs: list[tuple[int | None, int, int]] = []
        if quarters[0] is None:
            runs.append((None, 0, 1))
        before = len(runs)
        times = cast("Sequence[int]", quarters[before:])
        if not times:
            return runs
        cuts = {0, len(times)}
        for bound in (self._selection.since, self._selection.until):
            if bound is not None:
                quarter, rest = divmod(bound - EPOCH, step * QUARTER)
                at = bisect_left(times, quarter * step)
                if rest and at < len(times) and times[at] == quarter * step:
                    return None
                cuts.add(at)
        edges = sorted(cuts)
        for start, end in pairwise(edges):
            parts = self._parts(times, start, end, step)
            if parts is None:
                return None
            runs += [(times[a], a + before, b + before) for a, b in parts]
        return runs

    def _parts(
        self, times: Sequence[int], start: int, end: int, step: int
    ) -> list[tuple[int, int]] | None:
        """Part the quarters from ``start`` to ``end`` by the periods that were asked for."""
        if not self.periods:
            return [(start, end)]
        first, last = self._number(times[start], step), self._number(times[end - 1], step)
        if first is None or last is None:
            return None
        if first == last:
            return [(start, end)]
        parts: list[tuple[int, int]] = []
        for number, same in groupby(
            range(start, end), key=lambda at: self._number(times[at], step)
        ):
            if number is None:
                return None
            places = list(same)
            parts.append((places[0], places[-1] + 1))
        return parts

    def _number(self, quarter: int, step: int) -> tuple[int, ...] | None:
        """Return the periods that some quarters are in, and the clock's offset there.

        Where two are equal, so are all between.  ``None`` if their end is in others, which is so
        where clocks change within them, or a day begins there in the zone asked for.
        """
        key = quarter, step
        if key not in self._numbers:
            calendar, start = self._selection.calendar, EPOCH + quarter * QUARTER
            edges = (start, start + (step * QUARTER - _TICK))
            first, last = (
                tuple(calendar.number(every, ts) for every in self.periods) for ts in edges
            )
            # Where a clock goes back over midnight, a day may come twice within an hour.
            before, after = (_offset(calendar.local(ts)) for ts in edges)
            self._numbers[key] = (*first, before) if (first, before) == (last, after) else None
        return self._numbers[key]


def _offset(local: datetime) -> int:
    return (local.utcoffset() or timedelta()) // _TICK
