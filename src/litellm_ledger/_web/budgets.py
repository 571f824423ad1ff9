"""``Budgets``: what stands against the budgets of a ledger, kept so that a look costs what is new.

Owns who may see which of them, and the reading on: a writer's segments that never change are
counted once, an open one from where it was read to.  The figures are those of
``litellm-ledger budgets``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from litellm_ledger._aggregates.groups import MISSING
from litellm_ledger._budgets.budget import Budget
from litellm_ledger._budgets.jobs import Began, what_began
from litellm_ledger._budgets.known import known_budgets
from litellm_ledger._budgets.rebuild import Counted, count, counted_since, may_count
from litellm_ledger._budgets.status import Gathered, Standing, status_of
from litellm_ledger._errors import LedgerPathError
from litellm_ledger._reading.listing import by_writer
from litellm_ledger._records.layout import ADJUSTMENTS, SegmentName
from litellm_ledger._reports.plain import plain_value
from litellm_ledger._storage.live_file import lives

from .lines import new_lines
from .standing import Standing as Sums
from .state import State
from .viewer import Scope

__all__ = ["Budgets", "is_seen"]

_PATIENCE: Final = 1.0
"""Seconds that an answer waits for the first reading."""


def is_seen(scope: Scope, one: Standing) -> bool:
    """Whether a viewer may see a budget: if each call that it counts is one that they may see.

    A budget that names tenants in ``where`` shows these names, so all of them must be the viewer's.
    """
    if scope is None:
        return True
    certain = one.budget.tags_of(one.scope)
    named = {key.removeprefix("tag:"): values for key, values in (one.budget.where or {}).items()}
    return all(
        certain.get(tag, {MISSING}) <= {*values} and {*named.get(tag, ())} <= {*values}
        for tag, values in scope.items()
    )


class _Writer:
    """What is counted of a writer, and how far it was read."""

    def __init__(self, counted: Counted) -> None:
        self.counted = counted
        self.sealed: tuple[Any, ...] = ()
        self.open: int | None = None
        self.offset = 0
        self.odd = False

    def follows(self, sealed: tuple[Any, ...]) -> bool:
        """Whether what is sealed is what was read, and perhaps the rest of what was open."""
        same = sealed[: len(self.sealed)] == self.sealed
        more = sealed[len(self.sealed) :]
        return same and (not more or self.open is None or more[0][0].first == self.open)


class _Found(NamedTuple):
    at: datetime
    standings: list[Standing]
    problems: list[str]


class Budgets:
    """The budgets of one ledger; safe for several threads.

    Args:
        root: the ledger.
        sums: has the looks at it.
    """

    def __init__(self, root: Path, sums: Sums) -> None:
        self._root = root
        self._sums = sums
        self._lock = threading.Lock()
        self._reading: Future[_Found] | None = None
        self._kept: dict[str, _Writer] = {}
        self._began: dict[tuple[str, str | None], Began | None] = {}
        self._of: Any = None
        self._state: State | None = None
        self._hour: datetime | None = None

    def look(self, scope: Scope, limit: int) -> dict[str, Any]:
        """Return the budgets that a viewer may see, as plain values.

        Args:
            scope: what the viewer may see.
            limit: rows of each budget at most, those with the most spent first.

        Raises:
            LedgerPathError, UnsupportedFormat, MissingExtra: as for ``standing``.
        """
        found = self._found()
        if found is None:
            return {"ready": False, "budgets": [], "more": 0, "problems": []}
        shown: list[dict[str, Any]] = []
        rows: dict[str, int] = {}
        more = 0
        for one in found.standings:
            if is_seen(scope, one):
                counts = one.budget.counts
                rows[counts] = rows.get(counts, 0) + 1
                if rows[counts] <= limit:
                    shown.append(_plain(one, found.at, scope))
                else:
                    more += 1
        problems = found.problems if scope is None else []
        return {"ready": True, "budgets": shown, "more": more, "problems": problems}

    def _found(self) -> _Found | None:
        with self._lock:
            reading = self._reading
            if reading is None:
                reading = self._reading = Future()
                name = "litellm-ledger-budgets"
                threading.Thread(target=self._read, args=(reading,), name=name, daemon=True).start()
        try:
            return reading.result(_PATIENCE)
        except TimeoutError:
            return None

    def _read(self, reading: Future[_Found]) -> None:
        """Answer all who wait; the next one who asks has it read again."""
        try:
            found = self._standings(datetime.now(UTC))
        except BaseException as exc:  # noqa: BLE001 - those who wait are told
            reading.set_exception(exc)
        else:
            reading.set_result(found)
        with self._lock:
            self._reading = None

    def _standings(self, now: datetime) -> _Found:
        try:
            budgets, problems = known_budgets(self._root)
        except LedgerPathError:  # nobody has said any
            return _Found(now, [], [])
        if not budgets:
            return _Found(now, [], problems)
        measured = dict(enumerate(budgets))
        state = self._sums.state(self._sums.look())
        if self._state is not state:
            self._began.clear()
        of = [one.counts for one in budgets]
        if self._of != of:
            self._kept.clear()
        self._of, self._state = of, state
        if self._hour != (hour := now.replace(minute=0, second=0, microsecond=0)):
            self._hour = hour
            for kept in self._kept.values():
                kept.counted.forget(now)
        ledger = state.ledger
        listed = sorted([*ledger.segments, *ledger.adjustments], key=lambda one: one.writer)
        every = dict(by_writer(listed))
        for gone in set(self._kept).difference(every):
            del self._kept[gone]
        gathered = Gathered(measured, now)
        began = partial(self._job, every)
        for writer, names in every.items():
            alive = any(name.open for name in names) and lives(self._root, writer)
            counted = self._counted(writer, every, measured, now, state)
            gathered.add(counted, counted.figures(alive=alive, began=began), alive=alive)
        return _Found(now, gathered.standings(), problems)

    def _job(
        self, every: Mapping[str, Sequence[SegmentName]], record: str, job: str | None
    ) -> Began | None:
        key = record, job
        if key not in self._began:
            self._began[key] = what_began(self._root, every, record, job)
        return self._began[key]

    def _counted(
        self,
        writer: str,
        every: Mapping[str, Sequence[SegmentName]],
        budgets: Mapping[int, Budget],
        now: datetime,
        state: State,
    ) -> Counted:
        """Return what the lines of a writer count, from what is kept and what is new."""
        names = every[writer]
        last = names[-1]
        grows = last in state.growing
        sealed = tuple((name, state.files.get(name)) for name in (names[:-1] if grows else names))
        kept = self._kept.get(writer)
        if writer.startswith(ADJUSTMENTS):
            if kept is None or kept.sealed != sealed:
                kept = _Writer(count(self._root, writer, every, budgets, now))
                self._kept[writer], kept.sealed = kept, sealed
            return kept.counted
        if kept is None or not kept.follows(sealed):
            kept = self._kept[writer] = _Writer(Counted(budgets, now))
        since = counted_since(budgets.values(), now)
        self._read_sealed(kept, sealed, since)
        if grows:
            if kept.open != last.first:
                kept.open, kept.offset = last.first, 0
            self._read_on(kept, last)
        if kept.odd:  # lines that are there twice, calls taken for unsettled
            counted = count(self._root, writer, every, budgets, now)
            if not any(name.open or state.files.get(name) is None for name in names):
                kept.counted, kept.odd = counted, False
            return counted
        return kept.counted

    def _read_sealed(self, kept: _Writer, sealed: tuple[Any, ...], since: datetime) -> None:
        for name, _ in sealed[len(kept.sealed) :]:
            if kept.open != name.first:
                kept.offset = 0
            if name.open:
                kept.odd = True
            elif kept.offset or may_count(self._root, name, since):
                self._read_on(kept, name)
            kept.open, kept.offset = None, 0
        kept.sealed = sealed

    def _read_on(self, kept: _Writer, name: SegmentName) -> None:
        if kept.odd:
            return
        try:
            for line, after, _ in new_lines(self._root, name, kept.offset):
                kept.offset = after
                if line is None:
                    continue
                if line.seq <= kept.counted.last or line.status == "unsettled":
                    kept.odd = True
                    return
                kept.counted.take(line)
        except OSError:
            kept.odd = True


def _plain(one: Standing, now: datetime, scope: Scope) -> dict[str, Any]:
    status = status_of(one, now)
    found = {name: plain_value(value) for name, value in status.figures().items()}
    budget = one.budget
    if scope is not None and budget.name is None:  # the one that was made names what is in where
        found["budget"] = f"{budget.unit} {budget.window}"
    return found
