"""Balances from the ledger: what its lines count for budgets, writer by writer.

Owns the reading, and the question which writers have to be read.  Never writes: ``_budgets.gate``
puts what is found into the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from litellm_ledger._reading.adjustments import each_addition
from litellm_ledger._reading.lines import Problem, entries
from litellm_ledger._reading.listing import Snapshot, by_writer
from litellm_ledger._records.adjustment import Adjustment
from litellm_ledger._records.layout import ADJUSTMENTS, SEGMENTS, SegmentName
from litellm_ledger._storage.live_file import lives
from litellm_ledger._storage.manifest import read_head, utc_text

from .amounts import UNITS, Amounts, held_by, spent_by
from .budget import Budget
from .jobs import what_began, what_it_settles
from .pruned import check_all_is_there
from .table import DONE, POSTS, UPTO, Spot, Table

__all__ = ["Found", "figures", "names_of", "survey"]

Figures = dict[Spot, tuple[int, int]]


class Found(NamedTuple):
    """What the ledger says of one writer.

    Attributes:
        writer: its name.
        mask: the measures that it is about, a bit each.
        figures: spent and held, by account.
        done: no more will come.
        upto: its last number.
    """

    writer: str
    mask: int
    figures: Figures
    done: bool
    upto: int


def names_of(root: Path) -> dict[str, list[SegmentName]]:
    """Return the segments of each writer, those of adjustments and audits among them.

    Raises:
        LedgerPathError: there is no ledger, or it cannot be read.
        UnsupportedFormat: a newer version wrote it.
        MissingExtra: some are in the archive, and DuckDB is not installed.
    """
    snapshot = Snapshot.take(root)
    every = sorted([*snapshot.segments, *snapshot.adjustments], key=lambda one: one.writer)
    return dict(by_writer(every))


def survey(
    root: Path,
    budgets: Mapping[int, Budget],
    table: Table,
    now: datetime,
    *,
    own: str | None = None,
    afresh: bool = False,
) -> list[Found]:
    """Return what the table lacks, as the ledger says it now.

    Writers that live and count for these budgets are left alone, unless the table is made afresh.

    Args:
        budgets: by the number that each has in the table.
        own: the writer of this process, which counts for itself.

    Raises:
        LedgerError: some of it was pruned: nothing may be entered.
    """
    mask = sum(1 << number for number in budgets)
    every = names_of(root)
    all_found: list[Found] = []
    for writer, names in every.items():
        if writer == own:
            continue
        at = None if afresh else table.writer(writer)
        posts, done, upto = (0, 0, 0) if at is None else _cells(table, at)
        last = max((name.last or 0 for name in names), default=0)
        open_now = any(name.open for name in names)
        alive = open_now and lives(root, writer)
        wanted = mask
        if alive:
            wanted &= ~posts
        elif last <= upto and not posts & mask:
            wanted &= ~done
        if wanted:
            chosen = {number: one for number, one in budgets.items() if wanted >> number & 1}
            found, read = figures(root, writer, every, chosen, now, alive=alive)
            all_found.append(Found(writer, wanted, found, not alive, max(last, read)))
    if all_found:  # what was pruned meanwhile was named before
        writers = [one.writer for one in all_found]
        check_all_is_there(root, budgets.values(), writers, now)
    table.writer("")  # reads the names that are new
    for writer, at in list(table.writers.items()):
        posts, _, upto = _cells(table, at)
        gone = posts & mask and writer != own and writer not in every and not lives(root, writer)
        if gone:  # it died before it wrote anything
            all_found.append(Found(writer, posts & mask, {}, True, upto))
    return all_found


def _cells(table: Table, at: int) -> tuple[int, int, int]:
    cells = table.cells
    return cells[at + POSTS], cells[at + DONE], cells[at + UPTO]


def figures(
    root: Path,
    writer: str,
    every: Mapping[str, Sequence[SegmentName]],
    budgets: Mapping[int, Budget],
    now: datetime,
    *,
    alive: bool,
) -> tuple[Figures, int]:
    """Return what the lines of a writer count, and its last number.

    A call without an outcome holds what it holds while its process lives; else that is spent.

    Args:
        every: the segments of each writer, by ``names_of``.
    """
    adding = _Adding(budgets, now)
    names = every.get(writer, ())
    if writer.startswith(ADJUSTMENTS):
        return _additions(root, names, adding)
    last = 0
    since = min(budget.window_at(now).start for budget in budgets.values())
    running: dict[tuple[str, int], tuple[str | None, Mapping[str, str], datetime, Amounts]] = {}
    settled: dict[str, str | None] = {}
    ignored: list[Problem] = []
    wanted = [name for name in names if _may_count(root, name, since)]
    for entry in entries(root, wanted, ignored, family=names):
        line = entry.line
        last = max(last, line.seq, line.gap_until or 0)
        if line.kind == "gap" or line.ts is None:
            continue
        key = line.operation or line.id, line.attempt or 1
        tags: Mapping[str, str] = line.tags or {}
        if line.kind == "started":
            running[key] = line.model, tags, line.ts, held_by(line)
            continue
        running.pop(key, None)
        cost: Any = line.cost  # a line has picodollars
        adding.add(line.model, tags, line.ts, spent_by(line, cost))
        job = what_it_settles(line.meta)
        if job is not None:
            settled[job] = line.response_id
    for record, response in settled.items():
        began = what_began(root, every, record, response)
        if began is not None:
            adding.add(began.model, began.tags, began.ts, began.counts)
    for model, tags, ts, held in running.values():
        adding.add(model, tags, ts, held, held=alive)
    return adding.figures, last


def _may_count(root: Path, name: SegmentName, since: datetime) -> bool:
    """Whether a segment may hold something from this moment on, as far as its manifest tells."""
    if name.open or since.year < 1000:
        return True
    head = read_head(root, name)
    if head is None or head.open:
        return True
    try:
        size = (root / SEGMENTS / str(name)).lstat().st_size
    except OSError:  # in the archive
        size = head.size
    if head.size != size:
        return True
    return head.latest is not None and head.latest >= utc_text(since.astimezone(UTC))


def _additions(root: Path, names: Sequence[SegmentName], adding: _Adding) -> tuple[Figures, int]:
    last = 0
    ignored: list[Problem] = []
    for one in each_addition(root, names, ignored):
        last = max(last, one.seq)
        if isinstance(one, Adjustment):
            if one.ts is not None:
                adding.add(one.model, one.tags or {}, one.ts, Amounts(one.difference, 0, 0))
        else:
            for let in one.released:
                amounts = Amounts(-let.picousd, -let.tokens, 0)
                adding.add(let.model, let.tags or {}, let.ts, amounts)
    return adding.figures, last


class _Adding:
    """Sums of one writer."""

    def __init__(self, budgets: Mapping[int, Budget], now: datetime) -> None:
        self.figures: Figures = {}
        self._now = now.timestamp()
        self._budgets = [(number, one, UNITS[one.unit]) for number, one in budgets.items()]
        self._leaves: dict[tuple[int, int], int] = {}

    def add(
        self,
        model: str | None,
        tags: Mapping[str, str],
        ts: datetime,
        amounts: Amounts,
        *,
        held: bool = False,
    ) -> None:
        """Count an amount, as spent or as held."""
        for number, budget, unit in self._budgets:
            amount = amounts[unit]
            if not amount:
                continue
            scope = budget.scope_of(model, tags)
            if scope is None:
                continue
            window = budget.window_at(ts)
            key = window.key
            leaves = self._leaves.get((number, key))
            if leaves is None:
                leaves = int(budget.leaves_at(key).timestamp())
                self._leaves[number, key] = leaves
            if leaves <= self._now:
                continue
            spot = Spot(number, budget.counts, scope, key, leaves, window.since != key)
            spent, holds = self.figures.get(spot, (0, 0))
            if held:
                holds += amount
            else:
                spent += amount
            self.figures[spot] = spent, holds
