"""What is printed about prices: the terms of one cost, and the costs computed again.

Owns those words.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from litellm_ledger._aggregates.formatting import clean, counted, dollars

from .tables import Column, show, tell, write

if TYPE_CHECKING:
    from litellm_ledger._prices.price import Priced
    from litellm_ledger._reading.price_check import PriceCheck

__all__ = ["check_dict", "print_check", "print_terms", "terms_dict"]


def terms_dict(priced: Priced) -> dict[str, Any]:
    """Return a price as plain JSON values; amounts are exact decimal text."""
    return {
        "cost": None if priced.cost is None else dollars(priced.cost),
        "terms": [
            {
                "name": term.name,
                "quantity": str(term.quantity),
                "unit": term.unit,
                "price": _exact(term.price),
                "amount": _exact(term.amount),
            }
            for term in priced.lines
        ],
        "missing": list(priced.missing),
    }


def print_terms(priced: Priced) -> None:
    """Print the terms of a price: what was used, for how much, and what that comes to."""
    write("price, by the entry in the price book:")
    lines = priced.lines
    show(
        [
            Column("term", [clean(term.name) for term in lines], left=True),
            Column("quantity", [f"{term.quantity:,}" for term in lines]),
            Column("unit", [clean(term.unit) for term in lines], left=True),
            Column("USD per unit", [_exact(term.price) for term in lines]),
            Column("USD", [_exact(term.amount) for term in lines]),
        ]
    )
    for name in priced.missing:
        write(f"no price for {clean(name)}")


def _exact(amount: Decimal) -> str:
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def check_dict(found: PriceCheck) -> dict[str, Any]:
    """Return what was found as plain JSON values; amounts are exact decimal text."""
    import msgspec

    return {
        "ok": found.ok,
        "computed": found.computed,
        "different": found.different,
        "differences": [
            {
                "id": one.id,
                "recorded": dollars(one.recorded),
                "computed": None if one.computed is None else dollars(one.computed),
                "price_version": one.price_version,
            }
            for one in found.differences
        ],
        "missing": found.missing,
        "others": found.others,
        "unknown": found.unknown,
        "entries": msgspec.to_builtins(found.entries),
    }


def print_check(found: PriceCheck) -> None:
    """Print which costs differ, which could not be computed, and how it stands."""
    write()
    for problem in found.entries:
        tell(f"{problem.file}: {problem.what}: {clean(problem.detail, 4_096)}")
    if found.differences:
        listed = found.differences
        unknown = "no price"
        show(
            [
                Column("id", [clean(one.id) for one in listed], left=True, whole=True),
                Column("recorded", [dollars(one.recorded) for one in listed], whole=True),
                Column(
                    "computed",
                    [unknown if one.computed is None else dollars(one.computed) for one in listed],
                    whole=True,
                ),
                Column("price version", [clean(one.price_version) for one in listed], left=True),
            ]
        )
        if found.different > len(listed):
            tell(f"These are the first {len(listed):,} of {found.different:,}.")
    if found.missing:
        tell(
            f"{counted(found.missing, 'cost')} could not be computed: the entry is not in prices/, "
            "or not believed."
        )
    if found.others:
        tell(
            f"{counted(found.others, 'cost')} no entry is of: the provider's, LiteLLM's or the "
            "caller's figure, or of an older version."
        )
    if found.different:
        tell(f"{found.different:,} of {counted(found.computed, 'cost')} DIFFER from their price.")
    else:
        tell(f"{counted(found.computed, 'cost')} computed again: none differs from its price.")
