"""A price computed from a record and an entry of the price book, whichever kind the entry is.

Owns the choice between the price map's computation and that of a user's price.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from .bill import Term
from .entry import Entry
from .own import ModelPrice, cost_of, lacking_prices, terms_of
from .price import Priced, price, total
from .quantities import conditions, used

__all__ = ["compute"]


def compute(
    entry: Entry | ModelPrice,
    fields: Mapping[str, Any],
    entries: Callable[[str], Entry | ModelPrice | None] = lambda _version: None,
) -> Priced:
    """Return the price of what a record says was used.

    Args:
        entry: the prices.
        fields: the fields of the record, under their own names.
        entries: gives the prices of other models that took part in the answer, by their version.

    Raises:
        InvalidRecord: more than a record can hold.
        decimal.DecimalException: an amount of more than 60 digits.
    """
    if isinstance(entry, Entry):
        parts = (fields.get("meta") or {}).get("parts")
        if isinstance(parts, list) and parts:
            return _by_parts(parts, fields, entry, entries)
        return price(used(fields), conditions(fields), entry)
    terms = terms_of(entry, fields)
    cost = cost_of(terms)
    missing = () if cost is not None else tuple(lacking_prices(entry, fields)) or ("usage",)
    return Priced(cost, tuple(terms or ()), missing, cost or Decimal(0))


def _by_parts(
    parts: list[Any],
    fields: Mapping[str, Any],
    main: Entry,
    entries: Callable[[str], Entry | ModelPrice | None],
) -> Priced:
    """The price of an answer that took several requests: each by its own model and context."""
    chose = conditions(fields)
    lines, missing = list[Term](), dict[str, None]()
    for part in parts:
        version = part.get("price_version") if isinstance(part, dict) else None
        entry = main if version == main.version else entries(str(version))
        if not (isinstance(part, dict) and isinstance(entry, Entry)):
            missing["price_version"] = None
            continue
        groups = {name: part.get(name) for name in ("tokens", "tools")}
        found = price(used({**part, "meta": groups}), chose, entry)
        lines += found.lines
        missing |= dict.fromkeys(found.missing)
    floor = total(line.amount for line in lines)
    return Priced(None if missing else floor, tuple(lines), tuple(missing), floor)
