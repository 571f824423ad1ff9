"""What recovery writes: lines kept, holes stood in for, calls declared unsettled.  Pure.

Owns the merging of a dead writer's overlapping segments and the lines that recovery adds in its
name.  Bytes in, bytes out; never touches a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from litellm_ledger._errors import InvalidRecord
from litellm_ledger._records.gaps import Gap, GapLine
from litellm_ledger._records.layout import SegmentName, record_id
from litellm_ledger._records.line import decode, encode
from litellm_ledger._records.record import Reason, UsageRecord
from litellm_ledger._records.scan import Head, Scan

__all__ = [
    "Held",
    "OpenCalls",
    "fill",
    "gap_line",
    "is_whole",
    "last_number",
    "unsettled_line",
]


@dataclass(slots=True)
class Held:
    """The lines of segments whose numbers overlap, merged: one per number, a record before a gap.

    Attributes:
        records: valid lines that are records, by number.
        gaps: what the valid gap lines say.
    """

    records: dict[int, tuple[Head, bytes]] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)

    def add(self, lines: Iterable[tuple[Head, bytes]]) -> None:
        """Take in the valid lines of one segment."""
        for head, line in lines:
            if head.kind == "gap":
                gap = Gap.of(head)
                if gap not in self.gaps:
                    self.gaps.append(gap)
            else:
                self.records.setdefault(head.seq, (head, line))


class OpenCalls:
    """The calls that were started and that no outcome settles, as records go by in order."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], tuple[Head, bytes]] = {}

    def feed(self, held: Held) -> None:
        """Take in one group of overlapping segments; groups come in the order of their numbers."""
        # An outcome comes after its `started`; so within a group, where each number stands once,
        # going by number is enough, and nothing has to be remembered about settled calls.
        for seq in sorted(held.records):
            head, line = held.records[seq]
            call = (head.operation or head.id, head.attempt or 1)
            if head.kind == "started":
                self._open[call] = head, line
            elif head.kind == "usage":
                self._open.pop(call, None)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[tuple[Head, bytes]]:
        """Yield the ``started`` lines that are still open, oldest first."""
        return iter(self._open.values())


def last_number(scan: Scan) -> int:
    """Return the highest number a segment's valid lines stand for (0: it has none)."""
    return max((head.last for head, _ in scan.lines), default=0)


def is_whole(name: SegmentName, scan: Scan) -> bool:
    """Whether a sealed segment is what its name says, with nothing torn or damaged in it."""
    return not scan.damaged and not scan.torn and last_number(scan) == name.last


def fill(writer: str, first: int, last: int, held: Held) -> tuple[list[bytes], int]:
    """Return lines that cover ``first`` … ``last`` without a hole, and how many have no record.

    Numbers of which no record is held are stood in for by gap lines: with what the gap line that
    already covers them says, else ``quarantined``.
    """
    lines: list[bytes] = []
    missing = 0
    expected = first
    numbers = sorted(seq for seq in held.records if first <= seq <= last)
    for seq in [*numbers, last + 1]:
        for gap in _explained(expected, seq - 1, held.gaps):
            lines.append(gap_line(writer, *gap))
            missing += (gap.last - gap.first + 1) if gap.reason == "quarantined" else 0
        if seq <= last:
            lines.append(held.records[seq][1])
        expected = seq + 1
    return lines, missing


def _explained(first: int, last: int, gaps: list[Gap]) -> Iterator[Gap]:
    """Split ``first`` … ``last`` by the gaps that are known to cover parts of it."""
    for gap in sorted(gaps, key=lambda gap: gap[:2]):
        if first <= last and first <= gap.last and gap.first <= last:
            if first < gap.first:
                yield Gap(first, gap.first - 1, "quarantined")
            yield gap._replace(first=max(first, gap.first), last=min(last, gap.last))
            first = min(last, gap.last) + 1
    if first <= last:
        yield Gap(first, last, "quarantined")


def gap_line(
    writer: str, first: int, last: int, reason: Reason, acked_until: int | None = None
) -> bytes:
    """Encode the line that stands for the numbers ``first`` … ``last``."""
    return encode(
        GapLine(
            id=record_id(writer, first),
            seq=first,
            kind="gap",
            gap_until=last,
            reason=reason,
            acked_until=acked_until,
        )
    )


def unsettled_line(head: Head, started: bytes, writer: str, seq: int) -> bytes:
    """Encode the outcome of a call whose process died: all that is known is that it left."""
    try:
        call = decode(started)
    except InvalidRecord:  # another program's idea of a record: what orders it is enough
        call = UsageRecord(kind="started")
    return encode(
        UsageRecord(
            id=record_id(writer, seq),
            seq=seq,
            kind="usage",
            ts=call.ts,
            operation=head.operation or head.id,
            attempt=head.attempt or 1,
            call=call.call,
            model=call.model,
            provider=call.provider,
            status="unsettled",
            usage_source="none",
            stream=call.stream,
            hold_picousd=call.hold_picousd,
            hold_tokens=call.hold_tokens,
            tags=call.tags,
            call_id=call.call_id,
        )
    )
