"""What a client does about its caches: the requests that equal calls share, and clearing up.

Owns the flights of one client and a timer for each cache, which drops what has expired.  A timer
runs only while there is something to drop, and ends with the client.
"""

from __future__ import annotations

import asyncio
from typing import Final
from weakref import WeakSet

from litellm_ledger._records.statistics import CacheStatistics
from litellm_ledger._runtime import process as _process

from .flights import Flights
from .kept_answers import KeptAnswers
from .response_cache import ResponseCache, answers_of

__all__ = ["Caching"]

_OFTEN: Final = 0.05
_SELDOM: Final = 60.0
"""Seconds between two clearings: a tenth of ``ttl``, within these."""


class Caching:
    """One client's part in the caches that it uses.

    Attributes:
        flights: requests that are under way.
    """

    def __init__(self) -> None:
        # Weak: a view with a cache of its own may be made for every request.
        self.used: WeakSet[KeptAnswers] = WeakSet()
        self.flights = Flights()
        self._timers: dict[KeptAnswers, asyncio.TimerHandle] = {}
        self._closed = False
        _process.inherits(self.forget_parent)

    def forget_parent(self) -> None:
        """In a forked child: no flights and no timers."""
        self.flights.forget_parent()
        self._timers.clear()
        self._closed = False

    async def keep(self, cache: KeptAnswers, key: str, data: bytes) -> None:
        """Keep an answer, and see to it that it goes when its time is over."""
        await cache.keep(key, data)
        self._watch(cache)

    def uses(self, cache: ResponseCache) -> None:
        """Note the cache of the client or of a view."""
        self.used.add(answers_of(cache))

    def statistics(self) -> CacheStatistics | None:
        """Return the sums over the caches in use; ``None`` if there are none."""
        found = [cache.statistics() for cache in self.used]
        return CacheStatistics.added(found) if found else None

    def close(self) -> None:
        """Drop what has expired, a last time."""
        self._closed = True
        for cache, timer in self._timers.items():
            timer.cancel()
            cache.expire()
        self._timers.clear()

    def _watch(self, cache: KeptAnswers) -> None:
        if cache.memory is not None and cache not in self._timers and not self._closed:
            seconds = min(max(cache.ttl / 10, _OFTEN), _SELDOM)
            loop = asyncio.get_running_loop()
            self._timers[cache] = loop.call_later(seconds, self._clear, cache)

    def _clear(self, cache: KeptAnswers) -> None:
        del self._timers[cache]
        cache.expire()
        if cache.memory is not None and cache.memory.entries:
            self._watch(cache)
