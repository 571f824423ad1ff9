"""The gate: a call goes through if every budget has room for what it may cost.

Owns the decision, the holds of this process and the order of those who wait.  A hold is taken from
all budgets that apply, or from none, in one atomic step: settled + what is held + this hold <=
limit.  What this process has spent and holds is kept here, and told to the table: so a table that
was lost is told again.  Never reads the ledger on the event loop, never makes a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from litellm_ledger._aggregates.steps import EPOCH
from litellm_ledger._errors import BudgetExceeded, BudgetUnbounded
from litellm_ledger._records.money import usd
from litellm_ledger._runtime.disk_thread import DiskThread

from .amounts import NOTHING, UNITS, Amounts
from .books import Books, locked
from .bound import Bound
from .budget import Budget
from .leasing import IDLE, Lease, Lending
from .table import (
    BUSY,
    CHANGES,
    CLAIM,
    DONE,
    HELD,
    LARGEST,
    LEFT,
    NAMED,
    POSTS,
    ROW_HELD,
    ROW_SPENT,
    SPENT,
    TICKETS,
    UPTO,
    Damaged,
    Forgotten,
    Full,
    Moved,
    Spot,
    Table,
)
from .waiting import Waiting, claim, claimed, unclaim
from .windows import Window

__all__ = ["Amounts", "Balance", "Gate", "Ticket"]

_log = logging.getLogger("litellm_ledger")
_T = TypeVar("_T")

SPINS: Final = 8
"""Tries for the lock at once: it is held for microseconds.  Then a thread waits for it."""
LOOK: Final = 1.0
"""Seconds after which a thread looks at the ledger again: who died, what was priced anew."""
MOST_ENTRIES: Final = 4096


class Balance(NamedTuple):
    """What stands against a budget, for one scope, in its window of now.

    Attributes:
        settled, held: picodollars, tokens or calls.
    """

    budget: Budget
    scope: str
    window: Window
    settled: int
    held: int


class _Entry:
    """What this process has spent and holds in one account, and where that is in the table."""

    __slots__ = (
        "account",
        "begins",
        "counts",
        "head",
        "held",
        "lease",
        "leaves",
        "limit",
        "room",
        "row",
        "scope",
        "spent",
        "window",
    )

    def __init__(self, counts: str, scope: str, window: Window, leaves: int) -> None:
        self.counts = counts
        self.scope = scope
        self.window = window
        self.leaves = leaves
        self.spent = self.held = self.limit = 0
        self.room = LARGEST  # what this process may spend of a limit that machines share
        self.lease: Lease | None = None
        begins = window.since != window.key  # of a rolling window, the step
        self.begins = EPOCH + timedelta(seconds=window.key) if begins else window.start
        self.account = self.head = self.row = 0


_Plan = tuple[Callable[[str | None, Mapping[str, str] | None], str | None], dict[str, _Entry], int]
_Want = tuple[Budget, _Entry, int, Window]


class Ticket:
    """What one attempt holds.

    Attributes:
        held: in each unit; 0 where it has no bound and that is allowed.
        until: when the first of its windows ends: a request that leaves later needs another.
        number: of the ``started`` record whose outcome settles it; 0: nothing was sent yet.
    """

    __slots__ = ("born", "held", "number", "parts", "settled", "until")

    held: Amounts
    until: datetime | None
    parts: list[tuple[int, _Entry]]
    born: object

    def __init__(self) -> None:
        self.settled = False
        self.number = 0


class _Busy(Exception):
    """The lock is held."""


class _Short(Exception):
    """This process was not lent enough of a limit that machines share."""

    def __init__(self, wants: list[_Want]) -> None:
        self.wants = wants


class Gate:
    """The budgets of one client.

    Args:
        root: the ledger.
        budgets: they all apply, each where its ``scope_of`` says so.
        lending: where their limits are those of many machines: what this process was lent.
    """

    def __init__(
        self, root: Path, budgets: Sequence[Budget], lending: Lending | None = None
    ) -> None:
        self.root = root
        self.lending = lending
        self._unit_of: dict[str, int] = {}
        self._current: dict[str, dict[str, _Entry]] = {}
        self._plan: list[_Plan] = []
        self._use(budgets)
        self._begin()

    def _begin(self) -> None:
        """What belongs to one process: nothing is held."""
        self.writer: str | None = None
        self._books = Books(self.root, self.budgets)
        self._table: Table | None = None
        self._own = 0
        self._rows: dict[int, int] = {}
        self._mask = 0
        self._entries: dict[tuple[str, str, int], _Entry] = {}
        for current in self._current.values():
            current.clear()
        self._dirty: set[_Entry] = set()
        self._inbox: deque[tuple[Ticket, Amounts | None]] = deque()
        self._mutex = threading.Lock()
        self._born = object()
        self._lines: dict[tuple[tuple[str, str], ...], asyncio.Lock] = {}
        self._waiting = Waiting(lambda: self._table)
        self._thread = DiskThread("litellm-ledger-budgets")
        self._locks = DiskThread("litellm-ledger-budgets-lock")
        self._freeing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._again: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None
        self._looked = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def forget_parent(self) -> None:
        """In a forked child: the parent's holds are its own."""
        if self.lending is not None:
            self.lending.forget_parent()
        table = self._table
        self._begin()
        if table is not None:
            table.close()

    # -- life --------------------------------------------------------------------------------------

    async def open(self, writer: str) -> None:
        """Begin to count for a writer of this process; what the ledger says is read if need be.

        Raises:
            LedgerPathError: the table cannot be made, or the ledger cannot be read.
        """
        self.writer = self._books.own = writer
        self._loop = asyncio.get_running_loop()
        self._looked = time.monotonic()
        self._enter(await self._in_thread(self._books.ready))
        if self.lending is not None:
            self._returning = self._task(self._return_what_is_idle())

    async def change(self, budgets: Sequence[Budget]) -> None:
        """Let these budgets apply from now on; what others count is read first.

        Raises:
            LedgerError: the ledger cannot be read, or there are too many; the old ones still apply.
        """
        books = Books(self.root, budgets, self.writer)
        table = await self._in_thread(books.ready)
        self._books = books
        self._use(budgets)
        self._enter(table)

    def _use(self, budgets: Sequence[Budget]) -> None:
        self.budgets = tuple(budgets)
        self._units = [(budget, UNITS[budget.unit]) for budget in self.budgets]
        self._current = {one.counts: {} for one in self.budgets}
        self._plan = [(one.scope_of, self._current[one.counts], unit) for one, unit in self._units]
        self._unit_of.update({budget.counts: unit for budget, unit in self._units})

    def close(self, upto: int = 0) -> None:
        """Count no more, unless an outcome comes late.

        Args:
            upto: the last number that the writer has given.
        """
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.close()
        for task in (self._looking, self._again, self._freeing, self._returning):
            if task is not None:
                task.cancel()
        self._locks.stop()
        self._thread.stop()
        self._thread = DiskThread("litellm-ledger-budgets")
        table = self._table
        if table is None or not self._post(patient=True):
            return
        if any(entry.held for entry in self._entries.values()):
            return
        with contextlib.suppress(Moved, Damaged, OSError), self._mutex, locked(table):
            cells = table.cells
            if self._own and cells[self._own + POSTS] == self._mask:
                cells[self._own + UPTO] = upto
                cells[self._own + DONE] |= self._mask
                cells[self._own + POSTS] = 0

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.wrap_future(self._thread.submit(work))

    def _enter(self, table: Table) -> None:
        """Take a table as ours, and tell it what we have spent and hold."""
        with self._mutex:
            before, self._table = self._table, table
            self._own = 0
            self._mask = sum({1 << (table.measure(one.counts) or 0) for one in self.budgets})
            self._rows = {}
            for entry in self._entries.values():
                entry.account = entry.head = entry.row = 0
            self._dirty.update(self._entries.values())
        if before is not None:
            before.close()
        self._post()

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._loop is not None
        return self._loop.create_task(work, name="litellm-ledger-budgets")

    async def _renew(self, first: Callable[[], None] | None = None) -> None:
        """Have another table opened, once for all who ask; ``first`` makes one."""
        if self._again is None:
            self._again = self._task(self._renewed(first))
            self._again.add_done_callback(self._renewal_done)
        await asyncio.shield(self._again)

    async def _renewed(self, first: Callable[[], None] | None) -> None:
        if first is not None:
            with contextlib.suppress(Moved, Damaged, FileNotFoundError):
                await self._in_thread(first)
        self._enter(await self._in_thread(self._books.ready))

    def _renewal_done(self, task: asyncio.Task[None]) -> None:
        self._again = None
        if not task.cancelled() and task.exception() is not None:
            _log.error("the balances of the budgets are not here: %s", task.exception())

    def _look_soon(self) -> None:
        """Look at the ledger now and then, in a thread."""
        now = time.monotonic()
        if now - self._looked >= LOOK and self._looking is None and self._loop is not None:
            self._looked = now
            self._looking = self._task(self._look())
            self._looking.add_done_callback(self._look_done)

    async def _look(self) -> None:
        with contextlib.suppress(Moved, Damaged, FileNotFoundError):  # the next step sees it too
            await self._in_thread(self._books.look)

    def _look_done(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled() and task.exception() is not None:
            _log.warning("the ledger could not be read for the budgets: %s", task.exception())

    # -- decisions ---------------------------------------------------------------------------------

    def take_now(
        self,
        amounts: Amounts | Bound,
        model: str | None,
        tags: Mapping[str, str] | None,
        now: datetime,
    ) -> Ticket | None:
        """``take`` if that can be decided at once; ``None``: it cannot, and nothing is held.

        Raises:
            BudgetExceeded, BudgetUnbounded: as ``take``.
        """
        if time.monotonic() - self._looked >= LOOK:
            self._look_soon()
        ticket = self._take_at_hand(amounts, model, tags, now)
        if ticket is not None:
            return ticket
        wants = self._wants(amounts, model, tags, now)
        if not wants:
            return self._ticket(amounts, [])
        try:
            self._step(wants)
        except (_Busy, _Short, Moved, Damaged, Full):
            return None
        return self._ticket(amounts, wants)

    def _take_at_hand(  # noqa: C901 - a decision in one frame, for speed
        self,
        amounts: Amounts | Bound,
        model: str | None,
        tags: Mapping[str, str] | None,
        now: datetime,
    ) -> Ticket | None:
        """Take what nothing speaks against, where all is at hand; ``None``: ask the long way."""
        parts: list[tuple[int, _Entry]] = []
        until = None
        needs = amounts[:3]
        for scope_of, current, unit in self._plan:
            scope = scope_of(model, tags)
            if scope is None:
                continue
            need, entry = needs[unit], current.get(scope)
            if entry is None or need is None or not entry.row:
                return None
            end = entry.window.end
            if not entry.begins <= now < end:
                return None
            parts.append((need, entry))
            if until is None or end < until:
                until = end
        table = self._table
        if table is None or not parts or not self._mutex.acquire(blocking=False):
            return None
        try:
            if not table.at_hand():
                return None
            try:
                cells = table.cells
                if cells[self._own + POSTS] != self._mask:
                    return None
                for need, entry in parts:
                    account = entry.account
                    if entry.head:
                        settled, held = table.counted(entry.head, entry.window.since)
                    else:
                        settled, held = cells[account + SPENT], cells[account + HELD]
                    if cells[account + CLAIM] or settled + held + need > entry.limit:
                        return None
                    if entry.spent + entry.held + need > entry.room:
                        return None
                at = NAMED
                for _, entry in parts:
                    at += 1
                    cells[at] = entry.account
                cells[NAMED] = len(parts)
                cells[BUSY] = 1
                for need, entry in parts:
                    entry.held += need
                    cells[entry.row + ROW_HELD] += need
                    cells[entry.account + HELD] += need
                cells[BUSY] = 0
            finally:
                table.unlock()
        except (Damaged, IndexError, ValueError):
            return None
        finally:
            self._mutex.release()
        if self._inbox:
            self._post()
        ticket = Ticket()
        ticket.held = amounts if type(amounts) is Amounts else _known(amounts)
        ticket.until = until
        ticket.parts = parts
        ticket.born = self._born
        return ticket

    def _ticket(self, amounts: Amounts | Bound, wants: list[_Want]) -> Ticket:
        ticket = Ticket()
        ticket.held = _known(amounts)
        ticket.until = min([window.end for _, _, _, window in wants], default=None)
        ticket.parts = [(need, entry) for _, entry, need, _ in wants]
        ticket.born = self._born
        return ticket

    async def take(
        self,
        amounts: Amounts | Bound,
        model: str | None,
        tags: Mapping[str, str] | None,
        now: datetime,
        *,
        wait: bool = False,
        deadline: float | None = None,
    ) -> Ticket:
        """Hold what a call may cost, from all budgets that apply or from none.

        Cancelled, nothing is held.

        Args:
            now: when the call begins.
            wait: for money of calls in flight to come back, first come, first served.
            deadline: until when, by the loop's clock; ``None``: as long as it takes.

        Raises:
            BudgetExceeded: one has no room; nothing is held.
            BudgetUnbounded: the call has no bound, and one refuses such calls.
            LedgerError: the balances cannot be read or written.
        """
        wants = self._wants(amounts, model, tags, now)
        if not wants:
            return self._ticket(amounts, [])
        self._look_soon()
        try:
            await self._take_step(wants, 0)
        except BudgetExceeded as exc:
            if not wait or not exc.passes:
                raise
            wants = await self._in_line(amounts, model, tags, wants, deadline)
        return self._ticket(amounts, wants)

    async def _in_line(
        self,
        amounts: Amounts | Bound,
        model: str | None,
        tags: Mapping[str, str] | None,
        wants: list[_Want],
        deadline: float | None,
    ) -> list[_Want]:
        """Wait for room behind those who wait for the same."""
        key = tuple((entry.counts, entry.scope) for _, entry, _, _ in wants)
        line = self._lines.setdefault(key, asyncio.Lock())
        number = await self._number()
        refusal: BudgetExceeded | None = None
        try:
            async with asyncio.timeout_at(deadline), line:
                while True:
                    wants = self._wants(amounts, model, tags, datetime.now(UTC))
                    try:
                        await self._take_step(wants, number)
                    except BudgetExceeded as exc:
                        if not exc.passes:
                            raise
                        refusal = exc
                    else:
                        return wants
                    assert self._loop is not None
                    await self._waiting.change(self._loop)
                    self._look_soon()
        except TimeoutError:
            if refusal is None:
                await self._take_step(wants, 0)  # which refuses it, or there is room by now
                return wants
            raise refusal from None
        finally:
            self._unclaim(wants, number)
            if not line.locked() and not getattr(line, "_waiters", None):
                self._lines.pop(key, None)

    async def _number(self) -> int:
        """Draw a number: a lower one goes first, in all processes."""
        while True:
            table = self._table
            if table is not None and self._mutex.acquire(blocking=False):
                try:
                    if table.try_lock():
                        try:
                            table.cells[TICKETS] += 1
                            return table.cells[TICKETS]
                        finally:
                            table.unlock()
                except (Moved, Damaged):
                    pass
                finally:
                    self._mutex.release()
            await self._lock_is_free()

    async def _take_step(self, wants: list[_Want], number: int) -> None:
        while True:
            try:
                return self._step(wants, number)
            except _Busy:
                await self._lock_is_free()
            except _Short as exc:
                await self._ask_for_more(exc.wants)
            except Full:
                await self._renew(self._books.grow)
            except Forgotten:
                await self._renew(self._books.remake)
            except (Moved, Damaged):
                await self._renew()

    async def _lock_is_free(self) -> None:
        """Wait until nobody else holds the lock: in a thread, once for all who wait."""
        await asyncio.sleep(0)  # the others on this loop first
        if self._freeing is None:
            self._freeing = self._task(self._freed())
            self._freeing.add_done_callback(self._free)
        await asyncio.shield(self._freeing)

    async def _freed(self) -> None:
        table = self._table
        if table is not None:
            with contextlib.suppress(OSError):  # gone: the next step sees that
                await asyncio.wrap_future(self._locks.submit(table.wait_until_free, self.root))

    def _free(self, task: asyncio.Task[None]) -> None:
        self._freeing = None
        if not task.cancelled() and task.exception() is not None:
            _log.error("the lock of the budgets cannot be had: %s", task.exception())

    def _wants(
        self,
        amounts: Amounts | Bound,
        model: str | None,
        tags: Mapping[str, str] | None,
        now: datetime,
    ) -> list[_Want]:
        wants: list[_Want] = []
        needs = amounts.usd, amounts.tokens, amounts.calls
        for budget, unit in self._units:
            scope = budget.scope_of(model, tags)
            if scope is None:
                continue
            need = needs[unit]
            if need is None:
                if budget.unbounded != "allow" and budget.mode != "soft":
                    raise BudgetUnbounded(budget=budget.label, model=model, reason=_reason(amounts))
                need = 0
            window = budget.window_at(now)
            entry = self._entries.get((budget.counts, scope, window.key))
            if entry is None:
                entry = self._entry(budget, scope, window)
            if budget.mode != "soft":
                entry.limit = budget.limit_units
                if self.lending is not None and entry.lease is None:
                    entry.lease, entry.room = Lease(), 0
                self._current[budget.counts][scope] = entry
            wants.append((budget, entry, need, window))
        return wants

    def _entry(self, budget: Budget, scope: str, window: Window) -> _Entry:
        if len(self._entries) >= MOST_ENTRIES:
            for key, old in list(self._entries.items()):
                if not old.held and old not in self._dirty and old.row and not old.lease:
                    del self._entries[key]
                    self._current.get(key[0], {}).pop(key[1], None)
        for _, current, _ in self._plan:
            if len(current) >= MOST_ENTRIES:
                current.clear()
        leaves = int(budget.leaves_at(window.key).timestamp())
        entry = _Entry(budget.counts, scope, window, leaves)
        return self._entries.setdefault((budget.counts, scope, window.key), entry)

    def _step(self, wants: list[_Want], number: int = 0) -> None:
        """Take all or nothing.

        Args:
            number: of a call that waits; it claims room that is not there yet.

        Raises:
            BudgetExceeded: there is no room.
            Moved, Damaged, Full, _Busy: the table has to be seen to first.
            _Short: more has to be asked for first.
        """
        table = self._acquire()
        try:
            cells = table.cells
            refused = self._without_room(table, wants, number)
            if refused:
                if number:
                    claim(cells, ((one.account, need) for _, one, need, _ in refused), number)
                raise self._refusal(table, refused)
            short = [
                want
                for want in wants
                if want[1].lease and want[1].spent + want[1].held + want[2] > want[1].room
            ]
            if short:
                raise _Short(short)
            table.begin([entry.account for _, entry, _, _ in wants])
            for _, entry, need, _ in wants:
                entry.held += need
                _tell(cells, entry)
            table.end()
        except (IndexError, ValueError) as exc:
            raise Damaged(str(exc)) from exc
        finally:
            self._release(table)

    def _without_room(self, table: Table, wants: list[_Want], number: int) -> list[_Want]:
        cells = table.cells
        refused: list[_Want] = []
        for want in wants:
            budget, entry, need, window = want
            if not entry.row:
                self._place(table, entry)
            if budget.mode == "soft":
                continue
            settled, held = self._stands(table, entry, window)
            other = cells[entry.account + CLAIM]
            if other and other != number and not 0 < number < other:
                held += claimed(cells, entry.account)
            if settled + held + need > budget.limit_units:
                refused.append(want)
        return refused

    def _acquire(self) -> Table:
        """Take the lock of the table, and that of this process.  Never waits."""
        table = self._table
        if table is None:
            raise Moved
        if not self._mutex.acquire(blocking=False):
            raise _Busy
        try:
            for _ in range(SPINS):
                if table.try_lock():
                    break
                os.sched_yield()
            else:
                raise _Busy
            try:
                if not self._own or table.cells[self._own + POSTS] != self._mask:
                    self._claim_row(table)
            except BaseException:
                table.unlock()
                raise
        except BaseException:
            self._mutex.release()
            raise
        return table

    def _release(self, table: Table) -> None:
        table.unlock()
        self._mutex.release()
        if self._inbox:
            self._post()

    def _claim_row(self, table: Table) -> None:
        """Make the writer's row ours: it is new, or was taken for that of a dead process."""
        assert self.writer is not None
        at = table.add_writer(self.writer)
        table.cells[at + DONE] = 0
        table.cells[at + POSTS] = self._mask
        self._rows = {account: row for row, account in table.rows_of(at)}
        self._own = at
        self._dirty.update(self._entries.values())

    def _place(self, table: Table, entry: _Entry) -> None:
        """Find or make the account and the row of an entry.  Under the lock."""
        window = entry.window
        rolling = window.since != window.key
        measure = table.measure(entry.counts)
        if measure is None:
            raise Damaged("a budget is missing")
        account = table.account(
            Spot(measure, entry.counts, entry.scope, window.key, entry.leaves, rolling)
        )
        row = self._rows.get(account)
        new = not (entry.spent or entry.held or entry in self._dirty)
        if row is None:
            row = self._rows[account] = table.add_row(self._own, account)
        elif new:  # dropped here for want of space, and it is all there
            entry.spent, entry.held = table.cells[row + ROW_SPENT], table.cells[row + ROW_HELD]
        if rolling:
            entry.head = table.find(entry.counts, entry.scope, None)
        entry.account, entry.row = account, row

    def _stands(self, table: Table, entry: _Entry, window: Window) -> tuple[int, int]:
        """Return what is settled and held.  Under the lock."""
        if entry.head:
            return table.counted(entry.head, window.since)
        cells = table.cells
        return cells[entry.account + SPENT], cells[entry.account + HELD]

    def _refusal(self, table: Table, refused: list[_Want]) -> BudgetExceeded:
        errors = []
        for budget, entry, need, window in refused:
            settled, held = self._stands(table, entry, window)
            said = usd if budget.unit == "usd" else int
            resets = None if window.end.year > 9000 else window.end
            error = BudgetExceeded(
                budget=budget.label,
                unit=budget.unit,
                scope=entry.scope,
                limit=said(budget.limit_units),
                settled=said(settled),
                held=said(held),
                needed=said(need),
                resets_at=resets,
            )
            if not error.passes:
                return error  # the one that waiting does not help
            errors.append(error)
        return errors[0]

    # -- after a decision --------------------------------------------------------------------------

    def top_up(self, ticket: Ticket, more: Amounts) -> bool:
        """Hold more for a call in flight; ``False``, and nothing is held, where there is no room.

        Never waits: ``False`` also where the table cannot be changed at once.
        """
        wants = self._more(ticket, more)
        try:
            if wants:
                self._step(wants)
        except (BudgetExceeded, _Busy, _Short, Moved, Damaged, Full):
            return False
        self._add(ticket, more)
        return not ticket.settled

    async def add(self, ticket: Ticket, more: Amounts) -> None:
        """``top_up``, when the table can be changed.

        Raises:
            BudgetExceeded: one has no room; nothing is held on top.
            LedgerError: the balances cannot be read or written.
        """
        wants = self._more(ticket, more)
        if wants:
            await self._take_step(wants, 0)
        if ticket.settled:  # meanwhile
            self.drop(self._ticket(more, wants))
        self._add(ticket, more)

    def _more(self, ticket: Ticket, more: Amounts) -> list[_Want]:
        """What a call in flight wants on top, from the budgets that still apply."""
        if ticket.settled:
            return []
        now = {budget.counts: (budget, unit) for budget, unit in self._units}
        wants: list[_Want] = []
        for _, entry in ticket.parts:
            if entry.counts in now:
                budget, unit = now[entry.counts]
                wants.append((budget, entry, more[unit] or 0, entry.window))
        return wants

    def _add(self, ticket: Ticket, more: Amounts) -> None:
        """It is held."""
        if ticket.settled:
            return
        now = {budget.counts: unit for budget, unit in self._units}
        held = ticket.held
        ticket.held = Amounts(
            (held.usd or 0) + (more.usd or 0), (held.tokens or 0) + (more.tokens or 0), held.calls
        )
        ticket.parts = [
            (part + (more[now[entry.counts]] or 0 if entry.counts in now else 0), entry)
            for part, entry in ticket.parts
        ]

    def settle(self, ticket: Ticket, actual: Amounts | None) -> None:
        """The outcome is written: what was held comes back, what was used is spent.

        From any thread; never waits and never fails.  What cannot be told to the table now is told
        soon.

        Args:
            actual: ``None``: not known (cancelled, timed out, abandoned): all that was held is.
        """
        if ticket.settled or ticket.born is not self._born:  # of the parent of a forked child
            return
        ticket.settled = True
        if ticket.parts and not self._settle_at_hand(ticket, actual):
            self._inbox.append((ticket, actual))
            self._post()

    def _settle_at_hand(  # noqa: C901 - a settlement in one frame, for speed
        self, ticket: Ticket, actual: Amounts | None
    ) -> bool:
        """Settle where all is at hand, in one frame; ``False``: nothing was done."""
        table, parts = self._table, ticket.parts
        if table is None or self._inbox or self._dirty or not self._mutex.acquire(blocking=False):
            return False
        done = False
        try:
            if not table.at_hand():
                return False
            try:
                cells, units = table.cells, self._unit_of
                if cells[self._own + POSTS] != self._mask or not all(one.row for _, one in parts):
                    return False
                at = NAMED
                for _, entry in parts:
                    at += 1
                    cells[at] = entry.account
                cells[NAMED] = len(parts)
                done = True
                cells[BUSY] = 1
                for held, entry in parts:
                    used = held if actual is None else actual[units[entry.counts]] or 0
                    entry.held -= held
                    entry.spent += used
                for held, entry in parts:
                    used = held if actual is None else actual[units[entry.counts]] or 0
                    row, account = entry.row, entry.account
                    cells[row + ROW_SPENT] += used
                    cells[account + SPENT] += used
                    cells[row + ROW_HELD] -= held
                    cells[account + HELD] -= held
                cells[CHANGES] += 1
                cells[BUSY] = 0
            finally:
                table.unlock()
        except (IndexError, ValueError):
            if not done:
                return False
            self._dirty.update(
                entry for _, entry in parts
            )  # beyond what a cell holds: the long way
        finally:
            self._mutex.release()
        if self._waiting:
            self._wake_soon()
        if self._inbox or self._dirty:
            self._post()
        return True

    def drop(self, ticket: Ticket) -> None:
        """Nothing was sent: what was held comes back."""
        self.settle(ticket, NOTHING)

    def count(
        self, amounts: Amounts, model: str | None, tags: Mapping[str, str] | None, ts: datetime
    ) -> None:
        """Count what a call has cost that held nothing: of other code, or a user's own record."""
        if not any(amounts):
            return
        parts: list[tuple[int, _Entry]] = []
        for budget, _ in self._units:
            scope = budget.scope_of(model, tags)
            if scope is not None:
                window = budget.window_at(ts)
                entry = self._entries.get((budget.counts, scope, window.key))
                parts.append((0, entry or self._entry(budget, scope, window)))
        if parts:
            ticket = self._ticket(NOTHING, [])
            ticket.parts = parts
            ticket.settled = True
            self._inbox.append((ticket, amounts))
            self._post()

    def _post(self, *, patient: bool = False) -> bool:
        """Tell the table what is new; whether that is done.  Never raises."""
        while self._inbox or self._dirty:
            if not self._mutex.acquire(blocking=False):
                return False  # the one that has it goes on with this
            table = self._table
            try:
                self._take_inbox()
                if table is None or not self._post_to(table, patient):
                    self._post_later()
                    return False
            except (Moved, Damaged, IndexError, ValueError):
                self._renew_soon(None)
                return False
            except Full:
                self._renew_soon(self._books.grow)
                return False
            except OSError as exc:
                _log.error("the balances of the budgets cannot be told: %s", exc)
                return False
            finally:
                self._mutex.release()
        return True

    def _take_inbox(self) -> None:
        units = self._unit_of
        while self._inbox:
            ticket, actual = self._inbox.popleft()
            for held, entry in ticket.parts:
                used = held if actual is None else actual[units[entry.counts]]
                self._dirty.add(entry)
                entry.held -= held
                entry.spent += held if used is None else used

    def _post_to(self, table: Table, patient: bool) -> bool:
        for _ in range(SPINS * (1000 if patient else 1)):
            if table.try_lock():
                break
            os.sched_yield()
        else:
            return False
        try:
            cells = table.cells
            if not self._own or cells[self._own + POSTS] != self._mask:
                self._claim_row(table)
            back = False
            while self._dirty:
                entry = next(iter(self._dirty))
                if not entry.row:
                    known = table.find(entry.counts, entry.scope, entry.window.key)
                    if entry.leaves <= cells[LEFT] and not known:  # nobody asks for it any more
                        self._dirty.discard(entry)
                        continue
                    self._place(table, entry)
                table.begin((entry.account,))
                back = _tell(cells, entry) < 0 or back
                table.end()
                self._dirty.discard(entry)
            cells[CHANGES] += 1
        finally:
            table.unlock()
        if back and self._waiting:
            self._wake_soon()
        return True

    def _on_loop(self, what: Callable[[], None]) -> None:
        loop = self._loop
        if loop is not None and not self._closed:
            with contextlib.suppress(RuntimeError):  # closed
                loop.call_soon_threadsafe(what)

    def _post_later(self) -> None:
        def later() -> None:
            if self._timer is None and not self._closed and self._loop is not None:
                self._timer = self._loop.call_later(0.001, again)

        def again() -> None:
            self._timer = None
            self._post()

        self._on_loop(later)

    def _renew_soon(self, first: Callable[[], None] | None) -> None:
        def renew() -> None:
            if self._again is None and not self._closed:
                self._again = self._task(self._renewed(first))
                self._again.add_done_callback(self._renewal_done)

        self._on_loop(renew)

    def _wake_soon(self) -> None:
        self._on_loop(self._waiting.wake)

    def _unclaim(self, wants: list[_Want], number: int) -> None:
        """Wait no more."""
        table = self._table
        if table is None:
            return
        unclaim(table.cells, [entry.account for _, entry, _, _ in wants], number)
        self._waiting.wake()

    # -- a limit of many machines ------------------------------------------------------------------

    async def _ask_for_more(self, wants: list[_Want]) -> None:
        """Have room in this process's leases.

        Raises:
            BudgetExceeded: there is none.
        """
        assert self.lending is not None
        assert self.writer is not None
        for budget, entry, need, _ in wants:
            await self.lending.more(self.writer, entry, budget, need, partial(self._ended, entry))

    async def _ended(self, entry: _Entry) -> dict[str, int]:
        """Return what other processes of this ledger have spent that ended."""
        table = self._table
        if table is None:
            return {}

        def look() -> dict[str, int]:
            with contextlib.suppress(Moved, Damaged, FileNotFoundError):
                self._books.look()
            with self._mutex, locked(table):
                return table.ended(entry.account, self.writer)

        with contextlib.suppress(Moved, Damaged):
            return await self._in_thread(look)
        return {}

    async def _return_what_is_idle(self) -> None:
        while True:
            await asyncio.sleep(IDLE)
            await self._give_back()

    async def give_back(self) -> None:
        """Return what this process was lent and has not used: it ends."""
        if self._returning is not None:
            self._returning.cancel()
        await self._give_back(all_=True)

    async def _give_back(self, *, all_: bool = False) -> None:
        if self.lending is None or self.writer is None:
            return
        self._post()
        now = {one.counts: one for one in self.budgets}
        for key, entry in list(self._entries.items()):
            budget = now.get(entry.counts)
            if entry.lease is None or budget is None:
                continue
            await self.lending.give_back(self.writer, entry, budget, all_=all_)
            over = entry.leaves <= time.time() and not entry.held and entry not in self._dirty
            if over and self._entries.get(key) is entry:
                del self._entries[key]

    # -- figures -----------------------------------------------------------------------------------

    def lease(self, budget: Budget, scope: str, now: datetime) -> tuple[int, Lease] | None:
        """Return what this process may spend, and what it was told; ``None``: it did not ask."""
        entry = self._entries.get((budget.counts, scope, budget.window_at(now).key))
        return None if entry is None or entry.lease is None else (entry.room, entry.lease)

    def balance(self, budget: Budget, scope: str, now: datetime) -> Balance:
        """Return what stands against a budget for a scope, as the table has it."""
        window = budget.window_at(now)
        table = self._table
        settled = held = 0
        if table is not None:
            if window.since != window.key:
                head = table.find(budget.counts, scope, None)
                settled, held = table.counted(head, window.since) if head else (0, 0)
            else:
                account = table.find(budget.counts, scope, window.key)
                if account:
                    settled, held = table.cells[account + SPENT], table.cells[account + HELD]
        return Balance(budget, scope, window, settled, held)


def _reason(amounts: Amounts | Bound) -> str:
    return (isinstance(amounts, Bound) and amounts.reason) or "nothing limits it"


def _known(amounts: Amounts | Bound) -> Amounts:
    return Amounts(amounts.usd or 0, amounts.tokens or 0, amounts.calls)


def _tell(cells: memoryview, entry: _Entry) -> int:
    """Put what this process has spent and holds into its row; return how much the sum grew."""
    row, account = entry.row, entry.account
    row_spent, row_held = cells[row + ROW_SPENT], cells[row + ROW_HELD]
    spent, held = _fitting(entry.spent) - row_spent, _fitting(entry.held) - row_held
    cells[row + ROW_SPENT] = row_spent + spent
    cells[account + SPENT] = _fitting(cells[account + SPENT] + spent)
    cells[row + ROW_HELD] = row_held + held
    cells[account + HELD] = _fitting(cells[account + HELD] + held)
    return spent + held


def _fitting(amount: int) -> int:
    return max(-LARGEST, min(amount, LARGEST))
