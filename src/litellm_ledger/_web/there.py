"""A ledger in a database or in object storage, as the dashboard asks it.

Owns what each question is put to: it is asked there as the commands ask it, each time anew; nothing
is kept here.  Calls are listed by when they began, as ``litellm-ledger calls`` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, Final

import msgspec

from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._reading.elsewhere import Elsewhere, Fetched, Wanted, at_hand
from litellm_ledger._reading.listing import Snapshot, each
from litellm_ledger._reading.verdict import Verification
from litellm_ledger._records.layout import SegmentName, split_id
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._reports.engine import find_operation, list_calls, make_report, operation_in
from litellm_ledger._reports.history import Operation
from litellm_ledger._reports.plain import Prices, prices_of
from litellm_ledger._reports.report import Report

from .calls import OpenCalls, seen_by
from .viewer import Scope, sees

__all__ = ["There"]

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_MOMENT: Final = timedelta(microseconds=1)
_AT_ONCE: Final = 4
"""Questions of all viewers: a server has a hundred connections, of which others need some."""


class There:
    """Such a ledger; see ``Source``.

    Args:
        place: where it is.
    """

    def __init__(self, place: Elsewhere) -> None:
        self._place = _FewAtOnce(place)

    def report(self, by: Sequence[str], selection: Selection, *, quantiles: bool) -> Report:
        """Add up outcomes."""
        return make_report(self._place, by, selection, quantiles=quantiles)

    def newest(self, selection: Selection, limit: int) -> list[UsageRecord]:
        """Return those that began last, the newest first."""
        return [*list_calls(self._place, selection, limit)]

    def calls(
        self, selection: Selection, limit: int, *, scope: Scope, before: str | None = None
    ) -> tuple[list[UsageRecord], bool]:
        """Return those that began last, the newest first."""
        if before is None:
            return self.newest(selection, limit), True
        bound = _began(self._call(before, scope))
        until = bound[0] + _MOMENT
        if selection.until is not None:
            until = min(until, selection.until)
        rest = selection.between(selection.since, until)
        wanted = limit + 1
        while True:  # more than one may have begun in that moment
            found = self.newest(rest, wanted)
            calls = [one for one in found if _began(one) < bound]
            if len(calls) >= limit or len(found) < wanted:
                return calls[:limit], True
            wanted *= 4

    def _call(self, key: str, scope: Scope) -> UsageRecord:
        found = find_operation(self._place, key)
        for attempt in found.attempts if found is not None else ():
            outcome = attempt.outcome
            if outcome is not None and outcome.id == key and sees(scope, outcome):
                return outcome
        raise LookupError(key)

    def operation(self, key: str, scope: Scope) -> tuple[Operation, Prices] | None:
        """Return an operation."""
        if split_id(key) is None:
            return None
        kinds = frozenset({"started", "usage"})
        with at_hand(self._place, Wanted(kinds=kinds, key=key)) as there:
            (root,) = each(there.roots)
            found = operation_in(root, key)
            seen = None if found is None else seen_by(scope, found)
            return None if seen is None else (seen, prices_of(root, seen))

    def in_flight(self, scope: Scope) -> tuple[int, datetime | None]:
        """Return what has begun and not ended, of writers that are not closed."""
        with self._place.fetch(Wanted(kinds=frozenset({"started"}), slim=True)) as there:
            return OpenCalls(there.root).look(Snapshot.take(there.root), scope)

    def budgets(self, scope: Scope, limit: int) -> dict[str, Any]:
        """Return none: budgets are read where they are enforced."""
        del scope, limit
        return {"ready": True, "budgets": [], "more": 0, "problems": []}

    def processes(self) -> None:
        """Return nothing: their queues are on their machines."""

    def about(self) -> dict[str, Any]:
        """Return what there is, and what is known not to be there yet."""
        with self._place.fetch(Wanted(kinds=frozenset())) as there:
            unshipped = there.unshipped
        names = self._place.segments()
        return {
            "path": str(self._place),
            "records": sum((name.last or name.first) - name.first + 1 for name in names),
            "writers": len({name.writer for name in names}),
            "unshipped": None if unshipped is None else msgspec.to_builtins(unshipped),
            "findings": [],
        }


class _FewAtOnce(Elsewhere):
    """The same ledger, asked a few questions at a time: each takes a connection of its own."""

    def __init__(self, place: Elsewhere) -> None:
        self.url = place.url
        self._place = place
        self._turns = BoundedSemaphore(_AT_ONCE)

    def __str__(self) -> str:
        return str(self._place)

    @contextmanager
    def fetch(self, wanted: Wanted) -> Iterator[Fetched]:
        with ExitStack() as opened:
            with self._turns:
                fetched = opened.enter_context(self._place.fetch(wanted))
            yield fetched

    def segments(self) -> list[SegmentName]:
        with self._turns:
            return self._place.segments()

    def verify(self, *, full: bool = False, against: Sequence[Path] = ()) -> Verification:
        with self._turns:
            return self._place.verify(full=full, against=against)


def _began(record: UsageRecord) -> tuple[datetime, str]:
    """Return what calls are listed by: when they began, then by id; without a time last."""
    return record.ts or _LONG_AGO, record.id or ""
