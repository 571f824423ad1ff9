"""The user's own prices: exact, and unknown where they do not reach."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_ledger import ModelPrice
from litellm_ledger._records.prices import find_price, lacking_prices, price_of, price_table

QWEN = ModelPrice(input="0.20", output="0.60", per=1_000_000)


def used(**fields: Any) -> dict[str, Any]:
    return {"input_tokens": 0, "output_tokens": 0, **fields}


def test_tokens_are_priced_per_so_many() -> None:
    assert price_of(QWEN, used(input_tokens=3, output_tokens=5)) == Decimal("0.0000036")
    per_thousand = ModelPrice(input="0.0002", output="0.0006", per=1_000)
    assert price_of(per_thousand, used(input_tokens=3, output_tokens=5)) == Decimal("0.0000036")


def test_cached_tokens_have_their_own_price_or_that_of_the_input() -> None:
    fields = used(input_tokens=1_000, cache_read_tokens=600, cache_write_tokens=100)
    assert price_of(ModelPrice(input="1", output="1", per=1), fields) == 1_000
    own = ModelPrice(input="10", output="1", cache_read="1", cache_write="20", per=1)
    assert price_of(own, fields) == 300 * 10 + 600 + 100 * 20


def test_reasoning_has_its_own_price_or_that_of_the_output() -> None:
    fields = used(output_tokens=10, reasoning_tokens=4)
    assert price_of(ModelPrice(input="0", output="2", per=1), fields) == 20
    assert price_of(ModelPrice(input="0", output="2", reasoning="3", per=1), fields) == 24


def test_parts_beyond_the_whole_are_not_billed_twice() -> None:
    price = ModelPrice(input="10", output="0", cache_read="1", per=1)
    assert price_of(price, used(input_tokens=5, cache_read_tokens=9)) == 5


@pytest.mark.parametrize(
    ("price", "fields", "cost"),
    [
        (ModelPrice(image="0.04"), {"images": 3}, "0.12"),
        (ModelPrice(audio_second="0.0001"), {"audio_seconds": 2.5}, "0.00025"),
        (ModelPrice(character="15"), {"characters": 11}, "0.000165"),
        (ModelPrice(page="0.001"), {"pages": 4}, "0.004"),
        (ModelPrice(search_unit="0.002"), {"search_units": 1}, "0.002"),
        (ModelPrice(request="0.5"), {}, "0.5"),
        (ModelPrice(input="1", image="2", per=1), {"input_tokens": 3, "images": 1}, "5"),
    ],
)
def test_other_units(price: ModelPrice, fields: dict[str, Any], cost: str) -> None:
    assert price_of(price, fields) == Decimal(cost)


@pytest.mark.parametrize(
    ("price", "fields"),
    [
        (QWEN, {}),
        (QWEN, {"input_tokens": 3}),
        (QWEN, {"output_tokens": 3, "total_tokens": 9}),
        (ModelPrice(input="1"), used(input_tokens=1, output_tokens=1)),
        (ModelPrice(output="1"), used(input_tokens=1, output_tokens=1)),
        (ModelPrice(image="1"), {}),
        (ModelPrice(character="1"), {"input_tokens": 3}),
        (ModelPrice(input="1", image="1"), {"images": 3}),
    ],
)
def test_unknown_stays_unknown(price: ModelPrice, fields: dict[str, Any]) -> None:
    assert price_of(price, fields) is None


TOOLS = {"tools": {"web_searches": 2, "file_searches": 3, "containers": 1}}


def test_paid_tools_have_prices_of_their_own() -> None:
    fields = used(input_tokens=10, output_tokens=5, meta=TOOLS)
    price = ModelPrice(
        input="1", output="1", web_search="0.01", file_search="0.0025", container="0.03"
    )
    assert price_of(price, fields) == Decimal("0.000015") + Decimal("0.0575")
    assert lacking_prices(price, fields) == []
    assert price_of(price, used(input_tokens=10, output_tokens=5)) == Decimal("0.000015")


@pytest.mark.parametrize("name", ["web_search", "file_search", "container"])
def test_a_paid_tool_without_a_price_is_named_and_makes_the_cost_unknown(name: str) -> None:
    fields = used(input_tokens=10, output_tokens=5, meta=TOOLS)
    tools = {"web_search": "0", "file_search": "0", "container": "0"}
    del tools[name]
    price = ModelPrice(input="1", output="1", **tools)
    assert price_of(price, fields) is None
    assert lacking_prices(price, fields) == [name]


def test_a_price_of_the_whole_call_covers_its_tools() -> None:
    assert price_of(ModelPrice(request="0.5"), used(meta=TOOLS)) == Decimal("0.5")


def test_prices_of_tools_left_the_versions_of_other_prices_as_they_were() -> None:
    assert ModelPrice(input="0.20", output="0.60").version == "user-8b465a45"


def test_a_fraction_of_a_second_is_taken_as_it_prints() -> None:
    price = ModelPrice(audio_second="1000000")
    assert price_of(price, {"audio_seconds": 0.1}) == 100_000


def test_an_embedding_has_no_output_to_be_known() -> None:
    embedding = {"input_tokens": 4, "total_tokens": 4}
    assert price_of(QWEN, embedding) == Decimal("0.0000008")


def test_nothing_used_is_free() -> None:
    assert price_of(QWEN, used()) == 0


@pytest.mark.parametrize("bad", [0.2, True, b"1", [1]])
def test_a_float_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match="decimal text"):
        ModelPrice(input=bad)


@pytest.mark.parametrize("bad", ["-1", "nan", "inf", "x", "", "1e30", -1, Decimal("NaN")])
def test_what_is_no_price_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        ModelPrice(input=bad)


@pytest.mark.parametrize("per", [0, -1, 1.5, True, "1000"])
def test_per_is_a_whole_number(per: Any) -> None:
    with pytest.raises(ValueError, match="per must"):
        ModelPrice(input="1", per=per)


def test_a_price_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="what something costs"):
        ModelPrice()


def test_the_version_is_that_of_the_price_and_not_of_its_spelling() -> None:
    assert QWEN.version == ModelPrice(input="0.2", output=Decimal("0.600"), per=10**6).version
    others = {
        ModelPrice(input="0.21", output="0.60").version,
        ModelPrice(input="0.20", output="0.60", per=1_000).version,
        ModelPrice(input="0.20", cache_read="0.60").version,
        ModelPrice(output="0.20", input="0.60").version,
    }
    assert len(others) == 4
    assert QWEN.version not in others
    assert QWEN.version == "user-8b465a45"  # it stands in ledgers: never another for this price


def test_a_price_is_found_by_the_name_that_was_asked_for_first() -> None:
    one, two, three = (ModelPrice(request=n) for n in (1, 2, 3))
    table = price_table({"hosted_vllm/qwen3": one, "qwen3": two, "openai/gpt": three})
    assert find_price(table, "hosted_vllm/qwen3", "hosted_vllm") is one
    assert find_price(table, "qwen3", "hosted_vllm") is two
    assert find_price(table, "openai/qwen3", "openai") is two
    assert find_price(table, "gpt", "openai") is three
    assert find_price(table, "other/qwen3", "openai") is None
    assert find_price(table, "gpt", None) is None
    assert find_price(table, None, "openai") is None
    assert find_price({}, "gpt", "openai") is None


@pytest.mark.parametrize("bad", [{"m": "0.2"}, {"m": {"input": "0.2"}}, {1: QWEN}])
def test_a_table_of_anything_else_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match="ModelPrice"):
        price_table(bad)


amounts = st.decimals(0, 1000, allow_nan=False, places=9)
counts = st.integers(0, 10**7)


@given(amounts, amounts, amounts, counts, counts, counts, st.sampled_from([1, 7, 1000, 10**6]))
def test_the_price_is_exact_to_the_picodollar(
    a: Decimal, b: Decimal, c: Decimal, read: int, cached: int, written: int, per: int
) -> None:
    price = ModelPrice(input=a, output=b, cache_read=c, per=per)
    fields = used(input_tokens=read + cached, cache_read_tokens=cached, output_tokens=written)
    exact = (Fraction(a) * read + Fraction(c) * cached + Fraction(b) * written) / per
    cost = price_of(price, fields)
    if exact > 9 * 10**6:
        return
    assert cost is not None
    assert Fraction(cost) == Fraction(round(exact * 10**12), 10**12)
