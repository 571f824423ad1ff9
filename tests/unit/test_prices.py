"""The price of a call by one entry of the price map: exact, term by term."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from litellm_ledger._prices.entry import Entry
from litellm_ledger._prices.price import Priced, price
from litellm_ledger._prices.quantities import conditions, used

PLAIN = {
    "input_cost_per_token": 1.5e-07,
    "litellm_provider": "openai",
    "max_tokens": 16_384,
    "mode": "chat",
    "output_cost_per_token": 6e-07,
}


def priced(fields: dict[str, Any], **entry: Any) -> Priced:
    return price(used(fields), conditions(fields), Entry("m", entry))


def test_input_and_output_are_priced_term_by_term() -> None:
    found = priced({"input_tokens": 1_000, "output_tokens": 7}, **PLAIN)
    assert found.cost == Decimal("0.0001542")  # 1000 * 0.15 + 7 * 0.60 for a million
    assert [(term.name, term.quantity, term.unit) for term in found.lines] == [
        ("input_cost_per_token", 1_000, "token"),
        ("output_cost_per_token", 7, "token"),
    ]
    assert sum(term.amount for term in found.lines) == found.cost


def test_a_price_that_is_missing_makes_the_cost_unknown_and_leaves_a_floor() -> None:
    found = priced({"input_tokens": 1_000, "output_tokens": 7}, input_cost_per_token=1.5e-07)
    assert (found.cost, found.missing) == (None, ("output_cost_per_token",))
    assert found.floor == Decimal("0.00015")


def test_an_entry_is_named_by_the_hash_of_what_matters_in_it() -> None:
    entry = Entry("m", PLAIN)
    assert entry.text == (
        '{"entry":{"input_cost_per_token":1.5e-07,"litellm_provider":"openai","mode":"chat",'
        '"output_cost_per_token":6e-07},"key":"m"}'
    )
    assert entry.version == "map-a226d4c5eb4560387bfe968e"
    assert entry.version == Entry("m", dict(reversed(PLAIN.items()))).version
    assert entry.version == Entry("m", {**PLAIN, "max_tokens": 1}).version
    assert entry.version != Entry("m", {**PLAIN, "output_cost_per_token": 7e-07}).version
    assert entry.version != Entry("n", PLAIN).version
    assert entry.price("input_cost_per_token") == Decimal("1.5E-7")


def test_nothing_in_a_foreign_line_is_taken_for_a_quantity() -> None:
    meta: Any = {
        "tokens": {"input_tokens": 9, "audio_input": -1, "image_input": True, "video_input": "7"},
        "tools": ["web_searches"],
        "units": {"queries": 2, "video_seconds": 1.5, "credits": float("inf")},
    }
    assert used({"output_tokens": 0, "meta": meta}) == {
        "queries": 2,
        "video_seconds": Decimal("1.5"),
    }
