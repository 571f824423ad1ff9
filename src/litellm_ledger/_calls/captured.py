"""One call that other code makes on LiteLLM: what LiteLLM tells of it, and its record.

Owns how that becomes an outcome, once.  ``capture`` is what finds the calls.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Self

from litellm_ledger._errors import LedgerError
from litellm_ledger._litellm.bill import unstamped
from litellm_ledger._litellm.calls import CALLS, Asked, Call
from litellm_ledger._litellm.estimates import estimate_stream
from litellm_ledger._litellm.hooks import answer_cost, asked_for_usage
from litellm_ledger._litellm.members import merged, noted
from litellm_ledger._litellm.outcome import from_exception, from_response
from litellm_ledger._litellm.price_options import PRICED_BY, base_model
from litellm_ledger._litellm.units import add_units
from litellm_ledger._litellm.usage import cached_elsewhere, usage_fields
from litellm_ledger._records.money import from_litellm
from litellm_ledger._records.record import UsageRecord

from .attempt import Attempt

if TYPE_CHECKING:
    from .core import ClientCore

__all__ = ["Captured", "given"]

_log = logging.getLogger("litellm_ledger")

_settling: Final = threading.RLock()
"""Two threads of LiteLLM's may tell of one call at once; a finalizer may run anywhere."""


@dataclass(eq=False, repr=False)
class Captured:
    """One call that somebody else makes, until its outcome is on record."""

    core: ClientCore
    attempt: Attempt
    asked: Asked
    _: KW_ONLY
    stream: bool
    deployment: Any
    here: bool = False
    ended: bool = False
    key: tuple[str, str] = ("", "")
    told: bool = False

    @classmethod
    def of(cls, core: ClientCore, logging_obj: Any, request: Mapping[str, Any], call: str) -> Self:
        """Make the one of a call that begins."""
        model = request.get("model") or getattr(logging_obj, "model", None)
        model = str(model) if isinstance(model, str) and model else None
        request = {**request, "model": model}
        return cls(
            core,
            _attempt(core, call, request),
            _asked(call, request, getattr(logging_obj, "messages", None)),
            stream=bool(request.get("stream")),
            deployment=(request.get("model_info") or {}).get("id"),
        )

    async def on_answer(self, logging_obj: Any, answer: Any) -> None:
        """Record an answer before its caller has it."""
        fields = _read(answer, getattr(logging_obj, "model_call_details", None) or {})
        if not self.asked.call.job:
            cost = answer_cost(logging_obj, answer, self.asked.model, self.deployment)
            fields = _with_cost(fields, cost, answer)
        await self.end(answer, fields)

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
        with _settling:
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


def _attempt(core: ClientCore, call: str, request: Mapping[str, Any]) -> Attempt:
    model = request.get("model")
    return Attempt(
        core.calls,
        call=call,
        model=model if isinstance(model, str) else None,
        stream=bool(request.get("stream")),
        tags=core.calls.tags_anyway(None),
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


def given(details: Mapping[str, Any]) -> dict[str, Any]:
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
