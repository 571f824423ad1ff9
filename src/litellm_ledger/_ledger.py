"""``Ledger``: reading what was recorded, while others write or after they died.

Owns the public way in: segments, records, report, verify.  Never writes, locks or repairs anything,
never imports LiteLLM, needs no event loop (call it in a thread from async code).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from ._errors import InvalidRecord
from ._frame import decode
from ._groups import MISSING, key_of
from ._in_flight import Running
from ._layout import SEGMENTS, SegmentName
from ._listing import by_writer, list_segments
from ._reading import Entry, Line, Problem, entries
from ._record import UsageRecord
from ._report import Report, build
from ._version import refuse_newer

if TYPE_CHECKING:
    from ._verdict import Verification

__all__ = ["Ledger", "Records"]

_KINDS = frozenset({"started", "usage", "gap"})

_MOST_TAGS: Final = 20
"""Names of tags that are listed when one is not found."""


class Records(Iterator[UsageRecord]):
    """The records that were asked for, one by one; ``problems`` fills up as they are read.

    Attributes:
        problems: the places passed over so far because they hold no valid record.
    """

    __slots__ = ("_found", "problems")

    def __init__(self, found: Generator[UsageRecord], problems: list[Problem]) -> None:
        self._found = found
        self.problems = problems

    def __next__(self) -> UsageRecord:
        return next(self._found)

    def close(self) -> None:
        """Stop reading and close the file that is being read."""
        self._found.close()


class Ledger:
    """A ledger directory, for reading.  Safe while any number of processes write to it.

    Nothing is touched until a method is called; each call lists the directory anew.

    Args:
        path: the directory that the client writes to.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Ledger({str(self.path)!r})"

    def segments(self) -> list[SegmentName]:
        """List the segments, sealed and open, by writer (that is, by its start) and first number.

        Raises:
            LedgerPathError: there is no ledger, or it cannot be read; the text says what to do.
        """
        return list_segments(self.path)

    def records(
        self,
        *,
        kinds: Collection[str] = ("usage",),
        since: datetime | None = None,
        until: datetime | None = None,
        where: Mapping[str, str] | None = None,
    ) -> Records:
        """Read records: writer by writer, ascending by sequence number within each.

        Each number comes once, however many segments hold it; a record beats a gap that covers its
        id; an ``unsettled`` outcome is left out when a real one of its attempt is there.  Damaged
        lines are passed over and noted in ``problems`` of what is returned.  One line is held in
        memory at a time.  Records written after the call began may or may not be seen.

        Args:
            kinds: which kinds of line: ``usage`` (outcomes), ``started``, ``gap``.
            since, until: only those with ``since <= ts < until``; timezone-aware.
            where: group key to value, all of which must match: ``{"model": "m", "tag:user": "a"}``;
                the keys are those of ``report``, ``"(none)"`` matches what lacks the key.

        Raises:
            LedgerPathError: there is no ledger, or it cannot be read.
            UnsupportedFormat: it was written by a newer version (also raised while reading).
            ValueError: an argument that cannot be right.
        """
        wanted = frozenset([kinds] if isinstance(kinds, str) else kinds)
        if not wanted <= _KINDS:
            raise ValueError(f"no such kind: {', '.join(sorted(wanted - _KINDS))}")
        fits = _condition(since, until, where)
        problems: list[Problem] = []
        lines = (
            entry
            for entry in self._entries(problems)
            if entry.line.kind in wanted and fits(entry.line)
        )
        return Records(_whole(lines, problems), problems)

    def report(
        self,
        by: Sequence[str] = ("model",),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        where: Mapping[str, str] | None = None,
    ) -> Report:
        """Add up the outcomes by group.  Streams; memory grows with the groups only.

        Args:
            by: group keys: ``model``, ``provider``, ``call``, ``status``, ``day`` (UTC),
                ``tag:NAME``; several at once; none for the total alone.
            since, until, where: as for ``records``.

        Raises:
            LedgerPathError, UnsupportedFormat, ValueError: as for ``records``.
        """
        problems: list[Problem] = []
        fits = _condition(since, until, where)
        running = Running(self.path)  # before a line is read: who is dead writes no more
        entries = self._entries(problems)
        report = build(running.outcomes(entries, fits), by, problems)
        in_flight, cut_off = running.counted()
        missing = [name for name in report.by if report.total.calls and _is_on_none(name, report)]
        known = self._tags(fits) if missing else set()
        return replace(
            report,
            in_flight=in_flight,
            cut_off=cut_off,
            missing_tags=tuple(name.removeprefix("tag:") for name in missing),
            known_tags=tuple(sorted(known)[:_MOST_TAGS]),
        )

    def verify(self) -> Verification:
        """Compare what is on the ledger with what its writers counted; see ``Verification``.

        Raises:
            LedgerPathError: there is no ledger, or it cannot be read.
            UnsupportedFormat: it was written by a newer version.
        """
        from ._verify import verify  # needs file locks, which reading does not

        return verify(self.path)

    def _entries(self, problems: list[Problem]) -> Iterator[Entry]:
        names = self.segments()  # here, so that a ledger we cannot read is an error of the call
        refuse_newer(self.path)
        return (
            entry for _, group in by_writer(names) for entry in entries(self.path, group, problems)
        )

    def _tags(self, fits: Callable[[Line], bool]) -> set[str]:
        """The names of all tags; asked only when one that was named is on no call."""
        found: set[str] = set()
        for entry in self._entries([]):
            if entry.line.kind == "usage" and entry.line.tags and fits(entry.line):
                found.update(entry.line.tags)
        return found


def _condition(
    since: datetime | None, until: datetime | None, where: Mapping[str, str] | None
) -> Callable[[Line], bool]:
    """Return what tells whether a line was asked for.

    Raises:
        ValueError: an argument that cannot be right.
    """
    for name, bound in (("since", since), ("until", until)):
        if bound is not None and bound.tzinfo is None:
            raise ValueError(f"{name} must be timezone-aware: datetime(..., tzinfo=timezone.utc)")
    conditions = [(key_of(key), value) for key, value in (where or {}).items()]

    def fits(line: Line) -> bool:
        if since is not None and (line.ts is None or line.ts < since):
            return False
        if until is not None and (line.ts is None or line.ts >= until):
            return False
        return all(of(line) == value for of, value in conditions)

    plain = since is until is None and not conditions
    return _anything if plain else fits


def _anything(line: Line) -> bool:
    return True


def _is_on_none(name: str, report: Report) -> bool:
    return name.startswith("tag:") and all(row.group[name] == MISSING for row in report.rows)


def _whole(lines: Iterator[Entry], problems: list[Problem]) -> Generator[UsageRecord]:
    for entry in lines:
        line = entry.line
        try:
            record = decode(entry.raw)
        except InvalidRecord as exc:
            where = f"{SEGMENTS}/{entry.segment}"
            problems.append(Problem(where, "damaged", entry.offset, len(entry.raw), 1, str(exc)))
            continue
        if line.kind == "gap":  # it may have been cut down
            record = replace(record, id=line.id, seq=line.seq, gap_until=line.gap_until)
        yield record
