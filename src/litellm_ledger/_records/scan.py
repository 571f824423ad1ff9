"""Reading one segment's bytes: what is valid, what is torn, what is damaged.  Pure.

A segment is a run of lines.  ``scan`` walks it once and sorts every byte into exactly one of:

* valid lines: suffix and checksum hold and the number is the expected one,
* damage: bytes followed by a valid line.  An append-only file that merely lost its end cannot look
  like this, so it is never cut, only set aside;
* the tail: bytes at the end after which nothing valid comes.  In an open segment that is what a
  writer's death leaves (torn); in a sealed one it is damage too.

A ``gap`` line covers the numbers ``seq`` … ``gap_until``; the next line is ``gap_until + 1``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from .layout import record_id
from .line import SUFFIX, checked

__all__ = ["Head", "Scan", "heads", "scan"]


class Head(msgspec.Struct, frozen=True):
    """The few members that order and settle records; decoding only these is what makes it fast."""

    id: str
    seq: int
    kind: str
    v: int = 1
    operation: str | None = None
    attempt: int | None = None
    status: str | None = None
    gap_until: int | None = None
    reason: str | None = None
    acked_until: int | None = None

    @property
    def last(self) -> int:
        """The last number this line stands for: its own, or where its gap ends."""
        return self.seq if self.gap_until is None or self.kind != "gap" else self.gap_until


_START: Final = b'{"v":'
_STARTS: Final = 64  # tried per invalid line: damage may be as long as the file
_head: Final = msgspec.json.Decoder(Head)


@dataclass(slots=True)
class Scan:
    """What ``scan`` found in one segment.

    Attributes:
        lines: the valid lines with their heads, in file order, line feed included.
        damaged: byte ranges ``(start, end)`` that hold no valid line though valid ones follow.
        torn: length in bytes of the invalid tail (0: none).
        size: length in bytes of what was scanned.
    """

    lines: list[tuple[Head, bytes]] = field(default_factory=list)
    damaged: list[tuple[int, int]] = field(default_factory=list)
    torn: int = 0
    size: int = 0


def heads(data: bytes) -> Iterator[tuple[int, Head | None, bytes]]:
    """Yield ``(offset, head or None, line)`` for each line; ``None`` when the line is not valid.

    Damage that took a line feed with it, or put bytes before a line, does not take that line along:
    the bytes before it are yielded as an invalid line of their own.
    """
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        line = data[start:end]
        head = None
        valid = checked(line)
        if not valid:
            inner = _find_line(line)
            if inner:
                yield start, None, line[:inner]
                start, line, valid = start + inner, line[inner:], True
        if valid:
            try:
                head = _head.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                head = None
        yield start, head, line
        start = end


def _find_line(line: bytes) -> int:
    """Return where in an invalid line a valid one begins (it shares the line feed), or 0."""
    if not line.endswith(b'"}\n') or line[-SUFFIX:-11] != b',"crc":"':
        return 0  # as all of it ends, so does every part
    at = len(line)
    for _ in range(_STARTS):
        at = line.rfind(_START, 0, at)
        if at <= 0:
            break
        if checked(line[at:]):
            return at
    return 0


def scan(data: bytes, writer: str, first: int) -> Scan:
    """Sort the bytes of a segment of ``writer`` whose name says it starts at ``first``.

    A line whose checksum holds is believed once: another writer's, one below ``first`` and a second
    copy are damage.  One that is out of order is kept, since its checksum proves it, but the place
    is reported as damage (possibly of length 0: a line dropped without a trace), so that a hole
    never passes unseen.
    """
    found = Scan(size=len(data))
    expected = first
    seen: set[tuple[int, bool]] | None = None  # built only once something is out of order
    bad_from: int | None = None
    for offset, head, line in heads(data):
        good = head is not None and head.id == record_id(writer, head.seq) and head.last >= head.seq
        if good and head is not None and head.seq != expected:
            if seen is None:
                seen = {_copy_key(h) for h, _ in found.lines}
            good = head.seq >= first and _copy_key(head) not in seen
            if good and bad_from is None:
                bad_from = offset
        if head is None or not good:
            if bad_from is None:
                bad_from = offset
            continue
        if bad_from is not None:
            found.damaged.append((bad_from, offset))
            bad_from = None
        found.lines.append((head, line))
        if seen is not None:
            seen.add(_copy_key(head))
        expected = max(expected, head.last + 1)
    if bad_from is not None:
        found.torn = len(data) - bad_from
    return found


def _copy_key(head: Head) -> tuple[int, bool]:
    """What two copies of a line share; a record is no copy of the gap that it beats."""
    return head.seq, head.kind == "gap"
