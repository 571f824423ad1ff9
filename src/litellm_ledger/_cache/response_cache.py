"""``ResponseCache``: answers that are kept for a time, in memory or in a store of the user's own.

Owns how long an answer is kept, how long a store may take, and what is counted.  A store that
fails, hangs or returns nonsense costs time, at most ``store_timeout`` now and then, and never a
call.  Knows nothing of calls: ``_cache.cached_call`` makes them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from litellm_ledger._records.checks import is_number
from litellm_ledger._records.statistics import CacheStatistics

from .store import CacheStore, MemoryStore

__all__ = ["KeptAnswers", "ResponseCache", "answers_of"]

_log = logging.getLogger("litellm_ledger")

_REST: Final = 5.0
"""Seconds for which a store that was too slow is left alone."""

_FAILED: Final = object()
"""What a store is taken to return when it fails."""


class ResponseCache:
    """Keeps answers, so that an equal call within ``ttl`` costs nothing.

        cache = ResponseCache(ttl=3600, maxsize=10_000)
        async with LiteLLMClient(cache=cache) as client: ...

    May be shared by any number of clients, event loops and threads.  Needs the extra ``cache``.
    ``docs/cache.md`` says which calls are equal and what is never kept.

    Args:
        ttl: seconds for which an answer is kept.
        maxsize: answers kept at once; the least recently used go first.
        max_bytes: bytes of all answers together; a longer one is not kept.
        namespace: only calls in the same namespace share answers.
        ignore: names of arguments that do not change the answer, such as ``metadata``.  Use it
            with care: calls that differ only in these arguments share one answer.
        store: where answers are kept, instead of in memory; then the store limits its own size.
        store_timeout: seconds that such a store may take; then the call continues without it.
        timer: the clock of the memory store, in seconds; tests replace it.

    Raises:
        ValueError: a number is out of range.
        MissingExtra: the extra ``cache`` is not installed.
    """

    def __init__(
        self,
        ttl: float = 3_600.0,
        maxsize: int = 10_000,
        *,
        max_bytes: int = 64 * 2**20,
        namespace: str = "",
        ignore: Iterable[str] = (),
        store: CacheStore | None = None,
        store_timeout: float = 1.0,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in (("ttl", ttl), ("store_timeout", store_timeout)):
            if not is_number(value) or not 0 < value < math.inf:
                raise ValueError(f"{name} must be seconds above 0, not {value!r}")
        for name, value in (("maxsize", maxsize), ("max_bytes", max_bytes)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number above 0, not {value!r}")
        if not isinstance(namespace, str):
            raise ValueError(f"namespace must be text, not {type(namespace).__name__}")
        self._answers = KeptAnswers(
            ttl=ttl,
            max_bytes=max_bytes,
            namespace=namespace,
            ignore=frozenset([ignore] if isinstance(ignore, str) else ignore),
            store=MemoryStore(maxsize, max_bytes, timer) if store is None else store,
            store_timeout=store_timeout,
        )

    def statistics(self) -> CacheStatistics:
        """Return hits, misses and sizes.  See ``CacheStatistics``."""
        return self._answers.statistics()


def answers_of(cache: ResponseCache) -> KeptAnswers:
    """Return what a client works with."""
    return cache._answers  # noqa: SLF001 - the public class hides what the client uses


@dataclass(eq=False, kw_only=True)
class KeptAnswers:
    """The answers of one ``ResponseCache``, for the clients that use it; see there.

    Attributes:
        hits, shared, misses, skipped: counted by the clients.
    """

    ttl: float
    max_bytes: int
    namespace: str
    ignore: frozenset[str]
    store: CacheStore | MemoryStore
    store_timeout: float
    hits: int = 0
    shared: int = 0
    misses: int = 0
    skipped: int = 0
    _stored: int = 0
    _errors: int = 0
    _rests_until: float = -math.inf
    _failing: bool = False
    _left: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def memory(self) -> MemoryStore | None:
        """The store, if it is ours: it answers at once."""
        return self.store if isinstance(self.store, MemoryStore) else None

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

    async def find(self, key: str) -> bytes | None:
        """Return what is kept under a key.  Never raises; ``None`` for whatever went wrong."""
        found = await self._ask(self.store.get, key)
        if isinstance(found, bytes):
            return found
        if found is not None and found is not _FAILED:
            self._fail(f"it returned {type(found).__name__}, not bytes")
        return None

    async def keep(self, key: str, value: bytes) -> None:
        """Keep an answer for ``ttl`` seconds.  Never raises."""
        if len(value) <= self.max_bytes:
            done = await self._ask(self.store.set, key, value, self.ttl)
            self._stored += done is not _FAILED

    async def reject(self, key: str) -> None:
        """Drop what turned out to be no answer.  Never raises."""
        self._fail("what it returned is not the answer that was stored")
        await self._ask(self.store.delete, key)

    async def _ask(self, ask: Callable[..., Any], *args: Any) -> Any:
        """Ask the store, within its time if it is not ours; ``_FAILED`` if it does not answer."""
        if self.memory is not None:
            return ask(*args)
        if time.monotonic() < self._rests_until:
            return _FAILED

        async def asking() -> Any:  # what is no coroutine function raises in here as well
            return await ask(*args)

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
            self._fail(f"it took longer than {self.store_timeout:g} s")
        elif task.cancelled():
            self._fail("it was cancelled")
        elif (failure := task.exception()) is not None:
            self._fail(type(failure).__name__)
        else:
            self._failing = False
            return task.result()
        return _FAILED

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain of it

    def _fail(self, why: str) -> None:
        """Count a failure, and say it once until the store works again."""
        self._errors += 1
        if not self._failing:
            self._failing = True
            _log.warning(
                "the store of the response cache failed: %s; calls continue without it", why
            )
