"""``Calendar``: hours, days, weeks and months as people in one time zone live them.

Owns the boundaries, exact on the days on which clocks change: a day of 23 or 25 hours is one day,
the hour that is lived twice is two.  The same rule in two forms, for one moment in Python and as an
SQL expression over a column; the offsets are Python's (``zoneinfo``) in both, so that the answer
does not depend on the time zone tables of a database.  Pure: no clock.
"""

from __future__ import annotations

from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

__all__ = ["PERIODS", "WEEKDAYS", "Calendar", "calendar", "moment_of"]

PERIODS: Final = ("hour", "day", "week", "month")
WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2101, 1, 1, tzinfo=UTC)
"""Where changes of a zone's offset are looked for; before and after, it stays as it is there."""
_EDGES: Final = (MINYEAR, MINYEAR + 1, MAXYEAR - 1, MAXYEAR)
_SECOND_YEAR, _LAST_YEAR = (
    int((datetime(year, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds())
    for year in (MINYEAR + 1, MAXYEAR)
)
_DAY: Final = timedelta(days=1)
_HALF: Final = 2**19  # above any offset in seconds
_SPAN: Final = 2**20


class Calendar:
    """A time zone and the day on which weeks begin.

    Attributes:
        zone: ``None`` is the zone of this machine.
        week_start: 0 is Monday.
    """

    __slots__ = ("week_start", "zone")

    def __init__(self, zone: tzinfo | None = UTC, week_start: int = 0) -> None:
        self.zone = zone
        self.week_start = week_start

    # -- in Python -----------------------------------------------------------------------------

    def local(self, ts: datetime) -> datetime:
        """Return a moment on this zone's clock.

        The first and the last year that there are have UTC everywhere: a local time may lie beyond.
        """
        if ts.year in _EDGES:
            ts = ts.astimezone(UTC)
            if ts.year in (MINYEAR, MAXYEAR):
                return ts
        return ts.astimezone(self.zone)

    def number(self, every: str, ts: datetime) -> int:
        """Return the number of the period that a moment is in; later ones have larger numbers.

        Days and weeks: days since 1970-01-01, of a week those of its first day.  Months: months
        since year 0.  Hours: the hour on the clock and the clock's offset from UTC.
        """
        local = self.local(ts)
        if every == "hour":
            offset = _seconds(local)
            hour = (int((ts - _EPOCH) // timedelta(seconds=1)) + offset) // 3600
            return (hour * 3600 - offset + _HALF) * _SPAN + offset + _HALF
        if every == "month":
            return local.year * 12 + local.month - 1
        day = local.toordinal() - _EPOCH.toordinal()
        return day - (day + 3 - self.week_start) % 7 if every == "week" else day

    def label(self, every: str, number: int) -> str:
        """Write the number of a period for people: ``2025-03-30``, ``2025-03``,
        ``2025-03-30T01:00+01:00``; of a week its first day."""
        if every == "month":
            return f"{number // 12:04d}-{number % 12 + 1:02d}"
        if every == "hour":
            start, offset = divmod(number, _SPAN)
            zone = timezone(timedelta(seconds=offset - _HALF))
            moment = (_EPOCH + timedelta(seconds=start - _HALF)).astimezone(zone)
            return moment.isoformat(timespec="minutes")
        return date.fromordinal(number + _EPOCH.toordinal()).isoformat()

    def parse(self, every: str, label: str) -> int | None:
        """Return the number whose label this is, ``None`` if it is none."""
        try:
            if every == "month":
                year, _, month = label.partition("-")
                number = int(year) * 12 + int(month) - 1
            elif every == "hour":
                local = datetime.fromisoformat(label)
                offset = _seconds(local)
                start = (local - _EPOCH) // timedelta(seconds=1)
                number = (start + _HALF) * _SPAN + offset + _HALF
            else:
                number = date.fromisoformat(label).toordinal() - _EPOCH.toordinal()
            return number if self.label(every, number) == label else None
        except (ValueError, TypeError, OverflowError):
            return None

    # -- in SQL --------------------------------------------------------------------------------

    def sql(self, every: str, column: str) -> str:
        """Return the expression for ``number`` over a ``TIMESTAMP`` column in UTC."""
        offset = _tree(_changes(self.zone), f"epoch({column})")
        seconds = f"(epoch_us(date_trunc('second', {column})) // 1000000)"  # no float: exact
        if every == "hour":
            hour = f"(({seconds} + {offset}) - ({seconds} + {offset} + {2**40 * 3600}) % 3600)"
            return f"(({hour} - {offset} + {_HALF}) * {_SPAN} + {offset} + {_HALF})"
        local = f"CAST({column} + to_seconds({offset}) AS DATE)"
        if every == "month":
            return f"(year({local}) * 12 + month({local}) - 1)"
        day = f"({local} - DATE '1970-01-01')"
        if every == "week":
            return f"({day} - ({day} + {7 * 10**6 + 3 - self.week_start}) % 7)"
        return day


def calendar(tz: str | tzinfo | None = "UTC", week_start: str = "monday") -> Calendar:
    """Return the calendar of a zone: a name (``Europe/Berlin``), ``local`` or a ``tzinfo``.

    Raises:
        ValueError: there is no such zone or weekday; the text says what to give.
    """
    if week_start not in WEEKDAYS:
        raise ValueError(f"unknown weekday {week_start!r}; use {', '.join(WEEKDAYS)}")
    zone: tzinfo | None
    if tz is None or isinstance(tz, tzinfo):
        zone = tz or UTC
    elif tz == "local":
        zone = None
    elif tz.upper() == "UTC":
        zone = UTC
    else:
        try:
            zone = ZoneInfo(tz)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                f"unknown time zone {tz!r}; give a name such as Europe/Berlin, UTC, or local "
                "(on a machine without time zone data: pip install tzdata)"
            ) from None
    return Calendar(zone, WEEKDAYS.index(week_start))


def moment_of(period: str, label: str) -> tuple[float, str]:
    """Order hours by when they were: in the one that is lived twice the clock goes back."""
    if period == "hour" and label[:1].isdigit():
        return datetime.fromisoformat(label).timestamp(), label
    return 0.0, label


def _seconds(local: datetime) -> int:
    offset = local.utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


@lru_cache(maxsize=8)
def _changes(zone: tzinfo | None) -> list[tuple[int, int]]:
    """Return (moment of change, offset from then on), both in seconds; the first one is for ever.

    Found by asking: a ``tzinfo`` of whatever make tells the offset of a moment and nothing more.
    """

    def offset_at(moment: datetime) -> int:
        return _seconds(moment.astimezone(zone))

    moment, offset = _FIRST, offset_at(_FIRST)
    found = [(0, 0)]
    if offset:
        found.append((_SECOND_YEAR, offset))
    while moment < _LAST:
        after = moment + _DAY
        if (new := offset_at(after)) != offset:
            low, high = moment, after
            while high - low > timedelta(seconds=1):
                middle = low + timedelta(seconds=int((high - low).total_seconds()) // 2)
                low, high = (middle, high) if offset_at(middle) == offset else (low, middle)
            found.append((int((high - _EPOCH).total_seconds()), new))
            offset = new
        moment = after
    if offset:
        found.append((_LAST_YEAR, 0))
    return found


def _tree(changes: list[tuple[int, int]], seconds: str) -> str:
    """Write the offset at ``seconds`` as nested halves: a ledger lies in few of them."""
    if len(changes) == 1:
        return f"{changes[0][1]}"
    middle = len(changes) // 2
    before, after = _tree(changes[:middle], seconds), _tree(changes[middle:], seconds)
    return f"CASE WHEN {seconds} < {changes[middle][0]} THEN {before} ELSE {after} END"
