"""Exact money: integers of picodollars on disk, ``Decimal`` US dollars in Python.

Owns the two conversions and nothing else.  One picodollar is 10⁻¹² USD: the smallest unit in which
the published per-token prices and their products with token counts are whole numbers, or are
rounded once, half to even.  Never a float that is summed.
"""

from __future__ import annotations

import decimal
from decimal import Decimal
from typing import Final

from litellm_ledger._errors import InvalidRecord

__all__ = ["FAR", "MAX_PICOUSD", "PICO", "from_litellm", "picousd", "usd", "whole"]

PICO: Final = 12
"""Decimal digits after the point: 1 USD is 10**12 picodollars."""

MAX_PICOUSD: Final = 2**63 - 1
"""About 9.2 million dollars for one record: what a signed 64-bit database column holds."""

FAR: Final = 3
"""A provider's cost is worth a look if it differs from the price map by this factor."""

_SMALL: Final = 8
"""US dollars: up to here a float times 10**12 is off by less than 2**-9; see ``from_litellm``."""

_FAR_FROM_HALF: Final = 0.49

_EXACT: Final = decimal.Context(
    prec=60,
    rounding=decimal.ROUND_HALF_EVEN,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)
"""Enough digits that scaling never rounds behind our back; the user's own context is not used."""


def picousd(cost: Decimal) -> int:
    """Convert US dollars to whole picodollars, rounded half-even once.

    Raises:
        InvalidRecord: NaN, infinite, or beyond ±9.2 million dollars.
    """
    try:
        pico = int(cost.scaleb(PICO, _EXACT).to_integral_value(context=_EXACT))
    except (decimal.DecimalException, ValueError, OverflowError):
        raise InvalidRecord(f"cost {cost!r} is not an amount of money") from None
    if not -MAX_PICOUSD <= pico <= MAX_PICOUSD:
        raise InvalidRecord(f"cost {cost!r} is beyond what a record can hold (±9.2 million USD)")
    return pico


def whole(cost: Decimal) -> int:
    """``picousd`` of an amount that is rounded already, as on every record: half the time."""
    return int(cost.scaleb(PICO, _EXACT))


def usd(pico: int) -> Decimal:
    """Convert picodollars to US dollars, exactly, in the shortest form."""
    return _EXACT.normalize(_EXACT.scaleb(Decimal(pico), -PICO))


def from_litellm(cost: float | None) -> Decimal | None:
    """Take LiteLLM's binary float as the decimal that it prints, rounded to a picodollar.

    ``repr`` of a float is the shortest decimal that reads back as the same float, which for prices
    times token counts is the amount that was meant (1,569 of 1,589 prices tried are exact).
    ``None``, NaN and infinities are unknown.
    """
    if cost is None or cost != cost or cost in (float("inf"), float("-inf")):
        return None
    # The product is off by less than a 500th of a picodollar, so away from a half it is rounded as
    # the decimal is, and that decimal's way through the memory is spared.
    if 0 <= cost < _SMALL:
        product = cost * 1e12
        pico = round(product)
        if -_FAR_FROM_HALF < product - pico < _FAR_FROM_HALF:
            return usd(pico)
    return usd(picousd(Decimal(repr(cost))))
