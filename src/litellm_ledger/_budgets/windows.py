"""``Windows``: the spans of time over which a budget counts.

Owns where a window begins and ends, exact in its zone.  Pure: no clock.

*Hours, days, weeks and months* are those of ``Calendar``: a day of 23 or 25 hours is one window,
the hour that is repeated when the clocks go back is two.  Windows tile time: each moment is in one,
and one begins where the one before it ends.  So a window never returns: where clocks go back across
midnight (St. John's, 00:01 to 23:01), the day that had begun continues, and no money of the day
before can be spent again.  A day that a zone left out has no window.

*A rolling window* (``30d``) counts by steps of time, because to forget each call at its own moment
would need each call.  At any moment it counts the step that the window's beginning is in, as a
whole, and every later one: never less time than asked for, and at most one step more (the time
asked for is rounded up to whole steps).  A step is at least a quarter of an hour, and so long that
a window has at most 97 of them: ``24h`` counts by quarters of an hour, ``7d`` by 2 hours, ``30d``
by 8 (1 % more); ``1h`` by quarters as well, which may be 25 % more.  Steps begin at multiples of
their length since 1970, UTC: a rolling day is 24 hours in every zone.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, NamedTuple

from litellm_ledger._aggregates.calendar import PERIODS, Calendar, calendar
from litellm_ledger._aggregates.steps import EPOCH, QUARTER

__all__ = ["Window", "Windows"]

_ROLLING: Final = re.compile(r"([1-9][0-9]{0,3})([hd])", re.ASCII)
_LONGEST: Final = timedelta(days=366)
_MOST_STEPS: Final = 96
_SECOND: Final = timedelta(seconds=1)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_STEPS: Final = tuple(QUARTER * quarters for quarters in (1, 2, 4, 8, 12, 16, 24, 32, 48))
"""From a quarter of an hour to half a day, each a divisor of a day; after them whole days."""

_BEFORE, _AFTER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_FIRST, _LAST = datetime(1000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
"""What lies outside is one window each: a record with an absurd time does no harm."""


class Window(NamedTuple):
    """The window that a moment is in.

    Attributes:
        start: from when on spending counts.
        end: when the next window begins; of a rolling one, when the next step does.
        since: spending under each key from this one to ``key`` counts.  It is ``key`` itself,
            except in a rolling window.
        key: whole seconds since 1970 at which the window began, of a rolling one the step: what is
            spent at this moment is counted under it.  Later windows have larger keys; that of
            ``total`` is 0.
    """

    start: datetime
    end: datetime
    since: int
    key: int


class Windows:
    """The windows of a budget.

    Args:
        window: ``hour``, ``day``, ``week`` (from Monday), ``month``, ``total``, or the length of a
            rolling one: ``24h``, ``30d``, at most 366 days.
        tz: the name of a time zone.  Not ``local``: processes that share a budget must agree.

    Attributes:
        length: of a rolling window, in whole steps; ``None`` for the others.
        step: how much time it counts at once; ``None`` likewise.

    Raises:
        TypeError: an argument that is not text.
        ValueError: there is no such window or zone; the text says what to give.
    """

    __slots__ = ("_calendar", "_last", "_window", "length", "step")

    def __init__(self, window: str, tz: str = "UTC") -> None:
        for name, value in (("window", window), ("tz", tz)):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be text, not {type(value).__name__}")
        if tz == "local":
            raise ValueError(
                "tz='local' may differ between the processes that share a budget; give the name of "
                "a zone, such as Europe/Berlin"
            )
        self._window = window
        self._calendar: Calendar = calendar(tz)
        self.length: timedelta | None = None
        self.step: timedelta | None = None
        if window not in (*PERIODS, "total"):
            length = _length(window)
            self.step = _step(length)
            self.length = -(-length // self.step) * self.step  # so that it moves with the steps
        self._last: tuple[datetime, datetime, Window] | None = None

    def window_at(self, moment: datetime) -> Window:
        """Return the window that a timezone-aware moment is in.

        ``start <= moment < end``, except that the last moment there is, ``datetime.max``, is in a
        window too.
        """
        last = self._last
        if last is not None and last[0] <= moment < last[1]:
            return last[2]
        found = self._find(moment)
        begins = found.start if self.step is None else _moment(found.key)
        self._last = (begins, found.end, found)  # one store: a thread sees the old or the new one
        return found

    def leaves_at(self, key: int) -> datetime:
        """Return the moment from which on spending under a key no longer counts."""
        if self.length is None or self.step is None:
            return self.window_at(_moment(key)).end
        return _within(timedelta(seconds=key) + self.step + self.length)

    def _find(self, moment: datetime) -> Window:
        if self._window == "total":
            return Window(_BEFORE, _AFTER, 0, 0)
        if self.length is not None and self.step is not None:
            return _rolling(moment, self.length, self.step)
        if moment.year <= _FIRST.year:
            first = self._period(_FIRST).start
            if moment < first:
                return _fixed(_BEFORE, first)
        elif moment.year >= _LAST.year - 1:  # a year that begins earlier in the west
            last = self._period(_LAST).start
            if moment >= last:
                return _fixed(last, _AFTER)
        return self._period(moment)

    # -- windows of the calendar ---------------------------------------------------------------

    def _period(self, moment: datetime) -> Window:
        if self._window == "hour":
            return self._hour(moment)
        number = self._calendar.number(self._window, moment)
        step = 7 if self._window == "week" else 1
        while moment >= (end := self._begin(number + step)):  # clocks went back across midnight
            number += step
        return _fixed(self._begin(number), end)

    def _begin(self, number: int) -> datetime:
        """Return the first moment whose date is that of a period's first day, or a later one."""
        if self._window == "month":
            first = date(number // 12, number % 12 + 1, 1)
        else:
            first = date.fromordinal(number + EPOCH.toordinal())
        midnight = datetime.combine(first, time(), self._calendar.zone)
        moment = midnight.astimezone(UTC)  # of two midnights the first
        if self._calendar.local(moment).replace(tzinfo=None) == midnight.replace(tzinfo=None):
            return moment
        return self._change(midnight.replace(fold=1).astimezone(UTC), moment)  # none: clocks jump

    def _hour(self, moment: datetime) -> Window:
        """Return an hour of the clock; it is shorter where the clocks change within it."""
        whole = moment.astimezone(UTC).replace(microsecond=0)
        offset = self._offset(whole)
        start = whole - (whole + offset - EPOCH) % _HOUR
        end = start + _HOUR
        if self._offset(end - _SECOND) != offset:
            end = self._change(whole, end - _SECOND)
        if self._offset(start) != offset:
            start = self._change(start, whole)
        return _fixed(start, end)

    def _offset(self, moment: datetime) -> timedelta:
        return self._calendar.local(moment).utcoffset() or timedelta()

    def _change(self, low: datetime, high: datetime) -> datetime:
        """Return the first second after ``low`` whose offset is another; ``high`` has it."""
        before = self._offset(low)
        while high - low > _SECOND:
            middle = low + (high - low) // 2 // _SECOND * _SECOND
            low, high = (middle, high) if self._offset(middle) == before else (low, middle)
        return high


def _fixed(start: datetime, end: datetime) -> Window:
    key = (start - EPOCH) // _SECOND
    return Window(start, end, key, key)


# -- rolling windows -------------------------------------------------------------------------------


def _length(window: str) -> timedelta:
    found = _ROLLING.fullmatch(window)
    if found is not None:
        length = int(found[1]) * (_HOUR if found[2] == "h" else _DAY)
        if length <= _LONGEST:
            return length
    raise ValueError(
        f"unknown window {window!r}; use {', '.join(PERIODS)}, total, or the length of a rolling "
        "window in hours or days: 24h, 30d (at most 366d)"
    )


def _step(length: timedelta) -> timedelta:
    for step in _STEPS:
        if length <= step * _MOST_STEPS:
            return step
    return _DAY * -(-length // (_DAY * _MOST_STEPS))


def _rolling(moment: datetime, length: timedelta, step: timedelta) -> Window:
    passed = moment - EPOCH
    since, key = (passed - length) // step * step, passed // step * step
    return Window(_within(since), _within(key + step), since // _SECOND, key // _SECOND)


def _within(passed: timedelta) -> datetime:
    """Return the moment that is so long after 1970, or the first or last that there is."""
    return EPOCH + min(max(passed, _BEFORE - EPOCH), _AFTER - EPOCH)


def _moment(key: int) -> datetime:
    return _within(timedelta(seconds=key))
