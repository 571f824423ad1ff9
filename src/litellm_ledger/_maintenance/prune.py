"""``prune``: sealed segments past their time are removed, and an audit says which.

Owns the order of the steps.  The audit, with the digests of every file that goes, is durable
first.  Then gaps of reason ``expired`` stand for the numbers, under a name that may be that of a
segment that goes: it is replaced in one step.  Only then are the other files unlinked, and
manifests whose time is past as well.  Killed anywhere, the next run ends it; a reader has the sums
of a segment that the audit names from its manifest, whether its lines are still there or not.

``past_time`` chooses what goes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Final

from litellm_ledger._archive.archive import digest
from litellm_ledger._reading.lines import Problem
from litellm_ledger._records.audit import PRUNE, Changed, ChangedFile
from litellm_ledger._records.gaps import Gap
from litellm_ledger._records.layout import (
    ARCHIVE,
    MANIFESTS,
    PRICES,
    SEGMENTS,
    SegmentName,
)
from litellm_ledger._records.ranges import Spans
from litellm_ledger._storage.filesystem import REAL, FileSystem, read_file
from litellm_ledger._storage.segment import write_sealed
from litellm_ledger._storage.shipping_marks import shipped_by

from .additions import Audits, moment_now
from .one_run import locked, need_locks, one_run
from .past_time import Due, Gaps, Plan, Shipped, plan
from .retention import Retention
from .salvage import gap_line
from .seal import seal

__all__ = ["Pruning", "prune"]

_AT_ONCE: Final = 500
"""Segments that one audit names; a line of them has some 300 kilobytes."""

_ATTEMPT: Final = int.from_bytes(b"prune")
"""In the names of temporary files, so that those of a run that was killed are known."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """What one run did, or (``dry_run``) would do.

    Attributes:
        segments, records: how many segments, with how many records, were removed.
        archive: how many files of the archive.
        bytes: of the segments and files that were removed.
        manifests: how many manifests, with the sums of records removed now or earlier.
        earliest, latest: the times of the first and the last of these records.
        size: bytes of the ledger before.
        over: by how many bytes it is larger than it may be, afterwards.
        left: what is past its time and stays, and why.
        counted: how many segments stay as budgets still count them, and need no attention.
        unshipped: how many stay as they are not shipped yet, or not for long enough.
        dry_run: nothing was removed.
    """

    segments: int = 0
    records: int = 0
    archive: int = 0
    bytes: int = 0
    manifests: int = 0
    earliest: datetime | None = None
    latest: datetime | None = None
    size: int = 0
    over: int = 0
    left: tuple[Problem, ...] = ()
    counted: int = 0
    unshipped: int = 0
    dry_run: bool = False


def _nothing_counts(root: Path, now: datetime) -> datetime | None:  # noqa: ARG001 - no budgets
    return None


def prune(
    root: Path,
    rule: Retention,
    *,
    who: str,
    why: str,
    dry_run: bool = False,
    now: datetime | None = None,
    shipped: Shipped | None = None,
    counted_since: Callable[[Path, datetime], datetime | None] = _nothing_counts,
    breathe: Callable[[], None] | None = None,
    fs: FileSystem = REAL,
) -> Pruning:
    """Remove what a retention rule lets go.

    Args:
        root: the ledger.
        rule: how long what is kept.
        who, why: stand on the audit.
        dry_run: only say what would be removed.
        now: the time that ages are counted from.
        shipped: tells up to which number the records of a writer are somewhere else as well;
            default: what the shippers of the ledger noted; all, if it never had any.
        counted_since: tells from when on budgets count, at ``now``: what they count stays.
        breathe: called again and again while it looks.
        fs: where all writing goes through.

    Raises:
        LedgerPathError: there is no ledger; it cannot be read or written; another run is at work.
        UnsupportedFormat: a newer version wrote it.
        MissingExtra: there is an archive, and DuckDB is not installed.
        UnsupportedPlatform: not POSIX.
    """
    need_locks("changed")
    moment = now or datetime.now(UTC)

    def choose() -> Plan:
        counted = counted_since(root, moment)
        there = shipped or shipped_by(root, moment.timestamp())
        return plan(root, rule, moment, there, breathe, counted)

    found = choose()
    if found.unsealed and not dry_run:
        seal(root, fs=fs)
        found = choose()
    if dry_run or not (found.due or found.expired):
        return _told(found, rule, dry_run=dry_run)
    busy = f"segments of the ledger at {root} are being changed by another process"
    with one_run(fs, root, PRICES, "prune", "changed"), contextlib.ExitStack() as held:
        held.enter_context(locked(root, busy))  # a compaction may make archive/ meanwhile
        for part in (ARCHIVE, MANIFESTS):
            if (root / part).is_dir():
                held.enter_context(locked(root / part, busy))
        _remove_temporaries(root, fs)
        found = choose()  # anew: nobody else changes it now
        _Run(root, fs, found).work(who, why)
    return _told(found, rule, dry_run=False)


def _told(found: Plan, rule: Retention, *, dry_run: bool) -> Pruning:
    moments = [
        moment
        for one in found.due
        if one.changed is not None
        for moment in (one.changed.was.earliest, one.changed.was.latest)
        if moment is not None
    ]
    after = found.size - found.freed
    return Pruning(
        segments=len(found.due),
        records=sum(one.manifest.records for one in found.due if not _is_told_elsewhere(one)),
        archive=len(found.archive),
        bytes=found.freed,
        manifests=len(found.expired) + sum(_without_sums(one) for one in found.due),
        earliest=min(moments, default=None),
        latest=max(moments, default=None),
        size=found.size,
        over=max(0, after - rule.max_size) if rule.max_size is not None else 0,
        left=tuple(found.left),
        counted=found.counted,
        unshipped=found.unshipped,
        dry_run=dry_run,
    )


def _is_told_elsewhere(one: Due) -> bool:
    return one.changed is not None and one.changed.sums == "elsewhere"


def _without_sums(one: Due) -> bool:
    return one.changed is not None and one.changed.sums == "removed"


@dataclass(frozen=True, slots=True)
class _Stand:
    """Gaps that stand for removed segments: the new one, and what it takes the place of."""

    name: SegmentName
    data: bytes
    due: list[Due]
    gaps: list[Gaps]


class _Run:
    """One run over what was chosen."""

    def __init__(self, root: Path, fs: FileSystem, found: Plan) -> None:
        self.root, self.fs, self.found = root, fs, found
        self.stands: list[_Stand] = []
        for writer, due in groupby(found.due, key=lambda one: one.name.writer):  # it is sorted
            self.stands += _stands(writer, due, found.gaps.get(writer, []))

    def work(self, who: str, why: str) -> None:
        self._write_audits(who, why)
        for stand in self.stands:
            self._put(stand)
        segments = self.root / SEGMENTS
        for stand in self.stands:
            for one in stand.due:
                if one.name != stand.name:
                    self._unlink_segment(one)
            for gaps in stand.gaps:
                if gaps.name != stand.name:
                    self._unlink(segments / str(gaps.name))
        self.fs.sync_directory(segments)
        for file in self.found.archive:
            self._unlink(file.path)
        if self.found.archive:
            self.fs.sync_directory(self.root / ARCHIVE)
        self._remove_manifests()

    # -- what is said before ---------------------------------------------------------------------

    def _write_audits(self, who: str, why: str) -> None:
        """Name everything that goes, but what an earlier run has named that was killed then."""
        by_writer: dict[str, list[tuple[Changed, int]]] = {}
        for one in self.found.due:
            if one.changed is not None and not self._is_named(one.changed):
                new = 0 if _is_told_elsewhere(one) else one.manifest.records
                by_writer.setdefault(one.name.writer, []).append((one.changed, new))
        for changed in self._old():
            if not self._is_named(changed):
                writer = (SegmentName.parse(changed.segment) or SegmentName("", 1)).writer
                by_writer.setdefault(writer, []).append((changed, 0))
        if not by_writer:
            return
        audits = Audits(PRUNE, moment_now(self.root), who, why)
        files = {
            file.path.name: ChangedFile(
                file=f"{ARCHIVE}/{file.path.name}", sha256=digest(file.path)
            )
            for file in self.found.archive
        }
        for writer, each in by_writer.items():
            for start in range(0, len(each), _AT_ONCE):
                part = each[start : start + _AT_ONCE]
                of_archive = {one.archive: files[one.archive] for one, _ in part if one.archive}
                audits.add(
                    writer,
                    segments=[one for one, _ in part],
                    files=list(of_archive.values()),
                    records=sum(records for _, records in part),
                )
        audits.write(self.root, self.fs)

    def _old(self) -> Iterator[Changed]:
        """Yield what was pruned before, and changes: gaps that are joined, manifests that go."""
        for stand in self.stands:
            yield from (gaps.changed for gaps in stand.gaps if gaps.name != stand.name)
        yield from self.found.expired

    def _is_named(self, changed: Changed) -> bool:
        name = SegmentName.parse(changed.segment)
        known = None if name is None else self.found.gone.get((name, changed.was.sha256))
        return known is not None and known.changed == changed

    # -- what is removed -------------------------------------------------------------------------

    def _put(self, stand: _Stand) -> None:
        path = self.root / SEGMENTS / str(stand.name)
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_size == len(stand.data) and read_file(path) == stand.data:
                return
        write_sealed(self.fs, path.parent, stand.name, stand.data, attempt=_ATTEMPT)

    def _unlink_segment(self, one: Due) -> None:
        """Unlink a segment, but not what was put under its name meanwhile."""
        path = self.root / SEGMENTS / str(one.name)
        with contextlib.suppress(FileNotFoundError):
            state = path.lstat()
            if (state.st_ino, state.st_size, state.st_mtime_ns) == one.stamp:
                self._unlink(path)

    def _unlink(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.unlink(path)

    def _remove_manifests(self) -> None:
        changes = [one.changed for one in self.found.due if one.changed is not None]
        joined = {*(str(stand.name) for stand in self.stands)}
        removed = 0
        for changed in (*changes, *self._old()):
            stays = changed.sums != "removed" or changed.was.manifest is None
            if stays or (changed.segment in joined and not changed.was.records):
                continue
            name = SegmentName.parse(changed.segment)
            if name is not None and _identity(self.root, name) == changed.was.manifest:
                self._unlink(self.root / MANIFESTS / name.manifest)
                removed += 1
        if removed:
            self.fs.sync_directory(self.root / MANIFESTS)


def _identity(root: Path, name: SegmentName) -> str:
    try:
        return digest(root / MANIFESTS / name.manifest)
    except OSError:
        return ""


def _remove_temporaries(root: Path, fs: FileSystem) -> None:
    """Remove what a run that was killed had begun: we hold the lock."""
    for name in os.listdir(root / SEGMENTS):
        if name.endswith(f".{_ATTEMPT}.tmp"):
            fs.unlink(root / SEGMENTS / name)


def _stands(writer: str, due: Iterable[Due], gaps: Iterable[Gaps]) -> Iterator[_Stand]:
    """Yield the gaps for each run of numbers of which segments go, or went before."""
    due, gaps = list(due), list(gaps)
    numbers = Spans()
    for name in (*(one.name for one in due), *(one.name for one in gaps)):
        numbers.add_range(name.first, name.last or 0)
    for first, last in numbers:
        inside = [one for one in due if first <= one.name.first <= last]
        if not inside:
            continue
        joined = [one for one in gaps if first <= one.name.first <= last]
        data = b"".join(
            gap_line(writer, gap.first, gap.last, gap.reason, gap.acked_until)
            for gap in _joined(first, last, inside, joined)
        )
        yield _Stand(SegmentName(writer, first, last), data, inside, joined)


def _joined(first: int, last: int, due: list[Due], joined: list[Gaps]) -> list[Gap]:
    """Return the gaps that stand for a run of numbers: what had a record is expired now.

    Every other gap stays as it was: what was lost stays lost.
    """
    expired = Spans()
    others: list[Gap] = []
    for one in due:
        own = Spans()
        for start, end, reason, acked in one.manifest.gaps:
            own.add_range(start, end)
            others.append(Gap.of_reason(start, end, reason, acked))
        for start, end in own.missing(one.name.first, one.end):
            expired.add_range(start, end)
    for earlier in joined:
        for gap in earlier.gaps:
            if gap.reason == "expired":
                expired.add_range(gap.first, gap.last)
            else:
                others.append(gap)
    found = [Gap(start, end, "expired") for start, end in expired]
    told = Spans()
    for start, end in expired:
        told.add_range(start, end)
    for gap in others:
        for start, end in told.missing(max(gap.first, first), min(gap.last, last)):
            told.add_range(start, end)
            found.append(gap._replace(first=start, last=end))
    return sorted(found)
