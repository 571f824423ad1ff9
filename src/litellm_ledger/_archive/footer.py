"""The metadata at the end of an archive file, read without the database, whose import takes longer.

Owns the bytes of Parquet's footer as far as its key-value pairs go.  Reads nothing else.
"""

from __future__ import annotations

import os
from io import BufferedReader
from typing import Final

__all__ = ["read_footer", "value_of"]

_MAGIC: Final = b"PAR1"
_BINARY: Final = b"\x18"
"""Thrift's compact protocol: the next field of a struct, which is a text."""
_END: Final = b"\x00"
_BITS: Final = 35
"""Of the length of a text: seven a byte, and no more than 32 count."""


def read_footer(file: BufferedReader) -> bytes | None:
    """Return the footer of a Parquet file; ``None`` if it is none.

    Raises:
        OSError: it cannot be read.
    """
    end = file.seek(0, os.SEEK_END) - 8
    if end < 4:
        return None
    file.seek(end)
    tail = file.read(8)
    start = end - int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or start < 4:
        return None
    file.seek(start)
    return file.read(end - start)


def value_of(footer: bytes, key: str) -> bytes | None:
    """Return the value of a key; ``None`` if the footer has it not.

    The pairs stand behind the statistics of the columns, where a value of a record may look like
    one (``FileMetaData`` of parquet.thrift: ``row_groups`` is 4, ``key_value_metadata`` 5): the
    last one is ours.
    """
    mark = b"%b%b%b%b" % (_BINARY, bytes([len(key)]), key.encode(), _BINARY)
    at = footer.rfind(mark)
    if at < 0:
        return None
    at += len(mark)
    size = shift = 0
    while shift < _BITS and (byte := footer[at : at + 1]):
        at += 1
        size |= (byte[0] & 127) << shift
        shift += 7
        if byte[0] < 128:
            break
    value = footer[at : at + size]
    return value if footer[at + size : at + size + 1] == _END else None
