"""``Draining``: streams that were left, and are read on for the provider's own usage.

Owns how many at once and for how long; ``_calls.stream`` reads.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

__all__ = ["Draining"]

_STREAMS: Final = 64
"""Streams read on at once: each holds a connection and costs the provider's price to its end."""

_SECONDS: Final = 30.0
"""Seconds that one stream is read on.  An answer of 4,000 tokens takes about that."""


class Draining:
    """The streams of one client that are read on.

    Args:
        streams: at most as many at once.
        seconds: at most as long each.
    """

    def __init__(self, *, streams: int = _STREAMS, seconds: float = _SECONDS) -> None:
        self._free = streams
        self._seconds = seconds
        self._running: set[asyncio.Timeout] = set()
        self._end: float | None = None  # the loop's time at which all have stopped

    def admit(self) -> bool:
        """Take a place, to be given back by ``read_on``; ``False``: there is none."""
        if self._end is not None or not self._free:
            return False
        self._free -= 1
        return True

    async def read_on(self, read: Callable[[], Awaitable[Any]]) -> bool:
        """Call ``read`` until it raises ``StopAsyncIteration``; return whether it came to that.

        ``False``: the time was up, or the stream broke.  Cancelled, it stops at once.
        """
        try:
            # It may have been admitted before ``end_within`` and begin after it.
            at = asyncio.get_running_loop().time() + self._seconds
            at = at if self._end is None else min(at, self._end)
            async with asyncio.timeout_at(at) as limit:
                self._running.add(limit)
                try:
                    while True:
                        await read()
                finally:
                    self._running.discard(limit)
        except StopAsyncIteration:
            return True
        except Exception:  # noqa: BLE001 - whatever broke it, its chunks are there for an estimate
            return False
        finally:
            self._free += 1

    def end_within(self, seconds: float) -> None:
        """Admit no more, and have every reading stop in ``seconds``, if it has not ended by then.

        The tasks that read wait in turn for their estimates: leave them some time after that.
        """
        self._end = asyncio.get_running_loop().time() + max(0.0, seconds)
        for limit in self._running:
            when = limit.when()
            if when is not None and when > self._end:
                with contextlib.suppress(RuntimeError):  # just expired
                    limit.reschedule(self._end)
