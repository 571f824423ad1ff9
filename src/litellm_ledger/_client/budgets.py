"""``ClientBudgets``: what a user sees of a client's budgets.

Owns ``client.budgets``, and who hears what: the command line which budgets are enforced, callback
and webhook which thresholds are reached.  All that blocks is in a thread: no call waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from litellm_ledger._budgets.alerts import BudgetAlert, BudgetAlerts
from litellm_ledger._budgets.known import remember
from litellm_ledger._budgets.status import BudgetStatus, SharedLimit, standing, status_of
from litellm_ledger._records.money import usd
from litellm_ledger._runtime.disk_thread import DiskThread
from litellm_ledger._runtime.webhook import check_webhook

if TYPE_CHECKING:
    from litellm_ledger._budgets.budget import Budget
    from litellm_ledger._calls.core import ClientCore
    from litellm_ledger._calls.holding import Holding
    from litellm_ledger._records.record import UsageRecord

__all__ = ["ClientBudgets"]

_log = logging.getLogger("litellm_ledger")

_LAST: Final = 2.0
"""Seconds for which a close waits for alerts that are being sent."""


class ClientBudgets:
    """The budgets of a client: ``await client.budgets.status()``."""

    def __init__(
        self,
        core: ClientCore,
        *,
        callback: Callable[[BudgetAlert], object] | None = None,
        webhook: str | None = None,
    ) -> None:
        if webhook is not None:
            check_webhook(webhook, "budget_webhook")  # here, where the mistake is made
        if core.holding is None and (callback is not None or webhook is not None):
            raise TypeError("on_budget_alert and budget_webhook need budgets")
        self._core = core
        self._make = partial(BudgetAlerts, callback=callback, webhook=webhook)
        self._alerts: BudgetAlerts | None = None
        self._begin()
        if core.holding is not None:
            core.holding.on_change.append(self._changed)
            core.holding.on_settled = self._settled
            core.on_drain.append(self._drain)

    async def status(self) -> list[BudgetStatus]:
        """Return what of each budget is spent, held and free, scope by scope.

        All that is recorded so far is written first; then the ledger is read, in a thread: the
        lines of the windows that count, some 0.15 s for each 10,000.  Cancelled, nothing is left.

        Raises:
            LedgerClosed: the client is closed.
            LedgerPathError: the ledger cannot be read.
            MissingExtra: some of it is in the archive, and DuckDB is not installed.
        """
        await self._core.ready()
        holding = self._core.holding
        if holding is None:
            return []
        await self._core.tracker.flush()
        thread = DiskThread("litellm-ledger-budget-status")
        try:
            root = self._core.calls.directory
            work = thread.submit(_statuses, root, holding.budgets)
            found: list[BudgetStatus] = await asyncio.wrap_future(work)
        finally:
            thread.stop()
        if holding.lending is None:
            return found
        return [self._shared(holding, one) for one in found]

    def _shared(self, holding: Holding, one: BudgetStatus) -> BudgetStatus:
        """Say what is known of the other machines."""
        gate, lending = holding.gate, holding.lending
        budget = next(budget for budget in holding.budgets if budget.label == one.budget)
        if gate is None or lending is None or budget.mode == "soft":
            return one
        said: Callable[[int], Any] = usd if budget.unit == "usd" else int
        room, lease = gate.lease(budget, one.scope, datetime.now(UTC)) or (0, None)
        shared = SharedLimit(
            leased=said(room),
            lent=said(lease.lent if lease else 0),
            used=said(lease.used if lease else 0),
            away=lending.away,
        )
        return msgspec.structs.replace(one, shared=shared)

    # -- who hears what ------------------------------------------------------------------------

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._thread = DiskThread("litellm-ledger-budget-alerts")
        self._last: Future[Any] | None = None

    def _in_background(self, work: Callable[..., Any], *args: Any) -> None:
        if self._pid != os.getpid():  # a forked child: the parent's thread is not there
            self._begin()
        try:
            self._last = self._thread.submit(work, *args)
        except RuntimeError:  # no thread can be started: the interpreter ends
            _log.warning("nobody hears which part of a budget is spent: this process ends")

    def _changed(self) -> None:
        """These budgets apply from now on."""
        core, holding = self._core, self._core.holding
        assert holding is not None
        root = core.calls.directory
        if self._alerts is None:
            self._alerts = self._make(root)
        at = holding.lending.place if holding.lending is not None else ""
        self._in_background(remember, root, core.calls.writer, holding.budgets, at)

    def _settled(self, record: UsageRecord) -> None:
        """Look whether an outcome has reached a threshold.  On any thread."""
        holding, alerts = self._core.holding, self._alerts
        if holding is None or alerts is None or holding.gate is None:
            return
        now = datetime.now(UTC)
        for budget in holding.budgets:
            if budget.warn_units:
                scope = budget.scope_of(record.model, record.tags)
                if scope is not None:
                    found = alerts.new([holding.gate.balance(budget, scope, now)], now)
                    if found:
                        self._in_background(alerts.tell, found)

    async def _drain(self) -> None:
        """Wait a moment for what is being told."""
        last = self._last
        if last is not None and self._pid == os.getpid():
            await asyncio.wait({asyncio.wrap_future(last)}, timeout=_LAST)


def _statuses(root: Path, budgets: Sequence[Budget]) -> list[BudgetStatus]:
    now = datetime.now(UTC)
    return [status_of(one, now) for one in standing(root, budgets, now)]
