"""The one seam through which the ledger touches a file system.

Owns the dozen system calls that writing needs, one thin method each, so that a test can put a
faulty disk here.  Decides nothing: no retries, no buffering, no policy.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["REAL", "FileSystem"]


def _pick_sync() -> Callable[[int], None]:
    if sys.platform == "darwin":  # pragma: no cover - fdatasync there does not reach the medium
        import fcntl

        return lambda fd: fcntl.fcntl(fd, fcntl.F_FULLFSYNC) and None
    return getattr(os, "fdatasync", os.fsync)


class FileSystem:
    """The real file system.  Every method raises ``OSError`` and nothing else."""

    _sync = staticmethod(_pick_sync())

    def create(self, path: Path) -> int:
        """Create a file that must not exist, unbuffered, for appending; return its descriptor."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        return os.open(path, flags, 0o666)

    def open(self, path: Path) -> int:
        """Open a file that exists, for syncing and cutting; return its descriptor."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Hand bytes to the operating system; return how many it took (it may be fewer)."""
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        """Make the file's data durable (``fdatasync``; ``F_FULLFSYNC`` on macOS)."""
        self._sync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file back to ``size`` bytes."""
        os.ftruncate(fd, size)

    def links(self, fd: int) -> int:
        """Count the names of an open file; 0 means somebody removed it under us."""
        return os.fstat(fd).st_nlink

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Rename within one directory, atomically."""
        os.rename(old, new)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        os.unlink(path)

    def make_directory(self, path: Path) -> None:
        """Create a directory and its parents; one that exists is fine."""
        path.mkdir(parents=True, exist_ok=True)

    def sync_directory(self, path: Path) -> None:
        """Make the directory's names durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


REAL: Final = FileSystem()
