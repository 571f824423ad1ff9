"""``Report``: what was used and what it cost, by group, and how exact the figures are.

Owns the shape of a report, its order and the sentences under it.  Pure aggregation over lines:
reads no file, prints nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from litellm_ledger._aggregates.calendar import PERIODS, Calendar, moment_of
from litellm_ledger._aggregates.formatting import counted, dollars, listed
from litellm_ledger._aggregates.groups import MISSING, MONEY, Quantiles, Row
from litellm_ledger._aggregates.quantiles import MEASURED, Spread
from litellm_ledger._aggregates.totals import Totals
from litellm_ledger._reading.elsewhere import Unshipped
from litellm_ledger._reading.lines import Line, Problem
from litellm_ledger._records.money import usd, whole

from .dataframes import COSTS, to_arrow, to_pandas, to_polars

if TYPE_CHECKING:
    from litellm_ledger._aggregates.order import Order

__all__ = [
    "MAX_GROUPS",
    "Measured",
    "Report",
    "added",
    "build",
    "by_tag",
    "finish",
    "in_order",
    "measured_row",
    "row_dict",
    "unshipped_note",
]

MAX_GROUPS: Final = 1_000_000
"""Groups kept apart in one report; far beyond what anybody reads, well within memory."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Sums by group.

    Attributes:
        by: the group keys, in the order asked for.
        rows: one per group, the most expensive first; with a period among the keys, the periods
            in order.
        total: the sums over all rows, ``others`` included.
        others: with ``limit``, the sums over the ``others_count`` groups beyond it.
        folded: outcomes under ``(other)`` because there were more than a million groups.
        in_flight: calls of running processes that have no outcome yet; not in the rows.
        cut_off: the same for dead processes: ``recover`` records them as unsettled.
        missing_tags: tags that were asked for and that none of the calls has.
        known_tags: if there are any, the tags that the calls do have.
        instead: if no call matches ``where``: each key of it to the values that the calls of that
            time have, those of most calls first; the 21st is ``…`` where there are more.
        adjusted: adjustments that are in the costs: records that were priced again.
        aggregated: calls in the sums whose records were pruned: they are known by their aggregates.
        unmeasured: how many of ``aggregated`` are not in the quantiles that were asked for.
        pruned: records that were pruned and may belong to what was asked for, but are not in the
            sums, since no aggregate tells.
        pruned_until: the time of the last record that was pruned, of ``aggregated`` and ``pruned``.
        unshipped: of a database, what is known to be missing yet.
        problems: places on the ledger that hold no valid record and are not counted.
    """

    by: tuple[str, ...]
    rows: list[Row]
    total: Row
    others: Row | None = None
    others_count: int = 0
    folded: int = 0
    in_flight: int = 0
    cut_off: int = 0
    adjusted: int = 0
    aggregated: int = 0
    unmeasured: int = 0
    pruned: int = 0
    pruned_until: datetime | None = None
    missing_tags: tuple[str, ...] = ()
    known_tags: tuple[str, ...] = ()
    instead: dict[str, tuple[str, ...]] = {}
    unshipped: Unshipped | None = None
    problems: list[Problem] = []

    def notes(self) -> list[str]:
        """Return notes on data quality: estimates, unknown costs, calls in flight, damage."""
        total = self.total
        notes = self._counting() if total.calls else []
        notes += self._begun()
        for tag in self.missing_tags:
            known = ", ".join(f"tag:{name}" for name in self.known_tags) or "no tags at all"
            from difflib import get_close_matches

            near = get_close_matches(tag, self.known_tags, n=1)
            hint = f"Did you mean tag:{near[0]}? " if near else ""
            notes.append(f"None of these calls has tag:{tag}. {hint}They have {known}.")
        notes += self._unmatched()
        if self.folded:
            notes.append(
                f"(other): {_calls(self.folded)} in groups beyond the first {MAX_GROUPS:,}."
            )
        return notes + self._removed() + self._behind() + self._damage()

    def warnings(self) -> list[str]:
        """Return the notes that rows alone do not show: calls that are missing, or no match."""
        return (
            self._unmatched()
            + self._begun()
            + (self._removed()[-1:] if self.pruned else [])
            + self._behind()
            + self._damage()
        )

    @property
    def is_floor(self) -> bool:
        """Whether the total may really be higher: for its own reasons, or for what is missing."""
        missing = self.cut_off or self.pruned or self.unshipped or self.problems
        return self.total.is_floor or bool(missing)

    def _unmatched(self) -> list[str]:
        """What there is where nothing matches the conditions."""
        known = [f"{key}: {', '.join(values)}" for key, values in self.instead.items()]
        return [f"No call matches. Existing values: {'; '.join(known)}."] if known else []

    def _begun(self) -> list[str]:
        notes = []
        if self.in_flight:
            notes.append(
                f"In flight: {_calls(self.in_flight)} of running processes without an outcome yet, "
                "not counted above."
            )
        if self.cut_off:
            notes.append(
                f"Cut off: {_calls(self.cut_off)} in flight when the process died, not counted "
                "above; litellm-ledger recover records them as unsettled."
            )
        return notes

    def _removed(self) -> list[str]:
        """What was pruned: what is in the sums, and what is not."""
        notes = []
        until = self.pruned_until
        last = f", the last of {until.isoformat()[:10]}" if until is not None else ""
        if self.aggregated:
            notes.append(
                f"Pruned: of {_calls(self.aggregated)} in these sums only aggregates are kept"
                f"{last}; records, calls, export and sql do not show them."
            )
        if self.unmeasured:
            notes.append(
                f"Latency: {_calls(self.unmeasured)} of these are in no quantile; their aggregates "
                "do not tell."
            )
        if self.pruned:
            notes.append(
                f"Pruned: {counted(self.pruned, 'record')} not included{last}; what is kept of "
                "them does not tell the groups or the time asked for."
            )
        return notes

    def _behind(self) -> list[str]:
        return [] if self.unshipped is None else [unshipped_note(self.unshipped)]

    def _damage(self) -> list[str]:
        unread = sorted({problem.file for problem in self.problems if problem.what == "unreadable"})
        places = [problem for problem in self.problems if problem.what != "unreadable"]
        notes = []
        if unread:
            notes.append(
                f"Not read: {listed(unread, 3)}; nothing in "
                f"{'it' if len(unread) == 1 else 'them'} is counted; run litellm-ledger verify."
            )
        if places:
            files = len({problem.file for problem in places})
            notes.append(
                f"Damage: {counted(len(places), 'place')} in {counted(files, 'file')} not "
                "counted; run litellm-ledger verify."
            )
        return notes

    def _counting(self) -> list[str]:
        """Who counted, and what is unknown."""
        total = self.total
        said = f"Tokens: {_calls(total.provider_reported)} counted by the provider"
        if total.estimated:
            said += f", {total.estimated:,} estimated"
        if total.uncounted:
            said += f", {total.uncounted:,} unknown (not included)"
        notes = [said + "."]
        if total.latency_ms or total.ttft_ms:
            notes.append("Latency: p50, p90 and p99 are within 0.8 % of what was measured.")
        if total.saved_cost:
            notes.append(
                f"Saved: ${dollars(total.saved_cost)} by answers from a cache. Their tokens are "
                "included in the token sums and were paid for once."
            )
        if total.estimated:
            notes.append(
                "Cost: calls that ended early, or whose provider sent no usage, are estimated from "
                "what was received. The provider may have produced, and may bill, more."
            )
        if total.unpriced:
            notes.append(
                f"Cost: {_calls(total.unpriced)} that succeeded could not be priced; "
                "the real cost is higher."
            )
        if total.unknown_cost:
            notes.append(
                f"Cost: unknown and not included for {_calls(total.unknown_cost)} cancelled, "
                "abandoned, unsettled or failed halfway; the provider may still bill "
                f"{'it' if total.unknown_cost == 1 else 'them'}."
            )
        if self.adjusted:
            notes.append(
                f"Cost: includes {counted(self.adjusted, 'adjustment')} by litellm-ledger reprice; "
                "--as-recorded shows the costs as recorded."
            )
        if total.unsettled:
            notes.append(
                f"Unsettled: {_calls(total.unsettled)} in flight when the process died; "
                "the outcome is unknown."
            )
        return notes

    def top(self, count: int) -> tuple[list[Row], Row | None]:
        """Return the ``count`` most expensive rows, and the sums of the rest (``None``: no rest).

        The others have no group and no quantiles.
        """
        rows = sorted(self.rows, key=lambda row: (-row.cost, -row.calls))  # stable
        rest = rows[count:] + ([self.others] if self.others else [])
        return rows[:count], added(rest) if rest else None

    def to_arrow(self) -> Any:
        """Return the rows as a ``pyarrow.Table``: a column a key, then the members of ``Row``.

        Money is ``decimal(38, 12)``.  Quantiles, where asked for, are ``latency_ms_p50`` and so on.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        return to_arrow(self.by, self.rows)

    def to_polars(self) -> Any:
        """Return the rows as a ``polars.DataFrame``; see ``to_arrow``."""
        return to_polars(self.by, self.rows)

    def to_pandas(self) -> Any:
        """Return the rows as a ``pandas.DataFrame``; money is ``Decimal``; see ``to_arrow``."""
        return to_pandas(self.by, self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values; money is decimal text (see docs/CLI.md)."""
        others = self.others and row_dict(self.others)
        return {
            "by": list(self.by),
            "rows": [row_dict(row) for row in self.rows],
            "total": row_dict(self.total),
            **({"others": others, "others_count": self.others_count} if others else {}),
            "folded": self.folded,
            "in_flight": self.in_flight,
            "cut_off": self.cut_off,
            "adjusted": self.adjusted,
            "aggregated": self.aggregated,
            "pruned": self.pruned,
            **({"unshipped": msgspec.to_builtins(self.unshipped)} if self.unshipped else {}),
            "notes": self.notes(),
            "problems": msgspec.to_builtins(self.problems),
        }


Measured = Callable[[tuple[str, ...] | None, str], Quantiles | None]
"""Tells the quantiles of a group (``None``: of everything) by the name of what was measured."""


def build(
    lines: Iterable[Line],
    by: Sequence[str],
    problems: list[Problem],
    max_groups: int = MAX_GROUPS,
    *,
    calendar: Calendar | None = None,
    totals: Totals | None = None,
    spread: Spread | None = None,
    order: Order | None = None,
) -> Report:
    """Add up outcomes, to what ``totals`` have where these are given; with ``spread``, quantiles.

    ``problems`` may still be filling up while ``lines`` is read.

    Raises:
        ValueError: there is no such group key.
    """
    calendar = calendar or Calendar()
    if totals is None:
        totals = Totals(by, max_groups=max_groups, calendar=calendar)
    for line in lines:
        totals.add(line, line.cost)
        if spread is not None:
            spread.add(line)
    return finish(totals, by, problems, spread.quantiles if spread else None, order)


def finish(
    totals: Totals,
    by: Sequence[str],
    problems: list[Problem],
    measured: Measured | None,
    order: Order | None = None,
) -> Report:
    """Make a report of what was added up."""
    rows, total = totals.summary() if by else [], totals.total()
    if measured is not None:
        rows = [measured_row(row, tuple(row.group.values()), measured) for row in rows]
        total = measured_row(total, None, measured)
    rows.sort(key=in_order(by))
    if order is not None:
        rows.sort(key=order.value, reverse=order.down)  # stable, in both directions
    return Report(
        by=tuple(dict.fromkeys(by)),
        rows=rows,
        total=total,
        folded=totals.folded,
        problems=problems,
    )


def in_order(by: Sequence[str]) -> Callable[[Row], tuple[Any, ...]]:
    """Return the key that orders the rows of a report by these keys."""
    period = next((key for key in by if key in PERIODS), None)

    def place(row: Row) -> tuple[Any, ...]:
        when = () if period is None else moment_of(period, row.group[period])
        return *when, -row.cost, -row.calls, tuple(row.group.values())

    return place


def added(rows: Iterable[Row], start: Row | None = None, sign: int = 1) -> Row:
    """Add rows up, exactly, or take them (``sign`` -1) from ``start``.

    The sum has no group and no quantiles.
    """
    each = [*rows]
    begin = start or Row()
    sums: dict[str, Any] = {}
    for name, of in _SUMMED:
        sums[name] = of(begin) + sign * sum(map(of, each))
    for name, of in _MONEY:
        sums[name] = usd(whole(of(begin)) + sign * sum(map(whole, map(of, each))))
    return Row(**sums)


_MONEY: Final = [(name, attrgetter(name)) for name in MONEY]
_SUMMED: Final = [
    (name, attrgetter(name))
    for name in Row.__struct_fields__
    if name not in ("group", *MEASURED, *MONEY)
]


def by_tag(report: Report) -> Report:
    """Turn a report by tags (``tag:a``, ``tag:b``) into one by name and value of the tags.

    A call counts once for each of its tags; the total counts it once.
    """
    rows = []
    for key in report.by:
        values: dict[str, list[Row]] = {}
        for row in report.rows:
            values.setdefault(row.group[key], []).append(row)
        for value, same in values.items():
            if value != MISSING:
                group = {"tag": key.removeprefix("tag:"), "value": value}
                rows.append(msgspec.structs.replace(added(same), group=group))
    rows.sort(key=lambda row: (-row.cost, -row.calls))
    return msgspec.structs.replace(report, by=("tag", "value"), rows=rows, missing_tags=())


def measured_row(row: Row, group: tuple[str, ...] | None, measured: Measured) -> Row:
    """Return a row with the quantiles of its group, or (``None``) of everything."""
    return msgspec.structs.replace(row, **{name: measured(group, name) for name in MEASURED})


def floor_mark(row: Row) -> str:
    """A mark for an amount that may really be higher."""
    return "+" if row.is_floor and row.known_cost is not None else ""


def row_dict(row: Row) -> dict[str, Any]:
    """Return a row as plain JSON values; money is decimal text, a cost that is unknown ``None``."""
    plain: dict[str, Any] = msgspec.to_builtins(row)
    for name in MONEY:
        plain[name] = dollars(getattr(row, name))
    if row.known_cost is None:
        plain |= dict.fromkeys(COSTS)
    return plain


def _calls(count: int) -> str:
    return counted(count, "call")


def unshipped_note(behind: Unshipped) -> str:
    """Say what a database does not have yet."""
    since = "" if behind.since is None else f", since {behind.since:%Y-%m-%d %H:%M:%S} UTC"
    return (
        f"Not shipped yet: {counted(behind.records, 'record')} of "
        f"{counted(behind.writers, 'writer')}{since}, not counted above; litellm-ledger ship "
        "sends them, from where they were written."
    )
