"""``Audit``: what an operator did to a ledger (format version 2, docs/FORMAT.md, "Audits").

Owns the line of an audit.  It says which losses and damaged places of a writer somebody has looked
into, or which files were removed or written anew on purpose; it adds nothing to any total.  Pure.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec

from .adjustment import Adjustment, adjustment_of, in_utc
from .layout import ADJUSTMENT_VERSION, SegmentName
from .line import Moment, checked
from .money import MAX_PICOUSD
from .ranges import Spans
from .record import Count, Number

__all__ = [
    "ACKNOWLEDGE",
    "DEEDS",
    "ERASE",
    "PRUNE",
    "RELEASE",
    "Audit",
    "Changed",
    "ChangedFile",
    "Damage",
    "Released",
    "Span",
    "Sums",
    "Was",
    "addition_of",
    "audit_of",
    "spans",
]

ACKNOWLEDGE: Final = "acknowledge"
PRUNE: Final = "prune"
ERASE: Final = "erase"
RELEASE: Final = "release"
DEEDS: Final = frozenset({ACKNOWLEDGE, PRUNE, ERASE, RELEASE})
"""What audits of this version say was done."""

Sums = Literal["kept", "elsewhere", "removed"]

Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""A SHA-256 as text."""
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


class Was(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A sealed segment and its manifest, so that both can be told from any others.

    Attributes:
        size, lines, records, sha256: of the segment; ``records``: lines that are no gaps.
        earliest, latest: the smallest and the largest ``ts`` of its records.
        manifest: SHA-256 of its manifest; ``None``: it had none.
        sealed, previous: what stands in that.
    """

    size: Number
    lines: Number
    records: Number
    sha256: Digest
    earliest: Moment | None = None
    latest: Moment | None = None
    manifest: Digest | None = None
    sealed: str | None = None
    previous: Digest | None = None


class Changed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A sealed segment whose lines, or some of them, were taken away.

    Attributes:
        segment: its file name.
        archive: the name of the file in the archive that held it; ``None``: in ``segments/``.
        was, now: what it was, and what has its name since; ``None``: nothing that holds a record.
        sums: whether its manifest stays, and tells the sums of its records; docs/FORMAT.md.
    """

    segment: str
    archive: str | None = None
    was: Was
    now: Was | None = None
    sums: Sums | None = None


class ChangedFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Another file that was removed or written anew.

    Attributes:
        file: relative to the ledger.
        sha256: of what it was.
        now: of what it is; ``None``: there is none.
    """

    file: str
    sha256: Digest
    now: Digest | None = None


class Released(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What budgets counted of a call of unknown cost, and count no more.

    Attributes:
        record: id of its outcome, or of its ``started`` record where it has none.
        picousd, tokens: how much of what was held is let go.
        ts, model, tags: of that record.
    """

    record: str
    picousd: Annotated[int, msgspec.Meta(ge=0, le=MAX_PICOUSD)] = 0
    tokens: Count = 0
    ts: Moment
    model: str | None = None
    tags: dict[str, str] | None = None


class Audit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that was done to a ledger.

    Attributes:
        did: what; ``acknowledge``: a loss was looked into; ``prune``: files past their time were
            removed; ``erase``: records were taken away; ``release``: what budgets counted of calls
            of unknown cost, they count no more.
        at: when; ``who`` did it, and ``why``.
        writer: whose records it is about.
        lost, quarantined: ranges of their numbers that had no record then, by the reason.
        damage: places that held no record then.
        segments, files: what was removed or written anew.
        records: how many records went; ``kept``: their amounts stayed, without what named anybody.
        released: what budgets count no more.
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
    segments: list[Changed] = []
    files: list[ChangedFile] = []
    records: Number = 0
    kept: bool = False
    released: list[Released] = []


_decode: Final = msgspec.json.Decoder(Audit).decode


def audit_of(raw: bytes) -> Audit | None:
    """Return what a line says; ``None`` if it is no audit."""
    if not checked(raw):
        return None
    try:
        found = _decode(raw)
        in_utc(found.at, *(one.ts for one in found.released))
        in_utc(*(ts for one in found.segments for ts in _moments(one)))
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError):
        return None
    ordered = all(first <= last for first, last in (*found.lost, *found.quarantined))
    own = all(_is_of(one.segment, found.writer) for one in found.segments)
    return found if found.v == ADJUSTMENT_VERSION and ordered and own else None


def _is_of(segment: str, writer: str) -> bool:
    """Whether it is the name of a sealed segment of this writer."""
    name = SegmentName.parse(segment)
    return name is not None and not name.open and name.writer == writer


def _moments(one: Changed) -> list[datetime | None]:
    return [ts for state in (one.was, one.now) if state for ts in (state.earliest, state.latest)]


def addition_of(raw: bytes) -> Adjustment | Audit | None:
    """Return what a line of version 2 says; ``None`` if it says nothing."""
    return adjustment_of(raw) or audit_of(raw)


def spans(ranges: list[Span]) -> Spans:
    """Return the numbers of ranges as a set."""
    found = Spans()
    for first, last in ranges:
        found.add_range(first, last)
    return found
