"""What ``doctor --prices`` prints: the prices that two sources do not agree on.

Owns those words.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from litellm_ledger._aggregates.formatting import clean

from .tables import Column, show, write

if TYPE_CHECKING:
    from litellm_ledger._reports.second_opinion import SecondOpinion

__all__ = ["opinion_dict", "print_opinion"]


def opinion_dict(found: SecondOpinion) -> dict[str, Any]:
    """Return what was found as plain JSON values; prices are decimal text."""
    return {
        "genai_prices": found.version,
        "compared": found.compared,
        "differences": [
            {
                "model": one.model,
                "provider": one.provider,
                "price": one.price,
                "recorded": None if one.recorded is None else _plain(one.recorded),
                "other": _plain(one.other),
                "day": one.day.isoformat(),
                "price_version": one.price_version,
            }
            for one in found.differences
        ],
        "unknown": found.unknown,
    }


def print_opinion(found: SecondOpinion, *, color: bool) -> None:
    """Print a row for each price that differs."""
    rows = found.differences
    if not rows:
        return
    write("Prices in US dollars per million tokens, on the day of the newest call:")
    show(
        [
            Column("model", [clean(row.model) for row in rows], left=True),
            Column("provider", [clean(row.provider) for row in rows], 3, left=True),
            Column("price", [row.price for row in rows], left=True),
            Column(
                "recorded",
                ["none" if row.recorded is None else _plain(row.recorded) for row in rows],
            ),
            Column("genai-prices", [_plain(row.other) for row in rows]),
            Column("day", [row.day.isoformat() for row in rows], 5, left=True),
        ],
        color=color,
    )
    write()


def _plain(price: Decimal) -> str:
    text = f"{price:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
