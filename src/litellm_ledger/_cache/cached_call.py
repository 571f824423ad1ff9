"""A call through a response cache: an answer that is there, or is on its way, or a request.

Owns the order (find, join an equal call, make the request, keep its answer) for an answer in one
piece, and the record of a hit.  What goes wrong with the cache is the cache's affair: the call is
then made as if there were none.  ``_calls.call`` makes the requests; streams are
``_cache.cached_stream``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litellm_ledger._calls.answers import hand_out
from litellm_ledger._calls.call import call, name_positional
from litellm_ledger._calls.core import ClientCore
from litellm_ledger._calls.options import CallOptions
from litellm_ledger._litellm.calls import CALLS, Asked

from .cacheable_call import Asker
from .cached_stream import StreamAsker
from .caching import Caching
from .entry import Entry, answer_bytes, answer_from
from .flights import Flight
from .key import cache_key
from .packing import Unpackable
from .response_cache import ResponseCache, answers_of

__all__ = ["cached_call"]


async def cached_call(
    core: ClientCore,
    caching: Caching,
    shared: ResponseCache,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tags: Mapping[str, Any] | None,
    *,
    options: CallOptions,
    track: bool,
) -> Any:
    """``_calls.call.call``, unless the cache has the answer or an equal call is getting it."""
    cache = answers_of(shared)
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
    kind: type[StreamAsker | AnswerAsker]
    kind = StreamAsker if kwargs.get("stream") else AnswerAsker
    asker = kind(
        core,
        caching,
        cache,
        key,
        asked,
        options=options,
        tags=tags,
        track=track,
        timeout=litellm.Timeout,
    )
    return await asker.ask()


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


class AnswerAsker(Asker):
    """A call for an answer in one piece."""

    async def ask(self) -> Any:
        """Return the answer, from wherever it comes first."""
        cache, flights = self.cache, self.caching.flights
        while True:
            if cache.memory is not None:
                landed = await self._find()
                if landed is not None:
                    return await self._hit(landed, "stored")
            flight = flights.find(self.place)
            if flight is None:
                flight = flights.launch(self.place, self._fly(self.arguments()))
                await flights.wait(self.place, flight)
                landed = flight.task.result()
                if landed.found:
                    return await self._hit(landed, "stored")
                return landed.answer
            shared = await self._shared(flight)
            if shared is None:  # it ended in a way that was its own: try again
                continue
            if shared.entry is None:
                cache.misses += 1
                return await self.request(self.arguments())
            return await self._hit(shared, "shared")

    async def _find(self) -> _Landed | None:
        """Look into the store; what it has and is no answer is thrown away."""
        entry = await self.entry()
        if entry is None:
            return None
        try:
            return _Landed(answer_from(entry.body), entry, found=True)
        except Unpackable:
            await self.cache.reject(self.key)
            return None

    async def _fly(self, kwargs: dict[str, Any]) -> _Landed:
        """The body of a flight: look into a store that takes time, make the request, keep it."""
        if self.cache.memory is None:
            found = await self._find()
            if found is not None:
                return found
        self.cache.misses += 1
        answer = await self.request(kwargs)
        entry = self._packed(answer)
        if entry is not None:
            await self.caching.keep(self.cache, self.key, entry.to_bytes())
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

    async def _shared(self, flight: Flight) -> _Landed | None:
        """Return what came of an equal call's request; ``None`` if nothing did."""
        if not await self.share(flight):
            return None
        landed: _Landed = flight.task.result()
        if landed.entry is None:
            return landed
        try:
            return _Landed(answer_from(landed.entry.body), landed.entry)
        except Unpackable:
            return _Landed(None, None)

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
