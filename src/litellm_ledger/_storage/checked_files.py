"""Checksums of files of a ledger that never change, remembered outside the ledger.

Owns the memory: of the process, and in a file in the user's directory of caches.  A file is known
by its device, inode, size and the times of its last change, so that one that was copied, restored
or written to is read again.  Never writes to the ledger.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

import msgspec

from .filesystem import open_file

__all__ = ["CheckedFiles", "cache_file", "remember", "remembered"]

_WORTH_KEEPING: Final = 16 * 2**20
"""Bytes that were read, from which on it is remembered for other processes: they take 10 ms."""

_State = tuple[int, int, int, int, int]
"""Of a file: device, inode, size, time of its last change and of its status', in ns."""
_Known = dict[str, tuple[_State, str]]

_known: Final[dict[str, _Known]] = {}


class CheckedFiles:
    """The checksums of the files of one ledger.

    Args:
        size: bytes of those that will be asked for.  Where they are few, the process alone
            remembers them: to find its file takes as long as to read them again.
    """

    def __init__(self, root: Path, size: int) -> None:
        self._root = root
        self._file = cache_file(root, "checked") if size >= _WORTH_KEEPING else None
        key = str(self._file or root)
        if key not in _known:
            _known[key] = remembered(self._file, _Known)
        self._checked = _known[key]
        self._read = 0

    def checksum(self, path: Path, of: Callable[[BufferedReader], str]) -> str:
        """Return the checksum of a file: the one that is known, or what ``of`` makes of it.

        Raises:
            OSError: it cannot be read.
        """
        name = str(path.relative_to(self._root))
        known = self._checked.get(name)
        if known is None or known[0] != _state(path.lstat()):
            with open_file(path) as file:
                state = _state(os.fstat(file.fileno()))
                known = state, of(file)
            self._checked[name] = known
            self._read += state[2]
        return known[1]

    def keep(self) -> None:
        """Remember for other processes; whatever is in the way of that is no matter."""
        if self._read < _WORTH_KEEPING or self._file is None:
            return
        self._read = 0
        remember(self._file, self._checked)


def cache_file(root: Path, kind: str) -> Path | None:
    """Return the file in the user's directory of caches for what is remembered of a ledger.

    ``None``: the user has no such directory.
    """
    from hashlib import sha256  # these only where they are needed: their import takes time

    from platformdirs import user_cache_dir

    key = sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:32]
    try:
        return Path(user_cache_dir("litellm-ledger", appauthor=False)) / f"{kind}-{key}.json"
    except RuntimeError:  # there is no home
        return None


def remember(file: Path, value: Any) -> None:
    """Keep a value for other processes; whatever is in the way of that is no matter.

    Args:
        file: as ``cache_file`` returns it.
    """
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as new:  # follows no link that others have put there
            new.write(msgspec.json.encode(value))
        temporary.replace(file)


def remembered(file: Path | None, kind: Any) -> dict[str, Any]:
    """Return what was kept; empty: nothing, not by this user, or nothing that can be read.

    Args:
        kind: of which type it is: a ``dict`` by text.
    """
    with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if file is not None and file.lstat().st_uid == os.geteuid():
            found: dict[str, Any] = msgspec.json.decode(file.read_bytes(), type=kind)
            return found
    return {}


def _state(state: os.stat_result) -> _State:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
