"""Reports from manifests: sums that were made when a segment was sealed.

Owns the choice of the segments whose manifest answers a question exactly; the others are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

from litellm_ledger._aggregates.quarters import QuarterQuestion, Table
from litellm_ledger._aggregates.totals import Totals
from litellm_ledger._reading.listing import Snapshot, by_writer
from litellm_ledger._reading.sealed import manifests
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._storage.manifest import Manifest, read

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
    told = manifests(ledger.root, ledger.segments, ledger.archive)
    found = set()
    for _, family in by_writer(ledger.segments):
        for name in _alone(family, told):
            tables = _tables(ledger.root, told[name], name, question.tag)
            if any(question.add_to(totals, table) for table in tables if table is not None):
                found.add(name)
    rest = [name for name in ledger.segments if name not in found]
    started = frozenset(name.writer for name in found if told[name].open)
    return Sealed(frozenset(found), rest, started)


def _tables(
    root: Path, manifest: Manifest, name: SegmentName, tag: str | None
) -> Iterator[Table | None]:
    """Yield what may answer: few rows first, and what is large only if they cannot."""
    if tag is None or (manifest.tags is not None and tag not in manifest.tags):
        yield manifest.short_table()
    there = read(root, name)
    if there is not None and there[0].sha256 == manifest.sha256:
        yield there[0].table_of(tag)


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
