"""One provider's stream, read by all who made the equal call, and kept when it was read to its end.

Owns the chunks that have come so far and who still reads them.  Nobody reads ahead: a chunk is
fetched when the first of the readers wants it, so a slow reader holds up nobody but the provider
when it is alone.  The first caller has the provider's stream, as far as the ledger is concerned;
the others are hits.  When the last reader leaves early, so does the stream.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any

from ._attempt import Attempt
from ._cache_entry import Entry
from ._calls import Asked
from ._core import ClientCore
from ._handing import twin_of
from ._packing import Unpackable, pack, unpack
from ._record import UsageRecord
from ._replay import Frames, FreeHost, KnownReader
from ._stream import CompletionStream, Upstream
from ._stream_readers import StreamReader

__all__ = ["SharedStream"]


class SharedStream:
    """The provider's stream, and what came of it.

    Args:
        source: nobody else has it.
        frames: collects what is to be kept.
        done: called once nobody can join any more; with the body of the entry and the record of
            the provider's stream, if it is to be kept.
    """

    def __init__(
        self,
        core: ClientCore,
        source: CompletionStream,
        frames: Frames,
        done: Callable[[bytes | None, UsageRecord | None], None],
    ) -> None:
        self.source = source
        self._core = core
        self._frames = frames
        self._done: Callable[[bytes | None, UsageRecord | None], None] | None = done
        self._parts: list[_Part] = []
        self._readers: set[_Tap] = set()
        self._ended: BaseException | None = None
        self._wanted = asyncio.Event()
        self._arrived = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    @property
    def open(self) -> bool:
        """Whether an equal call can still join."""
        return self._done is not None

    def lead(self, asked: Asked) -> CompletionStream:
        """Return the stream of the caller for whom it was made."""
        tap = _Tap(self, first=True)
        paid: Any = _Paid(self.source)
        return self._handed(tap, paid, asked, KnownReader(StreamReader(tap), {}))

    def join(self, asked: Asked, attempt: Attempt) -> CompletionStream:
        """Return a stream of another caller, from the first chunk on."""
        attempt.join()
        tap = _Tap(self)
        reader = (asked.call.reader or StreamReader)(tap)
        return self._handed(tap, attempt, asked, _FollowingReader(reader, self.source))

    def _handed(
        self, tap: _Tap, attempt: Attempt, asked: Asked, reader: StreamReader
    ) -> CompletionStream:
        self._readers.add(tap)
        host: Any = FreeHost(self._core)
        # What the caller did not ask for, the source has left out already.
        upstream = _Shared(tap, attempt, host, asked=asked, reader=reader, usage_asked=True)
        self._core.begin(upstream)
        return CompletionStream(upstream)

    # -- reading -----------------------------------------------------------------------------------

    async def part(self, at: int) -> _Part:
        """Return the chunk with this number, from 0; fetch it if it is not here yet.

        Raises:
            StopAsyncIteration: there is none: the stream has ended.
            Exception: what the stream failed with.
        """
        while at >= len(self._parts):
            if self._ended is not None:
                raise self._ended
            if self._pump is None:
                self._pump = asyncio.get_running_loop().create_task(
                    self._fetch(), name="litellm-ledger-shared-stream"
                )
                self._pump.add_done_callback(self._stopped)
            self._wanted.set()
            await self._arrived.wait()
        return self._parts[at]

    async def _fetch(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                chunk = await self.source.__anext__()
            except BaseException as exc:
                self._finish(exc)
                if isinstance(exc, StopAsyncIteration | Exception):
                    return
                raise
            self._parts.append(self._packed(chunk))
            self._wanted.clear()  # this was it, for all who asked meanwhile
            self._wake()

    def _packed(self, chunk: Any) -> _Part:
        """Pack a chunk before anybody has it, and may change it."""
        try:
            packed = pack(chunk)
        except Unpackable:  # it is read on by those who are here
            self._close(None)
            return _Part(None, chunk)
        if not self._frames.add(packed):
            self._close(None)
        return _Part(packed, chunk)

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = asyncio.Event()

    def _finish(self, exc: BaseException) -> None:
        self._ended = exc
        record = self.source.usage_record
        read = isinstance(exc, StopAsyncIteration) and record is not None and record.status == "ok"
        self._close(record if read else None)
        self._wake()

    def _close(self, record: UsageRecord | None) -> None:
        """Take no more readers; hand over what is to be kept, if anything is."""
        done, self._done = self._done, None
        if done is not None:
            done(None if record is None else self._frames.body(), record)

    def _stopped(self, pump: asyncio.Task[None]) -> None:
        """The pump has ended; if from outside, those who read hear of it."""
        if self._ended is None:
            self._finish(asyncio.CancelledError())

    # -- leaving -----------------------------------------------------------------------------------

    async def leave(self, tap: _Tap, how: Mapping[str, Any]) -> None:
        """Stop reading; the last one out ends the provider's stream, in the same way."""
        self._readers.discard(tap)
        if not self._readers:
            await self.end(how)

    async def end(self, how: Mapping[str, Any]) -> None:
        """End the provider's stream, if nobody reads it, and wait until that is on record."""
        if self._readers:
            return
        self._close(None)
        pump = self._pump
        if pump is not None and how["status"] == "cancelled":
            pump.cancel()  # the source is cancelled where it reads, as if its reader were
            await asyncio.wait({pump})
        if self._ended is None or not isinstance(self._ended, StopAsyncIteration | Exception):
            await self.source._end(how)
        if pump is not None:
            pump.cancel()


class _Part:
    """One chunk: packed, and as it came until the first caller has it."""

    __slots__ = ("_chunk", "_packed")

    def __init__(self, packed: bytes | None, chunk: Any) -> None:
        self._packed = packed
        self._chunk = chunk

    def original(self) -> Any:
        """The chunk itself, once."""
        chunk = self._chunk
        if self._packed is not None:
            self._chunk = None
        return chunk

    def fresh(self) -> Any:
        """A chunk like it."""
        if self._packed is not None:
            return unpack(self._packed)
        with suppress(Exception):
            return copy.deepcopy(self._chunk)
        return self._chunk


class _Tap:
    """What one reader reads.  Everything else it is asked for is LiteLLM's wrapper's."""

    def __init__(self, shared: SharedStream, *, first: bool = False) -> None:
        self._shared = shared
        self._first = first
        self._at = 0
        self.how: Mapping[str, Any] = {"status": "abandoned"}

    def __aiter__(self) -> _Tap:
        return self

    async def __anext__(self) -> Any:
        try:
            part = await self._shared.part(self._at)
        except StopAsyncIteration:
            raise StopAsyncIteration from None
        except Exception as exc:
            if self._first:
                raise
            raise twin_of(exc) from None
        self._at += 1
        return part.original() if self._first else part.fresh()

    async def aclose(self) -> None:
        await self._shared.leave(self, self.how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shared.source, name)


class _Shared(Upstream):
    """An upstream that tells its tap how it ends."""

    __slots__ = ()

    async def finish(self, fields: Mapping[str, Any]) -> None:
        self.inner._shared._readers.discard(self.inner)
        await super().finish(fields)

    async def leave(self, fields: Mapping[str, Any]) -> None:
        self.inner.how = fields
        await super().leave(fields)


class _Paid:
    """The attempt of the first caller: that of the provider's stream, which settles it itself."""

    def __init__(self, source: CompletionStream) -> None:
        self._source = source

    @property
    def record(self) -> UsageRecord | None:
        """The outcome, once the provider's stream has one."""
        return self._source.usage_record

    def first_token(self) -> None:
        """The provider's stream has noted it."""

    def settle(self, fields: Mapping[str, Any]) -> Any:
        """Nothing is left to do: the client may forget this reader."""
        return self

    def settle_anywhere(self, fields: Mapping[str, Any]) -> None:
        """Nothing is left to do."""


class _FollowingReader(KnownReader):
    """What is on record of a reader for whom no request was made."""

    def __init__(self, reader: StreamReader, source: CompletionStream) -> None:
        super().__init__(reader, {})
        self._source = source

    def fields(self, *, finished: bool) -> dict[str, Any]:
        paid = self._source.usage_record
        if finished and paid is not None:
            fields = Entry.of("", paid, b"", stream=True).outcome("shared")
            del fields["status"]
            return fields
        operation = self._source._upstream.attempt.operation
        cache = {"operation": operation, "how": "shared"}
        return {"cost": Decimal(0), "usage_source": "none", "meta": {"cache": cache}}
