"""Names inside a ledger directory (format version 1): built here, parsed here, nowhere else.

    segments/<writer>.<first:016d>.jsonl.open              being written
    segments/<writer>.<first:016d>-<last:016d>.jsonl       sealed
    segments/<writer>.<first:016d>-<last:016d>.jsonl.<n>.tmp  not part of the ledger yet
    live/<writer>.live                                     counters of a writer that is not closed
    manifests/<sealed segment>.json                        what a sealed segment holds, in short
    prices/<price version>.json                            what records were priced by
    budgets/balances                                       a cache of what budgets have left
    recovery/                                              torn tails and quarantined originals
    erasing/                                               what an erasure has ready; not part of it
    shipping/                                              how far it was shipped; not part of it

``writer`` is ``<UTC start, YYYYMMDDTHHMMSSZ>-<16 hex>``.  Pure: text in, text out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = [
    "ADJUSTMENTS",
    "ADJUSTMENT_VERSION",
    "ARCHIVE",
    "BALANCES",
    "BUDGETS",
    "ERASING",
    "LARGEST_ENTRY",
    "LIVE",
    "MANIFESTS",
    "PRICES",
    "RECOVERY",
    "SEGMENTS",
    "SHIPPING",
    "SegmentName",
    "entry_name",
    "is_writer",
    "live_name",
    "record_id",
    "split_id",
    "version_of_entry",
    "writer_of_live",
]

SEGMENTS: Final = "segments"
LIVE: Final = "live"
ARCHIVE: Final = "archive"
MANIFESTS: Final = "manifests"
PRICES: Final = "prices"
BUDGETS: Final = "budgets"
BALANCES: Final = "balances"
RECOVERY: Final = "recovery"
ERASING: Final = "erasing"
SHIPPING: Final = "shipping"

ADJUSTMENTS: Final = "99991231T000000Z-"
"""How the writers of adjustments begin: after every other, where an older version looks first."""

ADJUSTMENT_VERSION: Final = 2
"""The format version of adjustments; that of all other lines is 1."""

_WRITER: Final = r"\d{8}T\d{6}Z-[0-9a-f]{16}"
_NAME: Final = re.compile(_WRITER, re.ASCII)
_SEGMENT: Final = re.compile(
    rf"({_WRITER})\.(\d{{16}})(?:-(\d{{16}})\.jsonl|\.jsonl\.open)", re.ASCII
)
_LIVE: Final = re.compile(rf"((?!{ADJUSTMENTS}){_WRITER})\.live", re.ASCII)
_ENTRY: Final = re.compile(r"((?:map|user)-[0-9a-f]{24})\.json", re.ASCII)
_ID: Final = re.compile(rf"({_WRITER})-(\d{{16}})", re.ASCII)


LARGEST_ENTRY: Final = 65_536
"""Bytes that a file of the price book may have: five times those of the map's largest entry."""


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """A segment's name: whose it is, its first number, and its last one when sealed."""

    writer: str
    first: int
    last: int | None = None

    @property
    def open(self) -> bool:
        """Whether the segment is still being written (or its writer died without sealing it)."""
        return self.last is None

    @property
    def adjusts(self) -> bool:
        """Whether it holds adjustments, and nothing else."""
        return self.writer.startswith(ADJUSTMENTS)

    def __str__(self) -> str:
        if self.last is None:
            return f"{self.writer}.{self.first:016d}.jsonl.open"
        return f"{self.writer}.{self.first:016d}-{self.last:016d}.jsonl"

    def sealed(self, last: int) -> SegmentName:
        """Return the name that this segment has once ``last`` is its final number."""
        return SegmentName(self.writer, self.first, last)

    @property
    def manifest(self) -> str:
        """The file name of its manifest, once it is sealed."""
        return f"{self}.json"

    @classmethod
    def parse(cls, name: str) -> SegmentName | None:
        """Return the parsed name, or ``None`` for a file that is not a segment."""
        match = _SEGMENT.fullmatch(name)
        if match is None:
            return None
        writer, first, last = match.groups()
        if last is not None and int(last) < int(first):
            return None
        return cls(writer, int(first), None if last is None else int(last))


def is_writer(name: str) -> bool:
    """Whether a ledger gives such a name to a writer; any other may lead a file elsewhere."""
    return _NAME.fullmatch(name) is not None


def live_name(writer: str) -> str:
    """Return the file name of a writer's live counters."""
    return f"{writer}.live"


def writer_of_live(name: str) -> str | None:
    """Return the writer a live file belongs to, or ``None`` for any other file."""
    match = _LIVE.fullmatch(name)
    return match.group(1) if match else None


def entry_name(price_version: str) -> str:
    """Return the file name of an entry of the price book."""
    return f"{price_version}.json"


def version_of_entry(name: str) -> str | None:
    """Return the price version that an entry is of, or ``None`` for any other file."""
    match = _ENTRY.fullmatch(name)
    return match.group(1) if match else None


def record_id(writer: str, seq: int) -> str:
    """Return the id of a record: its idempotency key, everywhere and for ever."""
    return f"{writer}-{seq:016d}"


def split_id(text: str) -> tuple[str, int] | None:
    """Return ``(writer, seq)`` of a record id, or ``None`` if it is none of ours."""
    match = _ID.fullmatch(text)
    return (match.group(1), int(match.group(2))) if match else None
