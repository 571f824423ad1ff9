"""Equal streams at once: one request, and every reader has all of it, whoever leaves."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import litellm
import pytest
import pytest_asyncio
from tests.ledgers import outcomes

from litellm_ledger import CompletionStream, Ledger, LiteLLMClient, ResponseCache
from litellm_ledger.testing import Behaviour, OpenAIServer

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
]

WORDS = "word1 word2 word3 word4 word5"
COST = Decimal("0.00000345")
WAIT = 60.0


@pytest.fixture
def cache() -> ResponseCache:
    return ResponseCache()


@pytest_asyncio.fixture(loop_scope="module")
async def client(
    tmp_path: Path, cache: ResponseCache, server: OpenAIServer
) -> AsyncIterator[LiteLLMClient]:
    server.clear()
    async with LiteLLMClient(tmp_path / "usage", max_retries=0, cache=cache) as opened:
        yield opened
        assert not opened._core.caching.streams
        assert not opened._core._streams
    assert Ledger(tmp_path / "usage").verify().ok


def to(server: OpenAIServer, behaviour: Behaviour | None = None, **more: Any) -> dict[str, Any]:
    return {
        "model": "openai/gpt-4o-mini",
        "messages": [{"role": "user", "content": "three words here"}],
        "api_base": server.base_url,
        "api_key": "any",
        "stream": True,
        "extra_headers": (behaviour or Behaviour()).headers(),
        **more,
    }


async def read(stream: CompletionStream) -> str:
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def some(stream: CompletionStream, count: int = 2) -> str:
    """Read some words and leave the stream where it is."""
    text = ""
    while len(text.split()) < count:
        chunk = await anext(stream)
        text += chunk.choices[0].delta.content or ""
    return text


async def opened(client: LiteLLMClient, count: int, call: dict[str, Any]) -> list[CompletionStream]:
    return await asyncio.gather(*[client.acompletion(**call) for _ in range(count)])


async def test_a_hundred_equal_streams_at_once_make_one_request(
    server: OpenAIServer, client: LiteLLMClient, cache: ResponseCache
) -> None:
    call = to(server, Behaviour(slow=0.1, chunk_delay=0.01))

    async def one() -> CompletionStream:
        stream = await client.acompletion(**call)
        assert type(stream) is CompletionStream
        assert await read(stream) == WORDS
        return stream

    streams = await asyncio.gather(*[one() for _ in range(100)])
    assert len(server.requests) == 1
    records = outcomes(client)
    (paid,) = [record for record in records if not record.cache_hit]
    assert (len(records), paid.cost, paid.status) == (100, COST, "ok")
    for record in records:
        if record is not paid:
            assert (record.status, record.cost, record.saved_cost) == ("ok", 0, COST)
            assert record.meta == {"cache": {"operation": paid.operation, "how": "shared"}}
            assert (record.input_tokens, record.output_tokens) == (3, 5)
            assert record.ttft_ms is not None
    assert {stream.usage_record.id for stream in streams if stream.usage_record} == {
        record.id for record in records
    }
    found = cache.statistics()
    assert (found.misses, found.hits, found.shared, found.stored) == (1, 99, 99, 1)
    assert await read(await client.acompletion(**call)) == WORDS
    assert len(server.requests) == 1


async def test_who_comes_in_the_middle_has_it_from_the_beginning(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    call = to(server)
    first = await client.acompletion(**call)
    begun = await some(first)
    second = await client.acompletion(**call)
    assert await read(second) == WORDS
    assert begun + await read(first) == WORDS
    assert len(server.requests) == 1


async def test_a_reader_who_changes_a_chunk_changes_it_for_nobody_else(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    first, second, third = await opened(client, 3, to(server))
    for stream in (first, second):
        async for chunk in stream:
            chunk.choices[0].delta.content = "changed"
    assert await read(third) == WORDS
    assert await read(await client.acompletion(**to(server))) == WORDS


async def test_nobody_reads_ahead(
    server: OpenAIServer, client: LiteLLMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = await opened(client, 3, to(server))
    for stream in streams:
        await some(stream, 1)
    (shared,) = client._core.caching.streams.values()
    here, real, gate = len(shared._parts), shared.source.__anext__, asyncio.Event()

    async def later() -> Any:
        await gate.wait()
        return await real()

    monkeypatch.setattr(shared.source, "__anext__", later, raising=False)
    tasks = []
    for stream in streams:  # the others ask while the first one waits for the provider
        tasks.append(asyncio.create_task(anext(stream)))  # type: ignore[arg-type]
        for _ in range(5):
            await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*tasks)
    await asyncio.sleep(0.2)  # time enough for one more
    assert len(shared._parts) == here + 1
    await asyncio.gather(*map(read, streams))


async def test_a_reader_may_wait_for_another_in_the_same_task(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    call = to(server)
    first, second, third = await opened(client, 3, call)
    assert await read(third) == WORDS  # though nobody reads the first
    assert await read(first) == WORDS
    assert await read(second) == WORDS
    assert len(server.requests) == 1


@pytest.mark.parametrize("who", ["first", "other"])
@pytest.mark.parametrize("how", ["closed", "cancelled", "dropped"])
async def test_a_reader_who_leaves_takes_nothing_from_the_others(
    server: OpenAIServer, client: LiteLLMClient, cache: ResponseCache, who: str, how: str
) -> None:
    streams: list[CompletionStream | None] = [*await opened(client, 3, to(server))]
    if who == "other":
        streams.reverse()
    leaving = streams[0]
    assert leaving is not None
    if how == "closed":
        await some(leaving)
        await leaving.aclose()
    elif how == "cancelled":
        reading = asyncio.create_task(read(leaving))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})
        assert reading.cancelled()
    else:
        await some(leaving)
        del leaving
        streams[0] = None
        gc.collect()
    for stream in streams[1:]:
        assert stream is not None
        assert await read(stream) == WORDS
    assert len(server.requests) == 1
    await client.flush()
    async with asyncio.timeout(WAIT):
        while client._core._streams:  # noqa: ASYNC110 - a finalizer's doing
            await asyncio.sleep(0.01)
    records = outcomes(client)
    assert len(records) == 3
    (paid,) = [record for record in records if record.cost]
    assert (paid.status, paid.cost) == ("ok", COST)
    statuses = sorted(str(record.status) for record in records)
    if who == "first":
        assert statuses == ["ok", "ok", "ok"]  # the request was read to its end
    else:
        assert statuses == sorted(["ok", "ok", "cancelled" if how == "cancelled" else "abandoned"])
    assert cache.statistics().stored == 1


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_the_last_reader_who_leaves_ends_the_providers_stream(
    server: OpenAIServer, client: LiteLLMClient, cache: ResponseCache, how: str
) -> None:
    call = to(server, Behaviour(hang_after=2))
    streams = await opened(client, 3, call)
    for stream in streams:
        await some(stream)
    if how == "closed":
        for stream in streams:
            await stream.aclose()
    else:
        tasks = [asyncio.create_task(anext(stream)) for stream in streams]  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    await asyncio.to_thread(server.wait_for, lambda seen: seen[0].disconnected, WAIT)
    status = "abandoned" if how == "closed" else "cancelled"
    records = outcomes(client)
    assert [record.status for record in records] == [status] * 3
    assert sorted(record.usage_source for record in records if record.usage_source) == [
        "estimated",
        "none",
        "none",
    ]
    assert cache.statistics().stored == 0
    again = await client.acompletion(**call)
    assert len(server.requests) == 2
    await again.aclose()


async def test_a_stream_that_fails_fails_for_all_who_read_it(
    server: OpenAIServer, client: LiteLLMClient, cache: ResponseCache
) -> None:
    streams = await opened(client, 3, to(server, Behaviour(error_after=2)))
    errors = await asyncio.gather(*map(read, streams), return_exceptions=True)
    assert len(server.requests) == 1
    assert all(
        isinstance(
            error,
            litellm.exceptions.MidStreamFallbackError
            | litellm.APIError
            | litellm.InternalServerError,
        )
        for error in errors
    ), errors
    assert len({id(error) for error in errors}) == 3
    records = outcomes(client)
    assert [record.status for record in records] == ["error"] * 3
    assert sorted(record.cost == 0 for record in records) == [False, True, True]
    assert cache.statistics().stored == 0


async def test_a_stream_that_is_refused_is_refused_for_all(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    call = to(server, Behaviour(status=429, slow=0.1))
    errors = await asyncio.gather(
        *[client.acompletion(**call) for _ in range(5)], return_exceptions=True
    )
    assert {type(error) for error in errors} == {litellm.RateLimitError}
    assert len(server.requests) == 1
    assert [record.status for record in outcomes(client)] == ["error"] * 5


async def test_the_first_is_cancelled_before_the_stream_is_open(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    call = to(server, Behaviour(slow=2))
    tasks = [asyncio.create_task(client.acompletion(**call)) for _ in range(3)]
    await asyncio.to_thread(server.wait_for, len, WAIT)
    tasks[0].cancel()
    streams = await asyncio.gather(*tasks[1:])
    assert [await read(stream) for stream in streams] == [WORDS, WORDS]
    assert len(server.requests) == 1
    assert [record.status for record in outcomes(client)] == ["ok"] * 3


async def test_all_are_cancelled_before_the_stream_is_open(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    call = to(server, Behaviour(hang=True))
    tasks = [asyncio.create_task(client.acompletion(**call)) for _ in range(3)]
    await asyncio.to_thread(server.wait_for, len, WAIT)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert [record.status for record in outcomes(client)] == ["cancelled"]


async def test_a_stream_for_which_nobody_waited_in_the_end_is_closed(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    task = asyncio.create_task(client.acompletion(**to(server, Behaviour(hang_after=1))))
    while not client._core.caching.streams:  # noqa: ASYNC110 - open, its caller not yet awake
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    await asyncio.to_thread(server.wait_for, lambda seen: seen[0].disconnected, WAIT)
    async with asyncio.timeout(WAIT):
        while client._core._streams:  # noqa: ASYNC110 - a task of the client's does it
            await asyncio.sleep(0.01)
    assert [record.status for record in outcomes(client)] == ["abandoned"]


async def test_a_stream_that_is_too_long_to_be_kept_is_read_all_the_same(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    small = ResponseCache(max_bytes=500)
    view = client.with_options(cache=small)
    call = to(server, Behaviour(chunks=300))
    streams = await opened(view, 2, call)
    texts = await asyncio.gather(*map(read, streams))
    assert [len(text.split()) for text in texts] == [300, 300]
    assert len(server.requests) == 1
    assert small.statistics().stored == 0


async def test_the_client_closes_while_streams_are_shared(
    server: OpenAIServer, tmp_path: Path
) -> None:
    server.clear()
    client = LiteLLMClient(tmp_path, max_retries=0, cache=ResponseCache())
    streams = await opened(client, 3, to(server))
    for stream in streams:
        await some(stream)
    await client.aclose()
    await asyncio.gather(*map(read, streams))
    assert [record.status for record in Ledger(tmp_path).records()] == ["ok"] * 3
    assert Ledger(tmp_path).verify().ok
    assert len(server.requests) == 1


async def test_the_attributes_of_litellms_stream_are_there_for_all(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    first, second = await opened(client, 2, to(server))
    for stream in (first, second):
        assert stream.custom_llm_provider == "openai"
        await read(stream)
        assert stream.chunks
    replayed = await client.acompletion(**to(server))
    assert replayed.custom_llm_provider == "openai"
    await read(replayed)
    assert len(replayed.chunks) == len(first.chunks) or replayed.chunks


async def test_a_deadline_cuts_a_shared_stream_for_all(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    view = client.with_options(deadline=0.5)
    streams = await opened(view, 3, to(server, Behaviour(hang_after=2)))
    errors = await asyncio.gather(*map(read, streams), return_exceptions=True)
    assert {type(error) for error in errors} == {litellm.Timeout}
    assert [record.status for record in outcomes(client)] == ["error"] * 3


async def test_streams_that_are_read_on_when_they_are_left_are_read_on_by_the_last(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    view = client.with_options(on_abandoned_stream="drain")
    streams = await opened(view, 2, to(server, Behaviour(chunk_delay=0.02)))
    for stream in streams:
        await some(stream)
        await stream.aclose()
    async with asyncio.timeout(WAIT):
        while client._core._streams:  # noqa: ASYNC110 - it is read on in the background
            await asyncio.sleep(0.01)
    records = outcomes(client)
    assert sorted(str(record.status) for record in records) == ["abandoned", "abandoned"]
    assert {record.cost for record in records} == {COST, Decimal(0)}
