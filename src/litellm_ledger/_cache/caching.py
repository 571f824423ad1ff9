"""What a client does about its caches: single flight (of equal calls at once, one makes the
request, and all get its answer), and clearing up.

Owns the tasks that make such requests, the rule of when one ends early (a caller that is cancelled
leaves the request to those who still wait for it; the last of them takes it along), and a timer for
each cache, which drops what has expired and runs only while there is something to drop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakSet

from litellm_ledger._records.statistics import CacheStatistics
from litellm_ledger._runtime import process as _process
from litellm_ledger._runtime.cancellation import outlive_cancellation

from .response_cache import KeptAnswers, ResponseCache, answers_of
from .store import MemoryStore

__all__ = ["Caching", "Flight", "Flights"]

_OFTEN: Final = 0.05
_SELDOM: Final = 60.0
"""Seconds between two clearings: a tenth of ``ttl``, within these."""


@dataclass(eq=False, slots=True)
class Flight:
    """One request under way."""

    place: Hashable  # what makes calls equal that may share it
    task: asyncio.Task[Any]  # makes it, in the context of the caller that began it
    waiting: int = 0  # callers that wait for it


class Flights:
    """The requests under way."""

    def __init__(self) -> None:
        self._aloft: dict[Hashable, Flight] = {}

    def find(self, place: Hashable) -> Flight | None:
        """Return the flight that an equal call can join."""
        flight = self._aloft.get(place)
        return None if flight is None or flight.task.done() else flight

    def launch(self, place: Hashable, work: Coroutine[Any, Any, Any]) -> Flight:
        """Begin one.  The caller has to wait for it."""
        task = asyncio.get_running_loop().create_task(work, name="litellm-ledger-cached-call")
        flight = self._aloft[place] = Flight(place, task)
        task.add_done_callback(lambda _: self._landed(flight))
        return flight

    async def wait(self, flight: Flight) -> None:
        """Wait for a flight to end, however it does.

        Cancelled, the last to leave it takes the request along, and waits until its record is
        written, as for a call of its own.
        """
        flight.waiting += 1
        try:
            await asyncio.wait({flight.task})
        except asyncio.CancelledError:
            if self._leave(flight):
                with contextlib.suppress(BaseException):  # the caller's own cancellation is raised
                    await outlive_cancellation(flight.task)
            raise
        except BaseException:  # collected or closed: nothing can be awaited any more
            with contextlib.suppress(RuntimeError):  # the loop may be closed
                self._leave(flight)
            raise
        self._leave(flight)

    def _leave(self, flight: Flight) -> bool:
        """Stop waiting; tell whether that has ended the flight."""
        flight.waiting -= 1
        if flight.waiting or flight.task.done():
            return False
        self._landed(flight)  # nobody joins what is being cancelled
        flight.task.cancel()
        return True

    def _landed(self, flight: Flight) -> None:
        if self._aloft.get(flight.place) is flight:
            del self._aloft[flight.place]
        if flight.task.done() and not flight.task.cancelled():
            flight.task.exception()  # looked at: those who waited for it have it, if any


class Caching:
    """One client's part in the caches that it uses.

    Attributes:
        flights: requests that are under way.
    """

    def __init__(self) -> None:
        # Weak: a view with a cache of its own may be made for every request.
        self._used: WeakSet[KeptAnswers] = WeakSet()
        self.forget_parent()
        _process.inherits(self.forget_parent)

    def forget_parent(self) -> None:
        """At first, and in a forked child: no flights and no timers."""
        self.flights = Flights()
        self._timers: dict[MemoryStore, asyncio.TimerHandle] = {}
        self._closed = False

    def uses(self, cache: ResponseCache) -> None:
        """Note the cache of the client or of a view."""
        self._used.add(answers_of(cache))

    def statistics(self) -> CacheStatistics | None:
        """Return the sums over the caches in use; ``None`` if there are none."""
        found = [cache.statistics() for cache in self._used]
        return CacheStatistics.added(found) if found else None

    async def keep(self, cache: KeptAnswers, key: str, data: bytes) -> None:
        """Keep an answer, and see to it that it goes when its time is over."""
        await cache.keep(key, data)
        if cache.memory is not None:
            self._watch(cache.memory, min(max(cache.ttl / 10, _OFTEN), _SELDOM))

    def close(self) -> None:
        """Drop what has expired, a last time."""
        self._closed = True
        for memory, timer in self._timers.items():
            timer.cancel()
            memory.expire()
        self._timers.clear()

    def _watch(self, memory: MemoryStore, seconds: float) -> None:
        if memory not in self._timers and not self._closed:
            loop = asyncio.get_running_loop()
            self._timers[memory] = loop.call_later(seconds, self._clear, memory, seconds)

    def _clear(self, memory: MemoryStore, seconds: float) -> None:
        del self._timers[memory]
        if memory.entries:  # those that have not expired
            self._watch(memory, seconds)
