"""How figures are written for people: counts with their noun, amounts of money, text of records.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from litellm_ledger._records.escaping import escaped

__all__ = [
    "Amounts",
    "amounts",
    "clean",
    "counted",
    "dollars",
    "duration",
    "listed",
    "money",
    "percent",
]

_MAX_CELL: Final = 60
_PLACES: Final = 6
_SMALLEST: Final = Decimal(100).scaleb(-_PLACES)
"""The smallest amount of which three digits stay."""


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


def percent(part: Decimal) -> str:
    """Write a part of 1: ``95 %``."""
    return f"{(part * 100).normalize():f} %"


def duration(ms: float) -> str:
    """Write milliseconds; from ten seconds on, seconds."""
    return f"{ms / 1000:,.1f} s" if ms >= 10_000 else f"{ms:,.0f} ms"


def clean(text: str | None, longest: int = _MAX_CELL) -> str:
    """Make text from a record safe to print: no control characters, no endless cells."""
    if text is None:
        return "-"
    text = escaped(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


class Amounts:
    """Writes US dollars with the same number of decimals, so that the points line up.

    Exact, or rounded to ``_PLACES`` decimals where no amount is so small that this would show.  All
    amounts are seen first, and written then.
    """

    def __init__(self, *, exact: bool = True) -> None:
        self._exact = exact
        self._places = self._rounded_places = 2
        self._smallest: Decimal | None = None
        self._ends: list[Decimal | None] = []

    def see(self, cost: Decimal | None) -> None:
        """Note an amount that will be written."""
        ends = self._ends
        if cost is None:
            if None not in ends:
                ends.append(None)
            return
        known = [end for end in ends if end is not None]
        if not known or not min(known) <= cost <= max(known):
            self._ends = [min([cost, *known]), max([cost, *known]), *({None} & {*ends})]
        if cost:
            size = abs(cost)
            self._smallest = size if self._smallest is None else min(size, self._smallest)
            places = _decimals(cost)
            if places > self._rounded_places:
                self._places = max(self._places, places)
                places = places if places <= _PLACES else _decimals(_to_places(cost))
                self._rounded_places = max(self._rounded_places, places)

    @property
    def any(self) -> bool:
        """Whether an amount is known, and not 0."""
        return self._smallest is not None

    @property
    def rounds(self) -> bool:
        """Whether digits are left out, or would be if it need not be exact."""
        enough = self._smallest is None or self._smallest >= _SMALLEST
        return enough and self._places > _PLACES

    def text(self, cost: Decimal | None) -> str:
        """Write an amount."""
        if cost is None:
            return "unknown"
        places = self._places
        if self.rounds and not self._exact:
            cost, places = _to_places(cost), self._rounded_places
        return f"{'-' if cost < 0 else ''}${abs(cost):,.{places}f}"

    def widest(self) -> str:
        """Write the amount that takes most room."""
        return max((self.text(end) for end in self._ends), key=len, default="")


def amounts(costs: Sequence[Decimal | None], *, exact: bool = True) -> list[str]:
    """Write US dollars with the same number of decimals; see ``Amounts``."""
    written = Amounts(exact=exact)
    for cost in costs:
        written.see(cost)
    return [written.text(cost) for cost in costs]


def _to_places(cost: Decimal) -> Decimal:
    return cost.quantize(Decimal(1).scaleb(-_PLACES), ROUND_HALF_EVEN)


def _decimals(cost: Decimal) -> int:
    return len(_shortest(dollars(cost)).partition(".")[2])


def _shortest(text: str) -> str:
    return text.rstrip("0") if "." in text else text
