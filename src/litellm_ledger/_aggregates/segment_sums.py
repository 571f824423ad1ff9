"""``SegmentSums``: outcomes of one segment, added up for the tables of its manifest.

Owns how they are added up within limits, so that doing it again gives the same tables
(docs/FORMAT.md).  Pure.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from operator import add
from typing import Any, NamedTuple

from litellm_ledger._records.line import Line
from litellm_ledger._records.record import Fields

from .durations import Durations, DurationTable
from .quantiles import MEASURED, Sketch
from .quarters import LARGEST, Group, Limits, Table
from .steps import EPOCH, QUARTER, order
from .totals import FIELDS, Totals

__all__ = ["Rows", "SegmentSums", "Tables"]

_Key = tuple[Any, ...]


class Rows:
    """A table that is being added up: group to quarter to sums.

    Where it would have too many rows, it is by the hour, then by the day (UTC), and then given up.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self.groups: dict[_Key, dict[int | None, list[int]]] = {}
        self.size = 0

    def add(self, group: _Key, quarter: int | None, sums: list[int]) -> None:
        """Add the sums of a group in a quarter, in the order of ``FIELDS``."""
        if quarter is not None:
            quarter -= quarter % self.step
        rows = self.groups.setdefault(group, {})
        row = rows.get(quarter)
        if row is None:
            self.size += 1
            rows[quarter] = sums
        else:
            rows[quarter] = [*map(add, row, sums)]

    def within(self, most: int, steps: Sequence[int]) -> Rows | None:
        """Return it with ``most`` rows or fewer, over one of the steps; ``None`` if it has more."""
        found = self
        for step in steps:
            if found.size > most and step > found.step:
                found = found.copy(step)
        return found if found.size <= most else None

    def copy(self, step: int, *more: None) -> Rows:
        """Return it over another step; ``more`` is added to each group."""
        other = Rows(step)
        for group, rows in self.groups.items():
            for quarter, sums in rows.items():
                other.add((*group, *more), quarter, sums)
        return other

    def table(self) -> Table | None:
        """Return it as it is kept; ``None`` if a sum is too large for that."""
        groups = sorted(self.groups.items(), key=lambda item: order(item[0]))
        table = Table([_group(key, rows) for key, rows in groups], self.step)
        sums = (s for group in table.groups for s in group.sums.values())
        return None if any(abs(number) > LARGEST for s in sums for number in s) else table


class Tables(NamedTuple):
    """The tables of a segment: sums in few rows, durations, sums without a tag and by each tag."""

    short: Table | None
    durations: DurationTable | None
    table: Table | None
    of_tags: dict[str, Table]


class SegmentSums:
    """Adds outcomes up, one segment's."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._combined = self._begin()
        self._tables: dict[str | None, Rows | None] = {None: Rows(limits.steps[0])}
        self._tags: set[str] = set()
        self._lines = 0
        self._key: _Key = ()
        self._measured: dict[tuple[str, _Key], array[float]] = {}
        self._durations: Durations | None = Durations(limits.steps[0])

    def _begin(self) -> Totals:
        return Totals(key=self._combination, max_groups=self._limits.fold * 2)

    def _combination(self, line: Fields) -> _Key:
        """Return what tells outcomes apart: the values of ``KEYS``, the quarter, the tags."""
        ts, tags = line.ts, line.tags
        self._key = key = (
            line.model,
            line.provider,
            line.call,
            line.status,
            line.response_model,
            line.error,
            line.usage_source,
            line.cost_source,
            None if ts is None else (ts - EPOCH) // QUARTER,
            tuple(tags.items()) if tags else None,
        )
        return key

    def add(self, line: Line) -> None:
        """Add one outcome."""
        self._lines += 1
        totals = self._combined
        totals.add(line, line.cost)
        if line.status == "ok":
            for name in MEASURED:
                value = getattr(line, name)
                if value is not None:  # without the tags
                    self._measured.setdefault((name, self._key[:-1]), array("d")).append(value)
        if totals.groups >= self._limits.fold:
            self._fold(self._limits.rows)

    def _fold(self, most: int) -> None:
        """Add the combinations to the tables, and begin anew."""
        limits, totals, self._combined = self._limits, self._combined, self._begin()
        for key, sums in totals.sums():
            *of, quarter, items = key
            tags = dict(items or ())
            self._tags.update(tags)
            # None of the outcomes before had it; sorted, so that every process makes the same.
            for tag in sorted(tags.keys() - self._tables.keys()):
                base = self._tables[None] if len(self._tables) <= limits.tags else None
                self._tables[tag] = base and base.copy(base.step, None)
            for tag, table in self._tables.items():
                if table is not None:
                    group = tuple(of) if tag is None else (*of, tags.get(tag))
                    table.add(group, quarter, sums)
        for tag, table in self._tables.items():
            if table is not None:
                many = tag is not None and len({key[-1] for key in table.groups}) > limits.values
                self._tables[tag] = None if many else table.within(most, limits.steps)
        self._give_up()
        self._fold_durations(most)

    def _fold_durations(self, most: int) -> None:
        measured, self._measured = self._measured, {}
        if self._durations is not None:
            for (name, (*of, quarter)), values in measured.items():
                self._durations.add(tuple(of), quarter, name, Sketch.of(values))
            self._durations = self._durations.within(most, self._limits.steps)

    def _give_up(self) -> None:
        """Keep the smallest tables of tags, as many as fit within the limit together."""
        sizes = [
            (t.size, tag) for tag, t in self._tables.items() if t is not None and tag is not None
        ]
        total = sum(size for size, _ in sizes)
        for size, tag in sorted(sizes, reverse=True):
            if total <= self._limits.all_rows:
                break
            self._tables[tag] = None
            total -= size

    def tags(self) -> list[str] | None:
        """Return the names of the tags, ``None`` if there are too many."""
        self._fold(self._limits.rows)
        return sorted(self._tags) if len(self._tags) <= self._limits.tags else None

    def tables(self) -> Tables:
        """Return the tables; what would be too large is left out."""
        limits = self._limits
        self._fold(max(limits.kept, self._lines // limits.share))
        tables = {tag: rows.table() for tag, rows in self._tables.items() if rows is not None}
        of_tags = sorted((tag, table) for tag, table in tables.items() if tag is not None)
        base = self._tables[None]
        short = base.within(limits.short, limits.steps) if base else None
        return Tables(
            short=short.table() if short else None,
            durations=self._durations.table() if self._durations else None,
            table=tables.get(None),
            of_tags={tag: table for tag, table in of_tags if table is not None},
        )


def _group(key: _Key, rows: dict[int | None, list[int]]) -> Group:
    quarters = sorted(rows, key=lambda quarter: (quarter is not None, quarter or 0))
    columns = zip(FIELDS, zip(*(rows[quarter] for quarter in quarters), strict=True), strict=True)
    return Group(list(key), quarters, {name: list(sums) for name, sums in columns if any(sums)})
