"""One call, from the caller's arguments to the caller's answer, with its records in between.

    slot -> started (acknowledged) -> LiteLLM -> outcome (acknowledged) -> answer

Owns that order, and nothing else of the client; ``_operation`` goes through it again where that was
asked for.  Arguments, answers and exceptions are LiteLLM's, passed through unchanged.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ._attempt import Attempt
from ._closing import outlive_cancellation
from ._core import ClientCore
from ._operation import Operation
from ._options import CallOptions, without_inner_retries
from ._ours import ours
from ._outcome import from_exception, from_response
from ._retry import may_be_billed
from ._stream import CompletionStream, Upstream

__all__ = ["call"]


async def call(
    core: ClientCore,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tags: Mapping[str, Any] | None,
    *,
    options: CallOptions,
    track: bool,
) -> Any:
    """Make one call of LiteLLM's function ``name`` and record it; see ``LiteLLMClient``.

    Args:
        kwargs: handed over; ``model`` is among them.
        tags: on the records of this call.
        options: the client's or the view's.
        track: write a ``started`` record before the request leaves.
    """
    await core.ready()
    litellm: Any = await core.litellm()
    kwargs.setdefault("litellm_call_id", str(uuid.uuid4()))
    stream = bool(kwargs.get("stream"))
    retries = options.retries(kwargs)
    if retries is not None:
        without_inner_retries(kwargs)
    request = _Request(
        name=name,
        function=getattr(litellm, name),
        args=args,
        kwargs=kwargs,
        tags=options.tagged(tags),
        track=track,
        stream=stream,
        drain=options.on_abandoned_stream == "drain",
        usage_asked=not stream or _ask_for_usage(kwargs),
    )
    timed_out = partial(litellm.Timeout, model=kwargs["model"], llm_provider="")
    operation = Operation(retries=retries or 0, seconds=options.deadline, timed_out=timed_out)
    return await operation.run(partial(_attempt, core, request, operation))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What is sent, once for every attempt, and what is written down with it."""

    name: str
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tags: Mapping[str, str] | None
    track: bool
    stream: bool
    drain: bool
    usage_asked: bool


async def _attempt(core: ClientCore, request: _Request, operation: Operation) -> Any:
    """Send the request once and record it."""
    kwargs = request.kwargs
    operation.phase = "while waiting for one of the max_concurrency slots"
    slot = await core.limit.enter()
    operation.attempts += 1
    operation.phase = f"in attempt {operation.attempts}"
    core.repeated += operation.attempts > 1
    attempt = Attempt(
        core.tracker,
        call=request.name,
        model=kwargs["model"],
        stream=request.stream,
        tags=request.tags,
        call_id=kwargs["litellm_call_id"],
        number=operation.attempts,
        operation=operation.id,
        slot=slot,
    )
    await attempt.begin(write=request.track, ack_timeout=core.ack_timeout)
    try:
        with ours():
            answer = await request.function(*request.args, **kwargs)
    except BaseException as exc:
        await _failed(core, request, operation, attempt, exc)
        raise
    operation.answered()
    if request.stream and hasattr(answer, "__anext__"):
        upstream = _upstream(core, request, attempt, answer)
        upstream.drain = request.drain
        upstream.deadline = operation.deadline
        core.begin(upstream)
        return CompletionStream(upstream)
    record = attempt.settle(core.complete(from_response(answer), answer, kwargs["model"]))
    if record is not None:
        await core.acknowledge(record)
        # Past pydantic's own __setattr__, which would put it into model_dump() and JSON.
        object.__setattr__(answer, "usage_record", record)
    return answer


async def _failed(
    core: ClientCore,
    request: _Request,
    operation: Operation,
    attempt: Attempt,
    exc: BaseException,
) -> None:
    """Record an attempt that ended without an answer; by an estimate if it may be billed."""
    attempt.ended()
    fields = operation.deadline_fields() or from_exception(exc)
    if may_be_billed(exc, operation.outside) and _input(request.kwargs):
        # The input is counted off the loop, in a task that outlives whoever is cancelled.
        upstream = _upstream(core, request, attempt, None)
        core.begin(upstream)
        await outlive_cancellation(core.in_background(upstream.leave(fields)))
    else:
        attempt.settle(fields)
    operation.id = attempt.operation
    if attempt.record is not None and fields["status"] != "cancelled":
        await core.acknowledge(attempt.record)


def _upstream(core: ClientCore, request: _Request, attempt: Attempt, answer: Any) -> Upstream:
    """What came back, or ``None`` for nothing, as something that can be counted and settled."""
    kwargs = request.kwargs
    return Upstream(
        answer,
        attempt,
        core,
        model=kwargs["model"],
        messages=_input(kwargs),
        tools=kwargs.get("tools"),
        usage_asked=request.usage_asked,
    )


def _input(kwargs: Mapping[str, Any]) -> Any:
    """What the provider charges as input tokens; ``None`` for what has other units."""
    return kwargs.get("messages")


def _ask_for_usage(kwargs: dict[str, Any]) -> bool:
    """Have the provider send the usage of a stream; tell whether the caller wanted it anyway.

    A stream without ``include_usage`` ends with zeros that look like the provider's.
    """
    options = kwargs.get("stream_options")
    if isinstance(options, Mapping) and "include_usage" in options:
        return True
    kwargs["stream_options"] = {**(options or {}), "include_usage": True}
    return False
