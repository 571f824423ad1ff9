"""A stream out of the response cache: chunks that are replayed as if they came anew.

Owns the form in which chunks are kept, and what stands in for LiteLLM's wrapper and for the client
where no request was made.  Everything else about streams is ``_calls.stream``'s.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

from litellm_ledger._calls.attempt import Attempt
from litellm_ledger._calls.core import ClientCore
from litellm_ledger._calls.stream import Upstream
from litellm_ledger._litellm.calls import Asked
from litellm_ledger._litellm.stream_readers import StreamReader

from .entry import Entry
from .packing import Unpackable, unpack

__all__ = ["Frames", "FreeHost", "KnownReader", "replay"]

_EXPANSION: Final = 16
"""How much larger than ``max_bytes`` the chunks may be before they are compressed.

LiteLLM puts the provider's headers on every chunk, so that they shrink to a tenth and less.
"""

_TURN: Final = 16
"""Chunks that are replayed before other tasks have their turn."""


class Frames:
    """The chunks of one stream as they are kept: packed, framed, compressed as they come.

    Args:
        most: bytes that may be kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._raw = self._size = 0
        self._parts: list[bytes] | None = []
        self._squeeze = zlib.compressobj(1)

    def add(self, packed: bytes) -> bool:
        """Add a chunk; tell whether all of them can still be kept."""
        if self._parts is None:
            return False
        self._raw += len(packed) + 4
        self._put(self._squeeze.compress(struct.pack("<I", len(packed)) + packed))
        return self._parts is not None

    def _put(self, part: bytes) -> None:
        assert self._parts is not None
        self._parts.append(part)
        self._size += len(part)
        if self._size > self._most or self._raw > _EXPANSION * self._most:
            self._parts = None

    def body(self) -> bytes | None:
        """Return all of them, or ``None`` if they cannot be kept."""
        if self._parts:
            self._put(self._squeeze.flush())
        return b"".join(self._parts) if self._parts else None


# --- Replayed --------------------------------------------------------------------------------


def replay(core: ClientCore, asked: Asked, attempt: Attempt, entry: Entry) -> Upstream:
    """Return what a ``CompletionStream`` of an entry reads.

    Raises:
        Unpackable: the entry holds no chunks, or others than were packed.
    """
    inner = _Replayed(list(_chunks(entry.body)), entry)
    reader = (asked.call.reader or StreamReader)(inner)
    return Upstream(
        inner,
        attempt,
        FreeHost(core),
        asked=asked,
        reader=KnownReader(reader, entry.outcome("stored")),
        usage_asked=True,  # the chunk that its caller did not ask for was not kept
    )


def _chunks(body: bytes) -> Iterator[Any]:
    try:
        raw = zlib.decompress(body)
        at = 0
        while at < len(raw):
            (size,) = struct.unpack_from("<I", raw, at)
            at += 4 + size
            if at > len(raw):
                raise Unpackable("a chunk without its end")
            yield unpack(raw[at - size : at])
    except (zlib.error, struct.error) as exc:
        raise Unpackable(str(exc)) from exc


class _Replayed:
    """Stands in for LiteLLM's wrapper.

    Attributes:
        chunks: what was handed out so far.
    """

    def __init__(self, chunks: list[Any], entry: Entry) -> None:
        self._left = iter(chunks)
        self.chunks: list[Any] = []
        self.completion_stream = self
        self.custom_llm_provider = entry.fields.get("provider")
        self.model = entry.fields.get("response_model")
        self._hidden_params = {"cache_hit": True, "response_cost": 0.0}

    def __aiter__(self) -> _Replayed:
        return self

    async def __anext__(self) -> Any:
        if len(self.chunks) % _TURN == _TURN - 1:
            await asyncio.sleep(0)
        for chunk in self._left:
            self.chunks.append(chunk)
            return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._left = iter(())


class KnownReader(StreamReader):
    """A reader of what nobody is charged for: what goes on record was known before."""

    def __init__(self, reader: StreamReader, outcome: dict[str, Any]) -> None:
        super().__init__(reader.inner)
        self._reader = reader
        self._outcome = outcome

    def see(self, chunk: Any) -> None:
        self._reader.see(chunk)

    def fields(self, *, finished: bool) -> dict[str, Any]:  # noqa: ARG002 - the signature is that of Upstream's readers
        fields = {"usage_source": None, **self._outcome}
        fields.pop("status", None)  # how it ends, its reader decides
        return fields

    @property
    def text(self) -> str | None:
        return self._reader.text

    async def aclose(self) -> None:
        await self.inner.aclose()


class FreeHost:
    """The client, as such a stream sees it: nothing is to be estimated or priced."""

    def __init__(self, core: ClientCore) -> None:
        self._core = core

    def complete(self, fields: dict[str, Any], answer: Any, asked: Asked) -> dict[str, Any]:  # noqa: ARG002 - the signature is that of Upstream's readers
        return fields

    async def estimate(self, upstream: Upstream) -> dict[str, Any]:  # noqa: ARG002 - the signature is that of Upstream's readers
        return {}

    def estimate_now(self, upstream: Upstream) -> dict[str, Any]:  # noqa: ARG002 - the signature is that of Upstream's readers
        return {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)
