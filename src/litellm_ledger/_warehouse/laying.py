"""Rows that come from a database, laid out as the segments of a temporary ledger.

Owns the files: lines ascending by number in segments of their writer, whole, with their checksums,
as every reader of a ledger expects them.  Rows come as ``COPY … TO STDOUT (FORMAT binary)`` sends
them, sorted by writer and number, in pieces of any length; one line is held at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import BinaryIO, Final, NamedTuple, Self
from zlib import crc32

from litellm_ledger._records.layout import (
    LIVE,
    SEGMENTS,
    SegmentName,
    is_writer,
    live_name,
)
from litellm_ledger._records.line import SEALED
from litellm_ledger._storage.live_file import lock, unlock

__all__ = ["Laid", "Row", "Rows", "sealed", "spooled"]

_HEADER: Final = 11
_AFTER: Final = 8
"""Bytes of the signature, and of the flags and the length of an extension behind it."""
_FIXED: Final = Struct(">hiiiqiqi")
"""Columns, then of each its length and value: writer (4), first number (8), last (8), the line."""
_SIZE: Final = _FIXED.size
_COLUMNS: Final = 4
_PIECE: Final = 2**20
_SEGMENT: Final = 256 * 2**20
"""Bytes after which a segment ends."""
_NUMBERS: Final = 10**16
"""Numbers are below: an id has 16 digits."""


class Row(NamedTuple):
    """A line of a writer: the numbers that it stands for, and its bytes.

    They are those of the ledger, line feed and all; or without the checksum and what is behind.
    """

    writer_id: int
    first: int
    last: int
    line: bytes


class Rows:
    """Takes pieces of a stream and gives out its rows."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False

    def take(self, piece: bytes) -> Iterator[Row]:
        """Yield the rows that are whole now."""
        data = self._rest + piece if self._rest else piece
        at = 0
        if not self._begun:
            if len(data) < _HEADER + _AFTER:
                self._rest = data
                return
            at = _HEADER + _AFTER + int.from_bytes(data[15:19], "big")
            self._begun = True
        end, unpack = len(data), _FIXED.unpack_from
        while at + _SIZE <= end:
            columns, _, writer_id, _, first, _, last, length = unpack(data, at)
            if columns != _COLUMNS:
                break
            start = at + _SIZE
            if start + length > end:
                break
            at = start + length
            yield Row(writer_id, first, last, data[start:at])
        self._rest = data[at:]


def spooled(path: Path) -> Iterator[Row]:
    """Yield the rows of a stream that was written to a file."""
    rows = Rows()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield from rows.take(piece)


def sealed(line: bytes) -> bytes:
    """Return the line of a row with its checksum; of no bytes, one that is damaged."""
    return line if line.endswith(b"\n") else SEALED % (line, crc32(line))


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
