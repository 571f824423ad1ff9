"""``Adjustment``: a record priced again (format version 2, docs/FORMAT.md, "Adjustments").

Owns the line of an adjustment.  It carries the members by which its record is grouped and selected,
so that what it adds to a total is told from its line alone.  Pure.
"""

from __future__ import annotations

from datetime import MAXYEAR, MINYEAR, UTC, datetime
from decimal import Decimal
from typing import Final, Literal
from zlib import crc32

import msgspec

from .layout import ADJUSTMENT_VERSION
from .line import SEALED, Moment, Picousd, checked
from .money import usd
from .record import KEYS, Fields, Number, Status, UsageSource

__all__ = [
    "Adjustment",
    "ErasedAdjustment",
    "adjustment_of",
    "encode_addition",
    "erased_of",
    "group_of",
    "in_utc",
]


class Adjustment(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A cost that was computed again.

    Attributes:
        adjusts: id of the outcome.
        at: when; ``who`` did it, and ``why``.
        old_cost, new_cost: picodollars before and after; ``None``: unknown.
        old_price_version, new_price_version: what it was priced by, before and after.
        ts, …, tags: of the outcome, as it is on record.
    """

    v: int
    id: str
    seq: Number
    kind: Literal["adjustment"]
    adjusts: str
    at: Moment
    who: str
    why: str
    old_cost: Picousd | None = msgspec.field(default=None, name="old_cost_picousd")
    new_cost: Picousd | None = msgspec.field(default=None, name="new_cost_picousd")
    old_price_version: str | None = None
    new_price_version: str | None = None
    ts: Moment | None = None
    model: str | None = None
    provider: str | None = None
    call: str | None = None
    status: Status | None = None
    response_model: str | None = None
    error: str | None = None
    usage_source: UsageSource | None = None
    cost_source: str | None = None
    tags: dict[str, str] | None = None

    @property
    def difference(self) -> int:
        """Picodollars that it adds to a total."""
        return (self.new_cost or 0) - (self.old_cost or 0)

    @property
    def priced(self) -> int:
        """Outcomes of known cost that it adds: 1, 0 or -1."""
        return (self.new_cost is not None) - (self.old_cost is not None)

    @property
    def cost(self) -> Decimal | None:
        """US dollars after it."""
        return None if self.new_cost is None else usd(self.new_cost)


class ErasedAdjustment(msgspec.Struct, frozen=True, kw_only=True):
    """The line in place of an adjustment of an erased record; ``at`` is when that was made."""

    v: int
    id: str
    seq: Number
    kind: Literal["gap"] = msgspec.field(default_factory=lambda: "gap")
    gap_until: Number
    reason: Literal["erased"] = msgspec.field(default_factory=lambda: "erased")
    at: Moment


_encode: Final = msgspec.json.Encoder().encode
_decode_erased: Final = msgspec.json.Decoder(ErasedAdjustment).decode
_decode: Final = msgspec.json.Decoder(Adjustment).decode


def group_of(record: Fields) -> dict[str, object]:
    """Return the members of an outcome that its adjustment carries."""
    found: dict[str, object] = {name: getattr(record, name) for name in KEYS}
    return {**found, "ts": record.ts, "tags": dict(record.tags or {}) or None}


def encode_addition(addition: msgspec.Struct) -> bytes:
    """Encode an adjustment or an audit as a line, line feed included."""
    plain = msgspec.to_builtins(addition)
    for name in ("at", "ts"):
        moment: datetime | None = getattr(addition, name, None)
        if moment is not None:
            plain[name] = moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    body = _encode(plain)[:-1]
    return SEALED % (body, crc32(body))


def in_utc(*moments: datetime | None) -> None:
    """Raise ``OverflowError`` for a moment that is in no year of UTC."""
    for moment in moments:
        if moment is not None and moment.year in (MINYEAR, MAXYEAR):
            moment.astimezone(UTC)


def adjustment_of(raw: bytes) -> Adjustment | None:
    """Return what a line says; ``None`` if it is no adjustment."""
    if not checked(raw):
        return None
    try:
        found = _decode(raw)
        in_utc(found.at, found.ts)
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError):
        return None
    return found if found.v == ADJUSTMENT_VERSION else None


def erased_of(raw: bytes) -> ErasedAdjustment | None:
    """Return what a line in place of an adjustment says; ``None`` if it is none."""
    if not checked(raw):
        return None
    try:
        found = _decode_erased(raw)
        in_utc(found.at)
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError):
        return None
    return found if found.v == ADJUSTMENT_VERSION and found.gap_until == found.seq else None
