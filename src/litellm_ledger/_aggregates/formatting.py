"""How figures are written for people: counts with their noun, amounts of money, text of records.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from litellm_ledger._records.escaping import escaped

__all__ = ["amounts", "clean", "counted", "dollars", "duration", "listed", "money", "rounded"]

_MAX_CELL: Final = 60
_PLACES: Final = 6


def counted(count: int, noun: str, plural: str = "") -> str:
    """Write a count with its noun, in the plural unless it is 1."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def listed(names: Sequence[str], most: int) -> str:
    """Write the first names, and an ellipsis if there are more."""
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")


def dollars(cost: Decimal) -> str:
    """Write an exact amount without an exponent: ``0.0000045``."""
    return format(cost, "f")


def money(cost: Decimal) -> str:
    """Write an exact amount of US dollars, with cents at least."""
    text = dollars(abs(cost))
    places = max(2, len(text.partition(".")[2].rstrip("0")))
    return f"{'-' if cost < 0 else ''}${abs(cost):,.{places}f}"


def duration(ms: float) -> str:
    """Write milliseconds; from ten seconds on, seconds."""
    return f"{ms / 1000:,.1f} s" if ms >= 10_000 else f"{ms:,.0f} ms"


def clean(text: str | None, longest: int = _MAX_CELL) -> str:
    """Make text from a record safe to print: no control characters, no endless cells."""
    if text is None:
        return "-"
    text = escaped(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def amounts(costs: Sequence[Decimal | None], *, exact: bool = True) -> list[str]:
    """Write US dollars with the same number of decimals, so that the points line up.

    Exact, or rounded to ``_PLACES`` decimals where no amount is so small that this would show.
    """
    known = [cost for cost in costs if cost is not None]
    smallest = min((abs(cost) for cost in known if cost), default=Decimal(1))
    if not exact and smallest >= Decimal(100).scaleb(-_PLACES):  # three digits of it stay
        unit = Decimal(1).scaleb(-_PLACES)
        costs = [None if cost is None else cost.quantize(unit, ROUND_HALF_EVEN) for cost in costs]
    texts = [None if cost is None else _shortest(dollars(cost)) for cost in costs]
    places = max([2, *(len(text.partition(".")[2]) for text in texts if text)])
    return [
        "unknown"
        if cost is None
        else f"${cost:,.{places}f}"
        if cost >= 0
        else f"-${-cost:,.{places}f}"
        for cost in costs
    ]


def rounded(costs: Sequence[Decimal | None]) -> bool:
    """Tell whether ``amounts`` leaves digits out when it need not be exact."""
    return amounts(costs) != amounts(costs, exact=False)


def _shortest(text: str) -> str:
    return text.rstrip("0") if "." in text else text
