"""What a provider says on the wire and LiteLLM drops before anybody sees it.

Owns the reading.  Groq puts the usage of a stream into ``x_groq``,
Moonshot into ``choices[0]``, Cohere into its last event, with the tokens that it bills; Cohere's
plain answers lose those as well, OpenRouter's embeddings their cost, and Perplexity's answers their
count of citations, which LiteLLM estimates anew.  Everybody else's calls are left alone.

A stream is read on its way from LiteLLM's connection to LiteLLM's own reader, through an object of
that one stream; a plain answer in the frame that waited for it.  Nothing is changed, held back or
waited for.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from types import FrameType
from typing import Any, Final, Self

import msgspec

from .connections import watched
from .dialects import billed_usage
from .members import member, parsed

__all__ = ["Wire", "wire_of_stream"]

_LONGEST: Final = 2**20
"""Characters of a line that is looked into; a usage takes a few hundred."""


class Wire:
    """What was said on the wire of one request.

    Attributes:
        usage: the last usage, as the provider spells it, or ``None``.
    """

    __slots__ = ("usage",)

    def __init__(self) -> None:
        self.usage: Mapping[str, Any] | None = None

    @property
    def billed(self) -> Mapping[str, Any] | None:
        """The usage that is billed: Cohere's model reads more tokens than that."""
        return None if self.usage is None else billed_usage(self.usage) or self.usage

    def see(self, item: Any) -> None:
        """Take a line of a stream, text or bytes, or an event that the SDK has read."""
        if isinstance(item, str):
            if "usage" in item and len(item) <= _LONGEST:
                self._read(item[item.find("{") :].encode("utf-8", "replace"))
        elif isinstance(item, bytes):
            if b"usage" in item and len(item) <= _LONGEST:
                self._read(item[item.find(b"{") :])
        else:
            self._take(item)

    async def heard(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Return what the call returns, having read the provider's plain answer.

        The answer is a local variable of the coroutine of LiteLLM's that waited for it, and of no
        other object; the frame keeps it until it has been read here.
        """
        frames: dict[int, FrameType] = {}
        self.usage = None  # of an attempt before
        try:
            answer = await watched(call, lambda frame: frames.setdefault(id(frame), frame))
            for frame in frames.values():
                said = frame.f_locals.get("response")
                if type(said).__name__ == "Response":
                    self._read(getattr(said, "content", b""), _Answer)
            return answer
        finally:
            frames.clear()

    def _read(self, data: bytes, kind: Any = Any) -> None:
        self._take(parsed(data, kind))

    def _take(self, said: Any) -> None:
        choices = member(said, "choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        for holder in (said, member(said, "x_groq"), member(said, "delta"), first):
            usage = member(holder, "usage")
            if usage is not None:
                self.usage = usage if isinstance(usage, Mapping) else _plain(usage)


class _Answer(msgspec.Struct):
    """A plain answer; of a list of vectors nothing is kept."""

    usage: dict[str, Any] | None = None


def _plain(usage: Any) -> Mapping[str, Any] | None:
    try:
        told: Mapping[str, Any] = usage.model_dump(exclude_none=True)
    except Exception:
        return None
    return told


# --- Streams ---------------------------------------------------------------------------------


class _Overheard:
    """An asynchronous iterator that is read as it passes; anything else is the iterator's own."""

    def __init__(self, inner: Any, wire: Wire) -> None:
        self._inner = inner
        self._items = inner.__aiter__()
        self._wire = wire

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        item = await self._items.__anext__()
        self._wire.see(item)
        return item

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def wire_of_stream(wrapper: Any) -> Wire | None:
    """Overhear the stream below one of LiteLLM's wrappers."""
    wire = Wire()
    try:
        stream = wrapper.completion_stream
        if hasattr(stream, "streaming_response"):  # LiteLLM's reader of lines
            stream.streaming_response = _Overheard(stream.streaming_response, wire)
        elif stream is not None:  # the SDK's of events
            wrapper.completion_stream = _Overheard(stream, wire)
    except Exception:  # another shape: the usage is estimated, as without this
        return None
    return wire
