"""Money is exact: integers of picodollars, decimals of US dollars, nothing in between."""

from __future__ import annotations

import decimal
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from litellm_ledger._errors import InvalidRecord
from litellm_ledger._records.money import MAX_PICOUSD, from_litellm, picousd, usd, whole

_NEAR = st.floats(-0.1, 0.1)


@pytest.mark.parametrize(
    ("dollars", "pico"),
    [
        ("0", 0),
        ("-0", 0),
        ("0.0000045", 4_500_000),
        ("1E-12", 1),
        ("9007.199254740993", 9_007_199_254_740_993),
        ("-1.5", -1_500_000_000_000),
        ("9223372.036854775807", MAX_PICOUSD),
        ("-9223372.036854775807", -MAX_PICOUSD),
    ],
)
def test_whole_picodollars_go_through_unchanged(dollars: str, pico: int) -> None:
    assert picousd(Decimal(dollars)) == pico
    assert usd(pico) == Decimal(dollars)


@pytest.mark.parametrize(
    ("dollars", "pico"),
    [("0.5E-12", 0), ("1.5E-12", 2), ("2.5E-12", 2), ("-0.5E-12", 0), ("0.50000001E-12", 1)],
)
def test_less_than_a_picodollar_is_rounded_half_to_even(dollars: str, pico: int) -> None:
    assert picousd(Decimal(dollars)) == pico


def test_a_long_number_is_rounded_once_not_twice() -> None:
    assert picousd(Decimal("0.4999999999999999999999999999999999999999E-12")) == 0
    assert picousd(Decimal("2.5" + "0" * 30 + "1E-12")) == 3


def test_the_callers_decimal_context_changes_nothing() -> None:
    with decimal.localcontext(decimal.Context(prec=3, rounding=decimal.ROUND_UP)):
        assert picousd(Decimal("1234.567890123456")) == 1_234_567_890_123_456
        assert str(usd(1_234_567_890_123_456)) == "1234.567890123456"


@pytest.mark.parametrize(
    "amount", ["NaN", "sNaN", "Infinity", "-Infinity", "9223372.036854775808", "1E+500", "-1E+7"]
)
def test_what_is_no_amount_of_money_is_refused(amount: str) -> None:
    with pytest.raises(InvalidRecord, match="cost"):
        picousd(Decimal(amount))


@given(st.integers(-MAX_PICOUSD, MAX_PICOUSD))
def test_every_amount_survives_the_way_there_and_back(pico: int) -> None:
    assert picousd(usd(pico)) == pico
    assert whole(usd(pico)) == pico
    assert picousd(Decimal(str(usd(pico)))) == pico


@given(st.lists(st.integers(0, 10**16), max_size=30))
def test_sums_are_exact(amounts: list[int]) -> None:
    assert sum(map(usd, amounts), Decimal(0)) == usd(sum(amounts))


@pytest.mark.parametrize(
    ("cost", "pico"), [(6.5e-12, 6), (7.5e-12, 8), (9.5e-12, 10), (1.25e-11, 12)]
)
def test_half_a_picodollar_is_rounded_as_printed_not_as_stored_in_binary(
    cost: float, pico: int
) -> None:
    assert picousd(Decimal(cost)) != pico  # the binary value lies on the other side
    assert from_litellm(cost) == usd(pico)


@pytest.mark.parametrize(
    ("cost", "expected"),
    [(0.1, "0.1"), (3.0720000000000004e-04, "0.0003072"), (0.0, "0"), (1e-13, "0"), (2.5, "2.5")],
)
def test_a_float_of_litellm_is_taken_as_it_prints(cost: float, expected: str) -> None:
    assert from_litellm(cost) == Decimal(expected)


@pytest.mark.parametrize("cost", [None, float("nan"), float("inf"), float("-inf")])
def test_no_cost_and_no_number_are_unknown(cost: float | None) -> None:
    assert from_litellm(cost) is None


@given(
    st.floats(0, 20)
    | st.floats(0, 1e-6)
    | st.builds(lambda half, at: (2 * half + 1 + at) * 5e-13, st.integers(0, 10**13), _NEAR)
    | st.builds(lambda price, tokens: price * tokens, st.floats(0, 1e-3), st.integers(0, 10**6))
)
@example(6.5e-12)
@example(8.0)
@example(7.9999999999995)
def test_litellms_figure_is_rounded_as_the_decimal_that_it_prints(cost: float) -> None:
    """Also near a half of a picodollar, where the product of floats may lie on the other side."""
    found = from_litellm(cost)
    exact = usd(picousd(Decimal(repr(cost))))
    assert (found, str(found)) == (exact, str(exact))
