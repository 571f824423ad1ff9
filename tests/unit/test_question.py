"""The flags that say which part of a ledger is meant: read as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from litellm_ledger._aggregates.conditions import Comparison, read_conditions
from litellm_ledger._aggregates.groups import named
from litellm_ledger._aggregates.question import Question, last, moment, question
from litellm_ledger._aggregates.selection import Selection

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
    found = read_conditions(["model=a", "tag:env=x=y", "model=b", "user="])
    assert found.wanted == {"model": ["a", "b"], "tag:env": ["x=y"], "tag:user": [""]}
    assert not any(found[1:])
    for bad in ("model", "=a", " = ", "!=a", "model!", "costs>1", "user>=1", "user<a", ">1"):
        with pytest.raises(ValueError, match="write KEY=VALUE"):
            read_conditions([bad])


def test_a_condition_with_an_exclamation_mark_says_what_is_not_wanted() -> None:
    found = read_conditions(["tenant!=x", "tenant != y", "status=ok", "tag:a!=!="])
    assert found.wanted == {"status": ["ok"]}
    assert found.unwanted == {"tag:tenant": ["x", " y"], "tag:a": ["!="]}


def test_a_star_stands_for_any_end_and_two_signs_take_a_value_as_it_is() -> None:
    found = read_conditions(["model=gpt-*", "user!=test-*", "model=x", "user=*"])
    assert found.begun == {"model": ["gpt-"], "tag:user": [""]}
    assert found.not_begun == {"tag:user": ["test-"]}
    assert found.wanted == {"model": ["x"]}
    assert found.others == ["model=gpt-*", "tag:user!=test-*", "tag:user=*"]
    exact = read_conditions(["model==gpt-*", "user!==*", "user===", "a=b<c", "tag:a<b=>c", "a!==="])
    assert exact.wanted == {
        "model": ["gpt-*"], "tag:user": ["="], "tag:a": ["b<c"], "tag:a<b": [">c"],
    }  # fmt: skip
    assert exact.unwanted == {"tag:user": ["*"], "tag:a": ["="]}
    assert not exact.others
    for bad, said in (("user=a*b", "write tag:user==a[*]b"), ("m!=*a*", "write tag:m!==[*]a[*]")):
        with pytest.raises(ValueError, match=said):
            read_conditions([bad])
    with pytest.raises(ValueError, match="give a longer period"):
        read_conditions(["day=2025-03*"])


def test_numbers_are_compared_exactly() -> None:
    found = read_conditions(
        ["cost>$0.01", "cost<=.0000000000015", "tokens>=1e3", "tokens<1.5", "latency>2.5",
         "attempt=1", "attempt=2", "cost!=0", "cost!=(none)", "tokens=1.5"]
    )  # fmt: skip
    assert found.compared == [
        Comparison("cost", ">", (10**10,)),
        Comparison("cost", "<=", (1,)),
        Comparison("total_tokens", ">=", (1000,)),
        Comparison("total_tokens", "<", (2,)),
        Comparison("latency_ms", ">", (2.5,)),
        Comparison("attempt", "=", (1, 2)),
        Comparison("cost", "!=", (0, None)),
        Comparison("total_tokens", "=", ()),
    ]
    for bad in ("cost>x", "cost=", "tokens>nan", "latency<inf", "cost>1,5", "cost>1e999"):
        with pytest.raises(ValueError, match=r"is compared with a number .* write tag:"):
            read_conditions([bad])


@pytest.mark.parametrize(
    ("texts", "begin", "end"),
    [
        (["ts>=2025-03-30"], at(2025, 3, 29, 23), None),
        (["ts>2025-03-30"], at(2025, 3, 30, 22), None),
        (["ts<2025-03-30"], None, at(2025, 3, 29, 23)),
        (["ts<=2025-03-30"], None, at(2025, 3, 30, 22)),
        (["ts=2025-03"], at(2025, 2, 28, 23), at(2025, 3, 31, 22)),
        (["ts==2025-03-30T14:00"], at(2025, 3, 30, 12), at(2025, 3, 30, 12, 0, 0, 1)),
        (["ts>today", "ts > 2025-03-01"], at(2025, 3, 30, 22), None),
    ],
)
def test_times_are_compared_as_since_and_until_bound_them(
    texts: list[str], begin: datetime | None, end: datetime | None
) -> None:
    found = asked(where=texts, zone=BERLIN)
    assert (found.since, found.until, found.conditions) == (begin, end, [])


def test_a_time_that_cannot_be_compared_is_refused() -> None:
    for bad, said in (("ts!=today", "write day!="), ("ts>soon", "not a time")):
        with pytest.raises(ValueError, match=said):
            asked(where=[bad])
    with pytest.raises(ValueError, match="give since= or until="):
        Selection(where="ts>2025-03-30")
    with pytest.raises(TypeError, match="give a mapping"):
        Selection(where_not=["a=b"])


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
