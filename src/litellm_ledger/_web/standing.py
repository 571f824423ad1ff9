"""``Standing``: sums of a ledger that are kept, so that a question costs what is new.

Owns, for each kind of question (its keys and conditions, whatever the time asked for), the sums of
every segment by quarter of an hour.  A sealed segment is added up once, from its manifest where
that tells, else from its lines; an open one from where it was read to.  Of each question the sum
over what does not grow is kept as a whole (``Fixed``).  What cannot be told exactly in this way is
left to the lines.  Memory is bounded; what was not asked for longest goes first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from litellm_ledger._aggregates.calendar import PERIODS, Calendar
from litellm_ledger._aggregates.quantiles import Spread
from litellm_ledger._aggregates.quarters import QuarterQuestion
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._aggregates.totals import Totals
from litellm_ledger._reading.lines import Problem, archive_problems, entries, everything
from litellm_ledger._reading.listing import Snapshot, by_writer
from litellm_ledger._reading.pruned import Pruned, busy, was_changed_since
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._records.line import Line
from litellm_ledger._records.ranges import Spans
from litellm_ledger._reports.adjusted import add_adjustments
from litellm_ledger._reports.by_manifest import Sealed, add_pruned
from litellm_ledger._reports.engine import with_pruned
from litellm_ledger._reports.report import Report, build
from litellm_ledger._storage.manifest import Manifest, read

from .cube import Cube
from .fixed import Fixed
from .lines import Matches, needles, new_lines
from .state import Family, Looker, State, of_names
from .sums import Adder, Growing, Question, Shape, Sums
from .tables import add_durations, sums_of
from .tally import Tally

__all__ = ["Standing"]

_MOST: Final = 2_000_000
"""Sums by group and quarter that are kept in all: about 200 MB."""
_LARGEST: Final = 20_000
"""The same of one segment: beyond, it is left to the lines."""
_SHAPES: Final = 4_096
_GROUPS: Final = 200_000
"""Groups of questions whose sums are kept as a whole, in all: about 200 MB."""
_TRIES: Final = 10
"""Readings of a ledger that is pruned, or erased from, while it is read."""
_ZONES: Final = 32
_ANSWERS: Final = 16
"""Questions of one kind whose sums are kept as a whole."""
_NOTHING: Final = Sealed(frozenset(), [], frozenset())


class _Kept:
    """What is kept of one shape.

    Attributes:
        sealed: the sums of sealed segments, by the SHA-256 of each.
        empty: those of them in which is nothing.
        size: of ``sealed``.
        families: what the lines of a writer's segments come to, that no manifest tells.
        answers: the sums of whole questions; those that were asked last at the end.
        counted: its part in what ``Standing`` bounds.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sealed: dict[SegmentName, tuple[str, Sums | None]] = {}
        self.empty: dict[SegmentName, str] = {}
        self.size = 0
        self.growing: dict[SegmentName, Growing] = {}
        self.families: dict[tuple[SegmentName, ...], tuple[Any, Sums | None, list[Problem]]] = {}
        self.answers: OrderedDict[Any, Fixed] = OrderedDict()
        self.counted = 0, 0

    def clear(self, *, answers: bool) -> None:
        """Drop what takes the memory; ``answers``: also the sums of whole questions."""
        self.sealed, self.size, self.growing, self.families = {}, 0, {}, {}
        if answers:
            self.answers.clear()

    def keep(self, name: SegmentName, sha256: str, sums: Sums | None) -> Sums | None:
        """Keep the sums of a sealed segment; too many are not worth it."""
        sums = None if sums is None or sums.size > _LARGEST else sums.pack()
        self.drop(name)
        self.sealed[name] = sha256, sums
        self.size += 0 if sums is None else sums.size
        if sums is not None and not sums.size:
            self.empty[name] = sha256
        return sums

    def drop(self, name: SegmentName) -> None:
        _, sums = self.sealed.pop(name, ("", None))
        self.size -= sums.size if sums is not None else 0

    def held(self) -> int:
        """Return how many sums by group and quarter there are."""
        families = sum(sums.size for _, sums, _ in self.families.values() if sums is not None)
        return self.size + families + sum(one.sums.size for one in self.growing.values())

    def forget(self, state: State) -> None:
        """Drop the sums of segments that are gone."""
        there = set(state.ledger.segments)
        for name in set(self.sealed) - there:
            self.drop(name)
        for name in set(self.empty) - there:
            del self.empty[name]
        for name in set(self.growing) - there:
            del self.growing[name]
        known = {family.names for family in state.rest}
        for names in set(self.families) - known:
            del self.families[names]


class Standing:
    """The sums of one ledger; safe for several threads.

    Args:
        root: the ledger.
        process: whether processes may be started to load columns.

    Attributes:
        cube: the columns that questions are answered from, as far as they are loaded.
    """

    def __init__(self, root: Path, *, process: bool = False) -> None:
        self._root = root
        self.cube = Cube(root, process=process)
        self._looker = Looker(root)
        self._shapes: OrderedDict[Shape, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._matches = Matches(root)
        self._numbers: dict[Any, dict[tuple[int, int], tuple[int, ...] | None]] = {}
        self._size = self._groups = 0

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

        Raises:
            LedgerPathError: it is pruned, or erased from, whenever it is read.
        """
        ledger = ledger or self.look()
        for _ in range(_TRIES):
            report, is_known = self._report(ledger, by, selection, quantiles=quantiles)
            # Sums that are kept are right, whatever went since; what was read now may not be.
            if is_known or not was_changed_since(ledger):
                return report
            ledger = self._looker.look(afresh=True)
        raise busy(self._root)

    def _report(
        self, ledger: Snapshot, by: Sequence[str], selection: Selection, *, quantiles: bool
    ) -> tuple[Report, bool]:
        """Add up outcomes; tell whether nothing was read for it that could have gone meanwhile."""
        state = self.state(ledger)
        shape = Shape.of(by, selection, timed=quantiles)
        question = Question(by, shape, selection, self._numbered(by, selection.calendar))
        kept = self._kept(shape)
        with kept.lock:

            def tally() -> Tally:
                """Plan the question, over what there is now."""
                view = self.cube.view()
                return Tally(view, by, shape, selection, question, self.cube.memory)

            fixed, is_known = self._fixed(kept, state, by, selection, shape, question, tally)
            totals, spread = fixed.none()
            problems = [*fixed.problems]
            left = [*fixed.left]
            for name in state.growing:
                if self._put_grown(fixed, name, tally, totals, spread):
                    continue
                grown = self._grown(kept, shape, name)
                if grown is None or not question.put(grown, totals, spread):
                    left.append(name)
            if left:
                self._read_lines(state, left, by, selection, totals, spread, problems)
            else:
                problems += archive_problems(state.ledger)
            self._bound(kept)
            return fixed.report(totals, spread, problems), is_known and not left

    def _read_lines(
        self,
        state: State,
        left: list[SegmentName],
        by: Sequence[str],
        selection: Selection,
        totals: Totals,
        spread: Spread | None,
        problems: list[Problem],
    ) -> None:
        """Add the lines of segments that cannot be told otherwise."""
        families = dict(by_writer(state.ledger.segments))
        lines = everything(of_names(state.ledger, left), problems, families)
        build(
            (e.line for e in lines if e.line.kind == "usage" and selection.fits(e.line)),
            by,
            problems,
            calendar=selection.calendar,
            totals=totals,
            spread=spread,
        )

    # -- the ledger ----------------------------------------------------------------------------

    def look(self) -> Snapshot:
        """Return a look at the ledger; the last one, if that was just now."""
        return self._looker.look()

    def state(self, ledger: Snapshot) -> State:
        """Return what a look says; the same object while no file has changed that never grows."""
        state = self._looker.state(ledger)
        self.cube.follow(state)
        return state

    def told(self, ledger: Snapshot) -> dict[SegmentName, Manifest]:
        """Return the manifests to believe, which are read again when a file has changed."""
        return self.state(ledger).told

    def without(self, ledger: Snapshot, selection: Selection) -> set[SegmentName]:
        """Return sealed segments that hold none of the outcomes asked for."""
        told = self.told(ledger)
        found = {name for name in told if _outside(told[name], selection)}
        if selection.where or selection.where_not:
            shape = Shape.of([], selection, timed=False)
            question = Question([], shape, selection, {})
            view = self.cube.view()
            tally = Tally(view, [], shape, selection, question, self.cube.memory)
            known, empty = tally.without(view.chunks)
            found.update(name for name, manifest in told.items() if manifest.sha256 in empty)
            if all(manifest.sha256 in known for manifest in told.values()):
                return found
            self.report([], selection, ledger=ledger)
            kept = self._kept(shape)
            with kept.lock:
                for name, sha256 in kept.empty.items():
                    if name in told and told[name].sha256 == sha256:
                        found.add(name)
        return found

    # -- what does not grow --------------------------------------------------------------------

    def _fixed(
        self,
        kept: _Kept,
        state: State,
        by: Sequence[str],
        selection: Selection,
        shape: Shape,
        question: Question,
        tally: Callable[[], Tally],
    ) -> tuple[Fixed, bool]:
        """Return the sums of what does not grow; and whether they had been kept."""
        dates = selection.calendar
        key = (tuple(by), selection.since, selection.until, dates.zone, dates.week_start)
        fixed = kept.answers.pop(key, None) or Fixed(by, dates, timed=shape.timed)
        is_known = fixed.state is state
        if not is_known:
            kept.forget(state)
            if not fixed.names.items() <= state.alone.items():
                fixed.begin()
            totals, spread = fixed.none()
            pruned = self._add_pruned(state, by, selection, totals, spread)
            if not pruned.names.isdisjoint(fixed.names):
                fixed.begin()
            unread = self._add_sealed(
                kept, state, selection, shape, question, fixed, pruned.names, tally
            )
            self._add_rest(kept, state, shape, question, fixed, totals, spread, pruned.names)
            adjusted = self._add_adjustments(
                state, by, selection, totals, pruned.untold, fixed, tally
            )
            told = with_pruned(
                Report(by=tuple(by), rows=[], total=fixed.sealed.total(), adjusted=adjusted),
                [(state.gone, pruned)],
                selection,
            )
            members = ("adjusted", "aggregated", "unmeasured", "pruned", "pruned_until")
            fixed.told = {name: getattr(told, name) for name in members}
            fixed.finish(state, totals, spread)
            is_known = unread and not (state.gone or state.rest or state.ledger.adjustments)
            if kept.sealed and self.cube.is_whole(state):  # manifests are asked no more
                kept.sealed, kept.size = {}, 0
        if not fixed.is_large:
            kept.answers[key] = fixed
        while len(kept.answers) > _ANSWERS:
            kept.answers.popitem(last=False)
        return fixed, is_known

    def _add_pruned(
        self,
        state: State,
        by: Sequence[str],
        selection: Selection,
        totals: Totals,
        spread: Spread | None,
    ) -> Sealed:
        """Add what manifests tell of segments that were pruned."""
        if not state.gone:
            return _NOTHING
        asked = QuarterQuestion(by, selection)
        return add_pruned(state.ledger, asked, totals, spread, state.gone)

    def _add_sealed(
        self,
        kept: _Kept,
        state: State,
        selection: Selection,
        shape: Shape,
        question: Question,
        fixed: Fixed,
        but: frozenset[SegmentName],
        tally: Callable[[], Tally],
    ) -> bool:
        """Add segments that stand alone and are not in the sums yet; tell whether nothing was read.

        From columns; where they are not loaded yet, from manifests that tell; else it is waited
        for them, which is sooner than reading the lines for one question after the other.
        """
        fixed.left = []
        wanted = dict(state.alone)
        if fixed.names or but:
            wanted = {n: s for n, s in wanted.items() if n not in fixed.names and n not in but}
        asked = tally()
        self._add_columns(fixed, wanted, asked)
        if not wanted:
            return True
        coming: dict[SegmentName, str] = {}
        of_lines: list[SegmentName] = []
        for name, sha256 in wanted.items():
            manifest = state.told[name]
            given = kept, shape, name, manifest, question, fixed.sealed, fixed.spread
            if _outside(manifest, selection) or self._put(*given):
                fixed.names[name] = sha256
            elif asked.possible and self.cube.is_coming(name, sha256):
                coming[name] = sha256
            else:
                of_lines.append(name)
        if coming:
            self.cube.wait(coming)
            self._add_columns(fixed, coming, tally())
        for name in (*of_lines, *coming):
            manifest = state.told[name]
            given = kept, shape, name, manifest, question, fixed.sealed, fixed.spread
            if self._put_lines(*given):
                fixed.names[name] = manifest.sha256
            else:
                fixed.left.append(name)
        return False

    def _add_columns(self, fixed: Fixed, wanted: dict[SegmentName, str], tally: Tally) -> None:
        """Add what columns tell; it is wanted no more."""
        told = tally.add(tally.chunks, {*wanted.values()}, fixed.sealed, fixed.spread)
        if len(told) == len(wanted):
            fixed.names = fixed.names | wanted if fixed.names else {**wanted}
            wanted.clear()
        elif told:
            fixed.names.update((n, s) for n, s in wanted.items() if s in told)
            for name in [n for n, s in wanted.items() if s in told]:
                del wanted[name]

    def _put_grown(
        self,
        fixed: Fixed,
        name: SegmentName,
        tally: Callable[[], Tally],
        totals: Totals,
        spread: Spread | None,
    ) -> bool:
        """Add what was written to an open segment, most of which was added up before."""
        grown = self.cube.grown(name)
        if grown is None:
            return False
        rows, known, measured = fixed.grown.get(name) or (0, *fixed.none())
        if rows < grown.rows:
            new, asked = grown.since(rows), tally()
            if not asked.tells(new):
                return False
            asked.add(new, {""}, known, measured, share=False)
            fixed.grown[name] = grown.rows, known, measured
        totals.merge(known)
        if spread is not None and measured is not None:
            spread.merge_all(measured)
        return True

    def _add_rest(
        self,
        kept: _Kept,
        state: State,
        shape: Shape,
        question: Question,
        fixed: Fixed,
        totals: Totals,
        spread: Spread | None,
        but: frozenset[SegmentName],
    ) -> None:
        """Add the lines of segments that no manifest tells, and that nobody writes to."""
        fixed.problems = []
        for family in state.rest:
            sums = problems = None
            if but.isdisjoint(family.names):
                sums, problems = self._of_family(kept, shape, family)
            if sums is not None and question.put(sums, totals, spread):
                fixed.problems += problems or ()
            else:
                fixed.left += [name for name in family.names if name not in but]

    def _add_adjustments(
        self,
        state: State,
        by: Sequence[str],
        selection: Selection,
        totals: Totals,
        untold: Sequence[Pruned],
        fixed: Fixed,
        tally: Callable[[], Tally],
    ) -> int:
        ledger = state.ledger
        if not ledger.adjustments:
            return 0
        without: dict[str, Spans] = {}
        for one in untold:
            span = without.setdefault(one.name.writer, Spans())
            span.add_range(one.name.first, one.name.last or 0)
        chunk, problems = self.cube.adjusted(state)
        if chunk is not None and not without:
            count = tally().add_adjusted(chunk, totals)
            if count is not None:
                fixed.problems += problems
                return count
        return add_adjustments(
            ledger,
            by,
            selection,
            totals,
            fixed.problems,
            "newest",
            lambda _: set(),  # nothing is compared
            without,
        )

    # -- memory --------------------------------------------------------------------------------

    def _numbered(
        self, by: Sequence[str], dates: Calendar
    ) -> dict[tuple[int, int], tuple[int, ...] | None]:
        """Return what questions by the same periods in the same zone have found out."""
        periods = tuple(sorted(set(by).intersection(PERIODS)))
        with self._lock:
            if len(self._numbers) > _ZONES:
                self._numbers.clear()
            return self._numbers.setdefault((periods, dates.zone, dates.week_start), {})

    def _kept(self, shape: Shape) -> _Kept:
        with self._lock:
            kept = self._shapes.pop(shape, None) or _Kept()
            self._shapes[shape] = kept
            return kept

    def _bound(self, kept: _Kept) -> None:
        """Bound what is kept of all shapes, after one of them, whose lock is held, has grown."""
        with self._lock:
            self._count(kept)
            if max(len(self._shapes) / _SHAPES, self._groups / _GROUPS, self._size / _MOST) <= 1:
                return
            for shape, other in [*self._shapes.items()]:
                many = len(self._shapes) > _SHAPES or self._groups > _GROUPS
                if not many and self._size <= _MOST:
                    break
                if other is not kept and other.lock.acquire(blocking=False):
                    try:
                        other.clear(answers=many)
                        self._count(other)
                        if many:
                            del self._shapes[shape]
                    finally:
                        other.lock.release()

    def _count(self, kept: _Kept) -> None:
        size, groups = kept.held(), sum(fixed.size for fixed in kept.answers.values())
        self._size += size - kept.counted[0]
        self._groups += groups - kept.counted[1]
        kept.counted = size, groups

    # -- segments ------------------------------------------------------------------------------

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
        """Add a sealed segment by its manifest, if that tells."""
        there = kept.sealed.get(name)
        if there is None or there[0] != manifest.sha256:
            sums = self._from_manifest(kept, shape, name, manifest, short=True)
        else:
            sums = there[1]
        if sums is not None and question.put(sums, totals, spread):
            return True
        if sums is None or not sums.short:
            return False
        sums = self._from_manifest(kept, shape, name, manifest, short=False)
        return sums is not None and question.put(sums, totals, spread)

    def _put_lines(
        self,
        kept: _Kept,
        shape: Shape,
        name: SegmentName,
        manifest: Manifest,
        question: Question,
        totals: Totals,
        spread: Spread | None,
    ) -> bool:
        """Add a sealed segment by its lines, after its manifest did not tell."""
        there = kept.sealed.get(name)
        if there == (manifest.sha256, None) or (there and there[1] and there[1].exact):
            return False  # too many, or read before
        sums = self._from_lines(kept, shape, name, manifest)
        return sums is not None and question.put(sums, totals, spread)

    def _from_manifest(
        self, kept: _Kept, shape: Shape, name: SegmentName, manifest: Manifest, *, short: bool
    ) -> Sums | None:
        """Return the sums that a manifest tells; ``short``: its few rows, if they may do."""
        tags = shape.tags
        if manifest.tags is not None:  # of a tag that is on no call here nothing is to be told
            tags = tags.intersection(manifest.tags)
        if len(tags) > 1 or (tags and shape.timed):
            return None
        if short and not tags and not shape.timed:
            rows = manifest.short_table()
            if rows is not None:
                sums = sums_of(rows, shape, None)
                sums.short = True
                return kept.keep(name, manifest.sha256, sums)
        there = read(self._root, name)
        if there is None or there[0].sha256 != manifest.sha256:  # another one by now
            return None
        whole = there[0]
        tag = next(iter(tags), None)
        table = whole.table_of(tag)
        durations = whole.duration_table() if shape.timed else None
        if table is None or (shape.timed and durations is None):
            return None
        sums = sums_of(table, shape, tag)
        if durations is not None:
            add_durations(sums, durations, shape)
        return kept.keep(name, manifest.sha256, sums)

    def _from_lines(
        self, kept: _Kept, shape: Shape, name: SegmentName, manifest: Manifest
    ) -> Sums | None:
        growing = Growing(shape)
        if sought := needles(shape.where):
            self._search(growing, name, manifest, sought)
        else:
            self._read(growing, name)
        return kept.keep(name, manifest.sha256, None if growing.odd else growing.sums)

    def _of_family(
        self, kept: _Kept, shape: Shape, family: Family
    ) -> tuple[Sums | None, list[Problem]]:
        """Return what the lines of segments that nobody writes to come to, and what is wrong there.

        ``None``: they are to be read again each time.
        """
        if family.signature is None:
            return None, []
        known = kept.families.get(family.names)
        if known is not None and known[0] == family.signature:
            return known[1], known[2]
        sums, problems = Sums(1, timed=shape.timed, exact=True), list[Problem]()
        adder = Adder(shape, sums)
        grows = any(name.open for name in family.all)
        fits = True
        for line in self._lines(family, problems):
            if line.status == "unsettled" and grows:  # its outcome may be there one day
                fits = False
                break
            adder.add(line)
        adder.flush()
        fits = fits and sums.size <= _LARGEST * len(family.names)
        found = sums.pack() if fits else None
        kept.families[family.names] = family.signature, found, problems
        return found, problems

    def _lines(self, family: Family, problems: list[Problem]) -> Iterator[Line]:
        found = entries(self._root, family.names, problems, family=family.all)
        return (entry.line for entry in found)

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
        self, growing: Growing, name: SegmentName, manifest: Manifest, sought: Sequence[bytes]
    ) -> None:
        """Add the few lines that are wanted, of a segment whose manifest vouches for all."""
        try:
            for line in self._matches.lines(name, manifest.sha256, sought):
                growing.take(line)
        except OSError:
            growing.odd = True
        growing.adder.flush()


def _outside(manifest: Manifest, selection: Selection) -> bool:
    """Whether no outcome of a segment is of the time asked for."""
    if selection.since is None and selection.until is None:
        return False
    if manifest.earliest is None or manifest.latest is None:
        return manifest.earliest is manifest.latest  # none has a time
    with suppress(ValueError):
        first, last = map(datetime.fromisoformat, (manifest.earliest, manifest.latest))
        return (selection.until is not None and first >= selection.until) or (
            selection.since is not None and last < selection.since
        )
    return False
