"""``Ledger``: reads what was recorded, while other processes write or after they died.

Owns the public way in: segments, records, report, verify.  What is in a database is fetched first
(``_reading.elsewhere``) and then read like a directory.  Never writes, locks or repairs anything,
never imports LiteLLM, needs no event loop (call it in a thread from async code).
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from litellm_ledger._aggregates.calendar import PERIODS, calendar
from litellm_ledger._aggregates.groups import check_by
from litellm_ledger._aggregates.selection import Selection, Where
from litellm_ledger._errors import LedgerPathError
from litellm_ledger._reading.elsewhere import Elsewhere, Place, Unshipped, Wanted, at_hand
from litellm_ledger._reading.lines import Problem, everything, whole
from litellm_ledger._reading.listing import each, list_segments, take_each
from litellm_ledger._reading.pruned import Expired, what_was_pruned
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._records.record import UsageRecord

from .engine import find_operation, list_calls, list_tags, make_report
from .history import Calls, Operation
from .places import place_of
from .report import Report

if TYPE_CHECKING:
    from litellm_ledger._reading.anchor import Anchor
    from litellm_ledger._reading.verdict import Verification

    from .sql import Table

__all__ = ["Ledger", "Records", "ReportOptions"]

_KINDS = frozenset({"started", "usage", "gap"})


class ReportOptions(TypedDict, total=False):
    """The arguments of ``Ledger.report`` apart from ``by``; see there."""

    since: datetime | None
    until: datetime | None
    where: Where | None
    where_not: Where | None
    every: str | None
    tz: str | tzinfo | None
    week_start: str
    quantiles: bool


class Records(Iterator[UsageRecord]):
    """An iterator of the records that were asked for; ``problems`` grows as they are read.

    Attributes:
        problems: the places skipped so far because they hold no valid record.
    """

    __slots__ = ("__weakref__", "_found", "_opened", "problems")

    def __init__(
        self,
        found: Generator[UsageRecord],
        problems: list[Problem],
        opened: contextlib.ExitStack | None = None,
    ) -> None:
        self._found = found
        self._opened = contextlib.ExitStack() if opened is None else opened
        if opened is not None:
            weakref.finalize(self, opened.close)  # what was fetched from elsewhere
        self.problems = problems

    def __next__(self) -> UsageRecord:
        try:
            return next(self._found)
        except BaseException:
            self._opened.close()
            raise

    def close(self) -> None:
        """Stop reading and close the file that is being read."""
        self._found.close()
        self._opened.close()


def _checked(limit: int | None) -> int | None:
    if limit is not None and (type(limit) is not int or limit < 0):
        raise ValueError(f"limit={limit!r}: give a whole number, 0 or None for all")
    return limit or None


class Ledger:
    """Reads a ledger directory.  Safe while any number of processes write to it.

    Nothing is read until a method is called; each call lists the directory again.

    Args:
        path: the directory that the client writes to, or the URL of what ledgers are shipped to: a
            database (``postgresql://…``, extra ``postgres``) or object storage (``s3://…``,
            ``gs://…``, ``az://…``, ``file://…``, extra ``object``); or several, which are read as
            one.  One that is given twice counts once; of a ledger and its copy, which have the same
            records, reading says ``LedgerPathError``.

    Attributes:
        places: all of them: directories, and what is elsewhere.

    Raises:
        ValueError: none is given; a URL cannot be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Elsewhere | Sequence[str | os.PathLike[str] | Elsewhere],
    ) -> None:
        given = [path] if isinstance(path, str | os.PathLike | Elsewhere) else path
        self.places: tuple[Place, ...] = tuple(map(place_of, given))
        if not self.places:
            raise ValueError("Ledger([]): give a directory, or several")

    def __repr__(self) -> str:
        paths = [str(place) for place in self.places]
        return f"Ledger({(paths if len(paths) > 1 else paths[0])!r})"

    @property
    def path(self) -> Path:
        """The directory, of several the first; as ``paths``."""
        return self.paths[0]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The directories.

        Raises:
            LedgerPathError: one of the ledgers is no directory.
        """
        found = []
        for place in self.places:
            if not isinstance(place, Path):
                raise LedgerPathError(
                    f"{place} is no directory of this machine; do this where the ledger is written"
                )
            found.append(place)
        return tuple(found)

    def segments(self) -> list[SegmentName]:
        """List the segments, sealed and open, by writer (that is, by its start) and first number.

        Raises:
            LedgerPathError: there is no ledger, or it cannot be read; the text says what to do.
        """
        found: list[SegmentName] = []
        for place in dict.fromkeys(self.places):
            if isinstance(place, Elsewhere):
                found += place.segments()
        here = tuple(place for place in self.places if isinstance(place, Path))
        return [*(name for root in each(here) for name in list_segments(root)), *found]

    def records(
        self,
        *,
        kinds: Collection[str] = ("usage",),
        since: datetime | None = None,
        until: datetime | None = None,
        where: Where | None = None,
        where_not: Where | None = None,
    ) -> Records:
        """Read records: writer by writer, ascending by sequence number within each.

        Each sequence number is returned once, even if several segments hold it.  A record takes
        precedence over a gap that covers its id, and a real outcome over an ``unsettled`` one of
        the same attempt.  Damaged lines are skipped and listed in ``problems`` of the result.  One
        line is held in memory at a time.  Records written after the call began may or may not be
        seen.

        Args:
            kinds: which kinds of line: ``usage`` (outcomes), ``started``, ``gap``.
            since, until: only records with ``since <= ts < until``; timezone-aware.
            where: group key to value, or to several values, any of which matches; all keys must
                match: ``{"model": ["m", "n"], "user": "a"}``.  The keys are those of ``report``,
                periods in UTC; ``"(none)"`` matches records without the key.  A model matches with
                and without its provider: ``gpt-4o`` is also ``openai/gpt-4o``.  Or conditions in
                text, as ``--where`` takes them: ``"cost>0.01"``, ``["model=gpt-*", "env!=test"]``.
                Of a number (dollars, milliseconds) that a record lacks, only ``!=`` holds; costs
                are those recorded.
            where_not: a mapping of values to exclude; records without the key are kept.

        Raises:
            LedgerPathError: there is no ledger, or it cannot be read.
            UnsupportedFormat: it was written by a newer version (also raised while reading).
            ValueError: an argument is invalid.
        """
        wanted = frozenset([kinds] if isinstance(kinds, str) else kinds)
        if not wanted <= _KINDS:
            raise ValueError(f"unknown kind: {', '.join(sorted(wanted - _KINDS))}")
        selection = Selection(since, until, where, where_not=where_not)
        with contextlib.ExitStack() as stack:
            asked = Wanted(kinds=wanted, selection=selection)
            there = stack.enter_context(at_hand(self.places, asked))
            ledgers = take_each(there.roots)
            opened = stack.pop_all()
        problems = there.problems
        lines = (
            entry
            for ledger in ledgers
            for entry in everything(ledger, problems)
            if entry.line.kind in wanted and selection.fits(entry.line)
        )
        return Records(whole(lines, problems), problems, opened if there.fetched else None)

    def report(
        self,
        by: Sequence[str] | None = ("model",),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        where: Where | None = None,
        where_not: Where | None = None,
        every: str | None = None,
        tz: str | tzinfo | None = "UTC",
        week_start: str = "monday",
        quantiles: bool = False,
        limit: int | None = None,
        as_recorded: bool = False,
        as_of: datetime | None = None,
        sort: str | None = None,
    ) -> Report:
        """Add up the outcomes by group.  Memory grows with the groups, not with the ledger.

        Args:
            by: group keys: ``model``, ``provider``, ``call``, ``status``, ``response_model``,
                ``error``, ``usage_source``, ``cost_source``, the periods ``hour``, ``day``,
                ``week``, ``month``, and tags: ``tag:NAME``, or ``NAME`` alone, which rows show as
                ``tag:NAME``.  ``[]`` or ``None``: only the total.
            since, until, where, where_not: as for ``records``.
            every: a period to begin with: ``every="day", by=["model"]`` is ``by=["day", "model"]``.
            tz: the time zone of the periods: a name (``Europe/Berlin``), ``local`` or a ``tzinfo``.
            week_start: the first day of a week, in English; default ``monday``.
            quantiles: also ``latency_ms`` and ``ttft_ms`` of each row.
            as_recorded: costs as they were recorded.  By default an outcome that was priced again
                (``litellm-ledger reprice``) has its newest cost.
            as_of: costs as they were at this time, timezone-aware.
            limit: the largest number of rows; 0 or ``None``: all.  ``others`` has the sums of the
                groups beyond, which take no memory where DuckDB reads the ledger.
            sort: another order of the rows: a group key or a number in ``Row``, with ``:asc`` or
                ``:desc``: ``calls``, ``cost:asc``, ``day:desc``.  Keys ascend by default, numbers
                descend; an unknown cost counts as 0.  Equal rows stay in the usual order.

        Raises:
            LedgerPathError, UnsupportedFormat, ValueError: as for ``records``.
        """
        if every is not None and every not in PERIODS:
            raise ValueError(f"unknown period {every!r}; use {', '.join(PERIODS)}")
        keys = check_by(() if by is None else by)
        if every is not None:
            keys = check_by([every, *keys])
        selection = Selection(since, until, where, calendar(tz, week_start), where_not)
        if as_of is not None and (as_recorded or as_of.tzinfo is None):
            raise ValueError("as_of is a timezone-aware time, without as_recorded")
        order = None
        if sort is not None:
            from litellm_ledger._aggregates.order import read_order

            order = read_order(sort, keys, flag="sort=")
        return make_report(
            self.places,
            keys,
            selection,
            quantiles=quantiles,
            limit=_checked(limit),
            as_of="recorded" if as_recorded else as_of or "newest",
            order=order,
        )

    def calls(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        where: Where | None = None,
        where_not: Where | None = None,
        limit: int | None = 20,
    ) -> Calls:
        """List outcomes, newest first by ``ts``.

        Args:
            since, until, where, where_not: as for ``records``.
            limit: the largest number of outcomes; 0 or ``None``: all, which are held in memory.

        Raises:
            LedgerPathError, UnsupportedFormat, ValueError: as for ``records``.
        """
        return list_calls(
            self.places, Selection(since, until, where, where_not=where_not), _checked(limit)
        )

    def operation(self, key: str) -> Operation | None:
        """Return one operation with all its attempts; ``None`` if there is none.

        Args:
            key: the ``id`` of any of its records, or a ``call_id``, or the ``response_id`` of an
                answer.

        Raises:
            LedgerPathError, UnsupportedFormat: as for ``records``.
        """
        here = each(tuple(place for place in self.places if isinstance(place, Path)))
        places: list[Place] = [*here, *(p for p in self.places if isinstance(p, Elsewhere))]
        found = (find_operation(place, key) for place in places)
        return next((one for one in found if one is not None), None)

    def sql(
        self,
        query: str,
        parameters: Sequence[object] | Mapping[str, object] | None = None,
        *,
        allow_files: bool = False,
    ) -> Table:
        """Run a DuckDB SQL query on the views ``calls`` and ``records`` (docs/reports.md).

        Args:
            query: one statement that only reads.
            parameters: values for its ``?`` or ``$name``.
            allow_files: the statement may also read files that this process can read
                (``read_csv('budgets.csv')``); without it, only the two views.

        Raises:
            MissingExtra: DuckDB is not installed (the extra ``report``).
            ValueError: the query is not allowed, or fails; the text says why.
            LedgerPathError, UnsupportedFormat: as for ``records``.
        """
        from .sql import run_sql

        return run_sql(self.places, query, parameters, allow_files=allow_files)

    def tags(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        where: Where | None = None,
        where_not: Where | None = None,
    ) -> list[str]:
        """List the names of the tags that outcomes have.

        Raises:
            LedgerPathError, UnsupportedFormat, ValueError: as for ``records``.
        """
        return sorted(list_tags(self.places, Selection(since, until, where, where_not=where_not)))

    def pruned(
        self, *, since: datetime | None = None, until: datetime | None = None
    ) -> Expired | None:
        """Return how many records of a time were pruned, and the time of the last of them.

        ``None``: none.  Reports may still have their sums; nothing else has them.

        Args:
            since, until: only records that may be of ``since <= ts < until``; timezone-aware.

        Raises:
            LedgerPathError, UnsupportedFormat: as for ``records``.
        """
        wanted = Wanted(kinds=frozenset(), selection=Selection(since, until))
        with at_hand(self.places, wanted) as there:
            found = what_was_pruned(each(there.roots), since, until)
            expired = [one for one in there.fetched.values() if one.expired]
            if not expired:
                return found
            records = (found.records if found else 0) + sum(one.expired for one in expired)
            moments = [found.latest if found else None, *(one.expired_until for one in expired)]
            return Expired(records, max((m for m in moments if m is not None), default=None))

    def unshipped(self) -> Unshipped | None:
        """Return what a database is known not to have yet; ``None``: nothing, or no database.

        Raises:
            LedgerPathError, UnsupportedFormat: as for ``records``.
        """
        if all(isinstance(place, Path) for place in self.places):
            return None
        with at_hand(self.places, Wanted(kinds=frozenset())) as there:
            return there.unshipped

    def verify(
        self,
        *,
        full: bool = False,
        anchors: str | os.PathLike[str] | None = None,
        against: Sequence[str | os.PathLike[str]] = (),
    ) -> Verification:
        """Compare the records on the ledger with its writers' counters; see ``Verification``.

        A sealed segment that has a manifest is checked by its SHA-256; the others line by line.

        Args:
            full: check every line, and compare every manifest with its lines.
            anchors: a file with lines that ``litellm-ledger anchor`` has printed: also check that
                nothing which they cover was changed, added or taken away.
            against: of a database: ledger directories that are shipped to it, whose lines are
                compared with what it has.

        Raises:
            LedgerPathError: there is no ledger, or it cannot be read.
            UnsupportedFormat: it was written by a newer version.
            ValueError: there is no anchor in the file; these are several ledgers; ``against`` with
                a directory, or ``anchors`` with a database.
            OSError: that file cannot be read.
        """
        if len(self.places) > 1:
            raise ValueError("verify one ledger at a time: Ledger(path).verify() for each of paths")
        place = self.places[0]
        if isinstance(place, Elsewhere):
            directories = tuple(map(Path, against))
            if anchors is None:
                return place.verify(full=full, against=directories)
            if not place.has_manifests:
                raise ValueError("anchors are of a directory; verify that one")
            verify_there: Any = place.verify
            found: Verification = verify_there(
                full=full, against=directories, anchors=_anchors_in(anchors)
            )
            return found
        if against:
            raise ValueError("against= goes with a database")
        from litellm_ledger._reading.verify import (
            verify,  # needs file locks, which reading does not
        )

        return verify(self.path, full=full, anchors=() if anchors is None else _anchors_in(anchors))


def _anchors_in(file: str | os.PathLike[str]) -> list[Anchor]:
    from litellm_ledger._reading.anchor import read_anchors

    return read_anchors(Path(file))
