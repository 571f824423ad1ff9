"""Streams that LiteLLM hands through as the provider's bytes.

Owns what the events of any provider say of usage and text.  Decides nothing about a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .anthropic_events import LONGEST, EventsReader
from .members import member, parsed
from .outcome import from_response

__all__ = ["AnyReader", "body"]


class AnyReader(EventsReader):
    """The events of any provider, as a route that is passed through hands them on.

    A usage may stand on any event, or on the message, response or interaction in it; later counts
    come over earlier ones.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._said: dict[str, Any] = {}
        self._ended = False

    def see(self, chunk: Any) -> None:
        if isinstance(chunk, (bytes, bytearray, str, Mapping)):
            super().see(chunk)
        else:
            self._event(chunk)

    def _event(self, event: Any) -> None:
        holders = [event, *(member(event, name) for name in ("message", "response", "interaction"))]
        for holder in filter(None, holders):
            self._take(holder)
        kind = member(event, "type") or member(event, "event_type")
        kind = str(getattr(kind, "value", kind))
        self._ended = self._ended or kind.endswith(_LAST)
        for choice in (*_listed(event, "candidates"), *_listed(event, "choices")):
            if member(choice, "finishReason") or member(choice, "finish_reason"):
                self._ended = True
            self._wrote(member(member(choice, "delta"), "content"))
            for part in _listed(member(choice, "content"), "parts"):
                self._wrote(member(part, "text"))
        delta = member(event, "delta")
        self._wrote(delta if isinstance(delta, str) else member(delta, "text"))

    def _take(self, said: Any) -> None:
        for name in _NAMES:
            value, known = member(said, name), self._said.get(name)
            if isinstance(value, Mapping) and isinstance(known, Mapping):
                told = {key: each for key, each in value.items() if each is not None}
                self._said[name] = {**known, **told}
            elif value is not None:
                self._said[name] = value

    def _wrote(self, value: Any) -> None:
        if isinstance(value, str):
            self._text.append(value)

    def fields(self, *, finished: bool) -> dict[str, Any]:  # noqa: ARG002 - the signature is that of all readers
        found = from_response(self._said)
        if self.provider:
            found["provider"] = self.provider
        if found["usage_source"] == "provider" and not self._ended:
            found["usage_source"] = "estimated"  # of a stream that was cut: a floor
            found.pop("total_tokens", None)
        return found

    def answer(self) -> dict[str, Any] | None:
        return self._said if self._ended else None

    @property
    def text(self) -> str | None:
        return "".join(self._text) if self._said or self._text else None


_NAMES: Final = (
    "id",
    "model",
    "modelVersion",
    "responseId",
    "service_tier",
    "usage",
    "usageMetadata",
)
_LAST: Final = (
    "interaction.complete",
    "interaction.completed",
    "message_stop",
    "response.completed",
    "response.incomplete",
)
"""Events after which nothing is counted any more."""


def _listed(source: Any, name: str) -> list[Any]:
    found = member(source, name)
    return found if isinstance(found, list) else []


def body(answer: Any) -> Any:
    """The JSON of an HTTP answer; of anything else the thing itself."""
    content = member(answer, "content")
    if not isinstance(content, bytes) or len(content) > LONGEST:
        return answer
    return parsed(content)
