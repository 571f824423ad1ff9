"""``Audit``: what an operator did to a ledger (format version 2, docs/FORMAT.md, "Audits").

Owns the line of an audit.  It says which losses and damaged places of a writer somebody has looked
into; it adds nothing to any total.  Pure.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from .adjustment import Adjustment, adjustment_of, in_utc
from .layout import ADJUSTMENT_VERSION
from .line import Moment, checked
from .ranges import Spans
from .record import Number

__all__ = ["ACKNOWLEDGE", "Audit", "Damage", "Span", "addition_of", "audit_of", "spans"]

ACKNOWLEDGE: Final = "acknowledge"

_First = Annotated[int, msgspec.Meta(ge=1)]
Span = tuple[_First, _First]
"""The first and the last of a range of numbers."""


class Damage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A place that holds no record, with the SHA-256 of what is there instead.

    Attributes:
        file, what, offset, length: as of a ``Problem``.
        sha256: of these bytes, or of the whole file; ``None``: there is no file.
    """

    file: str
    what: str
    offset: Number = 0
    length: Number = 0
    sha256: str | None = None


class Audit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that was done to a ledger.

    Attributes:
        did: what; ``acknowledge``: a loss was looked into.
        at: when; ``who`` did it, and ``why``.
        writer: whose records it is about.
        lost, quarantined: ranges of their numbers that had no record then, by the reason.
        damage: places that held no record then.
    """

    v: int
    id: str
    seq: Number
    kind: Literal["audit"]
    did: str
    at: Moment
    who: str
    why: str
    writer: str
    lost: list[Span] = []
    quarantined: list[Span] = []
    damage: list[Damage] = []


_decode: Final = msgspec.json.Decoder(Audit).decode


def audit_of(raw: bytes) -> Audit | None:
    """Return what a line says; ``None`` if it is no audit."""
    if not checked(raw):
        return None
    try:
        found = _decode(raw)
        in_utc(found.at)
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError):
        return None
    ordered = all(first <= last for first, last in (*found.lost, *found.quarantined))
    return found if found.v == ADJUSTMENT_VERSION and ordered else None


def addition_of(raw: bytes) -> Adjustment | Audit | None:
    """Return what a line of version 2 says; ``None`` if it says nothing."""
    return adjustment_of(raw) or audit_of(raw)


def spans(ranges: list[Span]) -> Spans:
    """Return the numbers of ranges as a set."""
    found = Spans()
    for first, last in ranges:
        found.add_range(first, last)
    return found
