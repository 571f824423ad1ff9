"""Rows of ``calls`` as the lines that they were.

Owns the columns that are asked for, and what they become.  Members that a line had and no version
knows are not kept, and the order of tags is not; everything else reads the same.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from zlib import crc32

import msgspec

from litellm_ledger._archive.columns import OF_RECORD
from litellm_ledger._records.layout import record_id
from litellm_ledger._records.line import SEALED

__all__ = ["SELECTED", "line_back"]

_FIRST: Final = ("id", "seq", "kind", "ts", "operation")
_JSON: Final = ("tags", "meta", "content")
_PLAIN: Final = tuple(name for name in OF_RECORD if name not in (*_FIRST, *_JSON))

SELECTED: Final = (
    "line",
    "seq",
    "operation_seq",
    "NULLIF(ts, '-infinity') AS ts",
    "operation",
    *_PLAIN,
    *_JSON,
)
"""What to select, in this order, for ``line_back``."""

_Stored: Final[Any] = msgspec.defstruct(
    "_Stored",
    [(name, Any, None) for name in (*_FIRST, *_PLAIN, *_JSON)],
    omit_defaults=True,
    gc=False,
    tag_field="v",
    tag=1,
)
_BEFORE: Final = 5
_BEHIND: Final = -len(_JSON)
_encode: Final = msgspec.json.Encoder().encode


def line_back(writer: str, row: Sequence[Any]) -> bytes:
    """Return the line of a row, line feed included.

    Args:
        writer: the name of its writer.
        row: the values of ``SELECTED``; times are in UTC.
    """
    kept, seq, operation_seq, ts, operation = row[:_BEFORE]
    if kept is not None:
        return bytes(kept)
    if operation_seq is not None:
        operation = record_id(writer, operation_seq)
    if ts is not None and not ts.microsecond:  # else the encoder leaves out the fraction
        ts = ts.isoformat(timespec="microseconds").replace("+00:00", "Z")
    tags, meta, content = row[_BEHIND:]
    stored = _Stored(
        record_id(writer, seq),
        seq,
        "usage",
        ts,
        operation,
        *row[_BEFORE:_BEHIND],
        None if tags is None else msgspec.Raw(tags.encode()),
        None if meta is None else msgspec.Raw(meta.encode()),
        None if content is None else msgspec.Raw(content.encode()),
    )
    body = _encode(stored)[:-1]
    return SEALED % (body, crc32(body))
