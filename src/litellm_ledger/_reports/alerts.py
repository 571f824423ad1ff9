"""Alerts: what somebody must hear of now, for a program that asks every few minutes.

Owns the conditions and their words.  Each alert is of a window (a day or an hour), so that who
sends it can send it once.  Remembers and sends nothing; ``doctor`` looks at more, and for longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import Final

import msgspec

from litellm_ledger._aggregates.calendar import Calendar, calendar
from litellm_ledger._aggregates.formatting import clean, counted, money
from litellm_ledger._aggregates.groups import Row

from .doctor import place, writers
from .ledger import Ledger
from .today import Today, look, midnight

__all__ = ["Alert", "find_alerts"]

_WEEKS: Final = 8
_FEWEST: Final = 4
"""Weeks of history below which nothing is called unusual."""
_SPREADS: Final = Decimal("8.9")
"""6 times 1.4826, by which a median absolute deviation estimates a standard deviation."""
_TIMES: Final = 3
_LEAST: Final = Decimal(1)
"""US dollars an hour that are never unusual."""
_HOUR: Final = timedelta(hours=1)
_LOOK_BACK: Final = timedelta(days=30)
_HEALTH: Final = ("disk space", "backlog")


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One condition that holds.

    Attributes:
        check: which: ``day over``, ``hour over``, ``unusual hour``, ``prices``, ``unsettled``,
            ``backlog``, ``disk space``.
        about: the model, where it is about one.
        window: the day or the hour that it is about.
        text: a sentence.
    """

    check: str
    about: str = ""
    window: str
    text: str


def find_alerts(
    ledger: Ledger,
    *,
    tz: str = "UTC",
    day_over: Decimal | None = None,
    hour_over: Decimal | None = None,
    now: datetime | None = None,
) -> list[Alert]:
    """Return the alerts of this moment.

    Args:
        ledger: the ledger.
        tz: the time zone of days and hours.
        day_over, hour_over: US dollars; more than these in this day, or in this hour or the one
            before it, is an alert.
        now: timezone-aware; default: this moment.

    Raises:
        LedgerPathError, UnsupportedFormat: as for ``Ledger.report``.
        ValueError: there is no such zone.
    """
    now = now or datetime.now(UTC)
    dates = calendar(tz)
    today = look(ledger, tz=tz, now=now)
    hours = ledger.report(["hour"], since=_weeks_ago(dates, now), until=now + _HOUR, tz=tz).rows
    found = []
    if day_over is not None and today.total.cost > day_over:
        found.append(_over("day over", today.day, today.total, day_over))
    costs = {row.group["hour"]: row for row in hours}
    for moment in (now - _HOUR, now):
        label = dates.label("hour", dates.number("hour", moment))
        row = costs.get(label, Row())
        if hour_over is not None and row.cost > hour_over:
            found.append(_over("hour over", label, row, hour_over))
        found += _unusual(label, row, hours)
    found += _unpriced(ledger, dates, now, today.day)
    found += _unsettled(today)
    for finding in (*place(ledger.path), *writers(ledger.path)):
        if finding.level == "warning" and finding.check in _HEALTH:
            found.append(Alert(check=finding.check, window=today.day, text=finding.text))
    return found


def _over(check: str, window: str, row: Row, limit: Decimal) -> Alert:
    least = "at least " if row.is_floor else ""
    when = f"on {window}" if check == "day over" else f"in the hour of {window}"
    text = f"{least}{money(row.cost)} spent {when}, more than {money(limit)}"
    return Alert(check=check, window=window, text=text)


def _weeks_ago(dates: Calendar, now: datetime) -> datetime:
    return midnight(dates, now - timedelta(weeks=_WEEKS, days=1))


def _on_the_clock(label: str) -> tuple[date, int] | None:
    try:
        local = datetime.fromisoformat(label)
    except ValueError:
        return None  # records without a time
    return local.date(), local.hour


def _unusual(label: str, row: Row, hours: list[Row]) -> Iterator[Alert]:
    """Compare an hour with the same hour of the weeks before, by median and median deviation.

    Neither a single expensive week nor a quiet one moves these.  An hour without a call counts as
    $0 from the first call on.
    """
    spent: dict[tuple[date, int], Decimal] = {}
    for one in hours:
        at = _on_the_clock(one.group["hour"])
        if at is not None:
            spent[at] = spent.get(at, Decimal(0)) + one.cost
    this = _on_the_clock(label)
    if this is None or not spent or row.cost <= _LEAST:
        return
    day, hour = this
    first = min(spent)
    weeks = ((day - timedelta(weeks=week), hour) for week in range(1, _WEEKS + 1))
    before = [spent.get(at, Decimal(0)) for at in weeks if at >= first]
    if len(before) < _FEWEST:
        return
    usual = median(before)
    spread = median(abs(cost - usual) for cost in before)
    if row.cost > max(usual + _SPREADS * spread, _TIMES * usual):
        text = (
            f"{money(row.cost)} spent in the hour of {label}; in this hour of the last "
            f"{len(before)} weeks it was usually {money(usual)}"
        )
        yield Alert(check="unusual hour", window=label, text=text)


def _unpriced(ledger: Ledger, dates: Calendar, now: datetime, day: str) -> Iterator[Alert]:
    start = midnight(dates, now)
    rows = [row for row in ledger.report(["model"], since=start).rows if row.unpriced]
    if not rows:
        return
    before = ledger.report(["model"], since=start - _LOOK_BACK, until=start).rows
    known = {row.group["model"] for row in before if row.unpriced}
    for row in rows:
        model = row.group["model"]
        if model not in known:
            text = (
                f"{counted(row.unpriced, 'call')} of {clean(model)} could not be priced, for the "
                f"first time in {_LOOK_BACK.days} days; litellm-ledger doctor says what is missing"
            )
            yield Alert(check="prices", about=model, window=day, text=text)


def _unsettled(today: Today) -> Iterator[Alert]:
    count = today.total.unsettled + today.cut_off
    if count:
        text = (
            f"{counted(count, 'call')} of today in flight when the process died; the provider may "
            "bill them: litellm-ledger calls --where status=unsettled"
        )
        yield Alert(check="unsettled", window=today.day, text=text)
