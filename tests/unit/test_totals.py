"""Running totals: exact, foldable by any key, bounded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_ledger._aggregates.groups import MISSING, OTHER, Row, key_of
from litellm_ledger._aggregates.totals import Totals
from litellm_ledger._reading.lines import Line
from litellm_ledger._records.money import picousd
from litellm_ledger._records.record import UsageRecord


def fill(totals: Totals, *records: UsageRecord) -> Totals:
    for record in records:
        totals.add(record, None if record.cost is None else picousd(record.cost))
    return totals


def groups(rows: list[Row]) -> list[tuple[str, ...]]:
    return [tuple(row.group.values()) for row in rows]


def test_a_total_sums_every_field() -> None:
    one = UsageRecord(
        model="m",
        input_tokens=10,
        output_tokens=5,
        cache_read_tokens=3,
        cache_write_tokens=2,
        reasoning_tokens=1,
        cost=Decimal("0.0000045"),
        saved_cost=Decimal("0.01"),
    )
    total = fill(Totals(), one, one, one).total()
    assert total == Row(
        calls=3,
        ok=3,
        input_tokens=30,
        output_tokens=15,
        total_tokens=45,
        cache_read_tokens=9,
        cache_write_tokens=6,
        reasoning_tokens=3,
        cost=Decimal("0.0000135"),
        saved_cost=Decimal("0.03"),
        priced=3,
        provider_reported=3,
    )


def test_nothing_added_is_a_row_of_zeros() -> None:
    assert Totals().total() == Row()
    assert Totals().summary(["model"]) == []


def test_cost_is_summed_exactly_where_floats_would_drift() -> None:
    tenth = UsageRecord(cost=Decimal("0.1"))
    assert fill(Totals(), *[tenth] * 10).total().cost == Decimal(1)
    dust = UsageRecord(cost=Decimal("0.000000000001"))
    large = UsageRecord(cost=Decimal(9000000))
    total = fill(Totals(), *[large] * 1_000, dust).total()
    assert total.cost == Decimal("9000000000.000000000001")


def test_outcomes_are_counted_by_status_and_unknown_costs_told_apart() -> None:
    statuses: list[Any] = ["ok", "ok", "error", "cancelled", "abandoned", "unsettled"]
    total = fill(Totals(), *[UsageRecord(status=status) for status in statuses]).total()
    assert (total.calls, total.ok, total.error) == (6, 2, 1)
    assert (total.cancelled, total.abandoned, total.unsettled) == (1, 1, 1)
    assert (total.priced, total.unpriced, total.unknown_cost) == (0, 2, 3)
    free = fill(Totals(), UsageRecord(cost=Decimal(0))).total()
    assert (free.priced, free.unpriced, free.cost) == (1, 0, 0)


def test_who_counted_the_tokens_is_counted() -> None:
    total = fill(
        Totals(),
        UsageRecord(input_tokens=1),
        UsageRecord(input_tokens=1, usage_source="estimated"),
        UsageRecord(),
        UsageRecord(status="error"),  # a call that failed used nothing that anybody misses
    ).total()
    assert (total.provider_reported, total.estimated, total.uncounted) == (1, 1, 1)


def test_a_summary_folds_by_any_keys_in_the_order_asked_for() -> None:
    totals = fill(
        Totals(),
        UsageRecord(model="a", provider="p", cost=Decimal(1), tags={"user": "x", "env": "prod"}),
        UsageRecord(model="a", provider="p", cost=Decimal(2), tags={"env": "prod", "user": "y"}),
        UsageRecord(model="b", provider="p", cost=Decimal(9), call="aembedding"),
    )
    assert groups(totals.summary(["model"])) == [("b",), ("a",)]
    assert [row.cost for row in totals.summary(["model"])] == [9, 3]
    assert groups(totals.summary(["tag:user", "model"])) == [(MISSING, "b"), ("y", "a"), ("x", "a")]
    assert groups(totals.summary(["provider", "status", "call"])) == [
        ("p", "ok", "aembedding"),
        ("p", "ok", MISSING),
    ]
    assert [row.calls for row in totals.summary(["tag:env"])] == [1, 2]
    assert [row.calls for row in totals.summary([])] == [3]
    assert totals.summary() == totals.summary([])


def test_the_order_of_tags_does_not_make_another_group() -> None:
    totals = fill(
        Totals(), UsageRecord(tags={"a": "1", "b": "2"}), UsageRecord(tags={"b": "2", "a": "1"})
    )
    assert [row.calls for row in totals.summary(["tag:a", "tag:b"])] == [2]


def test_too_many_tags_are_folded_and_that_is_said() -> None:
    totals = Totals(max_groups=10)
    for number in range(25):
        fill(totals, UsageRecord(model="m", cost=Decimal(1), tags={"request": str(number)}))
    by_tag = totals.summary(["tag:request"])
    assert totals.folded == 15
    assert by_tag[0].group == {"tag:request": OTHER}
    assert (by_tag[0].calls, len(by_tag)) == (15, 11)
    assert [(row.group["model"], row.cost) for row in totals.summary(["model"])] == [("m", 25)]


def test_too_many_models_are_folded_too_and_totals_stay_exact() -> None:
    totals = Totals(max_groups=10)
    for number in range(1_000):
        fill(totals, UsageRecord(model=f"m{number}", cost=Decimal(1)))
    rows = totals.summary(["model"])
    assert len(rows) == 10 + 1 + 1  # kept, one more whose tags alone were given up, (other)
    assert rows[0].group == {"model": OTHER}
    assert (totals.total().calls, totals.total().cost) == (1_000, 1_000)


def test_totals_by_given_keys_keep_only_those_but_any() -> None:
    day = datetime(2025, 1, 31, 23, 30, tzinfo=timezone(timedelta(hours=-2)))
    totals = Totals(["day", "tag:user", "day"])
    fill(totals, UsageRecord(ts=day, tags={"user": "a"}), UsageRecord())
    assert groups(totals.summary()) == [(MISSING, MISSING), ("2025-02-01", "a")]
    assert [row.calls for row in totals.summary(["day"])] == [1, 1]
    assert totals.total().calls == 2
    with pytest.raises(ValueError, match="not by 'model'"):
        totals.summary(["model"])


def test_given_keys_are_bounded_as_well() -> None:
    totals = Totals(["tag:request"], max_groups=3)
    for number in range(9):
        fill(totals, UsageRecord(tags={"request": str(number)}))
    assert groups(totals.summary())[0] == (OTHER,)
    assert (totals.folded, totals.total().calls) == (6, 9)


@pytest.mark.parametrize("key", ["tag:", ""])
def test_an_unknown_key_is_refused_with_the_list_of_those_there_are(key: str) -> None:
    with pytest.raises(ValueError, match=r"model, provider, .*, week, month or tag:NAME"):
        Totals().summary([key])
    with pytest.raises(ValueError, match="tag:NAME"):
        Totals([key])


def test_a_word_alone_is_the_tag_of_that_name() -> None:
    totals = fill(Totals(), UsageRecord(tags={"user": "a"}))
    assert totals.summary(["user"]) == totals.summary(["tag:user"])
    assert totals.summary(["user"])[0].group == {"tag:user": "a"}
    with pytest.raises(ValueError, match="did you mean model"):
        totals.summary(["modle"])


def test_a_text_instead_of_a_list_is_refused() -> None:
    with pytest.raises(ValueError, match=r"by=\['model'\]"):
        Totals().summary("model")


def test_running_totals_say_that_they_are_not_kept_by_day() -> None:
    totals = fill(Totals(), UsageRecord())
    with pytest.raises(ValueError, match="not kept by day"):
        totals.summary(["day"])


def test_a_key_of_a_record_without_it_is_none() -> None:
    empty = UsageRecord()
    for key in ("model", "provider", "call", "day", "tag:user"):
        assert key_of(key)(empty) == MISSING


def test_days_are_those_of_utc() -> None:
    early = datetime(2025, 3, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert key_of("day")(UsageRecord(ts=datetime(2025, 3, 1, tzinfo=UTC))) == "2025-03-01"
    assert key_of("day")(Line(id="", seq=1, kind="usage", ts=early)) == "2025-02-28"


COSTS = st.none() | st.decimals(0, 9_000_000, allow_nan=False, places=12)
RECORDS = st.lists(
    st.builds(
        UsageRecord,
        model=st.sampled_from(["a", "b", None]),
        status=st.sampled_from(["ok", "error", "abandoned"]),
        input_tokens=st.none() | st.integers(0, 2**53 - 1),
        cost=COSTS,
        tags=st.none() | st.dictionaries(st.sampled_from("xy"), st.sampled_from("12")),
    ),
    max_size=30,
)


@given(RECORDS, st.lists(st.sampled_from(["model", "status", "tag:x", "tag:y"]), unique=True))
def test_both_ways_to_group_agree_with_a_plain_computation(
    records: list[UsageRecord], by: list[str]
) -> None:
    kept = fill(Totals(), *records).summary(by)
    assert kept == fill(Totals(by), *records).summary()
    expected: dict[tuple[str, ...], tuple[int, int, Decimal]] = {}
    for record in records:
        key = tuple(key_of(name)(record) for name in by)
        calls, tokens, cost = expected.get(key, (0, 0, Decimal(0)))
        expected[key] = calls + 1, tokens + (record.input_tokens or 0), cost + (record.cost or 0)
    assert {
        tuple(row.group.values()): (row.calls, row.input_tokens, row.cost) for row in kept
    } == expected
    assert [row.cost for row in kept] == sorted((row.cost for row in kept), reverse=True)
