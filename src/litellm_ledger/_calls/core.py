"""What all views of one client share: its life, the streams that are open, the last words on cost.

Owns the ledger's tracker, the close, and what a stream needs of its client.
Never makes a call itself: that is ``_calls.call``.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import logging
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiofiles.os

from litellm_ledger._errors import LedgerClosed
from litellm_ledger._litellm import load as _litellm
from litellm_ledger._litellm.calls import Asked
from litellm_ledger._litellm.connections import Strays, acquire_http, release_http
from litellm_ledger._litellm.estimates import estimate
from litellm_ledger._litellm.own_calls import our_context
from litellm_ledger._litellm.stream_readers import StreamReader
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._records.statistics import Statistics
from litellm_ledger._runtime import process as _process
from litellm_ledger._runtime.cancellation import outlive_cancellation, seconds, wait_until
from litellm_ledger._runtime.disk_thread import DiskThread
from litellm_ledger._runtime.limits import Limit
from litellm_ledger._tracking.tracker import UsageTracker, serve_client
from litellm_ledger._writing.state import State, refusal

from .draining import Draining
from .pricing import Pricing

if TYPE_CHECKING:
    from litellm_ledger._prices.own import ModelPrice

    from .batches import Batches
    from .holding import Holding

__all__ = ["ClientCore"]

_log = logging.getLogger("litellm_ledger")

_HTTP: Final = 0.5
"""Seconds that closing idle connections gets, even when the ledger took all the time there was."""
_ESTIMATES: Final = 2.0
"""Seconds at the end of a close for the estimates of streams that were still being read on."""


class Unsettled(Protocol):
    """A stream, or a call that somebody else makes, until its outcome is on record."""

    ended: bool

    def settle_now(self) -> None:
        """Put the outcome down without a loop."""


class ClientCore:
    """One client, however many views of it there are; its options are ``LiteLLMClient``'s.

    Attributes:
        on_ready: awaited when the client has opened, by every call until it has returned once.
        on_close: called first when it closes.
        on_drain: awaited, within the deadline, while it closes.
        holding: the budgets of its calls, if it has any.
    """

    def __init__(
        self,
        tracker: UsageTracker,
        *,
        drain_timeout: float,
        ack_timeout: float,
        fetch_prices: bool,
        max_concurrency: int | None,
        prices: Mapping[str, ModelPrice | Sequence[ModelPrice]] | None,
        track_in_flight: bool,
    ) -> None:
        self.tracker = tracker
        self.on_ready: list[Callable[[], Awaitable[None]]] = []
        self.on_close: list[Callable[[], None]] = []
        self.on_drain: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.ack_timeout = ack_timeout
        self.track_in_flight = track_in_flight
        self._drain_timeout = drain_timeout
        self._fetch_prices = fetch_prices
        if fetch_prices:
            _litellm.expect_fetched_prices()
        self._background: set[asyncio.Task[None]] = set()
        self._streams: set[Unsettled] = set()
        self._at_exit: weakref.finalize[..., Any] | None = None
        self._begin(max_concurrency)
        self.calls = serve_client(tracker, self.aclose)
        self.holding: Holding | None = None
        self.pricing = Pricing(prices, self.calls.keep_price)
        _process.inherits(self.forget_parent)

    def _begin(self, max_concurrency: int | None) -> None:
        """What belongs to one process and one loop: nothing is under way."""
        self.limit = Limit(max_concurrency)
        self.draining = Draining()
        self.strays = Strays()
        self.repeated = 0
        self._estimator = DiskThread("litellm-ledger-estimate")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None

    def forget_parent(self) -> None:
        """In a forked child: no loop, no streams, nothing to settle."""
        if self._at_exit is not None:
            self._at_exit.detach()
        for upstream in self._streams:
            upstream.ended = True
        self._streams.clear()
        self._background.clear()
        self.__dict__.pop("batches", None)  # its locks may be held in the parent, for ever here
        self._begin(self.limit.most)
        if self.holding is not None:
            self.holding.forget_parent()
            self.on_ready.append(self.holding.ready)

    @cached_property
    def batches(self) -> Batches:
        """Which jobs have been counted; loaded by the first call about one."""
        from .batches import Batches

        return Batches(self.tracker, self.pricing, self.strays, self.off_loop, self)

    # -- life ----------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Open if need be; raise if closed, failed, or on another loop."""
        self.check_open()
        await self.calls.ready()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            acquire_http(self._loop)
            self._arm()
        while self.on_ready:
            first = self.on_ready[0]
            await first()
            if first in self.on_ready:  # calls that came meanwhile have waited for it as well
                self.on_ready.remove(first)

    def is_idle(self) -> bool:
        """Whether ``ready`` has nothing to do, and nothing waits for the ledger."""
        return (
            self._loop is not None
            and self._closing is None
            and not self.on_ready
            and self.calls.idle()
        )

    def is_here(self) -> bool:
        """Whether this runs on the client's event loop."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    async def ready_here(self) -> bool:
        """``ready``, unless this runs on another loop than the client's; tell whether it does not.

        For calls that others make: they may come from anywhere.
        """
        if self._loop is None or self.is_here():
            await self.ready()
            return True
        self.check_open()
        return False

    def check_open(self) -> None:
        """Raise ``LedgerClosed`` if the client is closed or closing."""
        if self._closing is not None:
            state = State.CLOSED if self._closing.done() else State.DRAINING
            raise LedgerClosed(refusal(state, "the client"))

    async def litellm(self) -> ModuleType:
        """Return LiteLLM, imported off the loop by the first call."""
        return _litellm.loaded() or await _litellm.load(fetch_prices=self._fetch_prices)

    async def warm_up(self) -> None:
        """Import LiteLLM and what its first call needs, in a thread."""
        await _litellm.warm_up(fetch_prices=self._fetch_prices)

    async def aclose(self, timeout: float | None = None) -> None:
        """Close once, for all who ask; see ``LiteLLMClient.aclose``."""
        if self._loop is not asyncio.get_running_loop():
            await self.tracker.aclose(timeout)  # never opened, or its loop is gone
            return
        if self._closing is None:
            budget = self._drain_timeout if timeout is None else seconds("timeout", timeout)
            self.limit.close(lambda: LedgerClosed(refusal(State.DRAINING, "the client")))
            self._closing = self._loop.create_task(
                self._close(budget), name="litellm-ledger-client", context=contextvars.Context()
            )
        await outlive_cancellation(self._closing)

    async def _close(self, budget: float) -> None:
        deadline = time.monotonic() + budget
        assert self._loop is not None
        for stop in self.on_close:
            stop()
        flushing = [
            self._loop.create_task(drain(), name="litellm-ledger-flush") for drain in self.on_drain
        ]
        try:
            self.draining.end_within(budget - min(_ESTIMATES, budget / 2))
            for task in list(self._background):  # streams read on, estimates being computed
                await wait_until(task, deadline)
            for task in flushing:
                await wait_until(task, deadline - min(_ESTIMATES, budget / 2))
        finally:
            for task in flushing:
                task.cancel()
            try:
                await self.tracker.aclose(max(0.1, deadline - time.monotonic()))
            finally:
                if self.holding is not None:
                    if self.holding.lending is not None:  # all outcomes are written now
                        back = self._loop.create_task(self.holding.give_back())
                        await wait_until(back, max(deadline, time.monotonic() + _HTTP))
                        back.cancel()
                    self.holding.close()
                self._rest()
                closing = self._loop.create_task(self._release(self._loop))
                await wait_until(closing, max(deadline, time.monotonic() + _HTTP))
                closing.cancel()

    async def _release(self, loop: asyncio.AbstractEventLoop) -> None:
        await self.strays.close()
        await release_http(loop)

    def _rest(self) -> None:
        """Leave nothing behind once the client is closed and its last stream has ended."""
        if not self._streams:
            self._estimator.stop()
            self._estimator = DiskThread("litellm-ledger-estimate")  # a call may still be in flight
            if self._at_exit is not None:
                self._at_exit.detach()

    def _arm(self) -> None:
        if self._at_exit is None or not self._at_exit.alive:
            self._at_exit = _process.at_exit(_settle_all, self._streams, self._background)

    def statistics(self) -> Statistics:
        """Return the tracker's, and what the client itself counts."""
        return dataclasses.replace(
            self.tracker.statistics(),
            active=self.limit.active,
            waiting_for_slot=self.limit.waiting,
            max_concurrency=self.limit.most,
            repeated=self.repeated,
        )

    # -- what a stream needs of its client -------------------------------------------------------

    def begin(self, upstream: Unsettled) -> None:
        """Remember a stream until ``ended``: whatever happens, it is settled at the very end."""
        self._streams.add(upstream)
        self._arm()

    def ended(self, upstream: Unsettled) -> None:
        """Forget a stream: it is settled."""
        self._streams.discard(upstream)
        self.close_strays()
        if self._closing is not None and self._closing.done():
            self._rest()

    def close_strays(self) -> None:
        """Close what LiteLLM has dropped and what has nothing under way, in a task."""
        if self.strays and self.is_here():
            self.in_background(self.strays.close())

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run the end of a stream as a task that ``aclose`` waits for."""
        assert self._loop is not None
        task = self._loop.create_task(work, name="litellm-ledger-stream", context=our_context())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def off_loop(self, work: Callable[..., Any], *args: Any) -> Any:
        """Run what blocks in a thread of the client's."""
        return await aiofiles.os.wrap(work)(*args, executor=self._estimator)

    async def estimate(self, asked: Asked, reader: StreamReader, began: datetime) -> dict[str, Any]:
        """Estimate a stream's usage from its chunks, off the loop."""
        fields: dict[str, Any] = await self.off_loop(self.estimate_now, asked, reader, began)
        return fields

    def estimate_now(self, asked: Asked, reader: StreamReader, began: datetime) -> dict[str, Any]:
        """The same, here and now."""
        fields = estimate(
            asked.model or "",
            asked.prompt,
            reader.fields(finished=False),
            reader.text,
            asked.kwargs.get("tools"),
        )
        fields.pop("status", None)
        fields.pop("error", None)
        return self.pricing.complete(fields, None, asked, began)

    async def acknowledge(self, record: UsageRecord) -> None:
        """Wait until a record is as safe as ``durability`` says.  Never withholds an answer."""
        await self.calls.acknowledge(record, self.ack_timeout)


def _settle_all(streams: set[Unsettled], background: set[asyncio.Task[None]]) -> None:
    """At interpreter exit: what is still open was left; what was being counted is counted now."""
    for task in list(background):
        if hasattr(task, "_log_destroy_pending"):
            task._log_destroy_pending = False  # noqa: SLF001 - asyncio has no public switch for this message
    for upstream in list(streams):
        upstream.settle_now()
