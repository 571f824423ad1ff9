"""Streams and the response cache: kept while they are read, replayed as if they came anew.

Owns the form in which chunks are kept and the two ends: ``keep_stream`` watches a provider's
stream, ``replay`` stands in for one.  A stream that was not read to its end, or failed, leaves
nothing behind.  Everything else about streams is ``_stream``'s.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

from ._attempt import Attempt
from ._cache import ResponseCache
from ._cache_entry import Entry
from ._calls import Asked
from ._core import ClientCore
from ._packing import Unpackable, pack, unpack
from ._stream import CompletionStream, Upstream
from ._stream_readers import StreamReader

__all__ = ["keep_stream", "replay"]

_EXPANSION: Final = 16
"""How much larger than ``max_bytes`` the chunks may be before they are compressed.

LiteLLM puts the provider's headers on every chunk, so that they shrink to a tenth and less.
"""

_TURN: Final = 16
"""Chunks that are replayed before other tasks have their turn."""


# --- Kept while it is read -------------------------------------------------------------------


def keep_stream(core: ClientCore, cache: ResponseCache, key: str, stream: CompletionStream) -> None:
    """Keep a stream's chunks as they are read; at its end, put them into the cache."""
    upstream = stream._upstream
    keeper = _Keeper(upstream, cache.max_bytes)
    upstream.reader = keeper
    upstream.host = _KeepingHost(core, cache, key, keeper)


class _Keeper(StreamReader):
    """A reader that packs every chunk on its way to the caller, who may change it."""

    def __init__(self, upstream: Upstream, max_bytes: int) -> None:
        super().__init__(upstream.inner)
        self._reader = upstream.reader
        self._all = upstream.usage_asked
        self._max = max_bytes
        self._raw = self._size = 0
        self._parts: list[bytes] | None = []
        self._squeeze = zlib.compressobj(1)

    def see(self, chunk: Any) -> None:
        self._reader.see(chunk)
        if self._parts is None or not (self._all or not self._reader.is_extra(chunk)):
            return
        try:
            packed = pack(chunk)
        except Unpackable:
            self._parts = None
            return
        self._raw += len(packed) + 4
        self._add(self._squeeze.compress(struct.pack("<I", len(packed)) + packed))

    def _add(self, part: bytes) -> None:
        assert self._parts is not None
        self._parts.append(part)
        self._size += len(part)
        if self._size > self._max or self._raw > _EXPANSION * self._max:
            self._parts = None

    def body(self) -> bytes | None:
        """Return all that was seen, or ``None`` if it cannot be kept."""
        if self._parts:
            self._add(self._squeeze.flush())
        return b"".join(self._parts) if self._parts else None

    def is_extra(self, chunk: Any) -> bool:
        return self._reader.is_extra(chunk)

    def fields(self, *, finished: bool) -> dict[str, Any]:
        return self._reader.fields(finished=finished)

    def answer(self) -> Any:
        return self._reader.answer()

    @property
    def text(self) -> str | None:
        return self._reader.text

    @property
    def provider(self) -> str | None:
        return self._reader.provider

    async def aclose(self) -> None:
        await self._reader.aclose()


class _KeepingHost:
    """The client, as a stream sees it that is kept: it hears of the end first."""

    def __init__(self, core: ClientCore, cache: ResponseCache, key: str, keeper: _Keeper) -> None:
        self._core = core
        self._cache = cache
        self._key = key
        self._keeper = keeper

    def ended(self, upstream: Upstream) -> None:
        """Put what was read to the end into the cache."""
        self._core.ended(upstream)
        record = upstream.attempt.record
        if record is None or record.status != "ok":
            return
        body = self._keeper.body()
        if body is None:
            return
        data = Entry.of(self._key, record, body, stream=True).to_bytes()
        if not self._core.caching.keep_now(self._cache, self._key, data):
            self._core.in_background(self._cache.keep(self._key, data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)


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
        _ReplayHost(core),
        asked=asked,
        reader=_ReplayReader(reader, entry.outcome("stored")),
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


class _ReplayReader(StreamReader):
    """What is on record of a replay is known before it begins."""

    def __init__(self, reader: StreamReader, outcome: dict[str, Any]) -> None:
        super().__init__(reader.inner)
        self._reader = reader
        self._outcome = outcome

    def see(self, chunk: Any) -> None:
        self._reader.see(chunk)

    def fields(self, *, finished: bool) -> dict[str, Any]:
        fields = dict(self._outcome)
        del fields["status"]  # how it ends, its reader decides
        return fields

    @property
    def text(self) -> str | None:
        return self._reader.text


class _ReplayHost:
    """The client, as a replay sees it: nothing is to be estimated or priced."""

    def __init__(self, core: ClientCore) -> None:
        self._core = core

    def complete(self, fields: dict[str, Any], answer: Any, asked: Asked) -> dict[str, Any]:
        return fields

    async def estimate(self, upstream: Upstream) -> dict[str, Any]:
        return {}

    def estimate_now(self, upstream: Upstream) -> dict[str, Any]:
        return {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)
