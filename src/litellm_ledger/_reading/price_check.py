"""``verify --prices``: every cost computed again, from the line and the price book alone.

Owns the comparison.  Never writes, never asks anybody else for a price.
"""

from __future__ import annotations

from decimal import Decimal, DecimalException
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from litellm_ledger._errors import InvalidRecord
from litellm_ledger._prices.computed import compute
from litellm_ledger._prices.entry import Entry
from litellm_ledger._prices.own import ModelPrice
from litellm_ledger._prices.price import Priced
from litellm_ledger._records.layout import entry_name, version_of_entry
from litellm_ledger._records.line import Line
from litellm_ledger._records.money import usd
from litellm_ledger._records.record import UsageRecord

from .lines import Problem, everything
from .listing import Snapshot
from .price_entries import PriceEntries

__all__ = ["Difference", "PriceCheck", "check_prices", "terms"]

_MOST: Final = 1_000
"""Differences that are listed; more are counted."""


class Difference(NamedTuple):
    """A cost that is not what its entry comes to.

    Attributes:
        id: of the record.
        recorded: US dollars.
        computed: US dollars; ``None``: what was used has no price in the entry.
        price_version: the entry.
    """

    id: str
    recorded: Decimal
    computed: Decimal | None
    price_version: str


class PriceCheck(msgspec.Struct):
    """What came of it.

    Attributes:
        computed: costs that were computed again.
        different: how many of them differ.
        differences: the first 1,000 of these.
        missing: costs whose entry should be in the book, and is not there or not believed.
        others: costs that no entry is of: of older versions, or LiteLLM's, the provider's or the
            user's own figure.
        unknown: outcomes without a cost.
        entries: entries of the book that are damaged, or not what their name says.
    """

    computed: int = 0
    different: int = 0
    differences: list[Difference] = []
    missing: int = 0
    others: int = 0
    unknown: int = 0
    entries: list[Problem] = []

    @property
    def ok(self) -> bool:
        """Whether no cost differs, and no entry is damaged."""
        return not (self.different or self.entries)


def check_prices(root: Path) -> PriceCheck:
    """Compute the cost of every outcome again.

    Raises:
        LedgerPathError: there is no ledger, or it cannot be read.
        UnsupportedFormat: it, or an entry, was written by a newer version.
    """
    found = PriceCheck()
    entries = PriceEntries(root)
    entries.check()
    for entry in everything(Snapshot.take(root), []):
        if entry.line.kind == "usage":
            _check(found, entries, entry.line)
    found.entries = entries.problems
    return found


def _check(found: PriceCheck, entries: PriceEntries, line: Line) -> None:
    recorded = line.saved_cost if line.cache_hit else line.cost
    version = line.price_version
    if recorded is None:
        found.unknown += 1
        return
    entry = None if version is None else entries.get(version)
    if entry is None or version is None:
        named = version is not None and version_of_entry(entry_name(version)) is not None
        found.missing += named
        found.others += not named
        return
    found.computed += 1
    cost = _cost(entry, line)
    if cost != usd(recorded) or (line.cache_hit and line.cost):
        found.different += 1
        if len(found.differences) < _MOST:
            found.differences.append(Difference(line.id, usd(recorded), cost, version))


def _cost(entry: Entry | ModelPrice, line: Line) -> Decimal | None:
    try:
        return compute(entry, _fields(line)).cost
    except (InvalidRecord, DecimalException):  # more than anything can have cost
        return None


def _fields(record: Line | UsageRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def terms(root: Path, record: UsageRecord) -> Priced | None:
    """Return the price of a record by the price book; ``None`` if its entry is not in there."""
    entry = PriceEntries(root).get(record.price_version) if record.price_version else None
    if entry is None:
        return None
    try:
        return compute(entry, _fields(record))
    except (InvalidRecord, DecimalException):
        return None
