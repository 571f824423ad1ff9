"""The response cache against a local server that counts requests: what is shared, what never is."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import litellm
import pytest
import pytest_asyncio
from pydantic import BaseModel
from tests.arguments import ARGUMENTS, STREAMS
from tests.ledgers import outcomes
from tests.packages import packages

from litellm_ledger import (
    CompletionStream,
    Ledger,
    LiteLLMClient,
    ResponseCache,
)
from litellm_ledger._cache.entry import Entry
from litellm_ledger.testing import Behaviour, OpenAIServer

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:(?s)Pydantic serializer warnings:UserWarning"),
]

CHAT = ARGUMENTS["acompletion"]
COST = Decimal("0.00000345")
WAIT = 60.0
"""Seconds after which something that should have happened has not, on a slow machine too."""
MADE: dict[str, dict[str, Any]] = {
    **{name: given for name, given in ARGUMENTS.items() if "batch" not in name},
    "aimage_generation": {"model": "openai/gpt-image-1", "prompt": "three words here"},
    "aimage_edit": {"model": "openai/gpt-image-1", "prompt": "three", "image": b"\x89PNG\r\n"},
    "atranscription": {"model": "openai/whisper-1", "file": ("sound.wav", b"RIFF....WAVE")},
}


class Clock:
    """Time that stands still until a test moves it."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> ResponseCache:
    return ResponseCache(ttl=60, timer=clock)


@pytest_asyncio.fixture(loop_scope="module")
async def client(
    tmp_path: Path, cache: ResponseCache, server: OpenAIServer
) -> AsyncIterator[LiteLLMClient]:
    server.clear()
    async with LiteLLMClient(tmp_path / "usage", max_retries=0, cache=cache) as opened:
        yield opened
    assert Ledger(tmp_path / "usage").verify().ok


def to(server: OpenAIServer, name: str = "acompletion", **more: Any) -> dict[str, Any]:
    root = server.base_url
    if name in ("anthropic_messages", "arerank"):
        root = root.removesuffix("/v1")
    return {**MADE[name], "api_base": root, "api_key": "any", **more}


def plain(answer: Any) -> Any:
    return answer.model_dump() if hasattr(answer, "model_dump") else answer


# --- One request, many answers -----------------------------------------------------------------


async def test_a_thousand_equal_calls_at_once_make_one_request_and_a_thousand_records(
    server: OpenAIServer, client: LiteLLMClient, cache: ResponseCache
) -> None:
    call = to(server, extra_headers=Behaviour(slow=0.2).headers())
    answers = await asyncio.gather(*[client.acompletion(**call) for _ in range(1_000)])
    assert len(server.requests) == 1
    assert len({id(answer) for answer in answers}) == 1_000
    assert all(plain(answer) == plain(answers[0]) for answer in answers)
    records = outcomes(client)
    (paid,) = [record for record in records if not record.cache_hit]
    hits = [record for record in records if record.cache_hit]
    assert (paid.cost, paid.saved_cost, len(hits)) == (COST, None, 999)
    for hit in hits:
        assert (hit.cost, hit.saved_cost, hit.status) == (0, COST, "ok")
        assert (hit.input_tokens, hit.output_tokens) == (3, 5)
        assert hit.meta == {"cache": {"operation": paid.operation, "how": "shared"}}
        assert hit.operation == hit.id
    found = client.statistics().cache
    assert found is not None
    assert (found.hits, found.shared, found.misses, found.stored) == (999, 999, 1, 1)
    assert found.entries == 1
    totals = client.usage.totals()
    assert (totals.calls, totals.cost, totals.saved_cost) == (1_000, COST, 999 * COST)
    report = Ledger(client.usage.directory).report(by=["model"])
    assert (report.total.cost, report.total.saved_cost) == (COST, 999 * COST)


@pytest.mark.parametrize("name", MADE)
async def test_every_call_is_answered_again_as_it_was(
    server: OpenAIServer, client: LiteLLMClient, name: str
) -> None:
    await packages(name)
    first = await getattr(client, name)(**to(server, name))
    second = await getattr(client, name)(**to(server, name))
    assert len(server.requests) == 1
    assert type(second) is type(first)
    assert second is not first
    if name == "aspeech":
        assert (second.content, second.response.status_code) == (first.content, 200)
    else:
        assert plain(second) == plain(first)
        assert repr(second) == repr(first)
    paid, hit = outcomes(client)
    assert (paid.cache_hit, hit.cache_hit) == (None, True)
    assert (hit.cost, hit.saved_cost) == (0, paid.cost)
    assert hit.meta == {"cache": {"operation": paid.operation, "how": "stored"}}
    for field in ("input_tokens", "output_tokens", "images", "characters", "provider", "call"):
        assert getattr(hit, field) == getattr(paid, field)
    assert second.usage_record == hit
    assert hit.latency_ms is not None


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_was_read_is_replayed_as_a_stream(
    server: OpenAIServer, client: LiteLLMClient, name: str
) -> None:
    await packages(name, stream=True)
    seen = []
    for _ in range(3):
        stream = await getattr(client, name)(**to(server, name, stream=True))
        assert type(stream) is CompletionStream
        assert stream.usage_record is None
        seen.append([chunk async for chunk in stream])
        assert stream.usage_record is not None
    assert len(server.requests) == 1
    assert [list(map(type, chunks)) for chunks in seen[1:]] == [list(map(type, seen[0]))] * 2
    assert [list(map(plain, chunks)) for chunks in seen[1:]] == [list(map(plain, seen[0]))] * 2
    paid, hit, again = outcomes(client)
    assert paid.cost
    for record in (hit, again):
        assert (record.cost, record.saved_cost, record.stream) == (0, paid.cost, True)
        assert record.meta == {"cache": {"operation": paid.operation, "how": "stored"}}
        assert (record.cache_hit, record.status) == (True, "ok")
        assert record.output_tokens == paid.output_tokens
        assert record.ttft_ms is not None


async def test_the_usage_chunk_is_replayed_to_those_who_asked_for_it_only(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    lengths = []
    for options in (None, {"include_usage": True}) * 2:
        more = {} if options is None else {"stream_options": options}
        stream = await client.acompletion(**to(server, stream=True, **more))
        lengths.append(len([chunk async for chunk in stream]))
    assert len(server.requests) == 2
    assert lengths[:2] == lengths[2:]
    assert lengths[1] == lengths[0] + 1


async def test_a_stream_and_an_answer_in_one_piece_are_not_shared(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    await client.acompletion(**to(server))
    async for _ in await client.acompletion(**to(server, stream=True)):
        pass
    assert len(server.requests) == 2


async def test_equal_streams_at_once_make_a_request_each_and_one_of_them_is_replayed(
    server: OpenAIServer, client: LiteLLMClient, cache: ResponseCache
) -> None:
    call = to(server, stream=True)
    first, second = await client.acompletion(**call), await client.acompletion(**call)
    chunks = [[chunk async for chunk in stream] for stream in (first, second)]
    assert len(server.requests) == 2
    replayed = [chunk async for chunk in await client.acompletion(**call)]
    assert len(server.requests) == 2
    assert list(map(plain, replayed)) in [list(map(plain, one)) for one in chunks]
    found = cache.statistics()
    assert (found.misses, found.hits, found.shared) == (2, 1, 0)


async def test_a_stream_that_is_too_long_to_be_kept_is_read_all_the_same(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    small = ResponseCache(max_bytes=500)
    view = client.with_options(cache=small)
    call = to(server, stream=True, extra_headers=Behaviour(chunks=300).headers())
    stream = await view.acompletion(**call)
    words = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert len("".join(words).split()) == 300
    assert small.statistics().stored == 0


@pytest.mark.parametrize("ending", ["aclose", "break", "cancelled", "cut"])
async def test_a_stream_that_was_not_read_to_its_end_is_not_kept(
    server: OpenAIServer, client: LiteLLMClient, cache: ResponseCache, ending: str
) -> None:
    behaviour = Behaviour(cut_after=2) if ending == "cut" else Behaviour(hang_after=2)
    call = to(server, stream=True, extra_headers=behaviour.headers())

    async def read() -> None:
        async with await client.acompletion(**call) as stream:
            async for chunk in stream:
                if ending in ("aclose", "break") and chunk.choices[0].delta.content == " word2":
                    break

    for turn in range(2):
        reading = asyncio.create_task(read())
        if ending == "cancelled":
            await asyncio.to_thread(
                server.wait_for,
                lambda seen, n=turn + 1: len(seen) == n and seen[-1].chunks == 2,
                WAIT,
            )
            reading.cancel()
        await asyncio.wait({reading})
        assert reading.cancelled() or reading.exception() is None or ending == "cut"
    assert len(server.requests) == 2
    assert cache.statistics().stored == 0
    assert not any(record.cache_hit for record in outcomes(client))


async def test_a_replay_that_is_left_early_is_on_record_as_abandoned_and_free(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    call = to(server, stream=True)
    async for _ in await client.acompletion(**call):
        pass
    async with await client.acompletion(**call) as stream:
        async for _ in stream:
            break
    _, hit = outcomes(client)
    assert (hit.status, hit.cost, hit.cache_hit, hit.saved_cost) == ("abandoned", 0, True, COST)


# --- What never shares an answer ---------------------------------------------------------------


class Weather(BaseModel):
    city: str


class Forecast(BaseModel):
    city: str
    day: int


TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in "fg"
]

DIFFERENT: dict[str, list[dict[str, Any]]] = {
    "key": [{"api_key": "one"}, {"api_key": "two"}],
    "header": [{"extra_headers": {"x-tenant": "1"}}, {"extra_headers": {"x-tenant": "2"}}],
    "headers": [{"headers": {"x-tenant": "1"}}, {"headers": {"x-tenant": "2"}}],
    "seed": [{"seed": 1}, {"seed": 2}, {}],
    "temperature": [{"temperature": 0}, {"temperature": 0.5}],
    "number": [{"top_p": 1}, {"top_p": 1.0}],
    "model": [{"model": "openai/gpt-4o-mini"}, {"model": "openai/gpt-4o"}],
    "message": [
        {"messages": [{"role": "user", "content": "a"}]},
        {"messages": [{"role": "user", "content": "b"}]},
        {"messages": [{"role": "system", "content": "a"}]},
    ],
    "organization": [{"organization": "a"}, {"organization": "b"}],
    "user": [{"user": "a"}, {"user": "b"}],
    "body": [{"extra_body": {"a": 1}}, {"extra_body": {"a": 2}}],
    "n": [{"n": 1}, {"n": 2}],
    "format": [{"response_format": Weather}, {"response_format": Forecast}],
    "tools": [{"tools": TOOLS[:1]}, {"tools": TOOLS[1:]}, {"tools": TOOLS}],
}


@pytest.mark.parametrize("what", DIFFERENT)
async def test_what_changes_the_answer_makes_another_call(
    server: OpenAIServer, client: LiteLLMClient, what: str
) -> None:
    calls = [to(server, **more) for more in DIFFERENT[what]]
    await packages("acompletion", **calls[-1])
    for _ in range(2):
        for call in calls:
            await client.acompletion(**call)
    await asyncio.gather(*[client.acompletion(**call) for call in calls * 2])
    assert len(server.requests) == len(calls)


async def test_another_address_makes_another_call(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    with OpenAIServer() as other:
        for where in (server, other, server, other):
            await client.acompletion(**to(where))
        assert (len(server.requests), len(other.requests)) == (1, 1)


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        (
            "api_base",
            [
                ("api_key", "one"),
                ("api_key", "two"),
                ("openai_key", "three"),
                ("organization", "o"),
                ("headers", {"x-tenant": "1"}),
                ("drop_params", True),
            ],
        ),
        (
            "OPENAI_BASE_URL",
            [("OPENAI_API_KEY", "one"), ("OPENAI_API_KEY", "two"), ("OPENAI_ORGANIZATION", "o")],
        ),
    ],
    ids=["globals", "environment"],
)
async def test_what_litellm_reads_elsewhere_makes_another_call(
    server: OpenAIServer,
    client: LiteLLMClient,
    monkeypatch: pytest.MonkeyPatch,
    base: str,
    changes: list[tuple[str, Any]],
) -> None:
    def put(name: str, value: Any) -> None:
        if name.isupper():
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.setattr(litellm, name, value)

    call = to(server)
    del call["api_key"], call["api_base"]
    put(base, server.base_url)
    for name, value in changes:
        put(name, value)
        await client.acompletion(**call)
        await client.acompletion(**call)
    put("UNRELATED", "1")
    await client.acompletion(**call)
    assert len(server.requests) == len(changes)


async def test_namespaces_keep_apart(server: OpenAIServer, client: LiteLLMClient) -> None:
    memory: dict[str, bytes] = {}
    for namespace in ("a", "b", "a", "b"):
        view = client.with_options(
            cache=ResponseCache(namespace=namespace, store=Shared(memory), store_timeout=WAIT)
        )
        await view.acompletion(**to(server))
    assert len(server.requests) == len(memory) == 2


async def test_what_names_or_labels_a_call_makes_no_other(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    await client.acompletion(**to(server), tags={"user": "alice"})
    await client.acompletion(**to(server), tags={"user": "bob"})
    await client.acompletion(**to(server), tags=["theirs"])
    await client.acompletion(**to(server, litellm_call_id="mine", timeout=30, num_retries=1))
    with client.tag(feature="chat"):
        await client.acompletion(**to(server))
    await client.acompletion(
        "openai/gpt-4o-mini", CHAT["messages"], api_key="any", api_base=server.base_url
    )
    assert len(server.requests) == 1
    records = outcomes(client)
    assert [record.tags for record in records] == [
        {"user": "alice"}, {"user": "bob"}, {}, {}, {"feature": "chat"}, {}
    ]  # fmt: skip
    assert records[3].call_id == "mine"


async def test_an_argument_that_the_cache_is_told_to_ignore_makes_no_other_call(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    view = client.with_options(cache=ResponseCache(ignore=["metadata"]))
    for number in range(3):
        await view.acompletion(**to(server, metadata={"trace": number}))
        await client.acompletion(**to(server, metadata={"trace": number}))
    assert len(server.requests) == 4


async def test_files_are_compared_by_what_they_hold(
    server: OpenAIServer, client: LiteLLMClient, tmp_path: Path
) -> None:
    path, twin = tmp_path / "sound.wav", tmp_path / "twin" / "sound.wav"
    twin.parent.mkdir()
    path.write_bytes(b"RIFF one")
    twin.write_bytes(b"RIFF one")

    async def hear(file: Any) -> int:
        call = to(server, "atranscription", file=file)
        await client.atranscription(**call)
        return len(server.requests)

    assert await hear(("a.wav", b"one")) == 1
    assert await hear(("a.wav", b"one")) == 1
    assert await hear(("a.wav", b"two")) == 2
    assert await hear(path) == 3
    assert await hear(path) == 3
    path.write_bytes(b"RIFF two")
    assert await hear(path) == 4
    sound = io.BytesIO(b"RIFF")
    sound.name = "b.wav"
    assert await hear(sound) == 5
    sound.seek(0)
    assert await hear(sound) == 5
    assert sound.tell() == 0
    assert await hear(("b.wav", io.BytesIO(b"RIFX"))) == 6
    assert await hear(("b.wav", io.BytesIO(b"RIFX"))) == 6


@pytest.mark.parametrize(
    "more",
    [
        {"logger_fn": print},
        {"metadata": {"handle": object()}},
        {"metadata": {"endless": 10**30}},
        {"metadata": {"half": "\ud800"}},
    ],
)
async def test_what_cannot_be_compared_goes_past_the_cache(
    server: OpenAIServer, client: LiteLLMClient, cache: ResponseCache, more: dict[str, Any]
) -> None:
    for _ in range(2):
        await client.acompletion(**to(server, **more))
    assert len(server.requests) == 2
    assert (cache.statistics().skipped, cache.statistics().hits) == (2, 0)


async def test_batches_go_past_the_cache(
    server: OpenAIServer, client: LiteLLMClient, cache: ResponseCache
) -> None:
    asked = {"completion_window": "24h", "endpoint": "/v1/chat/completions"}
    to_it = {"api_base": server.base_url, "api_key": "any", "custom_llm_provider": "openai"}
    for _ in range(2):
        await client.acreate_batch(**asked, input_file_id="file-1", **to_it)
    assert len(server.requests) == 2
    assert cache.statistics().skipped == 2


async def test_a_client_counts_the_caches_of_its_views_a_view_its_own(
    server: OpenAIServer, client: LiteLLMClient, cache: ResponseCache
) -> None:
    other = ResponseCache()
    view = client.with_options(cache=other)
    await client.acompletion(**to(server))
    for _ in range(3):
        await view.acompletion(**to(server))
    whole, own = client.statistics().cache, view.statistics().cache
    assert whole is not None
    assert own is not None
    assert (own.hits, own.misses, own.stored, own.entries) == (2, 1, 1, 1)
    assert (whole.hits, whole.misses, whole.stored, whole.entries) == (2, 2, 2, 2)
    assert whole.bytes == (cache.statistics().bytes or 0) + (own.bytes or 0)


async def test_a_client_without_a_cache_counts_that_of_its_view(
    server: OpenAIServer, tmp_path: Path
) -> None:
    cache = ResponseCache()
    async with LiteLLMClient(tmp_path / "other") as client:
        assert client.statistics().cache is None
        await client.with_options(cache=cache).acompletion(**to(server))
        found = client.statistics().cache
        assert found is not None
        assert (found.misses, found.stored) == (1, 1)


async def test_a_view_may_have_no_cache_or_another(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    await client.acompletion(**to(server))
    without = client.with_options(cache=None)
    await without.acompletion(**to(server))
    assert without.statistics().cache is None
    await client.with_options(tags={"a": "b"}).acompletion(**to(server))
    assert len(server.requests) == 2
    with pytest.raises(TypeError, match="must be a ResponseCache"):
        client.with_options(cache={})  # type: ignore[arg-type]


async def test_litellms_own_cache_arguments_are_passed_on(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    for _ in range(2):
        await client.acompletion(**to(server, caching=False, cache={"no-cache": True}))
    assert len(server.requests) == 1


# --- What is handed out ------------------------------------------------------------------------


async def test_a_caller_who_changes_an_answer_changes_it_for_nobody_else(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    for _ in range(3):
        answer = await client.acompletion(**to(server))
        assert answer.choices[0].message.content == "word1 word2 word3 word4 word5"
        answer.choices[0].message.content = "changed"
        answer.usage.prompt_tokens = 99
        answer.choices.append("more")
        answer._hidden_params["more"] = True
    shared = await asyncio.gather(*[client.acompletion(**to(server, seed=1)) for _ in range(3)])
    shared[0].choices.clear()
    assert [len(answer.choices) for answer in shared] == [0, 1, 1]
    assert len(server.requests) == 2


async def test_a_caller_who_changes_a_chunk_changes_it_for_nobody_else(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    for _ in range(3):
        text = ""
        async for chunk in await client.acompletion(**to(server, stream=True)):
            text += chunk.choices[0].delta.content or ""
            chunk.choices[0].delta.content = "changed"
        assert text == "word1 word2 word3 word4 word5"
    assert len(server.requests) == 1


async def test_a_hit_is_marked_as_litellm_marks_its_own(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    await client.acompletion(**to(server))
    hit = await client.acompletion(**to(server))
    assert hit._hidden_params["cache_hit"] is True
    assert hit._hidden_params["response_cost"] == 0
    assert "cache_hit" not in hit.model_dump()


async def test_an_answer_goes_into_the_next_call_as_it_is(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    for _ in range(3):
        first = await client.acompletion(**to(server))
        again = [*CHAT["messages"], first.choices[0].message, {"role": "user", "content": "on"}]
        await client.acompletion(**to(server, messages=again))
    assert len(server.requests) == 2


async def test_what_was_asked_and_answered_is_on_record_of_a_hit_too(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    view = client.with_options(capture_content=True)
    await client.acompletion(**to(server))
    await view.acompletion(**to(server))
    async for _ in await client.acompletion(**to(server, stream=True)):
        pass
    async for _ in await view.acompletion(**to(server, stream=True)):
        pass
    records = outcomes(client)
    assert [bool(record.content) for record in records] == [False, True, False, True]
    assert records[1].content is not None
    assert records[1].content["answer"][0]["content"] == "word1 word2 word3 word4 word5"
    assert records[3].content is not None
    assert records[3].content["answer"] == "word1 word2 word3 word4 word5"


# --- Until when --------------------------------------------------------------------------------


async def test_an_answer_is_kept_for_its_time_and_no_longer(
    server: OpenAIServer, client: LiteLLMClient, clock: Clock, cache: ResponseCache
) -> None:
    await client.acompletion(**to(server))
    clock.now += 59.9
    await client.acompletion(**to(server))
    assert len(server.requests) == 1
    clock.now += 0.1
    await client.acompletion(**to(server))
    assert len(server.requests) == 2
    found = cache.statistics()
    assert (found.expired, found.entries, found.hits, found.misses) == (1, 1, 1, 2)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_has_expired_is_dropped_in_the_background(
    server: OpenAIServer, client: LiteLLMClient, clock: Clock, stream: bool
) -> None:
    short = ResponseCache(ttl=0.5, timer=clock)
    answer = await client.with_options(cache=short).acompletion(**to(server, stream=stream))
    if stream:
        async for _ in answer:
            pass
    assert short._answers.memory is not None
    held = short._answers.memory._entries._Cache__data
    assert len(held) == 1
    timers = client._parts.caching._timers
    first = timers[short._answers.memory]
    async with asyncio.timeout(WAIT):
        while timers.get(short._answers.memory) is first:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        clock.now += 1
        while held:  # noqa: ASYNC110 - a timer of the client's does it, and tells nobody
            await asyncio.sleep(0.01)


async def test_what_has_expired_is_dropped_at_the_close(
    server: OpenAIServer, clock: Clock, tmp_path: Path
) -> None:
    cache = ResponseCache(ttl=60, timer=clock)
    async with LiteLLMClient(tmp_path, cache=cache) as client:
        await client.acompletion(**to(server))
        clock.now += 30
        await client.acompletion(**to(server, seed=1))
        clock.now += 30
    memory = cache._answers.memory
    assert memory is not None
    assert len(memory._entries._Cache__data) == 1


# --- What goes wrong ---------------------------------------------------------------------------


class Shared:
    """A store elsewhere, over a dictionary that others use as well."""

    def __init__(self, memory: dict[str, bytes]) -> None:
        self.memory = memory

    async def get(self, key: str) -> bytes | None:
        await asyncio.sleep(0)
        return self.memory.get(key)

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        await asyncio.sleep(0)
        self.memory[key] = value

    async def delete(self, key: str) -> None:
        self.memory.pop(key, None)


async def test_a_store_elsewhere_is_used_by_all_who_have_it(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    memory: dict[str, bytes] = {}
    for number in range(2):
        cache = ResponseCache(store=Shared(memory), store_timeout=WAIT)
        view = client.with_options(cache=cache)
        await asyncio.gather(*[view.acompletion(**to(server)) for _ in range(50)])
        for _ in range(2):
            async for _ in await view.acompletion(**to(server, stream=True)):
                pass
        found = cache.statistics()
        assert (found.misses, found.stored) == ((2, 2) if number == 0 else (0, 0))
        assert (found.errors, found.entries, found.bytes) == (0, None, None)
    assert len(server.requests) == 2
    assert len(outcomes(client)) == 104
    assert Counter(record.cost for record in outcomes(client)) == {Decimal(0): 102, COST: 2}


class Broken:
    """A store that does one thing wrong."""

    def __init__(self, how: str) -> None:
        self.how = how

    async def _wrong(self) -> Any:
        if self.how == "raises":
            raise OSError("no store there")
        if self.how == "hangs":
            await asyncio.Event().wait()
        if self.how == "hangs and will not be cancelled":
            while True:
                try:
                    await asyncio.sleep(0.2)
                    return None
                except asyncio.CancelledError:
                    pass
        if self.how == "cancels":
            raise asyncio.CancelledError
        return {
            "garbage": b"\x93\x01\x02",
            "nonsense": os.urandom(200),
            "empty": b"",
            "text": "text",
            "number": 7,
        }[self.how]

    async def get(self, key: str) -> Any:
        return await self._wrong()

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        await self._wrong()

    async def delete(self, key: str) -> None:
        await self._wrong()


@pytest.mark.parametrize(
    "how",
    [
        "raises",
        "hangs",
        "hangs and will not be cancelled",
        "cancels",
        "garbage",
        "nonsense",
        "empty",
        "text",
        "number",
    ],
)
async def test_a_broken_store_breaks_no_call(
    server: OpenAIServer, client: LiteLLMClient, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ResponseCache(store=Broken(how), store_timeout=0.05)
    view = client.with_options(cache=cache)
    with caplog.at_level(logging.WARNING, "litellm_ledger"):
        for _ in range(2):
            answer = await view.acompletion(**to(server))
            assert answer.choices[0].message.content == "word1 word2 word3 word4 word5"
            async for _ in await view.acompletion(**to(server, stream=True)):
                pass
    assert len(server.requests) == 4
    assert cache.statistics().errors
    assert "store of the response cache failed" in caplog.text
    assert len([line for line in caplog.messages if "response cache" in line]) <= 8


async def test_an_entry_that_is_not_the_one_that_was_asked_for_is_no_answer(
    server: OpenAIServer, client: LiteLLMClient
) -> None:
    memory: dict[str, bytes] = {}
    view = client.with_options(cache=ResponseCache(store=Shared(memory), store_timeout=WAIT))
    await view.acompletion(**to(server))
    await view.acompletion(**to(server, seed=1))
    first, second = memory
    memory[first], memory[second] = memory[second], memory[first]
    await view.acompletion(**to(server))
    assert len(server.requests) == 3
    damaged = bytearray(memory[first])
    damaged[len(damaged) // 2] ^= 1
    memory[first] = bytes(damaged)
    await view.acompletion(**to(server))
    assert len(server.requests) == 4


async def test_an_error_is_shared_by_those_who_waited_and_never_kept(
    server: OpenAIServer, client: LiteLLMClient, cache: ResponseCache
) -> None:
    call = to(server, extra_headers=Behaviour(status=500, slow=0.2).headers())
    errors = await asyncio.gather(
        *[client.acompletion(**call) for _ in range(20)], return_exceptions=True
    )
    assert len(server.requests) == 1
    assert {type(error) for error in errors} == {litellm.InternalServerError}
    assert len({id(error) for error in errors}) == 20
    assert len({str(error) for error in errors}) == 1
    records = outcomes(client)
    (made,) = [record for record in records if record.cost is None]
    assert len(records) == 20
    assert {record.status for record in records} == {"error"}
    for record in records:
        if record is not made:
            assert (record.cost, record.error) == (0, "InternalServerError")
            assert record.meta is not None
            assert record.meta["cache"] == {"operation": made.operation, "how": "shared"}
    assert {error.usage_record.id for error in errors} == {record.id for record in records}
    with pytest.raises(litellm.InternalServerError):
        await client.acompletion(**call)
    assert len(server.requests) == 2
    assert cache.statistics().stored == 0


# --- Privacy -----------------------------------------------------------------------------------


SAID = {
    "messages": [{"role": "user", "content": "s3cr3t-prompt"}],
    "prompt": "s3cr3t-prompt",
    "input": "s3cr3t-prompt",
    "query": "s3cr3t-prompt",
    "file": ("s3cr3t.wav", b"s3cr3t"),
    "image": b"s3cr3t",
}


@pytest.mark.parametrize(
    ("name", "stream"),
    [*((name, False) for name in MADE), *((name, True) for name in STREAMS)],
)
async def test_no_key_header_or_prompt_is_in_the_store(
    server: OpenAIServer, client: LiteLLMClient, name: str, stream: bool
) -> None:
    more: dict[str, Any] = {"stream": True} if stream else {}
    await packages(name, **more)
    memory: dict[str, bytes] = {}
    view = client.with_options(
        cache=ResponseCache(store=Shared(memory), store_timeout=WAIT, namespace="s3cr3t-space")
    )
    more |= {argument: value for argument, value in SAID.items() if argument in MADE[name]}
    if name not in ("anthropic_messages", "arerank"):
        more["user"] = "s3cr3t-user"
    header = "headers" if name == "arerank" else "extra_headers"
    more |= {header: {"x-tenant": "s3cr3t-header"}, "metadata": {"user_id": "s3cr3t-metadata"}}
    answer = await getattr(view, name)(**to(server, name, api_key="sk-s3cr3t", **more))
    if stream:
        async for _ in answer:
            pass
        await client.flush()
        async with asyncio.timeout(WAIT):
            while not memory:  # noqa: ASYNC110 - kept in the background
                await asyncio.sleep(0.01)
    ((key, value),) = memory.items()
    assert len(key) == 64
    assert set(key) <= set("0123456789abcdef")
    kept = Entry.read(key, value, stream=stream).body
    assert b"s3cr3t" not in value + (zlib.decompress(kept) if stream else kept)
