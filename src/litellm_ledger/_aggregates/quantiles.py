"""``Spread``: latencies and times to first token by group, for their quantiles.

Owns the definition: only ``ok`` outcomes are measured, a quantile is by nearest rank (the
⌈q·n⌉-th smallest), so it is always a value that was seen.  Keeps eight bytes for each.  Pure.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from math import ceil
from typing import Final

from litellm_ledger._records.record import Fields

from .calendar import Calendar
from .groups import Quantiles, check_by, key_of

__all__ = ["MEASURED", "QUANTILES", "Spread"]

MEASURED: Final = ("latency_ms", "ttft_ms")
QUANTILES: Final = (0.5, 0.9, 0.99)


class Spread:
    """What was measured, for each group and over everything."""

    __slots__ = ("_by", "_values")

    def __init__(self, by: Sequence[str], calendar: Calendar) -> None:
        self._by: list[Callable[[Fields], str]] = [key_of(n, calendar) for n in check_by(by)]
        self._values: dict[tuple[tuple[str, ...] | None, str], array[float]] = {}

    def add(self, record: Fields) -> None:
        """Add one outcome."""
        if record.status != "ok":
            return
        group = tuple([of(record) for of in self._by])
        for name in MEASURED:
            value = getattr(record, name)
            if value is not None:
                for key in (group, None):
                    self._values.setdefault((key, name), array("d")).append(value)

    def quantiles(self, group: tuple[str, ...] | None, name: str) -> Quantiles | None:
        """Return those of a group, of everything for ``None``; ``None`` if none said it."""
        values = sorted(self._values.get((group, name), ()))
        if not values:
            return None
        p50, p90, p99 = (values[ceil(q * len(values)) - 1] for q in QUANTILES)
        return Quantiles(count=len(values), p50=p50, p90=p90, p99=p99, max=values[-1])
