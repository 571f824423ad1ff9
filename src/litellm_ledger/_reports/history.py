"""``Calls`` and ``Operation``: single records, for a person who looks at them.

Owns the order (the newest first; attempts in the order in which they were made) and the ways to
find one operation.  Reads through what it is given, never opens a file itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import nlargest
from typing import Any

import msgspec

from litellm_ledger._reading.lines import Problem
from litellm_ledger._records.record import UsageRecord

__all__ = ["Calls", "Operation", "OperationAttempt", "newest", "operation"]


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """Records, the newest first.

    Attributes:
        records: at most as many as were asked for.
        matched: how many there are in all.
        problems: places on the ledger that hold no valid record.
    """

    records: list[UsageRecord]
    matched: int
    problems: list[Problem] = []

    def __iter__(self) -> Iterator[UsageRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)


class OperationAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One request to a provider.

    Attributes:
        number: from 1.
        started: the record of its start; ``None`` if it was recorded with its outcome only.
        outcome: ``None`` while it is in flight.
    """

    number: int
    started: UsageRecord | None = None
    outcome: UsageRecord | None = None


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller asked, and every attempt that was made at it.

    Attributes:
        id: of its first record.
        attempts: by number.
    """

    id: str
    attempts: list[OperationAttempt]


# The database orders in the same way: _archive/sql/calls.sql.
def _when(record: UsageRecord) -> tuple[Any, ...]:
    ts = record.ts
    return (ts is not None, ts and ts.timestamp(), record.id)


def newest(
    found: Iterable[UsageRecord], limit: int | None, problems: list[Problem] | None = None
) -> Calls:
    """Keep the newest ``limit`` records (``None``: all); one without ``ts`` counts as the oldest.

    Holds ``limit`` records in memory.
    """
    matched = 0

    def counted() -> Iterator[UsageRecord]:
        nonlocal matched
        for record in found:
            matched += 1
            yield record

    if limit is None:
        records = sorted(counted(), key=_when, reverse=True)
    else:
        records = nlargest(limit, counted(), key=_when)
    return Calls(records=records, matched=matched, problems=[] if problems is None else problems)


def operation(name: str, records: Iterable[UsageRecord]) -> Operation:
    """Sort the records of one operation into its attempts."""
    pairs: dict[int, dict[str, UsageRecord]] = {}
    for record in records:
        if record.kind in ("started", "usage"):
            part = "started" if record.kind == "started" else "outcome"
            pairs.setdefault(record.attempt or 1, {})[part] = record
    attempts = [OperationAttempt(number=number, **pairs[number]) for number in sorted(pairs)]
    return Operation(id=name, attempts=attempts)
