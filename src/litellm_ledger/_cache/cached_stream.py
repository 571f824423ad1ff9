"""A stream through a response cache: replayed, or the provider's, which is kept once it was read.

Owns the order of the two.  A stream is kept when its reader has read it to the end: an equal call
that comes before makes a request of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from litellm_ledger._calls.stream import CompletionStream
from litellm_ledger._records.record import UsageRecord

from .cacheable_call import Asker
from .entry import Entry
from .packing import Unpackable, pack
from .replay import Frames, replay

__all__ = ["StreamAsker"]


class StreamAsker(Asker):
    """A call for a stream."""

    async def ask(self) -> Any:
        """Return a stream that is replayed, or the provider's, to be kept when it was read."""
        entry = await self.entry()
        if entry is not None:
            try:
                upstream = replay(self.core, self.asked, self.attempt, entry)
            except Unpackable:
                await self.cache.reject(self.key)
            else:
                await self.attempt.begin(write=False, ack_timeout=self.core.ack_timeout)
                self.cache.hits += 1
                self.core.begin(upstream)
                return CompletionStream(upstream)
        self.cache.misses += 1
        answer = await self.request(self.arguments())
        if isinstance(answer, CompletionStream):
            answer._upstream.keeper = _Keeper(Frames(self.cache.max_bytes), self._keep)  # noqa: SLF001 - the stream was made for this call
        return answer

    async def _keep(self, record: UsageRecord, body: bytes) -> None:
        """Keep what was read, before its reader hears that it has ended."""
        data = Entry.of(self.key, record, body, stream=True).to_bytes()
        await self.caching.keep(self.cache, self.key, data)


class _Keeper:
    """Collects the chunks of one stream, packed before the caller has them and may change them.

    Args:
        frames: what holds them.
        keep: called with the record and the chunks when the stream was read to its end.
    """

    def __init__(
        self, frames: Frames, keep: Callable[[UsageRecord, bytes], Awaitable[None]]
    ) -> None:
        self._frames: Frames | None = frames
        self._keep = keep

    def see(self, chunk: Any) -> None:
        """Take a chunk; give up if it cannot be packed, or there are too many."""
        if self._frames is not None:
            try:
                whole = self._frames.add(pack(chunk))
            except Unpackable:
                whole = False
            if not whole:
                self._frames = None

    async def finished(self, record: UsageRecord | None) -> None:
        """The stream was read to its end."""
        body = None if self._frames is None else self._frames.body()
        if body is not None and record is not None and record.status == "ok":
            await self._keep(record, body)
