"""The memory of a response cache against a plain list, over any sequence of what is done to it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from litellm_ledger import MissingExtra, ResponseCache, UsageRecord
from litellm_ledger._cache.cached_stream import StreamKeeper, chunks_from
from litellm_ledger._cache.store import MemoryStore

keys = st.sampled_from("abcdefgh")


class Memory(RuleBasedStateMachine):
    """The model is a list of (key, value, end), the least recently used first."""

    moments = Bundle("moments")

    @initialize(maxsize=st.integers(1, 5), max_bytes=st.integers(1, 40))
    def begin(self, maxsize: int, max_bytes: int) -> None:
        self.now = 0.0
        self.maxsize, self.max_bytes = maxsize, max_bytes
        self.store = MemoryStore(maxsize, max_bytes, timer=lambda: self.now)
        self.model: list[tuple[str, bytes, float]] = []
        self.evictions = self.expired = 0

    def live(self) -> list[tuple[str, bytes, float]]:
        return [entry for entry in self.model if entry[2] > self.now]

    def clear(self) -> None:
        live = self.live()
        self.expired += len(self.model) - len(live)
        self.model = live

    @rule(key=keys, size=st.integers(0, 50), ttl=st.integers(1, 9), fill=st.integers(0, 255))
    def put(self, key: str, size: int, ttl: int, fill: int) -> None:
        value = bytes([fill]) * size
        self.store.set(key, value, ttl)
        self.clear()
        self.model = [entry for entry in self.model if entry[0] != key]
        if size > self.max_bytes:
            return
        while self.model and (
            len(self.model) >= self.maxsize
            or sum(len(entry[1]) for entry in self.model) + size > self.max_bytes
        ):
            self.model.pop(0)
            self.evictions += 1
        self.model.append((key, value, self.now + ttl))

    @rule(key=keys)
    def find(self, key: str) -> None:
        found = [entry for entry in self.live() if entry[0] == key]
        assert self.store.get(key) == (found[0][1] if found else None)
        if found:
            self.model.remove(found[0])
            self.model.append(found[0])

    @rule(key=keys)
    def drop(self, key: str) -> None:
        self.store.delete(key)
        self.model = [e for e in self.model if e[0] != key or e[2] <= self.now]

    @rule(seconds=st.integers(0, 5))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        self.store.expire()
        self.clear()
        assert (self.store.expired, self.store.evictions) == (self.expired, self.evictions)

    @rule()
    def look(self) -> None:
        assert self.store.entries == len(self.live())
        assert self.store.size == sum(len(entry[1]) for entry in self.live())
        self.clear()
        assert (self.store.expired, self.store.evictions) == (self.expired, self.evictions)

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "store"):
            held = self.store._entries._Cache__data
            assert len(held) <= self.maxsize
            assert sum(len(value) for value, _ in held.values()) <= self.max_bytes


TestMemory = pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")(
    Memory.TestCase
)
TestMemory.settings = settings(max_examples=150, stateful_step_count=40)


# --- The cache around it -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"ttl": 0}, "ttl must be seconds above 0, not 0"),
        ({"ttl": float("inf")}, "ttl"),
        ({"ttl": float("nan")}, "ttl"),
        ({"ttl": "1"}, "ttl"),
        ({"ttl": True}, "ttl"),
        ({"maxsize": 0}, "maxsize must be a whole number above 0, not 0"),
        ({"maxsize": 1.5}, "maxsize"),
        ({"max_bytes": -1}, "max_bytes"),
        ({"store_timeout": 0}, "store_timeout"),
        ({"namespace": 1}, "namespace must be text, not int"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ResponseCache(**given)


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cachetools", None)
    with pytest.raises(MissingExtra, match=r"litellm-ledger\[cache\]"):
        ResponseCache()


class Slow:
    def __init__(self) -> None:
        self.asked = 0

    async def get(self, key: str) -> bytes | None:
        self.asked += 1
        await asyncio.sleep(30)
        return None

    set = delete = get  # type: ignore[assignment]


@pytest.mark.asyncio
async def test_a_store_that_was_too_slow_is_left_alone_for_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Slow()
    cache = ResponseCache(store=store, store_timeout=0.01)  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING, "litellm_ledger"):
        for _ in range(5):
            assert await cache._answers.find("k") is None
        await cache._answers.keep("k", b"v")
    assert store.asked == 1
    assert (cache.statistics().errors, cache.statistics().stored) == (1, 0)
    assert len(caplog.messages) == 1
    for _ in range(5):
        await asyncio.sleep(0)
    assert not cache._answers._left


@pytest.mark.parametrize(
    ("status", "chunks", "most", "kept"),
    [("ok", 9, 1_000, True), ("error", 9, 1_000, False), ("ok", 0, 1_000, False),
     ("ok", 16, 1_000, False)],
    ids=["read", "failed", "empty", "too long before it is compressed"],
)  # fmt: skip
@pytest.mark.asyncio
async def test_a_stream_is_kept_that_was_read_and_fits(
    status: str, chunks: int, most: int, kept: bool
) -> None:
    seen: list[Any] = []

    async def keep(record: UsageRecord, body: bytes) -> None:
        seen.append(chunks_from(body))

    keeper = StreamKeeper(most, keep)
    for _ in range(chunks):
        keeper.see({"text": "a" * 1_000})
    await keeper.finished(UsageRecord(status=status, call="acompletion", model="m"))
    assert seen == ([[{"text": "a" * 1_000}] * chunks] if kept else [])
