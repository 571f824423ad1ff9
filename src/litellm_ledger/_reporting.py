"""Questions about a whole ledger, answered by whoever answers sooner.

Owns the choice: a small ledger is read line by line; a large one is given to the database, where
that is installed.  Both use the same definitions and come to the same figures, to the picodollar.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from ._archive import archived
from ._duck import available
from ._groups import MISSING
from ._history import Calls, Operation, newest, operation
from ._in_flight import Running
from ._layout import ARCHIVE, SEGMENTS, SegmentName, split_id
from ._listing import by_writer, list_segments
from ._querying import calls as asked_calls
from ._querying import find_operation as asked_operation
from ._querying import report as asked_report
from ._querying import tags as asked_tags
from ._reading import Problem, entries, everything, whole
from ._record import UsageRecord
from ._relation import ask
from ._report import Report, build
from ._selection import Selection
from ._version import refuse_newer

__all__ = ["find_operation", "is_large", "list_calls", "list_tags", "make_report"]

_LARGE: Final = 8 * 2**20
"""Bytes that are read line by line in the time that the database takes to be there."""

_ARCHIVED: Final = 200
"""How many bytes of lines take as long to read line by line as one byte of the archive."""

_MOST_TAGS: Final = 20
"""Names of tags that are listed when one is not found."""


def make_report(root: Path, by: Sequence[str], selection: Selection, *, quantiles: bool) -> Report:
    """Add up outcomes by group; see ``Ledger.report``."""
    running = Running(root)  # before a line is read: who is dead writes no more
    if is_large(root):
        report = ask(
            root,
            lambda lines: _with_tags(
                asked_report(lines, by, selection, quantiles=quantiles),
                lambda: asked_tags(lines, selection),
            ),
        )
        running.look(selection.fits)
    else:
        problems: list[Problem] = []
        lines = running.outcomes(everything(root, problems), selection.fits)
        dates = selection.calendar
        report = _with_tags(
            build(lines, by, problems, calendar=dates, quantiles=quantiles),
            lambda: _tags(root, selection),
        )
    if selection.where and not report.total.calls:
        report = _with_asked(report, root, selection)
    in_flight, cut_off = running.counted()
    return replace(report, in_flight=in_flight, cut_off=cut_off)


def list_calls(root: Path, selection: Selection, limit: int | None) -> Calls:
    """List outcomes, the newest first; see ``Ledger.calls``."""
    if is_large(root):
        return ask(root, lambda lines: asked_calls(lines, selection, limit))
    problems: list[Problem] = []
    wanted = (
        entry
        for entry in everything(root, problems)
        if entry.line.kind == "usage" and selection.fits(entry.line)
    )
    return newest(whole(wanted, problems), limit, problems)


def list_tags(root: Path, selection: Selection) -> set[str]:
    """Return the names of the tags that the outcomes asked for have."""
    if is_large(root):
        return ask(root, lambda lines: asked_tags(lines, selection))
    return _tags(root, selection)


def find_operation(root: Path, key: str) -> Operation | None:
    """Return one operation with its attempts; see ``Ledger.operation``.

    Lines are searched for the bytes of the key, which is sooner than any database; rows of the
    archive are for the database.
    """
    names = list_segments(root)
    refuse_newer(root)
    if archived(root):
        return ask(root, lambda lines: asked_operation(lines, key))
    known = split_id(key)
    first = next(_holding(root, names, known and known[0], key), None)
    if first is None:
        return None
    name = first.operation or first.id or key
    writer = (split_id(name) or ("",))[0]
    return operation(name, _holding(root, names, writer, name, whose=True))


def _holding(
    root: Path, names: list[SegmentName], writer: str | None, key: str, *, whose: bool = False
) -> Iterator[UsageRecord]:
    """Yield the records with this key, or (``whose``) of this operation, of one writer or all."""
    needle = msgspec.json.encode(key)[1:-1]  # as it stands in a line
    for owner, group in by_writer(names):
        if writer is None or owner == writer:
            for record in whole(entries(root, group, [], having=needle), []):
                keys = [record.operation or record.id]
                if not whose:
                    keys += [record.id, record.call_id, record.response_id]
                if key in keys:
                    yield record


def is_large(root: Path) -> bool:
    """Whether the database answers sooner, and is installed."""
    size = 0
    for part, worth in ((SEGMENTS, 1), (ARCHIVE, _ARCHIVED)):
        try:
            with os.scandir(root / part) as files:
                for file in files:
                    size += worth * file.stat().st_size
                    if size > _LARGE:
                        return available()
        except OSError:
            continue
    return False


def _missing(report: Report) -> tuple[str, ...]:
    """Return the tags among the keys that are on none of the calls."""
    return tuple(
        name.removeprefix("tag:")
        for name in report.by
        if name.startswith("tag:")
        and report.total.calls
        and all(row.group[name] == MISSING for row in report.rows)
    )


def _with_tags(report: Report, tags: Callable[[], set[str]]) -> Report:
    """Say which tags are on no call; then, and only then, which there are is looked up."""
    missing = _missing(report)
    return _named(report, missing, tags() if missing else set())


def _with_asked(report: Report, root: Path, selection: Selection) -> Report:
    """Say which of the tags that were asked for are on no call of that time at all."""
    asked = [name.removeprefix("tag:") for name in selection.where if name.startswith("tag:")]
    known = list_tags(root, Selection(selection.since, selection.until)) if asked else set()
    return _named(report, tuple(name for name in asked if name not in known), known)


def _named(report: Report, missing: tuple[str, ...], known: set[str]) -> Report:
    listed = tuple(sorted(known)[:_MOST_TAGS]) if missing else ()
    return replace(report, missing_tags=missing, known_tags=listed)


def _tags(root: Path, selection: Selection) -> set[str]:
    found: set[str] = set()
    for entry in everything(root, []):
        if entry.line.kind == "usage" and entry.line.tags and selection.fits(entry.line):
            found.update(entry.line.tags)
    return found
