"""``verify --prices``: every cost computed again, from the line and the price book alone.

Owns the comparison.  Never writes, never asks anybody else for a price.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal, DecimalException
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from litellm_ledger._errors import InvalidRecord
from litellm_ledger._prices.computed import compute
from litellm_ledger._prices.entry import Entry
from litellm_ledger._prices.own import ModelPrice
from litellm_ledger._prices.price import Priced
from litellm_ledger._records.adjustment import Adjustment, group_of
from litellm_ledger._records.layout import entry_name, version_of_entry
from litellm_ledger._records.line import Line
from litellm_ledger._records.money import usd
from litellm_ledger._records.record import UsageRecord

from .adjustments import read_adjustments
from .lines import Problem, everything
from .listing import Snapshot
from .price_entries import PriceEntries

__all__ = ["Difference", "PriceCheck", "adjustments_of", "check_prices", "terms"]

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
        adjusted: adjustments that were checked likewise.
        wrong: those that are not what their record and their price come to: id, and why.
    """

    computed: int = 0
    different: int = 0
    differences: list[Difference] = []
    missing: int = 0
    others: int = 0
    unknown: int = 0
    entries: list[Problem] = []
    adjusted: int = 0
    wrong: list[tuple[str, str]] = []

    @property
    def ok(self) -> bool:
        """Whether no cost and no adjustment differs, and no entry is damaged."""
        return not (self.different or self.entries or self.wrong)


def check_prices(root: Path) -> PriceCheck:
    """Compute the cost of every outcome again.

    Raises:
        LedgerPathError: there is no ledger, or it cannot be read.
        UnsupportedFormat: it, or an entry, was written by a newer version.
    """
    found = PriceCheck()
    entries = PriceEntries(root)
    entries.check()
    ledger = Snapshot.take(root)
    made: dict[str, list[Adjustment]] = {}
    for one in read_adjustments(root, ledger.adjustments, []):
        made.setdefault(one.adjusts, []).append(one)
    for entry in everything(ledger, []):
        if entry.line.kind == "usage":
            _check(found, entries, entry.line)
            for_it = made.pop(entry.line.id, ()) if made else ()
            if for_it:
                _check_adjustments(found, entries, entry.line, for_it)
    for left in made.values():
        found.wrong += [(one.id, f"there is no outcome {one.adjusts}") for one in left]
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
    cost = _cost(entry, line, entries)
    if cost != usd(recorded) or (line.cache_hit and line.cost):
        found.different += 1
        if len(found.differences) < _MOST:
            found.differences.append(Difference(line.id, usd(recorded), cost, version))


def _check_adjustments(
    found: PriceCheck, entries: PriceEntries, line: Line, made: Sequence[Adjustment]
) -> None:
    """Check the adjustments of a record: each begins where the one before it ended."""
    before = line.cost
    group = group_of(line)
    for one in made:
        found.adjusted += 1
        why = None
        entry = None
        if one.new_price_version is not None:
            entry = entries.get(one.new_price_version)
        if one.old_cost != before:
            why = "its old cost is not what the outcome cost before it"
        elif any(getattr(one, name) != value for name, value in group.items()):
            why = "it is not of the outcome's model, time, tags …"
        elif (one.new_cost, one.new_price_version) == (line.cost, line.price_version):
            pass  # back to what was recorded
        elif entry is None:
            found.missing += 1
        elif _cost(entry, line, entries) != one.cost:
            why = f"its new cost is not the cost by {one.new_price_version}"
        if why is not None:
            found.wrong.append((one.id, why))
        before = one.new_cost


def _cost(entry: Entry | ModelPrice, line: Line, entries: PriceEntries) -> Decimal | None:
    try:
        return compute(entry, _fields(line), entries.get).cost
    except (InvalidRecord, DecimalException):  # more than anything can have cost
        return None


def _fields(record: Line | UsageRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def terms(root: Path, record: UsageRecord) -> Priced | None:
    """Return the price of a record by the price book; ``None`` if its entry is not in there."""
    entries = PriceEntries(root)
    entry = entries.get(record.price_version) if record.price_version else None
    if entry is None:
        return None
    try:
        return compute(entry, _fields(record), entries.get)
    except (InvalidRecord, DecimalException):
        return None


def adjustments_of(root: Path, ids: Collection[str | None]) -> list[Adjustment]:
    """Return the adjustments of some outcomes, in the order in which they hold."""
    ledger = Snapshot.take(root)
    made = read_adjustments(root, ledger.adjustments, []) if ledger.adjustments else []
    return [one for one in made if one.adjusts in ids]
