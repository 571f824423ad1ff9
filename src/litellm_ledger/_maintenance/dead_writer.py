"""One dead writer: its segments sealed, what is damaged set aside, its numbering brought to an end.

Owns the order of the steps, each of which leaves a state from which the next run finishes the same
work:

1. leftovers that were never part of the ledger (``.tmp``) are removed;
2. every ``.open`` segment is sealed.  A torn tail is copied to ``recovery/`` before it is cut;
   where valid lines follow invalid bytes nothing is cut: what is valid is written anew, and the
   original goes to ``recovery/``;
3. the numbering goes on in a sealed segment of the writer's name: a ``gap`` line for what was
   accepted and never arrived, and an ``unsettled`` outcome for each call that was in flight;
4. the live file is unlinked, last.

Holds the writer's lock through all of it (the caller took it).  Never deletes a byte that a record
could be in.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from litellm_ledger._aggregates.formatting import counted
from litellm_ledger._errors import MissingExtra
from litellm_ledger._records.gaps import Gap
from litellm_ledger._records.layout import ARCHIVE, RECOVERY, SEGMENTS, SegmentName
from litellm_ledger._records.ranges import Spans
from litellm_ledger._records.scan import Head, Scan, scan
from litellm_ledger._storage.filesystem import FileSystem, read_file
from litellm_ledger._storage.format_version import newer_format
from litellm_ledger._storage.live_file import (
    LiveCounters,
    acked_until,
    contradictory,
    read_live,
    same_boot,
)
from litellm_ledger._storage.segment import write_sealed

from .kept_files import Keeping
from .salvage import Held, OpenCalls, fill, gap_line, is_whole, last_number, unsettled_line

__all__ = ["DeadWriter", "RecoveredWriter"]

Counters = Literal["exact", "stale", "unknown"]


@dataclass(frozen=True, slots=True)
class RecoveredWriter:
    """What one run of recovery did for one dead writer.

    Attributes:
        writer: whose segments they are.
        counters: ``exact`` (the machine has run on since: ``lost`` is exact), ``stale`` (it was
            restarted: at least this number) or ``unknown`` (the live file was garbled).
        sealed: names of the segments that were sealed or written.
        torn_bytes: bytes cut off the ends of segments; they are kept in ``recovery/``.
        quarantined: names of the damaged or redundant originals set aside in ``recovery/``.
        lost: numbers that were given out and that no line was found for.
        unacknowledged: how many of ``lost`` certainly belong to records that no caller had been
            told of.  0 where the durability level is not on record.
        damaged: numbers whose lines were beyond reading; their bytes are in ``recovery/``.
        unsettled: calls that were in flight.
        error: why the writer could not be finished; it is tried again next time.
    """

    writer: str
    counters: Counters
    sealed: tuple[str, ...] = ()
    torn_bytes: int = 0
    quarantined: tuple[str, ...] = ()
    lost: int = 0
    damaged: int = 0
    unsettled: int = 0
    error: str | None = None
    unacknowledged: int = 0

    def summary(self) -> str:
        """Return what happened in one sentence, for the log."""
        if self.error:  # perhaps another user's, and alive: nothing is claimed of it
            return (
                f"a writer was left unchanged ({self.error}); if its process died, "
                "run litellm-ledger recover as its owner"
            )
        least = "" if self.exact else "at least "
        parts = [
            f"{counted(self.unsettled, 'call')} unsettled" if self.unsettled else "",
            f"{least}{counted(self.lost, 'record')} lost" if self.lost else "",
            f"{counted(self.damaged, 'record')} damaged" if self.damaged else "",
        ]
        return f"the previous process died: {', '.join(filter(None, parts)) or 'nothing lost'}"

    @property
    def exact(self) -> bool:
        """Whether ``lost`` is the whole truth, not only what can be known."""
        return self.counters == "exact"


@dataclass(slots=True)
class _Segment:
    """One segment: what its name says and, while it is being looked at, what is in it."""

    name: SegmentName
    found: Scan | None = None
    archived: bool = False

    @property
    def last(self) -> int:
        if self.name.last is not None:
            return self.name.last
        return last_number(self.found) if self.found is not None else 0


@dataclass(slots=True)
class DeadWriter:
    """The work on one writer, and the tally of it."""

    fs: FileSystem
    directory: Path
    writer: str
    sealed: list[str] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    torn_bytes: int = 0
    lost: int = 0
    damaged: int = 0
    unsettled: int = 0
    unacknowledged: int = 0
    _acked_until: int | None = None
    _archive_known: bool = True

    def finish(self, live: Path) -> RecoveredWriter:
        """Do all of it.  An ``OSError`` ends in the result; nothing else is swallowed."""
        known: Counters = "unknown"
        error = None
        try:
            counters = read_live(live)
            known = _trust(counters)
            self._work(live, counters, known)
        except OSError as exc:
            error = str(exc)
        return RecoveredWriter(
            self.writer,
            known,
            sealed=tuple(self.sealed),
            torn_bytes=self.torn_bytes,
            quarantined=tuple(self.quarantined),
            lost=self.lost,
            damaged=self.damaged,
            unsettled=self.unsettled,
            error=error,
            unacknowledged=self.unacknowledged,
        )

    def _work(self, live: Path, counters: LiveCounters, known: Counters) -> None:
        segments = self._list()
        for segment in segments:
            if segment.name.open:
                self._read(segment)
        self._remove_temporaries()

        accepted = max(counters.accepted, counters.written) if known != "unknown" else 0
        self._acked_until = acked_until(counters) if known != "unknown" else None
        covered = Spans()
        for segment in segments:
            covered.add_range(segment.name.first, segment.last)
        # A call counts as in flight until its outcome is written, so what was accepted and never
        # written cannot have ended an older one.  What was written and is not there can.
        since = counters.oldest_in_flight or math.inf
        if known != "exact" or covered.missing(1, counters.written) or self._was_damaged(segments):
            since = 1

        calls = OpenCalls()
        for group in _groups(segments):
            if any(s.name.open for s in group) or max(s.last for s in group) >= since:
                calls.feed(self._finish_files(group))
                for segment in group:
                    covered.add_range(segment.name.first, last_number(self._read(segment)))
                    segment.found = None  # as large as the file
        # An open segment is read whatever it holds; a call in it that began before `since` ended in
        # one that was not.
        running = [call for call in calls if call[0].seq >= since]
        self._continue(covered, accepted, running)
        if self._segments.is_dir():
            self.fs.sync_directory(self._segments)
        if known == "unknown":
            self.keeping.move(live)
        else:
            self.fs.unlink(live)
            self.fs.sync_directory(live.parent)

    # -- what is there -------------------------------------------------------------------------

    @property
    def keeping(self) -> Keeping:
        """Where what is damaged or torn is kept."""
        return Keeping(self.fs, self.directory)

    @property
    def _segments(self) -> Path:
        return self.directory / SEGMENTS

    def _list(self) -> list[_Segment]:
        names = map(SegmentName.parse, _files(self._segments, f"{self.writer}."))
        segments = [_Segment(name) for name in names if name is not None]
        here = {segment.name for segment in segments}
        compacted, self._archive_known = _compacted(self.directory)
        segments += [
            _Segment(name, archived=True)
            for name in compacted
            if name.writer == self.writer and name not in here
        ]
        return sorted(segments, key=lambda s: (s.name.first, s.name.last or 0))

    def _read(self, segment: _Segment) -> Scan:
        if segment.found is None:
            path = self._segments / str(segment.name)
            data = _archived(self.directory, segment.name) if segment.archived else None
            if data is None:
                data = read_file(path)
            segment.found = scan(data, self.writer, segment.name.first)
            for head, _ in segment.found.lines:
                if head.v > 1:
                    raise newer_format(path, head.v)
        return segment.found

    def _remove_temporaries(self) -> None:
        for directory in (self._segments, self.directory / RECOVERY):
            for file in _files(directory, f"{self.writer}."):
                if file.endswith(".tmp"):  # nobody else's: we hold the writer's lock
                    self.fs.unlink(directory / file)

    def _was_damaged(self, segments: list[_Segment]) -> bool:
        """Whether something is damaged now, or was before an earlier run was killed half-way."""
        now = any(segment.found and segment.found.damaged for segment in segments)
        return now or bool(_files(self.directory / RECOVERY, f"{self.writer}."))

    # -- leaving only sealed and whole segments ------------------------------------------------

    def _finish_files(self, group: list[_Segment]) -> Held:
        """Settle the files of one group, whose numbers overlap; return what they hold together."""
        held = Held()
        for segment in group:
            held.add(self._read(segment).lines)
        names = {segment.name for segment in group}
        for segment in sorted(group, key=lambda s: s.name.open):  # what may be in the way first
            found, name = self._read(segment), segment.name
            if segment.archived:
                continue  # it was whole when it went there, and stays as it is
            if not name.open:
                if not is_whole(name, found):
                    self._salvage(name, max(segment.last, last_number(found)), held, names)
            elif not found.lines:
                self._discard(name, found)
            elif found.damaged or name.sealed(segment.last) in names:
                self._salvage(name, segment.last, held, names)
            elif self._cut_and_sync(name, found):
                sealed = name.sealed(segment.last)
                self.fs.rename(self._segments / str(name), self._segments / str(sealed))
                self.sealed.append(str(sealed))
            else:
                self._salvage(name, segment.last, held, names)
        return held

    def _cut_and_sync(self, name: SegmentName, found: Scan) -> bool:
        """Leave the valid lines, durable; say whether that worked.

        A sync that failed is not tried again: it would report success over pages that are gone.
        The lines are in memory, from where they are written anew.
        """
        path = self._segments / str(name)
        end = found.size - found.torn
        if found.torn:
            self.keeping.copy(f"{name}.{end}.torn", read_file(path)[end:])
            self.torn_bytes += found.torn
        fd = self.fs.open(path)
        try:
            if found.torn:
                self.fs.truncate(fd, end)
            self.fs.sync(fd)
        except OSError:
            return False
        finally:
            self.fs.close(fd)
        return True

    def _salvage(self, name: SegmentName, last: int, held: Held, names: set[SegmentName]) -> None:
        """Write what is known of the numbers ``name.first`` … ``last`` anew; keep the original."""
        target = name.sealed(last)
        path = self._segments / str(name)
        if target == name:  # renamed over below: the original must be safe elsewhere first
            self.quarantined.append(self.keeping.copy(str(name), read_file(path)))
        if target == name or target not in names:
            lines, missing = fill(self.writer, name.first, last, held)
            self._write(target, lines)
            names.add(target)
            self.damaged += missing
        if target != name:
            self.quarantined.append(self.keeping.move(path))

    def _discard(self, name: SegmentName, found: Scan) -> None:
        """An open segment with no valid line: created and never used, or all of it torn."""
        path = self._segments / str(name)
        if found.size:
            self.torn_bytes += found.size
            self.keeping.move(path)
        else:
            self.fs.unlink(path)

    def _write(self, name: SegmentName, lines: list[bytes]) -> None:
        write_sealed(self.fs, self._segments, name, b"".join(lines), attempt=0)
        self.sealed.append(str(name))

    # -- the numbering goes on -----------------------------------------------------------------

    def _continue(self, covered: Spans, accepted: int, calls: Sequence[tuple[Head, bytes]]) -> None:
        """Settle the calls that were in flight; stand in for the numbers that never arrived."""
        first, last = covered.last + 1, max(covered.last, accepted)
        lines = []
        if first <= last:
            lines.append(self._lost(first, last))
        for head, started in calls:
            last += 1
            lines.append(unsettled_line(head, started, self.writer, last))
        if lines:
            self._write(SegmentName(self.writer, first, last), lines)
        self.unsettled = len(calls)
        # Holes come after that: as long as there is one, a later run looks at every call again.
        if self._archive_known:  # else what is missing may be there
            for start, end in covered.missing(1, covered.last):
                name = SegmentName(self.writer, start, end)
                self._write(name, [self._lost(start, end, below=True)])

    def _lost(self, first: int, last: int, *, below: bool = False) -> bytes:
        """Stand in for numbers of which nothing was found; ``below`` others that were."""
        acked = self._acked_until
        if below and acked is not None:  # a file that was there is gone
            acked = max(acked, last)
        gap = Gap(first, last, "lost", acked)
        self.lost += last - first + 1
        self.unacknowledged += gap.unacknowledged
        return gap_line(self.writer, *gap)


def _trust(counters: LiveCounters) -> Counters:
    if not counters.valid or contradictory(counters):
        return "unknown"
    return "exact" if same_boot(counters) else "stale"


def _groups(segments: list[_Segment]) -> Iterator[list[_Segment]]:
    """Split segments, sorted by first number, into runs whose number ranges overlap."""
    group: list[_Segment] = []
    last = 0
    for segment in segments:
        if group and segment.name.first > last:
            yield group
            group, last = [], 0
        group.append(segment)
        last = max(last, segment.last, segment.name.first)
    if group:
        yield group


def _compacted(directory: Path) -> tuple[list[SegmentName], bool]:
    """Return the segments in the archive, and whether these are all that may be there."""
    files = [name for name in _files(directory / ARCHIVE, "") if name.endswith(".parquet")]
    if not files:
        return [], True
    from litellm_ledger._archive.archive import list_archive  # with DuckDB: where there is one

    try:
        whole = list_archive(directory)
    except MissingExtra:  # a server without DuckDB must start all the same
        return [], False
    return [name for file in whole for name in file.names], len(whole) == len(files)


def _archived(directory: Path, name: SegmentName) -> bytes | None:
    from litellm_ledger._archive.archive import read_archived

    return read_archived(directory, name)


def _files(directory: Path, prefix: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name.startswith(prefix))
    except FileNotFoundError:
        return []
