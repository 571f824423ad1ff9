"""What is kept of one answer: the answer itself, what it had cost, and whose it was.

Owns the bytes of an entry, their check, and the outcome that a hit is recorded with.  Pure.
"""

from __future__ import annotations

import zlib
from decimal import Decimal
from typing import Any, Final, Self

import msgspec

from litellm_ledger._records.record import UsageRecord

from .packing import Unpackable, refusing, unpack

__all__ = ["Entry", "answer_from"]

_VERSION: Final = 1

_COPIED: Final = (
    "response_model",
    "provider",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "images",
    "audio_seconds",
    "characters",
    "pages",
    "search_units",
    "usage_source",
    "cost_source",
    "price_version",
    "response_id",
)
"""What a hit's record has in common with that of the call that was paid."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One answer as it is kept."""

    version: int
    key: str  # a store that mixes them up is found out
    stream: bool
    body: bytes  # the answer, packed; of a stream its chunks
    crc: int
    operation: str | None  # the one that paid for it
    saved: Decimal | None  # US dollars that it cost, if that is known
    fields: dict[str, str | int | float]  # what its record said of the usage

    @classmethod
    def of(cls, key: str, record: UsageRecord, body: bytes, *, stream: bool) -> Self:
        """Return the entry of an answer whose record is ``record``."""
        fields = {name: getattr(record, name) for name in _COPIED}
        return cls(
            _VERSION,
            key,
            stream,
            body,
            zlib.crc32(body),
            record.operation,
            record.saved_cost if record.cache_hit else record.cost,
            {name: value for name, value in fields.items() if value is not None},
        )

    @classmethod
    def read(cls, key: str, data: bytes, *, stream: bool, ours: bool = False) -> Self:
        """Return the entry that ``data`` is; raise ``Unpackable`` if it is none, or another key's.

        Args:
            ours: the bytes never left this process: what they say need not be checked.
        """
        with refusing("no entry"):
            entry = msgspec.msgpack.decode(data, type=cls)
            if (entry.version, entry.key, entry.stream) != (_VERSION, key, stream):
                raise Unpackable("another key's entry")
            if zlib.crc32(entry.body) != entry.crc:
                raise Unpackable("a damaged entry")
            if not ours:
                UsageRecord(status="ok", **entry.outcome("stored"))
            return entry

    def to_bytes(self) -> bytes:
        """Return what ``read`` reads."""
        return msgspec.msgpack.encode(self)

    def outcome(self, how: str) -> dict[str, Any]:
        """Return what is on record of a call that this entry answers, however it ends.

        The tokens are those of the answer; they were paid for once, by ``operation``.
        """
        return {
            **{name: self.fields.get(name) for name in _COPIED},
            "cost": Decimal(0),
            "cache_hit": True,
            "saved_cost": self.saved,
            "meta": {"cache": {"operation": self.operation, "how": how}},
        }


def answer_from(body: bytes) -> Any:
    """Return a fresh answer, marked as one that cost nothing, as LiteLLM marks its own."""
    with refusing("no answer"):
        answer = unpack(body)
        hidden = getattr(answer, "_hidden_params", None)
        for name, value in (("cache_hit", True), ("response_cost", 0.0)):
            if isinstance(hidden, dict):
                hidden[name] = value
            elif hidden is not None:  # LiteLLM's HiddenParams, of text completions
                setattr(hidden, name, value)
        return answer
