"""Reports from manifests: sums that were made when a segment was sealed.

Owns the choice of the segments whose manifest answers a question exactly; the others are read.  Of
segments that were pruned there is only the manifest: what it cannot answer is in no sum, which is
told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from litellm_ledger._aggregates.quantiles import Spread
from litellm_ledger._aggregates.quarters import QuarterQuestion
from litellm_ledger._aggregates.totals import Totals
from litellm_ledger._archive.archive import source_of
from litellm_ledger._reading.listing import Snapshot, by_writer
from litellm_ledger._reading.pruned import Gone, Pruned
from litellm_ledger._reading.sealed import manifests
from litellm_ledger._records.layout import SEGMENTS, SegmentName
from litellm_ledger._storage.manifest import Manifest, read, read_head
from litellm_ledger._storage.partial import size_of

__all__ = ["Sealed", "add_pruned", "add_sealed", "alone"]


class Sealed(NamedTuple):
    """What manifests have told.

    Attributes:
        names: the segments that they have spoken for.
        rest: the other ones.
        open: the writers with a call in those segments that has no outcome in the same one.
        pruned: how many calls are in the sums of whose records there is only the manifest.
        unmeasured: of how many of these the manifests do not tell what was measured.
        untold: pruned segments that may have what is asked for, and do not tell it.
    """

    names: frozenset[SegmentName]
    rest: list[SegmentName]
    open: frozenset[str]
    pruned: int = 0
    unmeasured: int = 0
    untold: Sequence[Pruned] = ()


def add_sealed(
    ledger: Snapshot,
    question: QuarterQuestion,
    totals: Totals,
    spread: Spread | None,
    gone: Gone = MappingProxyType({}),
) -> Sealed:
    """Add up what manifests tell of a ledger, durations too where they are asked for.

    A pruned segment that is still there, or there again, has the same sums by its manifest.
    """
    of_pruned = add_pruned(ledger, question, totals, spread, gone)
    if not question.answerable:
        return of_pruned
    left = of_pruned.rest
    told = manifests(ledger.root, left, ledger.archive)
    found = set(of_pruned.names)
    for _, family in by_writer(left):
        for name in alone(family, told):
            if _add(ledger.root, name, told[name], question, totals, spread):
                found.add(name)
        found.update(name for name in family if name in told and not told[name].records)
    rest = [name for name in left if name not in found]
    started = frozenset(name.writer for name in found if name in told and told[name].open)
    return of_pruned._replace(names=frozenset(found), rest=rest, open=started)


def add_pruned(
    ledger: Snapshot,
    question: QuarterQuestion,
    totals: Totals,
    spread: Spread | None,
    gone: Gone,
) -> Sealed:
    """Add up what the manifests of pruned segments tell."""
    before = totals.calls()
    unmeasured = 0
    found: set[SegmentName] = set()
    last = {name: one for (name, _), one in gone.items() if one.records}  # the last by time holds
    for name, one in last.items():
        manifest = _sums_of(ledger.root, name, one) if question.answerable else None
        if manifest is None:
            continue
        if _add(ledger.root, name, manifest, question, totals, spread):
            found.add(name)
        elif spread is not None:
            calls = totals.calls()
            if _add(ledger.root, name, manifest, question, totals, None):
                found.add(name)
                unmeasured += totals.calls() - calls
    whole = [*found]
    twice = {name: one for name, one in last.items() if one.changed.sums == "elsewhere"}
    found.update(name for name in twice if any(_holds(other, name) for other in whole))
    there = set(ledger.segments)
    untold = [
        one
        for name, one in last.items()
        if name not in found
        and name not in twice
        and question.may_have(one.changed.was.earliest, one.changed.was.latest)
        and not (name in there and _is_there(ledger, name, one))
    ]
    rest = [name for name in ledger.segments if name not in found]
    pruned = totals.calls() - before
    return Sealed(frozenset(found), rest, frozenset(), pruned, unmeasured, untold)


def _sums_of(root: Path, name: SegmentName, one: Pruned) -> Manifest | None:
    """Return the manifest that has the sums of a pruned segment; ``None`` if there is none."""
    manifest = read_head(root, name) if one.changed.sums == "kept" else None
    if manifest is None or manifest.sha256 != one.changed.was.sha256:
        return None
    return manifest


def _holds(one: SegmentName, other: SegmentName) -> bool:
    """Whether a sealed segment has all the numbers of another one."""
    return (
        one.writer == other.writer
        and one.first <= other.first
        and (one.last or 0) >= (other.last or 0)
    )


def _is_there(ledger: Snapshot, name: SegmentName, one: Pruned) -> bool:
    """Whether a segment that an audit names is still there, or again, and not gaps in its place."""
    was = one.changed.was
    if name in ledger.archive:
        return source_of(ledger.archive[name])[0] == was.sha256
    try:
        return size_of(ledger.root / SEGMENTS / str(name)) == was.size
    except OSError:
        return False


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
