"""One call that a cache may answer: what it is, when it began, what it shares with equal calls.

Owns what the calls for an answer in one piece (``_cache.cached_call``) and for a stream
(``_cache.cached_stream``) have in common: the request that would be made, the look into the store,
the waiting for an equal call's request, and the record of a call that fails with it.
"""

from __future__ import annotations

import copy
import time
import uuid
from collections.abc import Coroutine, Hashable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from litellm_ledger._calls.answers import label, twin_of
from litellm_ledger._calls.attempt import Attempt
from litellm_ledger._calls.call import call
from litellm_ledger._calls.core import ClientCore
from litellm_ledger._calls.options import CallOptions
from litellm_ledger._litellm.calls import Asked
from litellm_ledger._litellm.outcome import from_exception, note
from litellm_ledger._runtime.limits import Deadline

from .caching import Caching
from .entry import Entry
from .flights import Flight
from .kept_answers import KeptAnswers
from .key import IMPATIENCE
from .packing import Unpackable

__all__ = ["Asker"]

_AT_ONCE: Final = 0.01
"""Seconds of waiting that do not count against a deadline."""


class Asker:
    """One call of a caller's, from the question to the answer.

    Args:
        timeout: LiteLLM's exception of that name.

    Attributes:
        place: what makes calls equal that may share a request.
        attempt: records it, should no request be made for it.
    """

    def __init__(
        self,
        core: ClientCore,
        caching: Caching,
        cache: KeptAnswers,
        key: str,
        asked: Asked,
        *,
        options: CallOptions,
        tags: Mapping[str, Any] | None,
        track: bool,
        timeout: Any,
    ) -> None:
        self.core = core
        self.caching = caching
        self.cache = cache
        self.key = key
        self.asked = asked
        self.options = options
        self.tags = tags
        self.track = track
        self.timeout = timeout
        kwargs = asked.kwargs
        self._began = time.monotonic()
        self.attempt = Attempt(  # takes the time and the tags of this moment
            core.calls,
            call=asked.call.name,
            model=asked.model,
            stream=bool(kwargs.get("stream")),
            tags=options.tagged(tags),
            call_id=kwargs.get("litellm_call_id") or str(uuid.uuid4()),
        )
        # Who is tried as long and as often fails alike; others share the answer, not the failure.
        patience = [repr(kwargs[name]) for name in IMPATIENCE if name in kwargs]
        self.place: Hashable = (
            id(self.cache),
            self.key,
            options.max_retries,
            options.deadline,
            *patience,
        )

    def arguments(self) -> dict[str, Any]:
        """Return arguments that nobody changes while a request for several is under way.

        The caller who made them may be cancelled and go on with them; what is sent, again perhaps,
        must still be what the key says.  An open file cannot be copied and is taken as it is.
        """
        own = {}
        for name, value in self.asked.kwargs.items():
            try:
                own[name] = copy.deepcopy(value)
            except Exception:  # noqa: BLE001 - what cannot be copied is kept as it is
                own[name] = value
        return own

    def request(self, kwargs: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        """Make the request as if there were no cache, in what is left of the time."""
        options, left = self.options, self.left()
        if left is not None and options.deadline is not None and options.deadline > left + _AT_ONCE:
            options = replace(options, deadline=max(left, _AT_ONCE))
        name = self.asked.call.name
        return call(self.core, name, (), kwargs, self.tags, options=options, track=self.track)

    def left(self) -> float | None:
        """Seconds until the deadline; ``None`` without one."""
        deadline = self.options.deadline
        return None if deadline is None else deadline - (time.monotonic() - self._began)

    async def entry(self) -> Entry | None:
        """Look into the store; what it has and is no entry is thrown away."""
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

    async def share(self, flight: Flight) -> bool:
        """Wait for the request of an equal call; ``False`` if it ended for reasons of its own.

        Raises:
            Exception: the request failed, and this call with it, which is then on record.
        """
        left = self.left()
        if left is None:
            await self.caching.flights.wait(self.place, flight)
        else:
            try:
                async with Deadline(left, self._too_late).enforced():
                    await self.caching.flights.wait(self.place, flight)
            except self.timeout as late:
                await self._failed(late, None)
                raise
        if flight.task.cancelled():
            return False
        exc = flight.task.exception()
        if exc is None:
            return True
        if not isinstance(exc, Exception):
            return False
        if self.options.deadline is not None and isinstance(exc, self.timeout):
            return False  # its time was over, ours is not
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

    async def _failed(self, exc: Exception, paid: Any) -> None:
        """Record that the request of an equal call failed, and this call with it."""
        fields = from_exception(exc)
        cache = {"operation": getattr(paid, "operation", None), "how": "shared"}
        fields |= {"cost": Decimal(0), "usage_source": "none"}
        note(fields, {"cache": cache})
        self.attempt.join()
        record = self.attempt.settle(fields)
        if record is not None:
            await self.core.acknowledge(record)
            label(exc, record)
