"""Windows of budgets: they tile time in every zone, and are those of the calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from litellm_ledger._aggregates.calendar import calendar
from litellm_ledger._budgets.windows import Window, Windows

FIXED = ("hour", "day", "week", "month")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/Sao_Paulo",  # skipped midnights
    "America/St_Johns",  # changed at 00:01, to 23:01 of the day before
    "America/Havana",  # repeats the hour after midnight
    "America/Toronto",  # skipped 23:30 to 00:30 in 1919
    "America/Juneau",  # was west, then east of the date line
    "Asia/Beirut",
    "Asia/Tehran",
    "Asia/Kathmandu",
    "Asia/Manila",  # left out the last day of 1844
    "Australia/Lord_Howe",  # half an hour of daylight saving
    "Africa/Monrovia",  # offsets with seconds
    "Antarctica/Troll",  # two hours of daylight saving
    "Pacific/Apia",  # left out 2011-12-30
    "Pacific/Kwajalein",
)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def at(zone: str, window: str, text: str) -> Window:
    return Windows(window, zone).window_at(moment(text))


def between(first: int, last: int) -> st.SearchStrategy[datetime]:
    start, end = datetime(first, 1, 1, tzinfo=UTC), datetime(last, 1, 1, tzinfo=UTC)
    return st.timedeltas(timedelta(0), end - start).map(lambda passed: start + passed)


moments = st.one_of(st.datetimes(timezones=st.just(UTC)), between(1840, 2040))


@pytest.mark.parametrize("window", [*FIXED, "total", "1h", "24h", "30d", "365d"])
@settings(max_examples=60)
@given(zone=st.sampled_from(ZONES), now=moments)
@example(zone="America/St_Johns", now=moment("2010-11-07T02:31:00Z"))
@example(zone="America/St_Johns", now=moment("2010-11-07T02:30:30Z"))
@example(zone="America/Toronto", now=moment("1919-03-31T04:30:00Z"))
@example(zone="Pacific/Apia", now=moment("2011-12-30T10:00:00Z"))
@example(zone="Australia/Lord_Howe", now=moment("2025-04-05T15:10:00Z"))
@example(zone="Australia/Lord_Howe", now=moment("2025-10-04T15:40:00Z"))
@example(zone="Asia/Manila", now=moment("1844-12-31T15:56:00Z"))
@example(zone="UTC", now=datetime.min.replace(tzinfo=UTC))
@example(zone="UTC", now=datetime.max.replace(tzinfo=UTC))
@example(zone="Pacific/Kiritimati", now=datetime.max.replace(tzinfo=UTC))
@example(zone="America/Los_Angeles", now=moment("1000-01-01T00:00:00Z"))
@example(zone="America/Los_Angeles", now=moment("9000-01-01T00:00:00Z"))
def test_windows_tile_time(window: str, zone: str, now: datetime) -> None:
    windows = Windows(window, zone)
    this = windows.window_at(now)
    last = datetime.max.replace(tzinfo=UTC)
    assert this.start <= now < this.end or now == this.end == last
    assert this.since <= this.key
    begins = this.start if windows.step is None else datetime.min.replace(tzinfo=UTC)
    if windows.step is None:
        assert this.since == this.key
        assert Windows(window, zone).window_at(begins) == this
        assert windows.leaves_at(this.key) == this.end
    assert Windows(window, zone).window_at(max(now, this.end - MICROSECOND)) == this
    if this.end < last:
        after = windows.window_at(this.end)
        assert after.key > this.key
        assert after.start == this.end or windows.step
    if begins > datetime.min.replace(tzinfo=UTC):
        before = windows.window_at(begins - MICROSECOND)
        assert before.end == begins
        assert before.key < this.key


@settings(max_examples=300)
@given(
    zone=st.sampled_from(ZONES),
    window=st.sampled_from(FIXED),
    now=between(1840, 2040),
    apart=st.timedeltas(timedelta(0), timedelta(days=40)),
)
def test_two_moments_share_a_window_where_they_share_a_period(
    zone: str, window: str, now: datetime, apart: timedelta
) -> None:
    """Except around a change across midnight, where a date returns and its window does not."""
    dates = calendar(zone)
    then = now + apart
    windows = Windows(window, zone)
    same = windows.window_at(now) == windows.window_at(then)
    assert same is (dates.number(window, now) == dates.number(window, then)) or any(
        dates.number("day", one) < dates.number("day", one - HOUR) for one in _near(now, then)
    )


def _near(*moments: datetime) -> list[datetime]:
    return [one + timedelta(minutes=minutes) for one in moments for minutes in range(-90, 91, 10)]


@pytest.mark.parametrize("zone", ZONES)
def test_every_change_of_a_clock_is_a_boundary_of_hours_and_of_no_day_but_at_midnight(
    zone: str,
) -> None:
    windows, days = Windows("hour", zone), Windows("day", zone)
    now, end = moment("2009-06-01T00:00:00Z"), moment("2013-01-01T00:00:00Z")
    zoned = calendar(zone)
    while now < end:
        day = days.window_at(now)
        changes = {zoned.local(now + HOUR * hour).utcoffset() for hour in range(26)}
        if len(changes) > 1:  # walk the hours of a day of change
            hour, one = windows.window_at(day.start), day.start
            while one < day.end:
                hour = windows.window_at(one)
                assert hour.end - hour.start <= HOUR
                offsets = {zoned.local(hour.start).utcoffset()}
                offsets.add(zoned.local(hour.end - SECOND).utcoffset())
                assert len(offsets) == 1
                one = hour.end
            assert one == day.end, "an hour lies in two days"
        now = day.end


@pytest.mark.parametrize(
    ("zone", "window", "now", "start", "end"),
    [
        ("Europe/Berlin", "day", "2025-03-30T12:00Z", "2025-03-29T23:00Z", "2025-03-30T22:00Z"),
        ("Europe/Berlin", "day", "2025-10-26T12:00Z", "2025-10-25T22:00Z", "2025-10-26T23:00Z"),
        ("Europe/Berlin", "hour", "2025-10-26T00:30Z", "2025-10-26T00:00Z", "2025-10-26T01:00Z"),
        ("Europe/Berlin", "week", "2025-03-30T12:00Z", "2025-03-23T23:00Z", "2025-03-30T22:00Z"),
        ("Europe/Berlin", "month", "2025-03-05T12:00Z", "2025-02-28T23:00Z", "2025-03-31T22:00Z"),
        # A midnight that was left out: the day begins at 01:00.
        ("America/Sao_Paulo", "day", "2018-11-04T12:00Z", "2018-11-04T03:00Z", "2018-11-05T02:00Z"),
        # Clocks went from 23:30 to 00:30.
        ("America/Toronto", "day", "1919-03-31T12:00Z", "1919-03-31T04:30Z", "1919-04-01T04:00Z"),
        # From 00:01 to 23:01: the day that had begun continues.
        ("America/St_Johns", "day", "2010-11-07T02:31Z", "2010-11-07T02:30Z", "2010-11-08T03:30Z"),
        ("America/St_Johns", "day", "2010-11-07T02:29Z", "2010-11-06T02:30Z", "2010-11-07T02:30Z"),
        ("Pacific/Apia", "day", "2011-12-30T09:00Z", "2011-12-29T10:00Z", "2011-12-30T10:00Z"),
        ("Pacific/Apia", "day", "2011-12-30T10:00Z", "2011-12-30T10:00Z", "2011-12-31T10:00Z"),
        # Half an hour is repeated.
        (
            "Australia/Lord_Howe",
            "hour",
            "2025-04-05T15:10Z",
            "2025-04-05T15:00Z",
            "2025-04-05T15:30Z",
        ),
        ("Asia/Kathmandu", "hour", "2025-04-05T15:10Z", "2025-04-05T14:15Z", "2025-04-05T15:15Z"),
        ("UTC", "month", "2024-02-29T00:00Z", "2024-02-01T00:00Z", "2024-03-01T00:00Z"),
    ],
)
def test_a_window_is_what_the_clocks_there_say(
    zone: str, window: str, now: str, start: str, end: str
) -> None:
    found = at(zone, window, now)
    assert (found.start, found.end) == (moment(start), moment(end))
    assert found.key == found.since == int(moment(start).timestamp())


@pytest.mark.parametrize(
    ("window", "step"),
    [
        ("1h", "0:15:00"),
        ("24h", "0:15:00"),
        ("1d", "0:15:00"),
        ("25h", "0:30:00"),
        ("97h", "2:00:00"),
        ("7d", "2:00:00"),
        ("30d", "8:00:00"),
        ("90d", "1 day, 0:00:00"),
        ("366d", "4 days, 0:00:00"),
    ],
)
def test_a_rolling_window_has_at_most_97_steps(window: str, step: str) -> None:
    windows = Windows(window)
    assert str(windows.step) == step
    assert windows.step is not None
    now = moment("2025-03-30T12:34:56Z")
    found = windows.window_at(now)
    assert 0 < (found.key - found.since) / windows.step.total_seconds() <= 96


@settings(max_examples=200)
@given(
    window=st.sampled_from(["1h", "3h", "24h", "97h", "7d", "30d", "365d"]),
    spent=between(1971, 2100),
    apart=st.timedeltas(timedelta(0), timedelta(days=400)),
)
@example("24h", moment("2025-01-01T00:00:00Z"), timedelta(days=1))
def test_a_rolling_window_never_counts_less_than_asked_and_at_most_a_step_more(
    window: str, spent: datetime, apart: timedelta
) -> None:
    windows = Windows(window)
    assert windows.step is not None
    length = timedelta(**{"hours" if window[-1] == "h" else "days": int(window[:-1])})
    key = windows.window_at(spent).key
    now = windows.window_at(spent + apart)
    counts = now.since <= key <= now.key
    assert counts >= (apart <= length)
    assert counts <= (apart < -(-length // windows.step) * windows.step + windows.step)
    assert counts is (spent + apart < windows.leaves_at(key))


@pytest.mark.parametrize("window", ["", "days", "0d", "1.5h", "400d", "9999h", "30 d", "٣d", "-1d"])
def test_a_window_that_does_not_exist_is_refused(window: str) -> None:
    with pytest.raises(ValueError, match="hour, day, week, month, total, or the length"):
        Windows(window)


def test_the_zone_of_a_machine_is_no_zone_of_a_budget() -> None:
    with pytest.raises(ValueError, match="give the name of a zone"):
        Windows("day", "local")
    with pytest.raises(ValueError, match="unknown time zone 'Mars'"):
        Windows("day", "Mars")
    with pytest.raises(TypeError, match="tz must be text"):
        Windows("day", UTC)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="window must be text"):
        Windows(30)  # type: ignore[arg-type]
