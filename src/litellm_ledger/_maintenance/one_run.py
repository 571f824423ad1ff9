"""One run at a time of what changes a ledger: ``seal``, ``compact``, ``reprice``, …

Owns the lock of a run, which is that of the directory it writes to, and what a run says of its
disk.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from litellm_ledger._errors import LedgerError, LedgerPathError, UnsupportedPlatform
from litellm_ledger._records.layout import SEGMENTS
from litellm_ledger._storage.filesystem import FileSystem, make_directories, rights_beside
from litellm_ledger._storage.live_file import lock_directory, unlock

from .erasing import undisturbed

__all__ = ["Busy", "locked", "need_locks", "one_run", "told"]


def need_locks(done: str) -> None:
    """Refuse platforms without ``flock``; ``done`` as for ``one_run``.

    Raises:
        UnsupportedPlatform: not POSIX.
    """
    if os.name != "posix":
        raise UnsupportedPlatform(f"a ledger cannot be {done} on {sys.platform}, which lacks flock")


@contextmanager
def one_run(fs: FileSystem, root: Path, directory: str, do: str, done: str) -> Iterator[None]:
    """Make a directory of the ledger, its name durable, and hold its lock.

    Args:
        directory: where the run writes.
        do, done: what it does, for messages: ``seal``, ``sealed``.

    Raises:
        LedgerPathError: another run is at work; or an ``OSError`` of the body.
    """
    with told(f"cannot {do} the ledger at {root}"):
        make_directories(fs, root / directory, rights_beside(root / SEGMENTS))
        busy = f"the ledger at {root} is being {done} by another process"
        with undisturbed(root, fs), locked(root / directory, busy):
            yield


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say of an ``OSError`` of the body what it made impossible, in a ``LedgerPathError``."""
    try:
        yield
    except OSError as exc:
        if isinstance(exc, LedgerError):
            raise
        said = f"{what}: {exc.strerror or exc}"
        raise LedgerPathError(exc.errno, said, exc.filename) from exc


class Busy(LedgerPathError):
    """Another process is at work on the ledger."""


@contextmanager
def locked(directory: Path, busy: str) -> Iterator[None]:
    """Hold the lock of a directory; ``busy`` is said where somebody else has it."""
    held = lock_directory(directory)
    if held is None:
        raise Busy(busy)
    try:
        yield
    finally:
        unlock(held)
