"""Recovery: finding dead writers and finishing what each of them left behind.

Owns the search: a live file whose lock is free belongs to a writer that died.  What is then done
with its segments is ``_maintenance.dead_writer``'s.

Synchronous.  Safe to run in several processes at once (the loser of a lock skips) and again after
being killed at any step.  Never deletes a byte that a record could be in, never touches a writer
that is alive, and refuses a ledger of a newer format version before touching anything.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from litellm_ledger._errors import LedgerPathError, UnsupportedFormat
from litellm_ledger._records.layout import LIVE, SEGMENTS, SegmentName, live_name, writer_of_live
from litellm_ledger._storage.filesystem import REAL, FileSystem, refuse_links
from litellm_ledger._storage.format_version import refuse_newer
from litellm_ledger._storage.live_file import lock, lock_directory, mark_recovery, unlock

from .dead_writer import DeadWriter, RecoveredWriter
from .erasing import finish_pending

__all__ = ["RecoveredWriter", "RecoveryReport", "recover"]

_log = logging.getLogger("litellm_ledger")

_UNBORN: Final = ".new"
_UNBORN_AGE: Final = 3600.0
"""Seconds after which a live file that never got its name is nobody's: making one takes less than
a millisecond, and a process stopped in the middle of it gets an error and makes another."""


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What one run of ``recover`` found and did.

    Attributes:
        writers: the dead writers, oldest first.
        skipped: writers left alone: alive, or being recovered by somebody else.
        orphans: ``.open`` segments without a live file: nobody can tell whether they are still
            being written, so they are left as they are (readers take them).
    """

    writers: tuple[RecoveredWriter, ...] = ()
    skipped: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()


def recover(directory: Path, *, fs: FileSystem = REAL, own: Container[str] = ()) -> RecoveryReport:
    """Finish the work of every dead writer in a ledger directory.

    What fails for one writer, whatever it is, stands in its ``error`` and is tried again by the
    next run; the others are finished all the same.

    Args:
        directory: the ledger.
        fs: where all writing goes through.
        own: writers of this process, never to be touched.

    Raises:
        LedgerPathError: the directory is none, or cannot be read.
        UnsupportedFormat: the ledger is of a newer format version; it was not touched.
    """
    try:
        os.listdir(directory)
        refuse_links(directory)
        refuse_newer(directory)
        live_files = _list(directory / LIVE)
        finish_pending(directory, fs)
        segments = directory / SEGMENTS
        erasing = lock_directory(segments, shared=True) if segments.is_dir() else None
        busy = erasing is None and segments.is_dir()
    except LedgerPathError:
        raise
    except OSError as exc:
        raise LedgerPathError(f"cannot recover the ledger at {directory}: {exc.strerror}") from exc
    done: list[RecoveredWriter] = []
    skipped: list[str] = []
    if busy:  # an erasure is at work; the next run finds the same
        return RecoveryReport(skipped=tuple(filter(None, map(writer_of_live, live_files))))
    try:
        _recover(directory, fs, own, live_files, done, skipped)
    finally:
        if erasing is not None:
            unlock(erasing)
    return RecoveryReport(tuple(done), tuple(skipped), _orphans(directory))


def _recover(
    directory: Path,
    fs: FileSystem,
    own: Container[str],
    live_files: list[str],
    done: list[RecoveredWriter],
    skipped: list[str],
) -> None:
    for file in live_files:
        if file.endswith(_UNBORN):
            _remove_unborn(directory / LIVE / file, fs)
        writer = writer_of_live(file)
        if writer is None:
            continue
        path = directory / LIVE / file
        try:
            held = None if writer in own else lock(path)
        except FileNotFoundError:  # finished by somebody else since we listed
            continue
        except OSError as exc:
            done.append(RecoveredWriter(writer, "unknown", error=str(exc)))
            continue
        if held is None:
            skipped.append(writer)
            continue
        try:
            if _still_named(held, path):
                done.append(_finish(held, DeadWriter(fs, directory, writer), path))
        finally:
            unlock(held)


def _remove_unborn(path: Path, fs: FileSystem) -> None:
    """Remove a live file whose maker died before it could rename it in: it counts nothing."""
    if writer_of_live(path.with_suffix(".live").name) is None:
        return
    with contextlib.suppress(OSError):  # renamed in just now, or tried again by the next run
        # Its age first: a lock, however short, on one that is being made would fail its maker.
        if time.time() - os.lstat(path).st_mtime <= _UNBORN_AGE:
            return
        held = lock(path)
        if held is None:
            return
        try:
            if _still_named(held, path):
                fs.unlink(path)
        finally:
            unlock(held)


def _finish(held: int, dead: DeadWriter, path: Path) -> RecoveredWriter:
    with contextlib.suppress(OSError):  # only for the eyes of verify
        mark_recovery(held, os.getpid())
    try:
        return dead.finish(path)
    except Exception as exc:
        with contextlib.suppress(OSError):
            mark_recovery(held, 0)
        if isinstance(exc, UnsupportedFormat):  # refused: not a byte of it is to be changed
            raise
        # Each step leaves a state that the next run goes on from, so this one may stop anywhere.
        _log.exception("recovery of the writer %s failed; it is left as it is", dead.writer)
        return RecoveredWriter(dead.writer, "unknown", error=f"{type(exc).__name__}: {exc}")


def _still_named(fd: int, path: Path) -> bool:
    """Whether the locked file still has its name: another run may have finished it meanwhile."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _orphans(directory: Path) -> tuple[str, ...]:
    segments = _list(directory / SEGMENTS)
    live = set(_list(directory / LIVE))  # listed after: a writer's live file is there first
    parsed = ((file, SegmentName.parse(file)) for file in segments)
    return tuple(
        file for file, name in parsed if name and name.open and live_name(name.writer) not in live
    )


def _list(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
