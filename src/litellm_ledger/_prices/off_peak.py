"""Hours at which an entry has other prices.

Owns the reading of ``off_peak_pricing``: windows of UTC hours, every day or on some weekdays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, time
from typing import Any, Final

__all__ = ["is_off_peak"]

_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def is_off_peak(hours: Mapping[str, Any], conditions: Mapping[str, Any]) -> bool:
    """Whether the hours hold for a call: as ``off_peak`` among its conditions says, else by ``ts``.

    ``hours`` has ``hours_utc`` for every day, and ``windows`` with ``weekdays``, in the calendar of
    ``weekday_timezone``.  A window is ``"16:30-00:30"`` or a list of those, without its end; one
    that ends where it starts is the whole day.
    """
    noted = conditions.get("off_peak")
    if isinstance(noted, bool):
        return noted
    at = conditions.get("ts")
    if not isinstance(at, datetime):
        return False
    at = at.astimezone(UTC)
    if _within(hours.get("hours_utc"), at.time()):
        return True
    windows = hours.get("windows")
    for rule in windows if isinstance(windows, list) else ():
        if isinstance(rule, dict) and _within(rule.get("hours_utc"), at.time()):
            days = rule.get("weekdays")
            if days is None or _weekday(at, hours.get("weekday_timezone")) in _days(days):
                return True
    return False


def _within(windows: Any, now: time) -> bool:
    every = [windows] if isinstance(windows, str) else windows
    for window in every if isinstance(every, list) else ():
        try:
            start, end = (time.fromisoformat(part.strip()) for part in window.split("-"))
        except (AttributeError, ValueError):
            continue
        if (start <= now < end) if start < end else (now >= start or now < end):
            return True
    return False


def _weekday(at: datetime, zone: Any) -> int:
    from zoneinfo import ZoneInfo  # few entries name a zone

    try:
        return at.astimezone(ZoneInfo(zone)).isoweekday() if zone else at.isoweekday()
    except (KeyError, OSError, OverflowError, TypeError, ValueError):  # no such zone, or day in it
        return at.isoweekday()


def _days(days: Any) -> set[int]:
    return set(_numbers(days if isinstance(days, list) else ()))


def _numbers(days: list[Any] | tuple[()]) -> Iterator[int]:
    for day in days:
        if type(day) is int:
            yield day
        elif isinstance(day, str) and day.strip().lower()[:3] in _WEEKDAYS:
            yield _WEEKDAYS.index(day.strip().lower()[:3]) + 1
