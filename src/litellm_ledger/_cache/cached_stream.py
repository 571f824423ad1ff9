"""Streams in the response cache: kept when they were read, replayed as if they came anew.

Owns the form in which chunks are kept, and what stands in for LiteLLM's wrapper where no request
was made.  Everything else about streams is ``_calls.stream``'s.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from litellm_ledger._calls.attempt import Attempt
from litellm_ledger._calls.core import ClientCore
from litellm_ledger._calls.stream import Upstream
from litellm_ledger._litellm.calls import Asked
from litellm_ledger._litellm.stream_readers import StreamReader
from litellm_ledger._records.record import UsageRecord

from .entry import Entry
from .packing import Unpackable, pack, refusing, unpack

__all__ = ["Replay", "StreamKeeper", "chunks_from"]

_EXPANSION: Final = 16
"""How much larger than ``max_bytes`` the chunks may be before they are compressed.

LiteLLM puts the provider's headers on every chunk, so that they shrink to a tenth and less.
"""

_TURN: Final = 16
"""Chunks that are replayed before other tasks have their turn."""


class StreamKeeper:
    """Keeps one stream: each chunk is packed before the caller has it and may change it.

    Args:
        most: bytes that may be kept.
        keep: awaited with the record and the chunks when the stream was read to its end.
    """

    def __init__(self, most: int, keep: Callable[[UsageRecord, bytes], Awaitable[Any]]) -> None:
        self._most = most
        self._keep = keep
        self._raw = 0
        self._body: bytearray | None = bytearray()  # None: it cannot be kept
        self._squeeze = zlib.compressobj(1)

    def see(self, chunk: Any) -> None:
        """Take a chunk; give up if it cannot be packed, or there are too many."""
        if self._body is None:
            return
        try:
            packed = pack(chunk)
        except Unpackable:
            self._body = None
            return
        self._raw += len(packed) + 4
        self._body += self._squeeze.compress(struct.pack("<I", len(packed)) + packed)
        if len(self._body) > self._most or self._raw > _EXPANSION * self._most:
            self._body = None

    async def finished(self, record: UsageRecord | None) -> None:
        """Keep what was read, before its reader hears that it has ended."""
        if self._body and record is not None and record.status == "ok":
            await self._keep(record, bytes(self._body + self._squeeze.flush()))


def chunks_from(body: bytes) -> list[Any]:
    """Return fresh chunks, or raise ``Unpackable``."""
    chunks, at = [], 0
    with refusing("no chunks"):
        raw = zlib.decompress(body)
        while at < len(raw):
            (size,) = struct.unpack_from("<I", raw, at)
            at += 4 + size
            if at > len(raw):
                raise Unpackable("a chunk without its end")
            chunks.append(unpack(raw[at - size : at]))
    return chunks


class Replay(Upstream):
    """What a ``CompletionStream`` of an entry reads: its outcome was known before."""

    __slots__ = ("_outcome",)

    def __init__(
        self, core: ClientCore, asked: Asked, attempt: Attempt, entry: Entry, chunks: list[Any]
    ) -> None:
        inner = _Replayed(chunks, entry)
        reader = (asked.call.reader or StreamReader)(inner)
        # The chunk with the usage that its caller did not ask for was not kept.
        super().__init__(inner, attempt, core, asked=asked, reader=reader, usage_asked=True)
        self._outcome = entry.outcome("stored")

    def read(self, *, finished: bool) -> dict[str, Any]:  # noqa: ARG002 - the signature is that of Upstream
        return dict(self._outcome)

    def _is_to_be_estimated(self, found: Mapping[str, Any]) -> bool:  # noqa: ARG002 - the signature is that of Upstream
        return False


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
