"""``LiteLLMClient``: LiteLLM's async calls, each of them on the ledger, however it ends.

    client.acompletion(…) -> Attempt (``started`` on the ledger) -> litellm.acompletion -> outcome

Owns the calls and the close.  LiteLLM is imported by the first call, never by importing us; its
arguments, answers and exceptions are passed through unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import time
import uuid
import weakref
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast, overload

import aiofiles.os

from . import _litellm, _process
from ._attempt import Attempt
from ._closing import outlive_cancellation, wait_until
from ._errors import LedgerClosed
from ._executor import DiskThread
from ._fs import REAL, FileSystem
from ._litellm_cost import compute_cost, estimate_stream, is_priced
from ._litellm_http import acquire_http, release_http
from ._outcome import from_exception, from_response
from ._record import UsageRecord, clean_tags
from ._state import State, refusal
from ._statistics import Statistics
from ._stream import CompletionStream, Upstream
from ._tracker import UsageTracker
from ._writer import Durability

if TYPE_CHECKING:
    from litellm import ModelResponse

__all__ = ["LiteLLMClient"]


class LiteLLMClient:
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
        on_abandoned_stream: ``close`` the provider's connection and estimate the usage.
        track_in_flight: write a ``started`` record before a request leaves, so that a call that
            dies with the process is on record as ``unsettled``.
        ack_timeout: seconds an answer waits for its record; then it is handed out with one
            ``LedgerWarning`` and counted in ``statistics().unacked``.
        fetch_prices: let LiteLLM fetch its price map over the network when it is imported.
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
        on_abandoned_stream: Literal["close"] = "close",
        track_in_flight: bool = True,
        ack_timeout: float = 5.0,
        fetch_prices: bool = False,
        fs: FileSystem = REAL,
    ) -> None:
        if on_abandoned_stream != "close":
            raise ValueError(f"on_abandoned_stream must be 'close', not {on_abandoned_stream!r}")
        self.usage = UsageTracker(
            ledger,
            durability=durability,
            tags=tags,
            queue_size=queue_size,
            drain_timeout=drain_timeout,
            handle_signals=handle_signals,
            fs=fs,
        )
        self.usage.close_on_signal(self.aclose)
        self._drain_timeout = drain_timeout
        self._track_in_flight = track_in_flight
        self._ack_timeout = ack_timeout
        self._fetch_prices = fetch_prices
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None
        self._estimator = DiskThread("litellm-ledger-estimate")
        self._background: set[asyncio.Task[None]] = set()
        self._streams: set[Upstream] = set()
        self._at_exit: weakref.finalize[..., Any] | None = None

    # -- life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._ready()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _ready(self) -> None:
        """Open if need be; raise if closed, failed, or on another loop."""
        if self._closing is not None:
            state = State.CLOSED if self._closing.done() else State.DRAINING
            raise LedgerClosed(refusal(state, "the client"))
        await self.usage.ready()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            acquire_http(self._loop)
            self._at_exit = _process.at_exit(_settle_all, self._streams, self._background)

    async def warm_up(self) -> None:
        """Import LiteLLM and what its first call needs, in a thread: seconds that no call shall
        pay.

        Changes nothing but time.  Cancelling stops the waiting, not the import.
        """
        await _litellm.warm_up(fetch_prices=self._fetch_prices)

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
        if self._loop is not asyncio.get_running_loop():
            await self.usage.aclose(timeout)  # never opened, or its loop is gone
            return
        if self._closing is None:
            budget = self._drain_timeout if timeout is None else timeout
            self._closing = self._loop.create_task(
                self._close(budget), name="litellm-ledger-client", context=contextvars.Context()
            )
        await outlive_cancellation(self._closing)

    async def _close(self, budget: float) -> None:
        deadline = time.monotonic() + budget
        try:
            for task in list(self._background):  # estimates being computed
                await wait_until(task, deadline)
        finally:
            try:
                await self.usage.aclose(max(0.1, deadline - time.monotonic()))
            finally:
                assert self._loop is not None
                self._rest()
                with contextlib.suppress(asyncio.CancelledError):
                    await release_http(self._loop)

    # -- calls ---------------------------------------------------------------------------------

    @overload
    async def acompletion(
        self,
        model: str,
        messages: Sequence[Any] = ...,
        *args: Any,
        stream: Literal[True],
        tags: Mapping[str, Any] | list[str] | None = ...,
        **kwargs: Any,
    ) -> CompletionStream: ...

    @overload
    async def acompletion(
        self,
        model: str,
        messages: Sequence[Any] = ...,
        *args: Any,
        stream: Literal[False] | None = ...,
        tags: Mapping[str, Any] | list[str] | None = ...,
        **kwargs: Any,
    ) -> ModelResponse: ...

    @overload
    async def acompletion(
        self,
        model: str,
        messages: Sequence[Any] = ...,
        *args: Any,
        stream: bool | None,
        tags: Mapping[str, Any] | list[str] | None = ...,
        **kwargs: Any,
    ) -> ModelResponse | CompletionStream: ...

    async def acompletion(
        self,
        model: str,
        messages: Sequence[Any] = (),
        *args: Any,
        stream: bool | None = None,
        tags: Mapping[str, Any] | list[str] | None = None,
        **kwargs: Any,
    ) -> ModelResponse | CompletionStream:
        """``litellm.acompletion``, recorded: same arguments, same answer, same exceptions.

        Args:
            tags: a mapping goes on the record; a list is LiteLLM's own and is forwarded.

        Returns:
            LiteLLM's ``ModelResponse``, or an async iterator of its chunks with ``stream=True``.
            ``.usage_record`` of either is the record of this call (of a stream once it has ended).

        Raises:
            LedgerClosed: the client is closed or closing.
            LedgerFailed: the ledger's writer has died: no call leaves that could not be recorded.

        Cancelled before the request has left, nothing was spent; cancelled later, the call is on
        record as ``cancelled``.
        """
        kwargs["model"] = model
        kwargs["messages"] = list(messages)
        if stream is not None:
            kwargs["stream"] = stream
        if isinstance(tags, list):
            kwargs["tags"] = tags
            tags = None
        return cast(
            "ModelResponse | CompletionStream", await self._call("acompletion", args, kwargs, tags)
        )

    async def _call(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tags: Mapping[str, Any] | None,
    ) -> Any:
        await self._ready()
        litellm = _litellm.loaded() or await _litellm.load(fetch_prices=self._fetch_prices)
        function = getattr(litellm, name)
        stream = bool(kwargs.get("stream"))
        usage_asked = not stream or _ask_for_usage(kwargs)
        call_id = kwargs.setdefault("litellm_call_id", str(uuid.uuid4()))
        attempt = Attempt(
            self.usage,
            call=name,
            model=kwargs["model"],
            stream=stream,
            tags=clean_tags(tags) if tags else None,
            call_id=call_id,
        )
        await attempt.begin(write=self._track_in_flight, ack_timeout=self._ack_timeout)
        try:
            answer = await function(*args, **kwargs)
        except BaseException as exc:
            record = attempt.settle(from_exception(exc))
            if record is not None and isinstance(exc, Exception):
                await self.acknowledge(record)
            raise
        if stream and hasattr(answer, "__anext__"):
            upstream = Upstream(
                answer,
                attempt,
                self,
                model=kwargs["model"],
                messages=kwargs.get("messages"),
                tools=kwargs.get("tools"),
                usage_asked=usage_asked,
            )
            self._streams.add(upstream)
            return CompletionStream(upstream)
        record = attempt.settle(self.complete(from_response(answer), answer, kwargs["model"]))
        if record is not None:
            await self.acknowledge(record)
            # Past pydantic's own __setattr__, which would put it into model_dump() and JSON.
            object.__setattr__(answer, "usage_record", record)
        return answer

    # -- what a stream needs of its client (``_stream.Host``) ------------------------------------

    def complete(self, fields: dict[str, Any], answer: Any, model: str | None) -> dict[str, Any]:
        """Add the cost, where LiteLLM left it out, and the price version.  For ``_stream``."""
        provider = fields.get("provider")
        if fields.get("cost") == 0 and not is_priced(model or "", provider):
            del fields["cost"], fields["cost_source"]  # LiteLLM's 0 for a model without a price
        if "cost" not in fields and fields["usage_source"] == "provider" and answer is not None:
            cost = compute_cost(answer, model=model or "", custom_llm_provider=provider)
            if cost is not None:
                fields["cost"], fields["cost_source"] = cost, "litellm"
        if fields.get("cost_source") == "litellm":
            fields["price_version"] = _litellm.price_version()
        return fields

    async def estimate(self, upstream: Upstream) -> dict[str, Any]:
        """Estimate a stream's usage from its chunks, off the loop.  For ``_stream``."""
        estimate = aiofiles.os.wrap(self.estimate_now)
        fields: dict[str, Any] = await estimate(upstream, executor=self._estimator)
        return fields

    def estimate_now(self, upstream: Upstream) -> dict[str, Any]:
        """The same, here and now.  For ``_stream``."""
        fields = estimate_stream(
            upstream.model or "",
            upstream.messages,
            upstream.chunks,
            custom_llm_provider=getattr(upstream.inner, "custom_llm_provider", None),
            tools=upstream.tools,
        )
        return self.complete(fields, None, upstream.model)

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run the end of a stream as a task that ``aclose`` waits for.  For ``_stream``."""
        assert self._loop is not None
        task = self._loop.create_task(
            work, name="litellm-ledger-stream", context=contextvars.Context()
        )
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def ended(self, upstream: Upstream) -> None:
        """Forget a stream: it is settled.  For ``_stream``."""
        self._streams.discard(upstream)
        if self._closing is not None and self._closing.done():
            self._rest()

    def _rest(self) -> None:
        """Leave nothing behind once the client is closed and its last stream has ended."""
        if not self._streams:
            self._estimator.stop()
            if self._at_exit is not None:
                self._at_exit.detach()

    async def acknowledge(self, record: UsageRecord) -> None:
        """Wait until a record is as safe as ``durability`` says.  Never withholds an answer."""
        await self.usage.acknowledge(record, self._ack_timeout)

    # -- the rest ------------------------------------------------------------------------------

    def tag(self, **tags: Any) -> contextlib.AbstractContextManager[None]:
        """Put tags on every call made inside the ``with``, also in tasks started inside it."""
        return self.usage.tag(**tags)

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was recorded so far is written (and synced at ``synced``).

        Raises:
            FlushTimeout: not within ``timeout`` seconds; nothing is lost.
        """
        await self.usage.flush(timeout)

    def statistics(self) -> Statistics:
        """Return queue depth, what is written and synced, retries …  See ``Statistics``."""
        return self.usage.statistics()


def _ask_for_usage(kwargs: dict[str, Any]) -> bool:
    """Have the provider send the usage of a stream; tell whether the caller wanted it anyway.

    A stream without ``include_usage`` ends with zeros that look like the provider's.
    """
    options = kwargs.get("stream_options")
    if isinstance(options, Mapping) and "include_usage" in options:
        return True
    kwargs["stream_options"] = {**(options or {}), "include_usage": True}
    return False


def _settle_all(streams: set[Upstream], background: set[asyncio.Task[None]]) -> None:
    """At interpreter exit: what is still open was left; what was being counted is counted now."""
    for task in list(background):
        if hasattr(task, "_log_destroy_pending"):
            task._log_destroy_pending = False
    for upstream in list(streams):
        upstream.settle_now()
