"""Lines of one segment, without reading more than is asked for.

Owns the reading on from a place, and the search for the few lines of a large file that matter.
Never writes, takes no lock.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from litellm_ledger._aggregates.groups import MISSING
from litellm_ledger._reading.last_written import lines_having
from litellm_ledger._reading.listing import open_segment
from litellm_ledger._records.layout import SegmentName, record_id
from litellm_ledger._records.line import Line, checked, line_of

__all__ = ["Matches", "needles", "new_lines"]

_MOST: Final = 64 * 2**20
"""Bytes of lines that are held for the next question about the same values."""


def new_lines(
    root: Path, name: SegmentName, start: int
) -> Iterator[tuple[Line | None, int, bytes]]:
    """Yield the whole lines from a place on, where each ends, its bytes; ``None`` is no record."""
    file, there = open_segment(root, name)
    with file:
        if file.seek(0, os.SEEK_END) < start:  # another file by now
            yield None, start, b""
            return
        file.seek(start)
        at = start
        for raw in file:
            if raw[-1:] != b"\n":
                return
            at += len(raw)
            yield _line(raw, there), at, raw


def _line(raw: bytes, name: SegmentName) -> Line | None:
    line = line_of(raw) if checked(raw) else None
    if line is None or line.seq < name.first or line.id != record_id(name.writer, line.seq):
        return None
    return line


class Matches:
    """The lines of sealed segments that have one of some values; those found last are held.

    Args:
        root: the ledger.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[str, SegmentName, tuple[bytes, ...]], list[bytes]] = (
            OrderedDict()
        )
        self._size = 0

    def lines(
        self, name: SegmentName, sha256: str, needles: Sequence[bytes]
    ) -> Iterator[Line | None]:
        """Yield the lines that have one of these bytes, or an escape; ``None`` is no record.

        Args:
            name: of a segment whose manifest vouches for its lines.
            sha256: as that says.
            needles: what JSON has where no character of it is escaped.

        Raises:
            OSError: it cannot be read.
        """
        key = sha256, name, tuple(needles)
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
        if found is None:
            file, name = open_segment(self._root, name)
            with file:
                found = lines_having(file.read(), [*needles, b"\\"])
            self._hold(key, found)
        for raw in found:
            yield _line(raw, name)

    def _hold(self, key: tuple[str, SegmentName, tuple[bytes, ...]], found: list[bytes]) -> None:
        with self._lock:
            if key in self._held:
                return
            self._held[key] = found
            self._size += sum(map(len, found))
            while self._size > _MOST:
                _, gone = self._held.popitem(last=False)
                self._size -= sum(map(len, gone))


def needles(where: Iterable[tuple[str, Collection[str]]]) -> list[bytes]:
    """Return bytes of which each line that is wanted has some; none if that cannot be told.

    The values of a tag in quotes, as JSON without an escape has them.

    Args:
        where: group keys, and of each the values of which a call must have one.
    """
    for key, values in where:
        if key.startswith("tag:") and MISSING not in values:
            return [b'"%b"' % value.encode() for value in values]
    return []
