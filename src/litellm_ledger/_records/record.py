"""``UsageRecord``: what one language-model call used and cost.

Owns the fields, their defaults and their validity.  Pure: knows nothing of files, clocks, event
loops or LiteLLM.  The struct is also the wire schema of format version 1 (see ``_records.line``):
field order is member order on disk; ``None`` and an empty mapping are unknown and left out, 0 is
zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, get_args
from uuid import UUID

import msgspec
from msgspec.structs import force_setattr, replace

from litellm_ledger._errors import InvalidRecord

from .money import MAX_PICOUSD, picousd, usd
from .nesting import DEEPEST, nests_deeper

__all__ = [
    "CUT_MARK",
    "KEYS",
    "MAX_CONTENT",
    "MAX_INT",
    "MAX_TEXT",
    "Fields",
    "UsageRecord",
    "changed",
    "clean_tags",
    "cut",
    "unchecked",
]

Kind = Literal["started", "usage", "gap"]
Status = Literal["ok", "error", "cancelled", "abandoned", "unsettled", "refused"]
Reason = Literal["lost", "quarantined", "erased", "expired"]
UsageSource = Literal["provider", "estimated", "none"]

KEYS: Final = (
    "model",
    "provider",
    "call",
    "status",
    "response_model",
    "error",
    "usage_source",
    "cost_source",
)
"""The fields that records are grouped by; apart from them there are periods and tags."""

MAX_TEXT: Final = 4_096
"""Characters kept of any text field, tag key or tag value; more is cut with a mark."""

MAX_INT: Final = 2**53 - 1
"""Largest token count taken: what every JSON reader still holds exactly."""

Number = Annotated[int, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)]
Hold = Annotated[int, msgspec.Meta(ge=0, le=MAX_PICOUSD)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_INT)]

MAX_CONTENT: Final = 262_144
"""Bytes of JSON that ``content`` may have; more is refused (the client cuts what it captures)."""

CUT_MARK: Final = "…[cut]"


def _kind() -> Kind:  # a factory, so that msgspec never leaves the member out on disk
    return "usage"


class Fields(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    gc=False,  # holds text, numbers and plain JSON: no cycles to look for
    rename={"cost": "cost_picousd", "saved_cost": "saved_cost_picousd"},
):
    """The fields of a record, told once; ``UsageRecord`` explains them.

    ``Line`` (a record on disk), the columns of the database and the export derive from them.
    """

    id: str | None = None
    seq: Number | None = None
    kind: Kind = msgspec.field(default_factory=_kind)
    ts: datetime | None = None
    operation: str | None = None
    attempt: Count | None = None
    call: str | None = None
    model: str | None = None
    response_model: str | None = None
    provider: str | None = None
    status: Status | None = None
    error: str | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    total_tokens: Count | None = None
    cache_read_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    images: Count | None = None
    audio_seconds: Seconds | None = None
    characters: Count | None = None
    pages: Count | None = None
    search_units: Count | None = None
    usage_source: UsageSource | None = None
    cost: Decimal | None = None
    cost_source: str | None = None
    price_version: str | None = None
    cache_hit: bool | None = None
    saved_cost: Decimal | None = None
    hold_picousd: Hold | None = None
    hold_tokens: Count | None = None
    most_picousd: Hold | None = None
    most_tokens: Count | None = None
    latency_ms: float | None = None
    ttft_ms: float | None = None
    stream: bool | None = None
    tags: Mapping[str, str] = msgspec.field(default_factory=dict)
    call_id: str | None = None
    response_id: str | None = None
    meta: dict[str, Any] = msgspec.field(default_factory=dict)
    content: dict[str, Any] | None = None
    gap_until: Number | None = None
    reason: Reason | None = None


class UsageRecord(
    Fields, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag_field="v", tag=1
):
    """One line of the ledger.  Only what is known must be given; everything else is ``None``.

    ``UsageRecord(model="m", input_tokens=10, output_tokens=5, cost=Decimal("0.0000045"))``

    Attributes:
        id: ``<writer>-<seq:016d>``; assigned by the ledger on acceptance, never by the user.
        seq: the sequence number within its writer, from 1, without holes; assigned by the ledger.
        kind: ``usage`` (an outcome), ``started`` (a request is about to leave), ``gap``.
        ts: when the attempt began, timezone-aware, UTC on disk, to the microsecond.
        operation: id of the first record of the call it belongs to.
        attempt: which request of that operation, from 1.
        call: name of the client method, for example ``acompletion``.
        model: the model that was asked for; ``response_model`` the one that answered.
        provider: LiteLLM's provider name, for example ``openai``.
        status: ``ok``, ``error``, ``cancelled``, ``abandoned`` (a stream left early),
            ``unsettled`` (started, and the process died) or ``refused`` (by a budget; nothing was
            sent).
        error: class name of the exception; never its text, which may carry secrets.
        input_tokens, output_tokens, total_tokens: counts; input includes cached ones.
        cache_read_tokens, cache_write_tokens: the parts of the input read from and written to the
            provider's prompt cache; reasoning_tokens: the part of the output spent on reasoning.
        images, audio_seconds, characters, pages, search_units: what is billed by other units than
            tokens: images made, seconds of audio input, characters spoken, pages read,
            searches (rerank).  Whole numbers, except for the seconds.
        usage_source: who counted: ``provider``, ``estimated`` (this library) or ``none``.
        cost: US dollars, exact, rounded half-even to 10⁻¹² once; ``None`` is unknown, 0 is free.
        cost_source: where the cost is from, for example ``price_map``, ``user``, ``provider``.
        price_version: the revision of the price list used.
        cache_hit, saved_cost: answered from a response cache, and the US dollars not spent.
        hold_picousd, hold_tokens: what budgets hold for the call: picodollars (10⁻¹² US dollars)
            and tokens; of an outcome, that they count all of it as spent, because what the call
            cost is not known for certain.
        most_picousd, most_tokens: of a ``started`` record: what the call may cost at most, where
            less is held.
        latency_ms, ttft_ms: milliseconds to the end of the answer, and to its first token.
        stream: whether the answer was streamed.
        tags: the caller's own labels, text to text; empty, never ``None``, when there are none.
        call_id: the caller's own key (LiteLLM's ``litellm_call_id`` for calls made by a client).
        response_id: the provider's id of the answer.
        meta: further JSON-serialisable detail; empty, never ``None``, when there is none.
        content: request and answer, only where the caller asked for that to be stored.
        gap_until, reason: on ``gap`` lines only: the last number that the gap covers, and why.

    Raises:
        InvalidRecord: negative or implausible counts, money that is not a ``Decimal`` (a ``float``
            has already lost digits), a naive ``ts``, tags or ``meta`` JSON cannot hold,
            ``meta`` or ``content`` nested more than 64 levels deep.
    """

    if TYPE_CHECKING:  # msgspec's own, missing from its annotations

        def __copy__(self) -> Self: ...

    def __post_init__(self) -> None:  # noqa: C901 - one field after the other, in one function for speed
        put = force_setattr  # frozen for the user; completed here, before anybody has seen it
        for value in _counts(self):
            if value is not None and (type(value) is not int or not 0 <= value <= MAX_INT):
                self._refuse_count()
        if self.hold_picousd is not None:
            _check_count("hold_picousd", self.hold_picousd, MAX_PICOUSD)
        if self.most_picousd is not None:
            _check_count("most_picousd", self.most_picousd, MAX_PICOUSD)
        for value in _texts(self):
            if value is not None and (
                type(value) is not str or len(value) > MAX_TEXT or not value.isascii()
            ):
                self._cut_texts(put)
                break
        if self.audio_seconds is not None:
            put(self, "audio_seconds", _check_seconds("audio_seconds", self.audio_seconds))
        if self.cost is not None:
            put(self, "cost", _check_money("cost", self.cost))
        if self.saved_cost is not None:
            put(self, "saved_cost", _check_money("saved_cost", self.saved_cost))
        for value, (name, known) in zip(_words(self), _WORDS, strict=True):
            if value is None:
                continue
            if value not in known:
                raise InvalidRecord(f"{name} must be one of {', '.join(known)}, not {value!r}")
            if type(value) is not str:
                put(self, name, str.__str__(value))  # an enum member, say: plain text is stored
        flags: Any = (("stream", self.stream), ("cache_hit", self.cache_hit))
        for name, value in flags:
            if value is not None and type(value) is not bool:
                raise InvalidRecord(f"{name} must be True or False, not {value!r}")
        if self.latency_ms is not None:
            put(self, "latency_ms", _duration("latency_ms", self.latency_ms))
        if self.ttft_ms is not None:
            put(self, "ttft_ms", _duration("ttft_ms", self.ttft_ms))
        if self.kind != "gap" and (self.gap_until is not None or self.reason is not None):
            raise InvalidRecord("gap_until and reason are the ledger's own")
        if self.ts is not None and getattr(self.ts, "tzinfo", None) is not UTC:
            if not isinstance(self.ts, datetime):
                raise InvalidRecord(f"ts must be a datetime, not {type(self.ts).__name__}")
            if self.ts.tzinfo is None:
                raise InvalidRecord("ts must be timezone-aware: datetime.now(timezone.utc)")
            put(self, "ts", self.ts.astimezone(UTC))
        if self.ts is not None and type(self.ts) is not datetime:  # pandas.Timestamp and the like
            put(self, "ts", datetime.fromisoformat(self.ts.isoformat()).astimezone(UTC))
        tags: Any = self.tags
        meta: Any = self.meta
        # Our own copies: the caller's may change before they are written.
        put(self, "tags", {} if tags is None or tags == {} else clean_tags(tags))
        put(self, "meta", {} if meta is None or meta == {} else _own_json("meta", meta))
        if self.content is not None:
            put(self, "content", _own_json("content", self.content, MAX_CONTENT))
        if self.kind == "usage":
            self._complete_outcome(put)

    def _cut_texts(self, put: Any) -> None:
        for name, value in zip(_TEXTS, _texts(self), strict=True):
            if value is not None:
                if not isinstance(value, str):
                    raise InvalidRecord(f"{name} must be text, not {type(value).__name__}")
                put(self, name, cut(value))

    def _refuse_count(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None:
                _check_count(name, value)

    def _complete_outcome(self, put: Any) -> None:
        if self.status is None:
            put(self, "status", "ok")
        counted = self.input_tokens is not None or self.output_tokens is not None
        if self.usage_source is None:
            put(self, "usage_source", "provider" if counted else "none")
        if self.total_tokens is None and counted:
            put(self, "total_tokens", (self.input_tokens or 0) + (self.output_tokens or 0))


_COUNTS: Final = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "attempt",
    "images",
    "characters",
    "pages",
    "search_units",
    "hold_tokens",
    "most_tokens",
)
_AMOUNTS: Final = ("hold_picousd", "most_picousd")
_TEXTS: Final = (
    "model",
    "response_model",
    "provider",
    "error",
    "call",
    "operation",
    "cost_source",
    "price_version",
    "call_id",
    "response_id",
)
_WORDS: Final = (
    ("kind", get_args(Kind)),
    ("status", get_args(Status)),
    ("usage_source", get_args(UsageSource)),
    ("reason", get_args(Reason)),
)
_counts: Final = attrgetter(*_COUNTS)
_texts: Final = attrgetter(*_TEXTS)
_words: Final = attrgetter(*[name for name, _ in _WORDS])


_PLAIN: Final[dict[str, type]] = {
    **dict.fromkeys(_COUNTS, int),
    **dict.fromkeys(_TEXTS, str),
    "cost": Decimal,
    **dict.fromkeys(_AMOUNTS, int),
    "kind": str,
    "latency_ms": float,
    "status": str,
    "stream": bool,
    "ts": datetime,
    "ttft_ms": float,
    "usage_source": str,
}
"""The fields that ``changed`` checks by itself, and the type that it takes."""
_OUR_WORDS: Final = {name: known for name, known in _WORDS if name in _PLAIN}


def changed(record: UsageRecord, fields: Mapping[str, Any]) -> UsageRecord:  # noqa: C901 - one type after the other, in one frame for speed
    """``msgspec.structs.replace`` of an outcome or of what it began with.

    Only the fields that change are checked, and the constructor with its forty arguments is left
    alone: when nothing of it is in the processor's caches, that takes a fifth of the time.
    """
    if record.meta or record.content is not None or record.kind == "gap":
        return replace(record, **fields)
    made = record.__copy__()
    put = force_setattr
    put(made, "meta", {})  # of its own, as the tags
    if "tags" not in fields:
        put(made, "tags", dict(record.tags))
    for name, value in fields.items():
        kind = type(value)
        if name in _PLAIN and value is None:
            fine = True
        elif kind is not _PLAIN.get(name):
            fine = False
            if name == "tags":
                value, fine = {} if value is None else clean_tags(value), True
            elif name == "meta" and kind is dict:  # of text alone: nothing to look for in JSON
                value, fine = dict(value), True
                for key, said in value.items():
                    if not (type(key) is type(said) is str and key.isascii() and said.isascii()):
                        fine = False
        elif kind is str:
            words = _OUR_WORDS.get(name)
            fine = value in words if words else len(value) <= MAX_TEXT and value.isascii()
        elif kind is int:
            fine = 0 <= value <= (MAX_PICOUSD if name in _AMOUNTS else MAX_INT)
        elif kind is float:
            fine = 0 <= value < math.inf
        elif kind is Decimal:
            value, fine = _check_money(name, value), True
        else:
            fine = kind is bool or value.tzinfo is UTC
        if not fine:
            return replace(record, **fields)
        put(made, name, value)
    if made.kind == "usage":
        made._complete_outcome(put)  # noqa: SLF001 - this module's own
    return made


def unchecked(record: UsageRecord, fields: Mapping[str, Any]) -> UsageRecord:
    """``changed`` by fields that are as a record keeps them, all of an outcome among them."""
    made = record.__copy__()
    put = force_setattr
    put(made, "tags", dict(record.tags))
    for name, value in fields.items():
        put(made, name, value)
    return made


def cut(text: str) -> str:
    """Return ``text`` as it can be stored: valid Unicode, at most ``MAX_TEXT`` characters."""
    text = str.__str__(text)  # of a subclass, which the encoder refuses, the plain text
    if len(text) > MAX_TEXT:
        text = text[: MAX_TEXT - len(CUT_MARK)] + CUT_MARK
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates become '?'
    return text


def clean_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Copy tags as text to text.

    Numbers and booleans are written as in JSON, a UUID in its usual form, an enum member as its
    value; ``None`` is left out.

    Raises:
        InvalidRecord: the tags are no mapping, or a value is of another type.
    """
    if not isinstance(tags, Mapping):
        raise InvalidRecord(f"tags must be a mapping of text to text, not {type(tags).__name__}")
    clean: dict[str, str] = {}
    for key, value in tags.items():
        while isinstance(value, Enum):
            value = value.value
        if value is None:
            continue
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, (int, float, Decimal, UUID)):
            value = str(value)
        if not isinstance(key, str):
            raise InvalidRecord(f"the name of tag {key!r} must be text, not {type(key).__name__}")
        if not isinstance(value, str):
            raise InvalidRecord(
                f"tag {key!r} has a value of type {type(value).__name__}; "
                "give text, a number, a boolean, a UUID or an enum member"
            )
        clean[cut(key)] = cut(value)
    return clean


def _check_count(name: str, value: Any, most: int = MAX_INT) -> None:
    if type(value) is not int:
        raise InvalidRecord(f"{name} must be a whole number, not {type(value).__name__}")
    if value < 0:
        raise InvalidRecord(f"{name} is negative: {value}")
    if value > most:
        power = most.bit_length()
        raise InvalidRecord(f"{name} is too large: {value} (at most 2**{power} - 1)")


def _check_seconds(name: str, value: Any) -> float | None:
    if type(value) not in (int, float):
        raise InvalidRecord(f"{name} must be a number, not {type(value).__name__}")
    if not (math.isfinite(value) and 0 <= value <= MAX_INT):
        raise InvalidRecord(f"{name} is absurd: {value}")
    return float(value)


def _own_json(name: str, value: Any, most: int | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRecord(f"{name} must be a dict, not {type(value).__name__}")
    try:
        data = msgspec.json.encode(value)
        if nests_deeper(data):
            raise _too_deep(name)
        if most is not None and len(data) > most:
            raise InvalidRecord(f"{name} is larger than {most} bytes of JSON")
        own: dict[str, Any] = msgspec.json.decode(data)
    except RecursionError:
        raise _too_deep(name) from None
    except (TypeError, ValueError, UnicodeError) as exc:
        if isinstance(exc, InvalidRecord):
            raise
        raise InvalidRecord(f"{name} cannot be stored as JSON: {exc}") from None
    return own


def _too_deep(name: str) -> InvalidRecord:
    return InvalidRecord(
        f"{name} nests more than {DEEPEST} levels deep (or contains itself); store it flatter, or "
        "as text"
    )


def _duration(name: str, value: Any) -> float | None:
    value = value if type(value) is float else _plain_float(name, value)
    # after a step of the clock: unknown beats absurd
    return value if math.isfinite(value) and value >= 0 else None


def _plain_float(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidRecord(f"{name} must be a number, not {type(value).__name__}") from None


def _check_money(name: str, value: Any) -> Decimal:
    if type(value) is int:
        value = Decimal(value)
    if not isinstance(value, Decimal):
        raise InvalidRecord(
            f"{name} must be a Decimal, not {type(value).__name__}: "
            'write Decimal("0.0000045"), or Decimal(repr(x)) for a float you trust'
        )
    return usd(picousd(value))
