"""Recording the calls that other code makes on LiteLLM: directly, or through what is built on it.

Owns one client's part in that: which of the calls LiteLLM tells of are to be recorded (not those of
any client of ours, each once), and how what it tells becomes an outcome.  ``_litellm.hooks`` is how
it hears of them.  Never changes a call and never fails one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._errors import LedgerError
from litellm_ledger._litellm.bill import unstamped
from litellm_ledger._litellm.calls import CALLS, Asked, Call
from litellm_ledger._litellm.estimates import estimate_stream
from litellm_ledger._litellm.hooks import (
    answer_cost,
    asked_for_usage,
    flush_logging,
    flush_logging_threads,
    follow,
    is_async,
    is_sync,
    register,
)
from litellm_ledger._litellm.members import merged, noted
from litellm_ledger._litellm.outcome import from_exception, from_response
from litellm_ledger._litellm.own_calls import is_ours
from litellm_ledger._litellm.price_options import PRICED_BY, base_model
from litellm_ledger._litellm.units import add_units
from litellm_ledger._litellm.usage import cached_elsewhere, usage_fields
from litellm_ledger._records.money import from_litellm
from litellm_ledger._records.record import UsageRecord

from .attempt import Attempt

if TYPE_CHECKING:
    from .core import ClientCore

__all__ = ["Capture"]

_log = logging.getLogger("litellm_ledger")

_REMEMBERED: Final = 10_000
"""Attempts that are remembered: LiteLLM's LOGGING_EXECUTOR_MAX_PENDING_TASKS, as many as its own
threads may be behind with."""


_MOMENT: Final = 0.5
"""Seconds that a close waits for LiteLLM's threads to log synchronous calls that may have ended."""
_GLANCE: Final = 0.005


class Capture:
    """Records for one client what others call on LiteLLM while it is on.

    It may be begun any number of times, from any thread, and is on until it was ended as often.

    Attributes:
        always: begin when the client opens, and stay on until it closes.
    """

    def __init__(self, core: ClientCore) -> None:
        self._core = core
        self.always = False
        core.on_ready.append(self.ready)
        core.on_close.append(self.stop)
        core.on_drain.append(self.flush)
        self._calls: weakref.WeakKeyDictionary[Any, _Captured] = weakref.WeakKeyDictionary()
        self._synchronous: weakref.WeakValueDictionary[tuple[str, str], _Captured] = (
            weakref.WeakValueDictionary()
        )
        self._lock = threading.Lock()
        self._times = 0
        self._registered: weakref.finalize[..., Any] | None = None
        self._seen: dict[tuple[str, str], None] = {}
        self._seeing = threading.Lock()
        self.used = False
        self.duplicates = 0

    async def ready(self) -> None:
        """The client has opened, or a call begins: be on if that was asked for."""
        if self.always:
            await self._core.litellm()
            if self.always:  # not begun by another task meanwhile
                self.always = False
                self.begin()

    def begin(self) -> None:
        """Record what begins from now on.  Imports LiteLLM if nobody has: 2 to 5 s."""
        with self._lock:
            if not self._times:
                self._registered = register(self)
                self.used = True
            self._times += 1

    def end(self) -> None:
        """Stop, if it was begun once; calls under way are recorded when they end."""
        with self._lock:
            self._times = max(0, self._times - 1)
            if not self._times:
                self._unregister()

    def stop(self) -> None:
        """Stop, however often it was begun: the client closes."""
        with self._lock:
            self._times = 0
            self._unregister()

    def _unregister(self) -> None:
        if self._registered is not None:
            self._registered()
            self._registered = None

    async def flush(self) -> None:
        """Wait for the ends of streams and synchronous calls that LiteLLM has not told of yet."""
        if self.used:
            await flush_logging()
            await self._flush_synchronous()

    async def _flush_synchronous(self) -> None:
        """Wait a moment: which synchronous calls have ended is not to be seen."""
        seen = [ref() for ref in self._synchronous.valuerefs()]  # a copy: threads add to it
        waiting = [one for one in seen if one is not None and not one.ended]
        if waiting:
            await flush_logging_threads()
            until = time.monotonic() + _MOMENT
            while not all(one.ended for one in waiting) and time.monotonic() < until:  # noqa: ASYNC110 - LiteLLM's threads end them
                await asyncio.sleep(_GLANCE)

    # -- what LiteLLM tells -----------------------------------------------------------------------

    async def on_start(self, logging_obj: Any, request: Mapping[str, Any], call: str) -> None:
        """Put a ``started`` record down, as for a call of our own."""
        if is_sync(call) and not is_ours():
            return  # of some, LiteLLM tells the beginning here and the end by ``on_sync`` only
        call_id = getattr(logging_obj, "litellm_call_id", None)
        self._is_new(_key(call_id, getattr(logging_obj, "start_time", None)))
        if is_ours():
            return
        known = self._calls.get(logging_obj)
        if known is not None and not known.ended:
            return  # LiteLLM answers one call by another: it is one request
        captured = self._captured(logging_obj, request, call)
        try:
            captured.here = await self._core.ready_here()
            if captured.here:
                await captured.attempt.begin(
                    write=self._core.track_in_flight, ack_timeout=self._core.ack_timeout
                )
        except LedgerError as exc:  # closed meanwhile, or its disk is gone
            _log.warning("a call to %s was not captured: %s", captured.asked.model, exc)
            return
        self._watch(logging_obj, captured)

    def on_request(self, logging_obj: Any, details: dict[str, Any], call: str) -> None:
        """Note whose a synchronous call is, or one that ``on_start`` was not told of.

        Nothing can wait here: there is no ``started`` record.
        """
        known = self._calls.get(logging_obj)
        if is_ours() or (known is not None and not known.ended):
            return
        captured = self._captured(logging_obj, _given(details), call)
        try:
            self._core.check_open()
        except LedgerError:
            return
        call_id = getattr(logging_obj, "litellm_call_id", None)
        attempt = _key(call_id, getattr(logging_obj, "start_time", None))
        if is_sync(call):
            self._synchronous[attempt] = captured
        self._is_new(attempt)
        self._watch(logging_obj, captured, sync=is_sync(call))

    def _captured(self, logging_obj: Any, request: Mapping[str, Any], call: str) -> _Captured:
        model = request.get("model") or getattr(logging_obj, "model", None)
        model = str(model) if isinstance(model, str) and model else None
        request = {**request, "model": model}
        return _Captured(
            self._core,
            _attempt(self._core, call, request),
            _asked(call, request, getattr(logging_obj, "messages", None)),
            stream=bool(request.get("stream")),
            deployment=(request.get("model_info") or {}).get("id"),
        )

    def _watch(self, logging_obj: Any, captured: _Captured, *, sync: bool = False) -> None:
        """Hear of the end of a call, also where that is nothing but that LiteLLM drops it."""
        self._calls[logging_obj] = captured
        follow(logging_obj, captured, sync=sync)
        weakref.finalize(logging_obj, captured.vanished).atexit = False
        self._core.begin(captured)

    async def on_answer(self, logging_obj: Any, answer: Any) -> None:
        """Record an answer before its caller has it."""
        captured = self._calls.get(logging_obj)
        if captured is None or captured.ended:
            return
        fields = _read(answer, getattr(logging_obj, "model_call_details", None) or {})
        if not captured.asked.call.job:
            cost = answer_cost(logging_obj, answer, captured.asked.model, captured.deployment)
            fields = _with_cost(fields, cost, answer)
        await captured.end(answer, fields)

    async def on_failure(self, logging_obj: Any, exc: BaseException) -> None:
        """Record a failure before its caller hears of it."""
        captured = self._calls.get(logging_obj)
        if captured is not None:
            await captured.end(None, from_exception(exc))

    def on_sync(self, details: dict[str, Any], answer: Any, times: tuple[Any, Any]) -> None:
        """Record a synchronous call, on LiteLLM's thread, after the fact.

        LiteLLM tells this of asynchronous calls too: of failures of some, and from 1.109 on of
        every answer that is no stream.  Those are on record by ``on_start`` and what follows it.
        """
        call = str(details.get("call_type") or "completion")
        attempt = _key(details.get("litellm_call_id"), times[0])
        captured = self._synchronous.pop(attempt, None)
        if captured is None:
            if not self._is_new(attempt) or is_async(call):
                self.duplicates += 1
                return
            captured = self._captured(None, _given(details), call)
        captured.on_sync(details, answer, times)

    def _is_new(self, attempt: tuple[str, str]) -> bool:
        """Remember an attempt, so that none is recorded twice.  From any thread."""
        with self._seeing:
            if attempt in self._seen:
                return False
            self._seen[attempt] = None
            if len(self._seen) > _REMEMBERED:
                del self._seen[next(iter(self._seen))]
            return True


@dataclass(eq=False, repr=False)
class _Captured:
    """One call that somebody else makes, until its outcome is on record."""

    core: ClientCore
    attempt: Attempt
    asked: Asked
    _: KW_ONLY
    stream: bool
    deployment: Any
    here: bool = False
    ended: bool = False

    async def end(self, answer: Any, fields: dict[str, Any]) -> None:
        """Record the outcome and wait until it is as safe as ``durability`` says."""
        if "status" not in fields:
            fields = _completed(self.core, self.asked, fields, answer, self.attempt.ts)
        record = self._settle(fields)
        if record is not None:
            await self.core.acknowledge(record)

    async def on_logged(self, details: dict[str, Any], answer: Any) -> None:
        """Record what came to its end after LiteLLM had returned: a stream, as a rule."""
        if self.ended:
            return
        fields = self._told(details, answer)
        if self._uncounted(fields):  # the loop may be another than the client's
            fields |= await asyncio.to_thread(self._estimate, answer)
        await self.end(answer, fields)

    def on_sync(self, details: dict[str, Any], answer: Any, times: tuple[Any, Any]) -> None:
        """Record a synchronous call that has ended, on LiteLLM's thread."""
        if self.ended:
            return
        fields = self._told(details, answer)
        if self._uncounted(fields):
            fields |= self._estimate(answer)
        if "status" not in fields:
            fields = _completed(self.core, self.asked, fields, answer)
        began, ended = times
        if isinstance(began, datetime) and isinstance(ended, datetime):
            fields["ts"] = began.astimezone()  # LiteLLM's are in local time and do not say so
            fields["latency_ms"] = round((ended - began).total_seconds() * 1000, 3)
        self._settle(fields)

    def _told(self, details: dict[str, Any], answer: Any) -> dict[str, Any]:
        """What LiteLLM's logging tells of the end."""
        exc = details.get("exception")
        if isinstance(exc, BaseException):
            fields = from_exception(exc)
            so_far = usage_fields(details.get("combined_usage_object"))
            if so_far.get("output_tokens"):  # LiteLLM's own count of what had come
                fields |= {**so_far, "usage_source": "estimated"}
                fields = _with_cost(fields, details.get("response_cost"), None)
            return fields
        fields = _logged(details, answer, stream=self.stream)
        asks = self.stream and self.asked.call.asks_usage
        if asks and fields["usage_source"] == "provider" and not asked_for_usage(details):
            fields["usage_source"] = "estimated"
        return fields

    def _uncounted(self, fields: Mapping[str, Any]) -> bool:
        """Whether a stream has come to its end without its provider being asked to count."""
        return self.stream and "status" not in fields and fields["usage_source"] == "none"

    def _estimate(self, answer: Any) -> dict[str, Any]:
        """Count what the provider was not asked to count; takes its time."""
        chunk = SimpleNamespace(
            choices=[
                SimpleNamespace(
                    delta=getattr(choice, "message", None), text=getattr(choice, "text", None)
                )
                for choice in getattr(answer, "choices", None) or ()
            ]
        )
        asked = self.asked
        return estimate_stream(asked.model or "", asked.prompt, [chunk], asked.kwargs.get("tools"))

    def _settle(self, fields: dict[str, Any]) -> UsageRecord | None:
        if self.ended:
            return None
        self.ended = True
        self.core.ended(self)
        if self.here and self.core.is_here():
            return self.attempt.settle(_marked(fields))
        self.attempt.settle_anywhere(_marked(fields))
        return None

    def vanished(self) -> None:
        """LiteLLM has dropped the call and told of no end: it was cancelled, or its stream left."""
        status = "abandoned" if self.stream else "cancelled"
        try:
            self._settle({"status": status, "usage_source": "none"})
        except LedgerError:
            _log.debug("a captured call ended after the ledger", exc_info=True)

    def settle_now(self) -> None:
        """At interpreter exit: it will not end any more."""
        self.vanished()


_READ: Final = ("messages", "input", "prompt")
_KEPT: Final = frozenset({"model", "custom_llm_provider", "tools", *PRICED_BY, *_READ})
"""Arguments that a record can depend on.  Nothing else is kept, least of all LiteLLM's own object
of the call, whose end is what tells that a call was cancelled."""


def _key(call_id: Any, began: Any) -> tuple[str, str]:
    """What tells one attempt from others: those of a Router share the id of their call."""
    return str(call_id), str(began)


def _attempt(core: ClientCore, call: str, request: Mapping[str, Any]) -> Attempt:
    model = request.get("model")
    return Attempt(
        core.calls,
        call=call,
        model=model if isinstance(model, str) else None,
        stream=bool(request.get("stream")),
        tags=None,
        call_id=str(request.get("litellm_call_id") or ""),
    )


def _asked(call: str, request: Mapping[str, Any], read: Any) -> Asked:
    """What was asked for, as far as ``request`` says it by name; ``read`` is what LiteLLM made of
    the messages or the prompt, however they were given."""
    row = CALLS.get(call) or CALLS.get("a" + call) or Call(call, _READ, "")
    names = _KEPT.union(row.reads, row.options)
    kwargs = {name: request[name] for name in names if request.get(name) is not None}
    if behind := base_model(request):
        kwargs["base_model"] = behind
    if row.reads and read and not any(name in kwargs for name in row.reads):
        kwargs[row.reads[0]] = read
    return Asked(row, kwargs)


def _given(details: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a synchronous call, which LiteLLM has sorted into three places."""
    found: dict[str, Any] = {}
    for name in ("litellm_params", "optional_params"):
        found |= details.get(name) or {}
    return {**found, **details}


def _completed(
    core: ClientCore,
    asked: Asked,
    fields: dict[str, Any],
    answer: Any,
    began: datetime | None = None,
) -> dict[str, Any]:
    """Add units and cost; of a call about a job nothing is recorded but that it was made, because
    each look at a finished one tells its usage again."""
    if asked.call.job:
        return {"status": "ok", "response_id": fields.get("response_id"), "usage_source": "none"}
    fields = add_units(fields, asked.call.units(asked.kwargs, answer))
    return core.pricing.complete(fields, answer, asked, began)


def _logged(details: Mapping[str, Any], answer: Any, *, stream: bool) -> dict[str, Any]:
    """What LiteLLM's logging tells of an answer; it has put its price on that of a stream."""
    seen = unstamped(answer) if stream else answer
    return _with_cost(_read(seen, details), details.get("response_cost"), answer)


def _read(answer: Any, details: Mapping[str, Any]) -> dict[str, Any]:
    fields = from_response(answer)
    provider = details.get("custom_llm_provider")
    if "provider" not in fields and isinstance(provider, str) and provider:
        fields["provider"] = str(provider)
    if details.get("cache_hit") is True and "cache_hit" not in fields:
        fields["cache_hit"] = True
    return fields


def _with_cost(fields: dict[str, Any], cost: Any, answer: Any) -> dict[str, Any]:
    """Take LiteLLM's own price, unless it is the 0 that it says when a usage is missing."""
    usage = getattr(answer, "usage", None)
    known = not noted(fields, "unpriced") and not (usage and cached_elsewhere(usage))
    if known and "cost" not in fields and type(cost) in (float, int) and cost >= 0:
        counted = fields.get("usage_source") == "provider" or fields.get("cache_hit")
        if cost or counted or usage is None:
            fields["cost"], fields["cost_source"] = from_litellm(cost), "litellm"
    return fields


def _marked(fields: dict[str, Any]) -> dict[str, Any]:
    return merged(fields, {"meta": {"captured": True}})
