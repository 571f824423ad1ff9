"""Lines as rows: what a run of lines of one writer is in the database, ready for COPY.

Owns the binary form of a row of ``calls``.  It is made here and not by asyncpg: tags and ``meta``
pass through as they are in the line, what many rows have in common is encoded once, and a time is
a number.  ``as_lines`` is the way back.  Pure: bytes in, bytes out.

PostgreSQL cannot hold U+0000.  A line with it gets U+2400 in its columns, a visible mark, and is
kept as it is in the column ``line``, so that it reads the same again.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Final, NamedTuple, get_type_hints
from zlib import crc32

import msgspec
from msgspec.structs import astuple

from litellm_ledger._records.adjustment import erased_of
from litellm_ledger._records.audit import addition_of
from litellm_ledger._records.gaps import Gap
from litellm_ledger._records.layout import ADJUSTMENTS
from litellm_ledger._records.line import SEALED, Line, line_of
from litellm_ledger._records.record import MAX_CONTENT
from litellm_ledger._records.scan import Head

__all__ = ["COLUMNS", "MARK", "Addition", "Key", "Rows", "Started"]

MARK: Final = "\u2400"
"""What stands in a column for U+0000."""

_FIXED: Final = (
    "writer_id",
    "month",
    "seq",
    "ts",
    "operation_seq",
    "attempt",
    "cost_picousd",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "latency_ms",
)
"""Numbers that nearly every outcome has: packed in one go."""
_NUMBERS: Final = ("cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "ttft_ms")
_FLAGS: Final = ("cache_hit", "stream")
_WORDS: Final = (
    "call",
    "model",
    "response_model",
    "provider",
    "status",
    "error",
    "usage_source",
    "cost_source",
    "price_version",
)
"""Texts of which there are few: encoded once for each combination."""
_TEXTS: Final = ("operation", "call_id", "response_id")
_JSON: Final = ("tags", "meta")
_RARE: Final = (
    "saved_cost_picousd",
    "hold_picousd",
    "hold_tokens",
    "most_picousd",
    "most_tokens",
    "images",
    "audio_seconds",
    "characters",
    "pages",
    "search_units",
)
_LAST: Final = ("content", "line")
_COMMON: Final = (*_FIXED, *_NUMBERS, *_FLAGS, *_WORDS, *_TEXTS, *_JSON)
COLUMNS: Final = (*_COMMON, *_RARE, *_LAST)
"""The columns of ``calls``, in the order in which rows have them."""

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_NO_TIME: Final = -(2**63)
"""What PostgreSQL calls ``-infinity``, in microseconds."""
_NULL: Final = b"\xff\xff\xff\xff"
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_CHUNK: Final = 128
"""Rows in one piece of the stream."""
_KEPT: Final = 4_096
"""Encoded values that are kept, each of at most ``_LONGEST`` bytes."""
_LONGEST: Final = 512

_length: Final = struct.Struct(">i").pack
_int: Final = struct.Struct(">iq").pack
_float: Final = struct.Struct(">id").pack
_first: Final = struct.Struct(">iiii").pack
_packed: Final = struct.Struct(">iqiqiqiqiqiqiqiqid").pack
_NULLS: Final = _NULL * (len(_RARE) + len(_LAST))
_BOOL: Final = {None: _NULL, False: b"\0\0\0\1\0", True: b"\0\0\0\1\1"}
_ABSENT: Final = msgspec.Raw(b"")


def _members() -> list[tuple[str, Any, Any]]:
    """The members of a line, those with JSON as it is."""
    hints = get_type_hints(Line, include_extras=True)
    needed = {"id", "seq", "kind"}
    found: list[tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(Line):
        name = field.encode_name
        if field.name in ("tags", "meta", "content"):
            found.append((name, msgspec.Raw, _ABSENT))
        else:
            default = msgspec.NODEFAULT if name in needed else None
            found.append((name, hints[field.name], default))
    return found


_Members: Final[Any] = msgspec.defstruct(
    "_Members", _members(), kw_only=True, frozen=True, gc=False, tag_field="v", tag=1
)
_decode: Final = msgspec.json.Decoder(_Members).decode
# Where members are in the tuple of them all; ``extend`` unpacks it.
_ORDER: Final = {name: at for at, (name, _, _) in enumerate(_members())}
_STATUS: Final = _ORDER["status"]
_NAMES: Final = slice(_ORDER["call"], _ORDER["error"] + 1)
_UNITS: Final = slice(_ORDER["images"], _ORDER["search_units"] + 1)
_HOLDS: Final = slice(_ORDER["saved_cost_picousd"], _ORDER["most_tokens"] + 1)
_REST: Final = slice(_ORDER["content"], len(_ORDER))
_NO_UNITS: Final = (None,) * (_UNITS.stop - _UNITS.start)
_NO_HOLDS: Final = (None,) * (_HOLDS.stop - _HOLDS.start)
_NO_REST: Final = (_ABSENT, None, None)

_tags: Final = msgspec.json.Decoder(dict[str, str] | None).decode
_object: Final = msgspec.json.Decoder(dict[str, Any] | None).decode
_head: Final = msgspec.json.Decoder(Head).decode
_words: Final = attrgetter(*_WORDS)
_rare: Final = attrgetter(*_RARE)
_NO_RARE: Final = (None,) * len(_RARE)
_FLOATS: Final = frozenset({"audio_seconds"})


class Key(NamedTuple):
    """Which attempt of which call a record is about; of a ``started`` and its outcome the same."""

    operation_seq: int | None
    operation: str | None
    attempt: int


class Started(NamedTuple):
    """A row of ``in_flight``, without its writer."""

    seq: int
    ts: datetime | None
    operation_seq: int | None
    operation: str | None
    attempt: int | None
    hold_picousd: int | None
    hold_tokens: int | None
    line: bytes


class Addition(NamedTuple):
    """A row of ``additions``, without its writer."""

    seq: int
    kind: str
    ts: datetime | None
    line: bytes


class Rows:
    """What lines of one writer, ascending, are in the database.

    Args:
        writer: its name.
        writer_id: what the database calls it.
        months: those that have a partition, as 202611; rows of others are of month 0.

    Attributes:
        cost_picousd: the sum of their costs.
        settled: of each outcome, in their order, which attempt it ends.
        unsettled: of each outcome that recovery wrote, its number and which attempt it ends.
        started: rows of ``in_flight``; ``gaps``, ``additions``: of the tables of these names.
        damaged: numbers of lines that hold no record, ascending.
        missing: months that rows would be of if these had a partition.
    """

    def __init__(self, writer: str, writer_id: int, months: Collection[int]) -> None:
        self._prefix = f"{writer}-"
        self._adds = writer.startswith(ADJUSTMENTS)
        self._writer_id = writer_id
        self._months = months
        self._rows: list[bytes] = []
        self._extras: dict[int, bytes] = {}
        self.cost_picousd = 0
        self.settled: list[Key | tuple[int, None, int]] = []
        self.unsettled: list[tuple[int, Key]] = []
        self.started: list[Started] = []
        self.gaps: list[Gap] = []
        self.additions: list[Addition] = []
        self.damaged: list[int] = []
        self.missing: set[int] = set()

    @property
    def outcomes(self) -> int:
        """How many rows of ``calls`` there are."""
        return len(self._rows)

    def extend(self, numbers: Iterable[int], lines: Iterable[bytes]) -> None:
        """Add lines whose checksums are true, and whose numbers the caller has found to be these.

        Nearly all lines are outcomes without anything unusual; those never leave this frame.
        """
        decode, pack, fields, combined = _decode, _packed, astuple, _combinations
        prefix, months, epoch = self._prefix, self._months, _EPOCH
        append, settle, join = self._rows.append, self.settled.append, b"".join
        null, length, integer, real, flags = _NULL, _length, _int, _float, _BOOL
        size, cost_picousd = len(prefix), 0
        begun: dict[int, bytes] = {}
        for number, raw in zip(numbers, lines, strict=True):
            if self._adds or b"\\" in raw:
                self._add(number, raw)
                continue
            try:
                values = fields(decode(raw))
                (
                    name, seq, kind, ts, operation, attempt, _, _, _, _, _, _,
                    read, written, total, from_cache, to_cache, reasoned, _, _, _, _, _,
                    counted, cost, priced, version, hit, _, _, _, _, _,
                    latency, waited, stream, tagged, one, two, detail, _, _, _,
                ) = values  # fmt: skip
                month = ts.year * 100 + ts.month
                own = number
                if operation != name:  # of a record before: prefix and 16 digits, nothing else
                    digits = operation[size:]
                    own = int(digits)
                    if (
                        len(digits) != 16
                        or not digits.isdecimal()
                        or not digits.isascii()
                        or not operation.startswith(prefix)
                    ):
                        self._add(number, raw)
                        continue
                if (
                    kind != "usage"
                    or month not in months
                    or ts.tzinfo is not UTC
                    or seq != number
                    or name != f"{prefix}{number:016d}"
                    or values[_STATUS] == "unsettled"
                    or values[_UNITS] != _NO_UNITS
                    or values[_HOLDS] != _NO_HOLDS
                    or values[_REST] != _NO_REST
                ):
                    self._add(number, raw)
                    continue
                since = ts - epoch
                moment = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
                amounts = pack(
                    8, number, 8, moment, 8, own, 8, attempt, 8, cost, 8, read, 8, written,
                    8, total, 8, latency,
                )  # fmt: skip
                data = bytes(tagged)
                tags = _known_tags.get(data) or _of_tags(data)
                data = bytes(detail)
                meta = _known_objects.get(data) or _of_object(data)
            except (AttributeError, TypeError, ValueError, struct.error):  # not as nearly all are
                self._add(number, raw)
                continue
            words = values[_NAMES]
            sources = counted, priced, version
            if one is None or two is None:
                ids = _text(one) + _text(two)
            else:
                first, second = one.encode(), two.encode()
                ids = join((length(len(first)), first, length(len(second)), second))
            append(
                join(
                    (
                        begun.get(month) or self._begin(begun, month),
                        amounts,
                        null if from_cache is None else integer(8, from_cache),
                        null if to_cache is None else integer(8, to_cache),
                        null if reasoned is None else integer(8, reasoned),
                        null if waited is None else real(8, waited),
                        flags[hit],
                        flags[stream],
                        combined.get(words) or _combination(words),
                        combined.get(sources) or _combination(sources),
                        null,
                        ids,
                        tags,
                        meta,
                    )
                )
            )
            settle((own, None, attempt))
            cost_picousd += cost
        self.cost_picousd += cost_picousd

    def _begin(self, begun: dict[int, bytes], month: int) -> bytes:
        """Return what rows of a month begin with."""
        begun[month] = made = _first(4, self._writer_id, 4, month)
        return made

    def chunks(self) -> Iterator[bytes]:
        """Yield the rows of ``calls`` as ``COPY … FROM STDIN (FORMAT binary)`` reads them."""
        rows, extras = self._rows, self._extras
        yield _SIGNATURE
        for first in range(0, len(rows), _CHUNK):
            part = rows[first : first + _CHUNK]
            if extras:
                part = [row + extras.get(at, _NULLS) for at, row in enumerate(part, first)]
            yield self._count.join([b"", *part])
        yield _TRAILER

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that the rows have; what none of them has is left out."""
        return COLUMNS if self._extras else _COMMON

    @property
    def _count(self) -> bytes:
        return len(self.columns).to_bytes(2, "big")

    # -- one line --------------------------------------------------------------------------------

    def _add(self, number: int, raw: bytes) -> None:
        """Add any line."""
        if self._adds:
            self._add_addition(number, raw)
        elif b"\\u0000" not in raw or not self._add_marked(number, raw):
            self._add_line(number, raw, None)

    def _add_line(self, number: int, raw: bytes, kept: bytes | None) -> None:
        """Add a line that is no addition; ``kept`` is what the column ``line`` has of it."""
        try:
            found = _decode(raw)
            tags, meta = _of_tags(bytes(found.tags)), _of_object(bytes(found.meta))
            content = _of_object(bytes(found.content))
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.damaged.append(number)
            return
        if not self._is_record(found, number, kept or raw):
            self.damaged.append(number)
        elif found.kind == "usage":
            self._add_outcome(number, found, (tags, meta, content), kept)
        elif found.kind == "started":
            self._add_started(number, found, kept or raw)
        else:
            self.gaps.append(Gap.of(_head(raw)))

    def _is_record(self, found: Any, number: int, raw: bytes) -> bool:
        """Whether it is what ``line_of`` takes for one, with this number."""
        if found.seq != number or found.id != f"{self._prefix}{number:016d}":
            return False
        if found.kind != "gap" and (found.gap_until is not None or found.reason is not None):
            return False
        ts = found.ts
        odd = len(raw) > MAX_CONTENT and found.content is not _ABSENT
        if odd or (ts is not None and ts.year in (1, 9999)):
            return line_of(raw) is not None
        return True

    def _add_outcome(
        self, number: int, found: Any, json: tuple[bytes, bytes, bytes], kept: bytes | None
    ) -> None:
        ts = found.ts
        month, moment = 0, _NO_TIME
        if ts is not None:
            if ts.tzinfo is not UTC:
                ts = ts.astimezone(UTC)
            since = ts - _EPOCH
            moment = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
            month = ts.year * 100 + ts.month
            if month not in self._months:
                self.missing.add(month)
                month = 0
        own, other = self._operation(number, found)
        cost = found.cost_picousd
        if cost is not None:
            self.cost_picousd += cost
        key = Key(own, other, found.attempt or 1)
        self.settled.append(key)
        if found.status == "unsettled":
            self.unsettled.append((number, key))
        numbers = number, moment, own, found.attempt, cost
        counts = found.input_tokens, found.output_tokens, found.total_tokens
        self._rows.append(
            b"".join(
                (
                    _first(4, self._writer_id, 4, month),
                    *map(_number, numbers),
                    *map(_number, counts),
                    _real(found.latency_ms),
                    _number(found.cache_read_tokens),
                    _number(found.cache_write_tokens),
                    _number(found.reasoning_tokens),
                    _real(found.ttft_ms),
                    _BOOL[found.cache_hit],
                    _BOOL[found.stream],
                    *map(_text, _words(found)),
                    _text(other),
                    _text(found.call_id),
                    _text(found.response_id),
                    json[0],
                    json[1],
                )
            )
        )
        rare = _rare(found)
        if rare != _NO_RARE or json[2] is not _NULL or kept is not None:
            self._extras[len(self._rows) - 1] = b"".join(
                (
                    *(
                        _real(value) if name in _FLOATS else _number(value)
                        for name, value in zip(_RARE, rare, strict=True)
                    ),
                    json[2],
                    _NULL if kept is None else _field(kept),
                )
            )

    def _operation(self, number: int, found: Any) -> tuple[int | None, str | None]:
        """Return the number of the call's first record, or its id if that is not this writer's."""
        operation = found.operation
        if operation == found.id:
            return number, None
        if operation is None:
            return None, None
        prefix = self._prefix
        digits = operation[len(prefix) :]
        if (
            len(digits) == 16
            and digits.isascii()
            and digits.isdigit()
            and operation.startswith(prefix)
        ):
            return int(digits), None
        return None, str(operation)

    def _add_started(self, number: int, found: Any, raw: bytes) -> None:
        ts = found.ts
        own, other = self._operation(number, found)
        self.started.append(
            Started(
                number,
                None if ts is None else ts.astimezone(UTC),
                own,
                other,
                found.attempt,
                found.hold_picousd,
                found.hold_tokens,
                raw,
            )
        )

    def _add_addition(self, number: int, raw: bytes) -> None:
        found = addition_of(raw) or erased_of(raw)
        if found is None or (found.seq, found.id) != (number, f"{self._prefix}{number:016d}"):
            self.damaged.append(number)
        else:
            self.additions.append(Addition(number, found.kind, found.at.astimezone(UTC), raw))

    def _add_marked(self, number: int, raw: bytes) -> bool:
        """Add a line that has U+0000 in a text, with marks; tell whether it has."""
        line = line_of(raw)
        if line is None:
            return False
        plain = msgspec.to_builtins(line)
        marked = _marked(plain)
        if marked == plain:
            return False
        body = msgspec.json.encode(marked)[:-1]
        self._add_line(number, SEALED % (body, crc32(body)), raw)
        return True


_combinations: dict[tuple[str | None, ...], bytes] = {}
_known_tags: dict[bytes, bytes] = {}
_known_objects: dict[bytes, bytes] = {}


def _number(value: int | None) -> bytes:
    return _NULL if value is None else _int(8, value)


def _real(value: float | None) -> bytes:
    return _NULL if value is None else _float(8, value)


def _field(value: bytes) -> bytes:
    return _length(len(value)) + value


def _text(value: str | None) -> bytes:
    if value is None:
        return _NULL
    data = value.encode()
    return _length(len(data)) + data


def _combination(words: tuple[str | None, ...]) -> bytes:
    made = b"".join(map(_text, words))
    if len(made) <= _LONGEST:
        if len(_combinations) >= _KEPT:
            _combinations.clear()
        _combinations[words] = made
    return made


def _of_tags(data: bytes) -> bytes:
    """Return tags, JSON as in a line, as a field.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError: they are no tags.
    """
    absent = not data or _tags(data) is None
    return _keep(_known_tags, data, _NULL if absent else _field(b"\1" + data))  # jsonb's version


def _of_object(data: bytes) -> bytes:
    """Return an object, JSON as in a line, as a field."""
    absent = not data or _object(data) is None
    return _keep(_known_objects, data, _NULL if absent else _field(data))


def _keep(known: dict[bytes, bytes], data: bytes, made: bytes) -> bytes:
    if len(made) <= _LONGEST:
        if len(known) >= _KEPT:
            known.clear()
        known[data] = made
    return made


def _marked(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", MARK)
    if isinstance(value, dict):
        return {_marked(key): _marked(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_marked(one) for one in value]
    return value
