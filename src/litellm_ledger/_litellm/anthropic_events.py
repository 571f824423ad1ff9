"""Anthropic's stream of events, read from the raw bytes that LiteLLM hands through.

Owns the splitting of bytes into events, and what they say of usage, text and failure.  Pure.  A
stream is whole when ``message_stop`` came; an ``error`` event raises nothing in LiteLLM, and is an
error here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .bill import put_said
from .members import parsed, text
from .stream_readers import PiecesReader
from .usage import reported

__all__ = ["LONGEST", "EventsReader", "MessagesReader"]

_ERRORS: Final = frozenset(
    {
        "api_error",
        "authentication_error",
        "billing_error",
        "invalid_request_error",
        "not_found_error",
        "overloaded_error",
        "permission_error",
        "rate_limit_error",
        "request_too_large",
        "timeout_error",
    }
)
"""Anthropic's names of errors.  Any other text of a provider's stays out of the record."""

LONGEST: Final = 8 * 2**20
"""Bytes of one event; a stream without line breaks is not kept in memory."""


class EventsReader(PiecesReader):
    """Events of JSON in ``data:`` lines."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._pending = bytearray()

    def see(self, chunk: Any) -> None:
        """Take what came: bytes or text of any length, or an event that is a mapping already."""
        if isinstance(chunk, Mapping):
            self._event(chunk)
            return
        if isinstance(chunk, str):
            chunk = chunk.encode("utf-8", "replace")
        if not isinstance(chunk, (bytes, bytearray)):
            return
        self._pending += chunk
        if b"\n" not in chunk:
            if len(self._pending) > LONGEST:
                self._pending.clear()
            return
        *lines, left = bytes(self._pending).split(b"\n")
        self._pending[:] = left
        for line in lines:
            if line.startswith(b"data:"):
                self._data(line[5:])

    def _data(self, data: bytes) -> None:
        event = parsed(data)
        if isinstance(event, dict):
            self._event(event)

    def _event(self, event: Mapping[str, Any]) -> None:
        raise NotImplementedError


class MessagesReader(EventsReader):
    """Anthropic's events."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._usage: dict[str, Any] = {}  # the later counts over the earlier ones
        self._ended = False
        self._error: str | None = None
        self._id: str | None = None
        self._model: str | None = None

    def _event(self, event: Mapping[str, Any]) -> None:
        kind = event.get("type")
        if kind == "content_block_delta":
            self._written(event.get("delta"))
        elif kind == "content_block_start":
            self._written(event.get("content_block"))
        elif kind == "message_start":
            message = event.get("message")
            if isinstance(message, Mapping):
                self._id, self._model = text(message.get("id")), text(message.get("model"))
                self._counts(message.get("usage"))
        elif kind == "message_delta":
            self._counts(event.get("usage"))
        elif kind == "message_stop":
            self._ended = True
        elif kind == "error":
            error = event.get("error")
            name = error.get("type") if isinstance(error, Mapping) else None
            self._error = name if name in _ERRORS else "api_error"

    def _written(self, block: Any) -> None:
        if isinstance(block, Mapping):
            for name in ("text", "thinking", "partial_json", "name"):
                value = block.get(name)
                if isinstance(value, str):
                    self._text.append(value)

    def _counts(self, usage: Any) -> None:
        if isinstance(usage, Mapping):
            self._usage |= {name: value for name, value in usage.items() if value is not None}

    def fields(self, *, finished: bool) -> dict[str, Any]:
        named = {"response_model": self._model, "response_id": self._id, "provider": self.provider}
        found: dict[str, Any] = {name: value for name, value in named.items() if value}
        found["usage_source"] = "none"
        counts = reported(self._usage)
        if counts:
            found |= counts
            found["usage_source"] = "provider" if self._ended else "estimated"
            if self._ended:
                put_said(found, self._usage)
            else:
                found.pop("total_tokens", None)
        if self._error is not None or (finished and not self._ended):
            found |= {"status": "error", "error": self._error or "StreamCut"}
        return found

    def answer(self) -> dict[str, Any] | None:
        """The message as LiteLLM prices it, once all of it was counted."""
        if not (self._ended and self._usage):
            return None
        block = {"type": "text", "text": ""}
        message = {"id": self._id, "type": "message", "role": "assistant", "model": self._model}
        return {**message, "content": [block], "usage": dict(self._usage)}

    @property
    def text(self) -> str | None:
        """All that the model wrote: text, thinking, arguments of tools."""
        return "".join(self._text) if self._usage or self._text else None
