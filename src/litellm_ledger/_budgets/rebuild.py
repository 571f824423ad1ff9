"""Balances from the ledger: what its lines count for budgets, writer by writer.

Owns the reading, and the question which writers have to be read.  Never writes: ``_budgets.gate``
puts what is found into the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from litellm_ledger._reading.adjustments import each_addition
from litellm_ledger._reading.lines import Line, Problem, entries
from litellm_ledger._reading.listing import Snapshot, by_writer
from litellm_ledger._records.adjustment import Adjustment
from litellm_ledger._records.audit import Audit
from litellm_ledger._records.layout import ADJUSTMENTS, SEGMENTS, SegmentName
from litellm_ledger._storage.live_file import lives
from litellm_ledger._storage.manifest import read_head, utc_text

from .amounts import UNITS, Amounts, held_by, spent_by
from .budget import Budget
from .jobs import Began, what_began, what_it_settles
from .pruned import check_all_is_there
from .table import DONE, POSTS, UPTO, Spot, Table

__all__ = [
    "Counted",
    "Found",
    "count",
    "counted_since",
    "figures",
    "may_count",
    "names_of",
    "survey",
]

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
    counted = count(root, writer, every, budgets, now)
    return counted.figures(alive=alive, began=partial(what_began, root, every)), counted.last


def count(
    root: Path,
    writer: str,
    every: Mapping[str, Sequence[SegmentName]],
    budgets: Mapping[int, Budget],
    now: datetime,
) -> Counted:
    """Read what the lines of a writer count; as for ``figures``."""
    counted = Counted(budgets, now)
    names = every.get(writer, ())
    ignored: list[Problem] = []
    if writer.startswith(ADJUSTMENTS):
        for one in each_addition(root, names, ignored):
            counted.add(one)
        return counted
    since = counted_since(budgets.values(), now)
    wanted = [name for name in names if may_count(root, name, since)]
    for entry in entries(root, wanted, ignored, family=names):
        counted.take(entry.line)
    return counted


def counted_since(budgets: Iterable[Budget], now: datetime) -> datetime:
    """Return when the first of the windows of now began."""
    return min(budget.window_at(now).start for budget in budgets)


def may_count(root: Path, name: SegmentName, since: datetime) -> bool:
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


class Counted:
    """What the lines of one writer count for budgets, as far as they were read.

    Args:
        budgets: by their numbers.
        now: what counts in no window from then on is left out.

    Attributes:
        last: the last number.
        running: calls without an outcome: their ``started`` lines.
        refused: how many calls were refused, by this budget or by another one that is for them.
    """

    def __init__(self, budgets: Mapping[int, Budget], now: datetime) -> None:
        self.last = 0
        self.running: dict[tuple[str, int], Line] = {}
        self.refused: dict[Spot, int] = {}
        self._settled: dict[str, str | None] = {}
        self._figures: Figures = {}
        self._now = now.timestamp()
        self._budgets = [(number, one, UNITS[one.unit]) for number, one in budgets.items()]
        self._leaves: dict[tuple[int, int], int] = {}

    def take(self, line: Line) -> None:
        """Count a line: by number, each number once, of unsettled calls only those that count."""
        self.last = max(self.last, line.seq, line.gap_until or 0)
        if line.kind == "gap" or line.ts is None:
            return
        key = line.operation or line.id, line.attempt or 1
        if line.kind == "started":
            self.running[key] = line
            return
        self.running.pop(key, None)
        if line.status == "refused":
            for spot, _ in self._spots(line.model, line.tags or {}, line.ts, _ONE):
                self.refused[spot] = self.refused.get(spot, 0) + 1
        cost: Any = line.cost  # a line has picodollars
        self._count(self._figures, line.model, line.tags or {}, line.ts, spent_by(line, cost))
        job = what_it_settles(line.meta)
        if job is not None:
            self._settled[job] = line.response_id

    def add(self, one: Adjustment | Audit) -> None:
        """Count an adjustment, or what an audit lets go."""
        self.last = max(self.last, one.seq)
        if isinstance(one, Adjustment):
            if one.ts is not None:
                amounts = Amounts(one.difference, 0, 0)
                self._count(self._figures, one.model, one.tags or {}, one.ts, amounts)
        else:
            for let in one.released:
                amounts = Amounts(-let.picousd, -let.tokens, 0)
                self._count(self._figures, let.model, let.tags or {}, let.ts, amounts)

    def figures(
        self, *, alive: bool, began: Callable[[str, str | None], Began | None]
    ) -> dict[Spot, tuple[int, int]]:
        """Return spent and held, by account.

        Args:
            alive: whether the process lives: else what its calls held is spent.
            began: finds the outcome that began a job, by its id and the job's.
        """
        found = dict(self._figures)
        for record, response in self._settled.items():
            one = began(record, response)
            if one is not None:
                self._count(found, one.model, one.tags, one.ts, one.counts)
        for line in self.running.values():
            if line.ts is not None:
                amounts = held_by(line)
                self._count(found, line.model, line.tags or {}, line.ts, amounts, held=alive)
        return found

    def forget(self, now: datetime) -> None:
        """Let go of what counts in no window from now on."""
        self._now = now.timestamp()
        self._leaves.clear()
        for counts in (self._figures, self.refused):
            for spot in [spot for spot in counts if spot.leaves <= self._now]:
                del counts[spot]

    def _count(
        self,
        into: Figures,
        model: str | None,
        tags: Mapping[str, str],
        ts: datetime,
        amounts: Amounts,
        *,
        held: bool = False,
    ) -> None:
        """Count an amount, as spent or as held."""
        for spot, amount in self._spots(model, tags, ts, amounts):
            spent, holds = into.get(spot, (0, 0))
            into[spot] = (spent, holds + amount) if held else (spent + amount, holds)

    def _spots(
        self, model: str | None, tags: Mapping[str, str], ts: datetime, amounts: Amounts
    ) -> Iterator[tuple[Spot, int]]:
        """Yield where an amount counts, and how much."""
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
            if leaves > self._now:
                yield Spot(number, budget.counts, scope, key, leaves, window.since != key), amount


_ONE: Final = Amounts(1, 1, 1)
