"""Questions about a whole ledger, answered by the engine that answers sooner.

Owns the choice: a small ledger is read line by line; a large one is given to the database, where
that is installed.  Both use the same definitions and come to the same figures, to the picodollar.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from heapq import nsmallest
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from litellm_ledger._aggregates.quantiles import Spread
from litellm_ledger._aggregates.quarters import QuarterQuestion
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._aggregates.tag_values import LARGEST, TagValues
from litellm_ledger._aggregates.totals import Totals
from litellm_ledger._archive.database import available
from litellm_ledger._reading.elsewhere import AtHand, Place, Places, Wanted, at_hand
from litellm_ledger._reading.lines import Line, Problem, entries, everything, whole
from litellm_ledger._reading.listing import (
    Roots,
    Snapshot,
    by_writer,
    each,
    list_additions,
    list_live,
    refuse_copies,
    take_each,
)
from litellm_ledger._reading.open_calls import Running
from litellm_ledger._reading.pruned import (
    Gone,
    Pruned,
    busy,
    expired,
    overlaps,
    read_pruned,
    was_changed_since,
)
from litellm_ledger._records.layout import SEGMENTS, SegmentName, split_id
from litellm_ledger._records.ranges import Spans
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._storage.manifest import read_head
from litellm_ledger._storage.partial import size_of

from .answer import Answer, of_report
from .by_manifest import Sealed, add_sealed
from .history import Calls, Operation, newest, operation
from .report import MAX_GROUPS, Report, build

if TYPE_CHECKING:
    from litellm_ledger._aggregates.order import Order

__all__ = [
    "AsOf",
    "count_tags",
    "find_operation",
    "has_adjustments",
    "is_large",
    "list_calls",
    "list_tags",
    "make_report",
    "open_report",
    "with_pruned",
]

_TRIES: Final = 10
"""Readings of a ledger that is pruned, or erased from, while it is read."""

_LARGE: Final = 8 * 2**20
"""Bytes that are read line by line in the time that the database takes to be there."""

_ARCHIVED: Final = 200
"""How many bytes of lines take as long to read line by line as one byte of the archive."""

_MANY: Final = 20_000
"""Groups that are made rows of in the time that the database takes to be there."""

AsOf = datetime | Literal["newest", "recorded"]
"""Which cost of an outcome: the one before this time, the newest, or that on its own line."""

_MOST: Final = 20
"""Names of tags, or values of a key, that are listed when what was asked for is not found."""


def make_report(
    root: Places,
    by: Sequence[str],
    selection: Selection,
    *,
    quantiles: bool,
    limit: int | None = None,
    as_of: AsOf = "newest",
    order: Order | None = None,
) -> Report:
    """Add up outcomes by group; see ``Ledger.report``."""
    with open_report(root, by, selection, quantiles=quantiles, as_of=as_of, order=order) as answer:
        return answer.first(limit)


class _Look(NamedTuple):
    """A ledger as one report sees it.

    Attributes:
        ledger, running, live: what there is, and who writes.
        sealed: what manifests have told.
    """

    ledger: Snapshot
    running: Running
    live: list[str]
    gone: Gone = MappingProxyType({})
    sealed: Sealed = Sealed(frozenset(), [], frozenset())

    @property
    def left(self) -> Snapshot:
        """What is to be read."""
        return self.ledger.of(self.sealed.rest)

    def outcomes(self, selection: Selection, problems: list[Problem]) -> Iterator[Line]:
        """Yield the outcomes that are to be read and are selected; note the calls in flight."""
        segments = self.ledger.segments
        lines = everything(self.left, problems, dict(by_writer(segments)))
        if self.sealed.open.isdisjoint(self.live):
            yield from self.running.outcomes(lines, selection.fits)
            return
        # a call that began in a segment that is not read
        self.running.look(segments, selection.fits)
        for entry in lines:
            if entry.line.kind == "usage" and selection.fits(entry.line):
                yield entry.line


def _add_adjustments(
    ledger: Snapshot,
    by: Sequence[str],
    selection: Selection,
    totals: Totals,
    problems: list[Problem],
    as_of: AsOf,
    untold: Sequence[Pruned],
) -> int:
    from .adjusted import add_adjustments

    without: dict[str, Spans] = {}
    for one in untold:
        without.setdefault(one.name.writer, Spans()).add_range(one.name.first, one.name.last or 0)
    return add_adjustments(
        ledger,
        by,
        selection,
        totals,
        problems,
        as_of,
        lambda ids: _selected(ledger, selection, ids),
        without,
    )


@contextlib.contextmanager
def open_report(
    root: Places,
    by: Sequence[str],
    selection: Selection,
    *,
    quantiles: bool = False,
    nested: bool = False,
    as_of: AsOf = "newest",
    order: Order | None = None,
) -> Iterator[Answer]:
    """Add up outcomes by group, for rows that are made while the ``with`` runs.

    Args:
        nested: rows that differ in the last key alone come together.
        order: of the rows; by default that of a report.
    """
    with contextlib.ExitStack() as opened:

        def answered() -> tuple[list[_Look], Answer]:
            return _answered(
                root,
                by,
                selection,
                opened,
                quantiles=quantiles,
                nested=nested,
                as_of=as_of,
                order=order,
            )

        looks, answer = answered()
        left = _TRIES
        while changed := [look.ledger for look in looks if was_changed_since(look.ledger)]:
            opened.pop_all().close()
            left -= 1
            if not left:
                raise busy(changed[0].root)
            looks, answer = answered()
        yield answer


def _answered(
    places: Places,
    by: Sequence[str],
    selection: Selection,
    opened: contextlib.ExitStack,
    *,
    quantiles: bool,
    nested: bool,
    as_of: AsOf,
    order: Order | None,
) -> tuple[list[_Look], Answer]:
    """Look at ledgers, and answer from what is there; see ``open_report``."""
    dates = selection.calendar
    totals = Totals(by, max_groups=MAX_GROUPS, calendar=dates)
    spread = Spread(by, dates) if quantiles else None
    asked = QuarterQuestion(by, selection)
    there = opened.enter_context(
        at_hand(
            places,
            Wanted(
                kinds=frozenset({"started", "usage"}),
                selection=selection,
                sums=None if quantiles else (by, totals),
                slim=True,
            ),
        )
    )
    root = there.roots
    problems: list[Problem] = [*there.problems]
    adjusted = 0
    looks: list[_Look] = []
    for one in each(root):
        live = list_live(one)
        running = Running(one, live)  # before a line is read: who is dead writes no more
        ledger = Snapshot.take(one, live)
        looks.append(_Look(ledger, running, live, read_pruned(one, ledger.adjustments)))
    refuse_copies([look.ledger for look in looks])
    for at, (ledger, _, _, gone, _) in enumerate(looks):
        sealed = add_sealed(ledger, asked, totals, spread, gone)
        looks[at] = looks[at]._replace(sealed=sealed)
        if ledger.adjustments and as_of != "recorded":
            adjusted += _add_adjustments(
                ledger, by, selection, totals, problems, as_of, sealed.untold
            )
    left = [look.left for look in looks]
    if _is_large(*left) or (totals.groups > _MANY and available()):
        from . import grouped, relation

        answer = opened.enter_context(
            relation.asked(
                root,
                lambda lines: grouped.report(
                    lines,
                    totals,
                    by,
                    selection,
                    spread and spread.copy(),
                    nested=nested,
                    order=order,
                ),
                without=frozenset().union(*[look.sealed.names for look in looks]),
            )
        )
        for look in looks:
            look.running.look(look.ledger.segments, selection.fits)
        answer.report.problems.extend(problems)
    else:
        outcomes = chain.from_iterable(look.outcomes(selection, problems) for look in looks)
        report = build(
            outcomes, by, problems, calendar=dates, totals=totals, spread=spread, order=order
        )
        answer = of_report(report, nested=nested, order=order)
    report = _with_tags(answer, lambda: list_tags(places, selection))
    if selection.where or selection.where_not:
        report = _with_asked(report, places, selection)
    counts = [look.running.counted() for look in looks]
    in_flight, cut_off = (sum(numbers) for numbers in zip(*counts, strict=True))
    report = replace(report, in_flight=in_flight, cut_off=cut_off, adjusted=adjusted)
    report = with_pruned(report, [(look.gone, look.sealed) for look in looks], selection)
    report = _with_fetched(report, there)
    return looks, dataclasses.replace(answer, report=report)


def with_pruned(
    report: Report, looks: Sequence[tuple[Gone, Sealed]], selection: Selection
) -> Report:
    """Say how much of the sums is known by them only, and how much is not in them.

    Args:
        report: of the sums.
        looks: of each ledger what was pruned, and what manifests have told.
        selection: which outcomes.
    """
    if not any(sealed.pruned or sealed.untold for _, sealed in looks):
        return report
    since, until = selection.since, selection.until
    told = [one for gone, _ in looks for one in gone.values() if overlaps(one, since, until)]
    untold = [one for _, sealed in looks for one in sealed.untold]
    return replace(
        report,
        aggregated=sum(sealed.pruned for _, sealed in looks),
        unmeasured=sum(sealed.unmeasured for _, sealed in looks),
        pruned=expired(untold).records,
        pruned_until=expired(told).latest,
    )


def _with_fetched(report: Report, there: AtHand) -> Report:
    """Say what a ledger elsewhere does not have: not yet, or not any more."""
    if not there.fetched:
        return report
    gone = [one for one in there.fetched.values() if one.expired or one.aggregated]
    moments = [report.pruned_until, *(one.expired_until for one in gone)]
    return replace(
        report,
        unshipped=there.unshipped,
        aggregated=report.aggregated + sum(one.aggregated for one in gone),
        pruned=report.pruned + sum(one.expired for one in gone),
        pruned_until=max((moment for moment in moments if moment is not None), default=None),
    )


def list_calls(places: Places, selection: Selection, limit: int | None) -> Calls:
    """List outcomes, the newest first; see ``Ledger.calls``."""
    with at_hand(places, Wanted(selection=selection, newest=limit)) as there:
        found = _list_calls(there.roots, selection, limit)
        if not there.fetched:
            return found
        problems = [*there.problems, *found.problems]
        return replace(found, matched=found.matched + there.left, problems=problems)


def _list_calls(root: Roots, selection: Selection, limit: int | None) -> Calls:
    ledgers = take_each(root)
    if _is_large(*ledgers):
        from . import in_duckdb, relation

        return relation.ask(root, lambda lines: in_duckdb.calls(lines, selection, limit))
    problems: list[Problem] = []
    wanted = (
        entry
        for ledger in ledgers
        for entry in everything(ledger, problems)
        if entry.line.kind == "usage" and selection.fits(entry.line)
    )
    return newest(whole(wanted, problems), limit, problems)


def list_tags(places: Places, selection: Selection) -> set[str]:
    """Return the names of the tags that the outcomes asked for have."""
    with at_hand(places, Wanted(selection=selection, tags=True, slim=True)) as there:
        return there.tags | _list_tags(there.roots, selection)


def _list_tags(root: Roots, selection: Selection) -> set[str]:
    ledgers = take_each(root)
    pruned = set().union(*(_tags_of_pruned(ledger, selection) for ledger in ledgers))
    if _is_large(*ledgers):
        from . import in_duckdb, relation

        return pruned | relation.ask(root, lambda lines: in_duckdb.tags(lines, selection))
    return pruned.union(*_tagged(ledgers, selection))


def _tags_of_pruned(ledger: Snapshot, selection: Selection) -> set[str]:
    """Return the tags that outcomes of that time had, as far as the manifests of pruned ones say.

    These say nothing of other conditions.
    """
    found: set[str] = set()
    for (name, sha256), one in read_pruned(ledger.root, ledger.adjustments).items():
        if one.told and overlaps(one, selection.since, selection.until):
            manifest = read_head(ledger.root, name)
            if manifest is not None and manifest.sha256 == sha256:
                found.update(manifest.tags or ())
    return found


def count_tags(places: Places, selection: Selection) -> dict[str, TagValues]:
    """Return how the values of each tag are spread over the outcomes asked for.

    Memory grows with the different values.
    """
    with at_hand(places, Wanted(selection=selection, slim=True)) as there:
        return _count_tags(there.roots, selection)


def _count_tags(root: Roots, selection: Selection) -> dict[str, TagValues]:
    ledgers = take_each(root)
    if _is_large(*ledgers):
        from . import in_duckdb, relation

        return relation.ask(root, lambda lines: in_duckdb.tag_values(lines, selection))
    counts: dict[str, Counter[str]] = {}
    for tags in _tagged(ledgers, selection):
        for name, value in tags.items():
            counts.setdefault(name, Counter())[value] += 1
    return {
        name: TagValues(
            calls=found.total(),
            values=len(found),
            largest=sum(calls for _, calls in found.most_common(LARGEST)),
        )
        for name, found in counts.items()
    }


def _selected(ledger: Snapshot, selection: Selection, ids: set[str]) -> set[str]:
    """Return which of these are the ids of outcomes that are asked for."""
    if _is_large(ledger):
        from . import in_duckdb, relation

        return relation.ask(ledger.root, lambda lines: in_duckdb.selected(lines, selection, ids))
    return {
        entry.line.id
        for entry in everything(ledger, [])
        if entry.line.kind == "usage" and entry.line.id in ids and selection.fits(entry.line)
    }


def has_adjustments(places: Places) -> bool:
    """Whether any outcome was priced again."""
    from litellm_ledger._reading.adjustments import are_there

    with at_hand(places, Wanted(kinds=frozenset())) as there:
        return any(are_there(root, list_additions(root)) for root in each(there.roots))


def find_operation(place: Place, key: str) -> Operation | None:
    """Return one operation with its attempts; see ``Ledger.operation``."""
    kinds = frozenset({"started", "usage"})
    with at_hand(place, Wanted(kinds=kinds, key=key)) as there:
        (root,) = each(there.roots)
        return operation_in(root, key)


def operation_in(root: Path, key: str) -> Operation | None:
    """Find an operation in a directory.

    Lines are searched for the bytes of the key, which is sooner than any database; rows of the
    archive are for the database.
    """
    ledger = Snapshot.take(root)
    names = ledger.segments
    if ledger.archive:
        from . import in_duckdb, relation

        return relation.ask(root, lambda lines: in_duckdb.find_operation(lines, key))
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


def is_large(root: Roots) -> bool:
    """Whether the database answers sooner, and is installed."""
    return _is_large(*take_each(root))


def _is_large(*ledgers: Snapshot) -> bool:
    size = 0
    for ledger in ledgers:
        plain = (ledger.root / SEGMENTS / str(name) for name in ledger.segments)
        compacted = {file.path for file, _ in ledger.archive.values()}
        for paths, worth in ((compacted, _ARCHIVED), (plain, 1)):
            for path in paths:
                with contextlib.suppress(OSError):  # renamed, or moved into the archive, just now
                    size += worth * size_of(path)
                if size > _LARGE:
                    return available()
    return False


def _with_tags(answer: Answer, tags: Callable[[], set[str]]) -> Report:
    """Say which tags are on no call; then, and only then, which there are is looked up."""
    return _named(answer.report, answer.missing, tags() if answer.missing else set())


def _with_asked(report: Report, places: Places, selection: Selection) -> Report:
    """Say which tags of the conditions are on no call of that time; of no match, what there is.

    A call without the tag passes some conditions, so that a wrong name goes unseen in the figures:
    those are always checked, the others where nothing matches.
    """
    matched = bool(report.total.calls)
    asked = selection.tags(passing_without=matched)
    span = Selection(selection.since, selection.until, calendar=selection.calendar)
    if asked:
        known = list_tags(places, span)
        missing = dict.fromkeys([*report.missing_tags, *sorted(asked - known)])
        report = _named(report, tuple(missing), known | set(report.known_tags))
    if matched:
        return report
    nowhere = {f"tag:{tag}" for tag in report.missing_tags}
    keys = [key for key in {**selection.where, **selection.where_not} if key not in nowhere]
    with open_report(places, keys, span) as answer:
        return replace(report, instead=_values(answer))


def _values(answer: Answer) -> dict[str, tuple[str, ...]]:
    """Return the values of each key, those of most calls first."""
    keys = answer.report.by if answer.report.total.calls else ()
    calls: dict[str, Counter[str]] = {key: Counter() for key in keys}
    for row in answer.rows(None):
        for key in keys:
            calls[key][row.group[key]] += row.calls
    found: dict[str, tuple[str, ...]] = {}
    for key, counted in calls.items():
        listed = nsmallest(_MOST, counted, key=lambda value: (-counted[value], value))
        found[key] = (*listed, *(["…"] if len(counted) > _MOST else []))
    return found


def _named(report: Report, missing: tuple[str, ...], known: Iterable[str]) -> Report:
    listed: set[str] = set()
    if missing:
        from difflib import get_close_matches

        near = [get_close_matches(name, known, n=1) for name in missing]
        listed = {*sorted(known)[:_MOST], *(name for names in near for name in names)}
    return replace(report, missing_tags=missing, known_tags=tuple(sorted(listed)))


def _tagged(ledgers: Iterable[Snapshot], selection: Selection) -> Iterator[Mapping[str, str]]:
    """Yield the tags of the outcomes asked for that have any."""
    for ledger in ledgers:
        for entry in everything(ledger, []):
            if entry.line.kind == "usage" and entry.line.tags and selection.fits(entry.line):
                yield entry.line.tags
