"""A price computed from a record and an entry of the price book, whichever kind the entry is.

Owns the choice between the price map's computation and that of a user's price.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from .entry import Entry
from .own import ModelPrice, cost_of, lacking_prices, terms_of
from .price import Priced, price
from .quantities import conditions, used

__all__ = ["compute"]


def compute(entry: Entry | ModelPrice, fields: Mapping[str, Any]) -> Priced:
    """Return the price of what a record says was used.

    Args:
        entry: the prices.
        fields: the fields of the record, under their own names.

    Raises:
        InvalidRecord: more than a record can hold.
        decimal.DecimalException: an amount of more than 60 digits.
    """
    if isinstance(entry, Entry):
        return price(used(fields), conditions(fields), entry)
    terms = terms_of(entry, fields)
    cost = cost_of(terms)
    missing = () if cost is not None else tuple(lacking_prices(entry, fields)) or ("usage",)
    return Priced(cost, tuple(terms or ()), missing, cost or Decimal(0))
