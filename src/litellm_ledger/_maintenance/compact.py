"""``compact``: sealed segments of past days, joined into Parquet files that say the same.

Owns the order of the steps: check the sources (by the SHA-256 in their manifests, else line by
line while they are read), write one file under a temporary name, read it back and compare it with
the sources byte for byte, sync it, rename it in, sync the directory, and only then unlink the
sources.  Killed anywhere, nothing is lost and nothing counts twice: a segment is one segment,
whether it is in ``segments/``, in the archive, or in both.  Holds at most the rows of one file in
the database, and a few lines in Python.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from litellm_ledger._archive.archive import (
    Source,
    content_name,
    digest,
    list_archive,
    packed_manifests,
)
from litellm_ledger._archive.database import connect, module
from litellm_ledger._errors import LedgerPathError
from litellm_ledger._reading.lines import Problem
from litellm_ledger._reading.listing import by_writer, list_additions, list_segments
from litellm_ledger._reading.pruned import read_pruned
from litellm_ledger._records.layout import (
    ARCHIVE,
    SEGMENTS,
    SegmentName,
)
from litellm_ledger._storage import contents, manifest
from litellm_ledger._storage.filesystem import REAL, FileSystem, open_file
from litellm_ledger._storage.format_version import refuse_newer
from litellm_ledger._storage.shipping_marks import shipped_by

from .at_rest import bound
from .one_run import locked, need_locks, one_run
from .parquet import Staging, write_file, write_whole
from .seal import seal

if TYPE_CHECKING:
    import duckdb

__all__ = ["Compaction", "compact", "finish"]

_FILE: Final = 64 * 2**20
"""Bytes of segments that go into one file, unless a single one is larger."""

_MEMORY: Final = "180MB"
_MORE_MEMORY: Final = "1GB"
"""For lines of many kilobytes, requests and answers: the database takes two thousand at a time."""

_What = Literal["damaged", "misnamed", "unreadable"]


@dataclass(frozen=True, slots=True)
class Compaction:
    """What one run did.

    Attributes:
        files: archive files that were written, relative to the ledger.
        segments, records: how many segments, with how many lines, moved into them.
        bytes_before, bytes_after: their size as segments, and as archive files.
        finished: segments removed that an earlier run had compacted before it was killed.
        left: segments that are not compacted because something is the matter with them.
        broken: archive files that are not whole; nothing of theirs is read or removed.
    """

    files: tuple[str, ...] = ()
    segments: int = 0
    records: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    finished: int = 0
    left: tuple[Problem, ...] = ()
    broken: tuple[str, ...] = ()


class _Candidate(NamedTuple):
    """A segment that may move.

    Attributes:
        name, size: of the segment.
        day: that of its first line.
        stamp: by which to see whether another file took its place.
        source: what its manifest says, if none of its lines needs a look of its own.
    """

    name: SegmentName
    day: str
    size: int
    stamp: tuple[int, int, int]
    source: Source | None


def compact(root: Path, *, until: date | None = None, fs: FileSystem = REAL) -> Compaction:
    """Move sealed segments into the archive; what is compacted reads as before.

    Left alone: what a live writer may still need (its newest segment, and those with a call in
    flight), writers that wait for ``recover``, segments that are not whole, and, where the ledger
    is shipped to another place, what is not there yet or not for long enough.

    Args:
        root: the ledger.
        until: only segments that begin before this day (UTC); default: today.
        fs: where all writing goes through but that of the database to its temporary file.

    Raises:
        LedgerPathError: there is no ledger; it cannot be read or written; another run is at work.
        UnsupportedFormat: a newer version wrote it.
        MissingExtra: DuckDB is not installed.
        UnsupportedPlatform: not POSIX.
    """
    need_locks("compacted")
    module()
    list_segments(root)
    refuse_newer(root)
    with one_run(fs, root, ARCHIVE, "compact", "compacted"), contextlib.ExitStack() as held:
        busy = f"segments of the ledger at {root} are being removed by another process"
        held.enter_context(locked(root, busy))
        fs.sync_directory(root)  # before a segment is removed: the archive must keep its name
        with contextlib.suppress(LedgerPathError):  # by another process, or they come later
            seal(root, fs=fs)
        return _Run(root, fs).work(until or datetime.now(UTC).date())


class _Run:
    """One run, and the tally of it."""

    def __init__(self, root: Path, fs: FileSystem) -> None:
        self.root = root
        self.fs = fs
        self.segments = root / SEGMENTS
        self.archive = root / ARCHIVE
        self.left: list[Problem] = []

    def work(self, until: date) -> Compaction:
        for name in os.listdir(self.archive):
            if name.endswith(".tmp"):  # of a run that was killed: we hold the lock
                self.fs.unlink(self.archive / name)
        broken: list[Path] = []
        finished = finish(self.root, self.fs, broken, self.left)
        files, segments, records, before, after = [], 0, 0, 0, 0
        groups = _groups(self._candidates(until.isoformat()))
        with contextlib.ExitStack() as held:
            database = None
            for group in groups:
                if database is None:
                    database = held.enter_context(_database(_MEMORY))
                try:
                    written = self._join(database, group)
                except module().OutOfMemoryException:
                    written = self._join_with_more_memory(group)
                if written is None:
                    continue
                path, sources = written
                files.append(f"{ARCHIVE}/{path.name}")
                segments += len(sources)
                records += sum(source.lines for source in sources)
                before += sum(source.bytes for source in sources)
                after += path.stat().st_size
        return Compaction(
            files=tuple(files),
            segments=segments,
            records=records,
            bytes_before=before,
            bytes_after=after,
            finished=finished,
            left=tuple(self.left),
            broken=tuple(f"{ARCHIVE}/{path.name}" for path in broken),
        )

    # -- which ---------------------------------------------------------------------------------

    def _candidates(self, until: str) -> Iterator[_Candidate]:
        here = set(os.listdir(self.segments))
        shipped = shipped_by(self.root, time.time())
        for writer, family in by_writer(list_segments(self.root)):
            last_at_rest = min(bound(self.root, writer, family), shipped(writer) + 1)
            for name in family:
                if name.last is None or name.last >= last_at_rest or str(name) not in here:
                    continue
                path = self.segments / str(name)
                try:
                    state = path.lstat()
                    day = _day(path, writer)
                except FileNotFoundError:
                    continue
                except OSError as exc:  # of another user, or no file at all
                    self._leave(str(name), "unreadable", exc.strerror or str(exc))
                    continue
                if day < until:
                    source = self._as_sealed(name, state.st_size)
                    yield _Candidate(name, day, state.st_size, _stamp(state), source)

    def _as_sealed(self, name: SegmentName, size: int) -> Source | None:
        there = manifest.read(self.root, name)
        if there is None or not there[0].plain or there[0].size != size:
            return None
        return Source(str(name), size, there[0].sha256, there[0].lines)

    def _leave(self, name: str, what: _What, why: str) -> None:
        self.left.append(_left(name, what, why))

    # -- moving --------------------------------------------------------------------------------

    def _join(
        self, database: duckdb.DuckDBPyConnection, group: Sequence[_Candidate]
    ) -> tuple[Path, list[Source]] | None:
        temporary = self.archive / f"{group[0].name}.tmp"
        moved, sources = self._write_whole(database, temporary, group)
        if not sources:
            moved, sources = self._write_line_by_line(database, temporary, group)
        if not sources:
            return None
        path = self.archive / content_name(moved[0].day, digest(temporary))
        self.fs.rename(temporary, path)
        self.fs.sync_directory(self.archive)
        for candidate in moved:
            self._remove(candidate)
        self.fs.sync_directory(self.segments)
        return path, sources

    def _join_with_more_memory(
        self, group: Sequence[_Candidate]
    ) -> tuple[Path, list[Source]] | None:
        with _database(_MORE_MEMORY) as database:
            try:
                return self._join(database, group)
            except module().OutOfMemoryException as exc:
                name = f"{SEGMENTS}/{group[0].name}"
                raise LedgerPathError(f"cannot compact {name} and others: {exc}") from exc

    def _write_whole(
        self, database: duckdb.DuckDBPyConnection, path: Path, group: Sequence[_Candidate]
    ) -> tuple[Sequence[_Candidate], list[Source]]:
        """Write segments that are what their manifests say; none if that is no way for them."""
        sources = [candidate.source for candidate in group if candidate.source is not None]
        if len(sources) < len(group) or not all(map(self._is_here, sources)):
            return (), []
        try:
            self._write(database, path, sources, group, write_whole)
        except module().OutOfMemoryException:
            self.fs.unlink(path)
            raise
        except (module().Error, LedgerPathError, FileNotFoundError):  # say, a line of its own form
            with contextlib.suppress(FileNotFoundError):
                self.fs.unlink(path)
            return (), []
        return group, sources

    def _is_here(self, source: Source) -> bool:
        try:
            return digest(self.segments / source.name) == source.sha256
        except FileNotFoundError:
            return False

    def _write_line_by_line(
        self, database: duckdb.DuckDBPyConnection, path: Path, group: Sequence[_Candidate]
    ) -> tuple[Sequence[_Candidate], list[Source]]:
        """Write those segments whose every line holds."""
        sources: list[Source] = []
        moved: list[_Candidate] = []
        left = []
        with Staging(database) as staging:
            for candidate in group:
                try:
                    sources.append(self._stage(staging, candidate, len(sources)))
                    moved.append(candidate)
                except (contents.NotWholeError, FileNotFoundError) as exc:
                    staging.drop(len(sources))
                    if isinstance(exc, contents.NotWholeError):
                        left.append((str(candidate.name), str(exc)))
            staging.flush()
            if sources:
                try:
                    self._write(database, path, sources, moved, write_file)
                except module().Error as exc:
                    with contextlib.suppress(OSError):
                        self.fs.unlink(path)
                    if isinstance(exc, module().OutOfMemoryException):
                        raise
                    raise LedgerPathError(f"cannot write {path}: {exc}") from exc
        for name, why in left:
            self._leave(name, "damaged", why)
        return moved, sources

    def _remove(self, candidate: _Candidate) -> None:
        path = self.segments / str(candidate.name)
        with contextlib.suppress(FileNotFoundError):
            if _stamp(path.lstat()) == candidate.stamp:  # not one that was put there meanwhile
                self.fs.unlink(path)

    def _stage(self, staging: Staging, candidate: _Candidate, number: int) -> Source:
        """Check a segment and put its lines into the table."""
        sha256 = hashlib.sha256()
        count = gaps = unsettled = 0
        path = self.segments / str(candidate.name)
        with open_file(path) as file:
            for line, raw in contents.lines_of(file, path, candidate.name):
                sha256.update(raw)
                gaps += line.kind == "gap"
                unsettled += line.status == "unsettled"
                count += 1
                staging.add(number, raw.decode())
        name = str(candidate.name)
        return Source(name, candidate.size, sha256.hexdigest(), count, gaps, unsettled)

    def _write(
        self,
        database: duckdb.DuckDBPyConnection,
        path: Path,
        sources: list[Source],
        moved: Sequence[_Candidate],
        how: Callable[..., None],
    ) -> None:
        """Write the file, durable, and make sure that every source can be read back from it."""
        fd = self.fs.create(path)  # so that the database neither follows a link nor gives rights
        try:
            segments = [self.segments / str(candidate.name) for candidate in moved]
            how(database, path, sources, segments, self._manifests(moved, sources))
            self.fs.sync(fd)
        finally:
            self.fs.close(fd)

    def _manifests(self, moved: Sequence[_Candidate], sources: Sequence[Source]) -> str:
        """Return the manifests of sources, packed: the archive alone is enough to restore them."""
        there = (manifest.read(self.root, candidate.name) for candidate in moved)
        pairs = zip(there, sources, strict=True)
        return packed_manifests(
            found[1] for found, source in pairs if found and found[0].sha256 == source.sha256
        )


def finish(root: Path, fs: FileSystem, broken: list[Path], left: list[Problem]) -> int:
    """Remove the segments that the archive holds byte for byte; return how many there were.

    They are those that an earlier run had compacted and not yet removed, or those of a backup whose
    ledger was compacted since.

    Args:
        root: the ledger.
        fs: where the removals go through.
        broken: gets the files of the archive that are not whole.
        left: gets the segments that are not what the archive holds of them.

    Raises:
        MissingExtra, UnsupportedFormat, LedgerPathError: as ``list_archive``.
        OSError: one cannot be removed.
    """
    done = 0
    here = set(os.listdir(root / SEGMENTS))
    gone = read_pruned(root, list_additions(root))
    for file in list_archive(root, broken):
        for source in file.sources:
            path = root / SEGMENTS / source.name
            if source.name not in here:
                continue
            if not done:
                fs.sync_directory(root / ARCHIVE)  # the name may not be durable yet
            try:
                same = path.lstat().st_size == source.bytes and digest(path) == source.sha256
            except OSError as exc:
                left.append(_left(source.name, "unreadable", exc.strerror or str(exc)))
                continue
            if same:
                fs.unlink(path)
                done += 1
            elif (SegmentName.parse(source.name), source.sha256) not in gone:  # else it is gaps
                why = f"is not what {ARCHIVE}/{file.path.name} holds of it"
                left.append(_left(source.name, "misnamed", why))
    if done:
        fs.sync_directory(root / SEGMENTS)
    return done


def _left(name: str, what: _What, why: str) -> Problem:
    return Problem(f"{SEGMENTS}/{name}", what, detail=why)


def _database(memory: str) -> duckdb.DuckDBPyConnection:
    return connect(memory, threads=1, ordered=True)


def _groups(candidates: Iterator[_Candidate]) -> Iterator[list[_Candidate]]:
    """Part by day and by way of reading, so that each file has at most its share of bytes."""
    group: list[_Candidate] = []
    size = 0

    def kind(candidate: _Candidate) -> tuple[str, bool]:
        return candidate.day, candidate.source is None

    for candidate in sorted(candidates, key=lambda c: (kind(c), c.name.writer, c.name.first)):
        if group and (kind(candidate) != kind(group[0]) or size + candidate.size > _FILE):
            yield group
            group, size = [], 0
        group.append(candidate)
        size += candidate.size
    if group:
        yield group


def _stamp(state: os.stat_result) -> tuple[int, int, int]:
    return state.st_ino, state.st_size, state.st_mtime_ns


def _day(path: Path, writer: str) -> str:
    """Return the day of a segment: that of its first line, else of its writer's start."""
    with open_file(path) as file:
        raw = file.readline(2**20)
    at = raw.find(b'"ts":"')
    day = raw[at + 6 : at + 16].decode("ascii", "replace") if at >= 0 else ""
    try:
        return date.fromisoformat(day).isoformat()
    except ValueError:
        return f"{writer[:4]}-{writer[4:6]}-{writer[6:8]}"
