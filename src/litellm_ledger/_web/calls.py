"""Single calls for the dashboard: the newest ones, one operation, and those in flight.

Owns the reading that stops early: from the ends of files, from the segment that an id names, from
where it was read to before.  Everything is cut to what the viewer may see.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._reading.last_written import ended, last_written
from litellm_ledger._reading.lines import entries, whole
from litellm_ledger._reading.listing import Snapshot, live_writers
from litellm_ledger._records.layout import SegmentName, split_id
from litellm_ledger._records.line import Line
from litellm_ledger._records.record import Fields, UsageRecord
from litellm_ledger._reports.engine import find_operation, list_calls
from litellm_ledger._reports.history import Operation, OperationAttempt, operation
from litellm_ledger._storage.live_file import LiveCounters

from .lines import needles, new_lines
from .standing import Standing
from .viewer import Scope, sees

__all__ = ["OpenCalls", "call_dict", "newest", "one_operation", "seen_by"]

_MOST: Final = 64 * 2**20
"""Bytes that are searched for one list of calls."""
_NEAR: Final = 8 * 2**20
"""Bytes that are searched before it is asked which segments to leave out."""
_LATER: Final = timedelta(days=3)
"""After the first attempt of an operation no other begins later than that."""


class _Before:
    """What a selection wants, and what stands after one call in the list."""

    def __init__(self, selection: Selection, bound: tuple[datetime, str] | None) -> None:
        self._selection = selection
        self._bound = bound

    def fits(self, record: Fields) -> bool:
        return self._selection.fits(record) and (self._bound is None or ended(record) < self._bound)


def newest(
    standing: Standing,
    ledger: Snapshot,
    selection: Selection,
    limit: int,
    *,
    scope: Scope,
    before: str | None = None,
) -> tuple[list[UsageRecord], bool]:
    """Return the calls that ended last, the newest first, and whether all of them were searched.

    Args:
        standing: tells which segments hold none of them.
        ledger: a look at it.
        selection: which calls.
        limit: the most calls to return.
        scope: what the viewer may see; ``selection`` is cut to it already.
        before: only calls that stand after this one in the list.

    Raises:
        LookupError: that one is not there.
    """
    root = ledger.root
    bound = None
    if before is not None:
        there = _record(ledger, before)
        if there is None or not sees(scope, there):
            raise LookupError(before)
        bound = ended(there)
    wanted = _Before(selection, bound)
    having = needles(selection.where.items())
    found = last_written(
        root, wanted, limit, most=_NEAR if having else _NEAR // 8, having=having, ledger=ledger
    )
    if found is None:  # they are rare, or long ago
        skip = standing.without(ledger, selection)
        found = last_written(
            root, wanted, limit, skip=skip, most=_MOST, having=having, ledger=ledger
        )
    if found is not None:
        return found[::-1], True
    if ledger.archive and bound is None:
        calls = list_calls(root, selection, limit)
        return [*calls], True
    return [], False


def _record(ledger: Snapshot, key: str) -> UsageRecord | None:
    """Return the outcome with this id."""
    known = split_id(key)
    if known is None:
        return None
    writer, seq = known
    names = [n for n in _family(ledger, writer) if n.first <= seq <= (n.last or seq)]
    for record in whole(entries(ledger.root, names, [], having=key.encode()), []):
        if record.id == key and record.kind == "usage":
            return record
    return None


def _family(ledger: Snapshot, writer: str) -> list[SegmentName]:
    return [name for name in ledger.segments if name.writer == writer]


def one_operation(standing: Standing, ledger: Snapshot, key: str, scope: Scope) -> Operation | None:
    """Return the operation that has a record, as far as the viewer may see it.

    Args:
        standing: has the manifests, which tell when the calls of a segment began.
        ledger: a look at it.
        key: the id of the record.
        scope: what the viewer may see.
    """
    known = split_id(key)
    if known is None:
        return None
    if ledger.archive:
        found = find_operation(ledger.root, key)
        return None if found is None else seen_by(scope, found)
    writer, seq = known
    family = _family(ledger, writer)
    there = [name for name in family if name.first <= seq <= (name.last or seq)]
    lines = whole(entries(ledger.root, there, [], having=key.encode()), [])
    first = next((record for record in lines if record.id == key), None)
    if first is None or not sees(scope, first):
        return None
    name = first.operation or key
    start = (split_id(name) or (writer, seq))[1]
    told = standing.told(ledger)
    until = (first.ts or datetime.now(UTC)) + _LATER
    names = [
        one
        for one in family
        if (one.last or start) >= start and not (one in told and _later(told[one].earliest, until))
    ]
    records = (
        record
        for record in whole(entries(ledger.root, names, [], having=name.encode()), [])
        if (record.operation or record.id) == name and sees(scope, record)
    )
    return operation(name, records)


def _later(earliest: str | None, than: datetime) -> bool:
    return earliest is not None and datetime.fromisoformat(earliest) > than


def seen_by(scope: Scope, found: Operation) -> Operation | None:
    """Return what the viewer may see of an operation."""

    def part(record: UsageRecord | None) -> UsageRecord | None:
        return record if record is not None and sees(scope, record) else None

    attempts = [
        OperationAttempt(number=a.number, started=part(a.started), outcome=part(a.outcome))
        for a in found.attempts
    ]
    kept = [a for a in attempts if a.started is not None or a.outcome is not None]
    return msgspec.structs.replace(found, attempts=kept) if kept else None


class _Writer:
    """How far the lines of a writer were read, and its calls without an outcome."""

    def __init__(self) -> None:
        self.at: tuple[int, int] | None = None
        self.open: dict[tuple[str, int], Line] = {}


class OpenCalls:
    """The calls in flight of running processes; looks only at what was written since."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._writers: dict[str, _Writer] = {}
        self._lock = threading.Lock()

    def look(self, ledger: Snapshot, scope: Scope) -> tuple[int, datetime | None]:
        """Return how many the viewer may see, and when the oldest of them began."""
        with self._lock:
            live = {writer: found for writer, locked, found in live_writers(self._root) if locked}
            for gone in self._writers.keys() - live:
                del self._writers[gone]
            for writer, found in live.items():
                self._read(ledger, writer, found)
            seen = [
                line
                for writer in self._writers.values()
                for line in writer.open.values()
                if sees(scope, line)
            ]
        times = [line.ts for line in seen if line.ts is not None]
        return len(seen), min(times, default=None)

    def _read(self, ledger: Snapshot, writer: str, found: LiveCounters) -> None:
        state = self._writers.setdefault(writer, _Writer())
        oldest = (found.oldest_in_flight or found.written + 1) if found.valid else 1
        first, offset = state.at or (oldest, 0)
        for name in _family(ledger, writer):
            if name.last is not None and name.last < first:
                continue
            start = offset if name.first == first else 0
            try:
                for line, after, _ in new_lines(self._root, name, start):
                    state.at = name.first, after
                    if line is not None:
                        self._note(state, line, oldest)
            except OSError:
                continue
        for key, line in list(state.open.items()):
            if line.seq < oldest:  # ended, and its outcome is where nobody looked
                del state.open[key]

    @staticmethod
    def _note(state: _Writer, line: Line, oldest: int) -> None:
        key = line.operation or line.id, line.attempt or 1
        if line.kind == "started" and line.seq >= oldest:
            state.open[key] = line
        elif line.kind == "usage":
            state.open.pop(key, None)


def call_dict(record: Any) -> dict[str, Any]:
    """Return a call for a list: without ``content``, which may be long."""
    from litellm_ledger._reports.plain import record_dict

    found = record_dict(record)
    found.pop("content", None)
    return found
