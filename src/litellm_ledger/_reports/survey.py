"""Which segments can be given to a database as they are, and which but for what is damaged.

Owns the look at every byte that comes before any JSON is parsed, so that a torn or altered line is
neither an error nor a row of nothing.  Reads, keeps one line in memory, judges no content.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from litellm_ledger._reading.listing import open_segment
from litellm_ledger._records.layout import SEGMENTS, SegmentName, split_id
from litellm_ledger._records.line import LEVELS, checked, line_of
from litellm_ledger._records.nesting import nests_deeper
from litellm_ledger._records.scan import Head

__all__ = ["Learnt", "Surveyed", "ahead", "learn", "learnt", "survey"]

_LONGEST: Final = 2**20
"""Bytes of a line beyond which a database needs larger buffers than it is given."""

_GAP: Final = 400
"""Bytes that no gap line has."""

_PLACES: Final = 1_000
"""Damaged places in a segment beyond which it is read line by line."""

_ID: Final = b'{"v":1,"id":"'
_KEPT: Final = 100_000
_head: Final = msgspec.json.Decoder(Head)


class Surveyed(NamedTuple):
    """What is known of a segment.

    Attributes:
        plain: it can be read as it is.
        last: the largest number in it, whatever its name says.
        size: in bytes, without a line that is not complete.
        dense: each of its numbers is a record, so that of what overlaps one may be cut.
        sound: its valid lines can be read as they are; there are others only in ``bad``.
        bad: where there is no valid line: offset, length in bytes, lines.
    """

    plain: bool
    last: int
    size: int
    dense: bool = False
    sound: bool = False
    bad: tuple[tuple[int, int, int], ...] = ()


_Key = tuple[str, int, int, int]
Learnt = list[tuple[_Key, Surveyed]]

_known: Final[dict[_Key, Surveyed]] = {}


def _key(root: Path, name: SegmentName, state: os.stat_result) -> _Key:
    return str(root / SEGMENTS / str(name)), state.st_ino, state.st_size, state.st_mtime_ns


def ahead(root: Path, name: SegmentName) -> int:
    """Return how many bytes a look at a sealed segment would read: 0 if it was looked at."""
    try:
        state = (root / SEGMENTS / str(name)).stat()
    except OSError:
        return 0
    return 0 if name.open or _key(root, name, state) in _known else state.st_size


def learnt() -> Learnt:
    """Return what this process knows, for another one."""
    return list(_known.items())


def learn(told: Learnt) -> None:
    """Know what another process has found."""
    if len(_known) + len(told) > _KEPT:
        _known.clear()
    _known.update(told)


def survey(root: Path, name: SegmentName) -> Surveyed:
    """Look at a segment.  A sealed one never changes, so what was found is remembered.

    Plain is: sealed; each line valid and written as this library writes it; the numbers without a
    hole from the first of the name to the last; neither a gap nor an ``unsettled`` outcome, which
    another line may beat.  Sound is an open one, or one with holes or damage, whose valid lines are
    so otherwise.

    Raises:
        OSError: it is gone or cannot be read.
    """
    file, name = open_segment(root, name)
    with file:
        state = os.fstat(file.fileno())
        key = _key(root, name, state)
        known = _known.get(key)
        if known is not None:
            return known
        prefix = b"%b%b-" % (_ID, name.writer.encode())
        start, end = len(prefix), len(prefix) + 16
        dense = not name.open
        sound = True
        expected = name.first
        last = offset = 0
        bad: list[tuple[int, int, int]] = []
        for raw in file:
            offset += len(raw)
            if (
                raw[:end] != b"%b%016d" % (prefix, expected)
                or raw[-19:] != b',"crc":"%08x"}\n' % crc32(raw[:-19])
                or nests_deeper(raw, LEVELS)
            ):
                dense = False
                if not checked(raw):
                    offset = _note(raw, offset, bad, is_open=name.open)
                    continue
                number = raw[start:end]
                if raw[:start] != prefix or not number.isdigit() or int(number) < expected:
                    sound = False
                    last = max(last, _number(raw, name.writer))
                    continue
                expected = int(number)
            if line_of(raw) is None:
                dense = False
                offset = _note(raw, offset, bad, is_open=name.open)
                continue
            expected += 1
            size = len(raw)
            if b'"unsettled"' in raw or size > _LONGEST or (size < _GAP and b'"gap"' in raw):
                sound = False
                last = max(last, _number(raw, name.writer))
        last = max(last, expected - 1)
    plain = dense and sound and last == name.last
    sound = sound and len(bad) < _PLACES
    found = Surveyed(plain, last, offset, dense=plain, sound=sound, bad=tuple(bad[:_PLACES]))
    if not name.open:
        learn([(key, found)])
    return found


def _note(raw: bytes, end: int, bad: list[tuple[int, int, int]], *, is_open: bool) -> int:
    """Note a line that is not valid; return where what was looked at ends."""
    start = end - len(raw)
    if is_open and raw[-1:] != b"\n":
        return start  # the writer is in the middle of it, or died there
    if bad and sum(bad[-1][:2]) == start:
        start, length, lines = bad.pop()
        bad.append((start, length + len(raw), lines + 1))
    else:
        bad.append((start, len(raw), 1))
    return end


def _number(raw: bytes, writer: str) -> int:
    """Return the last number that a valid line of an odd form stands for, 0 for anything else."""
    try:
        head = _head.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0
    return head.last if split_id(head.id) == (writer, head.seq) else 0
