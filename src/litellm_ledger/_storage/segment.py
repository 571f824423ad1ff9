"""The segments of one writer: append, sync, rotate, seal.

Owns the file being written and the truth about what the operating system and the disk have.  Every
operation, on whichever thread, holds the segment's lock; under it an append drops lines that are
already written, so the writer task, a thread that was stuck, and the last resort may all try to
write the same lines and each is written once.  Never waits for anything but the lock and the disk,
never retries, never chooses durability: that is the writer's.

Two rules carry the guarantees:

* a short write is completed, or cut back to the last whole line;
* after a failed sync a file is never synced, cut or renamed again (a retried ``fdatasync`` reports
  success over lost pages).  Its unsynced lines, kept in memory until they are synced, are written
  anew under the same ids to a segment of their own by the next sync; appending goes on meanwhile,
  in a new file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, MutableSequence, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from litellm_ledger._records.layout import SEGMENTS, SegmentName

from .filesystem import FileSystem, make_directories
from .live_file import SYNCED, WRITTEN

__all__ = ["ROTATE_BYTES", "UNSYNCED_SOFT", "SegmentLog", "Stuck", "write_sealed"]

ROTATE_BYTES: Final = 64 * 2**20
UNSYNCED_SOFT: Final = 8 * 2**20
"""Bytes kept in memory for want of a sync at which the writer should sync early …"""
UNSYNCED_HARD: Final = 2 * UNSYNCED_SOFT
"""… and at which appending stops until a sync succeeds."""

_DAY: Final = 86_400

T = TypeVar("T")


class Stuck(OSError):
    """The segment's lock was not to be had in time: another thread hangs in the disk."""


class SegmentLog:
    """The append-only log of one writer, a chain of segments.

    Attributes:
        on_sealed: called with the name and the size of a segment that is sealed, durably.
        written: the last number that the operating system has (survives a SIGKILL).
        synced: the last number that the disk has (survives a power cut).
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: Path,
        writer: str,
        *,
        cells: MutableSequence[int] | memoryview | None = None,
        rotate_bytes: int = ROTATE_BYTES,
    ) -> None:
        self._fs = fs
        self._dir = directory / SEGMENTS
        self._writer = writer
        self._cells = cells if cells is not None else [0] * 8
        self._rotate_bytes = rotate_bytes
        self._lock = threading.RLock()
        self._fd: int | None = None
        self._name: SegmentName | None = None
        self._end = 0
        self._day = 0
        self._abandoned = False  # a thread is stuck in it: nobody touches it again
        self._names_dirty = False  # a create or rename that no directory fsync covers yet
        self._unsynced: list[bytes] = []  # in the open file
        self._doubtful: list[bytes] = []  # before those, in files that failed us: to be rescued …
        self._doubtful_last = 0  # … up to this number
        self._midway: tuple[int, int] | None = None  # while writing: how it was before
        self._temporary = 0
        self.unsynced_bytes = 0
        self.segments = 0
        self.on_sealed: Callable[[SegmentName, int], None] | None = None
        self.left_open = False  # an open file that we do not touch any more was left behind
        self.written = 0
        self.synced = 0

    # -- the operations ------------------------------------------------------------------------

    def append(self, first: int, lines: Sequence[bytes], *, timeout: float = -1) -> None:
        """Hand ``lines``, numbered from ``first``, to the operating system.

        Lines up to ``written`` are dropped.  On an error whole lines that got through count as
        written and the rest may be appended again.

        Raises:
            Stuck: the lock was not free within ``timeout`` seconds (-1: wait for ever; 0: no wait).
            OSError: what the disk said.
        """
        self._locked(timeout, self._append, first, lines)

    def append_now(self, first: int, lines: Sequence[bytes], size: int) -> bool:
        """``append`` of ``size`` bytes if it is one plain write, without rotation, a new file or
        waiting for anybody; tell whether it was done.

        The short way of a call: ``_locked``, ``_append`` and ``_write`` in one frame.

        Raises:
            OSError: what the disk said.
        """
        if self._lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001 - RLock has no public question for it
            return False
        try:  # see _locked
            if (
                not self._lock.acquire(blocking=False)
                or self._abandoned
                or self._midway is not None
                or self._fd is None
                or first != self.written + 1
                or self._end + size >= self._rotate_bytes
                or self.unsynced_bytes >= UNSYNCED_HARD
                or int(time.time()) // _DAY != self._day
            ):
                return False
            data = lines[0] if len(lines) == 1 else b"".join(lines)
            size = len(data)
            self._midway = len(self._unsynced), self.written
            try:
                sent = self._fs.write(self._fd, data)
            except OSError as exc:
                if exc.errno is not None:  # the disk's: nothing of it got through
                    self._midway = None
                raise
            if sent < size:
                self._write(first, lines, sent)
                return True
            self._end += size
            self._unsynced.append(data)
            self.unsynced_bytes += size
            self._cells[WRITTEN] = last = max(self.written, first + len(lines) - 1)
            self.written = last  # as `advance` does
            self._midway = None
            return True
        finally:
            try:
                self._lock.release()
            except RuntimeError:  # not taken
                pass

    def sync(self, *, timeout: float = -1) -> None:
        """Make everything written durable.  Raises like ``append``."""
        self._locked(timeout, self._sync)

    def append_and_sync(self, first: int, lines: Sequence[bytes]) -> None:
        """Append, then sync, in one hop to a thread."""
        self._locked(-1, self._append_and_sync, first, lines)

    def seal(self, *, timeout: float = -1) -> None:
        """Sync, give the open segment its final name, make that name durable.  Idempotent."""
        self._locked(timeout, self._seal)

    def busy_here(self) -> bool:
        """Whether this very thread is in the middle of an operation, further up its stack."""
        owned: bool = self._lock._is_owned()  # type: ignore[attr-defined]  # noqa: SLF001 - RLock has no public question for it
        return owned

    def abandon(self) -> None:
        """Give the log up while another thread is stuck in it; every later operation refuses."""
        self._abandoned = True

    def forget(self) -> None:
        """In a forked child: close the parent's descriptor and refuse every later operation."""
        self._lock = threading.RLock()  # the parent's other threads do not exist here
        self._distrust()
        self._abandoned = True

    # -- under the lock ------------------------------------------------------------------------

    def _locked(self, timeout: float, work: Callable[..., T], *args: Any) -> T:
        """Do some work under the lock.

        The handler of a signal may raise between any two bytecodes, and the lock must not stay
        locked for that.  So it is taken inside the ``try``, and is a lock that knows its owner:
        to release what was not taken is an error, and no harm.

        Raises:
            Stuck: it was not free in time, or the log was given up.
        """
        if self.busy_here():
            raise Stuck(errno.EDEADLK, "this thread is in the middle of it", str(self._dir))
        try:
            if not self._lock.acquire(timeout != 0, timeout if timeout > 0 else -1):
                raise Stuck(errno.EAGAIN, "another thread is busy with it", str(self._dir))
            if self._abandoned:
                raise Stuck(errno.EBADF, "the segment was given up", str(self._dir))
            if self._midway is not None:
                self._start_over(*self._midway)
            return work(*args)
        finally:
            try:
                self._lock.release()
            except RuntimeError:  # not taken
                pass

    def _start_over(self, count: int, written: int) -> None:
        """The handler of a signal has raised inside a write: how far it came, nobody knows.

        What it was to write is written anew, to another file; nobody has been told otherwise yet.
        """
        del self._unsynced[count:]
        self.unsynced_bytes = sum(map(len, self._doubtful)) + sum(map(len, self._unsynced))
        self.written = written
        self._distrust()
        self._midway = None

    def _append_and_sync(self, first: int, lines: Sequence[bytes]) -> None:
        self._append(first, lines)
        self._sync()

    def _append(self, first: int, lines: Sequence[bytes]) -> None:
        done = self.written + 1 - first
        if done > 0:
            lines = lines[done:]
            first += done
        if not lines:
            return
        if first != self.written + 1:
            raise RuntimeError(f"append of {first} after {self.written} (a bug in litellm-ledger)")
        if self.unsynced_bytes >= UNSYNCED_HARD:
            self._sync()
        day = int(time.time()) // _DAY
        if self._fd is not None and (self._end >= self._rotate_bytes or day != self._day):
            self._seal()
        if self._fd is None:
            try:
                self._create(first, day)
            except FileExistsError:  # a file we distrust, with not one whole line, has this name
                self._rescue()
                self._apart(first, first + len(lines) - 1, lines)
                return
        self._write(first, lines)

    def _create(self, first: int, day: int) -> None:
        name = SegmentName(self._writer, first)
        try:
            self._fd = self._fs.create(self._dir / str(name))
        except FileNotFoundError:  # the directory was removed under us: begin it again
            make_directories(self._fs, self._dir)
            self._fd = self._fs.create(self._dir / str(name))
        self._name, self._end, self._day = name, 0, day
        self._names_dirty = True
        self.segments += 1

    def _write(self, first: int, lines: Sequence[bytes], sent: int = 0) -> None:
        """Write lines, of which ``sent`` bytes are written."""
        assert self._fd is not None
        data = lines[0] if len(lines) == 1 else b"".join(lines)
        self._midway = len(self._unsynced), self.written
        try:
            while sent < len(data):
                sent += self._fs.write(self._fd, data if not sent else memoryview(data)[sent:])
        except OSError as exc:
            if exc.errno is None:  # not the disk's: the time-out of a signal handler
                raise
            whole, kept = 0, 0
            while whole < len(lines) and kept + len(lines[whole]) <= sent:
                kept += len(lines[whole])
                whole += 1
            torn = sent > kept
            if torn:
                with contextlib.suppress(OSError):
                    self._fs.truncate(self._fd, self._end + kept)
                    torn = False
            self._wrote(data[:kept], first + whole - 1)
            if torn:
                self._distrust()
            self._midway = None
            raise
        self._wrote(data, first + len(lines) - 1)
        self._midway = None

    def _wrote(self, data: bytes, last: int) -> None:
        if data:
            self._end += len(data)
            self._unsynced.append(data)
            self.unsynced_bytes += len(data)
            self.advance(last)

    def advance(self, last: int) -> None:
        """Count everything up to ``last`` as written."""
        # A thread that was stuck comes late: what was written past it meanwhile stays written.
        # The counter first: what somebody is told of must be in it, whenever the process dies.
        self._cells[WRITTEN] = last = max(self.written, last)
        self.written = last

    def _sync(self) -> None:
        self._rescue()
        try:
            if self._fd is not None and self._unsynced:
                self._fs.sync(self._fd)
                if self._fs.links(self._fd) == 0:
                    raise OSError(errno.ENOENT, "the segment was removed while it was written")
            self._sync_names()
        except OSError:
            if self._fd is None:  # only the name of a sealed segment: its old one is durable
                raise
            self._distrust()
            self._rescue()
        self._all_synced()

    def _sync_names(self) -> None:
        if self._names_dirty:
            self._fs.sync_directory(self._dir)
            self._names_dirty = False

    def _all_synced(self) -> None:
        self._unsynced.clear()
        self.unsynced_bytes = 0
        self._cells[SYNCED] = self.written
        self.synced = self.written

    def _distrust(self) -> None:
        """Never touch the open file again; recovery seals it when this process is gone."""
        self.left_open = True
        self._doubtful += self._unsynced
        self._unsynced.clear()
        self._doubtful_last = self.written
        if self._fd is not None:
            fd, self._fd = self._fd, None
            with contextlib.suppress(OSError):
                self._fs.close(fd)

    def _rescue(self) -> None:
        """Write anew, durably, what stands in files that failed us."""
        if self._doubtful:
            self._apart(self.synced + 1, self._doubtful_last, self._doubtful)
            self.unsynced_bytes -= sum(map(len, self._doubtful))
            self._doubtful.clear()

    def _apart(self, first: int, last: int, lines: Sequence[bytes]) -> None:
        """Write a durable segment of all that comes after ``synced`` up to ``last``."""
        self._temporary += 1
        name = SegmentName(self._writer, first, last)
        data = b"".join(lines)
        write_sealed(self._fs, self._dir, name, data, attempt=self._temporary)
        self._names_dirty = False
        self._tell(name, len(data))
        self.segments += 1
        self.advance(last)
        self._cells[SYNCED] = last
        self.synced = last

    def _seal(self) -> None:
        self._sync()
        if self._fd is None or self._name is None:
            return
        path = self._dir / str(self._name)
        name = self._name.sealed(self.written) if self.written >= self._name.first else None
        if name is None:  # created, and then nothing could be written
            self._fs.unlink(path)
        else:
            self._fs.rename(path, self._dir / str(name))
        fd, self._fd = self._fd, None
        self._names_dirty = True
        with contextlib.suppress(OSError):
            self._fs.close(fd)
        self._sync_names()
        if name is not None:
            self._tell(name, self._end)

    def _tell(self, name: SegmentName, size: int) -> None:
        if self.on_sealed is not None:
            self.on_sealed(name, size)


def write_sealed(
    fs: FileSystem,
    directory: Path,
    name: SegmentName | str,
    data: bytes,
    *,
    attempt: int,
    private: bool = False,
    before: Callable[[], None] | None = None,
) -> None:
    """Write a whole sealed segment: under a temporary name, synced, renamed in, the name synced.

    Used where the open segment must not be touched.  It either exists whole or not at all.  A
    ``private`` one is for its owner alone, whatever the directory allows.  ``before`` is called
    when all but the renaming is done, and may raise an ``OSError`` to prevent it.
    """
    temporary = directory / f"{name}.{attempt}.tmp"
    try:
        fd = fs.create(temporary)
    except FileNotFoundError:
        make_directories(fs, directory)
        fd = fs.create(temporary)
    try:
        try:
            if private:
                os.fchmod(fd, 0o600)
            view = memoryview(data)
            while view:
                view = view[fs.write(fd, view) :]
            fs.sync(fd)
        finally:
            fs.close(fd)
        if before is not None:
            before()
        fs.rename(temporary, directory / str(name))
    except OSError:
        with contextlib.suppress(OSError):
            fs.unlink(temporary)
        raise
    fs.sync_directory(directory)
