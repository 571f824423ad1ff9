"""``Sums``: the columns of a table of sums, which are told from all its rows before one is printed.

Owns which columns there are and how wide.  Keeps no row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from litellm_ledger._aggregates.formatting import Amounts, duration
from litellm_ledger._aggregates.groups import Row
from litellm_ledger._aggregates.quantiles import MEASURED

from .tables import Column

__all__ = ["Sums", "columns_of", "split_columns"]

_COUNTS: Final = {
    "calls": ("calls", 9),
    "ok": ("ok", 5),
    "error": ("error", 7),
    "cancelled": ("cancelled", 6),
    "abandoned": ("abandoned", 6),
    "unsettled": ("unsettled", 7),
    "refused": ("refused", 7),
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

    def __init__(self, *, exact: bool, only: tuple[str, ...] | None = None) -> None:
        self._only = only
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
        for name in self._names():
            if name in _COUNTS:
                title, keep = _COUNTS[name]
                keep = keep if self._only is None else 9  # it was asked for
                found.append(Column(title, [f"{end:,}" for end in self._ends[name]], keep))
            elif name in _SPREADS:
                title, keep = _SPREADS[name]
                for part, widest in zip(_PARTS, self._spreads[name], strict=True):
                    # It is there only because it was asked for.
                    found.append(Column(f"{title} {part}", [widest], keep - (part == "p99")))
            elif name in _MONEY:
                found.append(Column(_MONEY[name], [self._money[name].widest()], 4))
            else:
                cost = self._costs.widest() + (" " if self._marked else "")
                found.append(Column("cost", [cost]))
        return found

    def cells(self, row: Row, mark: str) -> list[str]:
        """Return the cells of a row."""
        found = []
        for name in self._names():
            if name in _COUNTS:
                found.append(f"{getattr(row, name):,}")
            elif name in _SPREADS:
                found += _spread(row, name)
            elif name in _MONEY:
                value = getattr(row, name)
                found.append(self._money[name].text(value) if value else "-")
            else:
                cost = self._costs.text(row.known_cost)
                found.append(cost + ((mark or " ") if self._marked else ""))
        return found

    def _names(self) -> list[str]:
        """Return the columns in order: those asked for, else those with something in them."""
        spreads = [name for name in _SPREADS if name in self._spreads]
        if self._only is not None:
            return [*self._only, *spreads]
        counts = [name for name in _COUNTS if name in _ALWAYS or self._ends[name] != (0, 0)]
        return [*counts, *spreads, *[n for n in _MONEY if self._money[n].any], "cost"]


_NAMES: Final = {
    **{title: name for name, (title, _) in _COUNTS.items()},
    **{title: name for name, title in _MONEY.items()},
    "tokens": "total_tokens",
    **{name: name for name in (*_COUNTS, *_MONEY, "cost")},
}
"""What a column may be called: its title, or the member of a row."""


def split_columns(text: str) -> tuple[str, ...]:
    """Read the names of columns, comma-separated; see ``columns_of``."""
    return columns_of(
        [word.strip() for word in text.split(",") if word.strip()], flag="--columns: "
    )


def columns_of(names: Sequence[str], *, flag: str = "") -> tuple[str, ...]:
    """Return the columns that are meant.

    Raises:
        ValueError: there is no such column, or none is given; the text lists them.
    """
    unknown = [name for name in names if name not in _NAMES]
    if unknown or not names:
        what = f"no column {unknown[0]!r}" if unknown else "no column is given"
        raise ValueError(f"{flag}{what}; there are {', '.join(_NAMES)}")
    return tuple(dict.fromkeys(_NAMES[name] for name in names))


def _spread(row: Row, name: str) -> list[str]:
    found = getattr(row, name)
    return ["-" if found is None else duration(getattr(found, part)) for part in _PARTS]
