"""Reading a writer's segments as one stream, whatever happens to the files meanwhile.

Owns the order: the lines of one writer ascending by sequence number, each number once, a record
before a gap that covers it, a real outcome before an ``unsettled`` one.  Never writes, never keeps
more than one line of a segment in memory, and never stops at damage: that is noted and passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from litellm_ledger._archive.archive import archived, unsettled_in
from litellm_ledger._errors import InvalidRecord
from litellm_ledger._records.layout import ARCHIVE, SEGMENTS, SegmentName, record_id, split_id
from litellm_ledger._records.line import Line, checked, decode, line_of, newer_version
from litellm_ledger._records.ranges import Spans
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._storage.format_version import newer_format

from .listing import Snapshot, Vanished, by_writer, open_segment

__all__ = [
    "Entry",
    "Line",
    "Problem",
    "archive_problems",
    "entries",
    "everything",
    "first_of",
    "last_number",
    "real_outcomes",
    "settled",
    "whole",
]


class Entry(NamedTuple):
    """A valid line, and where it stands."""

    line: Line
    raw: bytes
    segment: SegmentName
    offset: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Bytes that hold no record, or a file that could not be read.

    Attributes:
        file: path relative to the ledger directory.
        what: ``damaged`` (bytes that are no valid line), ``torn`` (the invalid end of an open
            segment), ``misnamed`` (the content is not what the name says), ``altered`` (it is not
            what its manifest says, or a manifest is not what it was), ``missing`` (there is only
            its manifest) or ``unreadable``.
        offset, length: the bytes, from the start of the file.
        lines: how many lines they look like.
        detail: for people.
    """

    file: str
    what: Literal["damaged", "torn", "misnamed", "altered", "missing", "unreadable"]
    offset: int = 0
    length: int = 0
    lines: int = 0
    detail: str = ""


def _segment(  # noqa: C901 - one loop over the lines, which is measured
    root: Path,
    name: SegmentName,
    problems: list[Problem],
    having: bytes = b"",
    wanted: Callable[[bytes], bool] | None = None,
) -> Iterator[Entry]:
    """Yield the valid lines of one segment in file order; note the rest in ``problems``.

    With ``having`` only lines that contain these bytes are looked at, with ``wanted`` only those
    that it wants.
    """
    try:
        file, name = open_segment(root, name)
    except Vanished:
        return
    except OSError as exc:
        where = f"{SEGMENTS}/{name}"
        problems.append(Problem(where, "unreadable", detail=exc.strerror or str(exc)))
        return
    where = f"{SEGMENTS}/{name}"
    writer, first = name.writer, name.first
    offset = bad_from = bad_lines = 0
    with file:
        for raw in file:
            start, offset = offset, offset + len(raw)
            if having and having not in raw:
                continue
            if wanted is not None and not wanted(raw):
                continue
            line = None
            if checked(raw):
                line = line_of(raw)
                if line is None:
                    _refuse_newer(raw, root / where)
            if line is None or line.seq < first or line.id != record_id(writer, line.seq):
                if name.open and raw[-1:] != b"\n":
                    offset = start  # the writer is in the middle of it, or died there
                    break
                bad_from = bad_from if bad_lines else start
                bad_lines += 1
                continue
            if bad_lines:
                problems.append(Problem(where, "damaged", bad_from, start - bad_from, bad_lines))
                bad_lines = 0
            yield Entry(line, raw, name, start)
    if bad_lines:
        what: Literal["torn", "damaged"] = "torn" if name.open else "damaged"
        problems.append(Problem(where, what, bad_from, offset - bad_from, bad_lines))


def _refuse_newer(raw: bytes, path: Path) -> None:
    version = newer_version(raw)
    if version is not None:
        raise newer_format(path, version)


def _merged(
    root: Path, names: Sequence[SegmentName], problems: list[Problem], having: bytes
) -> Iterator[Entry]:
    """Yield the lines of one writer's segments by number; duplicates come one after the other.

    A merge that opens a segment only when the first number in its name is reached, and closes it at
    its end: as many files are open at once as really overlap, which is nearly always one.
    """
    heap = [(name.first, at) for at, name in enumerate(names)]
    heapify(heap)
    streams: dict[int, Iterator[Entry]] = {}
    waiting: dict[int, Entry] = {}
    while heap:
        _, at = heappop(heap)
        bound = heap[0][0] if heap else None
        entry = waiting.pop(at, None)
        if entry is None:
            streams[at] = _segment(root, names[at], problems, having)
            entry = next(streams[at], None)
        stream = streams[at]
        while entry is not None:
            if bound is not None and entry.line.seq > bound:
                waiting[at] = entry
                heappush(heap, (entry.line.seq, at))
                break
            yield entry
            entry = next(stream, None)
        else:
            del streams[at]


def entries(
    root: Path,
    names: Sequence[SegmentName],
    problems: list[Problem],
    *,
    having: bytes = b"",
    family: Sequence[SegmentName] | None = None,
    beaten: set[tuple[str, int]] | None = None,
) -> Iterator[Entry]:
    """Yield every line of one writer that counts, by number, each number once.

    A gap comes as soon as the numbers have passed it, cut down to those without a record.

    Args:
        names: segments of one writer; those whose numbers overlap must be among them together.
        having: only lines that contain these bytes are looked at.
        family: all segments of the writer, where an ``unsettled`` call may have its real outcome.
        beaten: the calls known to have one; then nothing is looked for.
    """
    seen, told = Spans(), Spans()
    gaps: list[Entry] = []
    for entry in _merged(root, names, problems, having):
        line = entry.line
        while gaps and line.seq > last_number(gaps[0].line):
            yield from _uncovered(gaps.pop(0), seen, told)
        if line.kind == "gap":
            gaps.append(entry)
        elif seen.add(line.seq):
            if line.status == "unsettled":
                if beaten is None:
                    beaten = settled(root, names if family is None else family)
                key = line.operation or line.id, line.attempt or 1
                if key in beaten:
                    continue
                beaten.add(key)
            yield entry
    for gap in gaps:
        yield from _uncovered(gap, seen, told)


def last_number(line: Line) -> int:
    """Return the last number a line stands for: its own, or where its gap ends."""
    return max(line.seq, line.gap_until or 0)


def _uncovered(gap: Entry, seen: Spans, told: Spans) -> Iterator[Entry]:
    line = gap.line
    for start, end in seen.missing(line.seq, last_number(line)):
        for first, last in told.missing(start, end):
            told.add_range(first, last)
            if first != line.seq or last != line.gap_until:
                number = record_id(gap.segment.writer, first)
                line = msgspec.structs.replace(line, id=number, seq=first, gap_until=last)
            yield gap._replace(line=line)


def settled(root: Path, names: Sequence[SegmentName]) -> set[tuple[str, int]]:
    """Return the (operation, attempt) that have both an ``unsettled`` and a real outcome.

    Asked only when an ``unsettled`` line turns up, which is after a process died with calls in
    flight; then the writer's lines are read once more.
    """
    unsettled: set[tuple[str, int]] = set()
    ignored: list[Problem] = []
    compacted = archived(root)
    for name in names:
        if name in compacted and not unsettled_in(compacted[name]):
            continue
        for entry in _segment(root, name, ignored, having=b"unsettled"):
            line = entry.line
            if line.status == "unsettled":
                unsettled.add((line.operation or line.id, line.attempt or 1))
    return real_outcomes(root, names, unsettled)


def real_outcomes(
    root: Path, names: Sequence[SegmentName], unsettled: set[tuple[str, int]]
) -> set[tuple[str, int]]:
    """Return those of the ``unsettled`` (operation, attempt) of a writer with a real outcome."""
    real: set[tuple[str, int]] = set()
    ignored: list[Problem] = []
    oldest = min((first_of(operation, names[0].writer) for operation, _ in unsettled), default=0)
    for name in names if unsettled else ():
        if name.last is not None and name.last < oldest:
            continue
        for entry in _segment(root, name, ignored, b"usage", _of({key for key, _ in unsettled})):
            line = entry.line
            key = line.operation or line.id, line.attempt or 1
            if line.kind == "usage" and line.status != "unsettled" and key in unsettled:
                real.add(key)
    return real


def first_of(operation: str, writer: str) -> int:
    """Return the number before which no outcome of an operation can stand at a writer's.

    An operation is named after its first record, unless a user has named it.
    """
    owner, number = split_id(operation) or ("", 0)
    return number if owner == writer else 0


def _of(operations: Iterable[str]) -> Callable[[bytes], bool]:
    """Return what tells, before a line is checked and parsed, whether it may be of these."""
    wanted = frozenset(operation.encode() for operation in operations)
    member = b'"operation":"'

    def may_be(raw: bytes) -> bool:
        at = raw.find(member) + len(member)
        name = raw[at : raw.find(b'"', at)]
        return at < len(member) or not name or b"\\" in name or name in wanted

    return may_be


def archive_problems(ledger: Snapshot) -> list[Problem]:
    """Return the files in the archive that are not whole; nothing in them is believed."""
    detail = "not what its name says, or not readable; restore it from a backup"
    return [
        Problem(f"{ARCHIVE}/{path.name}", "unreadable", detail=detail) for path in ledger.broken
    ]


def everything(
    ledger: Snapshot,
    problems: list[Problem],
    families: Mapping[str, Sequence[SegmentName]] | None = None,
) -> Iterator[Entry]:
    """Yield every line of a ledger that counts, writer by writer.

    Args:
        ledger: what is read.
        problems: where what holds no record is noted.
        families: all segments of each writer, where ``ledger`` has only some of them.
    """
    problems += archive_problems(ledger)  # now, not while reading
    families = families or {}
    return (
        entry
        for writer, group in by_writer(ledger.segments)
        for entry in entries(ledger.root, group, problems, family=families.get(writer))
    )


def whole(lines: Iterator[Entry], problems: list[Problem]) -> Generator[UsageRecord]:
    """Decode lines in full; what cannot be is noted in ``problems``."""
    for entry in lines:
        line = entry.line
        try:
            record = decode(entry.raw)
        except InvalidRecord as exc:
            where = f"{SEGMENTS}/{entry.segment}"
            problems.append(Problem(where, "damaged", entry.offset, len(entry.raw), 1, str(exc)))
            continue
        if line.kind == "gap":  # it may have been cut down
            record = msgspec.structs.replace(
                record, id=line.id, seq=line.seq, gap_until=line.gap_until
            )
        yield record
