"""One call, from the caller's arguments to the caller's answer, with its records in between.

    started (acknowledged) -> LiteLLM -> outcome (acknowledged) -> answer

Owns that order, and nothing else of the client.  Arguments, answers and exceptions are LiteLLM's,
passed through unchanged.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping
from typing import Any

from ._attempt import Attempt
from ._core import ClientCore
from ._ours import ours
from ._outcome import from_exception, from_response
from ._record import clean_tags
from ._stream import CompletionStream, Upstream

__all__ = ["call"]


async def call(
    core: ClientCore,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tags: Mapping[str, Any] | None,
    *,
    track: bool,
) -> Any:
    """Make one call of LiteLLM's function ``name`` and record it; see ``LiteLLMClient``.

    Args:
        kwargs: handed over; ``model`` is among them.
        tags: on the records of this call.
        track: write a ``started`` record before the request leaves.
    """
    await core.ready()
    function = getattr(await core.litellm(), name)
    stream = bool(kwargs.get("stream"))
    usage_asked = not stream or _ask_for_usage(kwargs)
    attempt = Attempt(
        core.tracker,
        call=name,
        model=kwargs["model"],
        stream=stream,
        tags=clean_tags(tags) if tags else None,
        call_id=kwargs.setdefault("litellm_call_id", str(uuid.uuid4())),
    )
    await attempt.begin(write=track, ack_timeout=core.ack_timeout)
    try:
        with ours():
            answer = await function(*args, **kwargs)
    except BaseException as exc:
        record = attempt.settle(from_exception(exc))
        if record is not None and isinstance(exc, Exception):
            await core.acknowledge(record)
        raise
    if stream and hasattr(answer, "__anext__"):
        upstream = Upstream(
            answer,
            attempt,
            core,
            model=kwargs["model"],
            messages=kwargs.get("messages"),
            tools=kwargs.get("tools"),
            usage_asked=usage_asked,
            drain=core.on_abandoned_stream == "drain",
        )
        core.begin(upstream)
        return CompletionStream(upstream)
    record = attempt.settle(core.complete(from_response(answer), answer, kwargs["model"]))
    if record is not None:
        await core.acknowledge(record)
        # Past pydantic's own __setattr__, which would put it into model_dump() and JSON.
        with contextlib.suppress(AttributeError, TypeError):  # what takes no attribute goes without
            object.__setattr__(answer, "usage_record", record)
    return answer


def _ask_for_usage(kwargs: dict[str, Any]) -> bool:
    """Have the provider send the usage of a stream; tell whether the caller wanted it anyway.

    A stream without ``include_usage`` ends with zeros that look like the provider's.
    """
    options = kwargs.get("stream_options")
    if isinstance(options, Mapping) and "include_usage" in options:
        return True
    kwargs["stream_options"] = {**(options or {}), "include_usage": True}
    return False
