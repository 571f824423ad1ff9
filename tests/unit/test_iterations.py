"""Usages of answers that took several requests, and answers that are not there yet."""

from __future__ import annotations

import json
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from tests.replies import sse

from litellm_ledger import ModelPrice
from litellm_ledger._calls.captured import _asked
from litellm_ledger._calls.pricing import Pricing
from litellm_ledger._litellm.anthropic_events import MessagesReader
from litellm_ledger._litellm.calls import CALLS, Asked
from litellm_ledger._litellm.load import load_sync
from litellm_ledger._litellm.outcome import from_response
from litellm_ledger._litellm.stream_readers import LookReader, ResponsesReader
from litellm_ledger._litellm.usage import parts, summed, usage_fields
from litellm_ledger._prices.computed import compute
from litellm_ledger._prices.entry import Entry

COMPACTION = {
    "type": "compaction",
    "input_tokens": 180_000,
    "output_tokens": 3_500,
    "cache_read_input_tokens": 7,
    "cache_creation": {"ephemeral_1h_input_tokens": 11, "ephemeral_5m_input_tokens": 2},
    "cache_creation_input_tokens": 13,
}
LAST = {
    "type": "message",
    "input_tokens": 23_000,
    "output_tokens": 1_000,
    "cache_creation": {"ephemeral_1h_input_tokens": 1},
    "cache_creation_input_tokens": 1,
}
USAGE = {
    "input_tokens": 23_000,
    "output_tokens": 1_000,
    "cache_creation_input_tokens": 1,
    "service_tier": "standard",
    "server_tool_use": {"web_search_requests": 2},
    "iterations": [COMPACTION, LAST],
}
COUNTED = {
    "input_tokens": 203_021,
    "output_tokens": 4_500,
    "cache_read_tokens": 7,
    "cache_write_tokens": 14,
    "meta": {"tokens": {"cache_write_1h": 12}, "tools": {"web_searches": 2}},
}


def test_tokens_are_the_sum_over_all_iterations() -> None:
    assert usage_fields(USAGE) == COUNTED


def test_a_streams_tokens_are_the_sum_over_all_iterations() -> None:
    reader = MessagesReader(None)
    begun = {"type": "message_start", "message": {"usage": {"input_tokens": 23_000}}}
    reader.see(sse(begun, {"type": "message_delta", "usage": USAGE}, {"type": "message_stop"}))
    assert reader.fields(finished=True) == {**COUNTED, "usage_source": "provider"}


def test_tools_are_those_of_the_whole_answer_and_tiers_those_of_each_part() -> None:
    first, last = parts(USAGE)
    assert "server_tool_use" not in first
    assert last["server_tool_use"] == {"web_search_requests": 2}
    assert first["service_tier"] == last["service_tier"] == "standard"
    assert (first["input_tokens"], last["input_tokens"]) == (180_000, 23_000)


def test_a_usage_that_litellm_has_summed_is_not_summed_again() -> None:
    usage = {"prompt_tokens": 203_000, "completion_tokens": 4_500, "iterations": [COMPACTION, LAST]}
    assert parts(usage) == []
    assert usage_fields(usage)["input_tokens"] == 203_000


@pytest.mark.parametrize("odd", [None, [], {}, "x", [1], [None, LAST]])
def test_iterations_that_cannot_be_read_leave_the_usage_as_it_is(odd: Any) -> None:
    usage = {"input_tokens": 5, "output_tokens": 6, "iterations": odd}
    assert summed(usage) is usage
    assert usage_fields(usage)["input_tokens"] == 5


def test_an_iteration_whose_count_cannot_be_read_makes_the_usage_unknown() -> None:
    usage = {"input_tokens": 5, "output_tokens": 6, "iterations": [{**LAST, "input_tokens": "x"}]}
    assert not {"input_tokens", "output_tokens"} & set(usage_fields(usage))


# --- Background responses --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"status": "queued", "background": True}, {"status": "queued"}),
        ({"status": "failed", "background": True}, {"status": "failed"}),
        ({"status": "completed", "background": False}, None),
        ({"status": "completed"}, None),
    ],
)
def test_a_response_in_the_background_says_how_it_is_doing(answer: Any, told: Any) -> None:
    for found in (answer, SimpleNamespace(**answer)):
        assert (from_response(found).get("meta") or {}).get("background") == told


def test_one_that_is_done_and_counted_says_so() -> None:
    usage = {"input_tokens": 5, "output_tokens": 6}
    done = {"status": "completed", "background": True, "usage": usage}
    told = {"status": "completed", "counted": True}
    assert from_response(done)["meta"]["background"] == told
    going = {**done, "status": "in_progress"}
    assert from_response(going)["meta"]["background"] == {"status": "in_progress"}


def test_a_stream_of_one_runs_on_until_its_last_event() -> None:
    reader = ResponsesReader(None)
    assert not reader.runs_on
    response = {"id": "resp_1", "status": "in_progress", "background": True}
    reader.see({"type": "response.created", "response": response})
    assert reader.runs_on
    reader.see({"type": "response.completed", "response": {**response, "status": "completed"}})
    assert not reader.runs_on


def test_a_stream_that_looks_at_a_response_counts_nothing() -> None:
    usage = {"input_tokens": 5, "output_tokens": 6}
    reader = LookReader(None)
    reader.see({"type": "response.completed", "response": {"id": "resp_1", "usage": usage}})
    fields = reader.fields(finished=True)
    assert fields == {
        "response_id": "resp_1",
        "usage_source": "none",
        "cost": 0,
        "cost_source": "unbilled",
    }
    assert reader.answer() is None
    assert reader.runs_on


# --- Captured calls --------------------------------------------------------------------------


def test_a_captured_call_keeps_what_its_price_hangs_on_and_no_more() -> None:
    request = {
        "model": "azure/ours",
        "messages": [],
        "api_key": "sk-secret",
        "service_tier": "priority",
        "vertex_location": "us-east5",
        "api_base": "https://eu.api.openai.com/v1",
        "metadata": {"model_info": {"base_model": "azure/gpt-4o"}, "user": "alice"},
    }
    asked = _asked("acompletion", request, None)
    assert dict(asked.kwargs) == {
        "model": "azure/ours",
        "messages": [],
        "service_tier": "priority",
        "vertex_location": "us-east5",
        "api_base": "https://eu.api.openai.com/v1",
        "base_model": "azure/gpt-4o",
    }
    assert asked.price_options("azure") == {
        "service_tier": "priority",
        "base_model": "azure/gpt-4o",
    }


@pytest.mark.parametrize("count", [-5, "5", True, None, 0.5])
def test_what_is_no_count_makes_the_sum_unknown(count: Any) -> None:
    split = [{"input_tokens": count, "output_tokens": 1}, {"input_tokens": 10, "output_tokens": 5}]
    total = summed({"input_tokens": 10, "output_tokens": 5, "iterations": split})
    assert total["input_tokens"] == (10 if count is None else None)
    assert total["output_tokens"] == 6


def test_a_price_of_the_users_is_not_put_on_the_tokens_of_another_model() -> None:
    pricing = Pricing({"anthropic/claude-sonnet-4-5": ModelPrice(input="1", output="1")})
    asked = Asked(CALLS["anthropic_messages"], {"model": "anthropic/claude-sonnet-4-5"})
    own = {"input_tokens": 10, "output_tokens": 5}
    for model, unpriced in (("claude-opus-4-1", ["iterations"]), ("claude-sonnet-4-5-x", None)):
        iterations = [{"model": model, "input_tokens": 1000, "output_tokens": 100}, own]
        answer = {"type": "message", "usage": {**own, "iterations": iterations}}
        fields = pricing.complete(from_response(answer), answer, asked)
        assert fields["meta"].get("unpriced") == unpriced
        assert ("cost" in fields) is (unpriced is None)


@pytest.mark.parametrize("advisor", [None, "claude-opus-4-6"])
def test_each_iteration_is_priced_by_its_own_context_and_model_and_again_from_the_record(
    advisor: str | None,
) -> None:
    load_sync()
    iterations = [COMPACTION, {**LAST, **({"model": advisor} if advisor else {})}]
    answer = {"model": "claude-sonnet-4-5", "usage": {**USAGE, "iterations": iterations}}
    asked = Asked(CALLS["anthropic_messages"], {"model": "anthropic/claude-sonnet-4-5"})
    kept: dict[str, Entry] = {}

    def keep(version: str, text: str, litellm: str) -> None:
        told = json.loads(text)
        kept[version] = Entry(told["key"], told["entry"])

    given = {**from_response(answer), "provider": "anthropic"}
    found = Pricing(None, keep).complete(given, answer, asked)
    # (180,000 x 3 + 7 x 0.3 + 2 x 3.75 + 11 x 6 + 3,500 x 15 dollars) / 1,000,000, and
    # (23,000 x 3 + 1 x 6 + 1,000 x 15) / 1,000,000 or 5, 10 and 25 by the advisor, and 2 searches
    other = "0.14001" if advisor else "0.084006"
    assert found["cost"] == Decimal("0.5925756") + Decimal(other) + Decimal("0.02")
    assert found["cost_source"] == "price_map"
    assert [part.get("model") for part in found["meta"]["parts"]] == [None, advisor]
    assert kept.keys() == {part["price_version"] for part in found["meta"]["parts"]}
    fields = {**found, "call": "anthropic_messages"}
    main = kept[found["price_version"]]
    assert compute(main, fields, kept.get).cost == found["cost"]
    if advisor:
        assert compute(main, fields).missing == ("price_version",)
