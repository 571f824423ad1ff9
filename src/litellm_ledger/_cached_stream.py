"""A stream through a response cache: replayed, read along with an equal call, or the provider's.

Owns the order of the three, and the moment between a stream's opening and its first reader, in
which nobody has it yet.
"""

from __future__ import annotations

from typing import Any

from ._asker import Asker
from ._cache_entry import Entry
from ._flights import Flight
from ._packing import Unpackable
from ._record import UsageRecord
from ._replay import Frames, replay
from ._shared_stream import SharedStream
from ._stream import CompletionStream

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
        return await self._streamed()

    async def _streamed(self) -> Any:
        """Read along with an equal call, or make the request and let others read along."""
        cache, caching = self.cache, self.core.caching
        while True:
            shared: SharedStream | None = caching.streams.get(self.place)
            if shared is None:
                flight = caching.flights.find(self.place)
                first = flight is None
                if flight is None:
                    flight = caching.flights.launch(self.place, self._open(self.arguments()))
                shared = await self._board(flight, first)
                if shared is None:  # what came back is no stream, or came to nothing
                    if first:
                        return flight.task.result()
                    continue
                if first and shared.open:
                    return shared.lead(self.asked)
            if shared.open:
                stream = shared.join(self.asked, self.attempt)
                cache.hits += 1
                cache.shared += 1
                return stream
            cache.misses += 1  # it is too long to be shared from its beginning
            return await self.request(self.arguments())

    async def _open(self, kwargs: dict[str, Any]) -> Any:
        """The body of a flight that opens a stream."""
        self.cache.misses += 1
        answer = await self.request(kwargs)
        if not isinstance(answer, CompletionStream):
            return answer
        streams, place = self.core.caching.streams, self.place

        def done(body: bytes | None, record: UsageRecord | None) -> None:
            streams.pop(place, None)
            if body is not None and record is not None:
                self._keep(Entry.of(self.key, record, body, stream=True).to_bytes())

        shared = streams[place] = SharedStream(
            self.core, answer, Frames(self.cache.max_bytes), done
        )
        return shared

    def _keep(self, data: bytes) -> None:
        """Keep what was read, in the background if that takes time."""
        if not self.core.caching.keep_now(self.cache, self.key, data):
            self.core.in_background(self.cache.keep(self.key, data))

    async def _board(self, flight: Flight, first: bool) -> SharedStream | None:
        """Wait until a stream is open."""
        try:
            if first:
                await self.core.caching.flights.wait(self.place, flight)
                found = flight.task.result()
            else:
                found = flight.task.result() if await self.share(flight) else None
        except BaseException:
            self._nobody(flight)
            raise
        return found if isinstance(found, SharedStream) else None

    def _nobody(self, flight: Flight) -> None:
        """End a stream for which its last caller did not wait."""
        task = flight.task
        if flight.waiting or not task.done() or task.cancelled() or task.exception() is not None:
            return
        shared = task.result()
        if isinstance(shared, SharedStream):
            self.core.in_background(shared.end({"status": "abandoned"}))
