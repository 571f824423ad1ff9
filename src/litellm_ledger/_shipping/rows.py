"""Lines as rows: what a run of lines of one writer is in the database, ready for COPY.

Owns the binary form of a row of ``calls``.  It is made here and not by asyncpg: tags and ``meta``
pass through as they are in the line, what many rows have in common is encoded once, and a time is
a number.  ``_warehouse.as_lines`` is the way back.  Pure: bytes in, bytes out.

PostgreSQL cannot hold U+0000.  A line with it gets U+2400 in its columns, a visible mark, and is
kept as it is in the column ``line``, so that it reads the same again.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
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

from . import fields

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
    "cache_hit",
    "stream",
)
"""Of which there are few values: encoded once for each combination."""
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
_COMMON: Final = (*_FIXED, *_NUMBERS, *_WORDS, *_TEXTS, *_JSON)
COLUMNS: Final = (*_COMMON, *_RARE, *_LAST)
"""The columns of ``calls``, in the order in which rows have them."""

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_FIRST_DAY: Final = -365 * 1_900
_LAST_DAY: Final = 365 * 7_900
"""Days since 2000 of which nobody need ask whether ``datetime`` has them."""
_NO_TIME: Final = -(2**63)
"""What PostgreSQL calls ``-infinity``, in microseconds."""
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_BELOW_1000: Final = [f"{number:03d}" for number in range(1_000)]
_CHUNK: Final = 128
"""Rows in one piece of the stream."""

_packed: Final = struct.Struct(">iqiqiqiqiqiqiqiqid").pack
_NULLS: Final = fields.NULL * (len(_RARE) + len(_LAST))
_ABSENT: Final = msgspec.Raw(b"")
_HOLDS: Final = ("hold_picousd", "hold_tokens", "most_picousd", "most_tokens")


def _members() -> dict[str, tuple[str, Any, Any]]:
    """The members of a line, those with JSON as it is."""
    hints = get_type_hints(Line, include_extras=True)
    needed = {"id", "seq", "kind"}
    found: dict[str, tuple[str, Any, Any]] = {}
    for field in msgspec.structs.fields(Line):
        name = field.encode_name
        if field.name in ("tags", "meta", "content"):
            found[name] = name, msgspec.Raw, _ABSENT
        else:
            default = msgspec.NODEFAULT if name in needed else None
            found[name] = name, hints[field.name], default
    return found


_MEMBERS: Final = _members()
_Members: Final[Any] = msgspec.defstruct(
    "_Members", _MEMBERS.values(), kw_only=True, frozen=True, gc=False, tag_field="v", tag=1
)
_decode: Final = msgspec.json.Decoder(_Members).decode
# What nearly all lines have and nothing else, in the order of a line: that is read the fastest.
_UNUSUAL: Final = {*_RARE, "content", "gap_until", "reason"}.difference(_HOLDS)
_USUAL: Final = [name for name in _MEMBERS if name not in _UNUSUAL]
_NAMES: Final = slice(_USUAL.index("call"), _USUAL.index("error") + 1)
_HELD: Final = slice(_USUAL.index("hold_picousd"), _USUAL.index("most_tokens") + 1)
_Usual: Final[Any] = msgspec.defstruct(
    "_Usual",
    [
        *(_MEMBERS[name] for name in _USUAL),
        ("crc", msgspec.Raw, _ABSENT),
    ],
    kw_only=True,
    frozen=True,
    gc=False,
    tag_field="v",
    tag=1,
    forbid_unknown_fields=True,
)
_decode_usual: Final = msgspec.json.Decoder(_Usual).decode
_NO_HOLDS: Final = (None,) * len(_HOLDS)

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
        self._begins: dict[int, bytes] = {}
        self._ended: tuple[list[int], list[int]] = [], []
        self._named: list[Key] = []
        self.cost_picousd = 0
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

    @property
    def settled(self) -> list[Key]:
        """Of each outcome, which attempt it ends: first those that name it by its number."""
        return [Key(own, None, attempt) for own, attempt in zip(*self._ended, strict=True)] + (
            self._named
        )

    def ended_before(self, first: int) -> list[tuple[int, int]]:
        """Return the calls that end and began before a number: that of each, and the attempt."""
        return [one for one in zip(*self._ended, strict=True) if one[0] < first]

    def ended_by_name(self) -> list[tuple[str, int]]:
        """Return the calls that end and are not named by a number of this writer."""
        return [(name, attempt) for _, name, attempt in self._named if name is not None]

    def running(self) -> list[Started]:
        """Return the calls that begin here and do not end here."""
        if not self.started:
            return []
        ended: set[tuple[int, str | None, int]] = {
            (own, None, attempt) for own, attempt in zip(*self._ended, strict=True)
        }
        ended.update((own or 0, name, attempt) for own, name, attempt in self._named)
        return [one for one in self.started if _key(one) not in ended]

    def extend(  # noqa: C901 - one member after the other, in one frame for speed
        self, numbers: Iterable[int], lines: Iterable[bytes]
    ) -> None:
        """Add lines whose checksums are true, and whose numbers the caller has found to be these.

        Nearly all lines have nothing unusual; those never leave this frame.
        """
        decode, members, pack = _decode_usual, astuple, _packed
        prefix, begins, epoch, known_tags = self._prefix, self._begins, _EPOCH, fields.known_tags
        append, join, combined = self._rows.append, b"".join, fields.known_combinations
        length, null, integer = fields.length, fields.NULL, fields.integer
        end, end_attempt = self._ended[0].append, self._ended[1].append
        known_objects, names, held, no_holds = fields.known_objects, _NAMES, _HELD, _NO_HOLDS
        below_1000, start, at, cost_picousd = _BELOW_1000, "", -1, 0
        for number, raw in zip(numbers, lines, strict=True):
            if self._adds or (b"\\" in raw and b"\\u0000" in raw):
                self._add(number, raw)
                continue
            try:
                values = members(decode(raw))
                (
                    name, seq, kind, ts, operation, attempt, _, _, _, _, _, _,
                    read, written, total, from_cache, to_cache, reasoned,
                    counted, cost, priced, version, hit, hold_picousd, hold_tokens, _, _,
                    latency, waited, stream, tagged, one, two, detail, _,
                ) = values  # fmt: skip
                thousands, below = divmod(number, 1_000)
                if thousands != at:
                    at, start = thousands, f"{prefix}{thousands:013d}"
                own = number if operation == name else self._number_of(operation)
                strange = own is None and operation is not None
                if strange or seq != number or name != start + below_1000[below]:
                    self._add(number, raw)
                    continue
                since = ts - epoch
                days = since.days
                begin = begins.get(days) or self._begin(days)
                if not begin:
                    self._add(number, raw)
                    continue
                data = bytes(tagged)
                tags = known_tags.get(data) or fields.tags_of(data)
                data = bytes(detail)
                meta = known_objects.get(data) or fields.object_of(data)
                if kind == "started":
                    began = ts.astimezone(UTC)
                    self.started.append(
                        Started(number, began, own, None, attempt, hold_picousd, hold_tokens, raw)
                    )
                    continue
                words = values[names]
                said = combined.get(words) or fields.combination(words)
                sources = counted, priced, version, hit, stream
                told = combined.get(sources) or fields.combination(sources)
                if kind != "usage" or words[4] == "unsettled" or values[held] != no_holds:
                    self._add(number, raw)
                    continue
                moment = (days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
            except (AttributeError, TypeError, ValueError):  # not as nearly all are
                self._add(number, raw)
                continue
            try:
                amounts = pack(
                    8, number, 8, moment, 8, own, 8, attempt, 8, cost, 8, read, 8, written,
                    8, total, 8, latency,
                )  # fmt: skip
            except struct.error:  # one of them is not there
                several = number, moment, own, attempt, cost, read, written, total
                amounts = join((*map(fields.number, several), fields.real(latency)))
            first, second = (one or "").encode(), (two or "").encode()
            append(
                join(
                    (
                        begin,
                        amounts,
                        null if from_cache is None else integer(8, from_cache),
                        null if to_cache is None else integer(8, to_cache),
                        null if reasoned is None else integer(8, reasoned),
                        null if waited is None else fields.real(waited),
                        said,
                        told,
                        null,
                        null if one is None else length(len(first)),
                        first,
                        null if two is None else length(len(second)),
                        second,
                        tags,
                        meta,
                    )
                )
            )
            if own is None:
                self._named.append(Key(None, None, attempt or 1))
            else:
                end(own)
                end_attempt(attempt or 1)
            if cost is not None:
                cost_picousd += cost
        self.cost_picousd += cost_picousd

    def _begin(self, days: int) -> bytes:
        """Return what rows of a day begin with; nothing, where its month has no partition.

        Args:
            days: since 2000.
        """
        if not _FIRST_DAY <= days <= _LAST_DAY:
            return b""
        day = _EPOCH + timedelta(days)
        month = day.year * 100 + day.month
        made = fields.start(self._writer_id, month) if month in self._months else b""
        self._begins[days] = made
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
            tags, meta = fields.tags_of(bytes(found.tags)), fields.object_of(bytes(found.meta))
            content = fields.object_of(bytes(found.content))
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
        if own is None:
            self._named.append(key)
        else:
            self._ended[0].append(own)
            self._ended[1].append(key.attempt)
        if found.status == "unsettled":
            self.unsettled.append((number, key))
        numbers = number, moment, own, found.attempt, cost
        counts = found.input_tokens, found.output_tokens, found.total_tokens
        self._rows.append(
            b"".join(
                (
                    fields.start(self._writer_id, month),
                    *map(fields.number, numbers),
                    *map(fields.number, counts),
                    fields.real(found.latency_ms),
                    fields.number(found.cache_read_tokens),
                    fields.number(found.cache_write_tokens),
                    fields.number(found.reasoning_tokens),
                    fields.real(found.ttft_ms),
                    *map(fields.word, _words(found)),
                    fields.text(other),
                    fields.text(found.call_id),
                    fields.text(found.response_id),
                    json[0],
                    json[1],
                )
            )
        )
        rare = _rare(found)
        if rare != _NO_RARE or json[2] is not fields.NULL or kept is not None:
            self._extras[len(self._rows) - 1] = b"".join(
                (
                    *(
                        fields.real(value) if name in _FLOATS else fields.number(value)
                        for name, value in zip(_RARE, rare, strict=True)
                    ),
                    json[2],
                    fields.NULL if kept is None else fields.field(kept),
                )
            )

    def _operation(self, number: int, found: Any) -> tuple[int | None, str | None]:
        """Return the number of the call's first record, or its id if that is not this writer's."""
        operation = found.operation
        if operation == found.id:
            return number, None
        own = self._number_of(operation)
        if own is not None:
            return own, None
        return None, operation

    def _number_of(self, operation: str | None) -> int | None:
        """Return the number in an id of this writer: its prefix and 16 digits, nothing else."""
        if operation is None:
            return None
        prefix = self._prefix
        digits = operation[len(prefix) :]
        if (
            len(digits) == 16
            and digits.isascii()
            and digits.isdigit()
            and operation.startswith(prefix)
        ):
            return int(digits)
        return None

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


def _key(one: Started) -> tuple[int, str | None, int]:
    """Return which attempt of which call began; without an operation, of its own."""
    number = 0 if one.operation is not None else one.operation_seq or one.seq
    return number, one.operation, one.attempt or 1


def _marked(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", MARK)
    if isinstance(value, dict):
        return {_marked(key): _marked(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_marked(one) for one in value]
    return value
