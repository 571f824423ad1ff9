"""The budgets of a client's calls: a hold before each attempt, settled by its written outcome.

Owns the way from a call to the gate and from a record to the gate.  Loaded only by clients that
have budgets.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol

from litellm_ledger._budgets.amounts import Amounts, is_known, spent_by
from litellm_ledger._budgets.bound import Bound
from litellm_ledger._budgets.budget import Budget, check_budgets
from litellm_ledger._budgets.budgets_file import BudgetsFile
from litellm_ledger._budgets.gate import Gate, Ticket
from litellm_ledger._budgets.jobs import Began, what_it_settles
from litellm_ledger._budgets.leasing import Lending
from litellm_ledger._errors import BudgetExceeded, BudgetUnbounded
from litellm_ledger._litellm.calls import Asked
from litellm_ledger._records.money import PICO, whole
from litellm_ledger._records.record import MAX_TEXT, UsageRecord, cut
from litellm_ledger._tracking.calls_in_flight import CallsInFlight

from .bounds import Bounds
from .needs import Need, Needs
from .pricing import Pricing

if TYPE_CHECKING:
    from .paid_stream import Source

__all__ = ["Held", "Holding"]

_log = logging.getLogger("litellm_ledger")

_REFUSED: Final[dict[str, Any]] = {
    "status": "refused",
    "usage_source": "none",
    "cost": Decimal(0),
    "cost_source": "unbilled",
}


class Core(Protocol):
    """What this needs of the client."""

    pricing: Pricing
    calls: CallsInFlight
    on_ready: list[Callable[[], Awaitable[None]]]

    def is_here(self) -> bool:
        """Whether this runs on the client's event loop."""

    async def off_loop(self, work: Callable[..., Any], *args: Any) -> Any:
        """Run what blocks in a thread of the client's."""

    async def acknowledge(self, record: UsageRecord) -> None:
        """Wait until a record is as safe as ``durability`` says."""


class Holding:
    """What one client's budgets hold.

    Attributes:
        gate: decides; made when the client has opened.
        needs: how much is held for a call.
        on_change: called when budgets begin to apply.
        on_settled: called with each outcome that was counted, on any thread.

    Args:
        core: the client's.
        budgets: they all apply; or the file that has them.
        lending: where many machines share their limits.

    Raises:
        OSError, TypeError, ValueError: they cannot be read, or are no budgets.
    """

    def __init__(
        self,
        core: Core,
        budgets: Sequence[Budget] | str | os.PathLike[str],
        lending: Lending | None = None,
    ) -> None:
        self._core = core
        self.lending = lending
        self.needs = Needs(Bounds(core.pricing))
        self._tickets: dict[int, Ticket] = {}
        self._jobs: dict[str, Began] = {}
        self._file: BudgetsFile | None = None
        if isinstance(budgets, str | os.PathLike):
            self._file = BudgetsFile(budgets)
            budgets = self._file.budgets
        self.budgets = check_budgets(budgets)
        self.gate: Gate | None = None
        self.on_change: list[Callable[[], None]] = []
        self.on_settled: Callable[[UsageRecord], None] | None = None
        self._rereading: asyncio.Task[None] | None = None
        core.on_ready.append(self.ready)

    @property
    def units(self) -> frozenset[str]:
        """What the budgets count: what an outcome of unknown cost must say."""
        return frozenset(one.unit for one in self.budgets)

    async def ready(self) -> None:
        """Begin to count, once the ledger is open."""
        calls = self._core.calls
        gate = Gate(calls.directory, self.budgets, self.lending)
        await gate.open(calls.writer)
        if self.gate is None:  # not by another task meanwhile
            self.gate = gate
            calls.on_written(self._written)
            self._changed()

    def _reread(self) -> None:
        """Look at the file of the budgets again, in the background."""
        file = self._file
        if file is not None and file.is_due() and self._rereading is None and self._core.is_here():
            self._rereading = asyncio.get_running_loop().create_task(
                self._look(file), name="litellm-ledger-budgets-file"
            )
            self._rereading.add_done_callback(self._looked)

    async def _look(self, file: BudgetsFile) -> None:
        if await self._core.off_loop(file.look) and self.gate is not None:
            await self.gate.change(file.budgets)
            self.budgets = file.budgets
            self._changed()

    def _changed(self) -> None:
        for hear in self.on_change:
            hear()

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._rereading = None
        if not task.cancelled() and task.exception() is not None:
            _log.error("the new budgets do not apply: %s", task.exception())

    def close(self) -> None:
        """The ledger is closed: what comes now is late."""
        if self._rereading is not None:
            self._rereading.cancel()
        if self.gate is not None:
            self.gate.close(self._core.calls.accepted)
        if self.lending is not None:
            self.lending.close()

    async def give_back(self) -> None:
        """The client closes: what it was lent and has not used goes back."""
        if self.gate is not None:
            await self.gate.give_back()

    def forget_parent(self) -> None:
        """In a forked child: nothing is held."""
        if self.gate is not None:
            self.gate.forget_parent()
            self.gate = None
        self._tickets.clear()
        self._jobs.clear()

    # -- before a request --------------------------------------------------------------------------

    def take_now(self, asked: Asked, tags: Mapping[str, str] | None, now: datetime) -> Held | None:
        """``take`` where there is nothing to say but yes; ``None``: ask ``take``."""
        gate = self.gate
        if gate is None:
            return None
        if self._file is not None:
            self._reread()
        need = self.needs.of(asked, tags, self.budgets)
        try:
            ticket = gate.take_now(need.bound, asked.model, tags, now)
        except (BudgetExceeded, BudgetUnbounded):
            return None
        return None if ticket is None else Held(self, gate, ticket, need)

    async def take(
        self,
        asked: Asked,
        tags: Mapping[str, str] | None,
        *,
        wait: bool = False,
        refused: Callable[[UsageRecord], None] = lambda _record: None,
        **said: Any,
    ) -> Held:
        """Hold what an attempt may cost.

        Args:
            wait: for money of calls in flight to come back.
            refused: hears of the record of a refusal, before the exception is raised.
            said: further fields of that record.

        Raises:
            BudgetExceeded, BudgetUnbounded: nothing may be sent.  That is on record.
            LedgerError: the balances cannot be read.
        """
        gate, now = self.gate, datetime.now(UTC)
        assert gate is not None
        self._reread()
        need, model = self.needs.of(asked, tags, self.budgets), _as_recorded(asked.model)
        try:
            try:
                ticket = await gate.take(need.bound, model, tags, now, wait=wait)
            except BudgetExceeded as exc:
                if not _may_fit(need.bound, exc):
                    raise
                need = await self._core.off_loop(self.needs.counted, asked, tags, self.budgets)
                ticket = await gate.take(need.bound, model, tags, now)
            return Held(self, gate, ticket, need)
        except (BudgetExceeded, BudgetUnbounded) as exc:
            record = UsageRecord(
                ts=now,
                call=asked.call.name,
                model=model,
                tags=dict(tags or {}),
                error=type(exc).__name__,
                **_REFUSED,
                **said,
            )
            record = self._core.calls.note(record)
            refused(record)
            if not self._core.calls.acknowledged(record):
                await self._core.acknowledge(record)
            raise

    def bind(self, ticket: Ticket, number: int) -> None:
        """Settle a ticket by the outcome of the call that this ``started`` record began."""
        ticket.number = number
        self._tickets[number] = ticket

    def settles(self, began: Began) -> None:
        """The next outcome that names this one settles it too, when it is written."""
        self._jobs[began.record] = began

    # -- after it ----------------------------------------------------------------------------------

    def _written(self, number: int, record: UsageRecord) -> None:
        """Settle by an outcome that the operating system has.  On any thread; never fails."""
        gate = self.gate
        if gate is None:
            return
        try:
            spent = spent_by(record, None if record.cost is None else whole(record.cost))
            ticket = self._tickets.pop(number, None) if number else None
            if ticket is not None:
                gate.settle(ticket, spent)
            else:
                gate.count(spent, record.model, record.tags, record.ts or datetime.now(UTC))
            if self._jobs and record.meta:
                began = self._jobs.pop(what_it_settles(record.meta) or "", None)
                if began is not None:
                    gate.count(began.counts, began.model, began.tags, began.ts)
            if self.on_settled is not None:
                self.on_settled(record)
        except Exception:  # noqa: BLE001 - logged; the next rebuild counts it
            _log.exception("an outcome could not be counted for the budgets yet")


class Held:
    """What is held for one attempt.

    Attributes:
        ticket: of the gate.
        need: what was asked for.
    """

    __slots__ = ("_gate", "_holding", "need", "ticket")

    def __init__(self, holding: Holding, gate: Gate, ticket: Ticket, need: Need) -> None:
        self._holding = holding
        self._gate = gate
        self.ticket = ticket
        self.need = need

    def pay_for(self, upstream: Source) -> None:
        """Have a stream paid for while it is read, if that is how it is held for."""
        if self.need.pays and self.ticket.parts:
            from .paid_stream import pump_of

            upstream.pump = pump_of(upstream, self.need.meter(), self)

    def top_up(self, usd: int, tokens: int) -> bool:
        """Hold more at once; ``False``: that cannot be done at once."""
        return self._gate.top_up(self.ticket, Amounts(usd, tokens, 0))

    async def add(self, usd: int, tokens: int) -> None:
        """Hold more.

        Raises:
            BudgetExceeded: there is no room.
        """
        await self._gate.add(self.ticket, Amounts(usd, tokens, 0))

    def is_over(self) -> bool:
        """Whether a window has ended since: then it is another's money."""
        until = self.ticket.until
        return until is not None and datetime.now(UTC) >= until

    def on_started(self) -> dict[str, Any]:
        """Return the members of a ``started`` record."""
        found = self._holds()
        if self.need.whole is not None:
            usd, tokens = self.need.most()
            found |= {"most_picousd": usd, "most_tokens": tokens}
        return found

    def _holds(self) -> dict[str, Any]:
        held, bound, units = self.ticket.held, self.need.bound, self._holding.units
        return {
            "hold_picousd": None if bound.usd is None or "usd" not in units else held.usd,
            "hold_tokens": None if bound.tokens is None or "tokens" not in units else held.tokens,
        }

    def on_outcome(self, fields: Mapping[str, Any], *, billed: bool) -> dict[str, Any]:
        """Return the members of an outcome: what it counts as spent where its cost is unknown."""
        self._holding.needs.seen(self.need, fields)
        found = {**self._holds(), "most_picousd": None, "most_tokens": None}
        status, source = fields.get("status") or "ok", fields.get("usage_source")
        if is_known(status, source, cost_known=fields.get("cost") is not None, billed=billed):
            found["hold_picousd"] = None
        if not billed or (source == "provider" and fields.get("total_tokens") is not None):
            found["hold_tokens"] = None
        return found

    def bind(self, started: UsageRecord) -> None:
        """Settle it by the outcome of the call that this record began."""
        if started.seq:
            self._holding.bind(self.ticket, started.seq)

    def drop(self) -> None:
        """Nothing was sent: give it back, unless its call has begun."""
        if not self.ticket.number:
            self._gate.drop(self.ticket)


def _as_recorded(model: str | None) -> str | None:
    return model if model is None or (model.isascii() and len(model) <= MAX_TEXT) else cut(model)


_BYTES_A_TOKEN: Final = 5
"""Of a text that has few tokens for its bytes."""


def _may_fit(bound: Bound, refused: BudgetExceeded) -> bool:
    """Whether there may be room for a call, if its input is counted properly."""
    if refused.unit == "calls" or bound.usd is None or bound.tokens is None:
        return False
    less = bound.given - bound.given // _BYTES_A_TOKEN
    saved: Decimal | int = less
    if refused.unit == "usd":
        fewer = bound.costs(bound.given - less, bound.made)
        saved = Decimal(bound.costs(bound.given, bound.made) - fewer).scaleb(-PICO)
    return refused.settled + refused.held + refused.needed - saved <= refused.limit
