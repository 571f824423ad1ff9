"""``Sums``: the columns of a table of sums, which are told from all its rows before one is printed.

Owns which columns there are and how wide.  Keeps no row.
"""

from __future__ import annotations

from typing import Final

from litellm_ledger._aggregates.formatting import Amounts, duration
from litellm_ledger._aggregates.groups import Row
from litellm_ledger._aggregates.quantiles import MEASURED

from .tables import Column

__all__ = ["Sums"]

_COUNTS: Final = {
    "calls": ("calls", 9),
    "ok": ("ok", 5),
    "error": ("error", 7),
    "cancelled": ("cancelled", 6),
    "abandoned": ("abandoned", 6),
    "unsettled": ("unsettled", 7),
    "retries": ("retries", 4),
    "input_tokens": ("input", 8),
    "output_tokens": ("output", 8),
    "total_tokens": ("total tokens", 2),
    "cache_read_tokens": ("cached", 3),
    "reasoning_tokens": ("reasoning", 3),
    "estimated": ("estimated", 6),
    "unpriced": ("unpriced", 7),
}
"""The title of each count, and how willingly its column goes."""
_ALWAYS: Final = ("calls", "ok", "input_tokens", "output_tokens", "total_tokens")
"""Those that are shown; of the others only what is not 0 everywhere."""
_SPREADS: Final = {"latency_ms": ("latency", 9), "ttft_ms": ("first", 8)}
_PARTS: Final = ("p50", "p90", "p99")
_MONEY: Final = {"saved_cost": "saved", "wasted_cost": "wasted"}


class Sums:
    """Sees all rows of a table, and then says what its cells are."""

    def __init__(self, *, exact: bool) -> None:
        self._ends = dict.fromkeys(_COUNTS, (0, 0))
        self._spreads: dict[str, list[str]] = {}
        self._money = {name: Amounts(exact=exact) for name in _MONEY}
        self._costs = Amounts(exact=exact)
        self._marked = False

    def see(self, row: Row, mark: str) -> None:
        """Note a row; ``mark`` stands after its cost."""
        for name, (least, most) in self._ends.items():
            count = getattr(row, name)
            if not least <= count <= most:
                self._ends[name] = min(least, count), max(most, count)
        for name in MEASURED:
            if getattr(row, name) is not None:
                widest = self._spreads.setdefault(name, [""] * len(_PARTS))
                pairs = zip(widest, _spread(row, name), strict=True)
                self._spreads[name] = [max(pair, key=len) for pair in pairs]
        for name, amounts in self._money.items():
            amounts.see(getattr(row, name))
        self._costs.see(row.known_cost)
        self._marked = self._marked or bool(mark)

    @property
    def rounded(self) -> bool:
        """Whether amounts have digits beyond those that a terminal is shown."""
        return self._costs.rounds

    def columns(self) -> list[Column]:
        """Return the columns, of cells only the widest."""
        found = []
        for name, (title, keep) in _COUNTS.items():
            if self._is_shown(name):
                found.append(Column(title, [f"{end:,}" for end in self._ends[name]], keep))
        for name, (title, keep) in _SPREADS.items():
            for part, widest in zip(_PARTS, self._spreads.get(name, ()), strict=False):
                # It is there only because it was asked for.
                found.append(Column(f"{title} {part}", [widest], keep - (part == "p99")))
        for name, title in _MONEY.items():
            if self._money[name].any:
                found.append(Column(title, [self._money[name].widest()], 4))
        cost = self._costs.widest() + (" " if self._marked else "")
        return [*found, Column("cost", [cost])]

    def cells(self, row: Row, mark: str) -> list[str]:
        """Return the cells of a row."""
        found = [f"{getattr(row, name):,}" for name in _COUNTS if self._is_shown(name)]
        for name in _SPREADS:
            if name in self._spreads:
                found += _spread(row, name)
        for name, amounts in self._money.items():
            if amounts.any:
                value = getattr(row, name)
                found.append(amounts.text(value) if value else "-")
        return [*found, self._costs.text(row.known_cost) + ((mark or " ") if self._marked else "")]

    def _is_shown(self, name: str) -> bool:
        return name in _ALWAYS or self._ends[name] != (0, 0)


def _spread(row: Row, name: str) -> list[str]:
    found = getattr(row, name)
    return ["-" if found is None else duration(getattr(found, part)) for part in _PARTS]
