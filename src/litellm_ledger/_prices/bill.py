"""The bill of one call while it is made: its terms, and what has no price.

Owns ``Term``, ``Bill`` and the exact arithmetic.  A term is a quantity at the price of one member
of the entry; no term is rounded, and an amount that 60 digits cannot hold is an error.
"""

from __future__ import annotations

import decimal
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from .entry import Entry

__all__ = ["EXACT", "Bill", "Term"]

EXACT: Final = decimal.Context(
    prec=60,
    rounding=decimal.ROUND_HALF_EVEN,
    traps=[
        decimal.DivisionByZero,
        decimal.Inexact,
        decimal.InvalidOperation,
        decimal.Overflow,
    ],
)


class Term(NamedTuple):
    """One term of a price.

    Attributes:
        name: the member of the entry that gave the price.
        quantity: how much was used, in ``unit``.
        unit: of the quantity: ``token``, ``image``, ``second``, ``search``…
        price: US dollars for one unit, with every multiplier in it.
        amount: US dollars: ``quantity * price``, exact.
    """

    name: str
    quantity: int | Decimal
    unit: str
    price: Decimal
    amount: Decimal


class Bill:
    """What one call used, by which conditions and entry, and the terms so far.

    Attributes:
        used: ``quantities.used`` of the record.
        conditions: ``quantities.conditions`` of the record.
        entry: the prices.
        terms: what was priced.
        missing: names of members that the entry lacks, or quantities that nothing prices.
    """

    __slots__ = ("conditions", "entry", "missing", "terms", "used")

    def __init__(
        self, used: Mapping[str, int | Decimal], conditions: Mapping[str, Any], entry: Entry
    ) -> None:
        self.used = used
        self.conditions = conditions
        self.entry = entry
        self.terms: list[Term] = []
        self.missing: list[str] = []

    def charge(
        self,
        name: str,
        quantity: int | Decimal,
        unit: str = "token",
        *,
        price: Decimal | None = None,
        multiplier: Decimal | None = None,
    ) -> None:
        """Add a term, by the entry's member ``name`` (or ``price``, if it is derived from that).

        A quantity of 0 adds nothing.  A member that is missing is put down as such.
        """
        if not quantity:
            return
        if price is None:
            price = self.entry.price(name)
        if price is None:
            self.lack(name)
            return
        if multiplier is not None:
            price = EXACT.multiply(price, multiplier)
        amount = EXACT.multiply(price, Decimal(quantity))
        self.terms.append(Term(name, quantity, unit, price, amount))

    def lack(self, name: str) -> None:
        """Put down a member that the entry should have for what was used."""
        if name not in self.missing:
            self.missing.append(name)
