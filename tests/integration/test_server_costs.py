"""What a server says of its bill, in literal replies: the cost is what it said."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import litellm
import pytest
import pytest_asyncio
from tests.replies import replies

from litellm_ledger import Ledger, LiteLLMClient, ModelPrice, UsageRecord

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:(?s)Pydantic serializer warnings:UserWarning"),
]


def said_with(usage: dict[str, Any], *, stream: bool) -> dict[str, Any] | bytes:
    """An answer to a chat, or the events of one, with this usage."""
    base = {"id": "c", "created": 1, "model": "m"}
    message = {"role": "assistant", "content": "x"}
    ended = {"index": 0, "finish_reason": "stop"}
    if not stream:
        whole = base | {"object": "chat.completion", "usage": usage}
        return whole | {"choices": [ended | {"message": message}]}
    chunk = base | {"object": "chat.completion.chunk"}
    chunks = [
        chunk | {"choices": [{"index": 0, "delta": message, "finish_reason": None}]},
        chunk | {"choices": [ended | {"delta": {}}]},
        chunk | {"choices": [], "usage": usage},
    ]
    return "".join(f"data: {data}\n\n" for data in [*map(json.dumps, chunks), "[DONE]"]).encode()


@contextmanager
def serving(
    usage: dict[str, Any], *, stream: bool, headers: dict[str, str] | None = None
) -> Iterator[str]:
    """Answer every chat with this usage."""
    with replies() as server:
        server.answer = said_with(usage, stream=stream)
        server.headers = headers or {}
        yield f"{server.url}/v1"


@pytest_asyncio.fixture(loop_scope="module")
async def client(tmp_path: Path) -> AsyncIterator[LiteLLMClient]:
    async with LiteLLMClient(tmp_path / "usage") as opened:
        yield opened


async def asked(
    client: LiteLLMClient, model: str, usage: dict[str, Any], stream: bool, **more: Any
) -> UsageRecord:
    with serving(usage, stream=stream, **more) as base:
        messages = [{"role": "user", "content": "hi"}]
        given = {"model": model, "messages": messages, "api_base": base, "api_key": "k"}
        answer = await client.acompletion(**given, stream=stream)
        if stream:
            async for _ in answer:
                pass
    record = answer.usage_record
    assert isinstance(record, UsageRecord)
    return record


COUNTS = {"prompt_tokens": 9171, "completion_tokens": 113, "total_tokens": 9284}
UPSTREAM = {"cost_details": {"upstream_inference_cost": 0.0360795}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"is_byok": True, "cost": 0, **UPSTREAM}, "0.0360795"),
        ({"is_byok": True, "cost": 0.0018, **UPSTREAM}, "0.0378795"),
        ({"is_byok": False, "cost": 0.0360795, **UPSTREAM}, "0.0360795"),
        ({"cost": 0.0360795, **UPSTREAM}, "0.0360795"),
    ],
)
async def test_with_ones_own_key_the_cost_is_the_fee_and_what_the_provider_bills(
    client: LiteLLMClient, usage: dict[str, Any], cost: str, stream: bool
) -> None:
    record = await asked(client, "openrouter/openai/gpt-4o", {**COUNTS, **usage}, stream)
    assert (record.cost, record.cost_source) == (Decimal(cost), "provider")
    assert record.price_version is None


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fee_alone_is_not_the_cost_with_ones_own_key(
    client: LiteLLMClient, stream: bool
) -> None:
    usage = {**COUNTS, "is_byok": True, "cost": 0.0018}
    record = await asked(client, "openrouter/openai/gpt-4o", usage, stream)
    assert record.cost is None
    assert record.meta is not None
    assert record.meta["unpriced"] == ["upstream_inference_cost"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "said", "cost"),
    [
        ("openai/gpt-4o", {"cost": 0.5}, "0.5"),
        ("openai/gpt-4o", {"cost": 0}, "0"),
        ("vercel_ai_gateway/openai/gpt-4o", {"cost": 0.0123}, "0.0123"),
        ("xai/grok-3", {"cost_in_usd_ticks": 123456789}, "0.0123456789"),
    ],
)
async def test_a_cost_that_the_server_said_is_the_providers_no_matter_which_server(
    client: LiteLLMClient, model: str, said: dict[str, Any], cost: str, stream: bool
) -> None:
    record = await asked(client, model, {**COUNTS, **said}, stream)
    assert (record.cost, record.cost_source) == (Decimal(cost), "provider")
    assert record.price_version is None


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cost_that_the_server_did_not_say_is_litellms(
    client: LiteLLMClient, stream: bool
) -> None:
    record = await asked(client, "openai/gpt-4o", COUNTS, stream)
    assert (record.cost, record.cost_source) == (Decimal("0.0240575"), "price_map")
    assert record.price_version is not None


async def test_a_gateway_may_say_the_cost_in_a_header(client: LiteLLMClient) -> None:
    headers = {"x-litellm-response-cost": "0.0123"}
    record = await asked(client, "openai/gpt-4o", COUNTS, False, headers=headers)
    assert (record.cost, record.cost_source) == (Decimal("0.0123"), "provider")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cost_far_from_the_price_map_notes_what_the_map_says(
    client: LiteLLMClient, stream: bool
) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    for cost, listed in ((0.0105, "0.0035"), (0.0104, None), (0.0011, "0.0035"), (0.0012, None)):
        record = await asked(client, "openai/gpt-4o", {**usage, "cost": cost}, stream)
        price = (record.meta or {}).get("price") or {}
        assert price.get("listed") == listed


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["cached_tokens", "num_cached_tokens"])
async def test_cached_tokens_that_stand_elsewhere_are_counted_and_priced_as_cached(
    client: LiteLLMClient, name: str, stream: bool
) -> None:
    usage = {"prompt_tokens": 1300, "completion_tokens": 200, "total_tokens": 1500, name: 1024}
    record = await asked(client, "openai/gpt-4o", usage, stream)
    # 276 x 2.5e-6 + 1024 x 1.25e-6 + 200 x 1e-5
    assert (record.cost, record.cost_source) == (Decimal("0.00397"), "price_map")
    assert record.cache_read_tokens == 1024


@pytest.mark.parametrize("stream", [False, True])
async def test_a_captured_call_tells_the_servers_cost_from_litellms(
    tmp_path: Path, stream: bool
) -> None:
    messages = [{"role": "user", "content": "hi"}]
    async with LiteLLMClient(tmp_path / "captured", capture=True) as client:
        # LiteLLM's summary of a stream has lost the counters that it does not know.
        for said in ({},) if stream else ({}, {"cached_tokens": 1024}):
            with serving({**COUNTS, **said}, stream=stream) as base:
                answer = await litellm.acompletion(
                    model="openai/gpt-4o",
                    messages=messages,
                    api_base=base,
                    api_key="k",
                    stream=stream,
                    **({"stream_options": {"include_usage": True}} if stream else {}),
                )
                if stream:
                    async for _ in answer:
                        pass
        await client.flush()
    records = list(Ledger(tmp_path / "captured").records())
    assert (
        [(record.cost, record.cost_source) for record in records]
        == [
            (Decimal("0.0240575"), "price_map"),
            (Decimal("0.0227775"), "price_map"),  # 1,024 tokens less at 1.25e-6
        ][: 1 if stream else 2]
    )


async def test_a_web_search_without_a_price_leaves_the_cost_unknown_and_names_the_price(
    tmp_path: Path,
) -> None:
    usage = {**COUNTS, "server_tool_use": {"web_search_requests": 2}}
    tokens = {"input": "2.5", "output": "10"}
    for more, cost in (({}, None), ({"web_search": "0.01"}, Decimal("0.0440575"))):
        prices = {"openai/gpt-4o": ModelPrice(**tokens, **more)}
        async with LiteLLMClient(tmp_path / "own", prices=prices) as client:
            record = await asked(client, "openai/gpt-4o", usage, False)
        assert record.cost == cost
        assert record.meta is not None
        assert record.meta["tools"] == {"web_searches": 2}
        assert record.meta.get("unpriced") == (["web_search"] if cost is None else None)
