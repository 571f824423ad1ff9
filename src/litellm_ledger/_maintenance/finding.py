"""Where a person's records are: in segments, in the archive, among adjustments.

Owns the search, which changes nothing.  A line is the person's if it meets the conditions, or if it
is the beginning or the outcome of a request whose other line does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from litellm_ledger._archive.archive import ArchiveFile, rebuilt
from litellm_ledger._archive.database import connect, module
from litellm_ledger._errors import LedgerPathError
from litellm_ledger._reading.adjustments import each_addition
from litellm_ledger._reading.lines import Problem
from litellm_ledger._reading.listing import Snapshot
from litellm_ledger._records.adjustment import Adjustment
from litellm_ledger._records.audit import Audit
from litellm_ledger._records.layout import SEGMENTS, SegmentName, record_id, split_id
from litellm_ledger._records.line import Line, line_of
from litellm_ledger._records.scan import heads
from litellm_ledger._storage.filesystem import open_file

from .person import Person

__all__ = ["Found", "Place", "archived_lines", "blocks", "find"]

_BLOCK: Final = 4 * 2**20
_FEW: Final = 16
"""Operations that are looked for one by one in a block of lines."""
_MEMBER: Final = b'"operation":"'
_Call = tuple[str, int]


class Place(NamedTuple):
    """A segment, and the file of the archive that holds it; ``None``: it is in ``segments/``."""

    segment: SegmentName
    file: Path | None = None


@dataclass
class Found:
    """What is a person's.

    Attributes:
        numbers: of the person's lines, by where they are; open segments are among them.
        ids: of these lines, each with its cost in picodollars; ``None``: it is no outcome.
        running: places and numbers of ``started`` lines without an outcome.
        kept_back: places and numbers of lines of calls that cannot go yet.
        adjustments: ids of adjustments of these records, or of the person, by segment; and of
            audits that released what such records held.
        problems: files that cannot be read.
    """

    numbers: dict[Place, set[int]] = field(default_factory=dict)
    ids: dict[str, int | None] = field(default_factory=dict)
    running: list[tuple[Place, int]] = field(default_factory=list)
    kept_back: list[tuple[Place, int]] = field(default_factory=list)
    adjustments: dict[SegmentName, set[str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def outcomes(self, but: Collection[str]) -> list[int]:
        """Return the costs of the outcomes, except those of these ids."""
        return [cost for key, cost in self.ids.items() if cost is not None and key not in but]


def find(
    ledger: Snapshot,
    person: Person,
    is_done: Callable[[bytes], bool] = lambda _raw: False,
    has_to_stay: Callable[[Line], bool] = lambda _line: False,
) -> Found:
    """Look for a person in all segments, in the archive and among adjustments.

    Args:
        ledger: what is looked through.
        person: whose records.
        is_done: of which lines nothing is left to take out.
        has_to_stay: which calls cannot go yet, by one of their lines.

    Raises:
        LedgerPathError: the archive cannot be read.
    """
    search = _Search(ledger, person, is_done, has_to_stay)
    search.look(_of_person(person))
    search.look_for_partners()
    search.look_among_adjustments()
    return search.found


class _Wanted(NamedTuple):
    """What is looked for: whether it may be in bytes, and whether it is a line."""

    may_be_in: Callable[[bytes], bool]
    may_be: Callable[[bytes], bool]
    takes: Callable[[Line], bool]


def _of_person(person: Person) -> _Wanted:
    return _Wanted(person.may_be_in, person.may_be_in, person.has)


def _of_calls(calls: set[_Call]) -> _Wanted:
    names = frozenset(operation.encode() for operation, _ in calls)

    def may_be_in(data: bytes) -> bool:
        return len(names) > _FEW or b"\\u" in data or any(name in data for name in names)

    def may_be(raw: bytes) -> bool:
        at = raw.find(_MEMBER) + len(_MEMBER)
        name = raw[at : raw.find(b'"', at)]
        return at < len(_MEMBER) or b"\\" in name or name in names

    return _Wanted(
        may_be_in,
        may_be,
        lambda line: line.kind != "gap" and _call_of(line) in calls,
    )


def _call_of(line: Line) -> _Call:
    return line.operation or line.id, line.attempt or 1


class _Search:
    """One look through a ledger, and what it has found."""

    def __init__(
        self,
        ledger: Snapshot,
        person: Person,
        is_done: Callable[[bytes], bool],
        has_to_stay: Callable[[Line], bool],
    ) -> None:
        self._ledger = ledger
        self._has_to_stay = has_to_stay
        self._places: dict[_Call, list[tuple[Place, int]]] = {}
        self._staying: set[_Call] = set()
        self._is_done = is_done
        self._person = person
        self.found = Found()
        self._began: dict[_Call, list[tuple[Place, int]]] = {}
        self._ended: set[_Call] = set()
        self._alone: set[_Call] = set()
        self._here = {path.name for path in (ledger.root / SEGMENTS).iterdir()}

    def look(self, wanted: _Wanted, writers: set[str] | None = None) -> None:
        """Note every line that is wanted; of some writers, if these are given."""

        def is_of(name: SegmentName) -> bool:
            return writers is None or name.writer in writers

        for name in filter(is_of, self._ledger.segments):
            if str(name) in self._here:
                self._look_at(name, wanted)
        files = {file.path: file for file, _ in self._ledger.archive.values()}
        for file in files.values():
            if not any(map(is_of, file.names)):
                continue
            for at, data in archived_lines(file):
                if is_of(file.names[at]):
                    self._note(Place(file.names[at], file.path), data, wanted)

    def _look_at(self, name: SegmentName, wanted: _Wanted) -> None:
        try:
            with open_file(self._ledger.root / SEGMENTS / str(name)) as file:
                for data in blocks(file):
                    self._note(Place(name), data, wanted)
        except FileNotFoundError:  # an open one was sealed, or removed: who counts looks again
            return
        except OSError as exc:
            where = f"{SEGMENTS}/{name}"
            self.found.problems.append(
                Problem(where, "unreadable", detail=exc.strerror or str(exc))
            )

    def _note(self, place: Place, data: bytes, wanted: _Wanted) -> None:
        if not wanted.may_be_in(data):
            return
        writer = place.segment.writer
        for whole in BytesIO(data):
            if not wanted.may_be(whole):
                continue
            for _, head, raw in heads(whole):
                line = line_of(raw) if head is not None else None
                if (
                    line is not None
                    and line.id == record_id(writer, line.seq)
                    and wanted.takes(line)
                ):
                    self._take(place, line, raw)

    def _take(self, place: Place, line: Line, raw: bytes) -> None:
        found, call = self.found, _call_of(line)
        is_done = self._is_done(raw)
        if not is_done:
            found.numbers.setdefault(place, set()).add(line.seq)
            self._places.setdefault(call, []).append((place, line.seq))
            if self._has_to_stay(line):
                self._staying.add(call)
        if line.kind == "started":
            self._began.setdefault(call, []).append((place, line.seq))
        else:
            self._ended.add(call)
            if call[0] == line.id:
                self._alone.add(call)
        if not is_done:
            found.ids[line.id] = None if line.kind == "started" else line.cost or 0

    def look_for_partners(self) -> None:
        """Note the other lines of the requests of which only one was found."""
        halves = (self._began.keys() ^ self._ended) - self._alone
        if halves:
            owners = [split_id(operation) for operation, _ in halves]
            known = {owner[0] for owner in owners if owner is not None}
            self.look(_of_calls(halves), known if None not in owners else None)
        self.found.running = [
            one for call, ones in self._began.items() if call not in self._ended for one in ones
        ]
        self.found.kept_back = [one for call in self._staying for one in self._places[call]]

    def look_among_adjustments(self) -> None:
        """Note adjustments of records that were found, and those that say that they are theirs."""
        problems: list[Problem] = []
        for one in each_addition(self._ledger.root, self._ledger.adjustments, problems):
            if isinstance(one, Adjustment):
                theirs = one.adjusts in self.found.ids or self._person.has_adjustment(one)
            else:
                theirs = any(
                    let.record in self.found.ids or self._person.has_released(let)
                    for let in one.released
                )
            if theirs:
                self._note_adjustment(one)
        self.found.problems += problems

    def _note_adjustment(self, one: Adjustment | Audit) -> None:
        writer, seq = split_id(one.id) or ("", 0)
        for name in self._ledger.adjustments:
            if name.writer == writer and name.first <= seq <= (name.last or 0):
                self.found.adjustments.setdefault(name, set()).add(one.id)


def blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of an open file in parts that end with a line."""
    while data := file.read(_BLOCK):
        yield data + file.readline()


def archived_lines(file: ArchiveFile) -> Iterator[tuple[int, bytes]]:
    """Yield (number of the source, some of its lines) of a file of the archive.

    Raises:
        LedgerPathError: it cannot be read.
    """
    with connect(threads=1, ordered=True) as database:
        try:
            yield from rebuilt(database, file.path, 0, len(file.sources))
        except module().Error as exc:
            raise LedgerPathError(f"cannot read {file.path}: {exc}") from exc
