"""``State``: what there is of a ledger, sorted by how its sums can be told.

Owns the looking: which manifests to believe, which segments stand alone, which grow, and what tells
that a file has changed.  A state stays the same object while the ledger's files do, so that what
follows from it is worked out once.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from litellm_ledger._reading.listing import Snapshot, by_writer
from litellm_ledger._reading.pruned import Gone, read_pruned
from litellm_ledger._reading.sealed import manifests
from litellm_ledger._records.layout import ARCHIVE, LIVE, MANIFESTS, SEGMENTS, SegmentName
from litellm_ledger._reports.by_manifest import alone
from litellm_ledger._storage.manifest import Manifest

__all__ = ["Family", "Looker", "State"]

_LOOK: Final = 0.25
"""Seconds for which a look at the directory does; open segments are read to their end anyway."""
_CHECK: Final = 1.0
"""Seconds after which it is looked again whether files were changed that never change."""
_SETTLED: Final = 2_500_000_000
"""Nanoseconds after which the time of a directory's change tells of each later one."""


class Family(NamedTuple):
    """Segments of one writer whose lines are to be read.

    Attributes:
        names: these, none of which grows.
        all: every segment of the writer.
        signature: what tells whether their lines are the same as before.
    """

    names: tuple[SegmentName, ...]
    all: tuple[SegmentName, ...]
    signature: Any


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A look at a ledger.

    Attributes:
        ledger: the look.
        told: the manifests to believe.
        alone: the segments whose manifests tell all there is to count of them; the SHA-256 of each.
        growing: open segments whose lines all count.
        rest: the others.
        gone: what was pruned.
        files: what tells whether a segment that does not grow has changed.
        signature: of all files; two states with equal ones are the same.
    """

    ledger: Snapshot
    told: dict[SegmentName, Manifest]
    alone: dict[SegmentName, str]
    growing: list[SegmentName]
    rest: list[Family]
    gone: Gone
    files: dict[SegmentName, Any]
    signature: Any


class Looker:
    """Looks at one ledger; safe for several threads.

    Args:
        root: the ledger.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._looked: tuple[float, Any, Snapshot] | None = None
        self._state: tuple[float, Snapshot, State] | None = None

    def look(self, *, afresh: bool = False) -> Snapshot:
        """Return a look at the ledger; the last one, if that was just now or nothing has changed.

        Args:
            afresh: look again in any case.

        Raises:
            LedgerPathError, UnsupportedFormat, MissingExtra: as for ``Snapshot.take``.
        """
        with self._lock:
            known, now = self._looked, time.monotonic()
            if known is not None and now - known[0] <= _LOOK and not afresh:
                return known[2]
            changes = [_changed(self._root / part) for part in ("", SEGMENTS, LIVE, ARCHIVE)]
            settled = time.time_ns() - max(changes) > _SETTLED
            if known is None or afresh or not settled or known[1] != changes:
                ledger = Snapshot.take(self._root)
            else:
                ledger = known[2]
            self._looked = now, changes if settled else None, ledger
            return ledger

    def state(self, ledger: Snapshot) -> State:
        """Return what a look says: the last state, if it is the same."""
        with self._lock:
            known, now = self._state, time.monotonic()
            if known is not None and known[1] is ledger and now - known[0] <= _CHECK:
                return known[2]
            last = None if known is None else known[2]
            state = self._made(ledger, last)
            self._state = now, ledger, state
            return state

    def _made(self, ledger: Snapshot, last: State | None) -> State:
        sealed = [name for name in ledger.segments if not name.open]
        states = _states(self._root / SEGMENTS)
        places = {name: _signature_of(file.path) for name, (file, _) in ledger.archive.items()}
        files = {
            name: places.get(name) or states.get(str(name))
            for name in (*sealed, *ledger.adjustments)
        }
        signature = (
            ledger.segments,
            [*map(str, ledger.adjustments)],
            _signature_of(self._root / MANIFESTS),
            [*files.values()],
            ledger.broken,
        )
        if last is not None and last.signature == signature:
            return last
        told = manifests(self._root, sealed, ledger.archive)
        whole: dict[SegmentName, str] = {}
        growing: list[SegmentName] = []
        rest: list[Family] = []
        for _, family in by_writer(ledger.segments):
            vouched = alone(family, told)
            whole.update((name, told[name].sha256) for name in vouched)
            end = family[-1]
            grows = end.open and all((n.last or n.first) < end.first for n in family[:-1])
            if grows:
                growing.append(end)
            left = {*family} - {*vouched} - ({end} if grows else set())
            if left:
                names = tuple(name for name in family if name in left)
                keys = [files.get(name) for name in names]
                known = None if None in keys else (names, tuple(family), *keys)
                rest.append(Family(names, tuple(family), known))
        gone = read_pruned(self._root, ledger.adjustments)
        return State(ledger, told, whole, growing, rest, gone, files, signature)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _states(directory: Path) -> dict[str, Any]:
    """Return what tells whether a file has changed, of each in a directory."""
    found = {}
    with contextlib.suppress(OSError), os.scandir(directory) as files:
        for file in files:
            with contextlib.suppress(OSError):  # renamed just now
                found[file.name] = _signature(file.stat(follow_symlinks=False))
    return found


def _signature_of(path: Path) -> tuple[int, ...]:
    try:
        return _signature(path.lstat())
    except OSError:
        return ()


def _signature(found: os.stat_result) -> tuple[int, ...]:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def of_names(ledger: Snapshot, names: Sequence[SegmentName]) -> Snapshot:
    """Return the same look at some segments, in its order."""
    wanted = {*names}
    return ledger.of([name for name in ledger.segments if name in wanted])
