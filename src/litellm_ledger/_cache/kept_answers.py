"""Answers that are kept for a time, in memory or in a store of the user's own.

Owns how long an answer is kept, how long a store may take, and what is counted.  A store that
fails, hangs or returns nonsense costs time, at most ``store_timeout`` now and then, and never a
call.  Knows nothing of calls: ``_cache.cached_call`` makes them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from litellm_ledger._records.statistics import CacheStatistics

from .store import CacheStore, MemoryStore

__all__ = ["KeptAnswers"]

_log = logging.getLogger("litellm_ledger")

_REST: Final = 5.0
"""Seconds for which a store that was too slow is left alone."""


class KeptAnswers:
    """The answers of one ``ResponseCache``, for the clients that use it; see there.

    Attributes:
        hits, shared, misses, skipped: counted by the clients.
    """

    def __init__(
        self,
        *,
        ttl: float,
        maxsize: int,
        max_bytes: int,
        namespace: str,
        ignore: Iterable[str],
        store: CacheStore | None,
        store_timeout: float,
        timer: Callable[[], float],
    ) -> None:
        self.ttl = ttl
        self.max_bytes = max_bytes
        self.namespace = namespace
        self.ignore = frozenset([ignore] if isinstance(ignore, str) else ignore)
        self.store_timeout = store_timeout
        self.memory = MemoryStore(maxsize, max_bytes, timer=timer) if store is None else None
        self.hits = self.shared = self.misses = self.skipped = 0
        self._store = store
        self._stored = self._errors = 0
        self._rests_until = -math.inf
        self._failing = False
        self._left: set[asyncio.Task[Any]] = set()

    def statistics(self) -> CacheStatistics:
        """Return hits, misses and sizes.  See ``CacheStatistics``."""
        memory = self.memory
        return CacheStatistics(
            hits=self.hits,
            shared=self.shared,
            misses=self.misses,
            skipped=self.skipped,
            stored=self._stored,
            evictions=0 if memory is None else memory.evictions,
            expired=0 if memory is None else memory.expired,
            errors=self._errors,
            entries=None if memory is None else memory.entries,
            bytes=None if memory is None else memory.size,
        )

    def expire(self) -> None:
        """Drop expired answers from memory.  Clients do so now and then, and when they close."""
        if self.memory is not None:
            self.memory.expire()

    async def find(self, key: str) -> bytes | None:
        """Return what is kept under a key.  Never raises; ``None`` for whatever went wrong."""
        if self.memory is not None:
            return self.memory.find(key)
        store = self._store
        assert store is not None
        found = await self._ask(lambda: store.get(key))
        if found is not None and not isinstance(found, bytes):
            self.failed(f"it returned {type(found).__name__}, not bytes")
            return None
        return found

    async def keep(self, key: str, value: bytes) -> None:
        """Keep an answer for ``ttl`` seconds.  Never raises."""
        if len(value) > self.max_bytes:
            return
        if self.memory is not None:
            self.memory.put(key, value, self.ttl)
            self._stored += 1
            return
        store = self._store
        assert store is not None
        errors = self._errors
        await self._ask(lambda: store.set(key, value, self.ttl))
        self._stored += errors == self._errors

    async def reject(self, key: str) -> None:
        """Drop what turned out to be no answer.  Never raises."""
        self.failed("what it returned is not the answer that was stored")
        if self.memory is not None:
            self.memory.drop(key)
            return
        store = self._store
        assert store is not None
        await self._ask(lambda: store.delete(key))

    async def _ask(self, ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Ask a store that is not ours, within its time; ``None`` if it fails."""
        if time.monotonic() < self._rests_until:
            return None

        async def asking() -> Any:  # what is no coroutine function raises in here as well
            return await ask()

        task = asyncio.create_task(asking(), name="litellm-ledger-cache")
        self._left.add(task)
        task.add_done_callback(self._over)
        try:
            await asyncio.wait({task}, timeout=self.store_timeout)
        finally:
            if not task.done():
                task.cancel()  # it may take its time to notice: nobody waits for that
        if not task.done():
            self._rests_until = time.monotonic() + _REST
            self.failed(f"it took longer than {self.store_timeout:g} s")
            return None
        if task.cancelled() or task.exception() is not None:
            failure = None if task.cancelled() else task.exception()
            self.failed(f"{type(failure).__name__}" if failure else "it was cancelled")
            return None
        self._failing = False
        return task.result()

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain of it

    def failed(self, why: str) -> None:
        """Count a failure, and say it once until the store works again."""
        self._errors += 1
        if not self._failing:
            self._failing = True
            _log.warning(
                "the store of the response cache failed: %s; calls continue without it", why
            )
