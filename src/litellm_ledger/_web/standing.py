"""``Standing``: sums of a ledger that are kept, so that a question costs what is new.

Owns, for each kind of question (its keys and conditions, whatever the time asked for), the sums of
every segment by quarter of an hour.  A sealed segment is added up once, from its manifest where
that tells, else from its lines; an open one from where it was read to.  What cannot be told exactly
in this way is left to the lines.  Memory is bounded; what was not asked for longest goes first.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

from msgspec.structs import replace

from litellm_ledger._aggregates.calendar import PERIODS, Calendar
from litellm_ledger._aggregates.durations import Durations, DurationTable
from litellm_ledger._aggregates.groups import MISSING, key_of
from litellm_ledger._aggregates.quantiles import MEASURED, Spread
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._aggregates.totals import FIELDS, Totals
from litellm_ledger._reading.lines import Problem, everything
from litellm_ledger._reading.listing import Snapshot, by_writer
from litellm_ledger._reading.sealed import manifests
from litellm_ledger._records.layout import MANIFESTS, SEGMENTS, SegmentName
from litellm_ledger._records.record import KEYS, Fields
from litellm_ledger._reports.adjusted import add_adjustments
from litellm_ledger._reports.by_manifest import alone
from litellm_ledger._reports.report import MAX_GROUPS, Report, build, finish
from litellm_ledger._storage.manifest import Manifest, read

from .lines import Matches, new_lines
from .sums import Growing, Question, Shape, Sums

__all__ = ["Standing"]

_MOST: Final = 2_000_000
"""Sums by group and quarter that are kept in all: about 200 MB."""
_LARGEST: Final = 20_000
"""The same of one segment: beyond, it is left to the lines."""
_SHAPES: Final = 64
_ZONES: Final = 32
_ANSWERS: Final = 8
"""Questions of one kind whose sums are kept as a whole, if these are of few groups."""
_FEW: Final = 2_000
_LOOK: Final = 0.25
"""Seconds for which a look at the directory does; open segments are read to their end anyway."""


_Answer = tuple[
    dict[SegmentName, Manifest], list[SegmentName], Totals, Spread | None, set[SegmentName]
]
"""The sums of sealed segments, and of which state of the ledger they are."""


class _Kept:
    """What is kept of one shape."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sealed: dict[SegmentName, tuple[str, Sums | None]] = {}
        self.growing: dict[SegmentName, Growing] = {}
        self.answers: dict[Any, _Answer] = {}

    def size(self) -> int:
        sealed = sum(sums.size for _, sums in self.sealed.values() if sums is not None)
        return sealed + sum(one.sums.size for one in self.growing.values())


class Standing:
    """The sums of one ledger; safe for several threads.

    Args:
        root: the ledger.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._shapes: OrderedDict[Shape, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._matches = Matches(root)
        self._numbers: dict[Any, dict[tuple[int, int], tuple[int, ...] | None]] = {}
        self._looked: tuple[float, Snapshot] = (-_LOOK, Snapshot(root, [], {}, []))
        self._told: tuple[Any, Any, dict[SegmentName, Manifest]] = (None, None, {})

    def report(
        self,
        by: Sequence[str],
        selection: Selection,
        *,
        quantiles: bool = False,
        ledger: Snapshot | None = None,
    ) -> Report:
        """Add up outcomes by group, as ``Ledger.report`` does, without the calls in flight.

        Args:
            by: group keys, as ``check_by`` returns them.
            selection: no periods among its conditions.
            quantiles: as for ``Ledger.report``.
            ledger: a look at the ledger that was taken for several questions.
        """
        ledger = ledger or self.look()
        totals, spread, told = self._add(ledger, by, selection, quantiles=quantiles)
        problems: list[Problem] = []
        adjusted = 0
        if ledger.adjustments:
            adjusted = add_adjustments(
                ledger, by, selection, totals, problems, "newest", lambda _: set()
            )
        rest = [name for name in ledger.segments if name not in told]
        report = self._rest(ledger, rest, by, selection, totals, spread, problems)
        return report if not adjusted else replace(report, adjusted=adjusted)

    def _rest(
        self,
        ledger: Snapshot,
        rest: list[SegmentName],
        by: Sequence[str],
        selection: Selection,
        totals: Totals,
        spread: Spread | None,
        problems: list[Problem],
    ) -> Report:
        if not rest:
            return finish(totals, by, problems, spread.quantiles if spread else None)
        lines = everything(ledger.of(rest), problems, dict(by_writer(ledger.segments)))
        outcomes = (e.line for e in lines if e.line.kind == "usage" and selection.fits(e.line))
        dates = selection.calendar
        return build(outcomes, by, problems, calendar=dates, totals=totals, spread=spread)

    # -- segments ------------------------------------------------------------------------------

    def look(self) -> Snapshot:
        """Return a look at the ledger; the last one, if that was just now."""
        with self._lock:
            if time.monotonic() - self._looked[0] > _LOOK:
                self._looked = time.monotonic(), Snapshot.take(self._root)
            return self._looked[1]

    def told(self, ledger: Snapshot) -> dict[SegmentName, Manifest]:
        """Return the manifests to believe, which are read again when a file has changed."""
        known = self._told
        if known[0] is ledger:
            return known[2]
        sealed = [name for name in ledger.segments if not name.open]
        state = (sealed, _state(self._root / MANIFESTS), [*ledger.archive], self._states(sealed))
        told = known[2]
        if known[1] != state:
            told = manifests(self._root, sealed, ledger.archive)
        self._told = ledger, state, told
        return told

    def without(self, ledger: Snapshot, selection: Selection) -> set[SegmentName]:
        """Return sealed segments that hold none of the outcomes asked for."""
        told = self.told(ledger)
        found = {name for name in told if _outside(told[name], selection)}
        if selection.where or selection.where_not:
            self.report([], selection, ledger=ledger)
            kept = self._kept(Shape.of([], selection, timed=False))
            with kept.lock:
                for name, (sha256, sums) in kept.sealed.items():
                    none = sums is not None and not sums.size
                    if none and name in told and told[name].sha256 == sha256:
                        found.add(name)
        return found

    def _states(self, names: Sequence[SegmentName]) -> list[Any]:
        """Return what tells whether a file has changed; those in the archive have none."""
        found = {}
        with contextlib.suppress(OSError), os.scandir(self._root / SEGMENTS) as files:
            for file in files:
                with contextlib.suppress(OSError):  # renamed just now
                    found[file.name] = _signature(file.stat(follow_symlinks=False))
        return [found.get(str(name)) for name in names]

    def _add(
        self, ledger: Snapshot, by: Sequence[str], selection: Selection, *, quantiles: bool
    ) -> tuple[Totals, Spread | None, set[SegmentName]]:
        """Add up what is told of segments; return which these are, too."""
        shape = Shape.of(by, selection, timed=quantiles)
        question = Question(by, shape, selection, self._numbered(by, selection.calendar))
        told = self.told(ledger)
        kept = self._kept(shape)
        with kept.lock:
            totals, spread, found = self._sum_of_sealed(
                kept, ledger, by, selection, shape, question, told
            )
            for _, family in by_writer(ledger.segments):
                last = family[-1]
                if last.open and all((n.last or last.first) < last.first for n in family[:-1]):
                    grown = self._grown(kept, shape, last)
                    if grown is not None and question.put(grown, totals, spread):
                        found.add(last)
            for gone in set(kept.growing).difference(ledger.segments):
                del kept.growing[gone]
            if len(kept.sealed) > len(ledger.segments):
                for name in set(kept.sealed).difference(ledger.segments):
                    del kept.sealed[name]
        return totals, spread, found

    def _sum_of_sealed(
        self,
        kept: _Kept,
        ledger: Snapshot,
        by: Sequence[str],
        selection: Selection,
        shape: Shape,
        question: Question,
        told: dict[SegmentName, Manifest],
    ) -> tuple[Totals, Spread | None, set[SegmentName]]:
        """Return the sums of sealed segments, to be added to; and which these are.

        Those of the last few questions are kept until a segment is sealed.
        """
        dates = selection.calendar
        key = (tuple(by), selection.since, selection.until, dates.zone, dates.week_start)
        known = kept.answers.get(key)
        if known is None or known[0] is not told or known[1] != ledger.segments:
            totals = Totals(by, max_groups=MAX_GROUPS, calendar=dates)
            spread = Spread(by, dates) if shape.timed else None
            found = {
                name
                for _, family in by_writer(ledger.segments)
                for name in alone(family, told)
                if _outside(told[name], selection)
                or self._put(kept, shape, name, told[name], question, totals, spread)
            }
            known = told, ledger.segments, totals, spread, found
            kept.answers.pop(key, None)
            if totals.groups <= _FEW:
                kept.answers[key] = known
                while len(kept.answers) > _ANSWERS:
                    del kept.answers[next(iter(kept.answers))]
        _, _, totals, spread, found = known
        return totals.copy(), spread and spread.copy(), set(found)

    def _numbered(
        self, by: Sequence[str], dates: Calendar
    ) -> dict[tuple[int, int], tuple[int, ...] | None]:
        """Return what questions by the same periods in the same zone have found out."""
        periods = tuple(sorted(set(by).intersection(PERIODS)))
        with self._lock:
            if len(self._numbers) > _ZONES:
                self._numbers.clear()
            return self._numbers.setdefault((periods, dates.zone, dates.week_start), {})

    def _put(
        self,
        kept: _Kept,
        shape: Shape,
        name: SegmentName,
        manifest: Manifest,
        question: Question,
        totals: Totals,
        spread: Spread | None,
    ) -> bool:
        """Add a sealed segment; where longer times do not tell, its lines are read."""
        sums = self._sealed(kept, shape, name, manifest)
        if sums is None:
            return False
        if question.put(sums, totals, spread):
            return True
        if sums.exact:
            return False
        sums = self._from_lines(kept, shape, name, manifest)
        return sums is not None and question.put(sums, totals, spread)

    def _kept(self, shape: Shape) -> _Kept:
        with self._lock:
            kept = self._shapes.pop(shape, None) or _Kept()
            self._shapes[shape] = kept
            size = 0
            for number, (one, those) in enumerate(reversed([*self._shapes.items()])):
                size += those.size()
                if number and (size > _MOST or number >= _SHAPES):
                    del self._shapes[one]
            return kept

    def _sealed(
        self, kept: _Kept, shape: Shape, name: SegmentName, manifest: Manifest
    ) -> Sums | None:
        there = kept.sealed.get(name)
        if there is not None and there[0] == manifest.sha256:
            return there[1]
        sums = self._from_manifest(shape, name, manifest)
        if sums is None:
            return self._from_lines(kept, shape, name, manifest)
        kept.sealed[name] = manifest.sha256, sums.pack() if sums.size <= _LARGEST else None
        return kept.sealed[name][1]

    def _from_manifest(self, shape: Shape, name: SegmentName, manifest: Manifest) -> Sums | None:
        tags = shape.tags
        if manifest.tags is not None:  # of a tag that is on no call here nothing is to be told
            tags = tags.intersection(manifest.tags)
        if len(tags) > 1 or (tags and shape.timed):
            return None
        there = read(self._root, name)
        if there is None or there[0].sha256 != manifest.sha256:  # another one by now
            return None
        whole = there[0]
        tag = next(iter(tags), None)
        table = whole.table_of(tag)
        durations = whole.duration_table() if shape.timed else None
        if table is None or (shape.timed and durations is None):
            return None
        selection = Selection(where=dict(shape.where), where_not=dict(shape.where_not))
        keys = [key_of(key) for key in shape.keys]
        sums = Sums(table.step, timed=shape.timed)
        for group in table.groups:
            one = _outcome(group.of, tag)
            if not selection.fits(one):
                continue
            key = (one.status, one.usage_source, *[of(one) for of in keys])
            columns = [group.sums.get(field) for field in FIELDS]
            for at, quarter in enumerate(group.quarters):
                sums.add(key, quarter, [c[at] if c is not None else 0 for c in columns])
        if durations is not None:
            sums.timed = _timed(durations, shape)
        return sums

    def _from_lines(
        self, kept: _Kept, shape: Shape, name: SegmentName, manifest: Manifest
    ) -> Sums | None:
        growing = Growing(shape)
        if needles := _needles(shape):
            self._search(growing, name, manifest, needles)
        else:
            self._read(growing, name)
        fits = not growing.odd and growing.sums.size <= _LARGEST
        kept.sealed[name] = manifest.sha256, growing.sums.pack() if fits else None
        return kept.sealed[name][1]

    def _grown(self, kept: _Kept, shape: Shape, name: SegmentName) -> Sums | None:
        growing = kept.growing.get(name)
        if growing is None:
            growing = kept.growing[name] = Growing(shape)
        self._read(growing, name)
        if growing.odd or growing.sums.size > _LARGEST:
            return None
        return growing.sums

    def _read(self, growing: Growing, name: SegmentName) -> None:
        """Add what was written since; note what is not as a writer leaves it."""
        if growing.odd:
            return
        try:
            for line, after, _ in new_lines(self._root, name, growing.offset):
                growing.take(line)
                growing.offset = after
        except OSError:
            growing.odd = True
        growing.adder.flush()

    def _search(
        self, growing: Growing, name: SegmentName, manifest: Manifest, needles: Sequence[bytes]
    ) -> None:
        """Add the few lines that are wanted, of a segment whose manifest vouches for all."""
        try:
            for line in self._matches.lines(name, manifest.sha256, needles):
                growing.take(line)
        except OSError:
            growing.odd = True
        growing.adder.flush()


def _needles(shape: Shape) -> list[bytes]:
    """Return bytes of which each line that is wanted has some; none if that cannot be told.

    The values of a tag in quotes, as JSON without an escape has them.
    """
    for key, values in shape.where:
        if key.startswith("tag:") and MISSING not in values:
            return [b'"%b"' % value.encode() for value in values]
    return []


def _outcome(of: Sequence[str | None], tag: str | None) -> Fields:
    values = dict(zip(KEYS, of, strict=False))
    value = of[-1] if len(of) > len(KEYS) else None
    tags = {} if value is None or tag is None else {tag: value}
    return Fields(**cast("Any", values), tags=tags)


def _timed(table: DurationTable, shape: Shape) -> Durations:
    """Return the durations of a manifest for a shape without tags."""
    selection = Selection(where=dict(shape.where), where_not=dict(shape.where_not))
    keys = [key_of(key) for key in shape.keys]
    found = Durations(table.step)
    for group in table.groups:
        one = _outcome(group.of, None)
        if selection.fits(one):
            of_group = tuple([of(one) for of in keys])
            for name in MEASURED:
                for at, quarter in enumerate(group.quarters):
                    for sketch in group.sketches(name, at, at + 1):
                        found.add(of_group, quarter, name, sketch)
    return found


def _outside(manifest: Manifest, selection: Selection) -> bool:
    """Whether no outcome of a segment is of the time asked for."""
    if selection.since is None and selection.until is None:
        return False
    if manifest.earliest is None or manifest.latest is None:
        return manifest.earliest is manifest.latest  # none has a time
    with contextlib.suppress(ValueError):
        first, last = map(datetime.fromisoformat, (manifest.earliest, manifest.latest))
        return (selection.until is not None and first >= selection.until) or (
            selection.since is not None and last < selection.since
        )
    return False


def _state(path: Path) -> tuple[int, ...]:
    try:
        return _signature(path.lstat())
    except OSError:
        return ()


def _signature(found: os.stat_result) -> tuple[int, ...]:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
