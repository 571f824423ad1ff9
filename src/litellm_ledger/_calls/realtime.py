"""Sessions over a websocket: each answer of the provider's in one is on record like a call.

Owns the reading of a session's events on their way to the user's websocket.  An answer is on record
as ``started`` when the provider has begun it, and with its usage before the event that carries it
is handed on; what is under way when the session ends is ``cancelled``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from litellm_ledger._litellm.calls import Asked, Call
from litellm_ledger._litellm.members import member, parsed, text
from litellm_ledger._litellm.outcome import from_response
from litellm_ledger._litellm.own_calls import ours

from .attempt import Attempt
from .core import ClientCore
from .options import CallOptions

__all__ = ["SESSIONS", "session"]

SESSIONS: Final = {
    name: Call(name, (), "", path=f"_{name}", keeps=None)
    for name in ("arealtime", "aresponses_websocket")
}
"""LiteLLM has both for its proxy, without a public name."""

_BEGUN: Final = "response.created"
_DONE: Final = ("response.done", "response.completed", "response.incomplete", "response.failed")
_TRANSCRIBED: Final = "conversation.item.input_audio_transcription.completed"
_READ: Final = (_BEGUN, *_DONE, _TRANSCRIBED)

_STATUS: Final = {"failed": "error", "cancelled": "cancelled"}
_LONGEST: Final = 8 * 2**20


async def session(
    core: ClientCore,
    name: str,
    websocket: Any,
    kwargs: dict[str, Any],
    tags: Mapping[str, Any] | None,
    *,
    options: CallOptions,
) -> Any:
    """Run a session until either side ends it; raises what LiteLLM raises."""
    await core.ready()
    litellm: Any = await core.litellm()
    row = SESSIONS[name]
    asked, own = Asked(row, kwargs), options.tagged(tags)
    if core.holding is not None:  # what it will cost has no bound: budgets refuse it, or count it
        held = await core.holding.take(asked, core.calls.merged_tags(own), stream=True)
        held.drop()
    watched = _Watched(websocket, core, asked, own)
    try:
        with ours():
            return await row.function(litellm)(websocket=watched, **kwargs)
    finally:
        watched.end()


class _Watched:
    """The user's websocket; what is sent to it is read as it passes."""

    def __init__(
        self, websocket: Any, core: ClientCore, asked: Asked, tags: Mapping[str, str] | None
    ) -> None:
        self._websocket = websocket
        self._core = core
        self._asked = asked
        self._tags = tags
        self._open: dict[str, Attempt] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._websocket, name)

    async def send_text(self, data: str) -> None:
        if isinstance(data, str) and len(data) <= _LONGEST and any(kind in data for kind in _READ):
            await self._event(data)
        await self._websocket.send_text(data)

    async def _event(self, data: str) -> None:
        event = parsed(data)
        kind, answer = member(event, "type"), member(event, "response")
        if kind == _BEGUN:
            started = self._begin(member(answer, "id"), self._asked).started
            if started is not None:
                await self._core.acknowledge(started)
        elif kind in _DONE:
            await self._settle(answer, self._asked)
        elif kind == _TRANSCRIBED:
            # Another model listens, and is billed for it; the event does not say which.
            nameless = Asked(self._asked.call, {})
            await self._settle({**event, "id": member(event, "item_id")}, nameless)

    def _begin(self, key: Any, asked: Asked) -> Attempt:
        """Put down that an answer has begun: the provider sends it, room or not."""
        core = self._core
        known = self._open.get(key) if isinstance(key, str) else None
        if known is not None:  # said twice
            return known
        attempt = Attempt(
            core.calls,
            call=asked.call.name,
            model=asked.model,
            stream=True,
            tags=core.calls.tags_anyway(self._tags),
            call_id=str(key)[:256],
        )
        attempt.begun(write=core.track_in_flight)
        if isinstance(key, str):
            self._open[key] = attempt
        return attempt

    async def _settle(self, answer: Any, asked: Asked) -> None:
        key = member(answer, "id")
        attempt = self._begin(key, asked)  # the one that has begun, if it has
        if isinstance(key, str):
            del self._open[key]
        attempt.ended()
        fields = from_response(answer)
        status = _STATUS.get(text(member(answer, "status")) or "", "ok")
        fields |= {"status": status} | ({"error": "ResponseFailed"} if status == "error" else {})
        record = attempt.settle(self._core.pricing.complete(fields, answer, asked, attempt.ts))
        if record is not None:
            await self._core.acknowledge(record)

    def end(self) -> None:
        """Settle what was under way."""
        for attempt in self._open.values():
            attempt.settle({"status": "cancelled", "usage_source": "none"})
        self._open.clear()
