"""Hours, days, weeks and months of a time zone, on the days too on which its clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from litellm_ledger._aggregates.calendar import PERIODS, _changes, calendar

FAR = datetime(2101, 1, 1, tzinfo=UTC)


def label(zone: str, every: str, moment: str, week_start: str = "monday") -> str:
    dates = calendar(zone, week_start)
    return dates.label(every, dates.number(every, datetime.fromisoformat(moment)))


@pytest.mark.parametrize(
    ("zone", "every", "moment", "expected"),
    [
        ("UTC", "day", "2025-03-30T23:59:59.999999Z", "2025-03-30"),
        ("UTC", "month", "2024-12-31T23:59:59Z", "2024-12"),
        ("Europe/Berlin", "month", "2024-12-31T23:00:00Z", "2025-01"),
        # Clocks go from 02:00 to 03:00: a day of 23 hours.
        ("Europe/Berlin", "day", "2025-03-29T22:59:59Z", "2025-03-29"),
        ("Europe/Berlin", "day", "2025-03-29T23:00:00Z", "2025-03-30"),
        ("Europe/Berlin", "day", "2025-03-30T21:59:59Z", "2025-03-30"),
        ("Europe/Berlin", "day", "2025-03-30T22:00:00Z", "2025-03-31"),
        ("Europe/Berlin", "hour", "2025-03-30T00:59:59Z", "2025-03-30T01:00+01:00"),
        ("Europe/Berlin", "hour", "2025-03-30T01:00:00Z", "2025-03-30T03:00+02:00"),
        # And back: the hour from 02:00 to 03:00 is lived twice, and the day has 25.
        ("Europe/Berlin", "hour", "2025-10-26T00:30:00Z", "2025-10-26T02:00+02:00"),
        ("Europe/Berlin", "hour", "2025-10-26T01:30:00Z", "2025-10-26T02:00+01:00"),
        ("Europe/Berlin", "day", "2025-10-26T22:59:59Z", "2025-10-26"),
        ("Asia/Kolkata", "hour", "2025-01-01T00:00:00Z", "2025-01-01T05:00+05:30"),
        # Half an hour of daylight saving.
        ("Australia/Lord_Howe", "hour", "2025-04-05T14:59:59Z", "2025-04-06T01:00+11:00"),
        ("Australia/Lord_Howe", "hour", "2025-04-05T15:00:00Z", "2025-04-06T01:00+10:30"),
        # The day that Samoa left out.
        ("Pacific/Apia", "day", "2011-12-30T09:59:59Z", "2011-12-29"),
        ("Pacific/Apia", "day", "2011-12-30T10:00:00Z", "2011-12-31"),
    ],
)
def test_a_moment_is_in_the_period_that_clocks_there_showed(
    zone: str, every: str, moment: str, expected: str
) -> None:
    assert label(zone, every, moment) == expected


def test_a_week_begins_on_the_day_that_was_said() -> None:
    wednesday = "2025-01-01T12:00:00Z"
    assert label("UTC", "week", wednesday) == "2024-12-30"
    assert label("UTC", "week", wednesday, "sunday") == "2024-12-29"
    assert label("UTC", "week", wednesday, "wednesday") == "2025-01-01"
    assert label("UTC", "week", wednesday, "thursday") == "2024-12-26"
    assert label("UTC", "week", "1969-12-31T00:00:00Z") == "1969-12-29"


def test_numbers_of_periods_ascend_with_time_also_when_clocks_go_back() -> None:
    dates = calendar("Europe/Berlin")
    start = datetime(2025, 10, 25, tzinfo=UTC)
    moments = [start + timedelta(minutes=10 * step) for step in range(300)]
    for every in PERIODS:
        numbers = [dates.number(every, moment) for moment in moments]
        assert numbers == sorted(numbers)
    assert len({dates.number("hour", moment) for moment in moments[132:282]}) == 25


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia"])
@pytest.mark.parametrize("every", PERIODS)
def test_the_database_puts_the_very_moment_of_a_change_where_python_does(
    zone: str, every: str
) -> None:
    duckdb = pytest.importorskip("duckdb")
    dates = calendar(zone)
    moments = [
        datetime.fromtimestamp(change, UTC) + timedelta(microseconds=microseconds)
        for change, _ in _changes(dates.zone)[1:]
        if datetime(1970, 1, 1, tzinfo=UTC) <= datetime.fromtimestamp(change, UTC) < FAR
        for microseconds in (-1, 0, 1)
    ]
    assert moments
    found = duckdb.execute(
        f"SELECT {dates.sql(every, 'ts')} FROM (SELECT unnest(?::TIMESTAMP[]) AS ts)",
        [[moment.replace(tzinfo=None) for moment in moments]],
    ).fetchall()
    assert [number for (number,) in found] == [dates.number(every, moment) for moment in moments]


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York", "UTC", "local"])
@pytest.mark.parametrize("every", PERIODS)
def test_the_first_and_the_last_year_are_those_of_utc_everywhere(zone: str, every: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    dates = calendar(zone)
    moments = [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1, 12, 31, 23, 59, tzinfo=UTC),
        datetime(9999, 1, 1, 0, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime.max.replace(hour=11, tzinfo=timezone(-timedelta(hours=11, minutes=59))),
    ]
    numbers = [dates.number(every, moment) for moment in moments]
    assert [dates.parse(every, dates.label(every, number)) for number in numbers] == numbers
    found = duckdb.execute(
        f"SELECT {dates.sql(every, 'ts')} FROM (SELECT unnest(?::TIMESTAMP[]) AS ts)",
        [[moment.astimezone(UTC).replace(tzinfo=None) for moment in moments]],
    ).fetchall()
    assert [number for (number,) in found] == numbers


def test_any_tzinfo_will_do() -> None:
    moment = datetime(2025, 1, 1, 20, tzinfo=UTC)
    five = calendar(timezone(timedelta(hours=5)))
    assert five.label("day", five.number("day", moment)) == "2025-01-02"
    here = calendar("local")
    assert here.label("day", here.number("day", moment)) == moment.astimezone().date().isoformat()
    assert calendar(None).zone is UTC


def test_an_unknown_zone_or_weekday_is_refused_with_what_to_give() -> None:
    for zone in ("Mars/Olympus", "../etc/passwd", ""):
        with pytest.raises(ValueError, match="Europe/Berlin"):
            calendar(zone)
    with pytest.raises(ValueError, match="monday, tuesday"):
        calendar("UTC", "Montag")
