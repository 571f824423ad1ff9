"""The calls beside chat and its kin, by the provider's own replies: what each leaves on record."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.replies import Replies, replies, sse

from litellm_ledger import Ledger, LiteLLMClient, UsageRecord

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOGLE = {
    "candidates": [
        {"content": {"parts": [{"text": "x"}], "role": "model"}, "finishReason": "STOP"}
    ],
    "usageMetadata": {
        "promptTokenCount": 1_000,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 30,
        "cachedContentTokenCount": 600,
        "toolUsePromptTokenCount": 5,
        "totalTokenCount": 1_055,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 300},
            {"modality": "AUDIO", "tokenCount": 700},
        ],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 500}],
    },
    "modelVersion": "gemini-2.5-flash",
    "responseId": "r",
}
VIDEO = {
    "id": "video_1",
    "object": "video",
    "status": "queued",
    "created_at": 1,
    "model": "sora-2",
    "seconds": "8",
    "size": "720x1280",
}
RESPONSE = {
    "id": "resp_1",
    "object": "response.compaction",
    "created_at": 1,
    "model": "gpt-5.1",
    "output": [],
    "usage": {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120},
}
CONTAINER = {
    "id": "cntr_1",
    "object": "container",
    "created_at": 1,
    "status": "running",
    "expires_after": {"anchor": "last_active_at", "minutes": 20},
    "last_active_at": 1,
    "name": "c",
}
JOB = {
    "id": "ftjob-1",
    "object": "fine_tuning.job",
    "created_at": 1,
    "model": "gpt-4o-mini",
    "status": "queued",
    "training_file": "file-1",
    "hyperparameters": {},
    "result_files": [],
    "organization_id": "o",
    "seed": 0,
    "finished_at": None,
    "fine_tuned_model": None,
    "error": None,
    "trained_tokens": None,
    "validation_file": None,
}
SEARCH = {"results": [{"title": "t", "url": "https://a.b", "snippet": "s"}]}


@pytest_asyncio.fixture(loop_scope="module")
async def client(tmp_path: Path) -> AsyncIterator[LiteLLMClient]:
    async with LiteLLMClient(tmp_path / "usage") as opened:
        yield opened


def call_of(client: LiteLLMClient, name: str) -> Any:
    found: Any = client
    for part in name.split("."):
        found = getattr(found, part)
    return found


def to(server: Replies, path: str = "/v1") -> dict[str, Any]:
    return {"api_base": f"{server.url}{path}", "api_key": "k", "timeout": 20.0}


CASES = [
    ("agenerate_content", {"model": "gemini/gemini-2.5-flash", "contents": "hi"}, "", GOOGLE),
    (
        "avideo_generation",
        {"model": "openai/sora-2", "prompt": "p", "seconds": "8", "size": "720x1280"},
        "/v1",
        VIDEO,
    ),
    ("avideo_remix", {"video_id": "video_1", "prompt": "p"}, "/v1", VIDEO),
    ("acompact_responses", {"model": "openai/gpt-5.1", "input": "hi"}, "/v1", RESPONSE),
    ("acreate_container", {"name": "c"}, "/v1", CONTAINER),
    (
        "acreate_fine_tuning_job",
        {"model": "gpt-4o-mini", "training_file": "file-1"},
        "/v1",
        JOB,
    ),
    ("asearch", {"query": "q", "search_provider": "perplexity"}, "", SEARCH),
    (
        "vector_stores.asearch",
        {"vector_store_id": "vs_1", "query": "q", "custom_llm_provider": "openai"},
        "/v1",
        {"object": "vector_store.search_results.page", "search_query": "q", "data": []},
    ),
]


@pytest.mark.parametrize(("name", "given", "path", "reply"), CASES, ids=[case[0] for case in CASES])
async def test_a_call_is_on_record_once(
    client: LiteLLMClient, tmp_path: Path, name: str, given: Any, path: str, reply: Any
) -> None:
    with replies() as server:
        server.answer = reply
        answer = await call_of(client, name)(**given, **to(server, path), tags={"who": "me"})
    record = answer.usage_record
    assert isinstance(record, UsageRecord)
    assert (record.call, record.status, record.tags) == (name, "ok", {"who": "me"})
    await client.flush()
    on_disk = [each for each in Ledger(tmp_path / "usage").records() if each.kind == "usage"]
    assert on_disk == [record]
    wanted = WANTED[name]
    assert {field: getattr(record, field) for field in wanted} == wanted


WANTED: dict[str, dict[str, Any]] = {
    "agenerate_content": {
        "model": "gemini/gemini-2.5-flash",
        "provider": "gemini",
        "input_tokens": 1_005,
        "output_tokens": 50,
        "cache_read_tokens": 600,
        "reasoning_tokens": 30,
        "usage_source": "provider",
    },
    "avideo_generation": {"model": "openai/sora-2", "provider": "openai"},
    "avideo_remix": {"provider": "openai"},
    "acompact_responses": {"input_tokens": 100, "output_tokens": 20, "usage_source": "provider"},
    "acreate_container": {"model": "openai/container", "provider": "openai"},
    "acreate_fine_tuning_job": {"model": "gpt-4o-mini", "cost": None},
    "asearch": {"model": "perplexity/search", "provider": "perplexity"},
    "vector_stores.asearch": {"model": "openai/search_api"},
}


async def test_googles_stream_is_read_from_its_bytes(client: LiteLLMClient) -> None:
    begun = {"candidates": [{"content": {"parts": [{"text": "o"}], "role": "model"}}]}
    with replies() as server:
        server.answer = sse({**begun, "usageMetadata": {"promptTokenCount": 1_000}}, GOOGLE)
        stream = await client.agenerate_content_stream(
            "gemini/gemini-2.5-flash", "hi", **to(server, "")
        )
        read = b"".join([chunk async for chunk in stream])
    assert read.count(b"data:") == 2
    record = stream.usage_record
    assert record is not None
    assert (record.input_tokens, record.output_tokens) == (1_005, 50)
    assert (record.usage_source, record.stream, record.status) == ("provider", True, "ok")
    assert record.meta["tokens"] == {"audio_input": 700, "audio_cached": 500}


async def test_a_route_that_is_passed_through_is_read_from_its_body(client: LiteLLMClient) -> None:
    body = {"id": "x", "model": "m", "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    with replies() as server:
        server.answer = body
        answer = await client.allm_passthrough_route(
            "POST",
            "chat/completions",
            "m",
            custom_llm_provider="hosted_vllm",
            json={"model": "m", "messages": []},
            **{name: value for name, value in to(server).items() if name != "timeout"},
        )
    assert answer.json() == body
    record = answer.usage_record
    assert (record.input_tokens, record.output_tokens) == (7, 3)
    assert (record.usage_source, record.provider) == ("provider", "hosted_vllm")


async def test_what_costs_nothing_goes_to_litellm_and_on_no_record(
    client: LiteLLMClient, tmp_path: Path
) -> None:
    with replies() as server, client.capture():
        server.answer = {"id": "resp_1", "object": "response", "deleted": True}
        given = {"custom_llm_provider": "openai", **to(server)}
        answer = await client.adelete_responses(response_id="resp_1", **given)
    assert answer.deleted
    await client.flush()
    assert [*Ledger(tmp_path / "usage").records()] == []


async def test_what_no_client_has_is_an_error_that_says_so(client: LiteLLMClient) -> None:
    with pytest.raises(AttributeError, match="aquery"):
        _ = client.aquery
