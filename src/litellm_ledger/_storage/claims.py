"""What was done once, by name, remembered in a file that processes share.

Owns the file: a JSON object, name to the time until which it is remembered.  A name is claimed
before the deed, and given back if that fails: a process that is killed in between has done it or
not, and nobody does it again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
_LOCKS = fcntl is not None

__all__ = ["claim", "give_back"]

_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)
_READ: Final = os.O_RDONLY | _NO_LINK | getattr(os, "O_NONBLOCK", 0)
_GROUP: Final = 0o060


def claim(file: Path, names: Mapping[str, datetime]) -> list[str]:
    """Return the names that were not claimed before, and claim them.

    Args:
        names: each with the time until which it is remembered.

    Raises:
        OSError: it cannot be remembered, and nothing is claimed.
    """
    with _remembered(file) as done:
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
    with _remembered(file) as done:
        for name in names:
            done.pop(name, None)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


@contextlib.contextmanager
def _remembered(file: Path) -> Iterator[dict[str, str]]:
    """Give what was done, by its name; what it is at the end of the ``with`` is kept.

    One process at a time.  The group has the rights that it has in the directory.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = 0o600 | file.parent.stat().st_mode & _GROUP
    lock = _created(file.with_suffix(".lock"), os.O_RDWR, mode)
    try:
        if _LOCKS:
            fcntl.flock(lock, fcntl.LOCK_EX)
        done = _read(file)
        before = dict(done)
        yield done
        if done != before:
            temporary = file.with_suffix(".tmp")
            temporary.unlink(missing_ok=True)
            # follows no link that others have put there
            with os.fdopen(_created(temporary, os.O_WRONLY | os.O_EXCL, mode), "wb") as to:
                to.write(msgspec.json.encode(done))
                to.flush()
                os.fsync(to.fileno())
            temporary.replace(file)
    finally:
        os.close(lock)  # and with it the lock is given back


def _created(path: Path, flags: int, mode: int) -> int:
    fd = os.open(path, flags | os.O_CREAT | _NO_LINK, 0o600)
    if mode & _GROUP and _LOCKS:
        with contextlib.suppress(PermissionError):  # another user's
            os.fchmod(fd, mode)
    return fd


def _read(file: Path) -> dict[str, str]:
    unread = FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError, RecursionError
    with contextlib.suppress(*unread), os.fdopen(os.open(file, _READ), "rb") as told:
        return msgspec.json.decode(told.read(), type=dict[str, str])
    return {}
