"""A call through a response cache: an answer that is there, or is on its way, or a request.

Owns the order (find, join an equal call, make the request, keep its answer) and the record of a
call that made no request.  What goes wrong with the cache is the cache's affair: the call is then
made as if there were none.  ``_calling`` makes the requests.
"""

from __future__ import annotations

import copy
import time
import uuid
from collections.abc import Coroutine, Hashable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from ._attempt import Attempt
from ._cache import ResponseCache
from ._cache_entry import Entry, answer_bytes, answer_from
from ._cache_key import IMPATIENCE, cache_key
from ._calling import call, name_positional
from ._calls import CALLS, Asked
from ._core import ClientCore
from ._flights import Flight
from ._handing import hand_out, label, twin_of
from ._limits import Deadline
from ._options import CallOptions
from ._outcome import from_exception
from ._packing import Unpackable
from ._record import UsageRecord
from ._replay import Frames, replay
from ._shared_stream import SharedStream
from ._stream import CompletionStream

__all__ = ["cached_call"]


async def cached_call(
    core: ClientCore,
    cache: ResponseCache,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tags: Mapping[str, Any] | None,
    *,
    options: CallOptions,
    track: bool,
) -> Any:
    """``_calling.call``, unless ``cache`` has the answer or an equal call is getting it."""
    await core.ready()
    litellm: Any = await core.litellm()
    row = CALLS[name]
    if args:
        name_positional(getattr(litellm, row.positional), args, kwargs)
    key = None
    if row.keeps is not None:
        key = await cache_key(
            row,
            kwargs,
            litellm,
            namespace=cache.namespace,
            ignore=cache.ignore,
            off_loop=core.off_loop,
        )
    if key is None:
        cache.skipped += 1
        return await call(core, name, (), kwargs, tags, options=options, track=track)
    asked = Asked(row, kwargs, options.capture_content)
    asking = _Asking(core, cache, key, asked, options=options, tags=tags, track=track)
    asking.timeout = litellm.Timeout
    return await (asking.stream() if kwargs.get("stream") else asking.answer())


@dataclass(frozen=True, slots=True)
class _Landed:
    """How a request ended, or a look into a store that took its place.

    Attributes:
        answer: for the caller who began it; ``None`` if ``found``.
        entry: for everybody else; ``None`` if the answer cannot be kept.
    """

    answer: Any
    entry: Entry | None
    found: bool = False


class _Asking:
    """One call of a caller's, from the question to the answer.

    Attributes:
        timeout: LiteLLM's exception of that name.
    """

    timeout: Any

    def __init__(
        self,
        core: ClientCore,
        cache: ResponseCache,
        key: str,
        asked: Asked,
        *,
        options: CallOptions,
        tags: Mapping[str, Any] | None,
        track: bool,
    ) -> None:
        self.core = core
        self.cache = cache
        self.key = key
        self.asked = asked
        self.options = options
        self.tags = tags
        self.track = track
        kwargs = asked.kwargs
        self._began = time.monotonic()
        self.attempt = Attempt(  # takes the time and the tags of this moment
            core.tracker,
            call=asked.call.name,
            model=asked.model,
            stream=bool(kwargs.get("stream")),
            tags=options.tagged(tags),
            call_id=kwargs.get("litellm_call_id") or str(uuid.uuid4()),
        )
        # Who is tried as long and as often fails alike; others share the answer, not the failure.
        patience = [repr(kwargs[name]) for name in IMPATIENCE if name in kwargs]
        self._place: Hashable = (
            id(self.cache),
            self.key,
            options.max_retries,
            options.deadline,
            *patience,
        )

    def _call(self) -> Coroutine[Any, Any, Any]:
        """Make the request as if there were no cache, in what is left of the time."""
        options, left = self.options, self._left()
        if left is not None:
            options = replace(options, deadline=max(left, 0.001))
        kwargs = _own(self.asked.kwargs)
        name = self.asked.call.name
        return call(self.core, name, (), kwargs, self.tags, options=options, track=self.track)

    def _left(self) -> float | None:
        deadline = self.options.deadline
        return None if deadline is None else deadline - (time.monotonic() - self._began)

    # -- an answer in one piece ------------------------------------------------------------------

    async def answer(self) -> Any:
        """Return the answer, from wherever it comes first."""
        cache, flights = self.cache, self.core.caching.flights
        while True:
            if cache.memory is not None:
                landed = await self._find()
                if landed is not None:
                    return await self._hit(landed, "stored")
            flight = flights.find(self._place)
            if flight is None:
                flight = flights.launch(self._place, self._fly())
                await flights.wait(self._place, flight)
                landed = flight.task.result()
                if landed.found:
                    return await self._hit(landed, "stored")
                return landed.answer
            shared = await self._share(flight)
            if shared is None:  # it ended in a way that was its own: try again
                continue
            if shared.entry is None:
                cache.misses += 1
                return await self._call()
            return await self._hit(shared, "shared")

    async def _find(self) -> _Landed | None:
        """Look into the store; what it has and is no answer is thrown away."""
        entry = await self._entry()
        if entry is None:
            return None
        try:
            return _Landed(answer_from(entry.body), entry, found=True)
        except Unpackable:
            await self.cache.reject(self.key)
            return None

    async def _entry(self) -> Entry | None:
        data = await self.cache.find(self.key)
        if data is None:
            return None
        try:
            stream = bool(self.asked.kwargs.get("stream"))
            ours = self.cache.memory is not None
            return Entry.read(self.key, data, stream=stream, ours=ours)
        except Unpackable:
            await self.cache.reject(self.key)
            return None

    async def _fly(self) -> _Landed:
        """The body of a flight: look into a store that takes time, make the request, keep it."""
        if self.cache.memory is None:
            found = await self._find()
            if found is not None:
                return found
        self.cache.misses += 1
        answer = await self._call()
        entry = self._packed(answer)
        if entry is not None:
            await self.core.caching.keep(self.cache, self.key, entry.to_bytes())
        return _Landed(answer, entry)

    def _packed(self, answer: Any) -> Entry | None:
        """Pack an answer before its caller has it, and may change it."""
        record = getattr(answer, "usage_record", None)
        keeps = self.asked.call.keeps
        try:
            if record is None or record.status != "ok" or keeps is None or not keeps(answer):
                return None
            return Entry.of(self.key, record, answer_bytes(answer), stream=False)
        except Unpackable:
            return None

    async def _share(self, flight: Flight) -> _Landed | None:
        """Wait for the request of an equal call; ``None`` if that ended for reasons of its own."""
        left = self._left()
        if left is None:
            await self.core.caching.flights.wait(self._place, flight)
        else:
            try:
                async with Deadline(left, self._too_late).enforced():
                    await self.core.caching.flights.wait(self._place, flight)
            except self.timeout as late:
                await self._failed(late, None)
                raise
        if flight.task.cancelled():
            return None
        exc = flight.task.exception()
        if exc is None:
            landed = flight.task.result()
            if not isinstance(landed, _Landed):  # a stream that is open now
                return _Landed(landed, None)
            if landed.entry is None:
                return landed
            try:
                return _Landed(answer_from(landed.entry.body), landed.entry)
            except Unpackable:
                return _Landed(None, None)
        if not isinstance(exc, Exception):
            return None
        if self.options.deadline is not None and isinstance(exc, self.timeout):
            return None  # its time was over, ours is not
        twin = twin_of(exc)
        await self._failed(twin, getattr(exc, "usage_record", None))
        raise twin

    def _too_late(self) -> Exception:
        error: Exception = self.timeout(
            f"the deadline of {self.options.deadline:g} s passed while an equal call was made",
            model=self.asked.model or "",
            llm_provider="",
        )
        return error

    # -- a stream --------------------------------------------------------------------------------

    async def stream(self) -> Any:
        """Return a stream that is replayed, or the provider's, to be kept when it was read."""
        entry = await self._entry()
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
            shared: SharedStream | None = caching.streams.get(self._place)
            if shared is None:
                flight = caching.flights.find(self._place)
                first = flight is None
                if flight is None:
                    flight = caching.flights.launch(self._place, self._open())
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
            return await self._call()

    async def _open(self) -> Any:
        """The body of a flight that opens a stream."""
        self.cache.misses += 1
        answer = await self._call()
        if not isinstance(answer, CompletionStream):
            return answer
        streams, place = self.core.caching.streams, self._place

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
                await self.core.caching.flights.wait(self._place, flight)
                found = flight.task.result()
            else:
                landed = await self._share(flight)
                found = None if landed is None else landed.answer
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

    # -- what is on record -----------------------------------------------------------------------

    async def _hit(self, landed: _Landed, how: str) -> Any:
        """Record that an answer cost nothing, then hand it out."""
        entry, answer, asked = landed.entry, landed.answer, self.asked
        assert entry is not None
        fields = entry.outcome(how)
        if asked.capture:
            fields |= asked.content(asked.call.wrote(answer))
        if how == "stored":
            await self.attempt.begin(write=False, ack_timeout=self.core.ack_timeout)
        else:
            self.attempt.join()
            self.cache.shared += 1
        self.cache.hits += 1
        record = self.attempt.settle(fields)
        if record is None:
            return answer
        await self.core.acknowledge(record)
        return hand_out(answer, record)

    async def _failed(self, exc: Exception, paid: Any) -> None:
        """Record that the request of an equal call failed, and this call with it."""
        fields = from_exception(exc)
        cache = {"operation": getattr(paid, "operation", None), "how": "shared"}
        fields |= {"cost": Decimal(0), "usage_source": "none"}
        fields["meta"] = {**(fields.get("meta") or {}), "cache": cache}
        self.attempt.join()
        record = self.attempt.settle(fields)
        if record is not None:
            await self.core.acknowledge(record)
            label(exc, record)


def _own(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that nobody changes while a request for several callers is under way.

    The caller who made them may be cancelled and go on with them; what is sent, again perhaps, must
    still be what the key says.  An open file cannot be copied and is taken as it is.
    """
    own = {}
    for name, value in kwargs.items():
        try:
            own[name] = copy.deepcopy(value)
        except Exception:
            own[name] = value
    return own
