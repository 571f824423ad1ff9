"""``Standing``: sums of a ledger that are kept, so that a question costs what is new.

Owns, for each kind of question (its keys and conditions, whatever the time asked for), the sums of
every segment by quarter of an hour.  A sealed segment is added up once, from its manifest where
that tells, else from its lines; an open one from where it was read to.  Of each question the sum
over what does not grow is kept as a whole (``Fixed``).  What cannot be told exactly in this way is
left to the lines.  ``kept`` bounds the memory.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from litellm_ledger._aggregates.calendar import PERIODS, Calendar
from litellm_ledger._aggregates.quarters import QuarterQuestion
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._aggregates.totals import Totals
from litellm_ledger._reading.lines import Problem, archive_problems, everything
from litellm_ledger._reading.listing import Snapshot, by_writer
from litellm_ledger._reading.pruned import Pruned, busy, was_changed_since
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._records.ranges import Spans
from litellm_ledger._reports.adjusted import add_adjustments
from litellm_ledger._reports.by_manifest import Sealed, add_pruned
from litellm_ledger._reports.engine import with_pruned
from litellm_ledger._reports.report import Report, build
from litellm_ledger._storage.manifest import Manifest

from .cube import Cube
from .fixed import Amounts, Fixed
from .kept import Kept, Shelf
from .lines import Matches
from .segments import Segments
from .state import Looker, State, of_names
from .sums import Question
from .tally import Tally

__all__ = ["Standing"]

_TRIES: Final = 10
"""Readings of a ledger that is pruned, or erased from, while it is read."""
_ZONES: Final = 32
_NOTHING: Final = Sealed(frozenset(), [], frozenset())


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
        self._shelf = Shelf()
        self._lock = threading.Lock()
        self._matches = Matches(root)
        self._numbers: dict[Any, dict[tuple[int, int], tuple[int, ...] | None]] = {}

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
        numbers = self._numbered(by, selection.calendar)
        question = Question(by, selection, timed=quantiles, numbers=numbers)
        for _ in range(_TRIES):
            report, is_known = self._report(ledger, question)
            # Sums that are kept are right, whatever went since; what was read now may not be.
            if is_known or not was_changed_since(ledger):
                return report
            ledger = self._looker.look(afresh=True)
        raise busy(self._root)

    def _report(self, ledger: Snapshot, question: Question) -> tuple[Report, bool]:
        """Add up outcomes; tell whether nothing was read for it that could have gone meanwhile."""
        state = self.state(ledger)
        kept = self._shelf.of(question.shape)
        with kept.lock:
            segments = Segments(self._root, kept, question, self._matches)
            answered = _Answer(self.cube, state, kept, question, segments).report()
            self._shelf.bound(kept)
            return answered

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
            question = Question([], selection)
            view = self.cube.view()
            known, empty = Tally(view, question, self.cube.memory).without(view.chunks)
            found.update(name for name, manifest in told.items() if manifest.sha256 in empty)
            if all(manifest.sha256 in known for manifest in told.values()):
                return found
            self.report([], selection, ledger=ledger)
            kept = self._shelf.of(question.shape)
            with kept.lock:
                for name, sha256 in kept.empty.items():
                    if name in told and told[name].sha256 == sha256:
                        found.add(name)
        return found

    def _numbered(
        self, by: Sequence[str], dates: Calendar
    ) -> dict[tuple[int, int], tuple[int, ...] | None]:
        """Return what questions by the same periods in the same zone have found out."""
        periods = tuple(sorted(set(by).intersection(PERIODS)))
        with self._lock:
            if len(self._numbers) > _ZONES:
                self._numbers.clear()
            return self._numbers.setdefault((periods, dates.zone, dates.week_start), {})


class _Answer:
    """The answer to one question, in the making.

    Args:
        cube: of the ledger.
        state: what there is of it.
        kept: of the question's shape; its lock is held.
        question: this one.
        segments: for it.
    """

    def __init__(
        self, cube: Cube, state: State, kept: Kept, question: Question, segments: Segments
    ) -> None:
        self._cube = cube
        self._state = state
        self._kept = kept
        self._question = question
        self._segments = segments
        selection = question.selection
        dates = selection.calendar
        self._key = question.by, selection.since, selection.until, dates.zone, dates.week_start
        known = kept.answers.pop(self._key, None)
        self._fixed = known or Fixed(question.by, dates, timed=question.shape.timed)

    def report(self) -> tuple[Report, bool]:
        """Return the report, and whether nothing was read that could have gone meanwhile."""
        fixed = self._fixed
        is_known = fixed.state is self._state or self._settle()
        self._kept.answer(self._key, fixed)
        grown = fixed.none()
        problems = [*fixed.problems]
        left = [
            *fixed.left,
            *(name for name in self._state.growing if not self._add_grown(name, grown)),
        ]
        if left:
            self._read_lines(left, grown, problems)
        else:
            problems += archive_problems(self._state.ledger)
        return fixed.report(grown, problems), is_known and not left

    def _tally(self) -> Tally:
        """Plan the question, over what there is now."""
        return Tally(self._cube.view(), self._question, self._cube.memory)

    def _read_lines(self, left: list[SegmentName], into: Amounts, problems: list[Problem]) -> None:
        """Add the lines of segments that cannot be told otherwise."""
        ledger, selection = self._state.ledger, self._question.selection
        families = dict(by_writer(ledger.segments))
        lines = everything(of_names(ledger, left), problems, families)
        build(
            (e.line for e in lines if e.line.kind == "usage" and selection.fits(e.line)),
            self._question.by,
            problems,
            calendar=selection.calendar,
            totals=into.totals,
            spread=into.spread,
        )

    # -- what does not grow --------------------------------------------------------------------

    def _settle(self) -> bool:
        """Bring the sums of what does not grow up to date; tell whether nothing was read for it."""
        state, kept, fixed, question = self._state, self._kept, self._fixed, self._question
        kept.forget(state)
        if not fixed.names.items() <= state.alone.items():
            fixed.begin()
        rest = fixed.none()
        pruned = self._add_pruned(rest)
        if not pruned.names.isdisjoint(fixed.names):
            fixed.begin()
        unread = self._add_sealed(pruned.names)
        self._add_rest(rest, pruned.names)
        adjusted = self._add_adjustments(rest.totals, pruned.untold)
        told = with_pruned(
            Report(by=question.by, rows=[], total=fixed.sealed.totals.total(), adjusted=adjusted),
            [(state.gone, pruned)],
            question.selection,
        )
        members = ("adjusted", "aggregated", "unmeasured", "pruned", "pruned_until")
        fixed.told = {name: getattr(told, name) for name in members}
        fixed.finish(state, rest)
        if kept.sealed and self._cube.is_whole(state):  # manifests are asked no more
            kept.sealed, kept.size = {}, 0
        return unread and not (state.gone or state.rest or state.ledger.adjustments)

    def _add_pruned(self, into: Amounts) -> Sealed:
        """Add what manifests tell of segments that were pruned."""
        if not self._state.gone:
            return _NOTHING
        asked = QuarterQuestion(self._question.by, self._question.selection)
        return add_pruned(self._state.ledger, asked, *into, self._state.gone)

    def _add_sealed(self, but: frozenset[SegmentName]) -> bool:
        """Add segments that stand alone and are not in the sums yet; tell whether nothing was read.

        From columns; where they are not loaded yet, from manifests that tell; else it is waited
        for them, which is sooner than reading the lines for one question after the other.
        """
        fixed, state = self._fixed, self._state
        fixed.left = []
        wanted = dict(state.alone)
        if fixed.names or but:
            wanted = {n: s for n, s in wanted.items() if n not in fixed.names and n not in but}
        asked = self._tally()
        self._add_columns(wanted, asked)
        if not wanted:
            return True
        coming: dict[SegmentName, str] = {}
        of_lines: list[SegmentName] = []
        for name, sha256 in wanted.items():
            manifest = state.told[name]
            if _outside(manifest, self._question.selection) or self._segments.by_manifest(
                name, manifest, fixed.sealed
            ):
                fixed.names[name] = sha256
            elif asked.possible and self._cube.is_coming(name, sha256):
                coming[name] = sha256
            else:
                of_lines.append(name)
        if coming:
            self._cube.wait(coming)
            self._add_columns(coming, self._tally())
        for name in (*of_lines, *coming):
            manifest = state.told[name]
            if self._segments.by_lines(name, manifest, fixed.sealed):
                fixed.names[name] = manifest.sha256
            else:
                fixed.left.append(name)
        return False

    def _add_columns(self, wanted: dict[SegmentName, str], tally: Tally) -> None:
        """Add what columns tell; it is wanted no more."""
        fixed = self._fixed
        told = tally.add(tally.chunks, {*wanted.values()}, *fixed.sealed)
        if len(told) == len(wanted):
            fixed.names = fixed.names | wanted if fixed.names else {**wanted}
            wanted.clear()
        elif told:
            fixed.names.update((n, s) for n, s in wanted.items() if s in told)
            for name in [n for n, s in wanted.items() if s in told]:
                del wanted[name]

    def _add_grown(self, name: SegmentName, into: Amounts) -> bool:
        """Add what was written to an open segment, most of which was added up before."""
        grown = self._cube.grown(name)
        rows, known = self._fixed.grown.get(name) or (0, self._fixed.none())
        if grown is not None and rows < grown.rows:
            new, asked = grown.since(rows), self._tally()
            if asked.tells(new):
                asked.add(new, {""}, *known, share=False)
                self._fixed.grown[name] = grown.rows, known
            else:
                grown = None
        if grown is None:
            return self._segments.by_growth(name, into)
        into.add(known)
        return True

    def _add_rest(self, into: Amounts, but: frozenset[SegmentName]) -> None:
        """Add the lines of segments that no manifest tells, and that nobody writes to."""
        self._fixed.problems = []
        for family in self._state.rest:
            problems = None
            if but.isdisjoint(family.names):
                problems = self._segments.by_family(family, into)
            if problems is not None:
                self._fixed.problems += problems
            else:
                self._fixed.left += [name for name in family.names if name not in but]

    def _add_adjustments(self, totals: Totals, untold: Sequence[Pruned]) -> int:
        ledger, fixed, question = self._state.ledger, self._fixed, self._question
        if not ledger.adjustments:
            return 0
        without: dict[str, Spans] = {}
        for one in untold:
            span = without.setdefault(one.name.writer, Spans())
            span.add_range(one.name.first, one.name.last or 0)
        chunk, problems = self._cube.adjusted(self._state)
        if chunk is not None and not without:
            count = self._tally().add_adjusted(chunk, totals)
            if count is not None:
                fixed.problems += problems
                return count
        return add_adjustments(
            ledger,
            question.by,
            question.selection,
            totals,
            fixed.problems,
            "newest",
            lambda _: set(),  # nothing is compared
            without,
        )


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
