"""A stream that a budget in adaptive mode pays for while it is read.

Owns the pump, which reads ahead of the caller, so that what the provider sends is counted when it
comes and not when the caller gets to it; and the cut: what is not paid for is not read, and the
provider's connection is closed.  Only streams that such a budget applies to have one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from litellm_ledger._budgets.meter import Meter
from litellm_ledger._litellm.counting import Counter, counter
from litellm_ledger._litellm.own_calls import our_context
from litellm_ledger._litellm.stream_readers import StreamReader

__all__ = ["Payer", "Pump", "Source", "pump_of"]

_MOST: Final = 4_096
"""Chunks that are read ahead.  Before more wait, all that the call may write is held."""

_TURN: Final = 64


class Payer(Protocol):
    """Who holds more for a call in flight."""

    def top_up(self, usd: int, tokens: int) -> bool:
        """Hold more at once; ``False``: that cannot be done at once."""

    async def add(self, usd: int, tokens: int) -> None:
        """Hold more.

        Raises:
            BudgetExceeded: there is no room.
        """


class Source(Protocol):
    """A stream of ``_calls.stream``."""

    pump: Pump | None
    reader: StreamReader

    @property
    def provider(self) -> str | None:
        """LiteLLM's name of the provider."""

    async def read_chunk(self) -> Any:
        """Return the next chunk, having noted what it says."""

    async def off_loop(self, work: Callable[..., Any], *args: Any) -> Any:
        """Run what blocks in a thread of the client's."""


class Pump:
    """Reads one stream ahead of its reader.

    Args:
        read: reads the next chunk.
        fresh: what the chunk that was read last has added to the text.
        close: closes the provider's connection.
        meter: how far the money reaches.
        payer: who holds more.
        count: awaited for the counter of tokens, before the first chunk is counted.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Any]],
        fresh: Callable[[Any], str],
        close: Callable[[], Awaitable[None]],
        meter: Meter,
        payer: Payer,
        count: Callable[[], Awaitable[Counter]],
    ) -> None:
        self._read = read
        self._fresh = fresh
        self._close = close
        self._meter = meter
        self._payer = payer
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._counter: Counter | None = None
        self._chunks: deque[Any] = deque()
        self._end: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()  # what the reader waits for
        self._room = asyncio.Event()  # what the pump waits for

    async def next(self) -> Any:
        """Return the next chunk that is paid for, or raise what ended the stream."""
        if self._task is None:
            self._task = self._loop.create_task(
                self._run(), name="litellm-ledger-stream-pump", context=our_context()
            )
        while not self._chunks:
            if self._end is not None:
                raise self._end
            self._changed.clear()
            await self._changed.wait()
        if len(self._chunks) <= _MOST // 2:
            self._room.set()
        return self._chunks.popleft()

    async def read_on(self) -> Any:
        """Read and pay for a chunk that nobody waits for: of a stream that was left."""
        chunk = await self._read()
        await self._pay(chunk)
        return chunk

    async def stop(self) -> None:
        """Read no more.  What was read and not handed out is the past of the stream."""
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task})

    def forget(self) -> None:
        """Say nothing when the task is destroyed: the loop is gone."""
        if self._task is not None and hasattr(self._task, "_log_destroy_pending"):
            self._task._log_destroy_pending = False  # noqa: SLF001 - asyncio has no public switch for this message

    async def _run(self) -> None:
        count = 0
        try:
            while True:
                chunk = await self._read()
                await self._pay(chunk)
                self._chunks.append(chunk)
                self._changed.set()
                count += 1
                if count % _TURN == 0:  # a source that never waits lets nobody else run
                    await asyncio.sleep(0)
                if len(self._chunks) >= _MOST:
                    await self._wait_for_room()
        except BaseException as exc:  # noqa: BLE001 - it is the reader's, in its turn
            self._end = exc
            self._changed.set()

    async def _wait_for_room(self) -> None:
        """What is not read is not counted: until the reader has come closer, all is held."""
        whole = self._meter.whole()
        if whole is not None and not self._meter.is_whole():
            await self._hold(whole)
        if whole is None:
            return  # nobody knows how much that would be: it is read on
        self._room.clear()
        await self._room.wait()

    async def _pay(self, chunk: Any) -> None:
        """Count a chunk; hold more if need be.

        Raises:
            BudgetExceeded: there is no room: the chunk is not paid for, and the connection closed.
        """
        meter = self._meter
        text = self._fresh(chunk)
        if text:
            if self._counter is None:
                self._counter = await self._count()
            meter.count(max(1, self._counter(text)), self._loop.time())
        if meter.is_short():
            await self._top_up()

    async def _top_up(self) -> None:
        meter, least = self._meter, 0
        for target in meter.targets():
            if self._payer.top_up(*meter.costs(target)):
                meter.made = target
                return
            least = target
        await self._hold(least)

    async def _hold(self, target: int) -> None:
        try:
            await self._payer.add(*self._meter.costs(target))
        except Exception:
            with contextlib.suppress(Exception):
                await self._close()
            raise
        self._meter.made = target


def pump_of(upstream: Source, meter: Meter, payer: Payer) -> Pump:
    """The pump of a stream, which starts at its first read."""

    async def count() -> Counter:
        found: Counter = await upstream.off_loop(counter, upstream.provider or "")
        return found

    reader = upstream.reader
    return Pump(upstream.read_chunk, reader.fresh, reader.aclose, meter, payer, count)
