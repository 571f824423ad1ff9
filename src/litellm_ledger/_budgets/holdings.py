"""What one process has spent and holds, and how the table is told.

Owns the process's entries, its row of the table, and the lock among its threads.  What cannot be
told now is kept and told later: so a table that was lost is told again.  Never decides about a
call, never reads the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from .amounts import Amounts
from .books import locked
from .budget import Budget
from .entries import Entry, Parts, Ticket
from .table import (
    BUSY,
    CHANGES,
    CLAIM,
    DONE,
    HELD,
    LEFT,
    NAMED,
    POSTS,
    ROW_HELD,
    ROW_SPENT,
    SPENT,
    TICKETS,
    UPTO,
    Damaged,
    Full,
    Moved,
    Spot,
    Table,
)
from .waiting import Waiting
from .windows import Window

__all__ = ["Busy", "Holdings"]

_log = logging.getLogger("litellm_ledger")

SPINS: Final = 8
"""Tries for the lock at once: it is held for microseconds.  Then a thread waits for it."""
MOST_ENTRIES: Final = 4096


class Busy(Exception):
    """The lock is held."""


class Holdings:
    """The side of one process.

    Args:
        renew: has the table opened anew, soon and from any thread; told whether it is full.

    Attributes:
        writer: of this process.
        loop: where what cannot be told at once is told again.
        table: ``None``: not opened yet.
        current: of each budget, by scope, the entry of now.
        unit_of: of each budget that ever applied, which of ``Amounts`` it counts.
        waiting: the calls that wait for money to come back.
        closed: nothing is told later any more.
    """

    def __init__(self, renew: Callable[[bool], None]) -> None:
        self._renew = renew
        self.writer: str | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.table: Table | None = None
        self.current: dict[str, dict[str, Entry]] = {}
        self.unit_of: dict[str, int] = {}
        self.waiting = Waiting(lambda: self.table)
        self.closed = False
        self._own = 0
        self._rows: dict[int, int] = {}
        self._mask = 0
        self._entries: dict[tuple[str, str, int], Entry] = {}
        self._dirty: set[Entry] = set()
        self._inbox: deque[tuple[Ticket, Amounts | None]] = deque()
        self._mutex = threading.Lock()
        self._timer: asyncio.TimerHandle | None = None

    def use(self, units: Iterable[tuple[Budget, int]]) -> None:
        """Let these budgets apply; each with the place of its unit in ``Amounts``."""
        units = list(units)
        self.current = {budget.counts: {} for budget, _ in units}
        self.unit_of.update({budget.counts: unit for budget, unit in units})

    def enter(self, table: Table) -> None:
        """Take a table as ours, and tell it what we have spent and hold."""
        with self._mutex:
            before, self.table = self.table, table
            self._own = 0
            self._mask = sum({1 << (table.measure(counts) or 0) for counts in self.current})
            self._rows = {}
            for entry in self._entries.values():
                entry.account = entry.head = entry.row = 0
            self._dirty.update(self._entries.values())
        if before is not None:
            before.close()
        self.post()

    def close(self, upto: int) -> None:
        """Tell what is left; nothing later, unless an outcome comes late.

        Args:
            upto: the last number that the writer has given.
        """
        self.closed = True
        self.waiting.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        table = self.table
        if table is None or not self.post(patient=True):
            return
        if any(entry.held for entry in self._entries.values()):
            return
        with contextlib.suppress(Moved, Damaged, OSError), self._mutex, locked(table):
            cells = table.cells
            if self._own and cells[self._own + POSTS] == self._mask:
                cells[self._own + UPTO] = upto
                cells[self._own + DONE] |= self._mask
                cells[self._own + POSTS] = 0

    # -- entries -----------------------------------------------------------------------------------

    def find(self, budget: Budget, scope: str, window: Window) -> Entry | None:
        """Return the entry of a window, if there is one."""
        return self._entries.get((budget.counts, scope, window.key))

    def entry(self, budget: Budget, scope: str, window: Window) -> Entry:
        """Return the entry of a window; a new one if need be."""
        found = self.find(budget, scope, window)
        if found is not None:
            return found
        if len(self._entries) >= MOST_ENTRIES:
            for key, old in list(self._entries.items()):
                if not old.held and old not in self._dirty and old.row and not old.lease:
                    del self._entries[key]
                    self.current.get(key[0], {}).pop(key[1], None)
        for current in self.current.values():
            if len(current) >= MOST_ENTRIES:
                current.clear()
        leaves = int(budget.leaves_at(window.key).timestamp())
        entry = Entry(budget.counts, scope, window, leaves)
        return self._entries.setdefault((budget.counts, scope, window.key), entry)

    def lent(self) -> list[Entry]:
        """Return the entries that have a lease."""
        return [entry for entry in list(self._entries.values()) if entry.lease is not None]

    def forget(self, entry: Entry) -> None:
        """Keep an entry no longer, if its window no longer counts and nothing is open."""
        if entry.leaves <= time.time() and not entry.held and entry not in self._dirty:
            key = (entry.counts, entry.scope, entry.window.key)
            if self._entries.get(key) is entry:
                del self._entries[key]

    # -- under the lock ----------------------------------------------------------------------------

    def acquire(self) -> Table:
        """Take the lock of the table, and that of this process.  Never waits.

        Raises:
            Busy: one of them is held.
            Moved, Damaged, Full: the table has to be seen to first.
        """
        table = self.table
        if table is None:
            raise Moved
        if not self._mutex.acquire(blocking=False):
            raise Busy
        try:
            for _ in range(SPINS):
                if table.try_lock():
                    break
                os.sched_yield()
            else:
                raise Busy
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

    def release(self, table: Table) -> None:
        """Give both locks back, and tell what came meanwhile."""
        table.unlock()
        self._mutex.release()
        if self._inbox:
            self.post()

    def _claim_row(self, table: Table) -> None:
        """Make the writer's row ours: it is new, or was taken for that of a dead process."""
        assert self.writer is not None
        at = table.add_writer(self.writer)
        table.cells[at + DONE] = 0
        table.cells[at + POSTS] = self._mask
        self._rows = {account: row for row, account in table.rows_of(at)}
        self._own = at
        self._dirty.update(self._entries.values())

    def place(self, table: Table, entry: Entry) -> None:
        """Find or make the account and the row of an entry.  Under the lock."""
        measure = table.measure(entry.counts)
        if measure is None:
            raise Damaged("a budget is missing")
        account = table.account(
            Spot(measure, entry.counts, entry.scope, entry.window.key, entry.leaves, entry.rolls)
        )
        row = self._rows.get(account)
        new = not (entry.spent or entry.held or entry in self._dirty)
        if row is None:
            row = self._rows[account] = table.add_row(self._own, account)
        elif new:  # dropped here for want of space, and it is all there
            entry.spent, entry.held = table.cells[row + ROW_SPENT], table.cells[row + ROW_HELD]
        if entry.rolls:
            entry.head = table.find(entry.counts, entry.scope, None)
        entry.account, entry.row = account, row

    def draw(self) -> int | None:
        """Draw a number for a call that waits: a lower one goes first, in all processes.

        ``None``: the lock is held, or there is no table now.
        """
        table = self.table
        if table is None or not self._mutex.acquire(blocking=False):
            return None
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
        return None

    def ended(self, entry: Entry) -> dict[str, int]:
        """Return what writers of this ledger have spent that ended.  Waits for the lock.

        Raises:
            Moved, Damaged: the table has to be seen to first.
        """
        table = self.table
        if table is None:
            return {}
        with self._mutex, locked(table):
            return table.ended(entry.account, self.writer)

    # -- where all is at hand ----------------------------------------------------------------------

    def hold_at_hand(self, parts: Parts) -> bool:  # noqa: C901 - a decision in one frame, for speed
        """Hold what nothing speaks against, in one frame; ``False``: nothing was done."""
        table = self.table
        if table is None or not self._mutex.acquire(blocking=False):
            return False
        try:
            if not table.at_hand():
                return False
            try:
                cells = table.cells
                if cells[self._own + POSTS] != self._mask:
                    return False
                for need, entry in parts:
                    account = entry.account
                    if entry.head:
                        settled, held = table.counted(entry.head, entry.window.since)
                    else:
                        settled, held = cells[account + SPENT], cells[account + HELD]
                    if cells[account + CLAIM] or settled + held + need > entry.limit:
                        return False
                    if entry.spent + entry.held + need > entry.room:
                        return False
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
            return False
        finally:
            self._mutex.release()
        if self._inbox:
            self.post()
        return True

    def settle(self, ticket: Ticket, actual: Amounts | None) -> None:
        """Spend what was used, and hold no more of it; told now or soon.  Never fails.

        Args:
            actual: ``None``: all that was held.
        """
        ticket.settled = True
        if ticket.parts and not self._settle_at_hand(ticket.parts, actual):
            self._inbox.append((ticket, actual))
            self.post()

    def _settle_at_hand(  # noqa: C901 - a settlement in one frame, for speed
        self, parts: Parts, actual: Amounts | None
    ) -> bool:
        """Settle where all is at hand, in one frame; ``False``: nothing was done."""
        table = self.table
        if table is None or self._inbox or self._dirty or not self._mutex.acquire(blocking=False):
            return False
        done = False
        try:
            if not table.at_hand():
                return False
            try:
                cells, units = table.cells, self.unit_of
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
        except (IndexError, ValueError):  # beyond what a cell holds
            if not done:
                return False
            self._dirty.update(entry for _, entry in parts)
        finally:
            self._mutex.release()
        if self.waiting:
            self.on_loop(self.waiting.wake)
        if self._inbox or self._dirty:
            self.post()
        return True

    # -- telling the table -------------------------------------------------------------------------

    def post(self, *, patient: bool = False) -> bool:
        """Tell the table what is new; whether that is done.  Never raises."""
        while self._inbox or self._dirty:
            if not self._mutex.acquire(blocking=False):
                return False  # the one that has it goes on with this
            table = self.table
            try:
                self._take_inbox()
                if table is None or not self._post_to(table, patient):
                    self._post_later()
                    return False
            except (Moved, Damaged, IndexError, ValueError):
                self._renew(False)
                return False
            except Full:
                self._renew(True)
                return False
            except OSError as exc:
                _log.error("the balances of the budgets cannot be told: %s", exc)
                return False
            finally:
                self._mutex.release()
        return True

    def _take_inbox(self) -> None:
        units = self.unit_of
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
                    self.place(table, entry)
                table.begin((entry.account,))
                back = entry.tell(cells) < 0 or back
                table.end()
                self._dirty.discard(entry)
            cells[CHANGES] += 1
        finally:
            table.unlock()
        if back and self.waiting:
            self.on_loop(self.waiting.wake)
        return True

    def _post_later(self) -> None:
        def later() -> None:
            if self._timer is None and not self.closed and self.loop is not None:
                self._timer = self.loop.call_later(0.001, again)

        def again() -> None:
            self._timer = None
            self.post()

        self.on_loop(later)

    def on_loop(self, what: Callable[[], None]) -> None:
        """Run this on the loop soon, from any thread; not after the end."""
        loop = self.loop
        if loop is not None and not self.closed:
            with contextlib.suppress(RuntimeError):  # closed
                loop.call_soon_threadsafe(what)
