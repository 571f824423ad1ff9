"""Where each number's line is in one segment, for segments in which reading straight on fails.

Owns the search for lines in a file that is damaged, or whose numbers another one has as well.  It
finds every line that recovery would find, so that no number is ever given up that recovery may
bring back.  Kept as numbers and offsets: a segment of 64 MiB takes two or three.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from litellm_ledger._reading.listing import open_segment
from litellm_ledger._records.gaps import Gap
from litellm_ledger._records.layout import SegmentName, record_id
from litellm_ledger._records.scan import heads

__all__ = ["GapAt", "Index"]


class GapAt(NamedTuple):
    """A gap line, and where it is."""

    gap: Gap
    offset: int
    length: int


class Index:
    """The lines of a segment by number; of a number that is there twice, the first.

    Attributes:
        gaps: its gap lines.
        last: the last number that a line stands for; one below the first, if there is none.
        state: inode and size of the file that was read (0: from the archive).
    """

    def __init__(self, name: SegmentName, data: bytes, state: tuple[int, int] = (0, 0)) -> None:
        self.state = state
        self.gaps: list[GapAt] = []
        self.last = name.first - 1
        found: dict[int, tuple[int, int]] = {}
        for offset, head, raw in heads(data):
            if head is None or head.seq < name.first or head.id != record_id(name.writer, head.seq):
                continue
            if head.kind == "gap":
                if head.last >= head.seq:
                    self.gaps.append(GapAt(Gap.of(head), offset, len(raw)))
            else:
                found.setdefault(head.seq, (offset, len(raw)))
            self.last = max(self.last, head.last)
        self._numbers = array("q", sorted(found))
        self._offsets = array("q", (found[number][0] for number in self._numbers))
        self._lengths = array("q", (found[number][1] for number in self._numbers))

    @classmethod
    def of(cls, root: Path, name: SegmentName) -> Index:
        """Read a segment.

        Raises:
            OSError: it is gone, or cannot be read.
        """
        file, name = open_segment(root, name)
        with file:
            return cls(name, file.read(), state_of(file))

    def where(self, number: int) -> tuple[int, int] | None:
        """Return the offset and the length of a record's line."""
        at = bisect_left(self._numbers, number)
        if at == len(self._numbers) or self._numbers[at] != number:
            return None
        return self._offsets[at], self._lengths[at]

    def next_from(self, number: int) -> int | None:
        """Return the first number that is not below, and that a line begins with."""
        at = bisect_left(self._numbers, number)
        found = [self._numbers[at]] if at < len(self._numbers) else []
        found += [one.gap.first for one in self.gaps if one.gap.first >= number]
        return min(found, default=None)


def state_of(file: BinaryIO) -> tuple[int, int]:
    """Return inode and size of an open file; zeros of one from the archive."""
    if isinstance(file, BytesIO):
        return 0, 0
    state = os.fstat(file.fileno())
    return state.st_ino, state.st_size
