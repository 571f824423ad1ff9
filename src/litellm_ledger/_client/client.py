"""``LiteLLMClient``: LiteLLM's async calls, each recorded on the ledger however it ends.

Owns the public surface: names, signatures, docstrings.  ``_calls.call`` makes a call,
``_calls.core`` holds what a call needs.  The first call imports LiteLLM, importing this package
does not; LiteLLM's arguments, answers and exceptions are passed through unchanged.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, Never, Self

from litellm_ledger._calls.call import call, call_unbilled
from litellm_ledger._calls.core import ClientCore
from litellm_ledger._calls.operation import need_tenacity
from litellm_ledger._calls.options import AbandonedStream, CallOptions, Keep, refuse_ours
from litellm_ledger._calls.straight import straight_call
from litellm_ledger._records.statistics import Statistics
from litellm_ledger._runtime.misuse import AsyncOnly, instead
from litellm_ledger._storage.filesystem import REAL, FileSystem
from litellm_ledger._storage.live_file import Durability
from litellm_ledger._tracking.tracker import UsageTracker
from litellm_ledger._writing.state import State

from .further import FurtherCalls
from .methods import CallTags, LiteLLMCalls

if TYPE_CHECKING:
    from datetime import timedelta

    from litellm_ledger._budgets.alerts import BudgetAlert
    from litellm_ledger._budgets.budget import Budget
    from litellm_ledger._budgets.leasing import Unavailable
    from litellm_ledger._cache.caching import Caching
    from litellm_ledger._cache.response_cache import ResponseCache
    from litellm_ledger._calls.capture import Capture
    from litellm_ledger._litellm.self_check import LiteLLMCheck
    from litellm_ledger._maintenance.retention import Retention
    from litellm_ledger._prices.own import ModelPrice

    from .budgets import ClientBudgets

__all__ = ["LiteLLMClient"]


class LiteLLMClient(LiteLLMCalls, FurtherCalls, AsyncOnly):
    """Calls language models through LiteLLM and records what each call used and cost.

    Use it as ``async with LiteLLMClient() as client``, or call it right away and end with
    ``await client.aclose()``.  It belongs to one event loop.

    Args:
        ledger: the directory; default ``$LITELLM_LEDGER_DIR``, else the user's data directory.
        durability: what an answer waits for: its record is ``queued``, ``written`` (the operating
            system has it: it survives SIGKILL), ``synced`` (the disk has it: it survives a power
            cut) or ``shipped`` (``sink`` has it: it survives the loss of the machine).
        tags: text to text, added to every record.
        queue_size: records accepted and not yet written; when full, new calls wait.
        drain_timeout: seconds that ``aclose`` may take.
        handle_signals: drain on SIGTERM and SIGINT; ``auto``: only where no server handles them.
        on_abandoned_stream: what happens to a stream that is left before its end.  ``close``: close
            the provider's connection at once and estimate the usage.  ``drain``: read the rest in
            the background (at most 64 streams, 30 s each; more are closed) and record the
            provider's own usage.
        max_retries: attempts of one call after the first, each recorded; needs the extra ``retry``.
            ``None``: LiteLLM and its SDKs retry, and these retries are not recorded.
        deadline: seconds for one call, including all attempts and waiting (``None``: no limit).
        max_concurrency: requests in flight at once; more wait, first come, first served.
        track_in_flight: write a ``started`` record before a request leaves, so that a call that
            is in flight when the process dies is recorded as ``unsettled``.
        ack_timeout: seconds an answer waits for its record's ack; then it is returned with a
            ``LedgerWarning`` and counted in ``statistics().unacked``.
        fetch_prices: let LiteLLM fetch its price map over the network when it is imported.
        prices: your own prices, model to ``ModelPrice``, or to several that begin at different
            times (``valid_from``); they take precedence over LiteLLM's.
        capture_content: store what the model read and wrote, in ``UsageRecord.content``.
        cache: a ``ResponseCache``: equal calls are answered from it.  ``None``: no cache.
        capture: while the client is open, record calls of other code too; see ``capture()``.
        budgets: what calls may cost: a list of ``Budget``, or the path of a ``budgets.toml``, which
            is read again when it changes.  A call that one of them has no room for is refused with
            ``BudgetExceeded`` before it is sent.  ``track_in_flight`` is on then.
        wait_for_budget: such a call waits while only money of calls in flight is in the way, first
            come, first served, at most until its ``deadline``.
        budgets_at: the limits of ``budgets`` are those of all machines that say the same:
            ``postgresql://…`` (the extra ``postgres``), which lends each process a part of them
            (docs/budgets.md).  Budgets in ``soft`` mode are not shared.
        on_unavailable: what happens while that database is away: ``spend-the-lease-then-refuse``
            refuses what goes beyond what this process was lent; ``allow`` sends it, and the
            limits may be exceeded.
        on_budget_alert: called with a ``BudgetAlert`` when a threshold of a budget (``warn``) is
            reached, in a thread of the client's; once a window, for all processes of the ledger.
            The log has it too.
        budget_webhook: an address that gets each of them as JSON, signed with the key in
            ``$LITELLM_LEDGER_WEBHOOK_KEY``; tried three times, and again a minute later.
        mode: mode of the ledger's directories, to share it with a group: ``0o750`` lets the group
            read, ``0o770`` also write.  Files follow.  ``None``: private, or unchanged.
        retention: how long records are kept: ``400d``, a ``timedelta``, how large the ledger may
            be (``10G``), or a ``Retention``.  What is past that is removed in the background, as
            ``litellm-ledger prune`` does.  ``None``: everything is kept.
        sink: ``postgresql://…``, a database that the ledger is shipped to in the background, each
            record once; needs the extra ``postgres``.  While it is away the ledger grows, and calls
            continue.  What is not shipped when the client closes is shipped by the next process.
            Retention removes only what was shipped a day ago.  ``None``: nothing is shipped.
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
        prices: Mapping[str, ModelPrice | Sequence[ModelPrice]] | None = None,
        capture_content: bool = False,
        cache: ResponseCache | None = None,
        capture: bool = False,
        budgets: Sequence[Budget] | str | os.PathLike[str] | None = None,
        wait_for_budget: bool = False,
        budgets_at: str | None = None,
        on_unavailable: Unavailable = "spend-the-lease-then-refuse",
        on_budget_alert: Callable[[BudgetAlert], object] | None = None,
        budget_webhook: str | None = None,
        mode: int | None = None,
        retention: str | timedelta | Retention | None = None,
        sink: str | None = None,
        fs: FileSystem = REAL,
    ) -> None:
        self._options = CallOptions(
            max_retries=max_retries,
            deadline=deadline,
            on_abandoned_stream=on_abandoned_stream,
            capture_content=capture_content,
            cache=cache,
            wait_for_budget=wait_for_budget,
        )
        _check(self._options)
        self._is_view = False
        self.usage = UsageTracker(
            ledger,
            durability=durability,
            tags=tags,
            queue_size=queue_size,
            drain_timeout=drain_timeout,
            handle_signals=handle_signals,
            mode=mode,
            retention=retention,
            sink=sink,
            fs=fs,
        )
        self._core = ClientCore(
            self.usage,
            drain_timeout=drain_timeout,
            ack_timeout=ack_timeout,
            fetch_prices=fetch_prices,
            max_concurrency=max_concurrency,
            prices=prices,
            track_in_flight=track_in_flight or budgets is not None,
        )
        if budgets is not None:
            from litellm_ledger._calls.holding import Holding

            lending = None
            if budgets_at is not None:
                from litellm_ledger._budgets.leasing import Lending
                from litellm_ledger._budgets.lender import DatabaseLender

                lending = Lending(DatabaseLender(budgets_at), on_unavailable)
            self._core.holding = Holding(self._core, budgets, lending)
        elif budgets_at is not None:
            raise TypeError("budgets_at needs budgets: the limits that machines share")
        self._parts = _Parts(self._core)
        if budgets is not None or on_budget_alert is not None or budget_webhook is not None:
            self._parts.begin_budgets(on_budget_alert, budget_webhook)
        if capture:
            self._parts.capture.always = True
        if cache is not None:
            self._parts.caching.uses(cache)

    # -- life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._is_view:
            raise TypeError(
                "a view shares the life of its client: use 'async with' on the client and call "
                "with_options() inside, or give the options to LiteLLMClient()"
            )
        was_open = self.usage.state is State.OPEN
        try:
            await self._core.ready()
        except BaseException:  # the ledger is open, and its budgets are not
            if not was_open and self.usage.state is State.OPEN:
                await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    if not TYPE_CHECKING:  # for a type checker only what is there is there

        def __getattr__(self, name: str) -> Any:
            from litellm_ledger._litellm.offered import UNBILLED

            if name in UNBILLED:
                return partial(call_unbilled, self._core, name)
            raise instead(self, name)

    async def warm_up(self) -> None:
        """Import LiteLLM and what its first call needs, in a thread.

        Otherwise the first call waits for that import (2 to 5 s).  Cancelling stops the waiting,
        not the import.
        """
        await self._core.warm_up()

    async def check_litellm(self) -> LiteLLMCheck:
        """Check that recording works with the installed LiteLLM.

        Runs in a separate process, against a server on 127.0.0.1 and a temporary ledger: no key,
        no network, no effect on this client, its ledger or this process's LiteLLM.  Every kind of
        call is answered, streamed, failed, cancelled and left, through a client and under
        ``capture()``; each must be recorded once with the right tokens and cost.  Takes 5 to 30 s,
        most of it the import of LiteLLM.  Cancelling it ends the process.

        Returns:
            ``ok``; ``wrong`` (each with what was expected and what was found); ``not_checked``
            (what LiteLLM cannot do here without another package, which is named).

        Raises:
            MissingExtra: the extra ``testing`` is not installed.
            LedgerError: the check failed, or did not finish within 300 s.
        """
        from litellm_ledger._litellm.self_check import check_litellm

        return await check_litellm()

    async def aclose(self, timeout: float | None = None) -> None:
        """Write and sync every record, seal the ledger, close LiteLLM's connections of this loop.

        Idempotent; several tasks may await it, and all wait for the same close.  New calls are
        refused.  Calls in flight are not waited for; their outcomes are recorded when they arrive.
        Cancelling it does not cut it short: it finishes by its deadline and then re-raises.

        Args:
            timeout: seconds for the whole close; default ``drain_timeout``.

        Raises:
            DrainTimeout: records were still unwritten; the error has the counts.
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
        wait_for_budget: bool | Keep = Keep.KEEP,
    ) -> Self:
        """Return a view of this client that makes its calls with other options.

            patient = client.with_options(max_retries=5, deadline=60)
            await patient.acompletion(...)

        Costs 10 µs.  A view shares the client's ledger, concurrency limit, totals and life:
        ``aclose`` on a view closes the client, and ``async with`` on a view is refused.  Options
        that are not given stay unchanged; ``None`` switches an option off.

        Args:
            tags: added to every record, besides the view's own so far.  Tags of the call take
                precedence over them; they take precedence over ``client.tag(...)`` and the
                client's.

        Raises:
            ValueError: a value is out of range.
            MissingExtra: ``max_retries`` without the extra ``retry``.
        """
        options = self._options.changed(
            max_retries=max_retries,
            deadline=deadline,
            tags=tags,
            on_abandoned_stream=on_abandoned_stream,
            capture_content=capture_content,
            cache=cache,
            wait_for_budget=wait_for_budget,
        )
        _check(options)
        if options.cache is not None:
            self._parts.caching.uses(options.cache)
        view = copy.copy(self)
        vars(view).update(_is_view=True, _options=options)
        return view

    # -- calls ---------------------------------------------------------------------------------

    def _call(
        self,
        name: str,
        given: dict[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tags: CallTags,
    ) -> Coroutine[Any, Any, Any]:
        """Every call of ``LiteLLMCalls``; ``given`` are the arguments that its method names."""
        refuse_ours(name, kwargs)
        kwargs.update({name: value for name, value in given.items() if value is not None})
        if isinstance(tags, list):
            kwargs["tags"] = tags
            tags = None
        core, options = self._core, self._options
        if options.cache is None:
            if name == "acompletion" and not args and "model" in kwargs:
                return straight_call(core, kwargs, tags, options)
            return call(core, name, args, kwargs, tags, options=options)
        from litellm_ledger._cache.cached_call import cached_call

        return cached_call(core, self._parts.caching, name, args, kwargs, tags, options=options)

    async def _session(
        self,
        name: str,
        websocket: Any,
        kwargs: dict[str, Any],
        tags: Mapping[str, Any] | None,
    ) -> Any:
        from litellm_ledger._calls.realtime import session

        refuse_ours(name, kwargs)
        return await session(self._core, name, websocket, kwargs, tags, options=self._options)

    # -- the rest ------------------------------------------------------------------------------

    def tag(self, *mapping: Never, **tags: Any) -> contextlib.AbstractContextManager[None]:
        """Add tags to every call made inside the ``with``, also in tasks started inside it.

        Raises:
            TypeError: something that is no keyword argument; a mapping is given as ``**mapping``.
        """
        return self.usage.tag(*mapping, **tags)

    @contextlib.contextmanager
    def capture(self) -> Iterator[Self]:
        """Record the calls that other code in this process makes on LiteLLM inside the ``with``.

        This covers LiteLLM's own functions, its ``Router`` and everything built on them.  Calls of
        any ``LiteLLMClient`` are on that client's ledger and are not recorded again.  A call that
        began inside is recorded when it ends, even after the ``with``.  LiteLLM's callbacks are
        restored.  ``docs/capture.md`` lists the limits.

        Imports LiteLLM if that has not happened yet (2 to 5 s on the loop; ``await warm_up()``
        before avoids that).

        Raises:
            LedgerClosed: the client is closed or closing.
        """
        self._core.check_open()
        recording = self._parts.capture
        recording.begin()
        try:
            yield self
        finally:
            recording.end()

    @property
    def budgets(self) -> ClientBudgets:
        """The budgets of this client: ``await client.budgets.status()``."""
        return self._parts.budgets

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until everything recorded so far is written (and synced, at ``synced``).

        Raises:
            FlushTimeout: it took longer than ``timeout`` seconds; nothing is lost.
        """
        await self.usage.flush(timeout)

    def statistics(self) -> Statistics:
        """Return queue depth, written and synced records, retries …  See ``Statistics``."""
        loaded = vars(self._parts)
        capture, cache = loaded.get("capture"), loaded.get("caching")
        if self._is_view:
            cache = self._options.cache
        return replace(
            self._core.statistics(),
            duplicates=0 if capture is None else capture.duplicates,
            cache=None if cache is None else cache.statistics(),
        )


class _Parts:
    """What all views of a client share, and many clients never use: loaded at the first use."""

    def __init__(self, core: ClientCore) -> None:
        self._core = core

    @cached_property
    def budgets(self) -> ClientBudgets:
        """What a user sees of the budgets."""
        return self._budgets_that_tell(None, None)

    def begin_budgets(
        self, callback: Callable[[BudgetAlert], object] | None, webhook: str | None
    ) -> None:
        """Make ``budgets`` now: it tells of thresholds."""
        vars(self)["budgets"] = self._budgets_that_tell(callback, webhook)

    def _budgets_that_tell(
        self, callback: Callable[[BudgetAlert], object] | None, webhook: str | None
    ) -> ClientBudgets:
        from .budgets import ClientBudgets

        return ClientBudgets(self._core, callback=callback, webhook=webhook)

    @cached_property
    def capture(self) -> Capture:
        """The recorder of other code's calls."""
        from litellm_ledger._calls.capture import Capture

        return Capture(self._core)

    @cached_property
    def caching(self) -> Caching:
        """The client's part in its caches."""
        from litellm_ledger._cache.caching import Caching

        caching = Caching()
        self._core.on_close.append(caching.close)
        return caching


def _check(options: CallOptions) -> None:
    """Refuse at once what would fail with the first call that needs it."""
    if options.max_retries:
        need_tenacity()
    if options.cache is not None:
        from litellm_ledger._cache.response_cache import ResponseCache

        if not isinstance(options.cache, ResponseCache):
            raise TypeError(f"cache must be a ResponseCache, not {type(options.cache).__name__}")
