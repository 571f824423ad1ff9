"""Fees that LiteLLM gets wrong or leaves out: literal replies, the cost and its derivation.

The prices are those of LiteLLM's map and, where it has none, of the providers' lists
(``_prices/fees.py``). They are written out here, so that a change of either is seen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import litellm
import pytest
import pytest_asyncio
from tests.replies import replies

from litellm_ledger import LiteLLMClient, UsageRecord
from litellm_ledger._reading.price_check import check_prices

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:(?s)Pydantic serializer warnings:UserWarning"),
]
D = Decimal


@pytest_asyncio.fixture(loop_scope="module")
async def client(tmp_path: Path) -> AsyncIterator[LiteLLMClient]:
    """A client; what it recorded comes out the same from its lines and the price book alone."""
    async with LiteLLMClient(tmp_path / "usage") as opened:
        yield opened
    checked = check_prices(tmp_path / "usage")
    assert checked.ok, checked
    assert not checked.missing


async def made(call: Any, reply: dict[str, Any], path: str = "/v1", **given: Any) -> UsageRecord:
    with replies() as server:
        server.answer = reply
        answer = await call(api_base=server.url + path, api_key="k", **given)
    record = answer.usage_record
    assert isinstance(record, UsageRecord)
    return record


# -- OpenAI: a thousand tokens read, a hundred written ---------------------------------------------

TOKENS = D("0.00225")  # 1,000 × $1.25/M + 100 × $10/M
SEARCH = {"type": "web_search_call", "id": "ws", "status": "completed"}
OPENED = {**SEARCH, "action": {"type": "open_page", "url": "https://e"}}
SEARCHED = {**SEARCH, "action": {"type": "search", "query": "q"}}
FILES = {"type": "file_search_call", "id": "fs", "status": "completed", "queries": ["q"]}


def run(container: str) -> dict[str, Any]:
    return {
        "type": "code_interpreter_call",
        "id": "ci",
        "status": "completed",
        "code": "1",
        "container_id": container,
        "outputs": [],
    }


def response(*output: dict[str, Any]) -> dict[str, Any]:
    text = {"type": "output_text", "text": "x", "annotations": []}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-5",
        "status": "completed",
        "output": [
            *output,
            {
                "type": "message",
                "id": "m",
                "role": "assistant",
                "status": "completed",
                "content": [text],
            },
        ],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 1_000,
            "output_tokens": 100,
            "total_tokens": 1_100,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }


@pytest.mark.parametrize(
    ("output", "fees"),
    [
        # LiteLLM: nothing, or one fee, or $2.50 for the thousand; 2 × $2.50/1,000
        ([FILES, FILES], "0.005"),
        # LiteLLM: the web search alone; 1 × $10/1,000 + 2 × $2.50/1,000
        ([SEARCHED, FILES, FILES], "0.015"),
        # LiteLLM: nothing; two runs in one container, $0.03
        ([run("c1"), run("c1")], "0.03"),
        # two containers, 2 × $0.03
        ([run("c1"), run("c2")], "0.06"),
        # LiteLLM: three searches; a page that is opened is none: 1 × $10/1,000
        ([SEARCHED, OPENED, OPENED], "0.01"),
        # all of them
        ([SEARCHED, OPENED, FILES, run("c1"), run("c1")], "0.0425"),
    ],
)
async def test_openais_tools_each_have_their_fee(
    client: LiteLLMClient, output: list[dict[str, Any]], fees: str
) -> None:
    record = await made(client.aresponses, response(*output), model="openai/gpt-5", input="q")
    assert record.cost == TOKENS + D(fees), record
    assert record.cost_source == "price_map"


async def test_an_image_that_a_tool_made_is_never_left_out_in_silence(
    client: LiteLLMClient,
) -> None:
    image = {"type": "image_generation_call", "id": "ig", "status": "completed", "result": "eA=="}
    reply = response(image)
    record = await made(client.aresponses, reply, model="openai/gpt-5", input="q")
    assert record.cost is None  # which model made it is not said, and LiteLLM's figure lacks it
    assert record.meta["unpriced"] == ["image_generation_cost_per_call"]
    assert record.meta["tools"] == {"image_generations": 1}


async def test_a_container_is_billed_once_however_many_answers_run_in_it(
    client: LiteLLMClient,
) -> None:
    box = {"id": "c9", "object": "container", "created_at": 1, "status": "running", "name": "n"}
    records = [await made(client.acreate_container, box, name="n")]
    for ids in (["c9"], ["c8"], ["c8", "c9"]):
        reply = response(*map(run, ids))
        records.append(await made(client.aresponses, reply, model="openai/gpt-5", input="q"))
    assert [each.cost for each in records] == [D("0.03"), TOKENS, TOKENS + D("0.03"), TOKENS]
    assert [each.meta.get("tools") for each in records] == [
        {"containers": 1},
        None,
        {"containers": 1},
        None,
    ]


# -- Perplexity -----------------------------------------------------------------------------------


def chat(usage: dict[str, Any], model: str = "m", **message: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "usage": usage,
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "x", **message},
            }
        ],
    }


HELLO = [{"role": "user", "content": "hi"}]


async def test_perplexitys_deep_research_without_its_own_figure(client: LiteLLMClient) -> None:
    usage = {
        "prompt_tokens": 33,
        "completion_tokens": 7_163,
        "total_tokens": 7_196,
        "citation_tokens": 20_016,
        "reasoning_tokens": 73_997,
        "num_search_queries": 18,
    }
    reply = {**chat(usage), "citations": ["https://e/1", "https://e/2"]}  # LiteLLM counts these
    record = await made(
        client.acompletion, reply, "", model="perplexity/sonar-deep-research", messages=HELLO
    )
    # 33 × $2/M + 7,163 × $8/M + 73,997 × $3/M + 20,016 × $2/M + 18 × $5/1,000
    assert record.cost == D("0.409393"), record
    assert (record.output_tokens, record.reasoning_tokens) == (81_160, 73_997)


@pytest.mark.parametrize(
    ("asked", "said", "fee"),
    [
        ({}, {}, "0.005"),
        ({"search_context_size": "high"}, {}, "0.012"),
        ({}, {"search_context_size": "medium"}, "0.008"),
    ],
)
async def test_perplexitys_other_models_have_a_fee_for_each_request(
    client: LiteLLMClient, asked: dict[str, Any], said: dict[str, Any], fee: str
) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110, **said}
    more = {"web_search_options": asked} if asked else {}
    record = await made(
        client.acompletion, chat(usage), "", model="perplexity/sonar", messages=HELLO, **more
    )
    assert record.cost == D("0.00011") + D(fee)  # 110 × $1/M, and the fee


# -- Anthropic, Gemini, xAI, Groq -----------------------------------------------------------------


async def test_anthropics_searches_are_ten_dollars_the_thousand(client: LiteLLMClient) -> None:
    reply = {
        "id": "msg",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "x"}],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": 1_000,
            "output_tokens": 100,
            "server_tool_use": {"web_search_requests": 3},
        },
    }
    for call in (client.acompletion, client.anthropic_messages):
        record = await made(
            call, reply, "", model="anthropic/claude-sonnet-4-5", messages=HELLO, max_tokens=9
        )
        # 1,000 × $3/M + 100 × $15/M + 3 × $10/1,000
        assert record.cost == D("0.0345"), record


@pytest.mark.parametrize(
    ("model", "cost"),
    [
        ("gemini-2.5-flash", "0.03555"),  # 1,000 × $0.30/M + 100 × $2.50/M, one prompt: $35/1,000
        ("gemini-3.1-pro-preview", "0.0312"),  # 1,000 × $2/M + 100 × $12/M + 2 × $14/1,000
    ],
)
async def test_gemini_bills_a_prompt_or_each_query(
    client: LiteLLMClient, model: str, cost: str
) -> None:
    reply = {
        "candidates": [
            {
                "content": {"role": "model", "parts": [{"text": "x"}]},
                "finishReason": "STOP",
                "groundingMetadata": {"webSearchQueries": ["a", "b"]},
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 1_000,
            "candidatesTokenCount": 100,
            "totalTokenCount": 1_100,
        },
        "modelVersion": model,
    }
    record = await made(client.acompletion, reply, "", model=f"gemini/{model}", messages=HELLO)
    assert record.cost == D(cost), record


async def test_xais_searches_are_five_dollars_the_thousand(client: LiteLLMClient) -> None:
    usage = {
        "prompt_tokens": 1_000,
        "completion_tokens": 100,
        "total_tokens": 1_100,
        "server_side_tool_usage_details": {"web_search_calls": 2},
    }
    record = await made(client.acompletion, chat(usage), model="xai/grok-4.3", messages=HELLO)
    # 1,000 × $1.25/M + 100 × $2.50/M + 2 × $5/1,000, of xAI's list: the map has no price of it
    assert record.cost == D("0.0115")


async def test_groqs_browser_has_a_fee_for_a_search_and_one_for_a_page(
    client: LiteLLMClient,
) -> None:
    usage = {"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100}
    tools = [
        {"type": "browser.search", "index": 0, "arguments": "{}"},
        {"type": "browser.open", "index": 1, "arguments": "{}"},
        {"type": "browser.open", "index": 2, "arguments": "{}"},
    ]
    record = await made(
        client.acompletion,
        {**chat(usage, executed_tools=tools), "service_tier": "on_demand"},
        model="groq/openai/gpt-oss-120b",
        messages=HELLO,
    )
    # 1,000 × $0.15/M + 100 × $0.60/M + 1 × $5/1,000 + 2 × $1/1,000
    assert record.cost == D("0.00721"), record


# -- units ----------------------------------------------------------------------------------------


async def test_an_image_without_a_count_of_tokens_has_its_price_by_size_and_quality(
    client: LiteLLMClient,
) -> None:
    reply = {"created": 1, "data": [{"b64_json": "eA=="}] * 2}
    asked = {"model": "openai/gpt-image-1", "prompt": "p", "size": "1024x1536"}
    record = await made(client.aimage_generation, reply, **asked, quality="high", n=2)
    assert record.cost == D("0.5")  # LiteLLM: 0; 2 × $0.25, the map's high/1024-x-1536/gpt-image-1
    assert record.meta["price"] == {"size": "1024x1536", "quality": "high"}
    assert record.cost_source == "price_map"

    unknown = await made(client.aimage_generation, reply, **asked)
    assert unknown.cost is None  # nobody knows the quality that "auto" came to
    assert unknown.meta["unpriced"] == ["output_cost_per_image"]


async def test_speech_by_tokens_that_nobody_counts_is_unknown(client: LiteLLMClient) -> None:
    record = await made(
        client.aspeech, {}, model="openai/gpt-4o-mini-tts", input="some words", voice="alloy"
    )
    assert record.cost is None  # LiteLLM: the price of the input alone
    assert record.characters == 10


async def test_a_ranking_by_tokens_is_priced_by_them(
    client: LiteLLMClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"input_cost_per_token": 5e-08, "litellm_provider": "cohere", "mode": "rerank"}
    monkeypatch.setitem(litellm.model_cost, "rerank-v5.0-pro", entry)  # older maps have it not
    reply = {
        "id": "r",
        "results": [{"index": 0, "relevance_score": 0.5}],
        "meta": {"billed_units": {"total_tokens": 1_000}},
    }
    record = await made(
        client.arerank, reply, "", model="cohere/rerank-v5.0-pro", query="q", documents=["d"]
    )
    assert record.cost == D("0.00005")  # LiteLLM: 0; 1,000 × $0.05/M
    assert (record.input_tokens, record.usage_source) == (1_000, "provider")


async def test_pages_that_are_annotated_have_their_own_price(client: LiteLLMClient) -> None:
    reply = {
        "pages": [],
        "model": "mistral-ocr-latest",
        "usage_info": {"pages_processed": 3, "pages_processed_annotation": 2},
    }
    document = {"type": "document_url", "document_url": "https://e/x.pdf"}
    record = await made(client.aocr, reply, model="mistral/mistral-ocr-latest", document=document)
    assert record.cost == D("0.022")  # 3 × $4/1,000 + 2 × $5/1,000
    assert record.meta["units"] == {"annotated_pages": 2}
