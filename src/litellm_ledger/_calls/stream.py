"""A streamed answer that is recorded however it ends.

``CompletionStream`` delegates to LiteLLM's wrapper and watches it: read to the end, left by
``break``, closed, cancelled, failed, dropped without being read.  Each ending is recorded once,
with the provider's usage when it sent one and an estimate from the chunks when it did not.  With
``on_abandoned_stream="drain"`` a stream that was left is read to its end first, within the bounds
of ``_calls.draining``.

Owns the endings of a stream.  Never changes a chunk; hides only the extra usage chunk that the
caller did not ask for.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from litellm_ledger._litellm.calls import Asked
from litellm_ledger._litellm.failures import may_be_billed
from litellm_ledger._litellm.members import merged
from litellm_ledger._litellm.outcome import from_exception
from litellm_ledger._litellm.own_calls import ours
from litellm_ledger._litellm.stream_readers import StreamReader
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._runtime.cancellation import outlive_cancellation
from litellm_ledger._runtime.limits import Deadline

from .answers import label
from .attempt import Attempt
from .core import ClientCore

if TYPE_CHECKING:
    from .paid_stream import Pump

__all__ = ["CompletionStream", "Upstream"]

_ABANDONED: Final[Mapping[str, Any]] = {"status": "abandoned"}


class Keeper(Protocol):
    """What keeps a stream for equal calls to come."""

    def see(self, chunk: Any) -> None:
        """Take a chunk that the reader is about to have."""

    async def finished(self, record: UsageRecord | None) -> None:
        """The stream was read to its end, and is on record."""


@dataclass(slots=True, eq=False, repr=False)
class Upstream:
    """One stream from a provider: LiteLLM's wrapper, the attempt, and how it ended.

    Apart from ``CompletionStream`` so that a finalizer can still settle it when that is gone.
    """

    inner: Any
    attempt: Attempt
    core: ClientCore
    _: KW_ONLY
    asked: Asked
    reader: StreamReader
    usage_asked: bool
    drain: bool = False
    deadline: Deadline | None = None  # for its reader; reading on has its own bounds
    watch: Callable[[Any], Any] | None = None  # around the first read (``Strays``)
    keeper: Keeper | None = None
    pump: Pump | None = None  # a budget pays while it is read
    reading_on: bool = False  # it was left, and has a place among those that are read on
    pending: asyncio.Task[Any] | None = None  # the read that a cancelled reader left
    ended: bool = False
    refused: bool = False  # it failed with an error status that the provider sent
    how: Mapping[str, Any] = field(default_factory=lambda: _ABANDONED)
    """How it ends, if nobody says otherwise."""
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    @property
    def provider(self) -> str | None:
        """As the caller named it, or as LiteLLM calls it."""
        return self.core.pricing.provider(None, self.asked)

    async def off_loop(self, work: Callable[..., Any], *args: Any) -> Any:
        """Run what blocks in a thread of the client's."""
        return await self.core.off_loop(work, *args)

    def read(self, *, finished: bool) -> dict[str, Any]:
        """What the stream itself says of its outcome."""
        fields = self.reader.fields(finished=finished)
        answer, began = self.reader.answer(), self.attempt.ts
        return self.core.pricing.complete(fields, answer, self.asked, began)

    async def read_chunk(self) -> Any:
        """Return the next chunk, having noted what it says."""
        chunk = await self._next()
        self.watch = None
        self.attempt.first_token()
        self.reader.see(chunk)
        return chunk

    def _advance(self) -> Any:
        chunk = self.inner.__anext__()
        return chunk if self.watch is None else self.watch(chunk)

    async def _next(self) -> Any:
        if not self.drain:
            with ours():
                return await self._advance()
        # A cancellation that travelled into the read would end the stream, and nothing could be
        # read on: the read is a task of its own, which a cancelled reader leaves to who reads on.
        if self.pending is None:
            with ours():
                self.pending = self.loop.create_task(
                    self._advance(), name="litellm-ledger-stream-read"
                )
        await asyncio.wait({self.pending})
        pending, self.pending = self.pending, None
        if pending.cancelled():  # by the end of the loop: there is nothing left to read
            self.drain = False
        return pending.result()

    def leave_soon(self, fields: Mapping[str, Any]) -> asyncio.Task[None]:
        """``leave`` in a task of the client's."""
        self.how = fields
        # An exception ends a stream at its source: there is nothing to read on.
        left = fields["status"] in ("abandoned", "cancelled")
        self.reading_on = self.drain and left and self.core.draining.admit()
        return self.core.in_background(self.leave())

    async def leave(self) -> None:
        """End it: read on or close the provider's connection, unless it was read; then settle."""
        whole = self._was_read()
        pump = self.pump
        try:
            if pump is not None:
                await pump.stop()
            if self.reading_on:
                read = self.read_chunk if pump is None else pump.read_on
                whole = await self.core.draining.read_on(read)
        finally:
            try:
                if not whole:
                    await self._close()
            finally:
                await self._settle(self.read(finished=whole))

    async def _close(self) -> None:
        if self.pending is not None:  # nobody may close a generator that is being read
            self.pending.cancel()
            await asyncio.wait({self.pending})
        with contextlib.suppress(Exception):
            await self.reader.aclose()

    async def _settle(self, found: dict[str, Any]) -> None:
        """By the provider's count if there is one, else by an estimate made off the loop."""
        self.attempt.billed = not self._unbilled()
        try:
            if self._is_to_be_estimated(found) and not self._unbilled():
                found.update(await self._estimate())
        finally:
            if self.attempt.settle(self._with_end(found)) is not None:
                self.core.ended(self)

    async def _estimate(self) -> dict[str, Any]:
        """Estimate off the loop; where that is cut short, here and now."""
        try:
            return await self.core.estimate(self.asked, self.reader, self.attempt.ts)
        except (asyncio.CancelledError, RuntimeError):
            # Only the end of the loop cancels this task: a stream was dropped after the client's
            # close, which waits for the others.  Or the interpreter starts no thread any more.
            return self.core.estimate_now(self.asked, self.reader, self.attempt.ts)

    def _is_to_be_estimated(self, found: Mapping[str, Any]) -> bool:
        # What goes on at the provider will be counted when it is done: half of it now would be
        # billed twice.
        return found["usage_source"] != "provider" and not self.reader.runs_on

    def _unbilled(self) -> bool:
        """Whether the provider answered with an error status before anything else."""
        return self.refused and self.inner is not None and self.reader.text is None

    def settle_now(self) -> None:
        """Settle without a loop: it is gone, or the interpreter is about to be."""
        if self.pump is not None:
            self.pump.forget()
        found = self.read(finished=self._was_read())
        if self._is_to_be_estimated(found) and not self._unbilled():
            found.update(self.core.estimate_now(self.asked, self.reader, self.attempt.ts))
        self.attempt.settle_anywhere(self._with_end(found))

    def _was_read(self) -> bool:
        return bool(self.how["status"] == "ok")

    def _with_end(self, found: Mapping[str, Any]) -> dict[str, Any]:
        # What was found wins: an exception knows of no usage, the chunks before it may.
        return merged(self.how, {**found, **self.asked.content(self.reader.text)})


def _dropped(upstream: Upstream) -> None:
    """Nobody holds the stream any more.  On any thread, at any point, perhaps without a loop."""
    if not upstream.ended:
        upstream.ended = True
        with contextlib.suppress(RuntimeError):  # closed: the client settles it at the very end
            upstream.loop.call_soon_threadsafe(upstream.leave_soon, _ABANDONED)


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
                chunk = await self._read()
                if upstream.usage_asked or not upstream.reader.is_extra(chunk):
                    if upstream.keeper is not None:
                        upstream.keeper.see(chunk)
                    return chunk
        except StopAsyncIteration:
            await self._end({"status": "ok"})
            if upstream.keeper is not None:
                await upstream.keeper.finished(upstream.attempt.record)
            raise
        except BaseException as exc:
            # Waits although it is cancelled: closing and counting take milliseconds, and a
            # cancellation that overtook them would leave them to a loop that may be about to end.
            fields = from_exception(exc)
            upstream.refused = "meta" in fields and not may_be_billed(exc)
            await self._end(fields)
            label(exc, self.usage_record)
            raise

    async def _read(self) -> Any:
        upstream = self._upstream
        read = upstream.read_chunk if upstream.pump is None else upstream.pump.next
        if upstream.deadline is None:
            return await read()
        async with upstream.deadline.enforced():
            return await read()

    async def _end(self, fields: Mapping[str, Any]) -> None:
        """Settle once, in a task that outlives the reader; wait for it, and for the ack.

        A stream that is read on settles later: nobody waits for that but the client's close.
        """
        upstream = self._upstream
        if not upstream.ended:
            upstream.ended = True
            self._finalizer.detach()
            task = upstream.leave_soon(fields)
            if not upstream.reading_on:
                await outlive_cancellation(task)
        if upstream.attempt.record is not None and fields["status"] != "cancelled":
            await upstream.core.acknowledge(upstream.attempt.record)

    async def aclose(self) -> None:
        """Stop: close the provider's connection, record what was used.  Idempotent.

        Returns when the record is as safe as ``durability`` says.  Cancelled, it is recorded all
        the same.  With ``on_abandoned_stream="drain"`` it returns at once, and the stream is read
        on and recorded by a task of the client's.
        """
        await self._end(_ABANDONED)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def usage_record(self) -> UsageRecord | None:
        """The record of this call once it has ended."""
        return self._upstream.attempt.record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._upstream.inner, name)

    def __repr__(self) -> str:
        return f"<CompletionStream of {self._upstream.inner!r}>"
