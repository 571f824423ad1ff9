"""Opening a ledger directory to write: what is asked for, make it, check it, recover it.

Owns the errors a user meets first: each says what is wrong, where, and what to do.  Synchronous;
the writer runs it on its disk thread.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from litellm_ledger._errors import LedgerPathError, UnsupportedFormat, UnsupportedPlatform
from litellm_ledger._records.layout import LIVE, RECOVERY, SEGMENTS
from litellm_ledger._runtime.cancellation import seconds
from litellm_ledger._storage.filesystem import (
    PRIVATE,
    REAL,
    FileSystem,
    give_rights,
    make_directories,
    refuse_links,
    rights_beside,
)
from litellm_ledger._storage.format_version import refuse_newer
from litellm_ledger._storage.live_file import WAITS_FOR, Durability
from litellm_ledger._storage.location import ENVIRONMENT, default_directory, is_network

from .backlog import Backlog

__all__ = ["Settings", "open_backlog"]

_log = logging.getLogger("litellm_ledger")

_URL: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://|(postgres(ql)?|s3|gs|az|file):/"
)  # a Path has one slash

_ADVICE: Final = {
    errno.EACCES: "make it writable for this user",
    errno.EPERM: "make it writable for this user",
    errno.EROFS: "the file system is read-only; choose another directory",
    errno.ENOSPC: "the disk is full; free some space",
    errno.ENOTDIR: "a file is in the way; choose another directory",
    errno.EEXIST: "a file is in the way; choose another directory",
}


@dataclass(slots=True)
class Settings:
    """The arguments of ``AsyncUsageWriter``, which documents them.

    Raises:
        ValueError: one of them cannot be: a URL is no directory; with such a ``mode`` its owner
            could not write, or everybody could read what may be prompts.
    """

    ledger: str | os.PathLike[str] | None = None
    durability: Durability = "written"
    queue_size: int = 10_000
    sync_interval: float = 1.0
    drain_timeout: float = 10.0
    mode: int | None = None
    fs: FileSystem = REAL
    recover: bool = True
    retention: Any = None
    sink: str | None = None

    def __post_init__(self) -> None:
        ledger = self.ledger or os.environ.get(ENVIRONMENT)
        if ledger and (match := _URL.match(os.fspath(ledger))) is not None:
            raise ValueError(
                f"a ledger is written to a directory, not to {match[0]}…: give a directory, and "
                'sink="postgresql://…" to have it shipped to a database; to object storage it is '
                "shipped by litellm-ledger ship"
            )
        if self.retention is not None:
            from litellm_ledger._maintenance.retention import retention

            self.retention = retention(self.retention)
        if self.durability not in WAITS_FOR:
            raise ValueError(
                f"durability must be one of {', '.join(WAITS_FOR)}, not {self.durability!r}"
            )
        if self.sink is not None:
            from litellm_ledger._shipping.sink import check

            check(self.sink)
        if self.durability == "shipped" and self.sink is None:
            raise ValueError('durability="shipped" needs a place: sink="postgresql://…"')
        if self.queue_size < 1:
            raise ValueError(f"queue_size must be at least 1, not {self.queue_size}")
        self.drain_timeout = seconds("drain_timeout", self.drain_timeout)
        mode = self.mode
        if mode is not None and (type(mode) is not int or mode & ~0o2070 != PRIVATE):
            raise ValueError(
                "mode must be 0o700, or with rights for the group: 0o750 to read, 0o770 to write "
                f"too; not {oct(mode) if type(mode) is int else repr(mode)}"
            )


def open_backlog(settings: Settings, writer: str) -> Backlog:
    """Create the directory if need be, refuse what cannot be kept safe, recover dead writers.

    Without a ``mode`` the directories that the ledger is made of are private when they are made,
    else as they are; files follow them.

    Raises:
        LedgerPathError: it cannot be created or written, or a part of it is a link.
        UnsupportedFormat: a newer version of this library wrote it; it was left untouched.
        UnsupportedPlatform: not POSIX.
    """
    if os.name != "posix":
        raise UnsupportedPlatform(
            f"a ledger cannot be written on {sys.platform}, which lacks flock and fdatasync; "
            "it can be read"
        )
    ledger = settings.ledger
    path = Path(ledger) if ledger else default_directory()  # "" is an unset variable, not "."
    path = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - Path.resolve would follow links
    try:
        _prepare(path, settings)
        return Backlog(settings.fs, path, writer, settings.durability)
    except LedgerPathError:
        raise
    except OSError as exc:
        advice = _ADVICE.get(exc.errno or 0, "choose another directory")
        if ledger is None:
            advice += ", or set LITELLM_LEDGER_DIR to a directory of yours"
        raise LedgerPathError(
            exc.errno, f"cannot write the ledger in {path} ({exc.strerror}): {advice}", exc.filename
        ) from exc


def _prepare(path: Path, settings: Settings) -> None:
    fs, mode = settings.fs, settings.mode
    make_directories(fs, path, mode or PRIVATE)
    refuse_links(path)
    for name in (SEGMENTS, LIVE, RECOVERY):
        fs.make_directory(path / name, mode or rights_beside(path / SEGMENTS))
        if mode is not None:
            with contextlib.suppress(PermissionError):  # its owner is another user of the group
                give_rights(path / name, mode)
    for part in (path, path / SEGMENTS, path / LIVE):
        _check_writable(part)
        fs.sync_directory(part)
    refuse_newer(path)
    if is_network(path):
        _log.warning(
            "the ledger %s is on a network file system: one machine only, no automatic recovery; "
            "a local disk is safer",
            path,
        )
    elif settings.recover and any((path / LIVE).iterdir()):
        _recover(path, fs)
    if settings.sink is not None:
        from litellm_ledger._shipping.sink import check
        from litellm_ledger._storage.shipping_marks import begin

        begin(path, check(settings.sink))


def _check_writable(path: Path) -> None:
    if not os.access(path, os.W_OK | os.X_OK):
        read_only = os.statvfs(path).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
        raise OSError(number, os.strerror(number), str(path))


def _recover(path: Path, fs: FileSystem) -> None:
    from litellm_ledger._maintenance.recover import recover  # where nobody died it is not loaded

    try:
        report = recover(path, fs=fs)
    except UnsupportedFormat:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever yesterday left behind must not stop today's records
        _log.error("dead writers in %s could not be recovered: %s", path, exc, exc_info=exc)
        return
    for dead in report.writers:
        level = logging.WARNING if dead.error or dead.lost or dead.damaged else logging.INFO
        _log.log(level, "%s (writer %s)", dead.summary(), dead.writer)
