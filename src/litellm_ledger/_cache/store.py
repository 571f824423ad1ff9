"""Where a response cache keeps its bytes: the protocol for any store, and the one in memory.

Owns which entries are there: how many, how large, until when.  Knows nothing of answers or keys:
a key is text, a value is bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from litellm_ledger._errors import MissingExtra
from litellm_ledger._runtime import process as _process

__all__ = ["CacheStore", "MemoryStore"]


class CacheStore(Protocol):
    """What a response cache needs of a store; one that is shared by processes can follow.

    A store may fail, be slow or forget: a call continues without it.  Values are opaque bytes, and
    what a store returns is checked before it is used.
    """

    async def get(self, key: str) -> bytes | None:
        """Return what was set, unless it has expired or been dropped."""

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep ``value`` for at most ``ttl`` seconds."""

    async def delete(self, key: str) -> None:
        """Forget ``key``; no error if there is none."""


class MemoryStore:
    """Entries in this process, the least recently used of them dropped first.

    Answers at once; otherwise like a ``CacheStore``.  Safe for several threads and clients.
    """

    def __init__(self, maxsize: int, max_bytes: int, timer: Callable[[], float]) -> None:
        try:
            from cachetools import TLRUCache
        except ModuleNotFoundError as exc:
            raise MissingExtra("cachetools", "cache") from exc
        self._maxsize = maxsize
        self._entries: Any = TLRUCache(
            max_bytes,
            ttu=lambda key, value, now: now + value[1],  # noqa: ARG005 - cachetools gives three
            timer=timer,
            getsizeof=lambda value: len(value[0]),
        )
        self._lock = threading.RLock()
        self.evictions = self.expired = 0  # see CacheStatistics
        _process.inherits(self.forget_parent)

    def forget_parent(self) -> None:
        """In a forked child: a lock of its own, in case another thread held it
        (``_runtime.process``)."""
        self._lock = threading.RLock()

    def get(self, key: str) -> bytes | None:
        """Return what was put, unless it has expired or been dropped."""
        with self._lock:
            found = self._entries.get(key)
        return None if found is None else found[0]

    def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep ``value``; one that is larger than all there may be is not kept."""
        entries = self._entries
        with self._lock, entries.timer:  # one moment for all of it
            self.expire()
            entries.pop(key, None)
            if len(value) > entries.maxsize:
                return
            while entries and (
                len(entries) >= self._maxsize or entries.currsize + len(value) > entries.maxsize
            ):
                entries.popitem()
                self.evictions += 1
            entries[key] = (value, ttl)

    def delete(self, key: str) -> None:
        """Forget ``key``; no error if there is none."""
        with self._lock:
            self._entries.pop(key, None)

    def expire(self) -> None:
        """Drop what has expired.  About 1 µs for each."""
        with self._lock:
            self.expired += len(self._entries.expire())

    @property
    def entries(self) -> int:
        """How many there are."""
        self.expire()
        return len(self._entries)

    @property
    def size(self) -> int:
        """How large they are together."""
        self.expire()
        return int(self._entries.currsize)
