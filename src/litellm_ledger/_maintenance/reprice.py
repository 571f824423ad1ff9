"""``reprice``: what records would cost by other prices, and the adjustments that say so.

Owns which records may be priced again: those whose cost came from a price, or is unknown though
what was used is known.  What a provider billed, or somebody else's figure, stays.  Never changes a
line: it adds segments of adjustments, each of which is there whole or not at all.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal, DecimalException
from pathlib import Path
from typing import Any, NamedTuple

from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._errors import InvalidRecord
from litellm_ledger._prices.computed import compute
from litellm_ledger._prices.entry import Entry
from litellm_ledger._prices.own import AMOUNTS, ModelPrice
from litellm_ledger._prices.price_list import PriceList
from litellm_ledger._prices.quantities import used
from litellm_ledger._reading.adjustments import newest, read_additions
from litellm_ledger._reading.lines import Problem, everything
from litellm_ledger._reading.listing import Snapshot
from litellm_ledger._reading.price_entries import PriceEntries
from litellm_ledger._records.adjustment import Adjustment, encode_addition, group_of
from litellm_ledger._records.layout import (
    ADJUSTMENT_VERSION,
    PRICES,
    record_id,
)
from litellm_ledger._records.line import Line
from litellm_ledger._records.money import whole
from litellm_ledger._storage.filesystem import REAL, FileSystem
from litellm_ledger._storage.price_book import PriceBook

from .additions import moment_after, new_writer, write_additions
from .one_run import need_locks, one_run

__all__ = ["Repriced", "Row", "reprice"]


class Row(NamedTuple):
    """The records of a model and a day whose cost changes; amounts in picodollars.

    ``old`` and ``new`` are the sums of the known costs, ``None`` if none of them is known.
    """

    day: date | None
    model: str | None
    records: int
    old: int | None
    new: int | None


class Repriced(NamedTuple):
    """What one run found, or did.

    Attributes:
        rows: by day and model, where a cost changes.
        looked_at: outcomes that may be priced again.
        changed: how many of them have another cost by these prices.
        unpriced: how many have no price among them, or not for all that was used: they stay.
        segments: that were written, relative to the ledger.
        problems: places that hold no record or no adjustment.
    """

    rows: list[Row]
    looked_at: int
    changed: int
    unpriced: int
    segments: list[str]
    problems: list[Problem]


class _Change(NamedTuple):
    line: Line
    old: int | None
    new: int | None
    old_version: str | None
    new_version: str | None


def reprice(
    root: Path,
    selection: Selection,
    prices: PriceList | None,
    *,
    litellm: str | None = None,
    who: str | None = None,
    why: str = "",
    fs: FileSystem = REAL,
) -> Repriced:
    """Price records again; with ``who``, also add an adjustment for each whose cost changes.

    Args:
        root: the ledger.
        selection: which outcomes.
        prices: by what; ``None``: as they were recorded.
        litellm: whose map it is.
        who, why: stand on the adjustments.
        fs: where all writing goes through.

    Raises:
        LedgerPathError: there is no ledger; it cannot be read or written; another run is at work.
        UnsupportedFormat: a newer version wrote it.
        UnsupportedPlatform: not POSIX, and there is something to write.
    """
    if who is None:
        return _reprice(root, selection, prices, None)
    need_locks("repriced")
    Snapshot.take(root)  # before anything is made there
    with one_run(fs, root, PRICES, "reprice", "repriced"):
        run = _Run(root, fs, PriceBook(fs, root), litellm, who, why)
        return _reprice(root, selection, prices, run)


def _reprice(
    root: Path, selection: Selection, prices: PriceList | None, run: _Run | None
) -> Repriced:
    ledger = Snapshot.take(root)
    problems: list[Problem] = []
    added = read_additions(root, ledger.adjustments, problems)
    before = [one for one in added if isinstance(one, Adjustment)]
    search = _Search(PriceEntries(root), newest(before), prices)
    rows: dict[tuple[date | None, str | None], Row] = {}
    changed = 0
    if run is not None:
        run.begin(moment_after(added, root))
    for entry in everything(ledger, problems):
        line = entry.line
        if line.kind != "usage" or not selection.fits(line):
            continue
        change = search.change(line, run.keep if run is not None else _keep_nothing)
        if change is None:
            continue
        changed += 1
        day = None
        if line.ts is not None:
            day = selection.calendar.local(line.ts).date()
        key = day, line.model
        row = rows.get(key, Row(*key, 0, None, None))
        rows[key] = Row(
            *key, row.records + 1, _plus(row.old, change.old), _plus(row.new, change.new)
        )
        if run is not None:
            run.add(change)
    listed = sorted(rows.values(), key=lambda row: (row.day or date.min, row.model or ""))
    written = run.write() if run is not None else []
    return Repriced(listed, search.looked_at, changed, search.unpriced, written, problems)


def _plus(total: int | None, cost: int | None) -> int | None:
    return total if cost is None else (total or 0) + cost


def _keep_nothing(_entry: Entry | ModelPrice) -> None:
    """For a run that only looks."""


class _Search:
    """Finds the new cost of a record."""

    def __init__(
        self, book: PriceEntries, adjusted: dict[str, Adjustment], prices: PriceList | None
    ) -> None:
        self._book = book
        self._adjusted = adjusted
        self._prices = prices
        self.looked_at = 0
        self.unpriced = 0

    def change(self, line: Line, keep: Callable[[Entry | ModelPrice], None]) -> _Change | None:
        """Return how the cost of a record changes; ``None`` if it stays.

        ``keep`` is called with the entry that it changes by.
        """
        last = self._adjusted.get(line.id)
        old, old_version = line.cost, line.price_version
        if last is not None:
            old, old_version = last.new_cost, last.new_price_version
        if self._prices is None:
            self.looked_at += last is not None
            if line.cost == old:
                return None
            return _Change(line, old, line.cost, old_version, line.price_version)
        fields = {name: getattr(line, name) for name in line.__struct_fields__}
        if not _may_change(line, fields):
            return None
        self.looked_at += 1
        known = self._book.get(line.price_version) if line.price_version else None
        entry = self._prices.find(fields, known)
        cost = None if entry is None else _cost(entry, fields)
        if entry is None or cost is None:
            self.unpriced += 1
            return None
        new = whole(cost)
        if new == old:
            return None
        keep(entry)
        return _Change(line, old, new, old_version, entry.version)


def _may_change(line: Line, fields: dict[str, Any]) -> bool:
    """Whether the cost of an outcome may come from a price, and all that was used is on record."""
    if line.cache_hit or line.usage_source not in ("provider", "estimated", None):
        return False
    if line.cost_source in ("provider", "unbilled"):
        return False
    if line.cost is not None and line.price_version is None:
        return False  # somebody's figure
    quantities = used(fields)
    meta = line.meta or {}
    lacking = meta.get("unpriced") or []
    known = {*AMOUNTS, *quantities}
    told = isinstance(lacking, list) and all(str(name) in known for name in lacking)
    return bool(quantities) and told and "parts" not in meta


def _cost(entry: Entry | ModelPrice, fields: dict[str, Any]) -> Decimal | None:
    try:
        return compute(entry, fields).cost
    except (InvalidRecord, DecimalException):
        return None


class _Run:
    """Writes the adjustments of one run."""

    def __init__(
        self, root: Path, fs: FileSystem, book: PriceBook, litellm: str | None, who: str, why: str
    ) -> None:
        self._root = root
        self._fs = fs
        self._book = book
        self._litellm = litellm
        self._who, self._why = who, why
        self._lines: list[bytes] = []

    def begin(self, at: datetime) -> None:
        """Take the time of all that is added."""
        self._at = at
        self._writer = new_writer(at)

    def keep(self, entry: Entry | ModelPrice) -> None:
        """Have an entry kept in the price book."""
        litellm = self._litellm if isinstance(entry, Entry) else None
        self._book.add(entry.version, entry.text, litellm)

    def add(self, change: _Change) -> None:
        """Add the adjustment of a record."""
        seq = len(self._lines) + 1
        group: dict[str, Any] = group_of(change.line)
        adjustment = Adjustment(
            v=ADJUSTMENT_VERSION,
            id=record_id(self._writer, seq),
            seq=seq,
            kind="adjustment",
            adjusts=change.line.id,
            at=self._at,
            who=self._who,
            why=self._why,
            old_cost=change.old,
            new_cost=change.new,
            old_price_version=change.old_version,
            new_price_version=change.new_version,
            **group,
        )
        self._lines.append(encode_addition(adjustment))

    def write(self) -> list[str]:
        """Write the entries, then the adjustments; return the segments, relative to the ledger.

        Raises:
            OSError: what the disk said.  What is not written comes with the next run.
        """
        self._book.write()
        if self._book.refused:  # an adjustment names what is kept, or nothing
            raise OSError(errno.EIO, "the prices cannot be kept", str(self._root / PRICES))
        return write_additions(self._root, self._fs, self._writer, self._lines)
