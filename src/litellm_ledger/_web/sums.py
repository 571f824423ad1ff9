"""Sums by segment: of one kind of question, by group and quarter of an hour.

Owns their shape, how lines are added to them, and how a question with a time and periods is
answered from them: exactly or not at all.  Pure.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import add
from typing import Any, Final, NamedTuple

from litellm_ledger._aggregates.calendar import PERIODS
from litellm_ledger._aggregates.durations import Durations
from litellm_ledger._aggregates.groups import key_of
from litellm_ledger._aggregates.quantiles import MEASURED, Sketch, Spread
from litellm_ledger._aggregates.quarters import QuarterQuestion
from litellm_ledger._aggregates.segment_sums import Rows
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._aggregates.steps import EPOCH, QUARTER
from litellm_ledger._aggregates.totals import FIELDS, Totals
from litellm_ledger._records.line import Line
from litellm_ledger._records.record import Fields

__all__ = ["HOUR", "Adder", "Growing", "Question", "Shape", "Sums"]

HOUR: Final = 4
"""Quarters over which durations are kept."""
_FOLD: Final = 4_096
"""Groups and quarters that lines are added up in before they go into sums."""


class Shape(NamedTuple):
    """A kind of question: the keys that are no periods, the conditions, whether durations too."""

    keys: tuple[str, ...]
    where: tuple[tuple[str, tuple[str, ...]], ...]
    where_not: tuple[tuple[str, tuple[str, ...]], ...]
    timed: bool

    @classmethod
    def of(cls, by: Sequence[str], selection: Selection, *, timed: bool) -> Shape:
        """Return that of a question."""

        def plain(
            conditions: Mapping[str, frozenset[str]],
        ) -> tuple[tuple[str, tuple[str, ...]], ...]:
            return tuple((key, tuple(sorted(values))) for key, values in sorted(conditions.items()))

        keys = tuple(key for key in by if key not in PERIODS)
        return cls(keys, plain(selection.where), plain(selection.where_not), timed)

    @property
    def tags(self) -> set[str]:
        """The tags that it is about."""
        words = [*self.keys, *dict(self.where), *dict(self.where_not)]
        return {word.removeprefix("tag:") for word in words if word.startswith("tag:")}


_Key = tuple[Any, ...]
_Column = tuple[int, Sequence[int]]
"""Which of ``FIELDS``, and its sums by quarter; those that are 0 throughout are left out."""


class _Group(NamedTuple):
    """The sums of a group: its quarters, which ascend, its columns, and what each comes to."""

    quarters: Sequence[int | None]
    columns: list[_Column]
    whole: dict[str, int]


class Sums:
    """The sums of one segment for one shape, by ``(status, usage_source, *keys)`` and quarter.

    ``exact``: made from the lines, by the quarter; a manifest may have them over longer times.
    ``short``: made from the few rows at the beginning of a manifest, which may have more.
    """

    __slots__ = ("_ends", "_groups", "_rows", "_size", "exact", "short", "step", "timed")

    def __init__(self, step: int, *, timed: bool, exact: bool = False) -> None:
        self.exact = exact
        self.short = False
        self.step = step
        self.timed: Durations | None = Durations(HOUR) if timed else None
        self._rows = Rows(step)
        self._groups: dict[_Key, _Group] = {}
        self._size = 0
        self._ends: tuple[int | None, int | None] | None = None

    def add(self, key: _Key, quarter: int | None, sums: list[int]) -> None:
        """Add the sums of a group in a quarter; not after ``pack``."""
        self._rows.add(key, quarter, sums)
        self._groups.pop(key, None)
        self._ends = None

    def put(self, key: _Key, parts: Sequence[tuple[Sequence[int | None], list[_Column]]]) -> None:
        """Put a group there, of parts with their own quarters; nothing is added to it any more."""
        quarters, columns = parts[0] if len(parts) == 1 else _joined(parts)
        columns = [(at, _array(column)) for at, column in columns]
        self._groups[key] = _Group(quarters, columns, summed(columns, 0, len(quarters)))
        self._size += len(quarters)
        self._ends = None

    def pack(self) -> Sums:
        """Return it in a fifth of the memory: nothing is added any more."""
        self.groups()
        self._size, self._rows = self._size + self._rows.size, Rows(self.step)
        return self

    def groups(self) -> dict[_Key, _Group]:
        """Return each group."""
        for key, rows in self._rows.groups.items():
            if key not in self._groups:
                quarters = sorted(rows, key=lambda q: (q is not None, q or 0))
                columns = zip(*(rows[quarter] for quarter in quarters), strict=True)
                kept = [(at, _array(c)) for at, c in enumerate(columns) if any(c)]
                self._groups[key] = _Group(quarters, kept, summed(kept, 0, len(quarters)))
        return self._groups

    def ends(self) -> tuple[int | None, int | None]:
        """Return the first and the last quarter.

        ``None`` where outcomes without a time are among them.
        """
        if self._ends is None:
            times: set[int | None] = set()
            for group in self.groups().values():
                times.update((group.quarters[0], group.quarters[-1]))
            known = [quarter for quarter in times if quarter is not None]
            self._ends = (None, None) if None in times or not known else (min(known), max(known))
        return self._ends

    @property
    def size(self) -> int:
        """Sums by group and quarter; four buckets of durations count as one."""
        return self._size + self._rows.size + (self.timed.size // 4 if self.timed else 0)


def _array(column: Sequence[int]) -> Sequence[int]:
    try:
        return array("q", column)
    except OverflowError:
        return column


def _joined(
    parts: Sequence[tuple[Sequence[int | None], list[_Column]]],
) -> tuple[Sequence[int | None], list[_Column]]:
    """Return parts as one, with the quarters of all of them."""
    first = parts[0][0]
    if all(quarters == first for quarters, _ in parts[1:]):
        found: dict[int, Sequence[int]] = {}
        for _, columns in parts:
            for at, column in columns:
                there = found.get(at)
                found[at] = column if there is None else [*map(add, there, column)]
        return first, [(at, found[at]) for at in sorted(found)]
    rows: dict[int | None, list[int]] = {}
    for quarters, columns in parts:
        for place, quarter in enumerate(quarters):
            row = rows.setdefault(quarter, [0] * len(FIELDS))
            for at, column in columns:
                row[at] += column[place]
    ordered = sorted(rows, key=lambda q: (q is not None, q or 0))
    whole = enumerate(zip(*(rows[quarter] for quarter in ordered), strict=True))
    return ordered, [(at, column) for at, column in whole if any(column)]


def summed(columns: Sequence[_Column], start: int, end: int) -> dict[str, int]:
    """Return the sums of columns from one quarter to another, by the names of ``FIELDS``."""
    found = _NOTHING.copy()
    for at, column in columns:
        found[FIELDS[at]] = sum(column[start:end])
    return found


_NOTHING: Final = dict.fromkeys(FIELDS, 0)


class Question(QuarterQuestion):
    """A question to such sums: which periods, from when to when.

    Args:
        by: group keys.
        selection: which outcomes.
        timed: whether durations are asked for.
        numbers: what questions by the same periods in the same zone have found out.

    Attributes:
        shape: its kind.
    """

    def __init__(
        self,
        by: Sequence[str],
        selection: Selection,
        *,
        timed: bool = False,
        numbers: dict[tuple[int, int], tuple[int, ...] | None] | None = None,
    ) -> None:
        self.by = tuple(by)
        self.selection = selection
        self.shape = shape = Shape.of(by, selection, timed=timed)
        dates = selection.calendar
        super().__init__([key for key in by if key in PERIODS], selection)
        self._numbers = {} if numbers is None else numbers
        self._times = Selection(selection.since, selection.until, calendar=dates)
        self._columns = [
            (key_of(key, dates), None) if key in PERIODS else (None, 2 + shape.keys.index(key))
            for key in by
        ]

    def number(self, quarter: int) -> tuple[int, ...] | None:
        """Return the periods that a quarter of an hour is in; ``None`` if it is in others too."""
        return self._number(quarter, 1)

    def _of(self, key: tuple[Any, ...], ts: datetime | None) -> tuple[str, ...]:
        one = Fields(ts=ts)
        return tuple([of(one) if of else key[at or 0] for of, at in self._columns])

    def _cut(
        self, quarters: Sequence[int | None], step: int
    ) -> list[tuple[datetime | None, int, int]] | None:
        runs = self._runs(quarters, step)
        if runs is None:
            return None
        timed = [(None if q is None else EPOCH + q * QUARTER, a, b) for q, a, b in runs]
        return [run for run in timed if self._times.fits(Fields(ts=run[0]))]

    def put(self, sums: Sums, totals: Totals, spread: Spread | None) -> bool:
        """Add them; ``False``, and nothing added, if their quarters do not fit the question."""
        if spread is None and self._put_whole(sums, totals):
            return True
        try:
            found = self._found(sums)
            measured = [] if spread is None else self._measured(sums)
        except OverflowError:  # a time that no calendar has
            return False
        if found is None or measured is None:
            return False
        for key, group, column in found:
            totals.add_sums(key[0], key[1], group, column)
        if spread is not None:
            for group, name, sketch in measured:
                spread.merge(group, name, sketch)
        return True

    def _put_whole(self, sums: Sums, totals: Totals) -> bool:
        """Add all of a segment at once, if it is wanted whole and in one period; tell whether."""
        first, last = sums.ends()
        groups = sums.groups()
        times, step = self._times, sums.step
        if first is None or last is None:
            if groups and (self.periods or times.since or times.until):
                return False
            ts = None
        else:
            try:
                ts, end = EPOCH + first * QUARTER, EPOCH + (last + step) * QUARTER
                within = (times.since is None or times.since <= ts) and (
                    times.until is None or end <= times.until
                )
                number = self._number(first, step) if self.periods else ()
                if not within or number is None:
                    return False
                if self.periods and number != self._number(last, step):
                    return False
            except OverflowError:  # a time that no calendar has
                return False
        one = Fields(ts=ts)
        said = [None if of is None else of(one) for of, _ in self._columns]
        for key, of_key in groups.items():
            group = tuple(
                [key[at or 0] if text is None else text
                 for text, (_, at) in zip(said, self._columns, strict=True)]
            )  # fmt: skip
            totals.add_sums(key[0], key[1], group, of_key.whole)
        return True

    def _found(self, sums: Sums) -> list[tuple[_Key, tuple[str, ...], dict[str, int]]] | None:
        found = []
        for key, (quarters, columns, _) in sums.groups().items():
            runs = self._cut(quarters, sums.step)
            if runs is None:
                return None
            found += [(key, self._of(key, ts), summed(columns, a, b)) for ts, a, b in runs if b > a]
        return found

    def _measured(self, sums: Sums) -> list[tuple[tuple[str, ...], str, Sketch]] | None:
        if sums.timed is None:
            return None
        found = []
        for key, by_time in sums.timed.cells():
            times = sorted(by_time, key=lambda q: (q is not None, q or 0))
            runs = self._cut(times, sums.timed.step)
            if runs is None:
                return None
            for ts, start, end in runs:
                group = self._of((None, None, *key), ts)
                for time in times[start:end]:
                    found += [(group, name, one) for name, one in by_time[time].items()]
        return found


class Growing:
    """A segment whose lines are added up.

    Attributes:
        offset: up to which it was read.
        last: the number of the last line.
        odd: it is not as a writer leaves it; its sums are of no use.
    """

    def __init__(self, shape: Shape) -> None:
        self.sums = Sums(1, timed=shape.timed, exact=True)
        self.adder = Adder(shape, self.sums)
        self.offset = 0
        self.last = 0
        self.odd = False

    def take(self, line: Line | None) -> None:
        """Add a line; ``None`` is no record."""
        if (
            line is None
            or line.kind == "gap"
            or line.status == "unsettled"
            or line.seq <= self.last
        ):
            self.odd = True
        if line is not None and not self.odd:
            self.last = line.seq
            self.adder.add(line)


class Adder:
    """Adds lines to sums; what was added is there after ``flush``."""

    def __init__(self, shape: Shape, sums: Sums) -> None:
        self._selection = Selection(where=dict(shape.where), where_not=dict(shape.where_not))
        self._keys = [key_of(key) for key in shape.keys]
        self._sums = sums
        self._measured: dict[tuple[Any, ...], list[float]] = {}
        self._totals = self._begin()
        self._key: _Key = ()

    def _begin(self) -> Totals:
        return Totals(key=self._combination, max_groups=2 * _FOLD)

    def _combination(self, line: Fields) -> _Key:
        ts = line.ts
        quarter = None if ts is None else (ts - EPOCH) // QUARTER
        group = [of(line) for of in self._keys]
        self._key = key = (line.status, line.usage_source, *group, quarter)
        return key

    def add(self, line: Line) -> None:
        """Add a line, if it is wanted."""
        if line.kind != "usage" or not self._selection.fits(line):
            return
        self._totals.add(line, line.cost)
        if self._sums.timed is not None and line.status == "ok":
            _, _, *group, quarter = self._key
            for name in MEASURED:
                value = getattr(line, name)
                if value is not None:
                    self._measured.setdefault((tuple(group), quarter, name), []).append(value)
        if self._totals.groups >= _FOLD:
            self.flush()

    def flush(self) -> None:
        """Put what was added into the sums."""
        totals, measured = self._totals, self._measured
        if totals.groups:
            self._totals, self._measured = self._begin(), {}
            for (*key, quarter), sums in totals.sums():
                self._sums.add(tuple(key), quarter, sums)
        if self._sums.timed is not None:
            for (group, quarter, name), values in measured.items():
                self._sums.timed.add(group, quarter, name, Sketch.of(values))
