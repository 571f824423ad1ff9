"""Streams that a budget pays for, cancelled and left in every await: exactly one outcome each.

What nobody knows the cost of counts with its hold.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.fakes import FakeLiteLLM, Gate, Stream, install
from tests.runs import assert_closed, assert_once, kinds, until

from litellm_ledger import Budget, BudgetExceeded, Ledger, LiteLLMClient, ModelPrice, UsageRecord
from litellm_ledger._budgets import gate as _gate
from litellm_ledger._calls import paid_stream
from litellm_ledger._records.money import whole

pytestmark = pytest.mark.asyncio

CALL: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
PRICES = {"m": ModelPrice(input="0", output="1", per=1_000)}
CHUNKS = 400
LEFT_AT = 3


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLiteLLM:
    monkeypatch.setattr(paid_stream, "counter", lambda _provider: len)
    return install(monkeypatch)


@pytest_asyncio.fixture
async def client(tmp_path: Path, fake: FakeLiteLLM) -> AsyncIterator[LiteLLMClient]:
    budget = Budget("0.350", window="total", mode="adaptive")
    async with LiteLLMClient(
        tmp_path, handle_signals=False, budgets=[budget], prices=PRICES
    ) as client:
        yield client
        await until(lambda: not client._core._streams)
        assert not pumps()
    assert_once(tmp_path)
    assert_closed(tmp_path)
    settled = [(r.operation, r.attempt) for r in Ledger(tmp_path).records() if r.operation]
    assert len(settled) == len(set(settled)), "a call with two outcomes"


def pumps() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().endswith("stream-pump")]


def outcome(path: Path) -> UsageRecord:
    (record,) = Ledger(path).records()
    return record


async def read(stream: Any) -> int:
    count = 0
    async for _ in stream:
        count += 1
    return count


async def opened(client: LiteLLMClient, fake: FakeLiteLLM, stream: Stream) -> Any:
    fake.result = lambda: stream
    return await client.acompletion(**CALL)


@pytest.mark.parametrize("way", ["cancel", "aclose", "drop"])
@pytest.mark.parametrize("at", [0, 1, 5])
async def test_left_while_the_pump_waits_for_the_provider(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path, way: str, at: int
) -> None:
    inner = Stream(CHUNKS, gate=Gate(), gate_at=at)
    stream = await opened(client, fake, inner)
    reader = asyncio.create_task(read(stream))
    assert inner.gate is not None
    await inner.gate.entered.wait()
    if way == "drop":
        reader.cancel()
        await asyncio.wait({reader})
        del stream, reader
        gc.collect()
    elif way == "aclose":
        await stream.aclose()
        await asyncio.wait({reader})
    else:
        reader.cancel()
        await asyncio.wait({reader})
    await until(lambda: not client._core._streams)
    assert inner.closed
    await client.flush()
    record = outcome(tmp_path)
    assert record.status == ("abandoned" if way == "aclose" else "cancelled")
    assert record.hold_picousd == 256 * 10**9


@pytest.mark.parametrize("where", ["add", "count", "close"])
async def test_left_while_the_pump_waits_for_money_a_tokenizer_or_the_end_of_the_connection(
    client: LiteLLMClient,
    fake: FakeLiteLLM,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    hangs, inner = Gate(), Stream(CHUNKS)
    stream = await opened(client, fake, inner)
    real = _gate.Gate.add

    async def add(*args: Any) -> None:
        if where == "add":
            await hangs.stop()
        await real(*args)

    async def off_loop(*_args: Any) -> Any:
        await hangs.stop()

    if where == "close":
        inner.close_gate = hangs
    with monkeypatch.context() as patch:
        patch.setattr(_gate.Gate, "top_up", lambda *_: False)
        patch.setattr(_gate.Gate, "add", add)
        if where == "count":
            patch.setattr(client._core, "off_loop", off_loop)
        reader = asyncio.create_task(read(stream))
        await hangs.entered.wait()
    inner.close_gate = None
    reader.cancel()
    await asyncio.wait({reader})
    await until(lambda: not client._core._streams)
    await client.flush()
    record = outcome(tmp_path)
    assert record.status == "cancelled"
    assert record.hold_picousd is not None


async def test_a_cut_is_recorded_once_whatever_its_reader_does_then(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path
) -> None:
    inner = Stream(CHUNKS)
    stream = await opened(client, fake, inner)
    with pytest.raises(BudgetExceeded):
        await read(stream)
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    record = outcome(tmp_path)
    assert (record.status, record.error) == ("error", "BudgetExceeded")
    assert record.hold_picousd is not None
    assert 300 * 10**9 < record.hold_picousd <= 350 * 10**9
    assert len(inner.chunks) <= 350


async def test_a_cut_that_its_reader_never_reaches_counts_with_its_hold(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path
) -> None:
    inner = Stream(CHUNKS)
    stream = await opened(client, fake, inner)
    await anext(stream)
    await until(lambda: inner.closed > 0)
    await stream.aclose()
    record = outcome(tmp_path)
    assert record.status == "abandoned"
    assert record.hold_picousd is not None
    assert record.hold_picousd > 300 * 10**9


async def test_at_the_end_of_the_interpreter_it_counts_with_its_hold(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path
) -> None:
    inner = Stream(CHUNKS, gate=Gate(), gate_at=LEFT_AT)
    stream = await opened(client, fake, inner)
    await anext(stream)
    upstream = stream._upstream
    upstream.settle_now()
    (pump,) = pumps()
    pump.cancel()
    await asyncio.wait({pump})
    await client.flush()
    assert kinds(tmp_path) == ["started", "abandoned"]
    assert outcome(tmp_path).hold_picousd == 256 * 10**9
    upstream.ended = True
    client._core.ended(upstream)


async def test_closing_the_client_leaves_an_open_stream_to_its_reader(
    fake: FakeLiteLLM, tmp_path: Path
) -> None:
    budget = Budget("100", window="total", mode="adaptive")
    client = LiteLLMClient(tmp_path, handle_signals=False, budgets=[budget], prices=PRICES)
    stream = await opened(client, fake, Stream(CHUNKS))
    await anext(stream)
    await client.aclose()
    assert await read(stream) == CHUNKS - 1
    record = outcome(tmp_path)
    assert record.status == "ok"
    assert (record.hold_picousd, whole(record.cost or 0)) == (None, 50 * 10**9)


async def test_the_end_of_the_loop_cancels_the_pump_and_the_stream_is_settled(
    fake: FakeLiteLLM, tmp_path: Path
) -> None:
    inner = Stream(CHUNKS, gate=Gate(), gate_at=LEFT_AT)

    async def main() -> None:
        budget = Budget("100", window="total", mode="adaptive")
        client = LiteLLMClient(tmp_path, handle_signals=False, budgets=[budget], prices=PRICES)
        stream = await opened(client, fake, inner)
        await anext(stream)
        asyncio.create_task(read(stream))  # noqa: RUF006 - nobody waits for it
        assert inner.gate is not None
        await inner.gate.entered.wait()
        await asyncio.sleep(0)

    await asyncio.to_thread(asyncio.run, main())
    gc.collect()
    assert outcome(tmp_path).status == "cancelled"
    assert outcome(tmp_path).hold_picousd == 256 * 10**9
