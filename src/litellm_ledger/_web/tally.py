"""``Tally``: one question over chunks, whole columns at once.

Owns which outcomes are wanted, and their groups.  What it cannot tell exactly (a time within a
quarter of an hour, a tag with too many values) it leaves to others, segment by segment.  Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np

from litellm_ledger._aggregates.calendar import PERIODS
from litellm_ledger._aggregates.groups import key_of
from litellm_ledger._aggregates.quantiles import MEASURED, Spread
from litellm_ledger._aggregates.steps import EPOCH, QUARTER
from litellm_ledger._aggregates.totals import FIELDS, Totals
from litellm_ledger._records.record import KEYS, Fields

from .adding import DENSE, Picked, sketches, summed
from .blocks import SUMS, Array
from .chunks import Chunk, Part, View, column
from .memory import Memory, Run
from .sums import Question, Shape

__all__ = ["Tally"]

_BATCH: Final = 2**20
"""Outcomes that are added up at once."""


class Tally:
    """A question to chunks.

    Args:
        view: of which they are.
        question: this one.
        memory: kept from question to question.
    """

    def __init__(
        self,
        view: View,
        question: Question,
        memory: Memory,
    ) -> None:
        by, shape, selection = question.by, question.shape, question.selection
        self._view = view
        self.chunks = view.chunks
        self._by = by
        self._question = question
        self._memory = memory
        self._timed = shape.timed
        self.possible = all(view.tags.get(tag, ()) is not None for tag in shape.tags)
        """Whether there are columns for the tags that it is about."""
        if not self.possible:
            return
        self._dates = selection.calendar
        self._lower, self._cut = _bound(selection.since)
        upper, self._cut_end = _bound(selection.until)
        # A quarter that is cut belongs to neither side: the parts that have it are left out.
        self._upper = None if upper is None else upper - (self._cut_end is not None)
        self._tags = [*self._conditions(shape)]
        self._tags_asked = tuple(
            tuple(pair for pair in pairs if pair[0].startswith("tag:"))
            for pairs in (shape.where, shape.where_not)
        )
        plain = tuple(
            tuple(pair for pair in pairs if not pair[0].startswith("tag:"))
            for pairs in (shape.where, shape.where_not)
        )
        self._keys = memory.wanted(plain, view.keys) if any(plain) else None
        self._periods = [key for key in by if key in PERIODS]
        self._split = [key.removeprefix("tag:") for key in by if key.startswith("tag:")]
        plain_keys = tuple(key for key in by if key in KEYS)
        self._of_keys, self._groups = memory.groups(plain_keys, view.keys)
        self._plain = plain_keys
        self._many = {tag: len((view.tags.get(tag) or ((0,),))[0]) for tag in self._split}

    def _conditions(self, shape: Shape) -> Iterator[tuple[str, Array]]:
        """Yield for each condition on a tag which of its values meet it."""
        for pairs, wanted in ((shape.where, True), (shape.where_not, False)):
            for key, values in pairs:
                if not key.startswith("tag:"):
                    continue
                tag = key.removeprefix("tag:")
                there, codes = self._view.tags.get(tag) or (["(none)"], {"(none)": 0})
                fits = np.full(len(there), not wanted)
                for value in values:
                    code = codes.get(value)
                    if code is not None and code < len(fits):
                        fits[code] = wanted
                yield tag, fits

    # -- which outcomes ------------------------------------------------------------------------

    def add(
        self,
        chunks: Sequence[Chunk],
        wanted: Collection[str],
        totals: Totals,
        spread: Spread | None,
        *,
        share: bool = True,
    ) -> set[str]:
        """Add what outcomes come to; return the segments that are told, wholly or not at all.

        Args:
            chunks: of the view.
            wanted: the SHA-256 of segments; so is what is returned.
            totals: by the keys of the question.
            spread: as well, where durations are asked for.
            share: whether the next question is to the same chunks.
        """
        told: set[str] = set()
        if not self.possible:
            return told
        if share:
            chunks = self._memory.narrowed(chunks, self._tags_asked, self._narrow)
        parts = [[p for p in one.parts if p.sha256 in wanted] for one in chunks]
        some = [part for each in parts for part in each if part.end > part.start]
        runs = self._runs_of(some)
        if runs is None:
            return told
        picked: list[Picked] = []
        count = 0
        unclear = [run for run in runs if run[2] is None]
        for chunk, mine in zip(chunks, parts, strict=True):
            ours = [part for part in mine if self._tells(part, unclear)]
            told.update([part.sha256 for part in ours])
            for one in self._picked(chunk, ours):
                picked.append(one)
                count += one.size
                if count >= _BATCH:
                    self._put(picked, runs, totals, spread)
                    picked, count = [], 0
        self._put(picked, runs, totals, spread)
        return told

    def tells(self, chunks: Sequence[Chunk]) -> bool:
        """Whether columns tell all that is asked of some chunks."""
        if not self.possible:
            return False
        parts = [part for one in chunks for part in one.parts]
        runs = self._runs_of([part for part in parts if part.end > part.start])
        if runs is None:
            return False
        unclear = [run for run in runs if run[2] is None]
        return all(self._tells(part, unclear) for part in parts)

    def add_adjusted(self, chunk: Chunk, totals: Totals) -> int | None:
        """Add outcomes that are no calls of their own; return how many, ``None``: not told."""
        if not self.tells([chunk]):
            return None
        picked = [*self._picked(chunk, chunk.parts)]
        runs = self._runs_of([part for part in chunk.parts if part.end > part.start]) or []
        self._put(picked, runs, totals, None, calls=False)
        return sum(one.size for one in picked)

    def without(self, chunks: Sequence[Chunk]) -> tuple[set[str], set[str]]:
        """Return the segments that are told, and those of them in which no outcome is wanted.

        By the SHA-256 of each.
        """
        told: set[str] = set()
        empty: set[str] = set()
        if not self.possible:
            return told, empty
        for chunk in self._memory.narrowed(chunks, self._tags_asked, self._narrow):
            rows = self._rows(chunk, 0, chunk.rows, timed=False)
            for part in chunk.parts:
                told.add(part.sha256)
                if rows is None:
                    some = part.end > part.start
                else:
                    first, last = np.searchsorted(rows, (part.start, part.end))
                    some = first < last
                if not some:
                    empty.add(part.sha256)
        return told, empty

    def _runs_of(self, parts: Sequence[Part]) -> list[Run] | None:
        """Return the periods that segments are in; ``None``: there are too many groups to tell."""
        runs: list[Run] = []
        if self._periods and parts:
            first, last = min(p.first for p in parts), max(p.last for p in parts)
            first = first if self._lower is None else max(first, self._lower)
            last = last if self._upper is None else min(last, self._upper)
            if first <= last:
                key = tuple(self._periods), self._dates.zone, self._dates.week_start
                runs = self._memory.runs(self._question, key, first, last)
        return runs if self._places(runs) < 2**62 else None

    def _places(self, runs: Sequence[Any]) -> int:
        places = len(self._groups) * max(1, len(runs))
        for tag in self._split:
            places *= self._many[tag]
        return places

    def _tells(self, part: Part, unclear: Sequence[Run]) -> bool:
        """Whether columns tell all of a segment; ``unclear``: times that are in two periods."""
        if part.start == part.end:
            return True
        for cut in (self._cut, self._cut_end):
            if cut is not None and part.first <= cut <= part.last:
                return False
        return all(last < part.first or first > part.last for first, last, _ in unclear)

    def _picked(self, chunk: Chunk, parts: Sequence[Part]) -> Iterator[Picked]:
        """Yield what is wanted of some parts of a chunk, neighbours together."""
        at = 0
        parts = [part for part in parts if part.end > part.start and not self._outside(part)]
        while at < len(parts):
            upto = at + 1
            while upto < len(parts) and parts[upto].start == parts[upto - 1].end:
                upto += 1
            start, end = parts[at].start, parts[upto - 1].end
            rows = self._rows(chunk, start, end, timed=any(map(self._is_cut, parts[at:upto])))
            if rows is None and (start, end) != (0, chunk.rows):
                rows = np.arange(start, end)
            if rows is None or len(rows):
                yield Picked(chunk, rows)
            at = upto

    def _outside(self, part: Part) -> bool:
        return (self._lower is not None and part.last < self._lower) or (
            self._upper is not None and part.first >= self._upper
        )

    def _is_cut(self, part: Part) -> bool:
        """Whether some outcomes of a part are of the time asked for, and others are not."""
        return (self._lower is not None and part.first < self._lower) or (
            self._upper is not None and part.last >= self._upper
        )

    def _rows(
        self, chunk: Chunk, start: int, end: int, *, timed: bool, keys: bool = True
    ) -> Array | None:
        """Return which rows of a span are wanted; ``None``: all."""
        span = slice(start, end)
        fits: Array | None = None
        for tag, lot in self._tags:
            if tag not in chunk.tags:
                if not lot[0]:
                    return np.zeros(0, np.int64)
                continue
            codes = chunk.tags[tag][span]
            one = np.flatnonzero(lot)
            this = codes == one[0] if len(one) == 1 else lot[codes]
            fits = this if fits is None else fits & this
        if keys and self._keys is not None and not self._keys.all():
            this = self._keys[chunk.of_keys[span]]
            fits = this if fits is None else fits & this
        if timed:
            quarters = chunk.quarters[span]
            for this in self._times(quarters, chunk.base):
                fits = this if fits is None else fits & this
        return None if fits is None else np.flatnonzero(fits) + start

    def _times(self, quarters: Array, base: int) -> Iterator[Array]:
        if self._lower is not None and self._lower > base:
            yield quarters.astype(np.int64) >= self._lower - base
        if self._upper is not None:
            yield quarters.astype(np.int64) < self._upper - base

    def _narrow(self, chunk: Chunk) -> Chunk | None:
        """Return a chunk of the outcomes that meet the conditions on tags; ``None``: most do."""
        rows = self._rows(chunk, 0, chunk.rows, timed=False, keys=False)
        if rows is None or len(rows) > chunk.rows // 2:
            return None
        ends = np.searchsorted(rows, [edge for part in chunk.parts for edge in part[2:4]]).tolist()
        parts = tuple(
            part._replace(start=ends[2 * at], end=ends[2 * at + 1])
            for at, part in enumerate(chunk.parts)
        )
        return chunk._replace(
            parts=parts,
            rows=len(rows),
            quarters=chunk.quarters[rows],
            of_keys=chunk.of_keys[rows],
            tags={tag: codes[rows] for tag, codes in chunk.tags.items()},
            sums={n: c if isinstance(c, int) else c[rows] for n, c in chunk.sums.items()},
            measured={n: c[rows] for n, c in chunk.measured.items()},
        )

    # -- sums ----------------------------------------------------------------------------------

    def _put(
        self,
        picked: Sequence[Picked],
        runs: Sequence[Run],
        totals: Totals,
        spread: Spread | None,
        *,
        calls: bool = True,
    ) -> None:
        if not picked:
            return
        groups = np.concatenate([self._group(one, runs) for one in picked])
        places = self._places(runs)
        there: Array | None = None
        if places > max(DENSE, 2 * len(groups)):
            there, groups = np.unique(groups, return_inverse=True)
            places = len(there)
        counts = np.bincount(groups, minlength=places)
        some = np.flatnonzero(counts)
        columns = {"calls": (counts[some] * calls).tolist()}
        for name in SUMS:
            sums = summed(groups, places, picked, name)
            columns[name] = [0] * len(some) if sums is None else sums[some].tolist()
        ids = some if there is None else there[some]
        labels = self._labels(ids, runs)
        for (status, source, group), values in zip(
            labels, zip(*(columns[name] for name in FIELDS), strict=True), strict=True
        ):
            totals.add_sums(status, source, group, dict(zip(FIELDS, values, strict=True)))
        if spread is not None:
            of_place = dict(zip(some.tolist(), labels, strict=True))
            for name in MEASURED:
                for place, sketch in sketches(groups, picked, name):
                    spread.merge(of_place[place][2], name, sketch)

    def _group(self, picked: Picked, runs: Sequence[Run]) -> Array:
        """Return the number of the group that each row is in."""
        chunk, rows = picked
        found: Array = self._of_keys[column(chunk.of_keys, rows, chunk.rows)]
        for tag in self._split:
            found = found * self._many[tag]
            if tag in chunk.tags:
                found += column(chunk.tags[tag], rows, chunk.rows)
        if runs:
            numbers = np.empty(runs[-1][1] - runs[0][0] + 1, np.int64)
            for at, (first, last, _) in enumerate(runs):
                numbers[first - runs[0][0] : last - runs[0][0] + 1] = at
            quarters = column(chunk.quarters, rows, chunk.rows).astype(np.int64)
            found = found * len(runs) + numbers[quarters + (chunk.base - runs[0][0])]
        return found

    def _labels(self, ids: Array, runs: Sequence[Run]) -> list[tuple[Any, Any, tuple[str, ...]]]:
        """Return status, usage source and values of the keys of some groups."""
        of: dict[str, list[str]] = {}
        if runs:
            ids, places = np.divmod(ids, len(runs))
            times = [Fields(ts=EPOCH + first * QUARTER) for first, _, _ in runs]
            for period in self._periods:
                said = [*map(key_of(period, self._dates), times)]
                of[period] = [said[at] for at in places.tolist()]
        for tag in reversed(self._split):
            values = (self._view.tags.get(tag) or (["(none)"],))[0]
            ids, codes = np.divmod(ids, self._many[tag])
            of[f"tag:{tag}"] = [values[code] for code in codes.tolist()]
        whole = [self._groups[at] for at in ids.tolist()]
        for at, key in enumerate(self._plain):
            of[key] = [group[2 + at] for group in whole]
        each = zip(*(of[key] for key in self._by), strict=True) if self._by else iter(())
        return [(group[0], group[1], next(each, ())) for group in whole]


def _bound(time: datetime | None) -> tuple[int | None, int | None]:
    """Return the first quarter that begins at a time or later, and the one that it cuts."""
    if time is None:
        return None, None
    quarter, rest = divmod(time - EPOCH, QUARTER)
    return (quarter + 1, quarter) if rest else (quarter, None)
