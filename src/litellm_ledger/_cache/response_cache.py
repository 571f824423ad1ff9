"""``ResponseCache``: the public face of a cache.

Owns the arguments and their checks; ``_cache.kept_answers`` does the work.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from litellm_ledger._records.checks import is_number
from litellm_ledger._records.statistics import CacheStatistics

from .kept_answers import KeptAnswers
from .store import CacheStore

__all__ = ["ResponseCache", "answers_of"]


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
            maxsize=maxsize,
            max_bytes=max_bytes,
            namespace=namespace,
            ignore=ignore,
            store=store,
            store_timeout=store_timeout,
            timer=timer,
        )

    def statistics(self) -> CacheStatistics:
        """Return hits, misses and sizes.  See ``CacheStatistics``."""
        return self._answers.statistics()


def answers_of(cache: ResponseCache) -> KeptAnswers:
    """Return what a client works with."""
    return cache._answers  # noqa: SLF001 - the public class hides what the client uses
