"""Rows that come from a database, laid out as the segments of a temporary ledger.

Owns the files: lines ascending by number in segments of their writer, whole, with their checksums,
as every reader of a ledger expects them.  Rows come sorted by writer and number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from litellm_ledger._records.layout import LIVE, SEGMENTS, SegmentName, is_writer, live_name
from litellm_ledger._storage.live_file import lock, unlock

from .stream import Row, sealed

__all__ = ["Laid"]

_PIECE: Final = 2**20
_SEGMENT: Final = 256 * 2**20
"""Bytes after which a segment ends."""
_NUMBERS: Final = 10**16
"""Numbers are below: an id has 16 digits."""


class Laid:
    """A temporary ledger that rows are laid into; a context manager that gives back its locks.

    Args:
        root: an empty directory.
        names: the names of writers by what the database calls them.
        beside: rows, sorted as well, that go in between those that are put.

    Attributes:
        strange: rows that no shipper writes, and that are left out: of no writer, or of one whose
            name or number no ledger gives.  Names of files are made of these.
    """

    def __init__(self, root: Path, names: Mapping[int, str], beside: Iterator[Row]) -> None:
        self.root = root
        self.strange = 0
        self._names = {one: name for one, name in names.items() if is_writer(name)}
        self._beside = beside
        self._next = next(beside, None)
        self._file: BinaryIO | None = None
        self._writer_id = 0
        self._first = self._last = 0
        self._size = 0
        self._lines: list[bytes] = []
        self._waiting = 0
        self._locks: list[int] = []
        for part in (SEGMENTS, LIVE):
            (root / part).mkdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        for held in self._locks:
            unlock(held)

    def put(self, row: Row) -> None:
        """Add a line, after those beside that come before it."""
        while self._next is not None and self._next[:2] < row[:2]:
            self._add(self._next)
            self._next = next(self._beside, None)
        self._add(row)

    def finish(self) -> None:
        """Add what is left beside, and give the last segment its name."""
        while self._next is not None:
            self._add(self._next)
            self._next = next(self._beside, None)
        self._seal()

    def split(self) -> None:
        """End a segment here."""
        self._seal()

    def run(self, writer: str) -> None:
        """Have a writer look as if its process ran: for calls that are in flight."""
        if not is_writer(writer):
            return
        path = self.root / LIVE / live_name(writer)
        path.touch()
        held = lock(path)
        if held is not None:
            self._locks.append(held)

    def _add(self, row: Row) -> None:
        writer_id, first, last, line = row
        if writer_id not in self._names or not 0 < first <= last < _NUMBERS:
            self.strange += 1
            return
        if writer_id != self._writer_id or self._size > _SEGMENT or self._file is None:
            self._seal()
            self._writer_id, self._first, self._size = writer_id, first, 0
            self._file = (self.root / SEGMENTS / ".open").open("wb")
        self._last = last
        self._lines.append(sealed(line))
        self._waiting += len(line)
        if self._waiting > _PIECE:
            self._write()

    def _write(self) -> None:
        assert self._file is not None
        self._size += self._waiting
        self._waiting = 0
        self._file.write(b"".join(self._lines))
        self._lines.clear()

    def _seal(self) -> None:
        if self._file is None:
            return
        self._write()
        self._file.close()
        self._file = None
        name = SegmentName(self._names[self._writer_id], self._first, self._last)
        (self.root / SEGMENTS / ".open").rename(self.root / SEGMENTS / str(name))
