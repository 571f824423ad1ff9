"""The pump of a paid stream: reads ahead, pays, cuts; with a source that hangs at every await."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.runs import until

from litellm_ledger._budgets.bound import Bound
from litellm_ledger._budgets.meter import Meter
from litellm_ledger._calls import paid_stream
from litellm_ledger._calls.paid_stream import Pump

pytestmark = pytest.mark.asyncio

BOUND = Bound(0, 0, given=0, made=10_000, made_price=10**6)


class NoRoom(Exception):
    """As ``BudgetExceeded``."""


class Source:
    """A provider: as many chunks as it is let to send."""

    def __init__(self, count: int, *, error: Exception | None = None) -> None:
        self.count = count
        self.error = error
        self.sent = 0
        self.closed = 0
        self.hang_at: int | None = None
        self.hanging = asyncio.Event()

    async def read(self) -> Any:
        if self.sent == self.hang_at:
            self.hanging.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        if self.sent >= self.count:
            raise self.error or StopAsyncIteration
        self.sent += 1
        return f"{self.sent}"

    async def close(self) -> None:
        self.closed += 1


class Purse:
    """Tokens that may still be held."""

    def __init__(self, tokens: int, *, busy: bool = False) -> None:
        self.left = tokens
        self.busy = busy
        self.hanging: asyncio.Event | None = None

    def top_up(self, usd: int, tokens: int) -> bool:
        assert usd == tokens
        if self.busy or tokens > self.left:
            return False
        self.left -= tokens
        return True

    async def add(self, usd: int, tokens: int) -> None:
        if self.hanging is not None:
            self.hanging.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        self.busy = False
        if not self.top_up(usd, tokens):
            raise NoRoom


async def count_one() -> Callable[[str], int]:
    return lambda text: 1 if text else 0


def pump_of(source: Source, purse: Purse, made: int = 16, *, limited: bool = True) -> Pump:
    meter = Meter(BOUND, 0, made, limited=limited)
    return Pump(source.read, str, source.close, meter, purse, count_one)


async def read_all_on(pump: Pump) -> None:
    while True:
        await pump.read_on()


async def read_all(pump: Pump) -> tuple[int, BaseException]:
    count = 0
    while True:
        try:
            await pump.next()
        except Exception as exc:
            return count, exc
        count += 1


async def test_all_of_a_stream_that_is_paid_for_is_read_in_order() -> None:
    source = Source(1_000)
    pump = pump_of(source, Purse(10_000))
    chunks = [await pump.next() for _ in range(1_000)]
    assert chunks == [f"{number}" for number in range(1, 1_001)]
    with pytest.raises(StopAsyncIteration):
        await pump.next()
    with pytest.raises(StopAsyncIteration):  # and again
        await pump.next()


async def test_the_reader_gets_each_chunk_that_was_paid_for_and_then_the_refusal() -> None:
    source = Source(10_000)
    count, end = await read_all(pump_of(source, Purse(100)))
    assert isinstance(end, NoRoom)
    assert count == 95  # 116 held: 16 for what is on its way, 5 for what pieces may lack
    assert source.sent == 96
    assert source.closed == 1


async def test_a_slow_reader_does_not_hold_the_cut_up() -> None:
    source = Source(10_000)
    pump = pump_of(source, Purse(100))
    assert await pump.next() == "1"
    await until(lambda: source.closed == 1)
    assert source.sent == 96
    assert (await read_all(pump))[0] == 94


async def test_money_that_cannot_be_had_at_once_is_waited_for() -> None:
    source = Source(300)
    count, end = await read_all(pump_of(source, Purse(10_000, busy=True)))
    assert count == 300
    assert isinstance(end, StopAsyncIteration)


async def test_an_error_of_the_provider_comes_after_what_it_sent() -> None:
    source = Source(5, error=ValueError("broken"))
    count, end = await read_all(pump_of(source, Purse(10_000)))
    assert count == 5
    assert str(end) == "broken"


async def test_a_full_buffer_waits_only_when_all_that_may_come_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paid_stream, "_MOST", 8)
    source, purse = Source(1_000), Purse(20_000)
    pump = pump_of(source, purse)
    await pump.next()
    await until(lambda: purse.left == 20_000 - BOUND.made + 16)
    assert source.sent <= 9
    assert (await read_all(pump))[0] == 999


async def test_a_full_buffer_that_cannot_be_held_for_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paid_stream, "_MOST", 8)
    source = Source(1_000)
    pump = pump_of(source, Purse(500))
    await pump.next()
    await until(lambda: source.closed == 1)
    count, end = await read_all(pump)
    assert (count, type(end)) == (8, NoRoom) or (count, type(end)) == (7, NoRoom)


async def test_a_reader_that_is_cancelled_leaves_the_pump_to_the_next() -> None:
    source = Source(10)
    source.hang_at = 0
    pump = pump_of(source, Purse(1_000))
    reader = asyncio.create_task(pump.next())
    await source.hanging.wait()
    reader.cancel()
    await asyncio.wait({reader})
    assert reader.cancelled()
    await pump.stop()


@pytest.mark.parametrize("where", ["read", "add"])
async def test_stopped_wherever_it_waits_it_ends(where: str) -> None:
    source, purse = Source(10), Purse(1_000, busy=True)
    if where == "read":
        source.hang_at = 2
        purse.busy = False
    else:
        purse.hanging = asyncio.Event()
    pump = pump_of(source, purse, made=0)
    reader = asyncio.create_task(read_all(pump))
    await (source.hanging if where == "read" else purse.hanging or source.hanging).wait()
    await pump.stop()
    await asyncio.wait({reader})
    assert reader.done()


async def test_what_is_read_on_is_paid_for_too() -> None:
    source = Source(1_000)
    pump = pump_of(source, Purse(50))
    await pump.next()
    await pump.stop()
    with pytest.raises(NoRoom):
        await read_all_on(pump)
    assert source.closed == 1


class OnDemand(Pump):
    """Does not read ahead."""

    async def next(self) -> Any:
        return await self.read_on()


async def test_control_without_reading_ahead_a_slow_reader_is_not_noticed() -> None:
    source = Source(10_000)
    meter = Meter(BOUND, 0, 16, limited=True)
    pump = OnDemand(source.read, str, source.close, meter, Purse(100), count_one)
    await pump.next()
    for _ in range(1_000):
        await asyncio.sleep(0)
    assert not source.closed


async def test_a_source_that_never_waits_lets_others_run() -> None:
    source, turns = Source(100_000), 0

    async def read() -> Any:
        source.sent += 1
        return "x"

    pump = Pump(read, str, source.close, Meter(BOUND, 0, 16, limited=True), Purse(3_000), count_one)
    reader = asyncio.create_task(read_all(pump))
    while not source.closed:
        turns += 1
        await asyncio.sleep(0)
    await reader
    assert turns > 10


async def test_two_readers_get_every_chunk_once() -> None:
    source = Source(100)
    pump = pump_of(source, Purse(10_000))
    counts = await asyncio.gather(read_all(pump), read_all(pump))
    assert sum(count for count, _ in counts) == 100
