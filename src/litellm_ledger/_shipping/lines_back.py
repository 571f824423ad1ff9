"""Rows of ``calls`` as the lines that they were.

Owns the columns that are asked for, and what they become.  Members that a line had and no version
knows are not kept, and the order of tags is not; everything else reads the same.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from zlib import crc32

import msgspec

from litellm_ledger._archive.columns import OF_RECORD
from litellm_ledger._records.layout import record_id
from litellm_ledger._records.line import SEALED

__all__ = ["SELECTED", "line_back"]

_NOT_COLUMNS: Final = ("id", "seq", "kind", "operation")
_PLAIN: Final = tuple(name for name in OF_RECORD if name not in _NOT_COLUMNS)
_TS: Final = "NULLIF(ts, '-infinity') AS ts"

SELECTED: Final = (
    "seq",
    "operation_seq",
    "operation",
    "line",
    *(_TS if name == "ts" else name for name in _PLAIN),
)
"""What to select, in this order, for ``line_back``."""

_BEFORE: Final = 4
_JSON: Final = frozenset({"tags", "meta", "content"})
_AT: Final = tuple((at, name) for at, name in enumerate(_PLAIN, _BEFORE) if name not in _JSON)
_JSON_AT: Final = tuple((at, name) for at, name in enumerate(_PLAIN, _BEFORE) if name in _JSON)

_encode: Final = msgspec.json.Encoder().encode


def line_back(writer: str, row: Sequence[Any]) -> bytes:
    """Return the line of a row, line feed included.

    Args:
        writer: the name of its writer.
        row: the values of ``SELECTED``.
    """
    seq, operation_seq, operation, kept = row[:_BEFORE]
    if kept is not None:
        return bytes(kept)
    members: dict[str, Any] = {
        "v": 1,
        "id": record_id(writer, seq),
        "seq": seq,
        "kind": "usage",
    }
    if operation_seq is not None:
        members["operation"] = record_id(writer, operation_seq)
    elif operation is not None:
        members["operation"] = operation
    for at, name in _AT:
        value = row[at]
        if value is not None:
            members[name] = value
    ts: datetime | None = members.get("ts")
    if ts is not None:
        members["ts"] = ts.isoformat(timespec="microseconds").replace("+00:00", "Z")
    for at, name in _JSON_AT:
        if row[at] is not None:
            members[name] = msgspec.Raw(row[at].encode())
    body = _encode(members)[:-1]
    return SEALED % (body, crc32(body))
