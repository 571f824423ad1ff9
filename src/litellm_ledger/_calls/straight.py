"""The straight line: a chat as nearly all are, with its records, in one frame.

Owns the question whether a call is one, and the order of ``call`` for those.  Others it hands over
to that: another kind of call before anything is written, an answer or an error with a rule of its
own when it is there.  After LiteLLM's own work nothing is in the processor's caches: what counts is
how much code and data a call touches.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import force_setattr

from litellm_ledger._litellm.calls import CALLS, Asked
from litellm_ledger._litellm.load import loaded
from litellm_ledger._litellm.own_calls import ours
from litellm_ledger._litellm.plain import plain_fields
from litellm_ledger._records.record import MAX_TEXT, UsageRecord, unchecked
from litellm_ledger._tracking.tags import current_request

from .answers import label
from .attempt import Attempt
from .call import call, new_id, prepare
from .core import ClientCore
from .options import CallOptions

if TYPE_CHECKING:
    from .holding import Held

__all__ = ["straight_call"]

_CHAT: Final = CALLS["acompletion"]
_STARTED: Final = UsageRecord(kind="started", call=_CHAT.name, stream=False, attempt=1)


async def straight_call(  # noqa: C901 - all of a call in one frame, for speed
    core: ClientCore,
    kwargs: dict[str, Any],
    tags: Mapping[str, Any] | None,
    options: CallOptions,
) -> Any:
    """``call`` of ``acompletion`` without positional arguments."""
    model = kwargs["model"]
    if "litellm_call_id" not in kwargs:
        kwargs["litellm_call_id"] = new_id()
    call_id, provider = kwargs["litellm_call_id"], kwargs.get("custom_llm_provider")
    calls, limit = core.calls, core.limit
    if (
        loaded() is None
        or not core.is_idle()
        or not core.track_in_flight
        or limit.most is not None
        or options.capture_content
        or options.max_retries is not None
        or options.deadline is not None
        or kwargs.get("stream")
        or kwargs.get("tools")
        or (provider is not None and type(provider) is not str)
        or not (type(model) is type(call_id) is str and model.isascii() and call_id.isascii())
        or not 0 < len(model) <= MAX_TEXT
        or len(call_id) > MAX_TEXT
        or (provider or model.partition("/")[0]) in _CHAT.wired
    ):
        return await call(core, _CHAT.name, (), kwargs, tags, options=options)
    litellm: Any = await core.litellm()  # which is here: nothing else runs meanwhile
    outside, pid = sys.exception(), os.getpid()
    ts, began = datetime.now(UTC), time.perf_counter()
    labels = calls.merged_tags(options.tagged(tags) if tags or options.tags else None)
    put = force_setattr
    record = _STARTED.__copy__()
    put(record, "ts", ts)
    put(record, "model", model)
    put(record, "call_id", call_id)
    put(record, "tags", labels or {})
    put(record, "meta", {})
    hold = None
    if core.holding is not None:
        hold = core.holding.take_now(Asked(_CHAT, kwargs), labels, ts)
        if hold is None:  # it waits, or is refused
            return await call(core, _CHAT.name, (), kwargs, tags, options=options)
        for name, amount in hold.on_started().items():
            put(record, name, amount)
    limit.free += 1
    request = current_request()
    try:
        started = calls.began(record)
        if hold is not None:
            hold.bind(started)
        if request is not None:
            request.begins()
        sure = hold is not None
        if not calls.begun(started) or (sure and not calls.is_written(started)):
            await calls.started(started, core.ack_timeout, request, sure=sure)
        try:
            with ours():
                answer = await litellm.acompletion(**kwargs)
        except BaseException as exc:
            left = began, pid, outside, hold
            await _resume(core, litellm, kwargs, options, started, left, error=exc)
            raise
        ended = time.perf_counter()
        fields = plain_fields(answer)
        if (
            fields is None
            or pid != os.getpid()  # a forked child settles nothing of ours
            or not core.pricing.complete_plain(fields, model, kwargs, ts)
        ):
            left = began, pid, outside, hold
            return await _resume(core, litellm, kwargs, options, started, left, answer)
        fields["kind"] = "usage"
        fields["status"] = "ok"
        fields["latency_ms"] = round((ended - began) * 1000, 3)
        if hold is not None:
            fields |= hold.on_outcome(fields, billed=True)
        record = calls.end(unchecked(started, fields), started)
        if request is not None:
            request.ends(record)
        if not calls.acknowledged(record):
            try:
                await core.acknowledge(record)
            except BaseException as exc:
                label(exc, record)
                raise
        object.__setattr__(answer, "usage_record", record)  # see `hand_out`
        return answer
    finally:
        limit.free -= 1


async def _resume(
    core: ClientCore,
    litellm: Any,
    kwargs: dict[str, Any],
    options: CallOptions,
    started: UsageRecord,
    left: tuple[float, int, BaseException | None, Held | None],
    answer: Any = None,
    error: BaseException | None = None,
) -> Any:
    """End a call the general way, with what it came to.

    Args:
        left: of the moment before the request: the time, the process, the exception in handling,
            what is held.
    """
    made = prepare(core, litellm, Asked(_CHAT, kwargs), options, None)
    began, pid, made.operation.outside, hold = left
    made.operation.begins()
    attempt = Attempt.resumed(core.calls, started, began, pid, hold)
    try:
        if error is None:
            return await made.answered(attempt, answer)
        await made.failed(attempt, error)
    except BaseException as exc:
        label(exc, made.operation.record)
        raise
    label(error, made.operation.record)
