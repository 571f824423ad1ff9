"""Following a ledger: the records that are written from now on, by whichever process.

Owns the place in each file up to which it was read.  Looks again and again, takes no lock, needs
nothing of those who write; a segment that is sealed or one that begins is seen at the next look.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from litellm_ledger._records.layout import SegmentName
from litellm_ledger._records.line import checked, decode, line_of
from litellm_ledger._records.ranges import Spans
from litellm_ledger._records.record import UsageRecord

from .listing import list_segments, open_segment

__all__ = ["Follower"]


class Follower:
    """What is new on a ledger since it was made, look by look.

    Raises:
        LedgerPathError: there is no ledger, or it cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: dict[tuple[str, int], int] = {}
        self._whole: set[tuple[str, int]] = set()
        self._seen: dict[str, Spans] = {}
        for name in list_segments(root):
            self._skip(name)

    def look(self, names: Sequence[SegmentName] | None = None) -> Iterator[UsageRecord]:
        """Yield the records that came since the last look, file by file, each number once.

        Damaged lines are passed over; a line that is not whole yet comes with a later look.

        Args:
            names: the segments of the ledger, where they are known.
        """
        for name in list_segments(self._root) if names is None else names:
            key = name.writer, name.first
            if key not in self._whole:
                yield from self._news(name)

    def _skip(self, name: SegmentName) -> None:
        key = name.writer, name.first
        if not name.open:
            self._whole.add(key)
            return
        try:
            file, name = open_segment(self._root, name)
        except OSError:
            return
        with file:
            end = os.fstat(file.fileno()).st_size
            start = max(0, end - 65_536)
            while True:  # back to the last line that is whole
                file.seek(start)
                found = file.read(end - start).rfind(b"\n")
                if found >= 0 or not start:
                    break
                start = max(0, start - 65_536)
            self._read[key] = start + found + 1
        if not name.open:
            self._whole.add(key)

    def _news(self, name: SegmentName) -> Iterator[UsageRecord]:
        key = name.writer, name.first
        try:
            file, name = open_segment(self._root, name)
        except OSError:  # compacted meanwhile: its lines were read while it was written
            return
        with file:
            file.seek(self._read.get(key, 0))
            for raw in file:
                if raw[-1:] != b"\n":
                    break
                self._read[key] = self._read.get(key, 0) + len(raw)
                if checked(raw) and line_of(raw) is not None:
                    record = decode(raw)
                    seen = self._seen.setdefault(name.writer, Spans())
                    if record.kind != "gap" and record.seq and seen.add(record.seq):
                        yield record
        if not name.open:
            self._whole.add(key)
