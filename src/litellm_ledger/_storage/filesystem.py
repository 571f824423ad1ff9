"""The one seam through which the ledger touches a file system.

Owns the dozen system calls that writing needs, one thin method each, so that a test can put a
faulty disk here.  Owns the one way in which a file inside a ledger is opened, by readers too: it
follows no link and opens regular files only, because a user with more rights than the writers of
the directory may read, verify and recover it.  Decides nothing else: no retries, no buffering.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from litellm_ledger._errors import LedgerPathError
from litellm_ledger._records.layout import (
    ARCHIVE,
    BUDGETS,
    ERASING,
    LIVE,
    MANIFESTS,
    PRICES,
    RECOVERY,
    SEGMENTS,
    SHIPPING,
)

__all__ = [
    "PRIVATE",
    "REAL",
    "FileSystem",
    "create_file",
    "give_rights",
    "make_directories",
    "names_of",
    "open_file",
    "open_regular",
    "partial",
    "read_file",
    "refuse_links",
    "rights_beside",
]

_PARTS: Final = (
    SEGMENTS,
    LIVE,
    RECOVERY,
    ARCHIVE,
    MANIFESTS,
    PRICES,
    BUDGETS,
    ERASING,
    SHIPPING,
)

PRIVATE: Final = 0o700
"""The mode of a directory that is shared with nobody."""

partial: Final[dict[Path, Any]] = {}
"""Directories that have only a part of a ledger, each with the ``partial.Source`` of the rest."""

_AT: Final = os.open in os.supports_dir_fd
_PATH: Final = getattr(os, "O_PATH", os.O_RDONLY)  # enough to look names up: needs no right to list
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)
_PLAIN: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_REGULAR: Final = _PLAIN | _NO_LINK | getattr(os, "O_NONBLOCK", 0)

_KINDS: Final = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISREG, "a regular file"),
)


def _refusal(path: Path, mode: int, wanted: str) -> OSError:
    kind = next((name for is_it, name in _KINDS if is_it(mode)), "a device")
    number = errno.ELOOP if stat.S_ISLNK(mode) else errno.EINVAL
    return OSError(number, f"refused, because it is {kind} and not {wanted}", str(path))


@contextmanager
def _at(path: Path) -> Iterator[tuple[str, int | None]]:
    """Give what opens ``path`` in its directory, and in no other that a link leads to."""
    if not _AT:  # Windows: read only
        yield str(path), None
        return
    try:
        try:
            at = os.open(str(path.parent), _PATH | os.O_DIRECTORY | _NO_LINK | _PLAIN)
        except OSError as exc:
            if exc.errno in (errno.ENOTDIR, errno.ELOOP) and path.parent.is_symlink():
                raise _refusal(path.parent, stat.S_IFLNK, "a directory of the ledger") from None
            raise
        try:
            yield path.name, at
        finally:
            os.close(at)
    except OSError as exc:
        if exc.filename in (path.name, str(path.parent)):
            exc.filename = str(path)
        raise


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file inside a ledger; return its descriptor.

    Raises:
        OSError: it is not there or must not be opened; or it, or its directory, is a link, or it is
            anything else than a regular file, which ``strerror`` says.
    """
    with _at(path) as (name, at):
        # Looked at first: to open a device may already do something.
        mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
        if stat.S_ISREG(mode):
            fd = os.open(name, flags | _REGULAR, dir_fd=at)
            mode = os.fstat(fd).st_mode
            if stat.S_ISREG(mode):
                return fd
            os.close(fd)
        raise _refusal(path, mode, "a regular file")


def open_file(path: Path) -> BufferedReader:
    """Open a regular file inside a ledger to read; one that is elsewhere is brought.

    Raises like ``open_regular``, and if it cannot be brought.
    """
    try:
        return os.fdopen(open_regular(path), "rb")
    except FileNotFoundError:
        source = partial.get(path.parent.parent)
        if source is None:
            raise
    source.bring(path.parent.name, [path.name])
    return os.fdopen(open_regular(path), "rb")


def names_of(directory: Path) -> Collection[str]:
    """List a part of a ledger, wherever its files are.

    Raises:
        OSError: as ``os.listdir``.
    """
    source = partial.get(directory.parent)
    return os.listdir(directory) if source is None else source.names(directory.name)


def read_file(path: Path) -> bytes:
    """Read a regular file inside a ledger.  Raises like ``open_regular``."""
    with open_file(path) as file:
        return file.read()


def create_file(path: Path, flags: int) -> int:
    """Create a file that must not exist; return its descriptor.

    Its owner may read and write it, and its group what the directory's group may, whatever the
    umask is; nobody else.
    """
    with _at(path) as (name, at):
        fd = os.open(name, flags | os.O_CREAT | os.O_EXCL | _PLAIN, 0o600, dir_fd=at)
        shared = os.stat(path.parent if at is None else at).st_mode & 0o060  # noqa: PTH116 - `at` is a descriptor
        if shared:
            try:
                os.fchmod(fd, 0o600 | shared)
            except OSError:
                os.close(fd)
                raise
        return fd


def give_rights(path: Path, mode: int) -> None:
    """Give a directory of ours this mode; its set-group-ID bit stays."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK | _PLAIN)
    try:
        now = stat.S_IMODE(os.fstat(fd).st_mode)
        wanted = mode | (now & stat.S_ISGID)
        if now != wanted:
            os.fchmod(fd, wanted)
    finally:
        os.close(fd)


def rights_beside(directory: Path) -> int:
    """Return the mode for a new directory beside one that exists: nobody but its group shares."""
    try:
        return PRIVATE | directory.stat().st_mode & (0o070 | stat.S_ISGID)
    except FileNotFoundError:
        return PRIVATE


def refuse_links(root: Path) -> None:
    """Raise ``LedgerPathError`` if a directory of the ledger is a link to somewhere else."""
    for part in _PARTS:
        if (root / part).is_symlink():
            raise LedgerPathError(
                errno.ELOOP,
                f"the ledger at {root} is refused: its '{part}' is a symbolic link and not a "
                "directory; move the directory there, or make the whole ledger a link",
                str(root / part),
            )


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
        return create_file(path, os.O_WRONLY | os.O_APPEND)

    def open(self, path: Path) -> int:
        """Open a file that exists, for syncing and cutting; return its descriptor."""
        return open_regular(path, os.O_WRONLY | os.O_APPEND)

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
        """Rename within one file system, atomically."""
        with _at(old) as (name, at), _at(new) as (new_name, new_at):
            os.rename(name, new_name, src_dir_fd=at, dst_dir_fd=new_at)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        with _at(path) as (name, at):
            os.unlink(name, dir_fd=at)

    def make_directory(self, path: Path, mode: int = PRIVATE) -> None:
        """Create a directory in one that exists, whatever the umask is; it may be there already."""
        try:
            path.mkdir(PRIVATE)
        except FileExistsError:
            if not path.is_dir():
                raise
        else:
            if mode != PRIVATE:
                give_rights(path, mode)

    def sync_directory(self, path: Path) -> None:
        """Make the directory's names durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def make_directories(fs: FileSystem, path: Path, mode: int = PRIVATE) -> None:
    """Make a directory and the parents that are missing; afterwards all their names are durable.

    Each name is synced before the next directory is made in it.  So of directories that are there
    already only the last can have a name that is not durable, if who made it was killed just then.
    """
    missing = []
    there = path
    while not there.is_dir():
        missing.append(there)
        there = there.parent
    with suppress(OSError):  # not ours, perhaps: it need not let us open it
        fs.sync_directory(there.parent)
    for directory in reversed(missing):
        fs.make_directory(directory, mode)
        fs.sync_directory(directory.parent)


REAL: Final = FileSystem()
