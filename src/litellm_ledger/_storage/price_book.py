"""The price book: what records were priced by, kept once in ``prices/`` (docs/FORMAT.md).

Owns the writing of entries.  Writes each once, durably, and never over another.  A disk that
refuses is no error here: the entry waits for the next try, and its record does not.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from litellm_ledger._records.layout import LARGEST_ENTRY, PRICES, SEGMENTS, entry_name

from .filesystem import FileSystem, make_directories, rights_beside
from .segment import write_sealed

__all__ = ["PriceBook"]

_log = logging.getLogger("litellm_ledger")

_ROOM: Final = 64
"""Bytes for the day and the end of a file."""


class PriceBook:
    """The entries that one writer names.

    ``add`` may be called on any thread at any time, ``write`` on several at once.

    Attributes:
        pending: what is to be written before the next batch, by price version.
        refused: what the disk did not take; ``write(again=True)`` tries it again.
    """

    def __init__(self, fs: FileSystem, root: Path) -> None:
        self._fs = fs
        self._root = root
        self._known: set[str] = set()
        self.pending: dict[str, str] = {}
        self.refused: dict[str, str] = {}

    def add(self, version: str, contents: str, litellm: str | None = None) -> None:
        """Have an entry written, unless that has been done.

        Args:
            version: its name.
            contents: the canonical JSON of which the name is the hash.
            litellm: whose map it is of.
        """
        if version not in self._known:
            more = f',"litellm":{msgspec.json.encode(litellm).decode()}' if litellm else ""
            entry = f'{{"v":1,{contents[1:-1]}{more}'
            self._known.add(version)
            if len(entry.encode()) > LARGEST_ENTRY - _ROOM:
                _log.warning("the price %s is too long for the price book", version)
                return
            self.pending[version] = entry

    def write(self, *, again: bool = False) -> None:
        """Write what is pending, and ``again`` what was refused.  Blocks; raises no ``OSError``."""
        todo = {**self.refused, **self.pending} if again else dict(self.pending)
        for version, begun in todo.items():
            try:
                self._write(version, begun)
            except OSError as exc:
                if exc.errno is None:  # not the disk's: the time-out of a signal handler
                    raise
                if version not in self.refused:
                    self.refused[version] = begun
                    _log.warning(
                        "the price %s cannot be kept (%s): it is tried again, no record waits",
                        version,
                        exc.strerror,
                    )
            else:
                self.refused.pop(version, None)
            self.pending.pop(version, None)

    def _write(self, version: str, begun: str) -> None:
        directory = self._root / PRICES
        name = entry_name(version)
        path = directory / name

        def refuse_taken() -> None:
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, "it is there", str(path))

        if not directory.is_dir():
            make_directories(self._fs, directory, rights_beside(self._root / SEGMENTS))
        try:
            refuse_taken()
            data = f'{begun},"day":"{datetime.now(UTC):%Y-%m-%d}"}}\n'.encode()
            attempt = secrets.randbits(48)  # other processes write the same entry
            write_sealed(self._fs, directory, name, data, attempt=attempt, before=refuse_taken)
        except FileExistsError:
            self._fs.sync_directory(directory)  # its writer may have died before it did
