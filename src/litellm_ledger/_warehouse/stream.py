"""The lines that a database sends, as they come.

Owns the stream: rows of ``COPY … TO STDOUT (FORMAT binary)`` in pieces of any length, of which one
line is held at a time; and what happens where they cannot be taken, for a full disk or otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zlib import crc32

from litellm_ledger._errors import LedgerPathError
from litellm_ledger._records.line import SEALED

if TYPE_CHECKING:
    import asyncpg

__all__ = ["Row", "RowReader", "sealed", "spool", "stream"]

_HEADER: Final = 11
_AFTER: Final = 8
"""Bytes of the signature, and of the flags and the length of an extension behind it."""
_FIXED: Final = Struct(">hiiiqiqi")
"""Columns, then of each its length and value: writer (4), first number (8), last (8), the line."""
_SIZE: Final = _FIXED.size
_COLUMNS: Final = 4
_PIECE: Final = 2**20


class Row(NamedTuple):
    """A line of a writer: the numbers that it stands for, and its bytes.

    They are those of the ledger, line feed and all; or without the checksum and what is behind.
    """

    writer_id: int
    first: int
    last: int
    line: bytes


class RowReader:
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


def _spooled(path: Path) -> Iterator[Row]:
    reader = RowReader()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield from reader.take(piece)


def sealed(line: bytes) -> bytes:
    """Return the line of a row with its checksum; of no bytes, one that is damaged."""
    return line if line.endswith(b"\n") else SEALED % (line, crc32(line))


async def stream(
    connection: asyncpg.Connection,
    text: str,
    *values: Any,
    put: Callable[[Row], None],
    heard: Callable[[], None] | None = None,
) -> None:
    """Have ``put`` called with each row that a query sends.

    Args:
        connection, text, values: of the query: writer, first number, last number, line.
        put: what it raises is raised here.
        heard: called with each piece.

    Raises:
        LedgerPathError: there was no room for what came.
    """
    reader = RowReader()

    def take(piece: bytes) -> None:
        if heard is not None:
            heard()
        for row in reader.take(piece):
            put(row)

    await _copy_out(connection, text, *values, take=take)


async def spool(
    connection: asyncpg.Connection,
    text: str,
    *values: Any,
    file: Path,
    heard: Callable[[], None],
) -> Iterator[Row]:
    """Write what a query sends to a file, and return its rows; else as ``stream``."""
    with file.open("wb") as written:

        def take(piece: bytes) -> None:
            heard()
            written.write(piece)

        await _copy_out(connection, text, *values, take=take)
    return _spooled(file)


async def _copy_out(
    connection: asyncpg.Connection, text: str, *values: Any, take: Callable[[bytes], None]
) -> None:
    """Have ``take`` called with each piece that a query sends.

    What it raises is raised here, once all is read: where it goes through asyncpg, that waits for
    the rest without end.
    """
    failed: list[Exception] = []

    async def output(piece: bytes) -> None:
        if not failed:
            try:
                take(piece)
            except Exception as exc:  # noqa: BLE001 - it is raised below, whatever it is
                failed.append(exc)

    await connection.copy_from_query(text, *values, output=output, format="binary")
    for exc in failed:
        if isinstance(exc, OSError):
            raise LedgerPathError(
                f"what the database sends cannot be written down: {exc.strerror or exc}; make room "
                "in the directory for temporary files, or name another by TMPDIR"
            ) from exc
        raise exc
