"""Which writers a ledger has, and up to which number their lines are certain.

Owns the bound of what may be shipped.  A line up to there never changes and its number never means
anything else, whatever happens to the process or to the machine:

* a writer with a live file, dead or alive: up to ``synced``.  What is only written may be lost in a
  power cut, and recovery gives such a number to another record;
* a writer without one was closed or recovered: all that is sealed;
* adjustments and audits: all that is there; their names are made durable first.

Reads counters and names, never a line.  Never writes.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate
from pathlib import Path
from typing import Final

from litellm_ledger._archive.archive import Place, archived
from litellm_ledger._errors import MissingExtra
from litellm_ledger._reading.listing import list_live, names_in
from litellm_ledger._records.layout import (
    ADJUSTMENTS,
    ARCHIVE,
    LIVE,
    SEGMENTS,
    SegmentName,
    live_name,
)
from litellm_ledger._storage.filesystem import REAL, refuse_links
from litellm_ledger._storage.format_version import refuse_newer
from litellm_ledger._storage.live_file import contradictory, is_locked, read_live

__all__ = ["ENDLESS", "Family", "Lookout", "Standing"]

ENDLESS: Final = 2**62
"""The last number of a segment that is still being written."""

_TICK: Final = 20 * 10**6
_COARSE_TICK: Final = 2 * 10**9
"""Nanoseconds for which the time of a directory's last change does not tell changes apart; the
second, of file systems that keep whole seconds."""
_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 3.0
"""Seconds after which counters that did not change are read again: at first, and at most."""
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Standing:
    """One writer at one look.

    Attributes:
        writer: its name.
        top: the last number that is certain.
        accepted: the last number that was given to a record, as far as is known.
        closed: it was closed or recovered: nothing comes any more.
        adds: it is one of adjustments or audits.
        held: why lines beyond ``top`` that are on the disk wait; ``None``: there are none, or they
            will be synced soon.
    """

    writer: str
    top: int
    accepted: int
    closed: bool
    adds: bool = False
    held: str | None = None


class Family:
    """The segments of one writer in the order of their numbers, for a search by number.

    Args:
        names: all of them.
        last_line: returns the last number that an open segment has a line for; asked only where
            another segment begins later, so that it is not written to any more.
    """

    def __init__(
        self, names: Sequence[SegmentName], last_line: Callable[[SegmentName], int]
    ) -> None:
        self.names = sorted(names, key=lambda name: (name.first, name.last or ENDLESS))
        self.firsts = [name.first for name in self.names]
        newest = self.firsts[-1] if self.firsts else 0
        self.lasts = [
            name.last
            if name.last is not None
            else (ENDLESS if name.first == newest else last_line(name))
            for name in self.names
        ]
        self._upto = list(accumulate(self.lasts, max))
        self._last_of = dict(zip(self.names, self.lasts, strict=True))

    def having(self, number: int) -> list[SegmentName]:
        """Return the segments that may have a number, by their first one."""
        found = []
        at = bisect_right(self.firsts, number)
        while at and self._upto[at - 1] >= number:
            at -= 1
            if self.lasts[at] >= number:
                found.append(self.names[at])
        return found[::-1]

    def last_of(self, name: SegmentName) -> int:
        """Return the last number of one of them."""
        return self._last_of[name]

    def next_first(self, number: int) -> int:
        """Return where the next segment begins behind a number."""
        at = bisect_right(self.firsts, number)
        return self.firsts[at] if at < len(self.firsts) else ENDLESS


@dataclass(slots=True)
class _Counters:
    synced: int = 0
    accepted: int = 0
    pause: float = 0.0


class Lookout:
    """Looks at a ledger again and again; a writer that does nothing costs next to nothing.

    Args:
        root: the ledger.
        clock: seconds, for how often counters are read.

    Attributes:
        standings: every writer by its name, as of the last look.
        archive: where compacted segments are.
        unknown: why not all segments are known; ``None``: they are.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.root = root
        self.standings: dict[str, Standing] = {}
        self.archive: Mapping[SegmentName, Place] = {}
        self.unknown: str | None = None
        self._clock = clock
        self._names: dict[str, list[SegmentName]] = {}
        self._families: dict[str, Family] = {}
        self._counters: dict[str, _Counters] = {}
        self._due: list[tuple[float, str]] = []
        self._soon: list[str] = []
        self._live_stamp: int | None = None
        self._stamp: tuple[int, int] | None = None
        self._additions: set[str] = set()
        self._open_alone: set[str] = set()
        self._checked = False
        self._changed: set[str] = set()

    def changed(self) -> set[str]:
        """Return the writers that are not as they were when this was asked last."""
        found, self._changed = self._changed, set()
        return found

    def soon(self, writer: str) -> None:
        """Read the counters of a writer at the next look."""
        self._soon.append(writer)

    def look(self, *, afresh: bool = False) -> None:
        """Look once.

        Args:
            afresh: read all counters and list everything, whatever is remembered.

        Raises:
            LedgerPathError: there is no ledger, or it cannot be read.
            UnsupportedFormat: a newer version wrote it.
        """
        if not self._checked:
            refuse_links(self.root)
            refuse_newer(self.root)
            self._checked = True
        # First who is there, and what they count; only then the segments.
        everything = self._list_live(afresh=afresh)
        moved = self._read_counters(afresh=afresh)
        everything = self._list(afresh=afresh) or everything
        alone: set[str] = set()
        for writer in self._names.keys() | self._counters.keys() if everything else moved:
            standing = self._standing(writer, alone)
            if self.standings.get(writer) != standing:
                self.standings[writer] = standing
                self._changed.add(writer)
        if everything:
            self._open_alone = alone
            for writer in self.standings.keys() - self._names.keys() - self._counters.keys():
                del self.standings[writer]

    def family(self, writer: str) -> Family:
        """Return the segments of a writer."""
        found = self._families.get(writer)
        if found is None:
            names = self._names.get(writer, [])
            self._families[writer] = found = Family(names, self._last_line)
        return found

    def lives(self, writer: str) -> bool:
        """Whether the process of a writer lives; not while it is being recovered."""
        path = self.root / LIVE / live_name(writer)
        try:
            return is_locked(path) and not read_live(path).recoverer
        except OSError:
            return False

    def dead(self) -> list[str]:
        """Return the writers that died and wait for ``recover``."""
        found = []
        for writer in list_live(self.root):
            with suppress(OSError):
                if not is_locked(self.root / LIVE / live_name(writer)):
                    found.append(writer)
        return found

    # -- the counters --------------------------------------------------------------------------

    def _list_live(self, *, afresh: bool) -> bool:
        """List the live files, unless none came or went; tell whether any may have."""
        now, stamp = time.time_ns(), _changed(self.root / LIVE)
        if stamp == self._live_stamp and not afresh:
            return False
        there = list_live(self.root)
        self._live_stamp = stamp if _at_rest(stamp, now) else None
        gone = self._counters.keys() - there
        new = [writer for writer in there if writer not in self._counters]
        for writer in gone:
            del self._counters[writer]
        for writer in new:
            self._counters[writer] = _Counters()
            heappush(self._due, (0.0, writer))
        return bool(gone or new)

    def _read_counters(self, *, afresh: bool) -> set[str]:
        """Read the counters that are due; return the writers whose have changed."""
        now = self._clock()
        changed = set()
        due = set()
        while self._due and self._due[0][0] <= now:
            due.add(heappop(self._due)[1])
        asked = self._counters.keys() if afresh else due.union(self._soon)
        self._soon.clear()
        for writer in asked:
            known = self._counters.get(writer)
            if known is None:
                continue
            synced, accepted = _read(self.root / LIVE / live_name(writer))
            if (synced, accepted) != (known.synced, known.accepted):
                known.synced, known.accepted = max(synced, known.synced), accepted
                known.pause = 0.0
                changed.add(writer)
            else:
                known.pause = min(_LONGEST_PAUSE, 2 * known.pause + _PAUSE)
            if writer in due:
                heappush(self._due, (now + known.pause, writer))
        return changed

    # -- the names -----------------------------------------------------------------------------

    def _list(self, *, afresh: bool) -> bool:
        """List the segments, unless nothing changed since; tell whether anything may have."""
        now = time.time_ns()
        stamp = _changed(self.root / SEGMENTS), _changed(self.root / ARCHIVE)
        if stamp == self._stamp and not afresh:
            return False
        names: set[SegmentName] = set(names_in(self.root))
        self.unknown = None
        broken: list[Path] = []
        try:
            self.archive = archived(self.root, broken, afresh=afresh)
        except MissingExtra as exc:
            self.archive, self.unknown = {}, str(exc)
        if broken:
            files = ", ".join(sorted(path.name for path in broken))
            self.unknown = (
                f"{ARCHIVE}/ has files that are not whole ({files}): restore them from a backup, "
                "or move them away, and their records count as damaged"
            )
        names.update(self.archive)
        at_rest = all(
            now - moment > (_TICK if moment % 10**9 else _COARSE_TICK) for moment in stamp
        )
        self._stamp = stamp if at_rest else None
        by_writer: dict[str, list[SegmentName]] = {}
        for name in names:
            by_writer.setdefault(name.writer, []).append(name)
        self._families = {
            writer: family
            for writer, family in self._families.items()
            if set(family.names) == set(by_writer.get(writer, ()))
        }
        self._names = by_writer
        additions = {writer for writer in by_writer if writer.startswith(ADJUSTMENTS)}
        if not additions <= self._additions:
            REAL.sync_directory(self.root / SEGMENTS)
            self._additions = additions
        return True

    def _last_line(self, name: SegmentName) -> int:
        from .index import Index  # only after a disk has failed a writer

        with suppress(OSError):
            return Index.of(self.root, name).last
        return ENDLESS

    # -- one writer ------------------------------------------------------------------------------

    def _standing(self, writer: str, alone: set[str]) -> Standing:
        names = self._names.get(writer, [])
        counters = self._counters.get(writer)
        adds = writer.startswith(ADJUSTMENTS)
        if counters is not None and not adds:
            return Standing(writer, counters.synced, counters.accepted, closed=False)
        opened = [name.first for name in names if name.open]
        last = max((name.last for name in names if name.last is not None), default=0)
        if not opened:
            return Standing(writer, last, last, closed=True, adds=adds)
        # Its live file came after we listed these; or somebody took it away.
        alone.add(writer)
        held = None
        if writer in self._open_alone:
            held = (
                f"{SEGMENTS}/{SegmentName(writer, min(opened))} is not sealed and has no live "
                "file: nobody can tell whether it is still being written"
            )
        top = min(last, min(opened) - 1)
        return Standing(writer, top, max(last, top), closed=False, adds=adds, held=held)


def _read(path: Path) -> tuple[int, int]:
    """Return what a live file says is synced, and accepted; 0 for what cannot be believed."""
    for _ in range(_TRIES):
        try:
            found = read_live(path)
        except OSError:
            return 0, 0
        if not found.valid:
            return 0, 0
        if not contradictory(found):
            return found.synced, max(found.accepted, found.written)
    return 0, 0  # of a living writer they were read in the middle of a change: the next look


def _changed(directory: Path) -> int:
    try:
        return directory.stat().st_mtime_ns
    except OSError:
        return 0


def _at_rest(moment: int, now: int) -> bool:
    """Whether a change after ``now`` would show in the time of a directory's last change."""
    return now - moment > (_TICK if moment % 10**9 else _COARSE_TICK)
