"""A call through a response cache: an answer that is there, or is on its way, or a request.

Owns the order (find, join an equal call, make the request, keep its answer), and the record of a
call that made no request.  What goes wrong with the cache is the cache's affair: the call is then
made as if there were none.  ``_calls.call`` makes the requests.
"""

from __future__ import annotations

import contextlib
import copy
import time
import uuid
from collections.abc import Hashable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final, NamedTuple

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
from .response_cache import answers_of

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
        return await call(core, name, (), kwargs, tags, options=options)
    asked = Asked(row, kwargs, options.capture_content)
    one = _CachedCall(core, caching, key, asked, options, tags, timeout=litellm.Timeout)
    return await (one.stream() if one.is_stream else one.answer())


class _Landed(NamedTuple):
    """How a request ended, or a look into the store that took its place.

    Attributes:
        answer: for the caller who began it.
        entry: for everybody else; ``None`` if the answer cannot be kept.
        found: there was no request.
    """

    answer: Any
    entry: Entry | None
    found: bool


class _CachedCall:
    """One call of a caller's, from the question to the answer.

    Args:
        timeout: LiteLLM's exception of that name.
    """

    def __init__(
        self,
        core: ClientCore,
        caching: Caching,
        key: str,
        asked: Asked,
        options: CallOptions,
        tags: Mapping[str, Any] | None,
        *,
        timeout: Any,
    ) -> None:
        self.is_stream = bool(asked.kwargs.get("stream"))
        self._core = core
        self._caching = caching
        self._cache = answers_of(options.cache)
        self._key = key
        self._asked = asked
        self._options = options
        self._tags = tags
        self._timeout = timeout
        self._began = time.monotonic()
        # Records this call, should no request be made for it; takes the time and the tags of now.
        self._attempt = Attempt(
            core.calls,
            call=asked.call.name,
            model=asked.model,
            stream=self.is_stream,
            tags=options.tagged(tags),
            call_id=asked.kwargs.get("litellm_call_id") or str(uuid.uuid4()),
        )

    async def stream(self) -> Any:
        """Return a stream that is replayed, or the provider's, to be kept when it was read.

        An equal call that comes before that makes a request of its own.
        """
        found = await self._find()
        if found is not None:
            entry, chunks = found
            await self._attempt.begin(write=False, ack_timeout=self._core.ack_timeout)
            self._cache.hits += 1
            upstream = Replay(self._core, self._asked, self._attempt, entry, chunks)
            self._core.begin(upstream)
            return CompletionStream(upstream)
        self._cache.misses += 1
        answer = await self._request(self._arguments())
        if isinstance(answer, CompletionStream):
            answer._upstream.keeper = StreamKeeper(self._cache.max_bytes, self._keep)  # noqa: SLF001 - the stream was made for this call
        return answer

    async def answer(self) -> Any:
        """Return an answer in one piece, from wherever it comes first."""
        cache, flights = self._cache, self._caching.flights
        # Who is tried as long and as often fails alike; others share the answer, not the failure.
        given, options = self._asked.kwargs, self._options
        patience = [repr(given[name]) for name in IMPATIENCE if name in given]
        place: Hashable = (id(cache), self._key, options.max_retries, options.deadline, *patience)
        while True:
            if cache.memory is not None:
                found = await self._find()
                if found is not None:
                    return await self._hit(*found, "stored")
            flight = flights.find(place)
            if flight is None:
                flight = flights.launch(place, self._fly(self._arguments()))
                await flights.wait(flight)
                landed: _Landed = flight.task.result()
                if landed.entry is not None and landed.found:
                    return await self._hit(landed.entry, landed.answer, "stored")
                return landed.answer
            if not await self._share(flight):
                continue
            entry = flight.task.result().entry
            if entry is not None:
                with contextlib.suppress(Unpackable):
                    return await self._hit(entry, answer_from(entry.body), "shared")
            cache.misses += 1
            return await self._request(self._arguments())

    async def _find(self) -> tuple[Entry, Any] | None:
        """Look into the store; what it has and is no answer is thrown away."""
        data = await self._cache.find(self._key)
        if data is None:
            return None
        ours = self._cache.memory is not None
        try:
            entry = Entry.read(self._key, data, stream=self.is_stream, ours=ours)
            return entry, (chunks_from if self.is_stream else answer_from)(entry.body)
        except Unpackable:
            await self._cache.reject(self._key)
            return None

    async def _fly(self, kwargs: dict[str, Any]) -> _Landed:
        """The body of a flight: look into a store that takes time, make the request, keep it."""
        if self._cache.memory is None:
            found = await self._find()
            if found is not None:
                entry, answer = found
                return _Landed(answer, entry, found=True)
        self._cache.misses += 1
        answer = await self._request(kwargs)
        return _Landed(answer, await self._kept(answer), found=False)

    async def _kept(self, answer: Any) -> Entry | None:
        """Keep an answer before its caller has it, and may change it."""
        record, keeps = getattr(answer, "usage_record", None), self._asked.call.keeps
        if record is None or record.status != "ok" or keeps is None or not keeps(answer):
            return None
        try:
            body = pack(dict(answer) if isinstance(answer, dict) else answer)
        except Unpackable:
            return None
        return await self._keep(record, body)

    async def _keep(self, record: UsageRecord, body: bytes) -> Entry:
        entry = Entry.of(self._key, record, body, stream=self.is_stream)
        await self._caching.keep(self._cache, self._key, entry.to_bytes())
        return entry

    def _arguments(self) -> dict[str, Any]:
        """Return arguments that nobody changes while a request for several is under way.

        The caller who made them may be cancelled and go on with them; what is sent, again perhaps,
        must still be what the key says.  An open file cannot be copied and is taken as it is.
        """
        own = {}
        for name, value in self._asked.kwargs.items():
            try:
                own[name] = copy.deepcopy(value)
            except Exception:  # noqa: BLE001 - what cannot be copied is kept as it is
                own[name] = value
        return own

    async def _request(self, kwargs: dict[str, Any]) -> Any:
        """Make the request as if there were no cache, in what is left of the time."""
        core, options, left = self._core, self._options, self._left()
        if left is not None and options.deadline is not None and options.deadline > left + _AT_ONCE:
            options = replace(options, deadline=max(left, _AT_ONCE))
        name = self._asked.call.name
        return await call(core, name, (), kwargs, self._tags, options=options)

    def _left(self) -> float | None:
        """Seconds until the deadline; ``None`` without one."""
        deadline = self._options.deadline
        return None if deadline is None else deadline - (time.monotonic() - self._began)

    async def _share(self, flight: Flight) -> bool:
        """Wait for the request of an equal call; ``False`` if it ended for reasons of its own.

        Raises:
            Exception: the request failed, and this call with it, which is then on record.
        """
        left = self._left()
        try:
            async with (
                contextlib.nullcontext()
                if left is None
                else Deadline(left, self._too_late).enforced()
            ):
                await self._caching.flights.wait(flight)
        except self._timeout as late:
            await self._failed(late, None)
            raise
        if flight.task.cancelled():
            return False
        exc = flight.task.exception()
        if exc is None:
            return True
        if not isinstance(exc, Exception):
            return False
        if self._options.deadline is not None and isinstance(exc, self._timeout):
            return False  # its time was over, ours is not
        twin = twin_of(exc)
        await self._failed(twin, getattr(exc, "usage_record", None))
        raise twin

    def _too_late(self) -> Exception:
        error: Exception = self._timeout(
            f"the deadline of {self._options.deadline:g} s passed while an equal call was made",
            model=self._asked.model or "",
            llm_provider="",
        )
        return error

    async def _failed(self, exc: Exception, paid: Any) -> None:
        """Record that the request of an equal call failed, and this call with it."""
        fields = from_exception(exc)
        cache = {"operation": getattr(paid, "operation", None), "how": "shared"}
        fields |= {"cost": Decimal(0), "usage_source": "none"}
        note(fields, {"cache": cache})
        self._attempt.join()
        record = self._attempt.settle(fields)
        if record is not None:
            await self._core.acknowledge(record)
            label(exc, record)

    async def _hit(self, entry: Entry, answer: Any, how: str) -> Any:
        """Record that an answer cost nothing, then hand it out."""
        asked = self._asked
        fields = {"status": "ok", **entry.outcome(how)}
        if asked.capture:
            fields |= asked.content(asked.call.wrote(answer))
        if how == "stored":
            await self._attempt.begin(write=False, ack_timeout=self._core.ack_timeout)
        else:
            self._attempt.join()
            self._cache.shared += 1
        self._cache.hits += 1
        record = self._attempt.settle(fields)
        if record is None:
            return answer
        await self._core.acknowledge(record)
        return hand_out(answer, record)
