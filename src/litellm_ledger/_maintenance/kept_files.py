"""``recovery/``: torn tails and damaged originals, kept for a person to look at.

Owns the names in there and that nothing is put over anything.  What is kept may hold prompts and is
for its owner alone, whatever the mode of the ledger is.  Nothing here is ever deleted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from litellm_ledger._records.layout import RECOVERY, SEGMENTS
from litellm_ledger._storage.filesystem import (
    FileSystem,
    make_directories,
    open_regular,
    read_file,
    rights_beside,
)
from litellm_ledger._storage.segment import write_sealed

__all__ = ["Keeping"]


class Keeping:
    """The directory ``recovery/`` of a ledger, made when it is first needed."""

    def __init__(self, fs: FileSystem, root: Path) -> None:
        self._fs = fs
        self._root = root

    def copy(self, name: str, data: bytes) -> str:
        """Put a durable copy there once; return its name."""
        directory = self._directory()
        for free in _numbered(name):
            path = directory / free
            if not os.path.lexists(path):
                write_sealed(self._fs, directory, free, data, attempt=0, private=True)
                return free
            with contextlib.suppress(OSError):  # not ours to read, or no file: the next name
                if read_file(path) == data:
                    return free
        raise AssertionError  # pragma: no cover - the names have no end

    def move(self, path: Path) -> str:
        """Move a file there, over nothing that is there; return its name."""
        directory = self._directory()
        free = next(n for n in _numbered(path.name) if not os.path.lexists(directory / n))
        with contextlib.suppress(PermissionError):  # another user's: it stays as he made it
            fd = open_regular(path)
            try:
                os.fchmod(fd, 0o600)
            finally:
                os.close(fd)
        self._fs.rename(path, directory / free)
        self._fs.sync_directory(directory)
        self._fs.sync_directory(path.parent)
        return free

    def _directory(self) -> Path:
        path = self._root / RECOVERY
        if not path.is_dir():
            make_directories(self._fs, path, rights_beside(self._root / SEGMENTS))
        return path


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in count(2):
        yield f"{name}.{number}"
