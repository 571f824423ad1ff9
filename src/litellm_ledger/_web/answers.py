"""The answers of the API, as plain JSON values.

Owns what each of them has.  The pages are made of the same answers (``pages``), of nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Final

import msgspec

from litellm_ledger._aggregates.calendar import PERIODS, moment_of
from litellm_ledger._aggregates.groups import MISSING, Row
from litellm_ledger._aggregates.question import midnight
from litellm_ledger._reading.elsewhere import Place
from litellm_ledger._reading.last_written import ended
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._reports.plain import operation_dict
from litellm_ledger._reports.report import Report, added, row_dict

from .asks import Ask
from .calls import call_dict
from .here import Here
from .recent import HELD
from .source import Source

__all__ = ["Answers", "NotFound"]

_ROWS: Final = 100
_CALLS: Final = 50
_LATEST: Final = 30
_BALANCES: Final = 20
_MINUTE: Final = timedelta(minutes=1)
_COUNTED: Final = 100
"""Calls that a rate is taken from at most."""
_TAGS_FOR: Final = 30.0
"""Seconds for which they are handed out again."""
_VIEWERS: Final = 1_000
_DAYS: Final = 28
"""Whole days that a projection rests on at most."""
_PRUNED: Final = "Pruned: calls of this time may be missing; their records are not kept any more."
_SPREAD: Final = 1.2816
"""80 % of a normal distribution is within this many standard deviations."""


class NotFound(LookupError):
    """There is no such thing, or the viewer may not see it."""


class Answers:
    """Answers questions about one ledger; safe for several threads.

    Args:
        place: the ledger.
        process: whether this is a process of its own, which may start others.
    """

    def __init__(self, place: Place, *, process: bool = False) -> None:
        self._source = _source(place, process=process)
        self._tags: dict[bytes, tuple[float, dict[str, Any]]] = {}
        self._all: Mapping[str, Callable[[Ask], dict[str, Any]]] = {
            "summary": self.summary,
            "report": self.report,
            "calls": self.calls,
            "tags": self.tags,
            "live": self.live,
            "budgets": self.budgets,
            "operation": self.operation,
            "ledger": self.ledger,
        }

    def __call__(self, what: str, ask: Ask) -> dict[str, Any]:
        """Answer a question.

        Args:
            what: a key of ``ASKS``.
            ask: of the same key.

        Raises:
            NotFound: what is asked for is not there.
            LedgerPathError, UnsupportedFormat: as for ``Ledger.report``.
        """
        return self._all[what](ask)

    # -- sums ----------------------------------------------------------------------------------

    def _report(
        self, by: Sequence[str], ask: Ask, *, quantiles: bool = False, **other: Any
    ) -> Report:
        if ask.impossible:
            return Report(by=tuple(by), rows=[], total=Row())
        return self._source.report(by, ask.selection(**other), quantiles=quantiles)

    def summary(self, ask: Ask) -> dict[str, Any]:
        """Today, this hour, this month with its projection, and the month before."""
        now, dates = ask.now, ask.dates
        today = dates.local(now).date()
        month = today.replace(day=1)
        before = (month - timedelta(days=1)).replace(day=1)
        after = (month + timedelta(days=32)).replace(day=1)
        start = midnight(min(before, today - timedelta(days=_DAYS)), dates.zone)
        found = self._report(["day"], ask, since=start, until=None)
        days = {row.group["day"]: row for row in found.rows}
        this_day = self._report(["hour"], ask, since=midnight(today, dates.zone), until=None)
        hour = dates.label("hour", dates.number("hour", now))
        hours = {row.group["hour"]: row for row in this_day.rows}
        same_day = min(today.day, (month - timedelta(days=1)).day)
        to_date = [d for d in _days(before, month) if date.fromisoformat(d).day < same_day]
        in_flight, oldest = self._source.in_flight(ask.scope)
        this_month = _sum(days, _days(month, after))
        return {
            "as_of": _utc(now),
            "tz": ask.tz,
            "day": today.isoformat(),
            "hour": hour,
            "month": f"{month:%Y-%m}",
            "last_month": f"{before:%Y-%m}",
            "today": row_dict(_sum(days, [today.isoformat()])),
            "this_hour": row_dict(hours.get(hour, Row())),
            "this_month": row_dict(this_month),
            "month_before": row_dict(_sum(days, _days(before, month))),
            "month_before_to_date": {
                "days": len(to_date),
                **row_dict(_sum(days, to_date)),
            },
            "projection": _projection(days, today, after, this_month),
            "in_flight": 0 if ask.impossible else in_flight,
            "in_flight_since": None if oldest is None or ask.impossible else _utc(oldest),
            **_quality(found, ask),
        }

    def report(self, ask: Ask) -> dict[str, Any]:
        """Sums by group."""
        quantiles = ask.quantiles
        found = self._report(ask.keys, ask, quantiles=quantiles)
        rows = _sorted(found.rows, ask)
        limit = ask.limit or _ROWS
        shown, rest = rows[:limit], rows[limit:]
        return {
            "as_of": _utc(ask.now),
            "tz": ask.tz,
            "since": ask.since and _utc(ask.since),
            "until": ask.until and _utc(ask.until),
            "by": list(ask.keys),
            "rows": [row_dict(row) for row in shown],
            "others_count": len(rest),
            "others": row_dict(added(rest)) if rest else None,
            "total": row_dict(found.total),
            **_quality(found, ask),
        }

    # -- calls ---------------------------------------------------------------------------------

    def calls(self, ask: Ask) -> dict[str, Any]:
        """Single calls, those that ended last first."""
        limit = ask.limit or _CALLS
        records: list[UsageRecord] = []
        complete = True
        if not ask.impossible:
            try:
                records, complete = self._source.calls(
                    ask.selection(), limit + 1, scope=ask.scope, before=ask.before
                )
            except LookupError:
                raise NotFound("there is no call with the id given as before") from None
        shown = records[:limit]
        return {
            "as_of": _utc(ask.now),
            "tz": ask.tz,
            "calls": [call_dict(record) for record in shown],
            "next": shown[-1].id if len(records) > limit else None,
            "complete": complete,
        }

    def operation(self, ask: Ask) -> dict[str, Any]:
        """One operation with its attempts and the terms of their prices."""
        key = ask.id or ""
        found = self._source.operation(key, ask.scope)
        if found is None:
            raise NotFound("there is no call with this id")
        return {"as_of": _utc(ask.now), **operation_dict(*found)}

    def tags(self, ask: Ask) -> dict[str, Any]:
        """The names of tags of the newest calls, those that part them best first."""
        key = msgspec.json.encode(ask.scope)
        known = self._tags.get(key)
        if known is not None and time.monotonic() - known[0] < _TAGS_FOR:
            return known[1]
        seen: dict[str, list[str]] = {}
        last = self._newest(ask, HELD)
        for record in last:
            for name, value in record.tags.items():
                seen.setdefault(name, []).append(value)

        def worth(name: str) -> tuple[bool, bool, int, str]:
            """Order those that part the calls before those with one value, or one for each."""
            values, calls = len(set(seen[name])), len(seen[name])
            return values == 1, 2 * values > calls, -calls, name

        names = sorted(seen, key=worth)
        found = {"as_of": _utc(ask.now), "calls": len(last), "tags": names[:100]}
        if len(self._tags) > _VIEWERS:
            self._tags.clear()
        self._tags[key] = time.monotonic(), found
        return found

    def live(self, ask: Ask) -> dict[str, Any]:
        """The newest calls, the rate of the last minute, those in flight, and the processes."""
        last = self._newest(ask, _COUNTED)[::-1]
        recent = [one for one in last if ended(one)[0] > ask.now - _MINUTE]
        rate = float(len(recent))
        if len(recent) == _COUNTED:  # more than were read
            seconds = max(0.001, (ended(recent[-1])[0] - ended(recent[0])[0]).total_seconds())
            rate = _COUNTED * 60 / seconds
        in_flight, oldest = self._source.in_flight(ask.scope)
        found: dict[str, Any] = {
            "as_of": _utc(ask.now),
            "tz": ask.tz,
            "calls": [call_dict(one) for one in last[: -_LATEST - 1 : -1]],
            "per_minute": round(rate, 1),
            "in_flight": in_flight,
            "in_flight_since": None if oldest is None else _utc(oldest),
        }
        if ask.scope is None and (processes := self._source.processes()) is not None:
            found["processes"] = processes
        return found

    def _newest(self, ask: Ask, limit: int) -> list[UsageRecord]:
        return [] if ask.impossible else self._source.newest(ask.selection(), limit)

    def budgets(self, ask: Ask) -> dict[str, Any]:
        """What stands against the budgets that the clients of the ledger say they enforce."""
        found = self._source.budgets(ask.scope, ask.limit or _BALANCES)
        return {"as_of": _utc(ask.now), **found}

    # -- the ledger ----------------------------------------------------------------------------

    def ledger(self, ask: Ask) -> dict[str, Any]:
        """The ledger itself: its writers, its size, what needs attention."""
        month = self._report(["model"], ask, since=ask.now - timedelta(days=30))
        places = [Path(problem.file).name for problem in month.problems]
        return {
            "as_of": _utc(ask.now),
            **self._source.about(),
            "processes": self._source.processes(),
            "unsettled": month.total.unsettled,
            "unknown_cost": month.total.unknown_cost,
            "unpriced": [
                {"model": row.group["model"], "calls": row.unpriced}
                for row in sorted(month.rows, key=lambda row: -row.unpriced)[:20]
                if row.unpriced
            ],
            "damaged": len(month.problems),
            "damaged_files": sorted(set(places))[:20],
        }


def _source(place: Place, *, process: bool) -> Source:
    if isinstance(place, Path):
        return Here(place, process=process)
    from .there import There

    return There(place)


def _quality(found: Report, ask: Ask) -> dict[str, Any]:
    """How exact the figures are; of the ledger's files only an operator is told.

    How many records were pruned, and may be of others, is for an operator too.
    """
    told: dict[str, Any] = {"is_floor": found.is_floor, "adjusted": found.adjusted}
    kept = msgspec.structs.replace(found, missing_tags=(), known_tags=(), instead={})
    if ask.scope is None:
        return told | {"notes": kept.notes()}
    notes = msgspec.structs.replace(kept, problems=[], pruned=0, unshipped=None).notes()
    return told | {"notes": [*notes, *([_PRUNED] if found.pruned else [])]}


def _sorted(rows: list[Row], ask: Ask) -> list[Row]:
    """Sort rows as asked; by default the newest period first, and in it the highest cost."""
    period = ask.every if ask.every in PERIODS else None
    if ask.sort is None and ask.order is None and period is None:
        return rows

    def when(row: Row) -> Any:
        return moment_of(period, row.group[period]) if period else ()

    sort = ask.sort or ("group" if period else "cost")
    up = ask.order == "asc" or (ask.order is None and ask.sort == "group")
    if sort != "group":
        rows = sorted(rows, key=lambda row: (when(row), tuple(row.group.values())))
        return sorted(rows, key=lambda row: getattr(row, sort), reverse=not up)
    if ask.sort is None:  # in a period the report's order stays
        return sorted(rows, key=when, reverse=not up)
    return sorted(rows, key=lambda row: (when(row), tuple(row.group.values())), reverse=not up)


def _days(first: date, after: date) -> list[str]:
    return [(first + timedelta(days=n)).isoformat() for n in range((after - first).days)]


def _sum(days: Mapping[str, Row], wanted: Iterable[str]) -> Row:
    return added([days[day] for day in wanted if day in days])


def _projection(
    days: Mapping[str, Row], today: date, after: date, so_far: Row
) -> dict[str, Any] | None:
    """What the month will cost: so far, and for each day left the mean of the days before today.

    The range: 80 % of the sums of as many independent days with their mean and their spread.
    """
    known = [date.fromisoformat(day) for day in days if day != MISSING]
    first = min(known, default=today)
    whole = _days(max(first, today - timedelta(days=_DAYS)), today)
    if len(whole) < 3:
        return None
    costs = [float(days[day].cost) if day in days else 0.0 for day in whole]
    mean, spread = fmean(costs), pstdev(costs)
    spent_today = float(days[today.isoformat()].cost) if today.isoformat() in days else 0.0
    left = (after - today).days - 1
    rest = left * mean + max(0.0, mean - spent_today)
    off = _SPREAD * spread * (left + 1) ** 0.5
    so_far_cost = float(so_far.cost)

    def text(amount: float) -> str:
        return format(Decimal(f"{amount:.6f}"), "f")

    return {
        "expected": text(so_far_cost + rest),
        "low": text(so_far_cost + max(0.0, rest - off)),
        "high": text(so_far_cost + rest + off),
        "days_left": left,
        "rests_on_days": len(whole),
    }


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
