"""``Budget``: its arguments, the scope of a call, and the name of its balances."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litellm_ledger import Budget, BudgetExceeded
from litellm_ledger._budgets.budget import check_budgets
from litellm_ledger._records.record import UsageRecord, clean_tags

texts = st.text(max_size=6)


@pytest.mark.parametrize(
    ("unit", "limit", "units"),
    [
        ("usd", "5.00", 5 * 10**12),
        ("usd", 5, 5 * 10**12),
        ("usd", Decimal("0.000000000001"), 1),
        ("usd", "0", 0),
        ("usd", "-0", 0),
        ("usd", "1e3", 10**15),
        ("tokens", 1_000_000, 1_000_000),
        ("tokens", "1000000", 1_000_000),
        ("calls", Decimal(3), 3),
    ],
)
def test_a_limit_is_a_whole_number_of_the_smallest_unit(unit: Any, limit: Any, units: int) -> None:
    with localcontext(prec=2):  # the user's own context changes nothing
        budget = Budget(limit, unit=unit)
    assert budget.limit_units == units
    assert type(budget.limit) is (Decimal if unit == "usd" else int)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"limit": 5.0}, TypeError, "a float has already lost digits"),
        ({"limit": True}, TypeError, "limit must be decimal text"),
        ({"limit": None}, TypeError, "limit must be decimal text"),
        ({"limit": "five"}, ValueError, "limit='five' is not decimal text"),
        ({"limit": "NaN"}, ValueError, "is not decimal text"),
        ({"limit": "sNaN"}, ValueError, "is not decimal text"),
        ({"limit": "inf"}, ValueError, "is not decimal text"),
        ({"limit": "-1"}, ValueError, "from 0 to 9 million"),
        ({"limit": "1e999999"}, ValueError, "limit="),
        ({"limit": "10000000"}, ValueError, "from 0 to 9 million"),
        ({"limit": "0.0000000000001"}, ValueError, "at most 12 digits"),
        ({"limit": "1.5", "unit": "tokens"}, ValueError, "a whole number of tokens"),
        ({"limit": 1.5, "unit": "calls"}, TypeError, "a whole number, not float"),
        ({"limit": 2**60, "unit": "calls"}, ValueError, r"2\*\*53 - 1 calls"),
        ({"unit": "eur"}, ValueError, "unit='eur' is unknown; use usd or tokens or calls"),
        ({"mode": "hard"}, ValueError, "strict or adaptive or soft"),
        ({"mode": ["strict"]}, ValueError, "strict or adaptive or soft"),
        ({"unbounded": True}, ValueError, "refuse or allow"),
        ({"window": "fortnight"}, ValueError, "unknown window 'fortnight'"),
        ({"tz": "local"}, ValueError, "give the name of a zone"),
        ({"per": "provider"}, ValueError, "for a tag of this name write tag:provider"),
        ({"per": "day"}, ValueError, "known before a call is sent"),
        ({"per": "modle"}, ValueError, "did you mean model"),
        ({"per": []}, ValueError, "names nothing"),
        ({"per": {"tag:user"}}, TypeError, "a list of them, not set"),
        ({"per": [3]}, TypeError, "not int"),
        ({"per": [f"tag:{n}" for n in range(9)]}, ValueError, "at most 8"),
        ({"where": "search"}, TypeError, "a mapping such as"),
        ({"where": {"feature": 3}}, TypeError, "feature takes text"),
        ({"where": {"feature": [3]}}, TypeError, "feature takes text"),
        ({"where": {"feature": b"x"}}, TypeError, "feature takes text"),
        ({"where": {"feature": []}}, ValueError, "no call would count"),
        ({"where": {"feature": "a", "tag:feature": "b"}}, ValueError, "names tag:feature twice"),
        ({"where": {"status": "ok"}}, ValueError, "write tag:status"),
        ({"warn": [0]}, ValueError, "is not a part of the limit"),
        ({"warn": 80}, ValueError, "0.8 is 80 %"),
        ({"warn": ["x"]}, ValueError, "is not a part of the limit"),
        ({"warn": [float("nan")]}, ValueError, "is not a part of the limit"),
        ({"warn": [None]}, TypeError, "warn must be parts"),
        ({"name": ""}, ValueError, "name=''"),
        ({"name": "a\x1b[2J"}, ValueError, "none of them invisible"),
        ({"name": 3}, TypeError, "name must be text"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_with_what_to_give(
    arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        Budget(**{"limit": "5.00", **arguments})


def test_a_budget_is_frozen_and_can_be_compared_copied_and_pickled() -> None:
    budget = Budget("5.00", per="user", where={"feature": ["b", "a"]}, warn=[0.8, "0.5"], tz="UTC")
    assert budget == Budget(
        5, per=["tag:user"], where={"tag:feature": {"a", "b"}}, warn=(Decimal("0.50"), 0.8)
    )
    assert hash(budget) == hash(replace(budget))
    assert replace(budget, limit="6.00").counts == budget.counts
    for twin in (copy.deepcopy(budget), pickle.loads(pickle.dumps(budget))):
        assert twin == budget
        assert twin.label == budget.label
    with pytest.raises(FrozenInstanceError):
        budget.limit = 3  # type: ignore[misc]
    assert "per=('tag:user',)" in repr(budget)


def test_warnings_are_rounded_up_and_ascend() -> None:
    budget = Budget(3, unit="calls", warn=[0.95, 0.5, 0.5])
    assert budget.warn == (Decimal("0.5"), Decimal("0.95"))
    assert budget.warn_units == (2, 3)
    assert Budget("9000000", warn=0.1).warn_units == (900_000 * 10**12,)


@pytest.mark.parametrize(
    ("per", "model", "tags", "scope"),
    [
        (None, "gpt-4o", {"user": "a"}, ""),
        ("tag:user", "gpt-4o", {"user": "alice"}, "user=alice"),
        ("user", "gpt-4o", {"user": "Zoë"}, "user=Zoë"),
        ("user", "gpt-4o", {"user": ""}, 'user=""'),
        ("user", "gpt-4o", {"user": "(none)"}, 'user="(none)"'),
        ("user", "gpt-4o", {}, "user=(none)"),
        ("user", "gpt-4o", None, "user=(none)"),
        ("model", "openai/gpt-4o", None, "model=openai/gpt-4o"),
        ("model", None, None, "model=(none)"),
        (["user", "model"], "m", {"user": "a model=m"}, 'model=m user="a model=m"'),
        ("tag:a b", "m", {"a b": "c"}, '"a b"=c'),
        ("user", "m", {"user": "\x1b[2J\u202e"}, 'user="\\u001b[2J\\u202e"'),
    ],
)
def test_a_scope_is_the_values_in_words(
    per: Any, model: str | None, tags: dict[str, str] | None, scope: str
) -> None:
    assert Budget(1, per=per).scope_of(model, tags) == scope


maybe = st.none() | texts


@settings(max_examples=50)
@given(one=st.tuples(maybe, maybe, maybe), other=st.tuples(maybe, maybe, maybe))
def test_two_calls_have_one_scope_only_if_all_their_values_are_the_same(
    one: tuple[str | None, ...], other: tuple[str | None, ...]
) -> None:
    budget = Budget(1, per=["b", "model", "a"])

    def scope(call: tuple[str | None, ...]) -> tuple[str | None, str | None]:
        tags = clean_tags({"a": call[1], "b": call[2]})
        record = UsageRecord(kind="started", model=call[0], tags=tags)
        found = budget.scope_of(record.model, record.tags)
        assert found == budget.scope_of(record.model, dict(reversed(tags.items())))
        assert found is not None
        assert found.isprintable()
        return found, json.dumps([record.model, record.tags.get("a"), record.tags.get("b")])

    first, second = scope(one), scope(other)
    assert (first[0] == second[0]) is (first[1] == second[1])


@pytest.mark.parametrize(
    ("where", "model", "tags", "counts"),
    [
        (None, None, None, True),
        ({"feature": "search"}, "m", {"feature": "search"}, True),
        ({"feature": "search"}, "m", {"feature": "chat"}, False),
        ({"feature": "search"}, "m", None, False),
        ({"feature": ["search", "chat"]}, "m", {"feature": "chat"}, True),
        ({"feature": "(none)"}, "m", {}, True),
        ({"feature": "(none)"}, "m", None, True),
        ({"model": "gpt-4o"}, "gpt-4o", None, True),
        ({"model": "gpt-4o"}, "openai/gpt-4o", None, True),
        ({"model": "openai/gpt-4o"}, "openai/gpt-4o", None, True),
        ({"model": "openai/gpt-4o"}, "azure/gpt-4o", None, False),
        ({"model": "gpt-4o"}, None, None, False),
        ({"model": "(none)"}, None, None, True),
        ({"model": "m", "feature": "search"}, "m", {"feature": "chat"}, False),
    ],
)
def test_a_budget_counts_the_calls_that_it_is_for(
    where: Any, model: str | None, tags: dict[str, str] | None, counts: bool
) -> None:
    assert (Budget(1, where=where).scope_of(model, tags) is not None) is counts


@pytest.mark.parametrize(
    ("arguments", "label"),
    [
        ({}, "usd month"),
        ({"tz": "utc"}, "usd month"),
        (
            {"window": "day", "tz": "Europe/Berlin", "per": "user"},
            "usd day Europe/Berlin per tag:user",
        ),
        ({"window": "30d", "tz": "Europe/Berlin"}, "usd 30d"),
        (
            {"unit": "calls", "where": {"feature": ["b", "a"], "model": "x y"}},
            'calls month where model="x y" tag:feature=a|b',
        ),
        ({"name": "mine"}, "mine"),
        ({"limit": "9", "mode": "soft", "warn": 0.5, "unbounded": "allow"}, "usd month"),
    ],
)
def test_a_name_is_made_of_what_is_counted(arguments: dict[str, Any], label: str) -> None:
    assert Budget(**{"limit": 5, **arguments}).label == label


@given(
    one=st.dictionaries(texts.filter(bool), st.lists(texts, min_size=1, max_size=3), max_size=3),
    other=st.dictionaries(texts.filter(bool), st.lists(texts, min_size=1, max_size=3), max_size=3),
)
def test_budgets_that_count_differently_have_different_names(
    one: dict[str, list[str]], other: dict[str, list[str]]
) -> None:
    def made(where: dict[str, list[str]]) -> Budget:
        return Budget(1, where={f"tag:{key}": values for key, values in where.items()})

    try:
        first, second = made(one), made(other)
    except ValueError:
        return  # two names that are one when they are cleaned
    same = first.where == second.where
    assert (first.label == second.label) is same
    assert (first.counts == second.counts) is same
    assert first.label.isprintable()


def test_what_is_counted_is_part_of_what_a_balance_is_kept_under() -> None:
    day = Budget(1, window="day", name="n")
    assert day.counts == Budget(2, window="day", name="n", mode="soft").counts
    others = [
        Budget(1, window="week", name="n"),
        Budget(1, window="day", tz="Europe/Berlin", name="n"),
        Budget(1, window="day", unit="calls", name="n"),
        Budget(1, window="day", per="user", name="n"),
        Budget(1, window="day", where={"user": "a"}, name="n"),
        Budget(1, window="day", name="o"),
    ]
    assert len({day.counts, *(budget.counts for budget in others)}) == 7


def test_a_client_has_each_name_once() -> None:
    assert check_budgets([Budget(1), Budget(1, window="day")])
    with pytest.raises(ValueError, match="two budgets are called 'usd month'"):
        check_budgets([Budget(1), Budget(2)])
    with pytest.raises(TypeError, match="a list of Budget, not Budget"):
        check_budgets(Budget(1))
    with pytest.raises(TypeError, match="one is a str"):
        check_budgets(["5.00"])


def test_a_refusal_is_plain_data() -> None:
    refused = BudgetExceeded(
        budget="usd day",
        scope="user=alice",
        unit="usd",
        limit=Decimal("5.00"),
        settled=Decimal("4.00"),
        held=Decimal("0.99"),
        needed=Decimal("1E-7"),
        resets_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert refused.passes
    assert refused.to_dict() == {
        "budget": "usd day",
        "scope": "user=alice",
        "unit": "usd",
        "limit": "5.00",
        "settled": "4.00",
        "held": "0.99",
        "needed": "0.0000001",
        "resets_at": "2026-01-01T00:00:00+00:00",
    }
    spent = BudgetExceeded(
        budget="b", scope="", unit="calls", limit=3, settled=3, held=0, needed=1, resets_at=None
    )
    assert not spent.passes
    assert spent.to_dict()["settled"] == 3
    assert spent.to_dict()["resets_at"] is None
