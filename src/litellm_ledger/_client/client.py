"""``LiteLLMClient``: LiteLLM's async calls, each of them on the ledger, however it ends.

Owns the public surface: names, signatures, docstrings.  ``_calls.call`` makes a call,
``_calls.core`` is what it is made with.  LiteLLM is imported by the first call, never by importing
us; its arguments, answers and exceptions are passed through unchanged.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Never, Self

from litellm_ledger._cache.cached_call import cached_call
from litellm_ledger._cache.caching import Caching
from litellm_ledger._cache.response_cache import ResponseCache
from litellm_ledger._calls.call import call
from litellm_ledger._calls.capture import Capture
from litellm_ledger._calls.core import ClientCore
from litellm_ledger._calls.operation import need_tenacity
from litellm_ledger._calls.options import AbandonedStream, CallOptions, Keep, refuse_ours
from litellm_ledger._litellm.self_check import LiteLLMCheck, check_litellm
from litellm_ledger._records.prices import ModelPrice
from litellm_ledger._records.statistics import Statistics
from litellm_ledger._runtime.misuse import AsyncOnly, instead
from litellm_ledger._storage.filesystem import REAL, FileSystem
from litellm_ledger._tracking.tracker import UsageTracker
from litellm_ledger._writing.writer import Durability

from .jobs import LiteLLMJobs

__all__ = ["LiteLLMClient"]


class LiteLLMClient(LiteLLMJobs, AsyncOnly):
    """Calls language models through LiteLLM and records what each call used and cost.

    Use it as ``async with LiteLLMClient() as client``, or call it right away and end with
    ``await client.aclose()``.  It belongs to one event loop.

    Args:
        ledger: the directory; default ``$LITELLM_LEDGER_DIR``, else the user's data directory.
        durability: when an answer is handed out: once its record is ``queued``, ``written`` (the
            operating system has it: survives SIGKILL) or ``synced`` (the disk has it: survives a
            power cut).
        tags: on every record, text to text.
        queue_size: records accepted and not yet written; when full, new calls wait.
        drain_timeout: seconds that ``aclose`` may take.
        handle_signals: drain on SIGTERM and SIGINT where the process is ours to end (``auto``).
        on_abandoned_stream: what becomes of a stream that is left before its end.  ``close`` the
            provider's connection at once and estimate the usage, or ``drain`` it: read on in the
            background (64 streams at once, 30 s each; beyond that they are closed) and record the
            provider's own usage.
        max_retries: attempts after the first that one call may make, each of them on record; needs
            the extra ``retry``.  ``None``: LiteLLM and the SDKs below it retry out of our sight.
        deadline: seconds for one call, its attempts and all waiting included (``None``: no limit).
        max_concurrency: requests under way at once; more wait, first come, first served.
        track_in_flight: write a ``started`` record before a request leaves, so that a call that
            dies with the process is on record as ``unsettled``.
        ack_timeout: seconds an answer waits for its record; then it is handed out with one
            ``LedgerWarning`` and counted in ``statistics().unacked``.
        fetch_prices: let LiteLLM fetch its price map over the network when it is imported.
        prices: your own prices, model to ``ModelPrice``: they win over LiteLLM's.
        capture_content: store what the model read and wrote, in ``UsageRecord.content``.
        cache: a ``ResponseCache``: equal calls are answered from it.  ``None``: no cache.
        capture: record the calls of other code, see ``capture()``, as long as the client is open.
        mode: of the ledger's directories, for those who share it with a group: ``0o750`` lets the
            group read, ``0o770`` write too.  Files follow.  ``None``: private, or as it is already.
        fs: the file system to use; tests put a faulty one here.

    Attributes:
        usage: the ``UsageTracker``: ``totals()``, ``summary(by=…)``, ``record(…)``.
    """

    def __init__(
        self,
        ledger: str | os.PathLike[str] | None = None,
        *,
        durability: Durability = "written",
        tags: Mapping[str, Any] | None = None,
        queue_size: int = 10_000,
        drain_timeout: float = 10.0,
        handle_signals: bool | Literal["auto"] = "auto",
        on_abandoned_stream: AbandonedStream = "close",
        max_retries: int | None = None,
        deadline: float | None = None,
        max_concurrency: int | None = None,
        track_in_flight: bool = True,
        ack_timeout: float = 5.0,
        fetch_prices: bool = False,
        prices: Mapping[str, ModelPrice] | None = None,
        capture_content: bool = False,
        cache: ResponseCache | None = None,
        capture: bool = False,
        mode: int | None = None,
        fs: FileSystem = REAL,
    ) -> None:
        self._options = _checked(
            CallOptions(
                max_retries=max_retries,
                deadline=deadline,
                on_abandoned_stream=on_abandoned_stream,
                capture_content=capture_content,
                cache=cache,
            )
        )
        self._is_view = False
        self.usage = UsageTracker(
            ledger,
            durability=durability,
            tags=tags,
            queue_size=queue_size,
            drain_timeout=drain_timeout,
            handle_signals=handle_signals,
            mode=mode,
            fs=fs,
        )
        self._core = ClientCore(
            self.usage,
            drain_timeout=drain_timeout,
            ack_timeout=ack_timeout,
            fetch_prices=fetch_prices,
            max_concurrency=max_concurrency,
            prices=prices,
            track_in_flight=track_in_flight,
        )
        self._capture = Capture(self._core, always=capture)
        self._caching = Caching()
        self._core.on_close.append(self._caching.close)
        self._track_in_flight = track_in_flight
        self._caching.uses(cache)

    # -- life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._is_view:
            raise TypeError(
                "a view shares the life of its client: use 'async with' on the client and call "
                "with_options() inside, or give the options to LiteLLMClient()"
            )
        await self._core.ready()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    if not TYPE_CHECKING:  # for a type checker only what is there is there

        def __getattr__(self, name: str) -> Any:
            raise instead(self, name)

    async def warm_up(self) -> None:
        """Import LiteLLM and what its first call needs, in a thread: seconds that no call shall
        pay.

        Changes nothing but time.  Cancelling stops the waiting, not the import.
        """
        await self._core.warm_up()

    async def check_litellm(self) -> LiteLLMCheck:
        """Check that recording works with the LiteLLM that is installed.

        Runs in a process of its own, against a server on 127.0.0.1 and a temporary ledger: no key,
        no network, no effect on this client, its ledger or this process's LiteLLM.  Every kind of
        call is answered, streamed, failed, cancelled and left, through a client and under
        ``capture()``; each must be on record once with the right tokens and cost.  Takes 5 to 30 s,
        most of it the import of LiteLLM.  Cancelling it ends the process.

        Returns:
            ``ok``; ``wrong`` (each with what was expected and what was found); ``not_checked``
            (what LiteLLM cannot do here without another package, which is named).

        Raises:
            MissingExtra: the extra ``testing`` is not installed.
            LedgerError: the process failed, or did not end within 300 s.
        """
        return await check_litellm()

    async def aclose(self, timeout: float | None = None) -> None:
        """Write and sync every record, seal the ledger, close LiteLLM's connections of this loop.

        Idempotent; many may await it at once, and all wait for the same close.  New calls are
        refused; calls in flight are not waited for, and their outcomes are recorded when they come.
        Cancelling it does not cut it short: it ends by its deadline and re-raises.

        Args:
            timeout: seconds for the whole close; default ``drain_timeout``.

        Raises:
            DrainTimeout: records were still unwritten; says how many, and how many were saved.
        """
        await self._core.aclose(timeout)

    def with_options(
        self,
        *,
        max_retries: int | Keep | None = Keep.KEEP,
        deadline: float | Keep | None = Keep.KEEP,
        tags: Mapping[str, Any] | Keep | None = Keep.KEEP,
        on_abandoned_stream: AbandonedStream | Keep = Keep.KEEP,
        capture_content: bool | Keep = Keep.KEEP,
        cache: ResponseCache | Keep | None = Keep.KEEP,
    ) -> Self:
        """Return a view of this client that makes its calls with other options.

            patient = client.with_options(max_retries=5, deadline=60)
            await patient.acompletion(...)

        Costs 10 µs; the ledger, the limit on concurrency, the totals and the life are the client's:
        ``aclose`` on a view closes the client, and ``async with`` on a view is refused.  What is
        not given stays as it is; ``None`` takes an option off.

        Args:
            tags: on every record, added to the view's so far.  The call's own win over them, and
                they win over ``client.tag(...)`` and the client's.

        Raises:
            ValueError: a value out of its range.
            MissingExtra: ``max_retries`` without the extra ``retry``.
        """
        view = copy.copy(self)
        view._is_view = True
        view._options = _checked(
            self._options.changed(
                max_retries=max_retries,
                deadline=deadline,
                tags=tags,
                on_abandoned_stream=on_abandoned_stream,
                capture_content=capture_content,
                cache=cache,
            )
        )
        self._caching.uses(view._options.cache)
        return view

    # -- calls ---------------------------------------------------------------------------------

    async def _call(
        self,
        name: str,
        given: dict[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tags: Mapping[str, Any] | list[str] | None,
    ) -> Any:
        """Every call of ``LiteLLMJobs``; ``given`` are the arguments that its method names."""
        refuse_ours(name, kwargs)
        kwargs.update((name, value) for name, value in given.items() if value is not None)
        if isinstance(tags, list):
            kwargs["tags"] = tags
            tags = None
        options, track = self._options, self._track_in_flight
        if options.cache is None:
            return await call(self._core, name, args, kwargs, tags, options=options, track=track)
        return await cached_call(
            self._core,
            self._caching,
            options.cache,
            name,
            args,
            kwargs,
            tags,
            options=options,
            track=track,
        )

    # -- the rest ------------------------------------------------------------------------------

    def tag(self, *mapping: Never, **tags: Any) -> contextlib.AbstractContextManager[None]:
        """Put tags on every call made inside the ``with``, also in tasks started inside it.

        Raises:
            TypeError: something that is no keyword argument; a mapping is given as ``**mapping``.
        """
        return self.usage.tag(*mapping, **tags)

    @contextlib.contextmanager
    def capture(self) -> Iterator[Self]:
        """Record what other code in this process calls on LiteLLM inside the ``with``.

        That is LiteLLM's own functions, its ``Router`` and whatever is built on them.  Calls that
        any client makes are on its own ledger and are not recorded again.  A call that began inside
        is recorded when it ends, also after the ``with``.  LiteLLM's callbacks are left as they
        were found.  ``docs/capture.md`` says what is weaker on this road.

        Imports LiteLLM if nobody has (2 to 5 s on the loop: ``await warm_up()`` before, if that
        matters).

        Raises:
            LedgerClosed: the client is closed or closing.
        """
        self._core.check_open()
        self._capture.begin()
        try:
            yield self
        finally:
            self._capture.end()

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was recorded so far is written (and synced at ``synced``).

        Raises:
            FlushTimeout: not within ``timeout`` seconds; nothing is lost.
        """
        await self.usage.flush(timeout)

    def statistics(self) -> Statistics:
        """Return queue depth, what is written and synced, retries …  See ``Statistics``."""
        cache = self._options.cache
        if not self._is_view:
            figures = self._caching.statistics()
        else:
            figures = None if cache is None else cache.statistics()
        return replace(self._core.statistics(), duplicates=self._capture.duplicates, cache=figures)


def _checked(options: CallOptions) -> CallOptions:
    """Refuse at once what would fail with the first call that needs it."""
    if options.max_retries:
        need_tenacity()
    if options.cache is not None and not isinstance(options.cache, ResponseCache):
        raise TypeError(f"cache must be a ResponseCache, not {type(options.cache).__name__}")
    return options
