"""A record is complete from what the user knows, and refuses what cannot be right."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from litellm_ledger._errors import InvalidRecord
from litellm_ledger._records.line import decode, encode
from litellm_ledger._records.record import MAX_CONTENT, MAX_INT, MAX_TEXT, UsageRecord, changed, cut


def test_what_the_user_knows_is_enough() -> None:
    record = UsageRecord(
        model="m", input_tokens=10, output_tokens=5, cost=Decimal("0.0000045"), tags={"user": "a"}
    )
    assert (record.kind, record.status, record.usage_source) == ("usage", "ok", "provider")
    assert record.total_tokens == 15
    assert (record.id, record.seq, record.ts, record.latency_ms) == (None, None, None, None)


def test_unknown_is_not_zero() -> None:
    record = UsageRecord(model="m")
    assert (record.input_tokens, record.total_tokens, record.cost) == (None, None, None)
    assert record.usage_source == "none"
    assert UsageRecord(input_tokens=0, cost=Decimal(0)).total_tokens == 0


@pytest.mark.parametrize("given", [{}, {"tags": None, "meta": None}, {"tags": {}, "meta": {}}])
def test_tags_and_meta_are_never_none_and_take_no_place_on_disk(given: Any) -> None:
    record = UsageRecord(id="w-1", seq=1, model="m", **given)
    assert (record.tags, record.meta) == ({}, {})
    line = encode(record)
    assert b"tags" not in line
    assert b"meta" not in line
    read = decode(line)
    assert (read.tags, read.meta) == ({}, {})
    assert read == record


COUNTS = ("output_tokens", "images", "characters", "pages", "search_units")
LOOP: dict[str, Any] = {}
LOOP["self"] = LOOP
WRONG: dict[str, list[Any]] = {
    **{name: [-1, MAX_INT + 1, 1.0, "1", True] for name in COUNTS},
    "audio_seconds": [-0.1, float("nan"), float("inf"), 1e300, "1", True],
    "cost": [0.1, "0.1", Decimal("NaN"), Decimal("1E+30"), True],
    "tags": [[], "", 0, False, {"a": object()}, {1: "a"}, ["a"], "a", {"a": ["x"]}],
    "meta": [[], "", 0, False, {"a": object()}, LOOP, {"a": "\ud800"}],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_what_cannot_be_right_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRecord, match="tag" if name == "tags" else name):
        UsageRecord(**{name: value})


def test_a_given_total_is_kept() -> None:
    assert UsageRecord(input_tokens=1, output_tokens=1, total_tokens=7).total_tokens == 7


def test_started_records_and_gaps_are_not_completed() -> None:
    assert UsageRecord(kind="started").status is None
    assert UsageRecord(kind="gap", gap_until=3).usage_source is None


def test_units_come_back_as_they_were_written() -> None:
    units = {"images": 2, "audio_seconds": 1.5, "characters": 0, "pages": 3, "search_units": 1}
    record = UsageRecord(id="w-1", seq=1, content={"answer": "a"}, **units)
    line = encode(record)
    assert decode(line) == record
    members = json.loads(line)
    assert {name: members[name] for name in units} == units
    assert UsageRecord(audio_seconds=3).audio_seconds == 3.0
    assert not {"images", "content"} & set(json.loads(encode(UsageRecord(id="w-1", seq=1))))


def test_content_is_json_and_bounded() -> None:
    with pytest.raises(InvalidRecord, match="content is larger"):
        UsageRecord(content={"answer": "x" * MAX_CONTENT})
    with pytest.raises(InvalidRecord, match="content cannot be stored"):
        UsageRecord(content={"answer": object()})


def test_whole_dollars_may_be_an_integer() -> None:
    assert UsageRecord(cost=3, saved_cost=Decimal("0.1")).cost == Decimal(3)  # type: ignore[arg-type]


def test_money_is_rounded_to_the_picodollar_once() -> None:
    assert UsageRecord(cost=Decimal("1.0000000000005")).cost == Decimal(1)


def test_a_time_without_a_zone_is_refused_and_others_become_utc() -> None:
    with pytest.raises(InvalidRecord, match="timezone-aware"):
        UsageRecord(ts=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point
    east = timezone(timedelta(hours=5, minutes=30))
    record = UsageRecord(ts=datetime(2026, 1, 1, 5, 30, tzinfo=east))
    assert record.ts == datetime(2026, 1, 1, tzinfo=UTC)
    assert record.ts is not None
    assert record.ts.tzinfo is UTC


@pytest.mark.parametrize("value", [-0.001, float("nan"), float("inf")])
def test_a_latency_that_a_clock_step_made_absurd_is_unknown(value: float) -> None:
    assert UsageRecord(latency_ms=value, ttft_ms=value).latency_ms is None


def test_tags_become_text() -> None:
    record = UsageRecord(tags={"a": "x", "n": 3, "b": True, "d": Decimal("1.5"), "gone": None})  # type: ignore[dict-item]
    assert record.tags == {"a": "x", "n": "3", "b": "true", "d": "1.5"}


@pytest.mark.parametrize("tags", [{}, {"a": "x"}])
def test_the_callers_tags_are_copied(tags: dict[str, str]) -> None:
    record = UsageRecord(tags=tags)
    before = dict(tags)
    tags["a"] = "changed"
    assert record.tags == before


def test_huge_text_is_cut_with_a_mark() -> None:
    record = UsageRecord(model="m" * 10**6, tags={"k": "v" * 10**6})
    assert record.model is not None
    assert len(record.model) == MAX_TEXT
    assert record.model.endswith("…[cut]")
    assert record.tags is not None
    assert len(record.tags["k"]) == MAX_TEXT


def test_text_that_is_no_unicode_is_mended() -> None:
    assert cut("a\ud800b") == "a?b"


@pytest.mark.parametrize("field", ["model", "call_id", "error", "operation"])
def test_a_text_field_takes_only_text(field: str) -> None:
    with pytest.raises(InvalidRecord, match=f"{field} must be text, not bytes"):
        UsageRecord(**{field: b"x"})  # type: ignore[arg-type]


def test_meta_is_any_json() -> None:
    assert UsageRecord(meta={"a": [1, None, {"b": "c"}]}).meta is not None


def test_a_record_is_frozen() -> None:
    record = UsageRecord(model="m")
    with pytest.raises(AttributeError):
        record.model = "other"  # type: ignore[misc]


class Text(str):
    """As numpy's, or an enum's: a str that msgspec does not take."""

    __slots__ = ()


def test_text_of_a_subclass_is_stored_as_plain_text() -> None:
    record = UsageRecord(model=Text("m"), status=Text("ok"), tags={Text("user"): Text("a")})  # type: ignore[arg-type]
    assert (type(record.model), type(record.status)) == (str, str)
    assert record.tags is not None
    assert {type(part) for item in record.tags.items() for part in item} == {str}


def test_what_the_caller_changes_later_is_not_on_the_record() -> None:
    messages: list[object] = ["hello"]
    record = UsageRecord(content={"request": messages}, meta={"list": messages})
    messages.append(object())
    assert record.content == {"request": ["hello"]}
    assert record.meta == {"list": ["hello"]}


_TEXTS: Any = st.sampled_from([None, "gpt-4o", "", "ü" * 9, "x" * 5_000, "\ud800", 3, UsageRecord])
_NUMBERS: Any = st.sampled_from([None, 0, 17, MAX_INT, MAX_INT + 1, -1, True, 1.5, "3"])
_TIMES: Any = st.sampled_from([None, 0.0, 12.345, -1.0, float("nan"), float("inf"), 3, "3"])
_MONEY: Any = st.sampled_from(
    [None, Decimal(0), Decimal("1.5E-7"), Decimal("1E-13"), Decimal("NaN"), 1, 0.5]
)
_BASES = (
    UsageRecord(kind="started"),
    UsageRecord(kind="started", seq=7, id="w-7", model="m", tags={"user": "a"}, attempt=2),
    UsageRecord(model="m", input_tokens=3, meta={"a": [1]}, content={"b": 2}),
    UsageRecord(kind="gap", gap_until=3),
)


@given(
    base=st.sampled_from(_BASES),
    fields=st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("model", "provider", "operation", "call_id", "error"), _TEXTS),
            **dict.fromkeys(("input_tokens", "total_tokens", "attempt", "pages"), _NUMBERS),
            **dict.fromkeys(("latency_ms", "ttft_ms", "audio_seconds"), _TIMES),
            **dict.fromkeys(("cost", "saved_cost"), _MONEY),
            "kind": st.sampled_from(["started", "usage", "gap", "other"]),
            "status": st.sampled_from([None, "ok", "error", "other", 3]),
            "usage_source": st.sampled_from([None, "provider", "estimated", "other"]),
            "stream": st.sampled_from([None, True, False, 1]),
            "cache_hit": st.sampled_from([None, True, 1]),
            "ts": st.sampled_from(
                [None, "now", datetime(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC)]  # noqa: DTZ001 - a naive one is refused
            ),
            "tags": st.sampled_from([None, {}, {"a": "b"}, {"a": 1, "b": None}, [], {"a": [1]}]),
            "meta": st.sampled_from(
                [None, {}, {"a": "b"}, {"a": {"b": 1}}, {"a": "\ud800"}, {1: "a"}, [], ""]
            ),
            "content": st.sampled_from([None, {"a": 1}, []]),
        },
    ),
)
def test_a_record_with_other_fields_is_the_one_that_the_constructor_makes(
    base: UsageRecord, fields: dict[str, Any]
) -> None:
    try:
        expected = replace(base, **fields)
    except (InvalidRecord, TypeError) as exc:
        with pytest.raises(type(exc)):
            changed(base, fields)
        return
    made = changed(base, fields)
    assert made == expected
    assert repr(made) == repr(expected)  # also whether it is 0 or 0.0, and how money is written
    for name in ("tags", "meta", "content"):
        own = getattr(made, name)
        assert own is None or (own is not fields.get(name) and own is not getattr(base, name))


def test_a_field_that_is_unknown_is_refused_by_both() -> None:
    with pytest.raises(TypeError, match="unheard_of"):
        changed(UsageRecord(), {"unheard_of": 1})
