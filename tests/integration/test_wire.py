"""What a provider says on the wire and LiteLLM drops: it is on record all the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.replies import replies

from litellm_ledger import LiteLLMClient, UsageRecord
from litellm_ledger._litellm.stream_readers import ChatReader
from litellm_ledger._litellm.wire import Wire, wire_of_stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = {"messages": [{"role": "user", "content": "hi"}], "api_key": "k"}
CHUNK = {"id": "c", "created": 1, "model": "m", "object": "chat.completion.chunk"}
USED = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
BILLED = {
    "billed_units": {"input_tokens": 5, "output_tokens": 1.0},
    "tokens": {"input_tokens": 71, "output_tokens": 3},
}


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return CHUNK | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish} | more]}


def events(*chunks: dict[str, Any]) -> bytes:
    return (
        "".join(f"data: {json.dumps(each)}\n\n" for each in chunks).encode() + b"data: [DONE]\n\n"
    )


def lines(*each: dict[str, Any]) -> bytes:
    return "".join(f"{json.dumps(line)}\n" for line in each).encode()


FIRST = chunk({"role": "assistant", "content": "x"})
GROQ = events(FIRST, chunk({}, "stop") | {"x_groq": {"id": "r", "usage": USED}})
MOONSHOT = events(FIRST, chunk({}, "stop", usage={**USED, "cached_tokens": 50}))
COHERE = lines(
    {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "x"}}}},
    {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": BILLED}},
)
COHERE_PLAIN = {
    "id": "c",
    "finish_reason": "COMPLETE",
    "message": {"role": "assistant", "content": [{"type": "text", "text": "x"}]},
    "usage": BILLED,
}


@pytest_asyncio.fixture(loop_scope="module")
async def client(tmp_path: Path) -> AsyncIterator[LiteLLMClient]:
    async with LiteLLMClient(tmp_path / "usage") as opened:
        yield opened


async def asked(client: LiteLLMClient, answer: Any, path: str = "/v1", **more: Any) -> UsageRecord:
    with replies() as server:
        server.answer = answer
        stream = isinstance(answer, bytes)
        given = {**CHAT, "api_base": f"{server.url}{path}", **more}
        got = await client.acompletion(**given, stream=stream)
        if stream:
            async for _ in got:
                pass
    record = got.usage_record
    assert isinstance(record, UsageRecord)
    return record


@pytest.mark.parametrize(
    ("model", "answer", "cached"),
    [
        ("groq/openai/gpt-oss-120b", GROQ, None),
        ("moonshot/kimi-k2-0905-preview", MOONSHOT, 50),
    ],
)
async def test_a_usage_that_stands_elsewhere_in_a_stream_is_the_providers(
    client: LiteLLMClient, model: str, answer: bytes, cached: int | None
) -> None:
    record = await asked(client, answer, model=model)
    assert (record.input_tokens, record.output_tokens) == (100, 7)
    assert (record.cache_read_tokens, record.usage_source) == (cached, "provider")


@pytest.mark.parametrize("answer", [COHERE_PLAIN, COHERE])
async def test_coheres_tokens_are_those_of_the_model_and_its_cost_is_what_is_billed(
    client: LiteLLMClient, answer: Any
) -> None:
    model = "cohere_chat/command-r-08-2024"
    record = await asked(client, answer, "/v2/chat", model=model)
    assert (record.input_tokens, record.output_tokens) == (71, 3)
    assert record.usage_source == "provider"
    assert record.meta["tokens"] == {"billed_input": 5, "billed_output": 1}
    assert record.cost == Decimal("0.00000135")  # 5 x 0.00000015 + 1 x 0.0000006


async def test_what_openrouter_says_that_vectors_cost_is_the_cost(client: LiteLLMClient) -> None:
    with replies() as server:
        server.answer = {
            "object": "list",
            "model": "m",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}],
            "usage": {"prompt_tokens": 5, "total_tokens": 5, "cost": 0.0000123},
        }
        answer = await client.aembedding(
            model="openrouter/openai/text-embedding-3-small",
            input=["a"],
            api_base=f"{server.url}/v1",
            api_key="k",
        )
    record = answer.usage_record
    assert (record.cost, record.cost_source) == (Decimal("0.0000123"), "provider")


class Stream:
    """A stream below one of LiteLLM's wrappers."""

    def __init__(self, provider: str, *items: Any) -> None:
        self.custom_llm_provider = provider
        self.items = items
        self.given = 0
        self.completion_stream = self._stream()
        self.unread = self.completion_stream

    async def _stream(self) -> AsyncIterator[Any]:
        for item in self.items:
            self.given += 1
            yield item


async def test_every_item_is_handed_on_before_the_next_is_asked_for() -> None:
    stream = Stream("groq", "data: 1", f"data: {json.dumps({'usage': USED})}", "data: 3")
    wire = wire_of_stream(stream)
    assert wire is not None
    read: list[Any] = []
    async for item in stream.completion_stream:
        read.append(item)
        assert stream.given == len(read)
    assert read == list(stream.items)
    assert wire.usage == USED


async def test_the_stream_of_any_other_provider_is_left_alone() -> None:
    stream = Stream("openai")
    ChatReader(stream).listen("openai")
    assert stream.completion_stream is stream.unread
    await stream.completion_stream.aclose()


@pytest.mark.parametrize(
    "item",
    [
        'data: {"usage": ',
        "data: usage",
        b'data: {"usage": \xff}',
        "{" * 500 + '"usage"',
        'data: {"usage": {"prompt_tokens": 1}, "pad": "' + "x" * 2**20 + '"}',
        'data: {"usage": 5, "choices": {"usage": 5}}',
        'data: {"choices": [7], "x_groq": "usage", "delta": ["usage"]}',
        None,
    ],
)
async def test_what_is_no_usage_is_none(item: Any) -> None:
    wire = Wire()
    wire.see(item)
    assert wire.usage is None
