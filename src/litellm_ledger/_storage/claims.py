"""Small JSON files that processes share, and what was done once, by name, in such a file.

Owns how they are changed: one process at a time, and whole or not at all.  A *claim* is a name and
the time until which it is remembered.  It is made before the deed, and given back if that fails: a
process that is killed in between has done it or not, and nobody does it again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import msgspec

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
_LOCKS = fcntl is not None

__all__ = ["claim", "give_back", "read_shared", "rewritten"]

_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)
_READ: Final = os.O_RDONLY | _NO_LINK | getattr(os, "O_NONBLOCK", 0)
_GROUP: Final = 0o060
_MOST: Final = 2**26
"""Bytes: a larger file is not ours, and is begun anew."""

_T = TypeVar("_T")


def claim(file: Path, names: Mapping[str, datetime]) -> list[str]:
    """Return the names that were not claimed before, and claim them.

    Args:
        names: each with the time until which it is remembered.

    Raises:
        OSError: it cannot be remembered, and nothing is claimed.
    """
    with rewritten(file, str) as done:
        now = _text(datetime.now(UTC))
        for name in [name for name, until in done.items() if until < now]:
            del done[name]
        new = [name for name in names if name not in done]
        done.update({name: _text(names[name]) for name in new})
        return new


def give_back(file: Path, names: Sequence[str]) -> None:
    """Forget names: what they stand for was not done.

    Raises:
        OSError: it cannot be written.
    """
    with rewritten(file, str) as done:
        for name in names:
            done.pop(name, None)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


@contextlib.contextmanager
def rewritten(file: Path, kind: type[_T]) -> Iterator[dict[str, _T]]:
    """Give the members of a JSON object; what they are at the end of the ``with`` is kept.

    One process at a time.  The group has the rights that it has in the directory.  What is no such
    object is taken for an empty one.

    Raises:
        OSError: it cannot be read or written.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = 0o600 | file.parent.stat().st_mode & _GROUP
    lock = _created(file.with_suffix(".lock"), os.O_RDWR, mode)
    try:
        if _LOCKS:
            fcntl.flock(lock, fcntl.LOCK_EX)
        members = read_shared(file, kind)
        before = dict(members)
        yield members
        if members != before:
            temporary = file.with_suffix(".tmp")
            temporary.unlink(missing_ok=True)
            # follows no link that others have put there
            with os.fdopen(_created(temporary, os.O_WRONLY | os.O_EXCL, mode), "wb") as to:
                to.write(msgspec.json.encode(members))
                to.flush()
                os.fsync(to.fileno())
            temporary.replace(file)
    finally:
        os.close(lock)  # and with it the lock is given back


def read_shared(file: Path, kind: type[_T]) -> dict[str, _T]:
    """Return the members of a JSON object; none where there is no file, or no such object in it.

    Raises:
        OSError: it cannot be read.
    """
    unread = FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError, RecursionError
    with contextlib.suppress(*unread), os.fdopen(os.open(file, _READ), "rb") as told:
        return msgspec.json.decode(told.read(_MOST), type=dict[str, kind])  # type: ignore[valid-type]
    return {}


def _created(path: Path, flags: int, mode: int) -> int:
    fd = os.open(path, flags | os.O_CREAT | _NO_LINK, 0o600)
    if mode & _GROUP and _LOCKS:
        with contextlib.suppress(PermissionError):  # another user's
            os.fchmod(fd, mode)
    return fd
