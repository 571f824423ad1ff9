"""The gate: a call goes through if every budget has room for what it may cost.

Owns the decision and the order of those who wait.  A hold is taken from all budgets that apply, or
from none, in one atomic step: settled + what is held + this hold <= limit.  Never reads the ledger
on the event loop, never makes a call.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from litellm_ledger._errors import BudgetExceeded, BudgetUnbounded
from litellm_ledger._records.money import usd

from .amounts import NOTHING, UNITS, Amounts
from .background import Background
from .bound import Bound
from .budget import Budget
from .entries import Entry, Parts, Ticket
from .holdings import Busy, Holdings
from .leasing import IDLE, Lease, Lending
from .table import CLAIM, HELD, SPENT, Damaged, Forgotten, Full, Moved, Table
from .waiting import claim, claimed, unclaim
from .windows import Window

__all__ = ["Amounts", "Balance", "Gate", "Ticket"]


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


_Plan = tuple[Callable[[str | None, Mapping[str, str] | None], str | None], dict[str, Entry], int]
_Want = tuple[Budget, Entry, int]


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
        self._begin(budgets)

    def _begin(self, budgets: Sequence[Budget]) -> None:
        """What belongs to one process: nothing is held."""
        self._background = Background(self.root, budgets)
        self._holdings: Holdings = self._background.holdings
        self._lines: dict[tuple[tuple[str, str], ...], asyncio.Lock] = {}
        self._returning: asyncio.Task[None] | None = None
        self._use(budgets)

    def forget_parent(self) -> None:
        """In a forked child: the parent's holds are its own."""
        if self.lending is not None:
            self.lending.forget_parent()
        table = self._holdings.table
        self._begin(self.budgets)
        if table is not None:
            table.close()

    # -- life --------------------------------------------------------------------------------------

    async def open(self, writer: str) -> None:
        """Begin to count for a writer of this process; what the ledger says is read if need be.

        Raises:
            LedgerPathError: the table cannot be made, or the ledger cannot be read.
        """
        await self._background.open(writer)
        if self.lending is not None:
            self._returning = self._background.task(self._return_what_is_idle())

    async def change(self, budgets: Sequence[Budget]) -> None:
        """Let these budgets apply from now on; what others count is read first.

        Raises:
            LedgerError: the ledger cannot be read, or there are too many; the old ones still apply.
        """
        table = await self._background.read_for(budgets)
        self._use(budgets)
        self._holdings.enter(table)

    def _use(self, budgets: Sequence[Budget]) -> None:
        self.budgets = tuple(budgets)
        self._units = [(budget, UNITS[budget.unit]) for budget in self.budgets]
        self._holdings.use(self._units)
        current = self._holdings.current
        self._plan: list[_Plan] = [
            (one.scope_of, current[one.counts], unit) for one, unit in self._units
        ]

    def close(self, upto: int = 0) -> None:
        """Count no more, unless an outcome comes late.

        Args:
            upto: the last number that the writer has given.
        """
        if self._returning is not None:
            self._returning.cancel()
        self._background.close()
        self._holdings.close(upto)

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
        self._background.look_soon()
        ticket = self._take_at_hand(amounts, model, tags, now)
        if ticket is not None:
            return ticket
        wants = self._wants(amounts, model, tags, now)
        if not wants:
            return self._ticket(amounts, [])
        try:
            self._step(wants)
        except (Busy, _Short, Moved, Damaged, Full):
            return None
        return self._ticket(amounts, wants)

    def _take_at_hand(
        self,
        amounts: Amounts | Bound,
        model: str | None,
        tags: Mapping[str, str] | None,
        now: datetime,
    ) -> Ticket | None:
        """Take what nothing speaks against, where all is at hand; ``None``: ask the long way."""
        parts: Parts = []
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
        if not parts or not self._holdings.hold_at_hand(parts):
            return None
        held = amounts if type(amounts) is Amounts else _known(amounts)
        return Ticket(self._holdings, held, until, parts)

    def _ticket(self, amounts: Amounts | Bound, wants: list[_Want]) -> Ticket:
        until = min([entry.window.end for _, entry, _ in wants], default=None)
        parts = [(need, entry) for _, entry, need in wants]
        return Ticket(self._holdings, _known(amounts), until, parts)

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
        self._background.look_soon()
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
        key = tuple((entry.counts, entry.scope) for _, entry, _ in wants)
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
                    await self._holdings.waiting.change(asyncio.get_running_loop())
                    self._background.look_soon()
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
        while (number := self._holdings.draw()) is None:
            await self._background.lock_is_free()
        return number

    def _unclaim(self, wants: list[_Want], number: int) -> None:
        """Wait no more."""
        table = self._holdings.table
        if table is not None:
            unclaim(table.cells, [entry.account for _, entry, _ in wants], number)
            self._holdings.waiting.wake()

    async def _take_step(self, wants: list[_Want], number: int) -> None:
        while True:
            try:
                return self._step(wants, number)
            except Busy:
                await self._background.lock_is_free()
            except _Short as exc:
                await self._ask_for_more(exc.wants)
            except Full:
                await self._background.renew(self._background.books.grow)
            except Forgotten:
                await self._background.renew(self._background.books.remake)
            except (Moved, Damaged):
                await self._background.renew()

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
            entry = self._holdings.entry(budget, scope, budget.window_at(now))
            if budget.mode != "soft":
                entry.limit = budget.limit_units
                if self.lending is not None and entry.lease is None:
                    entry.lease, entry.room = Lease(), 0
                self._holdings.current[budget.counts][scope] = entry
            wants.append((budget, entry, need))
        return wants

    def _step(self, wants: list[_Want], number: int = 0) -> None:
        """Take all or nothing.

        Args:
            number: of a call that waits; it claims room that is not there yet.

        Raises:
            BudgetExceeded: there is no room.
            Moved, Damaged, Full, Busy: the table has to be seen to first.
            _Short: more has to be asked for first.
        """
        table = self._holdings.acquire()
        try:
            cells = table.cells
            refused = self._without_room(table, wants, number)
            if refused:
                if number:
                    claim(cells, ((one.account, need) for _, one, need in refused), number)
                raise _refusal(table, refused)
            short = [want for want in wants if want[1].lease and want[1].is_short(want[2])]
            if short:
                raise _Short(short)
            table.begin([entry.account for _, entry, _ in wants])
            for _, entry, need in wants:
                entry.held += need
                entry.tell(cells)
            table.end()
        except (IndexError, ValueError) as exc:
            raise Damaged(str(exc)) from exc
        finally:
            self._holdings.release(table)

    def _without_room(self, table: Table, wants: list[_Want], number: int) -> list[_Want]:
        cells = table.cells
        refused: list[_Want] = []
        for want in wants:
            budget, entry, need = want
            if not entry.row:
                self._holdings.place(table, entry)
            if budget.mode == "soft":
                continue
            settled, held = entry.stands(table)
            other = cells[entry.account + CLAIM]
            if other and other != number and not 0 < number < other:
                held += claimed(cells, entry.account)
            if settled + held + need > budget.limit_units:
                refused.append(want)
        return refused

    # -- after a decision --------------------------------------------------------------------------

    def top_up(self, ticket: Ticket, more: Amounts) -> bool:
        """Hold more for a call in flight; ``False``, and nothing is held, where there is no room.

        Never waits: ``False`` also where the table cannot be changed at once.
        """
        wants = self._more(ticket, more)
        try:
            if wants:
                self._step(wants)
        except (BudgetExceeded, Busy, _Short, Moved, Damaged, Full):
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
                wants.append((budget, entry, more[unit] or 0))
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
        if not ticket.settled and ticket.born is self._holdings:  # not of a forked child's parent
            self._holdings.settle(ticket, actual)

    def drop(self, ticket: Ticket) -> None:
        """Nothing was sent: what was held comes back."""
        self.settle(ticket, NOTHING)

    def count(
        self, amounts: Amounts, model: str | None, tags: Mapping[str, str] | None, ts: datetime
    ) -> None:
        """Count what a call has cost that held nothing: of other code, or a user's own record."""
        if not any(amounts):
            return
        parts: Parts = []
        for budget, _ in self._units:
            scope = budget.scope_of(model, tags)
            if scope is not None:
                parts.append((0, self._holdings.entry(budget, scope, budget.window_at(ts))))
        self._holdings.settle(Ticket(self._holdings, NOTHING, None, parts), amounts)

    # -- a limit of many machines ------------------------------------------------------------------

    async def _ask_for_more(self, wants: list[_Want]) -> None:
        """Have room in this process's leases.

        Raises:
            BudgetExceeded: there is none.
        """
        writer = self._holdings.writer
        assert self.lending is not None
        assert writer is not None
        for budget, entry, need in wants:
            await self.lending.more(writer, entry, budget, need, partial(self._ended, entry))

    async def _ended(self, entry: Entry) -> dict[str, int]:
        """Return what other processes of this ledger have spent that ended."""

        def look() -> dict[str, int]:
            with contextlib.suppress(Moved, Damaged, FileNotFoundError):
                self._background.books.look()
            return self._holdings.ended(entry)

        with contextlib.suppress(Moved, Damaged):
            return await self._background.in_thread(look)
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
        holdings = self._holdings
        if self.lending is None or holdings.writer is None:
            return
        holdings.post()
        now = {one.counts: one for one in self.budgets}
        for entry in holdings.lent():
            budget = now.get(entry.counts)
            if budget is not None:
                await self.lending.give_back(holdings.writer, entry, budget, all_=all_)
                holdings.forget(entry)

    # -- figures -----------------------------------------------------------------------------------

    def lease(self, budget: Budget, scope: str, now: datetime) -> tuple[int, Lease] | None:
        """Return what this process may spend, and what it was told; ``None``: it did not ask."""
        entry = self._holdings.find(budget, scope, budget.window_at(now))
        return None if entry is None or entry.lease is None else (entry.room, entry.lease)

    def balance(self, budget: Budget, scope: str, now: datetime) -> Balance:
        """Return what stands against a budget for a scope, as the table has it."""
        window = budget.window_at(now)
        table = self._holdings.table
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


def _refusal(table: Table, refused: list[_Want]) -> BudgetExceeded:
    errors = []
    for budget, entry, need in refused:
        settled, held = entry.stands(table)
        said = usd if budget.unit == "usd" else int
        error = BudgetExceeded(
            budget=budget.label,
            unit=budget.unit,
            scope=entry.scope,
            limit=said(budget.limit_units),
            settled=said(settled),
            held=said(held),
            needed=said(need),
            resets_at=None if entry.window.end.year > 9000 else entry.window.end,
        )
        if not error.passes:
            return error  # the one that waiting does not help
        errors.append(error)
    return errors[0]


def _reason(amounts: Amounts | Bound) -> str:
    return (isinstance(amounts, Bound) and amounts.reason) or "nothing limits it"


def _known(amounts: Amounts | Bound) -> Amounts:
    return Amounts(amounts.usd or 0, amounts.tokens or 0, amounts.calls)
