"""``FaultyFileSystem``: a disk that fails when you say so, for testing what your program does then.

Owns the faults and the list of what was asked of the disk.  What is not told to fail goes to the
file system below, so a test works in a real temporary directory and looks at real files.

    disk = FaultyFileSystem()
    disk.fail("sync", nth=2)                 # the second fdatasync from now returns EIO
    disk.fill(free=1_000)                    # ENOSPC after 1,000 bytes, the last write cut short …
    disk.empty()                             # … and space comes back
    with disk.hang("write") as hang:         # the next write stalls until the block is left
        ...
        hang.entered.wait()
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self, TypeVar, get_args

from litellm_ledger._storage.filesystem import PRIVATE, REAL, FileSystem

__all__ = ["DiskCall", "FaultyFileSystem", "Hang", "Killed", "Operation"]

Operation = Literal[
    "close",
    "create",
    "links",
    "make_directory",
    "open",
    "rename",
    "sync",
    "sync_directory",
    "truncate",
    "unlink",
    "write",
]

_T = TypeVar("_T")


class DiskCall(NamedTuple):
    """One thing that was asked of the disk."""

    operation: Operation
    path: Path


class Killed(BaseException):
    """What ``kill`` raises: like a SIGKILL, nobody is meant to catch it."""


class Hang:
    """A call that stalls in the disk until ``release``; a context manager that releases at its end.

    Attributes:
        entered: set when somebody is stuck in it.
    """

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._released = threading.Event()

    def release(self) -> None:
        """Let the stuck call go on.  Idempotent."""
        self._released.set()

    def stall(self) -> None:
        """Be stuck."""
        self.entered.set()
        self._released.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass
class _Fault:
    """What is to happen after ``skip`` matching calls, to ``times`` calls from there on."""

    operation: str
    act: Callable[[], None]
    skip: int
    times: int | None

    def strikes(self, operation: Operation) -> bool:
        if self.operation not in ("*", operation) or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class FaultyFileSystem(FileSystem):
    """A file system with faults.  Safe to use from several threads.

    Args:
        below: where calls go that do not fail.

    Attributes:
        calls: every call so far, in order, those that failed included.
        largest_write: bytes that one ``write`` takes at most (``None``: all of them).
    """

    def __init__(self, below: FileSystem = REAL) -> None:
        self.below = below
        self.calls: list[DiskCall] = []
        self.largest_write: int | None = None
        self._faults: list[_Fault] = []
        self._free: int | None = None
        self._paths: dict[int, Path] = {}
        self._mutex = threading.Lock()
        self._deadline: int | None = None  # calls left until the kill
        self._torn = 0

    # -- what is to go wrong -------------------------------------------------------------------

    def fail(
        self,
        operation: Operation | Literal["*"],
        *,
        nth: int = 1,
        times: int | None = 1,
        error: int = errno.EIO,
    ) -> None:
        """Let the ``nth`` call of ``operation`` from now, and ``times`` calls in all, fail.

        Args:
            operation: a method of the file system, or ``"*"``.
            nth: 1 is the next one.
            times: how many calls fail from there on; ``None``: all of them.
            error: the ``errno``.
        """

        def act() -> None:
            raise OSError(error, os.strerror(error))

        self._add(operation, nth, times, act)

    def hang(self, operation: Operation | Literal["*"], *, nth: int = 1) -> Hang:
        """Let the ``nth`` call of ``operation`` from now stall until it is released."""
        hang = Hang()
        self._add(operation, nth, 1, hang.stall)
        return hang

    def kill(self, nth: int, *, torn: int = 0) -> None:
        """Raise ``Killed`` from the ``nth`` call from now on: nothing is done any more.

        Args:
            nth: 1 is the next call.
            torn: if that call is a ``write``, how many of its bytes still reach the file.
        """
        with self._mutex:
            self._deadline = nth - 1
            self._torn = torn

    def fill(self, free: int = 0) -> None:
        """Leave ``free`` bytes of space; a write beyond is cut short, then ``ENOSPC``."""
        with self._mutex:
            self._free = free

    def empty(self) -> None:
        """Give the space back."""
        with self._mutex:
            self._free = None

    def heal(self) -> None:
        """Forget every fault that has not struck yet, and the full disk."""
        with self._mutex:
            self._faults.clear()
            self._free = self._deadline = self.largest_write = None

    def count(self, operation: Operation) -> int:
        """How many calls of ``operation`` there were."""
        return sum(call.operation == operation for call in self.calls)

    # -- the file system -----------------------------------------------------------------------

    def create(self, path: Path) -> int:
        """See ``FileSystem``; so for all the others."""
        fd = self._do("create", path, lambda: self.below.create(path))
        self._paths[fd] = path
        return fd

    def open(self, path: Path) -> int:
        fd = self._do("open", path, lambda: self.below.open(path))
        self._paths[fd] = path
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return self._do("write", self._path(fd), lambda: self._write(fd, data), torn=(fd, data))

    def sync(self, fd: int) -> None:
        self._do("sync", self._path(fd), lambda: self.below.sync(fd))

    def truncate(self, fd: int, size: int) -> None:
        self._do("truncate", self._path(fd), lambda: self._truncate(fd, size))

    def links(self, fd: int) -> int:
        return self._do("links", self._path(fd), lambda: self.below.links(fd))

    def close(self, fd: int) -> None:
        path = self._paths.pop(fd, Path())
        try:
            self._do("close", path, lambda: None)
        finally:
            self.below.close(fd)  # as on Linux, and at death: closed, whatever it returns

    def rename(self, old: Path, new: Path) -> None:
        self._do("rename", new, lambda: self.below.rename(old, new))

    def unlink(self, path: Path) -> None:
        self._do("unlink", path, lambda: self.below.unlink(path))

    def make_directory(self, path: Path, mode: int = PRIVATE) -> None:
        self._do("make_directory", path, lambda: self.below.make_directory(path, mode))

    def sync_directory(self, path: Path) -> None:
        self._do("sync_directory", path, lambda: self.below.sync_directory(path))

    # -- how -----------------------------------------------------------------------------------

    def _add(self, operation: str, nth: int, times: int | None, act: Callable[[], None]) -> None:
        if operation not in ("*", *get_args(Operation)):
            there_are = ", ".join(get_args(Operation))
            raise ValueError(f"no operation {operation!r}; there are: {there_are}")
        with self._mutex:
            self._faults.append(_Fault(operation, act, nth - 1, times))

    def _do(
        self,
        operation: Operation,
        path: Path,
        call: Callable[[], _T],
        *,
        torn: tuple[int, bytes | memoryview] | None = None,
    ) -> _T:
        with self._mutex:
            self.calls.append(DiskCall(operation, path))
            killed = self._deadline == 0
            rest, self._torn = (self._torn, 0) if killed else (0, self._torn)
            if self._deadline:
                self._deadline -= 1
            struck = [fault.act for fault in self._faults if fault.strikes(operation)]
        if killed:
            if torn and rest:
                self.below.write(torn[0], torn[1][:rest])
            raise Killed(operation)
        for act in struck:
            act()
        return call()

    def _write(self, fd: int, data: bytes | memoryview) -> int:
        with self._mutex:
            size = len(data)
            if self.largest_write is not None:
                size = min(size, self.largest_write)
            if self._free is not None:
                size = min(size, self._free)
                if not size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self.below.write(fd, data if size == len(data) else data[:size])
        with self._mutex:
            if self._free is not None:
                self._free -= taken
        return taken

    def _truncate(self, fd: int, size: int) -> None:
        before = os.fstat(fd).st_size
        self.below.truncate(fd, size)
        with self._mutex:
            if self._free is not None:
                self._free += before - size

    def _path(self, fd: int) -> Path:
        return self._paths.get(fd, Path())
