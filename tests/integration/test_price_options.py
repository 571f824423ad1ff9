"""What a price hangs on beside model and tokens, on every way that a cost is computed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import litellm
import pytest
import pytest_asyncio
from tests.ledgers import outcomes
from tests.replies import Replies, replies, sse

from litellm_ledger import LiteLLMClient, UsageRecord
from litellm_ledger._calls.pricing import Pricing
from litellm_ledger._litellm.calls import CALLS, Asked
from litellm_ledger._litellm.costs import compute_cost
from litellm_ledger._litellm.estimates import estimate_stream
from litellm_ledger._litellm.outcome import from_response

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASKED: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 99,
    "api_key": "any",
    "timeout": 20.0,
}


@pytest.fixture(scope="module")
def provider() -> Iterator[Replies]:
    litellm.suppress_debug_info = True
    with replies() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(tmp_path: Path) -> AsyncIterator[LiteLLMClient]:
    async with LiteLLMClient(tmp_path / "usage", max_retries=0) as opened:
        yield opened


def message(usage: Mapping[str, Any], model: str = "claude-opus-4-6") -> dict[str, Any]:
    """An answer of Anthropic's."""
    return {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": "x"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": dict(usage),
    }


def events(usage: Mapping[str, Any], model: str = "claude-opus-4-6") -> bytes:
    """The same as a stream, the usage in the last event but one."""
    begun = {**message({"input_tokens": 23_000, "output_tokens": 1}, model), "content": []}
    found = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": dict(usage)},
        {"type": "message_stop"},
    ]
    return sse(*found)


def response(**over: Any) -> dict[str, Any]:
    """An answer of OpenAI's Responses."""
    text = {"type": "output_text", "text": "x", "annotations": []}
    said = {"type": "message", "id": "m", "status": "completed", "role": "assistant"}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "gpt-4o",
        "output": [{**said, "content": [text]}],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 1_000,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 100,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 1_100,
        },
        **over,
    }


QUEUED = response(status="queued", background=True, output=[], usage=None)
DONE = response(background=True)


def meta(record: UsageRecord) -> Mapping[str, Any]:
    return record.meta or {}


# --- Iterations ------------------------------------------------------------------------------

COMPACTED = {
    "input_tokens": 23_000,
    "output_tokens": 1_000,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "iterations": [
        {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500},
        {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000},
    ],
}


@pytest.mark.parametrize("call", ["acompletion", "anthropic_messages", "anthropic_messages stream"])
async def test_compaction_counts_and_costs_all_its_iterations(
    provider: Replies, client: LiteLLMClient, call: str
) -> None:
    given = {**ASKED, "model": "anthropic/claude-opus-4-6", "api_base": provider.url}
    provider.answer = message(COMPACTED)
    if call == "acompletion":
        await client.acompletion(**given)
    elif call == "anthropic_messages":
        await client.anthropic_messages(**given)
    else:
        provider.answer = events(COMPACTED)
        async for _ in await client.anthropic_messages(**given, stream=True):
            pass
    record = outcomes(client)[-1]
    assert (record.input_tokens, record.output_tokens) == (203_000, 4_500)
    assert record.cost == Decimal("1.1275")


async def test_an_advisor_is_priced_as_the_model_that_it_is(
    provider: Replies, client: LiteLLMClient
) -> None:
    counts = {"input_tokens": 1_000, "output_tokens": 100}
    usage = {
        **counts,
        "iterations": [
            {"type": "message", **counts},
            {"type": "advisor_message", "model": "claude-opus-4-6", **counts},
        ],
    }
    provider.answer = message(usage, "claude-haiku-4-5")
    given = {**ASKED, "model": "anthropic/claude-haiku-4-5", "api_base": provider.url}
    await client.anthropic_messages(**given)
    record = outcomes(client)[-1]
    assert (record.input_tokens, record.output_tokens) == (2_000, 200)
    assert record.cost == Decimal("0.0015") + Decimal("0.0075")


# --- Region, tier, base model, residency -----------------------------------------------------


async def test_messages_are_priced_at_the_tier_that_was_asked_for(
    provider: Replies, client: LiteLLMClient
) -> None:
    provider.answer = response(service_tier="priority")
    given = {**ASKED, "model": "openai/gpt-4o", "api_base": f"{provider.url}/v1"}
    await client.anthropic_messages(**given, service_tier="priority")
    record = outcomes(client)[-1]
    assert record.cost == Decimal("0.00595")
    assert meta(record)["price"]["service_tier"] == "priority"


PLAIN = {"input_tokens": 1_000, "output_tokens": 100}


def priced(model: str, provider: str, usage: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
    """What a record says of a message that was asked for with these arguments."""
    asked = Asked(CALLS["anthropic_messages"], {"model": f"{provider}/{model}", **kwargs})
    answer = message(usage, model)
    return Pricing().complete({**from_response(answer), "provider": provider}, answer, asked)


@pytest.mark.parametrize(
    ("kwargs", "cost"),
    [
        ({}, "0.0045"),
        ({"vertex_location": "us-east5"}, "0.00495"),
        ({"vertex_ai_location": "us-east5"}, "0.00495"),
        ({"vertex_location": "global"}, "0.0045"),
    ],
)
async def test_messages_on_vertex_are_priced_by_their_region(
    kwargs: dict[str, str], cost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERTEXAI_LOCATION", "global")
    fields = priced("claude-sonnet-4-5@20250929", "vertex_ai", PLAIN, **kwargs)
    assert fields["cost"] == Decimal(cost)
    assert fields["meta"]["price"]["vertex_location"] == (*kwargs.values(), "global")[0]


@pytest.mark.parametrize(
    "kwargs",
    [
        {"base_model": "azure/gpt-4o"},
        {"model_info": {"base_model": "azure/gpt-4o"}},
        {"metadata": {"model_info": {"base_model": "azure/gpt-4o"}}},
        {"litellm_metadata": {"model_info": {"base_model": "azure/gpt-4o"}}},
    ],
)
async def test_messages_of_a_deployment_are_priced_by_its_base_model(
    kwargs: dict[str, Any],
) -> None:
    assert "cost" not in priced("ours", "azure", PLAIN)
    fields = priced("ours", "azure", PLAIN, **kwargs)
    assert fields["cost"] == Decimal("0.0035")
    assert fields["meta"]["price"]["base_model"] == "azure/gpt-4o"


async def test_messages_are_priced_by_where_their_data_stays() -> None:
    plain = priced("gpt-5.6", "openai", PLAIN)["cost"]
    kept = priced("gpt-5.6", "openai", PLAIN, api_base="https://eu.api.openai.com/v1")
    assert kept["cost"] == plain * Decimal("1.1")
    assert kept["meta"]["price"]["data_residency"] == "eu"
    anthropic = priced("claude-opus-4-6", "anthropic", PLAIN)["cost"]
    said = priced("claude-opus-4-6", "anthropic", {**PLAIN, "inference_geo": "us"})["cost"]
    asked = priced("claude-opus-4-6", "anthropic", PLAIN, inference_geo="us")["cost"]
    assert said == asked == anthropic * Decimal("1.1")


async def test_the_tier_that_answered_counts_and_not_the_one_asked_for() -> None:
    usage = {"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100}
    for served, cost in (("default", "0.0035"), ("priority", "0.00595"), (None, "0.00595")):
        answer = litellm.ModelResponse(model="gpt-4o", usage=litellm.Usage(**usage))
        if served:
            answer.service_tier = served
        asked = Asked(CALLS["acompletion"], {"model": "openai/gpt-4o", "service_tier": "priority"})
        options = asked.price_options("openai")
        found = compute_cost(answer, model="gpt-4o", custom_llm_provider="openai", **options)
        assert found == Decimal(cost), served


async def test_the_tier_that_another_chunk_of_the_answer_named_is_priced_and_noted() -> None:
    usage = litellm.Usage(prompt_tokens=1_000, completion_tokens=100, total_tokens=1_100)
    answer = litellm.ModelResponse(model="gpt-4o", usage=usage)
    fields = {**from_response(answer), "meta": {"price": {"service_tier": "priority"}}}
    asked = Asked(CALLS["acompletion"], {"model": "openai/gpt-4o", "service_tier": "flex"})
    found = Pricing().complete(fields, answer, asked)
    assert found["cost"] == Decimal("0.00595")
    assert found["meta"]["price"] == {"service_tier": "priority"}


async def test_an_estimate_has_the_price_of_the_call_that_it_stands_for() -> None:
    def cost(fields: dict[str, Any], **kwargs: Any) -> Decimal:
        asked = Asked(CALLS["acompletion"], kwargs)
        found: Decimal = Pricing().complete(fields, None, asked)["cost"]
        return found

    fields = {"usage_source": "estimated", "input_tokens": 1_000, "output_tokens": 100}
    served = "vertex_ai/claude-sonnet-4-5@20250929"
    assert cost(fields, model=served, vertex_location="us-east5") == Decimal("0.00495")
    words = [{"role": "user", "content": "three words here"}]
    dear, plain = estimate_stream("gpt-4o", words, []), estimate_stream("gpt-4o", words, [])
    priority = cost(dear, model="openai/gpt-4o", service_tier="priority")
    assert priority == cost(plain, model="openai/gpt-4o") * Decimal("1.7") > 0


async def test_a_stream_left_early_is_estimated_at_the_tier_that_was_asked_for(
    provider: Replies, client: LiteLLMClient
) -> None:
    costs = {}
    chunk = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": "x"}}],
    }
    provider.answer = sse(chunk, chunk, chunk)
    given = {**ASKED, "model": "openai/gpt-4o", "api_base": f"{provider.url}/v1", "stream": True}
    for tier in ("default", "priority"):
        stream = await client.acompletion(**given, service_tier=tier)
        await anext(stream)
        await stream.aclose()
        record = outcomes(client)[-1]
        assert (record.status, record.usage_source) == ("abandoned", "estimated")
        costs[tier] = record.cost or Decimal(0)
    assert costs["priority"] == costs["default"] * Decimal("1.7") > 0


# --- Background responses --------------------------------------------------------------------


def to(provider: Replies, **given: Any) -> dict[str, Any]:
    return {**given, "api_base": f"{provider.url}/v1", "api_key": "any", "timeout": 20.0}


def making(provider: Replies) -> dict[str, Any]:
    return to(provider, model="openai/gpt-4o", input="hi", background=True)


def asking(provider: Replies, response: str) -> dict[str, Any]:
    return to(provider, custom_llm_provider="openai", response_id=response)


async def test_a_queued_response_has_no_cost_yet(provider: Replies, client: LiteLLMClient) -> None:
    for status in ("queued", "in_progress"):
        provider.answer = {**QUEUED, "status": status}
        await client.aresponses(**making(provider))
        record = outcomes(client)[-1]
        assert (record.status, record.cost, record.usage_source) == ("ok", None, "none")
        assert meta(record)["background"] == {"status": status}


async def test_a_background_response_is_billed_once_however_often_one_asks(
    provider: Replies, client: LiteLLMClient
) -> None:
    provider.answer = QUEUED
    made = await client.aresponses(**making(provider))
    given = asking(provider, made.id)
    await client.aget_responses(**given)
    provider.answer = DONE
    await client.aget_responses(**given)
    await asyncio.gather(*(client.aget_responses(**given) for _ in range(3)))
    assert client.usage.directory is not None
    async with LiteLLMClient(client.usage.directory) as other:
        await other.aget_responses(**given)
    found = sorted(outcomes(client), key=lambda record: record.ts)
    assert [record.call for record in found] == ["aresponses", *["aget_responses"] * 6]
    assert [record.cost for record in found] == [None, 0, Decimal("0.0035"), 0, 0, 0, 0]
    assert (found[2].input_tokens, found[2].output_tokens) == (1_000, 100)
    assert (found[2].provider, found[2].cost_source) == ("openai", "price_map")
    assert meta(found[2])["background"] == {"status": "completed", "counted": True}
    assert {record.cost_source for record in found[3:]} == {"unbilled"}
    assert all(record.input_tokens is None for record in found[3:])


async def test_a_response_that_was_billed_when_it_was_made_is_not_billed_when_it_is_read(
    provider: Replies, client: LiteLLMClient
) -> None:
    for answer, told in ((DONE, {"status": "completed", "counted": True}), (response(), None)):
        provider.answer = {**answer, "id": f"resp_{told is None}"}
        made = await client.aresponses(**making(provider))
        await client.aget_responses(**asking(provider, made.id))
        record, look = outcomes(client)[-2:]
        assert (record.cost, look.cost) == (Decimal("0.0035"), 0)
        assert meta(record).get("background") == told
        assert look.input_tokens is None


async def test_a_streamed_look_bills_nothing_and_a_background_stream_left_early_is_not_estimated(
    provider: Replies, client: LiteLLMClient
) -> None:
    text = {"type": "response.output_text.delta", "delta": "x", "item_id": "m", "output_index": 0}
    parts = [
        {"type": "response.created", "response": {**QUEUED, "status": "in_progress"}},
        {**text, "content_index": 0, "sequence_number": 1},
        {"type": "response.completed", "response": DONE},
    ]
    provider.answer = sse(*parts)
    stream = await client.aresponses(**making(provider), stream=True)
    await anext(stream)
    await stream.aclose()
    left = outcomes(client)[-1]
    assert (left.status, left.cost, left.usage_source) == ("abandoned", None, "none")
    assert meta(left)["background"] == {"status": "in_progress"}
    async for _ in await client.aresponses(**making(provider), stream=True):
        pass
    read = outcomes(client)[-1]
    assert read.cost == Decimal("0.0035")
    assert meta(read)["background"] == {"status": "completed", "counted": True}


@pytest.mark.parametrize(
    "given",
    [
        {"input_cost_per_token": 1e-03, "output_cost_per_token": 1e-03},
        {"metadata": {"model_info": {"id": "1", "input_cost_per_token": 1e-03}}},
    ],
)
async def test_prices_that_came_with_the_call_leave_litellms_figure(given: dict[str, Any]) -> None:
    usage = litellm.Usage(prompt_tokens=1_000, completion_tokens=100, total_tokens=1_100)
    answer = litellm.ModelResponse(model="gpt-4o", usage=usage)
    fields = {**from_response(answer), "cost": Decimal("1.1"), "cost_source": "litellm"}
    plain = {"model": "openai/gpt-4o"}
    own = Pricing().complete(dict(fields), answer, Asked(CALLS["acompletion"], {**plain, **given}))
    assert (own["cost"], own["cost_source"]) == (Decimal("1.1"), "litellm")
    ours = Pricing().complete(dict(fields), answer, Asked(CALLS["acompletion"], plain))
    assert (ours["cost"], ours["cost_source"]) == (Decimal("0.0035"), "price_map")
    assert ours["meta"]["price"] == {"check": "1.1"}
