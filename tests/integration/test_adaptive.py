"""Budgets in adaptive and soft mode: what is usual is held, streams are paid for while they are
read and cut, calls that were left are settled at their hold.

The server's own log says what it sent, and whether its connection was closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.runs import until

from litellm_ledger import Budget, BudgetExceeded, Ledger, LiteLLMClient, ModelPrice, UsageRecord
from litellm_ledger._budgets.usual import ENOUGH, Usual
from litellm_ledger._records.money import whole
from litellm_ledger.testing import Behaviour, OpenAIServer, ServedRequest

pytestmark = pytest.mark.asyncio

PRICES = {"openai/gpt-4o-mini": ModelPrice(input="0", output="1", per=1_000)}
"""A tenth of a cent for a token of output."""
ASKED: dict[str, Any] = {
    "model": "openai/gpt-4o-mini",
    "messages": [{"role": "user", "content": "a question"}],
    "api_key": "any",
    "max_retries": 0,
}
STEADY = Behaviour(chunks=500, chunk_delay=0.01)
PAID = 300
"""Tokens that the budget below pays for."""
LATE = 150
"""Tokens that the server may have sent beyond: a machine that is busy notices late."""


@pytest.fixture(autouse=True)
def cleared(server: OpenAIServer) -> None:
    server.clear()


def client(path: Path, *budgets: Budget, **options: Any) -> LiteLLMClient:
    options.setdefault("prices", PRICES)
    return LiteLLMClient(path, budgets=list(budgets), **options)


def adaptive(tokens: int = PAID) -> Budget:
    return Budget(str(Decimal(tokens) / 1_000), window="total", mode="adaptive")


async def opened(
    client: LiteLLMClient, server: OpenAIServer, how: Behaviour = STEADY, **more: Any
) -> Any:
    asked = {**ASKED, "api_base": server.base_url, "extra_headers": how.headers(), **more}
    return await client.acompletion(**asked, stream=True)


async def sent(server: OpenAIServer) -> ServedRequest:
    """The only request, when it has ended."""
    (request,) = await asyncio.to_thread(
        server.wait_for, lambda served: served and served[-1].ended is not None, 20.0
    )
    return request


def outcomes(path: Path) -> list[UsageRecord]:
    return list(Ledger(path).records())


async def read_all(stream: AsyncIterator[Any]) -> tuple[int, BaseException | None]:
    count = 0
    try:
        async for chunk in stream:
            count += bool(chunk.choices and chunk.choices[0].delta.content)
    except BudgetExceeded as exc:
        return count, exc
    return count, None


async def test_a_stream_is_cut_where_the_money_ends_and_the_reader_hears_of_it(
    server: OpenAIServer, tmp_path: Path
) -> None:
    async with client(tmp_path, adaptive()) as ours:
        count, exc = await read_all(await opened(ours, server))
        request = await sent(server)
    assert isinstance(exc, BudgetExceeded)
    assert exc.limit == Decimal("0.3")
    assert 20 <= count <= PAID
    assert request.disconnected
    assert request.chunks <= PAID + LATE
    (record,) = outcomes(tmp_path)
    assert exc.usage_record == record  # type: ignore[attr-defined]
    assert (record.status, record.error) == ("error", "BudgetExceeded")
    assert record.hold_picousd is not None
    assert record.cost is not None
    assert whole(record.cost) < record.hold_picousd <= PAID * 10**9  # never more than the limit
    # Settled at what was held, so that what the server had sent is covered.
    async with client(tmp_path, adaptive()) as ours:
        with pytest.raises(BudgetExceeded) as refused:
            await opened(ours, server, max_tokens=PAID)
    settled = refused.value.settled
    assert isinstance(settled, Decimal)
    assert whole(settled) == record.hold_picousd


async def test_a_slow_reader_does_not_let_the_provider_run_on(
    server: OpenAIServer, tmp_path: Path
) -> None:
    async with client(tmp_path, adaptive()) as ours:
        stream = await opened(ours, server)
        assert (await anext(stream)).choices
        request = await sent(server)  # while nobody reads
        assert request.disconnected
        assert request.chunks <= PAID + LATE
        count, exc = await read_all(stream)
        assert isinstance(exc, BudgetExceeded)
        assert 20 <= count <= PAID


async def test_what_there_is_room_for_is_read_to_its_end_and_settled_at_its_cost(
    server: OpenAIServer, tmp_path: Path
) -> None:
    async with client(tmp_path, adaptive(5_000)) as ours:
        how = Behaviour(chunks=400)
        count, exc = await read_all(await opened(ours, server, how, max_tokens=1_000))
    assert (count, exc) == (400, None)
    (record,) = outcomes(tmp_path)
    assert (record.status, record.hold_picousd) == ("ok", None)
    assert record.cost == Decimal("0.4")


@pytest.mark.parametrize("call", ["aresponses", "anthropic_messages"])
async def test_streams_of_other_calls_are_cut_too(
    server: OpenAIServer, tmp_path: Path, call: str
) -> None:
    model = (
        "anthropic/claude-3-haiku-20240307"
        if call == "anthropic_messages"
        else "openai/gpt-4o-mini"
    )
    prices = {model: ModelPrice(input="0", output="1", per=1_000)}
    base = server.base_url
    asked: dict[str, Any] = {"api_base": base, "api_key": "any", "model": model, "stream": True}
    if call == "aresponses":
        asked["input"] = "a question"
    else:
        asked |= {"messages": ASKED["messages"], "max_tokens": 4_000}
        asked["api_base"] = base.removesuffix("/v1")
    async with client(tmp_path, adaptive(), prices=prices) as ours:
        stream = await getattr(ours, call)(**asked, extra_headers=STEADY.headers())
        with pytest.raises(BudgetExceeded):
            async for _ in stream:
                pass
        request = await sent(server)
    assert request.disconnected
    assert request.chunks <= PAID + LATE
    assert outcomes(tmp_path)[-1].error == "BudgetExceeded"


# -- what is held ----------------------------------------------------------------------------------


async def test_after_enough_calls_what_is_usual_is_held_and_before_that_the_most(
    server: OpenAIServer, tmp_path: Path
) -> None:
    async with client(tmp_path, adaptive(10**6)) as ours:
        for _ in range(ENOUGH + 1):
            await ours.acompletion(**ASKED, api_base=server.base_url, max_tokens=5_000)
    started = list(Ledger(tmp_path).records(kinds=("started",)))
    held = [record.hold_picousd for record in started]
    assert held[:ENOUGH] == [5_000 * 10**9] * ENOUGH
    assert held[ENOUGH] == 5 * 10**9  # the server's answers have 5 tokens


async def test_the_strictest_budget_that_applies_decides(
    server: OpenAIServer, tmp_path: Path
) -> None:
    strict = Budget("100", window="total", where={"who": "a"}, name="strict")
    async with client(tmp_path, strict, adaptive(10**6)) as ours:
        for _ in range(ENOUGH):
            await ours.acompletion(**ASKED, api_base=server.base_url, max_tokens=5_000)
        for who in ("a", "b"):
            await ours.acompletion(
                **ASKED, api_base=server.base_url, max_tokens=5_000, tags={"who": who}
            )
    started = list(Ledger(tmp_path).records(kinds=("started",)))[-2:]
    held = {record.tags["who"]: record.hold_picousd for record in started}
    assert held == {"a": 5_000 * 10**9, "b": 5 * 10**9}


async def test_soft_holds_an_estimate_and_refuses_nothing(
    server: OpenAIServer, tmp_path: Path
) -> None:
    async with client(tmp_path, Budget("0.001", window="total", mode="soft")) as ours:
        for _ in range(3):
            await ours.acompletion(**ASKED, api_base=server.base_url)
        assert (await read_all(await opened(ours, server, Behaviour(chunks=300))))[0] == 300
    started = list(Ledger(tmp_path).records(kinds=("started",)))
    assert [record.hold_picousd for record in started] == [256 * 10**9] + [5 * 10**9] * 3
    assert sum(record.cost or 0 for record in outcomes(tmp_path)) == Decimal("0.315")


async def test_without_an_adaptive_budget_there_is_no_pump(
    server: OpenAIServer, tmp_path: Path
) -> None:
    async with client(tmp_path, Budget("100", window="total")) as ours:
        stream = await opened(ours, server, Behaviour(chunks=3), max_tokens=10)
        assert stream._upstream.pump is None
        await read_all(stream)


async def test_what_a_call_in_flight_may_cost_beyond_its_hold_is_shown(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {**ASKED, "api_base": server.base_url, "max_tokens": 5_000}
    async with client(tmp_path, adaptive(10)) as ours:
        monkeypatch.setattr(Usual, "hold", lambda *_, **__: (0, 4))
        call = asyncio.create_task(
            ours.acompletion(**asked, extra_headers=Behaviour(hang=True).headers())
        )
        await asyncio.to_thread(server.wait_for, len, 20.0)
        (status,) = await ours.budgets.status()
        assert (status.held, status.free) == (Decimal("0.004"), Decimal("0.006"))
        assert status.worst_overspend == 5 - Decimal("0.010")
        call.cancel()
        await asyncio.wait({call})
    assert outcomes(tmp_path)[0].hold_picousd == 4 * 10**9


async def test_where_the_bytes_do_not_fit_the_tokens_are_counted(
    server: OpenAIServer, tmp_path: Path
) -> None:
    prices = {"openai/gpt-4o-mini": ModelPrice(input="1", output="0", per=1_000)}
    text = "The quick brown fox jumps over the lazy dog. " * 100  # 4,500 bytes, 1,001 tokens
    asked = {**ASKED, "api_base": server.base_url, "max_tokens": 10}
    asked["messages"] = [{"role": "user", "content": text}]
    async with client(tmp_path, Budget("3", window="total"), prices=prices) as ours:
        await ours.acompletion(**asked)
        asked["messages"] = [{"role": "user", "content": text * 2}]
        with pytest.raises(BudgetExceeded) as refused:  # 900 words of it are settled
            await ours.acompletion(**asked)
    (started,) = Ledger(tmp_path).records(kinds=("started",))
    assert started.hold_picousd is not None
    assert 1_001 * 10**9 < started.hold_picousd < 1_500 * 10**9
    assert 2 < refused.value.needed < Decimal("2.6")


# -- the ways to leave -----------------------------------------------------------------------------


async def by_aclose(stream: Any) -> None:
    await anext(stream)
    await stream.aclose()
    await stream.aclose()


async def by_dropping(stream: Any) -> None:
    await anext(stream)
    del stream
    gc.collect()


async def by_cancellation(stream: Any) -> None:
    reader = asyncio.create_task(read_all(stream))
    await asyncio.sleep(0.05)
    reader.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reader


async def by_not_reading(stream: Any) -> None:
    await stream.aclose()


@pytest.mark.parametrize("way", [by_aclose, by_dropping, by_cancellation, by_not_reading])
@pytest.mark.parametrize("how", ["close", "drain"])
async def test_left_in_any_way_it_is_recorded_once_and_settled_at_its_hold(
    server: OpenAIServer, tmp_path: Path, way: Callable[[Any], Any], how: Any
) -> None:
    async with client(tmp_path, adaptive(4_000), on_abandoned_stream=how) as ours:
        stream = await opened(ours, server, Behaviour(chunks=60, chunk_delay=0.005))
        if way is by_dropping:
            (stream,) = [stream]
        work = way(stream)
        del stream
        await work
        del work
        gc.collect()
        await until(lambda: not ours._core._streams)
        assert not [t for t in asyncio.all_tasks() if t.get_name() == "litellm-ledger-stream-pump"]
    (record,) = outcomes(tmp_path)
    assert record.status in ("abandoned", "cancelled")
    if record.usage_source == "provider":
        assert (record.cost, record.hold_picousd) == (Decimal("0.06"), None)
    else:
        assert how == "close" or way is by_not_reading
        assert record.hold_picousd is not None
        assert record.hold_picousd >= whole(record.cost or Decimal(0))
    async with client(tmp_path, adaptive(60)) as ours:
        with pytest.raises(BudgetExceeded) as refused:
            await opened(ours, server, max_tokens=1_000)
    settled = refused.value.settled
    assert isinstance(settled, Decimal)
    assert whole(settled) == (record.hold_picousd or 60 * 10**9)
