"""Streams that their reader leaves: closed at once and estimated, or read on and known exactly.

The server's own log says whether the connection was closed, and what usage it sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.runs import until

from litellm_ledger import CompletionStream, Ledger, LiteLLMClient, UsageRecord
from litellm_ledger._calls import core as _core
from litellm_ledger._calls.draining import Draining
from litellm_ledger.testing import Behaviour, OpenAIServer, ServedRequest

pytestmark = pytest.mark.asyncio

LEFT_AT = 3
"""Chunks that the reader takes."""
INPUT = 4
"""Words in the question, which is what the server counts."""
MESSAGES = [{"role": "user", "content": "a question of words"}]
HANGS = Behaviour(chunks=12, hang_after=LEFT_AT)
"""Until the server is told to go on."""
ENDLESS = Behaviour(chunks=10_000, chunk_delay=0.02)


@pytest.fixture(autouse=True)
def cleared(server: OpenAIServer) -> None:
    server.clear()


def client(path: Path, how: str, **options: Any) -> LiteLLMClient:
    return LiteLLMClient(path, on_abandoned_stream=how, **options)  # type: ignore[arg-type]


async def opened(client: LiteLLMClient, server: OpenAIServer, how: Behaviour) -> CompletionStream:
    return await client.acompletion(
        "openai/gpt-4o-mini",
        MESSAGES,
        stream=True,
        api_base=server.base_url,
        api_key="any",
        max_retries=0,
        extra_headers=how.headers(),
    )


async def read(stream: Any, chunks: int = LEFT_AT) -> None:
    for _ in range(chunks):
        await anext(stream)


# -- the ways to leave ----------------------------------------------------------------------------


async def by_break(client: LiteLLMClient, server: OpenAIServer, how: Behaviour) -> None:
    count = 0
    async for _ in await opened(client, server, how):
        count += 1
        if count == LEFT_AT:
            break
    gc.collect()


async def by_aclose(client: LiteLLMClient, server: OpenAIServer, how: Behaviour) -> None:
    stream = await opened(client, server, how)
    await read(stream)
    await stream.aclose()
    await stream.aclose()


async def by_leaving_with(client: LiteLLMClient, server: OpenAIServer, how: Behaviour) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async with await opened(client, server, how) as stream:
            await read(stream)
            raise ZeroDivisionError


async def by_cancellation(client: LiteLLMClient, server: OpenAIServer, how: Behaviour) -> None:
    stream = await opened(client, server, how)
    enough = asyncio.Event()

    async def reader() -> None:
        count = 0
        async for _ in stream:
            count += 1
            if count == LEFT_AT:
                enough.set()

    task = asyncio.create_task(reader())
    await enough.wait()
    await asyncio.sleep(0)  # into the next read
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


WAYS = [by_break, by_aclose, by_leaving_with, by_cancellation]
Way = Callable[[LiteLLMClient, OpenAIServer, Behaviour], Any]


def only(path: Path) -> UsageRecord:
    (record,) = Ledger(path).records()
    return record


async def ended(server: OpenAIServer, count: int = 1) -> list[ServedRequest]:
    """Wait until the server has noticed the end of this number of requests."""
    return await asyncio.to_thread(
        server.wait_for, lambda served: sum(r.ended is not None for r in served) >= count, 40.0
    )


# -- kept until after the close -------------------------------------------------------------------


async def cut_short(*_: Any) -> dict[str, Any]:
    """The loop is torn down while the estimate is made on its thread."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()
    raise AssertionError


async def no_thread(*_: Any) -> dict[str, Any]:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("estimate", [cut_short, no_thread])
async def test_a_stream_that_is_dropped_after_the_close_is_estimated_although_the_loop_ends(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, estimate: Any
) -> None:
    ours = client(tmp_path, "close")
    stream = await opened(ours, server, HANGS)
    await read(stream)
    await ours.aclose()
    monkeypatch.setattr(_core.ClientCore, "estimate", estimate)
    tasks: asyncio.Queue[asyncio.Task[None]] = asyncio.Queue()
    in_background = ours._core.in_background

    def noted(work: Any) -> asyncio.Task[None]:
        task = in_background(work)
        tasks.put_nowait(task)
        return task

    monkeypatch.setattr(ours._core, "in_background", noted)
    upstream = stream._upstream
    del stream
    gc.collect()
    await (await tasks.get())
    record = only(tmp_path)
    assert (record.status, record.usage_source) == ("abandoned", "estimated")
    assert record.input_tokens
    assert record.output_tokens
    assert record.cost
    assert upstream.attempt.record == record


# -- close ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", WAYS)
async def test_closing_stops_the_provider_at_once_and_estimates(
    server: OpenAIServer, tmp_path: Path, leave: Way
) -> None:
    async with client(tmp_path, "close") as ours:
        await leave(ours, server, HANGS)
        (request,) = await ended(server)  # while the client is open
        assert request.disconnected
        await ours.flush()
    record = only(tmp_path)
    assert record.status == ("cancelled" if leave is by_cancellation else "abandoned")
    assert record.usage_source == "estimated"
    assert record.input_tokens  # the question was billed, too
    assert LEFT_AT <= (record.output_tokens or 0) <= 3 * LEFT_AT
    assert record.cost


async def test_the_estimate_is_not_made_on_the_event_loop(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    estimate = _core.estimate

    def watched(*args: Any, **kwargs: Any) -> dict[str, Any]:
        threads.append(threading.current_thread().name)
        return estimate(*args, **kwargs)

    monkeypatch.setattr(_core, "estimate", watched)
    async with client(tmp_path, "close") as ours:
        await by_aclose(ours, server, HANGS)
    assert threads
    assert threading.main_thread().name not in threads


# -- drain ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", WAYS)
async def test_draining_reads_on_for_the_providers_own_usage(
    server: OpenAIServer, tmp_path: Path, leave: Way
) -> None:
    async with client(tmp_path, "drain") as ours:
        await leave(ours, server, HANGS)
        assert not server.requests[0].finished  # leaving does not wait for the rest
        assert ours.statistics().in_flight == 1
        server.release()
        (request,) = await ended(server)
        assert request.finished
    record = only(tmp_path)
    assert record.status == ("cancelled" if leave is by_cancellation else "abandoned")
    assert record.usage_source == "provider"
    assert request.usage is not None
    assert (record.input_tokens, record.output_tokens) == (INPUT, HANGS.chunks)
    assert record.output_tokens == request.usage["completion_tokens"]
    assert record.cost


async def test_a_drained_stream_costs_what_it_costs_when_it_is_read(
    server: OpenAIServer, tmp_path: Path
) -> None:
    async with client(tmp_path, "drain") as ours:
        await by_aclose(ours, server, HANGS)
        server.release()
        async for _ in await opened(ours, server, Behaviour(chunks=12)):
            pass
    drained, whole = sorted(Ledger(tmp_path).records(), key=lambda record: record.status or "")
    assert (drained.status, whole.status) == ("abandoned", "ok")
    for name in ("input_tokens", "output_tokens", "cost", "usage_source", "response_model"):
        assert getattr(drained, name) == getattr(whole, name), name


async def test_a_reader_that_left_may_still_look_at_the_record_later(
    server: OpenAIServer, tmp_path: Path
) -> None:
    async with client(tmp_path, "drain") as ours:
        stream = await opened(ours, server, HANGS)
        await read(stream)
        await stream.aclose()
        assert stream.usage_record is None
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        server.release()
    assert stream.usage_record is not None
    assert stream.usage_record.usage_source == "provider"


async def test_a_stream_that_breaks_while_it_is_read_on_is_estimated(
    server: OpenAIServer, tmp_path: Path
) -> None:
    async with client(tmp_path, "drain") as ours:
        await by_aclose(ours, server, Behaviour(chunks=12, chunk_delay=0.1, cut_after=6))
    record = only(tmp_path)
    assert (record.status, record.usage_source) == ("abandoned", "estimated")
    assert record.output_tokens
    assert record.output_tokens > LEFT_AT


async def test_draining_a_stream_that_failed_does_not_hide_the_failure(
    server: OpenAIServer, tmp_path: Path
) -> None:
    async with client(tmp_path, "drain") as ours:
        stream = await opened(ours, server, Behaviour(chunks=12, error_after=LEFT_AT))
        with pytest.raises(openai.OpenAIError):
            await read(stream, 12)
        assert stream.usage_record is not None  # there is nothing to read on, nothing to wait for
    assert (only(tmp_path).status, only(tmp_path).usage_source) == ("error", "estimated")


async def test_more_streams_than_may_be_drained_are_closed(
    server: OpenAIServer, tmp_path: Path
) -> None:
    async with client(tmp_path, "drain") as ours:
        ours._core.draining = Draining(streams=2)
        streams = [await opened(ours, server, HANGS) for _ in range(5)]
        await asyncio.gather(*map(read, streams))
        await asyncio.gather(*(stream.aclose() for stream in streams))
        await ended(server, 3)
        server.release()
        served = await ended(server, 5)
        assert Counter(request.ended for request in served) == {"finished": 2, "disconnected": 3}
        await until(lambda: ours._core.draining._free == 2)  # the places are free again
        await by_aclose(ours, server, HANGS)
        server.release()
        assert (await ended(server, 6))[-1].finished
    found = Counter(record.usage_source for record in Ledger(tmp_path).records())
    assert found == {"provider": 3, "estimated": 3}


async def test_a_stream_is_drained_for_so_long_and_then_closed(
    server: OpenAIServer, tmp_path: Path
) -> None:
    async with client(tmp_path, "drain") as ours:
        ours._core.draining = Draining(seconds=0.2)
        await by_cancellation(ours, server, HANGS)
        assert (await ended(server))[0].disconnected
    assert only(tmp_path).usage_source == "estimated"


@pytest.mark.parametrize("leave", [by_break, by_cancellation])
async def test_the_clients_close_has_the_last_word_on_a_stream_that_does_not_end(
    server: OpenAIServer, tmp_path: Path, leave: Way
) -> None:
    ours = client(tmp_path, "drain")
    ours._core.draining = Draining(seconds=math.inf)
    for _ in range(3):
        await leave(ours, server, HANGS)
    await leave(ours, server, ENDLESS)
    await ours.aclose(timeout=1.0)
    assert {request.ended for request in await ended(server, 4)} == {"disconnected"}
    records = list(Ledger(tmp_path).records())
    assert len(records) == 4
    assert {record.usage_source for record in records} == {"estimated"}
    assert all(record.cost for record in records)
    assert all(writer.clean for writer in Ledger(tmp_path).verify().writers)


async def test_a_stream_left_after_the_close_is_closed(
    server: OpenAIServer, tmp_path: Path
) -> None:
    ours = client(tmp_path, "drain")
    stream = await opened(ours, server, HANGS)
    await read(stream)
    await ours.aclose()
    await stream.aclose()
    assert (await ended(server))[0].disconnected
    assert only(tmp_path).usage_source == "estimated"


async def test_a_loop_that_ends_while_streams_are_drained_loses_no_record(
    server: OpenAIServer, tmp_path: Path
) -> None:
    async def main() -> None:
        async with client(tmp_path, "drain", drain_timeout=1.0) as ours:
            for leave in (by_aclose, by_cancellation):
                await leave(ours, server, HANGS)

            asyncio.get_running_loop().call_later(0.1, asyncio.current_task().cancel)  # type: ignore[union-attr]
            await asyncio.Event().wait()

    def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(main())

    await asyncio.to_thread(run)
    assert [record.usage_source for record in Ledger(tmp_path).records()] == ["estimated"] * 2


async def test_streams_read_to_the_end_are_the_same_with_draining(
    server: OpenAIServer, tmp_path: Path
) -> None:
    texts = []
    async with client(tmp_path, "close") as one, client(tmp_path, "drain") as other:
        for ours in (one, other):
            stream = await opened(ours, server, Behaviour(chunks=4))
            texts.append([chunk.choices[0].delta.content async for chunk in stream])
    assert texts[0] == texts[1]
    first, second = Ledger(tmp_path).records()
    assert (first.status, first.cost) == (second.status, second.cost)


async def test_an_unknown_way_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'close' or 'drain', not 'leave'"):
        client(tmp_path, "leave")
