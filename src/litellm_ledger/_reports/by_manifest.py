"""Reports from manifests: sums that were made when a segment was sealed.

Owns the choice of the segments whose manifest answers a question exactly; the others are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import NamedTuple

from litellm_ledger._aggregates.quarters import QuarterQuestion
from litellm_ledger._aggregates.totals import Totals
from litellm_ledger._reading.listing import Snapshot, by_writer
from litellm_ledger._reading.sealed import manifests
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._storage.manifest import Manifest

__all__ = ["Sealed", "add_sealed"]


class Sealed(NamedTuple):
    """What manifests have told.

    Attributes:
        names: the segments that they have spoken for.
        rest: the other ones.
        open: the writers with a call in those segments that has no outcome in the same one.
    """

    names: frozenset[SegmentName]
    rest: list[SegmentName]
    open: frozenset[str]


def add_sealed(ledger: Snapshot, question: QuarterQuestion, totals: Totals) -> Sealed:
    """Add up what manifests tell of a ledger."""
    if not question.answerable:
        return Sealed(frozenset(), ledger.segments, frozenset())
    names = [name for name in ledger.segments if name not in ledger.archive]
    told = manifests(ledger.root, names, question.tag)
    found = set()
    for _, family in by_writer(ledger.segments):
        for name in _alone(family, told):
            table = told[name].table_of(question.tag)
            if table is not None and question.add_to(totals, table):
                found.add(name)
    rest = [name for name in ledger.segments if name not in found]
    started = frozenset(name.writer for name in found if told[name].open)
    return Sealed(frozenset(found), rest, started)


def _alone(
    family: Sequence[SegmentName], told: Mapping[SegmentName, Manifest]
) -> list[SegmentName]:
    """Return those of a writer's segments whose lines all count.

    A line does not count where another segment has the same number, and an unsettled call does not
    where another line has its outcome.
    """
    alone = []
    end = 0.0
    for name, after in zip(family, [*family[1:], None], strict=True):
        last = name.last or inf  # nobody knows where an open one ends
        overlaps = name.first <= end or (after is not None and after.first <= last)
        end = max(end, last)
        if name in told and told[name].plain and not overlaps:
            alone.append(name)
    return alone
