"""One line of a segment: record to bytes and bytes to record (format version 1, docs/FORMAT.md).

A line is a JSON object on one line whose last member is its checksum, a fixed 19-byte suffix:

    {"v":1,"id":"…","seq":1,"kind":"usage",…,"crc":"0123abcd"}\n
                                           └────── 19 bytes ──┘

``crc`` is ``zlib.crc32`` of everything before the suffix, in lower-case hex.  The checksum is
checked on the bytes, before any JSON is parsed, so a torn or altered line is never half-believed.
Pure: bytes and records, no I/O.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final
from zlib import crc32

import msgspec
from msgspec.structs import asdict, force_setattr

from litellm_ledger._errors import InvalidRecord, UnsupportedFormat

from .money import MAX_PICOUSD, usd, whole
from .nesting import DEEPEST, nests_deeper
from .record import MAX_CONTENT, Fields, Kind, Number, UsageRecord

__all__ = [
    "LEVELS",
    "SEALED",
    "SUFFIX",
    "Line",
    "Moment",
    "Picousd",
    "checked",
    "decode",
    "encode",
    "encode_own",
    "framed",
    "line_of",
    "newer_version",
]

Picousd = Annotated[int, msgspec.Meta(ge=-MAX_PICOUSD, le=MAX_PICOUSD)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]

SUFFIX: Final = 19
"""Length in bytes of ``,"crc":"xxxxxxxx"}`` and the line feed."""

SEALED: Final = b'%b,"crc":"%08x"}\n'
"""A line, of its bytes up to the suffix and their checksum."""

LEVELS: Final = DEEPEST + 1
"""Levels of a line: the record is the first."""


class Line(Fields, frozen=True, kw_only=True, gc=False, tag_field="v", tag=1):
    """A line as it is on disk: the fields of ``UsageRecord``, money in whole picodollars.

    Its types refuse what ``UsageRecord`` refuses, in a tenth of the time that making one takes.
    """

    id: str
    seq: Number
    kind: Kind
    ts: Moment | None = None
    cost: Picousd | None = None  # type: ignore[assignment]
    saved_cost: Picousd | None = None  # type: ignore[assignment]
    tags: dict[str, str] | None = None  # type: ignore[assignment]
    meta: dict[str, Any] | None = None  # type: ignore[assignment]


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Line).decode


def encode(record: UsageRecord) -> bytes:
    """Encode one numbered record as one line, line feed included."""
    return encode_own(record.__copy__(), _pico(record.cost))


def encode_own(record: UsageRecord, cost_picousd: int | None) -> bytes:
    """Encode a record that nobody else holds, and that is of no use afterwards.

    The encoder writes what a slot holds, under the name on disk.  So money becomes its integer of
    picodollars; and a ``ts`` on a whole second, whose fraction the encoder would leave out, becomes
    text, so that times have one width and sort as text.

    Raises:
        InvalidRecord: a value nests too deep; it was changed after the record was made.
    """
    if cost_picousd is not None:
        force_setattr(record, "cost", cost_picousd)
    if record.saved_cost is not None:
        force_setattr(record, "saved_cost", _pico(record.saved_cost))
    ts = record.ts
    if ts is not None and not ts.microsecond:
        force_setattr(record, "ts", ts.isoformat(timespec="microseconds").replace("+00:00", "Z"))
    text = _encode(record)
    if text.count(b"{") + text.count(b"[") > LEVELS and nests_deeper(text, LEVELS):
        raise InvalidRecord(f"a value nests more than {DEEPEST} levels deep")
    body = text[:-1]
    return SEALED % (body, crc32(body))


def _pico(cost: Decimal | None) -> int | None:
    return None if cost is None else whole(cost)


def checked(line: bytes) -> bool:
    """Tell whether ``line``, line feed included, can be a record.

    Its suffix is well-formed, its checksum true, and it does not nest too deep to be parsed.
    """
    return framed(line) and not nests_deeper(line, LEVELS)


def framed(line: bytes) -> bool:
    """Tell whether the suffix of ``line`` is well-formed, and its checksum true."""
    return len(line) > SUFFIX and line[-SUFFIX:] == b',"crc":"%08x"}\n' % crc32(line[:-SUFFIX])


def decode(line: bytes) -> UsageRecord:
    """Decode one line.

    Raises:
        InvalidRecord: checksum, suffix or schema do not hold; the text says which.
        UnsupportedFormat: a valid line of a newer format version.
    """
    if not checked(line):
        raise InvalidRecord("line has no valid checksum")
    try:
        fields = asdict(_decode(line))
        for name in ("cost", "saved_cost"):
            if fields[name] is not None:
                fields[name] = usd(fields[name])
        return UsageRecord(**fields)
    except (msgspec.DecodeError, InvalidRecord, ValueError, OverflowError) as exc:
        version = newer_version(line)
        if version is not None:
            raise UnsupportedFormat(
                f"line is of format version {version}; this library reads version 1: upgrade it"
            ) from None
        raise InvalidRecord(f"line is checksummed but not a record: {exc}") from None


def line_of(raw: bytes) -> Line | None:
    """Return the line of bytes whose checksum is true; ``None`` if they hold no record.

    ``decode`` makes a ``UsageRecord`` of every line that this returns.
    """
    try:
        line = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if line.kind != "gap" and (line.gap_until is not None or line.reason is not None):
        return None
    # What no type says, and hardly ever happens: an answer that is too long, a time that is in no
    # year of UTC.
    odd = len(raw) > MAX_CONTENT and line.content is not None
    if odd or (line.ts is not None and line.ts.year in (1, 9999)):
        try:
            decode(raw)
        except InvalidRecord:
            return None
    return line


def newer_version(line: bytes) -> int | None:
    """Return the format version of a line if it is newer than ours, else ``None``.

    Only a true checksum is believed: a flipped bit in ``"v":1`` makes no newer version.
    """
    if not checked(line):
        return None
    try:
        members: Any = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    version = members.get("v") if isinstance(members, dict) else None
    return version if isinstance(version, int) and version > 1 else None
