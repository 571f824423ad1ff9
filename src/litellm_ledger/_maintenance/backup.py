"""``backup``: a copy of a ledger that processes are writing to, brought up to date by later runs.

Owns the order in which files are copied: the counters are read first, so that no more is asked of
the copy than it holds; the archive is listed after the segments, as they move there; manifests come
last, since each needs its segment.  Every file is whole and durable before it gets its name, so a
run that is killed leaves a copy that is read and verified, and the next run completes it.

A sealed file that the copy has is never replaced, but where an audit says that records were erased
from it; nor is what was pruned from the ledger removed from the copy, which may be the only one.
Removed from the copy is only what it holds a
second time: open segments that were sealed since, segments that were compacted, counters of writers
that are closed.  ``_Copy`` writes to the copy alone; nothing here writes to the ledger.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from litellm_ledger._archive.archive import archived, digest, read_archived, source_of
from litellm_ledger._errors import LedgerPathError, UnsupportedPlatform
from litellm_ledger._reading.adjustments import read_additions
from litellm_ledger._reading.chain import list_manifests
from litellm_ledger._reading.erasures import Erasures
from litellm_ledger._reading.lines import Problem
from litellm_ledger._reading.listing import list_additions, list_live, list_segments, names_in
from litellm_ledger._reading.pruned import read_pruned
from litellm_ledger._records.layout import (
    ARCHIVE,
    LIVE,
    MANIFESTS,
    PRICES,
    RECOVERY,
    SEGMENTS,
    SegmentName,
    live_name,
)
from litellm_ledger._storage.filesystem import (
    PRIVATE,
    REAL,
    FileSystem,
    make_directories,
    open_file,
    read_file,
    refuse_links,
    rights_beside,
)
from litellm_ledger._storage.format_version import refuse_newer
from litellm_ledger._storage.live_file import for_copy, is_locked

from .compact import finish
from .erasing import not_erased, remove_old
from .one_run import locked, told

__all__ = ["MARKER", "Backup", "back_up"]

MARKER: Final = "backup.json"
"""By this file in it a directory is known to be a copy; ledgers have none."""
_TEMPORARY: Final = "backup.tmp"
_BLOCK: Final = 2**20


class _Marker(msgspec.Struct, forbid_unknown_fields=True):
    """What the file in a copy says: of which ledger, and when a run was last completed."""

    backup: int
    of: str
    completed: str | None = None


@dataclass(frozen=True, slots=True)
class Backup:
    """What one run did.

    Attributes:
        files, bytes: that were copied.
        segments: of the ledger that the copy has now, compacted ones included.
        removed: files of the copy that it holds a second time, under their final name.
        renewed: files of the copy that records were erased from since, copied again.
        only_here: segments that only the copy has.
        problems: files that cannot be read, and those that are not what the copy has under their
            name; the copy keeps its own.
    """

    files: int = 0
    bytes: int = 0
    segments: int = 0
    removed: int = 0
    renewed: int = 0
    only_here: int = 0
    problems: tuple[Problem, ...] = ()


def back_up(root: Path, to: Path, *, incremental: bool = False, fs: FileSystem = REAL) -> Backup:
    """Copy a ledger to another directory, while any number of processes write to it.

    Args:
        root: the ledger.
        to: the copy.  Without ``incremental`` it does not exist, is empty, or is what a run left
            that was killed.
        incremental: ``to`` may be a copy of this ledger: only what is new or has grown is copied.
        fs: where all writing goes through.

    Raises:
        LedgerPathError: there is no ledger; it or the copy cannot be read or written; ``to`` is in
            the ledger or around it, is no copy, is one of another ledger, or was used as a ledger;
            another run is writing to it.
        UnsupportedFormat: a newer version wrote it.
        MissingExtra: there is an archive, and DuckDB is not installed.
    """
    if os.name != "posix":
        raise UnsupportedPlatform(f"backup does not run on {sys.platform}, which lacks flock")
    there = list_segments(root)
    refuse_newer(root)
    here, target = Path(os.path.realpath(root)), Path(os.path.realpath(to))
    if here == target or here in target.parents or target in here.parents:
        raise LedgerPathError(
            f"{to} and the ledger {root} are one inside the other; "
            "give a directory elsewhere, best on another disk"
        )
    with told(f"cannot back up {root} to {to}"):
        make_directories(fs, target, rights_beside(here / SEGMENTS) if here.is_dir() else PRIVATE)
        busy = f"another process is writing the backup in {to}"
        with not_erased(here), locked(target, busy):
            marker = _claim(target, here, there, incremental=incremental)
            return _Copy(here, target, fs).work(marker)


def _claim(to: Path, root: Path, there: list[SegmentName], *, incremental: bool) -> _Marker:
    """Return the marker of a copy that may be written to."""
    refuse_links(to)
    if not set(os.listdir(to)) - {_TEMPORARY}:
        return _Marker(1, str(root))
    try:
        marker = msgspec.json.decode(read_file(to / MARKER), type=_Marker)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise LedgerPathError(
            f"{to} is not empty, and not a backup that this command made; give another directory"
        ) from None
    if marker.completed and not incremental:
        raise LedgerPathError(
            f"{to} is a backup already; add --incremental to bring it up to date, "
            "or give another directory"
        )
    refuse_newer(to)
    for writer in list_live(to):
        with contextlib.suppress(FileNotFoundError):
            if is_locked(to / LIVE / live_name(writer)):
                raise LedgerPathError(f"{to} is in use as a ledger: writer {writer} is alive there")
    _refuse_others(to, root, there, marker.of)
    return marker


def _refuse_others(to: Path, root: Path, there: list[SegmentName], of: str) -> None:
    """Refuse a copy of another ledger, and one that was recovered: its numbers mean other calls.

    Args:
        of: the path of the ledger that was copied first, which may have been moved since.
    """
    copied = list_segments(to) if (to / SEGMENTS).is_dir() else []
    known: dict[str, list[SegmentName]] = {}
    for name in there:
        known.setdefault(name.writer, []).append(name)
    writers = {name.writer for name in copied}
    both_have_some = bool(writers and known)
    if not writers & known.keys() and (both_have_some or of != str(root)):
        raise LedgerPathError(
            f"{to} is a backup of another ledger than {root}: it was made of {of}, and no writer "
            "is in both; give another directory"
        )
    pruned = {name for name, _ in read_pruned(root, list_additions(root))}
    for name in {name for name in copied if name not in pruned}.difference(there):
        for other in known.get(name.writer, ()):
            last = name.last or 0  # what is open in the copy is a part of what the ledger has
            if other.first <= last and name.first <= (other.last or last):
                raise LedgerPathError(
                    f"{to} was recovered or written to since the last backup: it has {name}, and "
                    f"the ledger has {other}; give another directory"
                )


class _Copy:
    """One run, and the tally of it."""

    def __init__(self, root: Path, to: Path, fs: FileSystem) -> None:
        self._root = root
        self._to = to
        self._fs = fs
        self._files = self._bytes = self._removed = self._renewed = 0
        self._erasures = Erasures(read_additions(root, list_additions(root), []))
        self._erased = self._erasures.replaced()
        self._problems: list[Problem] = []
        self._gone: dict[SegmentName | None, set[str]] = {}  # the copy keeps what it has of that

    def work(self, marker: _Marker) -> Backup:
        root, to = self._root, self._to
        counters = dict(self._counters())
        manifests = [name.manifest for name in list_manifests(root)]
        self._mark(marker)
        self._directory(SEGMENTS)
        self._directory(LIVE)
        self._whole_files(ARCHIVE, ".parquet")
        copied: set[SegmentName] = set()
        while new := [name for name in names_in(root) if name not in copied]:
            for name, sha256 in read_pruned(root, [name for name in new if name.adjusts]):
                self._gone.setdefault(name, set()).add(sha256)
            # What tells of other files comes first: until these are copied it says so.
            for name in sorted(new, key=lambda name: (not name.adjusts, name.writer, name.first)):
                if name.open:
                    self._open_segment(name)
                else:
                    self._sealed(SEGMENTS, str(name))
            copied.update(new)
        self._fs.sync_directory(to / SEGMENTS)
        self._whole_files(ARCHIVE, ".parquet")
        for writer, image in counters.items():
            self._put(LIVE, live_name(writer), image)
        self._fs.sync_directory(to / LIVE)
        self._remove_superseded(counters)
        for file in manifests:
            self._directory(MANIFESTS)
            self._sealed(MANIFESTS, file)
        self._whole_files(PRICES, ".json")
        self._whole_files(RECOVERY, "")
        for part in (MANIFESTS, PRICES, RECOVERY):
            if (to / part).is_dir():
                self._fs.sync_directory(to / part)
        marker.completed = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._mark(marker)
        mine, theirs = set(list_segments(root)), set(list_segments(to))
        only = {name for name in theirs - mine if not name.open}
        return Backup(
            files=self._files,
            bytes=self._bytes,
            segments=len(theirs - only),
            removed=self._removed,
            renewed=self._renewed,
            only_here=len(only),
            problems=tuple(self._problems),
        )

    def _counters(self) -> Iterator[tuple[str, bytes]]:
        for writer in list_live(self._root):
            with contextlib.suppress(FileNotFoundError):  # closed just now
                yield writer, for_copy(self._root / LIVE / live_name(writer))

    # -- what is copied ------------------------------------------------------------------------

    def _whole_files(self, part: str, suffix: str) -> None:
        """Copy the files of a directory that do not change once they have their name."""
        try:
            names = sorted(os.listdir(self._root / part))
        except FileNotFoundError:
            return
        self._directory(part)
        for name in names:
            if name.endswith(suffix) and not name.endswith(".tmp"):
                self._sealed(part, name)
        self._fs.sync_directory(self._to / part)

    def _sealed(self, part: str, name: str) -> None:
        """Copy a file that is as it will stay; one that the copy has is left as it is."""
        target = self._to / part / name
        with self._opened(part, name) as file:
            if file is None:
                return
            size = os.fstat(file.fileno()).st_size
            there = _size(target)
            if there is None and part == SEGMENTS and self._has_packed(name):
                return  # what is gaps in the ledger now
            if there is None:
                self._write(file, size, target)
            elif (part, name) in self._erased and self._was_erased_from(part, name):
                self._write(file, size, target)
                self._renewed += 1
            elif there != size and SegmentName.parse(name) not in self._gone:
                self._differs(part, name, f"is {size:,} bytes long, in the backup {there:,}")

    def _has_packed(self, name: str) -> bool:
        """Whether the archive of the copy has a segment that was pruned from the ledger."""
        segment = SegmentName.parse(name)
        if segment is None or segment not in self._gone:
            return False
        place = archived(self._to).get(segment)
        return place is not None and source_of(place)[0] in self._gone[segment]

    def _was_erased_from(self, part: str, name: str) -> bool:
        """Whether an audit says that a file took the place of the one that the copy has."""
        now, then = digest(self._root / part / name), digest(self._to / part / name)
        return self._erasures.came_from(now, then)

    def _open_segment(self, name: SegmentName) -> None:
        """Copy what is whole of a segment that is being written, where that is more than before."""
        target = self._to / SEGMENTS / str(name)
        with self._opened(SEGMENTS, str(name)) as file:
            if file is None:
                return
            size, there = _last_line_feed(file), _size(target) or 0
            if size <= there:
                return
            if there and not _begins_with(file, target):
                self._differs(SEGMENTS, str(name), "does not continue what the backup has of it")
                return
            file.seek(0)
            self._write(file, size, target)

    @contextlib.contextmanager
    def _opened(self, part: str, name: str) -> Iterator[BinaryIO | None]:
        """Open a file of the ledger; ``None`` if it has gone to another name, or cannot be read."""
        try:
            file = open_file(self._root / part / name)
        except FileNotFoundError:
            yield None
        except OSError as exc:
            detail = exc.strerror or str(exc)
            self._problems.append(Problem(f"{part}/{name}", "unreadable", detail=detail))
            yield None
        else:
            with file:
                yield file

    def _differs(self, part: str, name: str, why: str) -> None:
        self._problems.append(Problem(f"{part}/{name}", "altered", detail=why))

    # -- what is removed -----------------------------------------------------------------------

    def _remove_superseded(self, counters: dict[str, bytes]) -> None:
        """Remove what the copy holds a second time, and the counters of closed writers."""
        to = self._to
        plain = names_in(to)
        sealed = {
            (name.writer, name.first): name for name in (*archived(to), *plain) if not name.open
        }
        left = set()
        for name in plain:
            if not name.open:
                continue
            later = sealed.get((name.writer, name.first))
            if later is not None and self._is_in(name, later):
                self._remove(SEGMENTS, str(name))
            else:
                left.add(name.writer)
        self._fs.sync_directory(to / SEGMENTS)
        if (to / ARCHIVE).is_dir():
            self._removed += remove_old(to, self._fs, self._erasures.exchanges())
            self._removed += finish(to, self._fs, [], self._problems)
        for writer in list_live(to):
            if writer not in counters and writer not in left:
                self._remove(LIVE, live_name(writer))
        self._fs.sync_directory(to / LIVE)

    def _is_in(self, name: SegmentName, later: SegmentName) -> bool:
        path = self._to / SEGMENTS / str(name)
        try:
            with open_file(self._to / SEGMENTS / str(later)) as file:
                return _begins_with(file, path)
        except FileNotFoundError:
            return (read_archived(self._to, later) or b"").startswith(read_file(path))

    def _remove(self, part: str, name: str) -> None:
        self._fs.unlink(self._to / part / name)
        self._removed += 1

    # -- one file ------------------------------------------------------------------------------

    def _directory(self, part: str) -> None:
        if not (self._to / part).is_dir():
            make_directories(self._fs, self._to / part, rights_beside(self._root / part))

    def _mark(self, marker: _Marker) -> None:
        self._put("", MARKER, msgspec.json.encode(marker) + b"\n")
        self._fs.sync_directory(self._to)

    def _put(self, part: str, name: str, data: bytes) -> None:
        """Write a small file over the one that is there, if that is another."""
        target = self._to / part / name
        if _size(target) is not None and read_file(target) == data:
            return
        with self._named(target) as fd:
            self._all(fd, data)

    def _write(self, file: BinaryIO, size: int, target: Path) -> None:
        state = os.fstat(file.fileno())
        with self._named(target, private=target.parent.name == RECOVERY) as fd:
            left = size
            while left:
                block = file.read(min(_BLOCK, left))
                if not block:
                    raise OSError(5, "became shorter while it was copied", str(target))
                self._all(fd, block)
                left -= len(block)
            os.utime(fd, ns=(state.st_atime_ns, state.st_mtime_ns))
        self._files += 1
        self._bytes += size

    @contextlib.contextmanager
    def _named(self, target: Path, *, private: bool = False) -> Iterator[int]:
        """Give a new file to write to, which has its name when it is whole and durable."""
        temporary = self._to / _TEMPORARY
        with contextlib.suppress(FileNotFoundError):
            self._fs.unlink(temporary)
        fd = self._fs.create(temporary)
        try:
            if private:
                os.fchmod(fd, 0o600)
            yield fd
            self._fs.sync(fd)
        finally:
            self._fs.close(fd)
        self._fs.rename(temporary, target)

    def _all(self, fd: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._fs.write(fd, view) :]


def _size(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return None


def _last_line_feed(file: BinaryIO) -> int:
    """Return the length of a file up to its last line feed, that included."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _begins_with(file: BinaryIO, path: Path) -> bool:
    """Whether a file begins with all that another one holds."""
    file.seek(0)
    with open_file(path) as other:
        while block := other.read(_BLOCK):
            if file.read(len(block)) != block:
                return False
    return True
