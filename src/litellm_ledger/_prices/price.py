"""The price of a call by one entry of the price map.

Owns ``price`` and the order in which its parts are asked: what is billed by units of its own, else
by tokens; then the fees beside either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from litellm_ledger._records.money import picousd, usd

from .bill import EXACT, Bill, Term
from .entry import Entry
from .fees import charge_fees
from .tokens import charge_tokens
from .units import charge_units

__all__ = ["Priced", "price", "total"]


class Priced(NamedTuple):
    """A price.

    Attributes:
        cost: US dollars, the sum of the amounts rounded half-even once to 10⁻¹²; ``None`` if
            anything is missing.
        lines: the terms.
        missing: what was used and the entry has no price for.
        floor: what the terms come to: the cost is not below it.
    """

    cost: Decimal | None
    lines: tuple[Term, ...]
    missing: tuple[str, ...]
    floor: Decimal


def price(used: Mapping[str, int | Decimal], conditions: Mapping[str, Any], entry: Entry) -> Priced:
    """Return the price of what was used.

    Args:
        used: ``quantities.used`` of the record.
        conditions: ``quantities.conditions`` of the record.
        entry: the prices.

    Raises:
        InvalidRecord: more than a record can hold.
        decimal.DecimalException: an amount of more than 60 digits.
    """
    bill = Bill(used, conditions, entry)
    if not charge_units(bill):
        charge_tokens(bill)
    charge_fees(bill)
    floor = total(term.amount for term in bill.terms)
    missing = tuple(bill.missing)
    return Priced(None if missing else floor, tuple(bill.terms), missing, floor)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """The sum of exact amounts, rounded half-even once to 10⁻¹²."""
    found = Decimal(0)
    for amount in amounts:
        found = EXACT.add(found, amount)
    return usd(picousd(found))
