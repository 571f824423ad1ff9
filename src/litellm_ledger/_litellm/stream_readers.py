"""The kinds of stream that LiteLLM hands out, read alike; ``anthropic_events`` has the fourth.

Owns, for each kind, what a chunk means: the usage, the text, the extra chunk that the caller did
not ask for, and how to end the connection below, which two of the four cannot do themselves.
Decides nothing about a record.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from .bill import unstamped
from .internals import HIDDEN
from .members import member, text
from .outcome import from_response, from_stream, hear, is_background
from .usage import cached_elsewhere

if TYPE_CHECKING:
    from .wire import Wire

__all__ = [
    "ChatReader",
    "LookReader",
    "PiecesReader",
    "ResponsesReader",
    "StreamReader",
    "TextReader",
    "written",
]


class StreamReader:
    """What was seen of one stream; by itself, of a call that has none: nothing.

    Args:
        inner: LiteLLM's iterator.
    """

    asks_usage = False
    """Whether the provider has to be asked for the usage of a stream."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def listen(self, provider: str | None) -> None:
        """Hear what a provider says and LiteLLM drops; ``provider`` as the caller named it."""

    def see(self, chunk: Any) -> None:
        """Note a chunk on its way to the caller."""

    def fresh(self, chunk: Any) -> str:  # noqa: ARG002 - the signature is that of all readers
        """What the chunk that was seen last has added to the text."""
        return ""

    def is_extra(self, chunk: Any) -> bool:  # noqa: ARG002 - the signature is that of all readers
        """Whether a chunk exists only to carry the usage."""
        return False

    def fields(self, *, finished: bool) -> dict[str, Any]:  # noqa: ARG002 - the signature is that of all readers
        """What the stream itself says of its outcome, as ``_litellm.outcome.from_stream`` gives it.

        A ``status`` among it is that of a stream that failed without raising.
        """
        return {"usage_source": "none"}

    def answer(self) -> Any:
        """An object that LiteLLM can price, or ``None``."""
        return None

    @property
    def text(self) -> str | None:
        """All that the model wrote; ``None``: nothing came back at all."""
        return None

    @property
    def runs_on(self) -> bool:
        """Whether the provider finishes, and bills, the answer although its stream was left."""
        return False

    @property
    def provider(self) -> str | None:
        """LiteLLM's name of the provider."""
        return text(member(self.inner, "custom_llm_provider"))

    async def aclose(self) -> None:
        """Close the provider's connection."""
        await _aclose(self.inner)


_WIRED: Final = frozenset({"cohere", "cohere_chat", "groq", "moonshot"})
"""Providers whose usage of a stream LiteLLM drops."""


class ChatReader(StreamReader):
    """``CustomStreamWrapper``, which keeps the provider's chunks in ``chunks``."""

    asks_usage = True

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.final: Any = None  # LiteLLM's extra chunk: usage, and the price
        self._wire: Wire | None = None

    def listen(self, provider: str | None) -> None:
        # LiteLLM's wrapper calls Moonshot, and others, OpenAI.
        if not _WIRED.isdisjoint((provider, self.provider)):
            from .wire import wire_of_stream

            self._wire = wire_of_stream(self.inner)

    @property
    def chunks(self) -> list[Any]:
        """The provider's chunks so far, as LiteLLM keeps them."""
        return list(getattr(self.inner, "chunks", None) or ())

    def see(self, chunk: Any) -> None:
        if self.is_extra(chunk):
            self.final = chunk

    def fresh(self, chunk: Any) -> str:
        return written((chunk,))

    def is_extra(self, chunk: Any) -> bool:
        return getattr(chunk, "usage", None) is not None

    def fields(self, *, finished: bool) -> dict[str, Any]:
        fields = from_stream(self.chunks, finished=finished, final=self.final)
        wire = self._wire
        said = None if wire is None else wire.usage
        if wire is not None and (wire.billed is not said or fields["usage_source"] != "provider"):
            hear(fields, said)
        return fields

    def answer(self) -> Any:
        if self._wire is not None and self._wire.usage is not None:
            return {"usage": self._wire.billed}
        for chunk in reversed(self.chunks):
            usage = member(chunk, "usage")
            if usage is not None:  # LiteLLM's own has lost what it does not know
                return chunk if cached_elsewhere(usage) else self.final
        return self.final

    @property
    def text(self) -> str | None:
        chunks = self.chunks
        return written(chunks) if chunks else None


def written(chunks: Iterable[Any]) -> str:
    """All that the model wrote: text, reasoning, names and arguments of tool calls."""
    said: list[Any] = []
    for chunk in chunks:
        for choice in member(chunk, "choices") or ():
            delta = member(choice, "delta")
            said += [member(delta, "reasoning_content"), member(delta, "content")]
            said.append(member(choice, "text"))
            calls = [member(call, "function") for call in member(delta, "tool_calls") or ()]
            for call in (*calls, member(delta, "function_call")):
                said += [member(call, "name"), member(call, "arguments")]
    return "".join(part for part in said if isinstance(part, str))


class TextReader(ChatReader):
    """``TextCompletionStreamWrapper``: a stream of chat behind it, and no way to close it.

    For some providers generators lie between the two, which keep the stream of chat in their
    frames: it is looked up there, for the provider's own usage, and to close its connection.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._behind: Any = None

    def see(self, chunk: Any) -> None:
        super().see(chunk)
        self._find()  # before a generator ends, and its frame with it

    def _find(self) -> Any:
        if self._behind is None:
            self._behind = _with_chunks(getattr(self.inner, "completion_stream", None), depth=4)
        return self._behind

    @property
    def chunks(self) -> list[Any]:
        return list(getattr(self._find(), "chunks", None) or ())

    async def aclose(self) -> None:
        await _aclose(self._find(), getattr(self.inner, "completion_stream", None))


def _with_chunks(stream: Any, depth: int) -> Any:
    """The stream that keeps its chunks: this one, or one that this generator reads."""
    if isinstance(getattr(stream, "chunks", None), list):
        return stream
    frame = stream.ag_frame if inspect.isasyncgen(stream) else None
    if frame is None or not depth:
        return None
    for value in list(frame.f_locals.values()):
        found = _with_chunks(value, depth - 1)
        if found is not None:
            return found
    return None


class PiecesReader(StreamReader):
    """A stream whose text is put together from pieces."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._text: list[str] = []
        self._told = 0

    def fresh(self, chunk: Any) -> str:  # noqa: ARG002 - the signature is that of all readers
        pieces, self._told = self._text[self._told :], len(self._text)
        return "".join(pieces)


class ResponsesReader(PiecesReader):
    """The events of a response.  The last one carries the response, its usage and LiteLLM's price.

    LiteLLM's iterator cannot be closed; the answer of the provider behind it can.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._begun: Any = None
        self._last: Any = None
        self._kind = ""

    def see(self, chunk: Any) -> None:
        kind = member(chunk, "type")
        kind = str(getattr(kind, "value", kind))
        if kind.endswith(".delta"):
            delta = member(chunk, "delta")
            if isinstance(delta, str):
                self._text.append(delta)
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self._kind, self._last = kind, member(chunk, "response")
        elif kind == "response.created":
            self._begun = member(chunk, "response")

    def fields(self, *, finished: bool) -> dict[str, Any]:  # noqa: ARG002 - the signature is that of all readers
        fields = from_response(unstamped(self._last) if self._last is not None else self._begun)
        if self.provider:
            fields["provider"] = self.provider
        if self._last is None:
            fields["usage_source"] = "none"  # the placeholder of a response that only began
        elif "cost" not in fields:
            fields |= _stamped(self._last)
        if self._kind == "response.failed":
            fields |= {"status": "error", "error": "ResponseFailed"}
        return fields

    def answer(self) -> Any:
        return self._last

    @property
    def text(self) -> str | None:
        return "".join(self._text) if self._begun is not None or self._text else None

    @property
    def runs_on(self) -> bool:
        return self._last is None and is_background(self._begun)

    async def aclose(self) -> None:
        await _aclose(
            self.inner,
            getattr(self.inner, "stream_iterator", None),
            getattr(self.inner, "response", None),
            getattr(self.inner, "litellm_custom_stream_wrapper", None),
        )


def _stamped(response: Any) -> dict[str, Any]:
    """The price that LiteLLM leaves on the usage of the last event, if it is above 0."""
    usage = member(response, "usage")
    hidden = {"response_cost": member(usage, "cost")}
    bare = unstamped({"usage": usage})["usage"]
    found = from_response({"usage": bare, HIDDEN: hidden})
    return {name: found[name] for name in ("cost", "cost_source") if name in found}


class LookReader(ResponsesReader):
    """The events of a response that another call made, and is billed for."""

    def fields(self, *, finished: bool) -> dict[str, Any]:
        fields = super().fields(finished=finished)
        looked = {name: fields[name] for name in ("response_id", "provider") if name in fields}
        return looked | {"usage_source": "none", "cost": Decimal(0), "cost_source": "unbilled"}

    def answer(self) -> Any:
        return None

    @property
    def runs_on(self) -> bool:
        return True


async def _aclose(*sources: Any) -> None:
    """Close all of them that can be closed."""
    failure: Exception | None = None
    for source in sources:
        aclose = getattr(source, "aclose", None)
        if callable(aclose) and not isinstance(source, Mapping):
            try:
                await aclose()
            except Exception as exc:
                failure = exc
    if failure is not None:
        raise failure
