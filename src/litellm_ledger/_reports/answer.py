"""``Answer``: a report whose rows are made one by one, as they are asked for.

Owns the cut of a report: its first rows, and what all others come to.  Neither reads nor prints.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from litellm_ledger._aggregates.calendar import PERIODS
from litellm_ledger._aggregates.groups import MISSING, OTHER, Row
from litellm_ledger._aggregates.quantiles import MEASURED

from .report import MAX_GROUPS, Report, added, in_order

if TYPE_CHECKING:
    from litellm_ledger._aggregates.order import Order

__all__ = ["Answer", "above", "of_report"]

_NO_SPREAD: Final[dict[str, Any]] = dict.fromkeys(MEASURED)


@dataclass(frozen=True, slots=True)
class Answer:
    """A report and its rows.

    Attributes:
        report: without its rows.
        count: the number of rows; if rows that differ in the last key alone come together, of what
            comes together.
        whole: the sums over the rows.
        rows: yields the first rows, in order, all for ``None``; anew each time.
        missing: keys by a tag that is on none of the calls, without ``tag:``.
        order: of the rows, where another one was asked for.
    """

    report: Report
    count: int
    whole: Row
    rows: Callable[[int | None], Iterator[Row]]
    missing: tuple[str, ...] = ()
    order: Order | None = None

    def first(self, limit: int | None) -> Report:
        """Return a report of ``limit`` rows; without one, those beyond a million are folded."""
        rows = list(self.rows(limit or MAX_GROUPS))
        beyond = self.count - len(rows)
        others = added(rows, self.whole, -1) if beyond else None
        if limit or others is None:
            return replace(self.report, rows=rows, others=others, others_count=beyond)
        folded = replace(others, group=dict.fromkeys(self.report.by, OTHER))
        if self.order is None:
            insort(rows, folded, key=in_order(self.report.by))
        else:
            rows.append(folded)
        return replace(self.report, rows=rows, folded=self.report.folded + others.calls)


def of_report(report: Report, *, nested: bool = False, order: Order | None = None) -> Answer:
    """Return the answer that a report with all its rows is."""
    rows, outer = report.rows, report.by[:-1]
    if nested:
        rows = _nested(rows, outer, order)
    outermost = {tuple(row.group[key] for key in outer) for row in rows} if nested else rows
    # The rows of by_tag come to more than the total: a call counts once for each of its tags.
    whole = added(rows) if report.by == ("tag", "value") else report.total
    tags = [name for name in report.by if name.startswith("tag:")]
    return Answer(
        report=replace(report, rows=[]),
        count=len(outermost),
        whole=replace(whole, **_NO_SPREAD),
        rows=lambda limit: islice(rows, limit),
        missing=tuple(
            name.removeprefix("tag:")
            for name in tags
            if report.total.calls and all(row.group[name] == MISSING for row in rows)
        ),
        order=order,
    )


def above(rows: Iterator[Row], keys: Sequence[str]) -> Iterator[tuple[Row, list[Row]]]:
    """Yield for each run of rows with the same values of these keys their sum, and them."""
    for group, run in groupby(rows, key=lambda row: tuple(row.group[key] for key in keys)):
        same = list(run)
        yield replace(added(same), group=dict(zip(keys, group, strict=True))), same


def _nested(rows: Sequence[Row], keys: Sequence[str], order: Order | None) -> list[Row]:
    """Put rows with the same values of these keys together, the most expensive first."""
    below: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        below.setdefault(tuple(row.group[key] for key in keys), []).append(row)
    found = [*below.values()]
    sums = {id(same): replace(added(same), group=same[0].group) for same in found}
    if not any(key in PERIODS for key in keys):
        found.sort(key=lambda same: (-sums[id(same)].cost, -sums[id(same)].calls))
    if order is not None:
        found.sort(key=lambda same: order.value(sums[id(same)]), reverse=order.down)
    return [row for same in found for row in same]
