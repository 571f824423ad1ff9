"""Reports from manifests: sums that were made when a segment was sealed.

Owns the choice of the segments whose manifest answers a question exactly; the others are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

from litellm_ledger._aggregates.quantiles import Spread
from litellm_ledger._aggregates.quarters import QuarterQuestion
from litellm_ledger._aggregates.totals import Totals
from litellm_ledger._reading.listing import Snapshot, by_writer
from litellm_ledger._reading.sealed import manifests
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._storage.manifest import Manifest, read

__all__ = ["Sealed", "add_sealed", "alone"]


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


def add_sealed(
    ledger: Snapshot, question: QuarterQuestion, totals: Totals, spread: Spread | None
) -> Sealed:
    """Add up what manifests tell of a ledger, durations too where they are asked for."""
    if not question.answerable:
        return Sealed(frozenset(), ledger.segments, frozenset())
    told = manifests(ledger.root, ledger.segments, ledger.archive)
    found = set()
    for _, family in by_writer(ledger.segments):
        for name in alone(family, told):
            if _add(ledger.root, name, told[name], question, totals, spread):
                found.add(name)
    rest = [name for name in ledger.segments if name not in found]
    started = frozenset(name.writer for name in found if told[name].open)
    return Sealed(frozenset(found), rest, started)


def _add(
    root: Path,
    name: SegmentName,
    manifest: Manifest,
    question: QuarterQuestion,
    totals: Totals,
    spread: Spread | None,
) -> bool:
    """Add one segment; what is large is read only if few rows cannot tell."""
    tag = question.tag
    tagged = tag is not None and (manifest.tags is None or tag in manifest.tags)
    short = None if tagged else manifest.short_table()
    if spread is None and short is not None and question.add_to(totals, short):
        return True
    if spread is not None and tagged:
        return False
    there = read(root, name)
    if there is None or there[0].sha256 != manifest.sha256:  # another one by now
        return False
    durations = None if spread is None else there[0].duration_table()
    tables = (table for table in (short, there[0].table_of(tag)) if table is not None)
    return any(question.add_to(totals, table, spread, durations) for table in tables)


def alone(family: Sequence[SegmentName], told: Mapping[SegmentName, Manifest]) -> list[SegmentName]:
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
