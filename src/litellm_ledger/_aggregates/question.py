"""What a command line asks for: from when to when, where, in which time zone.

Owns the forms in which people write these: ``today``, ``2025-03-30``, ``7d``, ``tag:env=prod``.
Pure: it is given the time and the zone, and reads neither a clock nor a ledger.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Final

import msgspec

from .calendar import WEEKDAYS

__all__ = ["Question", "last", "midnight", "moment", "question"]

_DAY: Final = timedelta(days=1)
_LAST: Final = re.compile(r"(\d{1,5})\s*(h|d|w|mo)")
_FORMS: Final = (
    "a day (2025-03-30), a month (2025-03), a time (2025-03-30T14:00), today, yesterday, now, or "
    "how long ago: 24h, 7d, 4w, 12mo"
)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the ledger that is asked about.

    Attributes:
        since, until: UTC; ``since <= ts < until``; ``None`` is without end.
        where: group key to values, one of which a call must have.
        where_not: group key to values, none of which a call may have.
        conditions: beginnings of values and comparisons, in text; see ``read_conditions``.
        allow_missing: whether a tag that is on no call is no mistake.
        tz: the name of the zone of days and weeks.
        week_start: in English, lower case.
        as_recorded, as_of: which costs are added up; see ``Ledger.report``.
    """

    since: datetime | None = None
    until: datetime | None = None
    where: dict[str, list[str]] = {}
    where_not: dict[str, list[str]] = {}
    conditions: list[str] = []
    allow_missing: bool = False
    tz: str = "UTC"
    week_start: str = "monday"
    as_recorded: bool = False
    as_of: datetime | None = None

    def selection(self) -> dict[str, Any]:
        """Return the arguments of ``Ledger.records``."""
        where: dict[str, list[str]] | list[str] = self.where
        if self.conditions:
            exact = [f"{key}=={value}" for key, values in self.where.items() for value in values]
            where = exact + self.conditions
        return {
            "since": self.since,
            "until": self.until,
            "where": where or None,
            **self._unwanted(),
        }

    def everything(self) -> dict[str, Any]:
        """Return the arguments of ``Ledger.report``."""
        more = {"as_recorded": self.as_recorded, "as_of": self.as_of}
        return {**self.selection(), "tz": self.tz, "week_start": self.week_start, **more}

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values (see docs/CLI.md)."""
        return {
            "since": _iso(self.since),
            "until": _iso(self.until),
            "where": self.where,
            **self._unwanted(),
            **({"conditions": self.conditions} if self.conditions else {}),
            "tz": self.tz,
            "week_start": self.week_start,
            **({"as_recorded": True} if self.as_recorded else {}),
            **({"as_of": _iso(self.as_of)} if self.as_of else {}),
        }

    def _unwanted(self) -> dict[str, Any]:
        return {"where_not": self.where_not} if self.where_not else {}


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def question(
    *,
    since: str | None,
    until: str | None,
    last_: str | None,
    where: Sequence[str],
    allow_missing: bool = False,
    zone: tzinfo | None,
    tz: str,
    week_start: str,
    now: datetime,
) -> Question:
    """Read the flags that all commands share.

    Args:
        zone: of days written without one; ``None`` is the zone of this machine.
        tz: its name.
        now: timezone-aware.

    Raises:
        ValueError: a flag that cannot be read; the text says how to write it.
    """
    if last_ and (since or until):
        raise ValueError("give --last, or --since and --until, not both")
    begin = moment(since, zone, now, flag="--since") if since else None
    end = moment(until, zone, now, flag="--until", end=True) if until else None
    if last_:
        begin, end = last(last_, zone, now, week_start)
    if begin and end and begin >= end:
        raise ValueError(f"--since {since} is not before --until {until}")
    told: dict[str, Any] = {}
    if where:
        from .conditions import read_conditions

        found = read_conditions(where)
        for sign, time in found.times:
            first, after = _compared(sign, time, zone, now)
            begin = max((one for one in (begin, first) if one), default=None)
            end = min((one for one in (end, after) if one), default=None)
        told = {
            "where": found.wanted,
            "where_not": found.unwanted,
            "conditions": found.others,
        }
    return Question(
        since=begin,
        until=end,
        **told,
        allow_missing=allow_missing,
        tz=tz,
        week_start=week_start,
    )


def _compared(
    sign: str, text: str, zone: tzinfo | None, now: datetime
) -> tuple[datetime | None, datetime | None]:
    """Return since when and until when the times are that compare so; a day is meant whole."""
    if sign == "!=":
        raise ValueError(f"--where 'ts!={text}': write day!=2025-03-30, or < and > with ts")
    flag = "--where ts"
    first = moment(text, zone, now, flag=flag)
    after = moment(text, zone, now, flag=flag, end=True)
    if after == first:  # a moment
        after = first + timedelta(microseconds=1)
    return {
        "<": (None, first),
        "<=": (None, after),
        ">": (after, None),
        ">=": (first, None),
        "=": (first, after),
    }[sign]


def moment(
    text: str, zone: tzinfo | None, now: datetime, *, flag: str, end: bool = False
) -> datetime:
    """Return the moment that a flag names, in UTC; with ``end`` a day or a month is meant whole.

    A time that a change of clocks makes twice is the first of the two.

    Raises:
        ValueError: it is none; the text shows the forms.
    """
    given = text.strip()
    today = now.astimezone(zone).date()
    if given == "now":
        return now.astimezone(UTC)
    if given in ("today", "yesterday"):
        day = today if given == "today" else today - _DAY
        return midnight(day + _DAY if end else day, zone)
    if ago := _LAST.fullmatch(given.lower()):
        try:
            return _before(int(ago[1]), ago[2], zone, now)
        except OverflowError:
            raise ValueError(f"{flag} {text!r} is before the year 1") from None
    try:
        if re.fullmatch(r"\d{4}-\d{2}", given):
            first = date.fromisoformat(f"{given}-01")
            return midnight(_months_on(first, 1) if end else first, zone)
        if re.fullmatch(r"\d{4}-?\d{2}-?\d{2}", given):
            day = date.fromisoformat(given)
            return midnight(day + _DAY if end else day, zone)
        time = datetime.fromisoformat(given)
        return _aware(time, zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{flag} {text!r} is not a time; give {_FORMS}") from None


def _before(count: int, unit: str, zone: tzinfo | None, now: datetime) -> datetime:
    """Return the moment some hours, days, weeks or months ago; days as the clock shows them."""
    if unit == "h":
        return now.astimezone(UTC) - timedelta(hours=count)
    local = now.astimezone(zone).replace(tzinfo=None)
    if unit in ("d", "w"):
        then = local - count * (7 if unit == "w" else 1) * _DAY
    else:
        try:
            first = _months_on(local.date().replace(day=1), -count)
        except ValueError as exc:
            raise OverflowError from exc
        longest = (_months_on(first, 1) - _DAY).day
        then = local.replace(year=first.year, month=first.month, day=min(local.day, longest))
    return _aware(then, zone).astimezone(UTC)


def last(
    text: str, zone: tzinfo | None, now: datetime, week_start: str = "monday"
) -> tuple[datetime, datetime | None]:
    """Return when a span begins, and when it ends unless that is now.

    ``7d`` are the last seven days, today included; ``week`` is the last whole week, and so are
    ``day``, ``month`` and ``year``.

    Raises:
        ValueError: it is none; the text shows the forms.
    """
    given = text.strip().lower()
    if given in _WHOLE:
        today = now.astimezone(zone).date()
        return _whole(given, today, zone, week_start)
    if re.fullmatch(r"\d+\s*m(in)?", given):
        number = re.sub(r"\D", "", given)
        raise ValueError(
            f"--last {text!r}: use {number}mo for months; minutes are not supported, use hours "
            "(1h) or a time: --since 2025-03-30T14:00"
        )
    found = _LAST.fullmatch(given)
    count = int(found[1]) if found else 0
    if not found or not count:
        raise ValueError(
            f"--last {text!r} is not a span of time; give hours, days, weeks or months: "
            f"24h, 7d, 4w, 12mo; or the last whole one: {', '.join(_WHOLE)}"
        )
    local = now.astimezone(zone)
    try:
        if found[2] == "h":
            hour = now - timedelta(
                minutes=local.minute, seconds=local.second, microseconds=local.microsecond
            )
            return (hour - timedelta(hours=count - 1)).astimezone(UTC), None
        day = local.date()
        if found[2] == "d":
            first = day - (count - 1) * _DAY
        elif found[2] == "w":
            began = (day.weekday() - WEEKDAYS.index(week_start)) % 7
            first = day - (began + 7 * (count - 1)) * _DAY
        else:
            first = _months_on(day.replace(day=1), 1 - count)
        return midnight(first, zone), None
    except (OverflowError, ValueError):
        raise ValueError(f"--last {text!r} is before the year 1") from None


_WHOLE: Final = ("day", "week", "month", "year")


def _whole(
    period: str, today: date, zone: tzinfo | None, week_start: str
) -> tuple[datetime, datetime]:
    """When the last whole day, week, month or year began and ended."""
    if period == "day":
        first, after = today - _DAY, today
    elif period == "week":
        after = today - (today.weekday() - WEEKDAYS.index(week_start)) % 7 * _DAY
        first = after - 7 * _DAY
    elif period == "month":
        after = today.replace(day=1)
        first = _months_on(after, -1)
    else:
        after = today.replace(month=1, day=1)
        first = after.replace(year=today.year - 1)
    return midnight(first, zone), midnight(after, zone)


def midnight(day: date, zone: tzinfo | None) -> datetime:
    """Return when a day begins in a zone, in UTC: at 0:00, or when the clocks jump over that."""
    return _aware(datetime(day.year, day.month, day.day), zone).astimezone(UTC)  # noqa: DTZ001


def _aware(time: datetime, zone: tzinfo | None) -> datetime:
    if time.tzinfo is not None:
        return time
    return time.astimezone() if zone is None else time.replace(tzinfo=zone)


def _months_on(first: date, count: int) -> date:
    month = first.year * 12 + first.month - 1 + count
    return date(month // 12, month % 12 + 1, 1)
