"""A call through a response cache: an answer that is there, or is on its way, or a request.

Owns the order (find, join an equal call, make the request, keep its answer), and the record of a
call that made no request.  What goes wrong with the cache is the cache's affair: the call is then
made as if there were none.  ``_calls.call`` makes the requests.
"""

from __future__ import annotations

import contextlib
import copy
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any, Final

from litellm_ledger._calls.answers import hand_out, label, twin_of
from litellm_ledger._calls.attempt import Attempt
from litellm_ledger._calls.call import call, name_positional
from litellm_ledger._calls.core import ClientCore
from litellm_ledger._calls.options import CallOptions
from litellm_ledger._calls.stream import CompletionStream
from litellm_ledger._litellm.calls import CALLS, Asked
from litellm_ledger._litellm.members import note
from litellm_ledger._litellm.outcome import from_exception
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._runtime.limits import Deadline

from .cached_stream import Replay, StreamKeeper, chunks_from
from .caching import Caching, Flight
from .entry import Entry, answer_from
from .key import IMPATIENCE, cache_key
from .packing import Unpackable, pack
from .response_cache import KeptAnswers, answers_of

__all__ = ["cached_call"]

_AT_ONCE: Final = 0.01
"""Seconds of waiting that do not count against a deadline."""


async def cached_call(
    core: ClientCore,
    caching: Caching,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tags: Mapping[str, Any] | None,
    *,
    options: CallOptions,
) -> Any:
    """``_calls.call.call``, unless the cache has the answer or an equal call is getting it."""
    cache = answers_of(options.cache)
    await core.ready()
    litellm: Any = await core.litellm()
    row = CALLS[name]
    if args:
        name_positional(getattr(litellm, row.positional), args, kwargs)
    key = await cache_key(row, kwargs, litellm, cache, core.off_loop)
    if key is None:
        cache.skipped += 1
        return await call(core, name, (), kwargs, tags, options=options)
    asked = Asked(row, kwargs, options.capture_content)
    one = _CachedCall(core, caching, cache, key, asked, options, tags, litellm.Timeout)
    return await (one.stream() if kwargs.get("stream") else one.answer())


@dataclass
class _CachedCall:
    """One call of a caller's, from the question to the answer."""

    core: ClientCore
    caching: Caching
    cache: KeptAnswers
    key: str
    asked: Asked
    options: CallOptions
    tags: Mapping[str, Any] | None
    timeout: Any  # LiteLLM's exception

    def __post_init__(self) -> None:
        asked, seconds = self.asked, self.options.deadline
        self.deadline: Deadline | None = None
        if seconds is not None:
            late = f"the deadline of {seconds:g} s passed while an equal call was made"
            error = partial(self.timeout, late, model=asked.model or "", llm_provider="")
            self.deadline = Deadline(seconds, error)
        # Records this call, should no request be made for it; takes the time and the tags of now.
        self.attempt = Attempt(
            self.core.calls,
            call=asked.call.name,
            model=asked.model,
            stream=bool(asked.kwargs.get("stream")),
            tags=self.core.calls.merged_tags(self.options.tagged(self.tags)),
            call_id=asked.kwargs.get("litellm_call_id") or str(uuid.uuid4()),
        )

    async def stream(self) -> Any:
        """Return a stream that is replayed, or the provider's, to be kept when it was read.

        An equal call that comes before that makes a request of its own.
        """
        found = await self._find(stream=True)
        if found is not None:
            await self.attempt.begin(write=False, ack_timeout=self.core.ack_timeout)
            self.cache.hits += 1
            upstream = Replay(self.core, self.asked, self.attempt, *found)
            self.core.begin(upstream)
            return CompletionStream(upstream)
        self.cache.misses += 1
        answer = await self._request(self._arguments())
        if isinstance(answer, CompletionStream):
            keep = partial(self._keep, stream=True)
            answer._upstream.keeper = StreamKeeper(self.cache.max_bytes, keep)  # noqa: SLF001 - the stream was made for this call
        return answer

    async def answer(self) -> Any:
        """Return an answer in one piece, from wherever it comes first."""
        cache, flights = self.cache, self.caching.flights
        # Who is tried as long and as often fails alike; others share the answer, not the failure.
        given, options = self.asked.kwargs, self.options
        patience = [repr(given[name]) for name in IMPATIENCE if name in given]
        place = (id(cache), self.key, options.max_retries, options.deadline, *patience)
        while True:
            if cache.memory is not None:
                found = await self._find()
                if found is not None:
                    return await self._hit(*found, "stored")
            flight = flights.find(place)
            if flight is None:
                flight = flights.launch(place, self._fly(self._arguments()))
                await flights.wait(flight)
                entry, answer, made = flight.task.result()
                return answer if made else await self._hit(entry, answer, "stored")
            if not await self._share(flight):
                continue
            entry = flight.task.result()[0]
            if entry is not None:
                with contextlib.suppress(Unpackable):
                    return await self._hit(entry, answer_from(entry.body), "shared")
            cache.misses += 1
            return await self._request(self._arguments())

    async def _find(self, *, stream: bool = False) -> tuple[Entry, Any] | None:
        """Look into the store; what it has and is no answer is thrown away."""
        data = await self.cache.find(self.key)
        if data is None:
            return None
        ours = self.cache.memory is not None
        try:
            entry = Entry.read(self.key, data, stream=stream, ours=ours)
            return entry, chunks_from(entry.body) if stream else answer_from(entry.body)
        except Unpackable:
            await self.cache.reject(self.key)
            return None

    async def _fly(self, kwargs: dict[str, Any]) -> tuple[Entry | None, Any, bool]:
        """The body of a flight: look into a store that takes time, make the request, keep it.

        Returns:
            What the others get (``None``: the answer cannot be kept), what the caller who began it
            gets, and whether a request was made.
        """
        if self.cache.memory is None:
            found = await self._find()
            if found is not None:
                return *found, False
        self.cache.misses += 1
        answer = await self._request(kwargs)
        record, keeps = getattr(answer, "usage_record", None), self.asked.call.keeps
        entry = None
        if record is not None and record.status == "ok" and keeps is not None and keeps(answer):
            with contextlib.suppress(Unpackable):  # packed before its caller may change it
                body = pack(dict(answer) if isinstance(answer, dict) else answer)
                entry = await self._keep(record, body)
        return entry, answer, True

    async def _keep(self, record: UsageRecord, body: bytes, *, stream: bool = False) -> Entry:
        entry = Entry.of(self.key, record, body, stream=stream)
        await self.caching.keep(self.cache, self.key, entry.to_bytes())
        return entry

    def _arguments(self) -> dict[str, Any]:
        """Return arguments that nobody changes while a request for several is under way.

        The caller who made them may be cancelled and go on with them; what is sent, again perhaps,
        must still be what the key says.  An open file cannot be copied and is taken as it is.
        """
        own = dict(self.asked.kwargs)
        for name, value in own.items():
            with contextlib.suppress(Exception):
                own[name] = copy.deepcopy(value)
        return own

    async def _request(self, kwargs: dict[str, Any]) -> Any:
        """Make the request as if there were no cache, in what is left of the time."""
        options = self.options
        if self.deadline is not None and options.deadline is not None:
            left = self.deadline.left
            if options.deadline > left + _AT_ONCE:
                options = replace(options, deadline=max(left, _AT_ONCE))
        name = self.asked.call.name
        return await call(self.core, name, (), kwargs, self.tags, options=options)

    async def _share(self, flight: Flight) -> bool:
        """Wait for the request of an equal call; ``False`` if it ended for reasons of its own.

        If it failed, this call fails with it, and is on record.
        """
        in_time = contextlib.nullcontext() if self.deadline is None else self.deadline.enforced()
        try:
            async with in_time:
                await self.caching.flights.wait(flight)
        except self.timeout as late:
            await self._failed(late, None)
            raise
        if flight.task.cancelled():
            return False
        exc = flight.task.exception()
        if exc is None:
            return True
        its_own = self.deadline is not None and isinstance(exc, self.timeout)  # ours is not over
        if its_own or not isinstance(exc, Exception):
            return False
        twin = twin_of(exc)
        await self._failed(twin, getattr(exc, "usage_record", None))
        raise twin

    async def _failed(self, exc: Exception, paid: UsageRecord | None) -> None:
        """Record that the request of an equal call failed, and this call with it."""
        fields = {**from_exception(exc), "cost": Decimal(0), "usage_source": "none"}
        note(fields, {"cache": {"operation": paid and paid.operation, "how": "shared"}})
        self.attempt.join()
        record = self.attempt.settle(fields)
        if record is not None:
            await self.core.acknowledge(record)
            label(exc, record)

    async def _hit(self, entry: Entry, answer: Any, how: str) -> Any:
        """Record that an answer cost nothing, then hand it out."""
        asked = self.asked
        fields = {"status": "ok", **entry.outcome(how)}
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
