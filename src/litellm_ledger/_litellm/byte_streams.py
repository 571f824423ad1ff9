"""Streams that LiteLLM hands through as the provider's bytes.

Owns the splitting of bytes into events, and the reading of Google's: each of its events is a part of
the answer, with a usage that grows.  Decides nothing about a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .members import member
from .outcome import from_response
from .stream_readers import StreamReader

__all__ = ["EventsReader", "GoogleReader"]

_decode: Final = msgspec.json.decode
_LONGEST: Final = 8 * 2**20
"""Bytes of one event; a stream without line breaks is not kept in memory."""


class EventsReader(StreamReader):
    """Events of JSON in ``data:`` lines."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._pending = b""

    def see(self, chunk: Any) -> None:
        """Take what came: bytes or text of any length, or an event that is a mapping already."""
        if isinstance(chunk, Mapping):
            self._event(chunk)
            return
        if isinstance(chunk, str):
            chunk = chunk.encode("utf-8", "replace")
        if not isinstance(chunk, (bytes, bytearray)):
            return
        *lines, self._pending = (self._pending + bytes(chunk)).split(b"\n")
        if len(self._pending) > _LONGEST:
            self._pending = b""
        for line in lines:
            if line.startswith(b"data:"):
                self._data(line[5:])

    def _data(self, data: bytes) -> None:
        try:
            event = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if isinstance(event, dict):
            self._event(event)

    def _event(self, event: Mapping[str, Any]) -> None:
        raise NotImplementedError


class GoogleReader(EventsReader):
    """The events of ``agenerate_content_stream`` and of an interaction.

    Every event of the first may have a usage, of all that was written so far; the last one names
    a ``finishReason``.  An interaction has its usage on its last event.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._text: list[str] = []
        self._last: dict[str, Any] = {}
        self._ended = False

    def see(self, chunk: Any) -> None:
        if isinstance(chunk, (bytes, bytearray, str, Mapping)):
            super().see(chunk)
        else:
            self._event(chunk)

    def _event(self, event: Any) -> None:
        whole = member(event, "interaction")
        if whole is not None:
            self._take(whole)
            self._ended = self._ended or member(whole, "usage") is not None
        else:
            self._take(event)
        for candidate in member(event, "candidates") or ():
            self._ended = self._ended or bool(member(candidate, "finishReason"))
            for part in member(member(candidate, "content"), "parts") or ():
                self._wrote(member(part, "text"))
        self._wrote(member(member(event, "delta"), "text"))

    def _take(self, said: Any) -> None:
        for name in ("usage", "usageMetadata", "model", "modelVersion", "id", "responseId"):
            value = member(said, name)
            if value is not None:
                self._last[name] = value

    def _wrote(self, value: Any) -> None:
        if isinstance(value, str):
            self._text.append(value)

    def fields(self, *, finished: bool) -> dict[str, Any]:
        found = from_response(self._last)
        if self.provider:
            found["provider"] = self.provider
        if found["usage_source"] == "provider" and not (self._ended and finished):
            found["usage_source"] = "estimated"
            found.pop("total_tokens", None)
        return found

    def answer(self) -> dict[str, Any] | None:
        return self._last if self._ended else None

    @property
    def text(self) -> str | None:
        return "".join(self._text) if self._last or self._text else None
