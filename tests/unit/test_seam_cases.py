"""What belongs on record of the self-check's calls, and how a record is compared with it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from litellm_ledger import UsageRecord
from litellm_ledger._litellm.calls import CALLS
from litellm_ledger._selfcheck.cases import FREE, KINDS, SOME, UNCHECKED, cost_of, mismatches

CHAT = KINDS[0]
RIGHT: dict[str, Any] = {"status": "ok", "input_tokens": 3, "cost": Decimal("0.00000345")}


def record(kind: str = "usage", **fields: Any) -> UsageRecord:
    return UsageRecord(kind=kind, **{"call": "acompletion", **(fields or RIGHT)})


def compared(
    expected: dict[str, Any], *records: UsageRecord, starts: int | None = None
) -> list[tuple[str, str, str]]:
    return [(m.what, m.expected, m.found) for m in mismatches(expected, records, starts)]


def test_every_call_of_the_table_is_checked() -> None:
    assert {kind.name for kind in KINDS} == CALLS.keys() - UNCHECKED


def test_the_right_record_once_is_right() -> None:
    assert compared(RIGHT, record("started", call_id="a"), record(), starts=1) == []


@pytest.mark.parametrize("times", [0, 2])
def test_a_record_that_is_missing_or_doubled_is_named(times: int) -> None:
    assert compared(RIGHT, *[record()] * times) == [("records", "1", str(times))]


def test_a_call_without_its_started_record_is_named() -> None:
    assert compared(RIGHT, record(), starts=1) == [("started records", "1", "0")]
    both = record("started", call_id="a"), record()
    assert compared(RIGHT, *both, starts=0) == [("started records", "0", "1")]


@pytest.mark.parametrize(
    ("field", "found", "said"),
    [
        ("cost", Decimal("0.0000069"), ("cost", "0.00000345", "0.0000069")),
        ("cost", None, ("cost", "0.00000345", "none")),
        ("input_tokens", 4, ("input_tokens", "3", "4")),
        ("status", "error", ("status", "ok", "error")),
    ],
)
def test_a_wrong_figure_is_named_with_the_right_one(
    field: str, found: Any, said: tuple[str, str, str]
) -> None:
    assert compared(RIGHT, record(**RIGHT | {field: found})) == [said]


def test_an_estimate_must_be_there_and_a_refusal_must_cost_nothing() -> None:
    guess, free = {"output_tokens": SOME}, {"cost": FREE}
    assert compared(guess, record(status="error", output_tokens=1)) == []
    for missing in (0, None):
        found = record(status="error", output_tokens=missing)
        assert [what for what, *_ in compared(guess, found)] == ["output_tokens"]
    for nothing in (Decimal(0), None):
        assert compared(free, record(status="error", cost=nothing)) == []
    assert compared(free, record(status="error", cost=Decimal(1))) == [("cost", FREE, "1")]


def test_the_cost_is_that_of_the_installed_price_map() -> None:
    prices = {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07}
    assert cost_of(CHAT, {"gpt-4o-mini": prices}) == Decimal("0.00000345")
    assert cost_of(CHAT, {"gpt-4o-mini": {"input_cost_per_token": 1.5e-07}}) is None
    assert cost_of(CHAT, {}) is None
