"""The last outcomes on a ledger, read from the ends of its files.

Owns the reading backwards.  Gives up, and says so, where the ends do not tell: when what is asked
for is rare, or may be in the archive.  Never writes, takes no lock.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from heapq import nlargest
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from litellm_ledger._records.layout import SegmentName, record_id
from litellm_ledger._records.line import checked, decode, line_of
from litellm_ledger._records.record import Fields, UsageRecord

from .lines import real_outcomes
from .listing import Snapshot, by_writer, open_segment

__all__ = ["Fits", "ended", "last_written", "lines_having"]

_BLOCK: Final = 16 * 1024
_FAR_BLOCK: Final = 16 * _BLOCK
"""Of lines that are searched for bytes."""
_MOST: Final = 32 * 2**20
"""Bytes after which a database, or reading everything once, is sooner."""

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


class _GaveUpError(Exception):
    """More would have to be read than is worth it."""


class Fits(Protocol):
    """Tells which outcomes are asked for: a ``Selection``, or one that knows more."""

    def fits(self, record: Fields) -> bool:
        """Tell whether a record is asked for."""


def ended(record: Fields) -> tuple[datetime, str]:
    """Return what outcomes are ordered by: when they ended, then by id; without a time first."""
    if record.ts is None:
        return _LONG_AGO, record.id or ""
    try:
        return record.ts + timedelta(milliseconds=record.latency_ms or 0), record.id or ""
    except OverflowError:
        return record.ts, record.id or ""


def last_written(
    root: Path,
    selection: Fits,
    limit: int,
    *,
    skip: Collection[SegmentName] = (),
    most: int = _MOST,
    having: Sequence[bytes] = (),
    ledger: Snapshot | None = None,
) -> list[UsageRecord] | None:
    """Return the last ``limit`` outcomes that are asked for, the newest last.

    ``None``: they cannot be found without reading most of the ledger.

    Args:
        root: the ledger.
        selection: which outcomes.
        limit: how many.
        skip: segments that are known to hold none of them.
        most: bytes to read at most.
        having: bytes of which each line that is asked for has some, where no character of it is
            escaped; by default nothing is known of them.
        ledger: a look at it, where the caller has one.

    Raises:
        LedgerPathError: there is no ledger, or it cannot be read.
        UnsupportedFormat: it was written by a newer version.
    """
    ledger = ledger or Snapshot.take(root)
    places = ledger.archive
    ends = _Ends(root, selection, limit, most, having)
    found: list[UsageRecord] = []
    try:
        for _, family in by_writer(ledger.segments):
            found += ends.of_writer(
                family, [name for name in family if name not in places and name not in skip]
            )
    except _GaveUpError:
        return None
    newest = sorted(nlargest(limit, found, key=ended), key=ended)
    if places:
        compacted = max(file.path.stat().st_mtime for file, _ in places.values())
        if len(newest) < limit or ended(newest[0])[0].timestamp() <= compacted:
            return None
    return newest


class _Ends:
    def __init__(
        self, root: Path, selection: Fits, limit: int, most: int, having: Sequence[bytes]
    ) -> None:
        self._root = root
        self._selection = selection
        self._limit = limit
        self._left = most
        self._having = (*having, b"\\") if having else ()

    def of_writer(
        self, family: Sequence[SegmentName], names: Sequence[SegmentName]
    ) -> list[UsageRecord]:
        """Return the last outcomes of a writer, at least those of a block, in no order."""
        found: dict[int, UsageRecord] = {}
        left = list(names)
        while left:
            kept = nlargest(self._limit, found)
            enough = len(kept) == self._limit
            if enough and all(name.last is not None and name.last < kept[-1] for name in left):
                break
            for record in self._of_segment(left.pop()):
                found.setdefault(record.seq or 0, record)
            beaten = real_outcomes(
                self._root,
                family,
                {_key(record) for record in found.values() if record.status == "unsettled"},
            )
            for seq, record in list(found.items()):
                if record.status == "unsettled" and _key(record) in beaten:
                    del found[seq]
        return list(found.values())

    def _of_segment(self, name: SegmentName) -> Iterator[UsageRecord]:
        """Yield the last outcomes of a segment that are asked for, the last one first."""
        try:
            file, name = open_segment(self._root, name)
        except OSError:
            return  # verify says so
        count = 0
        with file:
            for block in self._backwards(file):
                for raw in block:
                    line = line_of(raw) if checked(raw) else None
                    if (
                        line is not None
                        and line.kind == "usage"
                        and line.seq >= name.first
                        and line.id == record_id(name.writer, line.seq)
                        and self._selection.fits(line)
                    ):
                        yield decode(raw)
                        # Of calls that a recovery has settled some may not count.
                        count += line.status != "unsettled"
                if count >= self._limit:
                    return

    def _backwards(self, file: BinaryIO) -> Iterator[list[bytes]]:
        """Yield the complete lines of a file block by block, the last one first.

        Where it is known what lines have that are asked for, others are left out.
        """
        at = file.seek(0, os.SEEK_END)
        tail = b""
        while at:
            size = min(_FAR_BLOCK if self._having else _BLOCK, at)
            self._left -= size
            if self._left < 0:
                raise _GaveUpError
            at -= size
            file.seek(at)
            data = file.read(size) + tail
            first = data.find(b"\n") + 1 if at else 0
            tail = data[:first]
            data = data[first : data.rfind(b"\n") + 1]  # what is not complete is dropped
            if self._having:
                yield lines_having(data, self._having)[::-1]
            else:
                yield [line + b"\n" for line in reversed(data.split(b"\n")[:-1])]


def lines_having(data: bytes, needles: Sequence[bytes]) -> list[bytes]:
    """Return the lines that have one of some bytes, in order."""
    spans: dict[int, int] = {}
    for needle in needles:
        at = data.find(needle)
        while at >= 0:
            end = data.find(b"\n", at) + 1 or len(data)
            spans[data.rfind(b"\n", 0, at) + 1] = end
            at = data.find(needle, end)
    return [data[start : spans[start]] for start in sorted(spans)]


def _key(record: UsageRecord) -> tuple[str, int]:
    return record.operation or record.id or "", record.attempt or 1
