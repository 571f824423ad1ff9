"""The flags that say which part of a ledger is meant: read as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from litellm_ledger._aggregates.groups import named
from litellm_ledger._aggregates.question import Question, conditions, last, moment, question

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2025, 3, 30, 12, 34, 56, tzinfo=UTC)  # 14:34 in Berlin, on a day of 23 hours


def at(*when: int) -> datetime:
    return datetime(*when, tzinfo=UTC)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("2025-03-30", at(2025, 3, 29, 23), at(2025, 3, 30, 22)),
        ("20250330", at(2025, 3, 29, 23), at(2025, 3, 30, 22)),
        ("today", at(2025, 3, 29, 23), at(2025, 3, 30, 22)),
        ("yesterday", at(2025, 3, 28, 23), at(2025, 3, 29, 23)),
        ("2025-03", at(2025, 2, 28, 23), at(2025, 3, 31, 22)),
        ("2024-12", at(2024, 11, 30, 23), at(2024, 12, 31, 23)),
        ("2025-10-26", at(2025, 10, 25, 22), at(2025, 10, 26, 23)),
        ("2025-03-30T14:00", at(2025, 3, 30, 12), at(2025, 3, 30, 12)),
        ("2025-03-30 14:00:30", at(2025, 3, 30, 12, 0, 30), at(2025, 3, 30, 12, 0, 30)),
        ("2025-03-30T14:00Z", at(2025, 3, 30, 14), at(2025, 3, 30, 14)),
        ("2025-03-30T14:00-05:00", at(2025, 3, 30, 19), at(2025, 3, 30, 19)),
        ("now", NOW, NOW),
        ("36h", at(2025, 3, 29, 0, 34, 56), at(2025, 3, 29, 0, 34, 56)),
        ("1d", at(2025, 3, 29, 13, 34, 56), at(2025, 3, 29, 13, 34, 56)),  # 14:34 there, too
        ("2w", at(2025, 3, 16, 13, 34, 56), at(2025, 3, 16, 13, 34, 56)),
        ("1mo", at(2025, 2, 28, 13, 34, 56), at(2025, 2, 28, 13, 34, 56)),  # which has no 30th
        # lived twice: the first of the two
        ("2025-10-26T02:30", at(2025, 10, 26, 0, 30), at(2025, 10, 26, 0, 30)),
    ],
)
def test_a_moment_in_a_zone(text: str, begin: datetime, end: datetime) -> None:
    assert moment(text, BERLIN, NOW, flag="--since") == begin
    assert moment(text, BERLIN, NOW, flag="--until", end=True) == end


def test_a_day_begins_when_the_clocks_jump_over_midnight() -> None:
    beirut = ZoneInfo("Asia/Beirut")
    assert moment("2025-03-30", beirut, NOW, flag="--since") == at(2025, 3, 29, 22)
    assert at(2025, 3, 29, 22).astimezone(beirut).hour == 1


@pytest.mark.parametrize("text", ["", "soon", "2025-13-01", "2025-02-30", "30.3.2025", "12"])
def test_what_is_no_moment_is_said_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"^--until .* is not a time; give a day \(2025-03-30\)"):
        moment(text, UTC, NOW, flag="--until")


@pytest.mark.parametrize(
    ("text", "zone", "begin"),
    [
        ("1h", BERLIN, at(2025, 3, 30, 12)),
        ("24h", BERLIN, at(2025, 3, 29, 13)),
        ("1h", ZoneInfo("Asia/Kolkata"), at(2025, 3, 30, 12, 30)),
        ("1d", BERLIN, at(2025, 3, 29, 23)),
        ("7d", BERLIN, at(2025, 3, 23, 23)),
        ("7D", UTC, at(2025, 3, 24)),
        ("1w", UTC, at(2025, 3, 24)),
        ("2w", UTC, at(2025, 3, 17)),
        ("1mo", UTC, at(2025, 3, 1)),
        ("4mo", UTC, at(2024, 12, 1)),
    ],
)
def test_the_last_so_many_have_the_current_one_among_them(
    text: str, zone: ZoneInfo, begin: datetime
) -> None:
    assert last(text, zone, NOW) == (begin, None)


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("day", at(2025, 3, 28, 23), at(2025, 3, 29, 23)),
        ("week", at(2025, 3, 16, 23), at(2025, 3, 23, 23)),
        ("Month", at(2025, 1, 31, 23), at(2025, 2, 28, 23)),
        ("year", at(2023, 12, 31, 23), at(2024, 12, 31, 23)),
    ],
)
def test_the_last_whole_one_ends_where_the_current_one_begins(
    text: str, begin: datetime, end: datetime
) -> None:
    assert last(text, BERLIN, NOW) == (begin, end)


def test_the_last_whole_week_begins_on_the_day_that_was_asked_for() -> None:
    assert last("week", UTC, NOW, "sunday") == (at(2025, 3, 23), at(2025, 3, 30))


def test_what_is_longer_ago_than_there_were_years_is_said() -> None:
    with pytest.raises(ValueError, match="is before the year 1"):
        moment("99999mo", UTC, NOW, flag="--since")


@pytest.mark.parametrize("text", ["30m", "30min", "30 M"])
def test_minutes_are_not_taken_for_months(text: str) -> None:
    with pytest.raises(ValueError, match="use 30mo for months; minutes are not supported"):
        last(text, UTC, NOW)


def test_the_last_weeks_begin_on_the_day_that_was_asked_for() -> None:
    assert last("1w", UTC, NOW, "sunday")[0] == at(2025, 3, 30)
    assert last("1w", UTC, NOW, "saturday")[0] == at(2025, 3, 29)


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "-1d", "7 fortnights", "1.5d", "99999mo"])
def test_what_is_no_span_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"^--last "):
        last(text, UTC, NOW)


def asked(**flags: object) -> Question:
    given = {"since": None, "until": None, "last_": None, "where": [], "zone": UTC, "tz": "UTC"}
    return question(**given | {"week_start": "monday", "now": NOW} | flags)  # type: ignore[arg-type]


def test_flags_become_a_question() -> None:
    found = asked(since="2025-03-01", until="2025-03-30", where=["env=prod", "status=ok"])
    assert found.selection() == {
        "since": at(2025, 3, 1),
        "until": at(2025, 3, 31),
        "where": {"tag:env": ["prod"], "status": ["ok"]},
    }
    assert found.to_dict() == {
        "since": "2025-03-01T00:00:00Z",
        "until": "2025-03-31T00:00:00Z",
        "where": {"tag:env": ["prod"], "status": ["ok"]},
        "tz": "UTC",
        "week_start": "monday",
    }
    assert asked().selection() == {"since": None, "until": None, "where": None}
    assert asked(last_="7d").since == at(2025, 3, 24)


def test_what_is_not_wanted_is_part_of_the_question() -> None:
    found = asked(where=["env!=prod"])
    assert found.selection()["where_not"] == {"tag:env": ["prod"]}
    assert found.to_dict()["where_not"] == {"tag:env": ["prod"]}
    assert found.selection()["where"] is None


def test_flags_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        asked(since="today", last_="7d")
    with pytest.raises(ValueError, match="is not before"):
        asked(since="2025-03-30", until="2025-03-29")


def test_conditions_on_one_key_are_alternatives() -> None:
    assert conditions(["model=a", "tag:env=x=y", "model=b", "user="]) == (
        {"model": ["a", "b"], "tag:env": ["x=y"], "tag:user": [""]},
        {},
    )
    for bad in ("model", "=a", " = ", "!=a", "model!"):
        with pytest.raises(ValueError, match="write KEY=VALUE"):
            conditions([bad])


def test_a_condition_with_an_exclamation_mark_says_what_is_not_wanted() -> None:
    assert conditions(["tenant!=x", "tenant != y", "status=ok", "tag:a!=!="]) == (
        {"status": ["ok"]},
        {"tag:tenant": ["x", " y"], "tag:a": ["!="]},
    )


def test_a_word_that_is_no_key_is_a_tag_unless_it_looks_like_a_slip() -> None:
    assert [named(word) for word in ("model", "week", "tag:model", "user", "feature")] == [
        "model",
        "week",
        "tag:model",
        "tag:user",
        "tag:feature",
    ]
    with pytest.raises(ValueError, match=r"did you mean model\? For a tag use tag:modl"):
        named("modl")


def test_the_zone_of_the_machine_is_a_zone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    local = NOW.astimezone().tzinfo
    assert isinstance(local, timezone)
    begin = moment("2025-01-01", None, NOW, flag="--since")
    assert begin.astimezone() == datetime(2025, 1, 1).astimezone()
    assert last("1d", None, NOW)[0] <= NOW
    assert NOW - last("1d", None, NOW)[0] < timedelta(days=1)
