"""Calls to LiteLLM's own proxy: our records equal what it answered and what its own log shows."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.proxies import KEY, Proxy

from litellm_ledger import Ledger, LiteLLMClient, UsageRecord
from litellm_ledger._records.money import from_litellm

MESSAGES = [{"role": "user", "content": "a question for a proxy"}]
AT_ONCE = 100


@pytest.fixture
def to(proxy: Proxy) -> dict[str, Any]:
    """Arguments that send a call to the proxy, under a call id that both sides keep."""
    return {"api_base": f"{proxy.url}/v1", "api_key": KEY, "max_retries": 0}


def identified(to: dict[str, Any]) -> dict[str, Any]:
    call_id = str(uuid.uuid4())
    return {**to, "litellm_call_id": call_id, "extra_headers": {"x-litellm-call-id": call_id}}


def only(path: Path) -> UsageRecord:
    (record,) = Ledger(path).records()
    return record


async def ask(path: Path, name: str, *args: Any, **options: Any) -> tuple[Any, UsageRecord]:
    """Make one call, read it to its end; return the answer or the last chunk, and its record."""
    async with LiteLLMClient(path) as client:
        answer = await getattr(client, name)(*args, **options)
        if options.get("stream"):
            answer = [chunk async for chunk in answer][-1]
    record = only(path)
    assert (record.call, record.status, record.usage_source) == (name, "ok", "provider")
    return answer, record


def cost_of(line: dict[str, Any]) -> Decimal:
    return from_litellm(float(line["cost"]))


def cost_in_the_header(answer: Any) -> Decimal:
    headers = answer._hidden_params["additional_headers"]
    return from_litellm(float(headers["llm_provider-x-litellm-response-cost"]))


@pytest.mark.asyncio
async def test_a_chat(proxy: Proxy, to: dict[str, Any], tmp_path: Path) -> None:
    answer, record = await ask(
        tmp_path, "acompletion", "openai/gpt-4o-mini", MESSAGES, **identified(to)
    )
    assert record.input_tokens == answer.usage.prompt_tokens
    assert record.output_tokens == answer.usage.completion_tokens
    assert record.response_id == answer.id
    (line,) = proxy.attempts({str(record.call_id)})
    assert record.cost == cost_in_the_header(answer) == cost_of(line)


@pytest.mark.asyncio
async def test_a_stream(proxy: Proxy, to: dict[str, Any], tmp_path: Path) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}, **identified(to)}
    last, record = await ask(tmp_path, "acompletion", "openai/gpt-4o-mini", MESSAGES, **options)
    assert record.input_tokens == last.usage.prompt_tokens
    assert record.output_tokens == last.usage.completion_tokens
    (line,) = proxy.attempts({str(record.call_id)})
    assert record.cost == cost_of(line)


@pytest.mark.asyncio
async def test_embeddings(proxy: Proxy, to: dict[str, Any], tmp_path: Path) -> None:
    model, texts = "openai/text-embedding-3-small", ["a text", "another"]
    answer, record = await ask(tmp_path, "aembedding", model, texts, **identified(to))
    assert record.input_tokens == answer.usage.prompt_tokens
    (line,) = proxy.attempts({str(record.call_id)})
    assert record.cost == cost_in_the_header(answer) == cost_of(line)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("model", "stream"),
    [
        ("gpt-4o-mini", False),
        ("claude-sonnet-4-5", True),  # the proxy cannot stream a mock of OpenAI's own
    ],
)
async def test_responses(
    proxy: Proxy, to: dict[str, Any], tmp_path: Path, model: str, stream: bool
) -> None:
    pytest.importorskip("mcp", reason="LiteLLM needs it for responses")
    options = {"model": f"openai/{model}", "stream": stream, **identified(to)}
    answer, record = await ask(tmp_path, "aresponses", "a question", **options)
    usage = (answer.response if stream else answer).usage
    assert (record.input_tokens, record.output_tokens) == (usage.input_tokens, usage.output_tokens)
    assert record.cost


@pytest.mark.asyncio
async def test_anthropics_messages(to: dict[str, Any], tmp_path: Path, proxy: Proxy) -> None:
    own = {**identified(to), "api_base": proxy.url, "max_tokens": 20, "messages": MESSAGES}
    own |= {"model": "anthropic/claude-sonnet-4-5"}
    own.pop("max_retries")
    answer, record = await ask(tmp_path, "anthropic_messages", **own)
    assert record.input_tokens == answer["usage"]["input_tokens"]
    assert record.output_tokens == answer["usage"]["output_tokens"]
    assert record.cost


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("model", "status", "error"),
    [
        ("busy", 429, "RateLimitError"),
        ("down", 500, "InternalServerError"),
        ("nobody-has-this", 400, "BadRequestError"),
    ],
)
async def test_errors(
    to: dict[str, Any], tmp_path: Path, model: str, status: int, error: str
) -> None:
    async with LiteLLMClient(tmp_path) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.acompletion(f"openai/{model}", MESSAGES, **identified(to))
    record = only(tmp_path)
    assert (
        (record.status, record.error) == ("error", type(caught.value).__name__) == ("error", error)
    )
    assert record.meta is not None
    assert record.meta["http_status"] == caught.value.status_code == status
    assert record.cost is None


@pytest.mark.asyncio
@pytest.mark.parametrize("calls", [150, pytest.param(500, marks=pytest.mark.matrix)])
async def test_mixed_calls_at_once_have_one_outcome_for_each_attempt_in_the_proxys_log(
    proxy: Proxy, to: dict[str, Any], tmp_path: Path, calls: int
) -> None:
    kinds = ["chat", "chat", "stream", "embedding", "busy"]
    sent: dict[str, str] = {}

    async def one(client: LiteLLMClient, kind: str) -> None:
        own = identified(to)
        sent[own["litellm_call_id"]] = kind
        if kind == "embedding":
            await client.aembedding("openai/text-embedding-3-small", ["a text"], **own)
        elif kind == "stream":
            async for _ in await client.acompletion(
                "openai/gpt-4o-mini", MESSAGES, stream=True, **own
            ):
                pass
        elif kind == "busy":
            with pytest.raises(openai.RateLimitError):
                await client.acompletion("openai/busy", MESSAGES, **own)
        else:
            await client.acompletion("openai/gpt-4o-mini", MESSAGES, **own)

    async with LiteLLMClient(tmp_path, max_concurrency=AT_ONCE) as client:
        async with asyncio.TaskGroup() as group:
            for number in range(calls):
                group.create_task(one(client, kinds[number % len(kinds)]))
    lines = await asyncio.to_thread(proxy.attempts, set(sent))
    records = list(Ledger(tmp_path).records())
    ours = Counter((record.call_id, record.status) for record in records)
    assert ours == Counter((line["id"], line["status"]) for line in lines)
    assert set(ours.values()) == {1}
    assert len(records) == calls
    costs = {line["id"]: cost_of(line) for line in lines if line["status"] == "ok"}
    for record in records:
        if record.status == "ok":
            assert record.cost == costs[str(record.call_id)], sent[str(record.call_id)]
    assert Ledger(tmp_path).verify().ok
