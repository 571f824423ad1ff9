"""The price of a call by one entry of the price map: exact, term by term."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


TIERED = {
    "cache_read_input_token_cost": 1e-06,
    "cache_read_input_token_cost_above_200k_tokens": 2e-06,
    "cache_read_input_token_cost_priority": 2e-06,
    "input_cost_per_token": 1e-05,
    "input_cost_per_token_above_200k_tokens": 2e-05,
    "input_cost_per_token_above_200k_tokens_flex": 1e-05,
    "input_cost_per_token_flex": 5e-06,
    "input_cost_per_token_priority": 2e-05,
    "output_cost_per_token": 3e-05,
    "output_cost_per_token_above_200k_tokens": 4e-05,
    "output_cost_per_token_priority": 6e-05,
}


def costs(fields: dict[str, Any], entry: dict[str, Any], **chosen: Any) -> Decimal | None:
    """What it costs, if ``chosen`` chose the price; ``provider`` and ``ts`` are the record's."""
    own = {name: chosen.pop(name) for name in ("provider", "ts") if name in chosen}
    meta = {**fields.get("meta", {}), "price": chosen}
    return priced({**fields, **own, "meta": meta}, **entry).cost


CHAT: dict[str, Any] = {"input_tokens": 1_000, "cache_read_tokens": 200, "output_tokens": 100}


def test_the_whole_context_decides_the_price_of_every_token() -> None:
    long = {"cache_read_tokens": 2_000, "output_tokens": 800}
    # 198,000 x 1e-5 + 2,000 x 1e-6 + 800 x 3e-5
    assert costs({"input_tokens": 200_000, **long}, TIERED) == Decimal("2.006")
    # 198,001 x 2e-5 + 2,000 x 2e-6 + 800 x 4e-5
    assert costs({"input_tokens": 200_001, **long}, TIERED) == Decimal("3.99602")
    # xAI's price changes at the threshold: 198,000 x 2e-5 and the rest as above
    at = costs({"input_tokens": 200_000, **long}, TIERED, provider="xai")
    assert at == Decimal("3.996")


@pytest.mark.parametrize("tier", ["priority", "fast", "Priority"])
def test_a_service_tier_has_its_own_prices(tier: str) -> None:
    # 800 x 2e-5 + 200 x 2e-6 + 100 x 6e-5
    assert costs(CHAT, TIERED, service_tier=tier) == Decimal("0.0224")


def test_an_entry_without_any_price_for_a_tier_has_one_price_for_all() -> None:
    assert costs(CHAT, TIERED, service_tier="balanced") == costs(CHAT, TIERED)


def test_a_tier_and_a_threshold_that_are_listed_apart_give_no_price_for_both() -> None:
    fields = {"input_tokens": 200_001, "output_tokens": 1, "meta": {"price": {}}}
    fields["meta"]["price"]["service_tier"] = "priority"
    found = priced(fields, **TIERED)
    assert found.cost is None
    assert found.missing == (
        "input_cost_per_token_above_200k_tokens_priority",
        "output_cost_per_token_above_200k_tokens_priority",
    )
    listed = {"input_tokens": 200_001}
    assert costs(listed, TIERED, service_tier="flex") == Decimal("2.00001")  # 1e-5 each
    fields["meta"]["price"]["service_tier"] = "flex"
    assert priced(fields, **TIERED).missing == ("output_cost_per_token_above_200k_tokens_flex",)


def test_a_batch_costs_half_where_no_other_price_is_listed() -> None:
    # (800 x 1e-5 + 200 x 1e-6 + 100 x 3e-5) / 2
    assert costs(CHAT, TIERED, batch=True) == Decimal("0.0056")
    listed = {**TIERED, "input_cost_per_token_batches": 8e-06}
    assert costs(CHAT, listed, batch=True) is None  # four fifths: then the output is unknown
    listed["output_cost_per_token_batches"] = 2.4e-05
    # 800 x 8e-6 + 200 x 1e-6, as what is cached is not discounted twice, + 100 x 2.4e-5
    assert costs(CHAT, listed, batch=True) == Decimal("0.009")


def test_a_cache_write_is_priced_by_how_long_it_lasts() -> None:
    entry = {
        "cache_creation_input_token_cost": 1.25e-06,
        "cache_creation_input_token_cost_above_12hr": 3e-06,
        "cache_creation_input_token_cost_above_1hr": 2e-06,
        "input_cost_per_token": 1e-06,
    }
    parts = {"cache_write_30m": 50, "cache_write_1h": 200, "cache_write_12h": 100}
    fields = {"input_tokens": 1_000, "cache_write_tokens": 600, "meta": {"tokens": parts}}
    # 400 x 1e-6 + 300 x 1.25e-6 + 200 x 2e-6 + 100 x 3e-6
    assert costs(fields, entry) == Decimal("0.001475")
    del entry["cache_creation_input_token_cost_above_1hr"]
    missing = "cache_creation_input_token_cost_above_1hr"
    assert priced(fields, **entry).missing == (missing,)


def test_no_token_of_a_modality_is_billed_twice() -> None:
    entry = {
        "cache_read_input_audio_token_cost": 5e-06,
        "cache_read_input_token_cost": 1e-07,
        "input_cost_per_audio_token": 1e-05,
        "input_cost_per_token": 1e-06,
        "output_cost_per_reasoning_token": 5e-06,
        "output_cost_per_token": 2e-06,
    }
    fields: dict[str, Any] = {
        "input_tokens": 1_000,
        "cache_read_tokens": 300,
        "meta": {"tokens": {"audio_input": 100, "audio_cached": 40}},
    }
    # 260 x 1e-7 + 40 x 5e-6 + 60 x 1e-5 + 640 x 1e-6
    assert costs(fields, entry) == Decimal("0.001466")
    # 30 x 5e-6 + 70 x 2e-6
    assert costs({"output_tokens": 100, "reasoning_tokens": 30}, entry) == Decimal("0.00029")
    # counts that are larger than what they are a part of are cut to it
    fields["meta"]["tokens"]["audio_input"] = 10**9
    assert costs(fields, entry) == Decimal("0.007226")  # 26e-6 + 200e-6 + 700 x 1e-5
    assert costs({"output_tokens": 1, "reasoning_tokens": 9}, entry) == Decimal("0.000005")


def test_one_range_prices_the_whole_call() -> None:
    ranges = [
        {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06, "range": [0, 1_000.0]},
        {"input_cost_per_token": 3e-06, "output_cost_per_token": 4e-06, "range": [1_000.0, 2e3]},
    ]
    for count, cost in ((1_000, "0.0012"), (1_001, "0.003403"), (5_000, "0.0154")):
        fields = {"input_tokens": count, "output_tokens": 100}
        assert costs(fields, {"tiered_pricing": ranges}) == Decimal(cost), count


@pytest.mark.parametrize(
    ("at", "off"),
    [
        ("2026-01-02T16:29:59Z", False),
        ("2026-01-02T16:30:00Z", True),
        ("2026-01-03T00:29:59Z", True),
        ("2026-01-02T00:30:00Z", False),
        ("2026-01-02T04:00:00Z", True),
        ("2026-01-02T06:00:00Z", False),
        ("2026-01-03T12:00:00Z", True),  # a Saturday
        ("2026-01-03T01:31:00+01:00", True),  # still the evening's window in UTC
    ],
)
def test_the_hour_of_the_record_decides_an_off_peak_price(at: str, off: bool) -> None:
    hours = {
        "hours_utc": ["16:30-00:30", "04:00-06:00"],
        "input_cost_per_token": 5e-07,
        "windows": [{"hours_utc": ["00:00-00:00"], "weekdays": ["sat", 7]}],
    }
    entry = {"input_cost_per_token": 1e-06, "off_peak_pricing": hours}
    ts = datetime.fromisoformat(at)
    cost = Decimal("0.0005") if off else Decimal("0.001")
    assert costs({"input_tokens": 1_000}, entry, ts=ts) == cost
    assert costs({"input_tokens": 1_000}, entry, ts=ts, off_peak=True) == Decimal("0.0005")


def test_regions_and_speed_multiply_the_price_of_every_token() -> None:
    entry: dict[str, Any] = {
        "fedramp_uplift_multiplier": 1.3,
        "input_cost_per_token": 1e-06,
        "provider_specific_entry": {"fast": 2.0, "us": 1.1},
        "regional_endpoint_uplift_multiplier": 1.2,
        "regional_processing_uplift_multiplier_eu": 1.1,
    }
    fields = {"input_tokens": 1_000}
    for chosen, cost in (
        ({"data_residency": "eu"}, "0.0011"),
        ({"data_residency": "us"}, "0.001"),
        ({"data_residency": "fedramp"}, "0.0013"),
        ({"vertex_location": "us-east5"}, "0.0012"),
        ({"vertex_location": "global"}, "0.001"),
        ({"inference_geo": "us", "speed": "fast"}, "0.0022"),
    ):
        assert costs(fields, entry, **chosen) == Decimal(cost), chosen
    del entry["provider_specific_entry"]
    assert costs(fields, entry, speed="fast") is None


def test_cached_tokens_cost_half_at_fireworks_and_as_input_elsewhere_if_nothing_is_listed() -> None:
    entry = {"input_cost_per_token": 1e-06, "output_cost_per_token": 0.0}
    assert costs(CHAT, entry) == Decimal("0.001")
    assert costs(CHAT, {**entry, "litellm_provider": "fireworks_ai"}) == Decimal("0.0009")


def test_the_tokens_that_cohere_bills_stand_for_those_that_it_counts() -> None:
    meta = {"tokens": {"billed_input": 10, "billed_output": 5}}
    entry = {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}
    fields = {"input_tokens": 500, "output_tokens": 7, "meta": meta}
    assert costs(fields, entry) == Decimal("0.00002")


@given(
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.floats(1e-12, 1e-3),
    st.floats(1e-12, 1e-3),
)
def test_the_cost_is_the_sum_of_its_terms_rounded_once(
    given_: int, made: int, one: float, other: float
) -> None:
    entry = {"input_cost_per_token": one, "output_cost_per_token": other}
    found = priced({"input_tokens": given_, "output_tokens": made}, **entry)
    exact = Fraction(repr(one)) * given_ + Fraction(repr(other)) * made
    assert found.cost is not None
    assert int(found.cost.scaleb(12)) == round(exact * 10**12)
    assert all(term.amount == term.price * term.quantity for term in found.lines)
