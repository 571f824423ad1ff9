"""A streamed answer that is recorded however it ends.

``CompletionStream`` delegates to LiteLLM's wrapper and watches it: read to the end, left by
``break``, closed, cancelled, failed, dropped without being read.  Each ending is recorded once,
with the provider's usage when it sent one and an estimate from the chunks when it did not.

Owns the endings of a stream.  Never changes a chunk; hides only the extra usage chunk that the
caller did not ask for.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from ._attempt import Attempt
from ._closing import outlive_cancellation
from ._outcome import from_exception, from_stream
from ._record import UsageRecord

__all__ = ["CompletionStream", "Host", "Upstream"]


class Host(Protocol):
    """What a stream needs of its client."""

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` as a task that the client's close waits for."""

    def ended(self, upstream: Upstream) -> None:
        """Forget the stream: it is settled."""

    async def estimate(self, upstream: Upstream) -> dict[str, Any]:
        """Estimate usage and cost from the chunks, off the loop."""

    def estimate_now(self, upstream: Upstream) -> dict[str, Any]:
        """The same, here and now."""

    def complete(self, fields: dict[str, Any], answer: Any, model: str | None) -> dict[str, Any]:
        """Add the cost, where LiteLLM left it out, and the price version."""

    async def acknowledge(self, record: UsageRecord) -> None:
        """Wait for the record to be as safe as was asked for."""


class Upstream:
    """One stream from a provider: LiteLLM's wrapper, the attempt, and how it ended.

    Apart from ``CompletionStream`` so that a finalizer can still settle it when that is gone.
    """

    __slots__ = (
        "attempt",
        "ended",
        "final",
        "host",
        "inner",
        "loop",
        "messages",
        "model",
        "tools",
        "usage_asked",
    )

    def __init__(
        self,
        inner: Any,
        attempt: Attempt,
        host: Host,
        *,
        model: str | None,
        messages: Any,
        tools: Any,
        usage_asked: bool,
    ) -> None:
        self.inner = inner
        self.attempt = attempt
        self.host = host
        self.model = model
        self.messages = messages
        self.tools = tools
        self.usage_asked = usage_asked
        self.loop = asyncio.get_running_loop()
        self.final: Any = None  # LiteLLM's extra chunk: usage, and the price
        self.ended = False

    @property
    def chunks(self) -> list[Any]:
        """The provider's chunks so far, as LiteLLM keeps them."""
        return list(getattr(self.inner, "chunks", None) or ())

    def read(self, *, finished: bool) -> dict[str, Any]:
        """What the chunks themselves say of the usage."""
        fields = from_stream(self.chunks, finished=finished, final=self.final)
        return self.host.complete(fields, self.final, self.model)

    async def finish(self, fields: Mapping[str, Any]) -> None:
        """Settle a stream that was read to its end."""
        await self._settle(self.read(finished=True), fields)

    async def leave(self, fields: Mapping[str, Any]) -> None:
        """End a stream that was not: close the provider's connection, then settle."""
        try:
            with contextlib.suppress(Exception):
                await self.inner.aclose()
        finally:
            await self._settle(self.read(finished=False), fields)

    async def _settle(self, found: dict[str, Any], fields: Mapping[str, Any]) -> None:
        """By the provider's count if there is one, else by an estimate made off the loop."""
        try:
            if found["usage_source"] != "provider":
                found.update(await self.host.estimate(self))
        finally:
            # What was found wins: an exception knows of no usage, the chunks before it may.
            if self.attempt.settle({**fields, **found}) is not None:
                self.host.ended(self)

    def settle_now(self) -> None:
        """Settle without a loop: it is gone, or the interpreter is about to be."""
        found = self.read(finished=False)
        if found["usage_source"] != "provider":
            found.update(self.host.estimate_now(self))
        self.attempt.settle_anywhere({**found, "status": "abandoned"})


def _dropped(upstream: Upstream) -> None:
    """Nobody holds the stream any more.  On any thread, at any point, perhaps without a loop."""
    if not upstream.ended:
        upstream.ended = True
        with contextlib.suppress(RuntimeError):  # closed: the client settles it at the very end
            upstream.loop.call_soon_threadsafe(_leave, upstream, {"status": "abandoned"})


def _leave(upstream: Upstream, fields: Mapping[str, Any]) -> None:
    upstream.host.in_background(upstream.leave(fields))


class CompletionStream:
    """An async iterator over the chunks of one answer; also an async context manager.

    Attributes and methods of LiteLLM's ``CustomStreamWrapper`` are there as well.

    Attributes:
        usage_record: the ``UsageRecord`` of this call once it has ended, else ``None``.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._finalizer = weakref.finalize(self, _dropped, upstream)
        self._finalizer.atexit = False  # the client settles what is still open then

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        upstream = self._upstream
        if upstream.ended:  # LiteLLM's wrapper would make up a "stop" and a usage
            raise StopAsyncIteration
        try:
            while True:
                chunk = await upstream.inner.__anext__()
                upstream.attempt.first_token()
                if not _is_extra(chunk):
                    return chunk
                upstream.final = chunk
                if upstream.usage_asked:
                    return chunk
        except StopAsyncIteration:
            await self._end(upstream.finish, {"status": "ok"})
            raise
        except BaseException as exc:
            # Cancelled, too: closing and counting take milliseconds, and a cancellation that
            # overtook them would leave them to a loop that may be about to end.
            await self._end(upstream.leave, from_exception(exc))
            raise

    async def _end(
        self,
        how: Callable[[Mapping[str, Any]], Coroutine[Any, Any, None]],
        fields: Mapping[str, Any],
    ) -> None:
        """Settle once, in a task that outlives the reader; wait for it, and for the ack."""
        upstream = self._upstream
        if not upstream.ended:
            upstream.ended = True
            self._finalizer.detach()
            await outlive_cancellation(upstream.host.in_background(how(fields)))
        if upstream.attempt.record is not None and fields["status"] != "cancelled":
            await upstream.host.acknowledge(upstream.attempt.record)

    async def aclose(self) -> None:
        """Stop: close the provider's connection, record what was used.  Idempotent.

        Returns when the record is as safe as ``durability`` says.  Cancelled, it is recorded all
        the same.
        """
        await self._end(self._upstream.leave, {"status": "abandoned"})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def usage_record(self) -> UsageRecord | None:
        """The record of this call once it has ended."""
        return self._upstream.attempt.record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._upstream.inner, name)

    def __repr__(self) -> str:
        return f"<CompletionStream of {self._upstream.inner!r}>"


def _is_extra(chunk: Any) -> bool:
    """Whether this is the chunk that exists only to carry the usage."""
    return getattr(chunk, "usage", None) is not None
