"""The axis of time of a report page: how finely it is cut, and what is written along it.

Owns the choice of a period that fits, the labels from the first to the last, and their short forms.
Pure; where a period begins is ``_aggregates.calendar``' to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

import msgspec

from litellm_ledger._aggregates.calendar import Calendar
from litellm_ledger._aggregates.groups import MISSING, Row

__all__ = ["fitting", "in_period", "periods", "short"]

_MOST: Final = 3_000
"""Periods of an axis: a dozen years of days, more than a screen has points."""


def fitting(days: Iterable[str]) -> str:
    """Choose the period that cuts the time between these days into a readable number of parts."""
    known = sorted(days)
    if not known:
        return "day"
    span = (date.fromisoformat(known[-1]) - date.fromisoformat(known[0])).days + 1
    return "hour" if span <= 3 else "day" if span <= 92 else "week" if span <= 730 else "month"


def in_period(row: Row, every: str, dates: Calendar) -> Row:
    """Put the sums of a day under the week or month that it is in."""
    day = row.group["day"]
    label = day
    if day != MISSING:
        number = date.fromisoformat(day).toordinal() - date(1970, 1, 1).toordinal()
        label = day[:7]
        if every == "week":
            label = dates.label("week", number - (number + 3 - dates.week_start) % 7)
    group = {every if key == "day" else key: value for key, value in row.group.items()}
    return msgspec.structs.replace(row, group={**group, every: label})


def periods(every: str, seen: Iterable[str], dates: Calendar) -> list[str]:
    """Return all periods from the first to the last, those without a call too.

    Where that were more than a chart can show (a call dated centuries away), only those with calls.
    """
    known = {label for label in seen if label != MISSING}
    undated = [MISSING] if MISSING in seen or not known else []
    if not known:
        return undated
    if every == "hour":
        at = {datetime.fromisoformat(label): label for label in known}
        hours, moment, end = [], min(at).astimezone(UTC), max(at)
        if (end - moment) / timedelta(hours=1) > _MOST:
            return [at[one] for one in sorted(at)] + undated
        while moment <= end:
            hours.append(dates.label("hour", dates.number("hour", moment)))
            moment += timedelta(hours=1)
        return list(dict.fromkeys(hours)) + undated
    numbers = [number for label in known if (number := dates.parse(every, label)) is not None]
    step = 7 if every == "week" else 1
    every_one: Sequence[int] = range(min(numbers), max(numbers) + 1, step)
    if len(every_one) > _MOST:
        every_one = sorted(set(numbers))
    return [dates.label(every, number) for number in every_one] + undated


def short(every: str, labels: Sequence[str]) -> list[str]:
    """Labels of an axis: the time of an hour, the day and month of a day, a month as it is."""
    if every == "month":
        return list(labels)
    if every != "hour":
        return list(map(_day, labels))
    shown, day = [], ""
    for label in labels:
        time = label[11:16]
        shown.append(time if label[:10] == day else f"{_day(label[:10])} {time}".rstrip())
        day = label[:10]
    return shown


def _day(label: str) -> str:
    return label if label == MISSING else f"{date.fromisoformat(label):%d %b}".lstrip("0")
