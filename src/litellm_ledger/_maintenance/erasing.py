"""``erasing/``: files that an erasure has ready, and their way over those that they replace.

Owns the order after the audit: each file that an audit names is renamed over the old one, its
directory synced, and old files of the archive are unlinked last.  What is ready and in no audit is
thrown away.  So who it was need not be known to finish what was killed.  Owns the lock, too, by
which nobody else changes sealed files meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from stat import S_IMODE, S_ISREG
from typing import Final

from litellm_ledger._archive.archive import digest
from litellm_ledger._errors import LedgerPathError
from litellm_ledger._reading.adjustments import read_additions
from litellm_ledger._reading.erasures import Erasures, Exchange
from litellm_ledger._reading.listing import list_additions
from litellm_ledger._records.layout import ADJUSTMENTS, ARCHIVE, ERASING, SEGMENTS
from litellm_ledger._storage.filesystem import FileSystem, make_directories, rights_beside
from litellm_ledger._storage.live_file import lock_directory, unlock

__all__ = [
    "alone",
    "begin",
    "finish",
    "finish_pending",
    "give",
    "not_erased",
    "prepare",
    "prepared",
    "remove_old",
    "undisturbed",
]

_BUSY: Final = "records are being erased from the ledger at {} by another process; try again later"
_AT_WORK: Final = (
    "another process is changing the ledger at {} (recover, seal, compact, backup …); try "
    "again later"
)


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Let nobody else change sealed files.

    Raises:
        LedgerPathError: somebody does.
    """
    with _holding(lock_directory(root / SEGMENTS), _AT_WORK.format(root)):
        yield


@contextlib.contextmanager
def not_erased(root: Path) -> Iterator[None]:
    """Let nobody erase meanwhile, as far as the file system has locks.

    Raises:
        LedgerPathError: an erasure is at work.
    """
    try:
        held = lock_directory(root / SEGMENTS, shared=True)
    except OSError:
        yield
        return
    with _holding(held, _BUSY.format(root)):
        yield


@contextlib.contextmanager
def _holding(held: int | None, busy: str) -> Iterator[None]:
    if held is None:
        raise LedgerPathError(busy)
    try:
        yield
    finally:
        unlock(held)


@contextlib.contextmanager
def undisturbed(root: Path, fs: FileSystem) -> Iterator[None]:
    """Let nobody erase meanwhile; what a killed erasure had ready is finished before.

    Raises:
        LedgerPathError: an erasure is at work.
        OSError: what was ready cannot be put in its place.
    """
    if not (root / SEGMENTS).is_dir():
        yield
        return
    finish_pending(root, fs)
    with not_erased(root):
        yield


def finish_pending(root: Path, fs: FileSystem) -> None:
    """Finish what a killed erasure had ready, unless somebody is at work.

    Raises:
        OSError: it cannot be put in its place.
    """
    if not _listed(root):
        return
    held = lock_directory(root / SEGMENTS)
    if held is None:
        return
    try:
        finish(root, fs)
    finally:
        unlock(held)


def begin(root: Path, fs: FileSystem) -> None:
    """Make the directory, its name durable, and finish what is in it."""
    make_directories(fs, root / ERASING, rights_beside(root / SEGMENTS))
    finish(root, fs)


def prepared(root: Path, part: str, name: str) -> Path:
    """Return where a file is ready that is to have a name in a part of the ledger."""
    return root / ERASING / f"{part}.{name}"


def prepare(fs: FileSystem, path: Path, parts: Iterable[bytes], like: Path | None = None) -> None:
    """Write a file, durable but for its name.

    Args:
        fs: where the writing goes through.
        path: as ``prepared`` has it.
        parts: its bytes.
        like: whose owner and rights it gets.
    """
    fd = fs.create(path)
    try:
        for data in parts:
            view = memoryview(data)
            while view:
                view = view[fs.write(fd, view) :]
        if like is not None:
            give(fd, like)
        fs.sync(fd)
    finally:
        fs.close(fd)


def give(fd: int, like: Path) -> None:
    """Give an open file the owner and the rights of another, as far as we may."""
    state = like.lstat()
    now = os.fstat(fd)
    if (now.st_uid, now.st_gid) != (state.st_uid, state.st_gid):
        with contextlib.suppress(PermissionError):
            os.fchown(fd, state.st_uid, state.st_gid)
    with contextlib.suppress(PermissionError):
        os.fchmod(fd, S_IMODE(state.st_mode))


def finish(root: Path, fs: FileSystem) -> None:
    """Put what audits name in its place, and throw the rest away; who calls it is ``alone``.

    Raises:
        OSError: what the disk said; what is left is done by the next call.
        UnsupportedFormat: a newer version wrote an addition.
    """
    ready = _listed(root)
    erasures = Erasures(read_additions(root, list_additions(root), []))
    last: dict[tuple[str, str], Exchange] = {}
    for _, files in erasures.changed:
        last.update({(file.part, file.new_name): file for file in files})
    changed: set[Path] = set()
    placed = [file for file in last.values() if f"{file.part}.{file.new_name}" in ready]
    for file in sorted(placed, key=_order):
        path = prepared(root, file.part, file.new_name)
        if digest(path) == file.new and _may_take(root, file):
            fs.rename(path, root / file.part / file.new_name)
            changed.add(root / file.part)
            ready.discard(path.name)
    for directory in sorted(changed):
        fs.sync_directory(directory)
    if changed:
        fs.sync_directory(root / ERASING)
    remove_old(root, fs, last.values())
    for name in sorted(ready):  # all that tells that something is left to do: last
        if S_ISREG((root / ERASING / name).lstat().st_mode):
            fs.unlink(root / ERASING / name)


def _order(file: Exchange) -> tuple[bool, int, str]:
    """Adjustments before their records, segments before their manifests, the archive last."""
    adjusts = file.part == SEGMENTS and file.new_name.startswith(ADJUSTMENTS)
    return not adjusts, (SEGMENTS, "manifests", "recovery", ARCHIVE).index(file.part), file.new_name


def _may_take(root: Path, file: Exchange) -> bool:
    """Whether the file that is to be replaced is there, and the one that was read."""
    try:
        return digest(root / file.part / file.old_name) == file.old
    except FileNotFoundError:
        return False


def remove_old(root: Path, fs: FileSystem, files: Iterable[Exchange]) -> int:
    """Remove the files of the archive that others have taken the place of; return how many."""
    removed = 0
    for file in files:
        path = root / file.part / file.old_name
        if file.part != ARCHIVE or file.old_name == file.new_name or not path.exists():
            continue
        with contextlib.suppress(FileNotFoundError):
            if digest(root / ARCHIVE / file.new_name) == file.new:
                fs.unlink(path)
                removed += 1
    if removed:
        fs.sync_directory(root / ARCHIVE)
    return removed


def _listed(root: Path) -> set[str]:
    try:
        return set(os.listdir(root / ERASING))
    except (FileNotFoundError, NotADirectoryError):
        return set()
