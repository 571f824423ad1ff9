"""What answers, chunks and exceptions say, read from fakes and from LiteLLM's own objects."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Iterator, Mapping
from decimal import Decimal
from types import SimpleNamespace as Obj
from typing import Any

import pytest

from litellm_ledger import UsageRecord
from litellm_ledger._litellm.members import merged
from litellm_ledger._litellm.outcome import from_exception, from_response, from_stream
from litellm_ledger._litellm.usage import usage_fields

CHAT = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
CHAT_FIELDS = {
    "input_tokens": 11,
    "output_tokens": 7,
    "total_tokens": 18,
    "cache_read_tokens": 4,
    "reasoning_tokens": 2,
}


def nested(value: Any) -> Any:
    """The same as attributes."""
    return Obj(**{k: nested(v) for k, v in value.items()}) if isinstance(value, dict) else value


class Hostile:
    """Raises at every look, even at its class while armed."""

    armed = False

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") and not Hostile.armed:
            return object.__getattribute__(self, name)  # pytest looks at parameters
        raise RuntimeError(name)


class FrozenMapping(Mapping[str, Any]):
    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)


# --- usage_fields ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [dict, nested, FrozenMapping])
def test_chat_usage_of_any_shape(shape: Any) -> None:
    assert usage_fields(shape(CHAT)) == CHAT_FIELDS


def test_responses_input_already_includes_the_cached_tokens() -> None:
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 40},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 109,
    }
    assert usage_fields(usage) == {
        "input_tokens": 100,
        "output_tokens": 9,
        "total_tokens": 109,
        "cache_read_tokens": 40,
        "reasoning_tokens": 5,
    }


def test_anthropic_input_gains_the_cached_tokens() -> None:
    usage = {
        "input_tokens": 120,
        "cache_read_input_tokens": 6_000,
        "cache_creation_input_tokens": 700,
        "output_tokens": 9,
    }
    assert usage_fields(usage) == {
        "input_tokens": 6_820,
        "output_tokens": 9,
        "cache_read_tokens": 6_000,
        "cache_write_tokens": 700,
    }


def test_chat_usage_with_anthropic_extras_counts_them_once() -> None:
    usage = {
        "prompt_tokens": 170,
        "completion_tokens": 9,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 50,
    }
    fields = usage_fields(usage)
    assert fields["input_tokens"] == 170
    assert (fields["cache_read_tokens"], fields["cache_write_tokens"]) == (100, 50)


def test_deepseek_cache_counter() -> None:
    fields = usage_fields(
        {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 8}
    )
    assert fields["cache_read_tokens"] == 8


def test_zero_is_kept_and_nothing_is_invented() -> None:
    assert usage_fields({"prompt_tokens": 5, "completion_tokens": 0}) == {
        "input_tokens": 5,
        "output_tokens": 0,
    }
    assert usage_fields({"prompt_tokens": 5}) == {"input_tokens": 5}
    assert usage_fields({"prompt_tokens": 5, "total_tokens": 0}) == {"input_tokens": 5}
    assert usage_fields({"prompt_tokens": 0, "total_tokens": 0})["total_tokens"] == 0
    assert usage_fields(None) == usage_fields({}) == {}


@pytest.mark.parametrize("bad", [-1, 1.5, 12.0, True, "7", 2**53, 10**30, float("nan"), [], None])
def test_bad_counts_are_unknown(bad: Any) -> None:
    names = ["prompt_tokens", "completion_tokens", "total_tokens", "cache_read_input_tokens"]
    for style in (names, ["input_tokens", "output_tokens", *names[2:]]):
        usage = dict.fromkeys(style, bad) | {"prompt_tokens_details": {"cached_tokens": bad}}
        assert usage_fields(usage) == {}


@pytest.mark.parametrize(
    "junk", [Hostile(), 5, "usage", object(), [1], {"prompt_tokens": Hostile()}]
)
def test_junk_never_raises(junk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hostile, "armed", True)
    assert usage_fields(junk) == {}
    assert from_response(junk)["usage_source"] == "none"
    assert from_response({"usage": junk, "id": "a"}) == {"usage_source": "none", "response_id": "a"}
    assert from_stream([junk, {"usage": junk}], finished=True, final=junk)["usage_source"] == "none"
    assert from_stream(junk, finished=False)["usage_source"] == "none"


# --- from_response ---------------------------------------------------------------------------


def answer(usage: Any = CHAT, **hidden: Any) -> Any:
    return Obj(id="r-1", model="m", usage=usage, _hidden_params=hidden)


def test_complete_answer() -> None:
    response = answer(custom_llm_provider="openai", response_cost=5.55e-06)
    assert from_response(response) == {
        "response_model": "m",
        "response_id": "r-1",
        "provider": "openai",
        **CHAT_FIELDS,
        "usage_source": "provider",
        "cost": Decimal("0.00000555"),
        "cost_source": "litellm",
    }


def test_fields_make_a_record() -> None:
    record = UsageRecord(**from_response(answer(response_cost=1e-6)))
    assert record.cost == Decimal("0.000001")


@pytest.mark.parametrize("zeros", [{"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}])
def test_placeholder_zeros_are_unknown_and_so_is_the_zero_price(zeros: Any) -> None:
    fields = from_response(answer(zeros, response_cost=0.0))
    assert fields["usage_source"] == "none"
    assert not {"input_tokens", "output_tokens", "total_tokens", "cost", "cost_source"} & set(
        fields
    )


def test_price_by_the_image_stands_without_tokens() -> None:
    zeros = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    fields = from_response(answer(zeros, response_cost=0.04))
    assert fields["cost"] == Decimal("0.04")
    assert fields["usage_source"] == "none"


def test_free_is_zero_where_tokens_were_counted_or_none_are_due() -> None:
    assert from_response(answer(CHAT, response_cost=0.0))["cost"] == 0
    assert from_response(answer(None, response_cost=0.0))["cost"] == 0  # a moderation


def test_unknown_price_is_left_out() -> None:
    assert "cost" not in from_response(answer(response_cost=None))


@pytest.mark.parametrize(
    "bad", [-1.0, True, "0.1", float("nan"), float("inf"), 1e300, [], Hostile()]
)
def test_bad_cost_is_unknown(bad: Any) -> None:
    fields = from_response(answer(response_cost=bad))
    assert "cost" not in fields
    assert fields["input_tokens"] == 11


def test_only_the_sum_was_reported() -> None:
    fields = from_response(answer({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 9}))
    assert fields["total_tokens"] == 9
    assert "input_tokens" not in fields
    assert fields["usage_source"] == "provider"


def test_cache_hit_costs_nothing_and_saves_the_price() -> None:
    fields = from_response(answer(response_cost=2e-6, cache_hit=True))
    assert fields["cache_hit"] is True
    assert (fields["cost"], fields["saved_cost"]) == (0, Decimal("0.000002"))


def test_rerank_counts_lie_in_meta() -> None:
    response = Obj(id="r", meta={"tokens": {"input_tokens": 8, "output_tokens": 0}})
    assert from_response(response)["input_tokens"] == 8


def test_one_bad_member_does_not_hide_the_rest() -> None:
    class Half:
        id = "r"
        usage = CHAT

        @property
        def model(self) -> str:
            raise ValueError

        _hidden_params = Hostile()

    fields = from_response(Half())
    assert (fields["response_id"], fields["input_tokens"]) == ("r", 11)


# --- from_stream -----------------------------------------------------------------------------


def chunk(text: str | None = None, finish: str | None = None, usage: Any = None) -> Any:
    choice = Obj(delta=Obj(content=text), finish_reason=finish)
    hidden = {"custom_llm_provider": "openai", "response_cost": None}
    return Obj(id="s", model="m", choices=[choice], usage=usage, _hidden_params=hidden)


def usage_only(usage: Any = CHAT) -> Any:
    return Obj(id="s", model="m", choices=[], usage=usage, _hidden_params={})


TEXT = [chunk(""), chunk("a"), chunk("b"), chunk(None, "stop")]
HEAD = {"response_model": "m", "response_id": "s", "provider": "openai"}


def test_usage_chunk_without_choices_is_the_providers() -> None:
    final = chunk(usage={**CHAT, "cost": 5.55e-06})
    assert from_stream([*TEXT, usage_only()], finished=True, final=final) == {
        **HEAD,
        **CHAT_FIELDS,
        "usage_source": "provider",
        "cost": Decimal("0.00000555"),
        "cost_source": "litellm",
    }


def test_usage_on_the_finish_chunk_is_the_providers() -> None:
    chunks = [*TEXT[:-1], chunk(None, "stop", CHAT)]
    for finished in (True, False):
        fields = from_stream(chunks, finished=finished)
        assert fields["usage_source"] == "provider"
        assert "cost" not in fields


def test_finish_reason_may_follow_the_usage() -> None:
    chunks = [chunk("a"), chunk("b", usage=CHAT), chunk(None, "stop")]
    assert from_stream(chunks, finished=False)["usage_source"] == "provider"


def test_litellms_own_count_is_an_estimate() -> None:
    own = {"prompt_tokens": 10, "completion_tokens": 11, "total_tokens": 21, "cost": 8.1e-06}
    own["completion_tokens_details"] = {"reasoning_tokens": 0}
    assert from_stream(TEXT, finished=True, final=chunk(usage=own)) == {
        **HEAD,
        "input_tokens": 10,
        "output_tokens": 11,
        "total_tokens": 21,
        "usage_source": "estimated",
        "cost": Decimal("0.0000081"),
        "cost_source": "litellm",
    }


def test_no_usage_at_all() -> None:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    for final in (None, chunk(usage=zeros)):
        assert from_stream(TEXT, finished=True, final=final) == {**HEAD, "usage_source": "none"}
    assert from_stream([], finished=True) == {"usage_source": "none"}


@pytest.mark.parametrize("finished", [True, False])
def test_usage_at_the_start_is_no_final_account(finished: bool) -> None:
    start = {**CHAT, "completion_tokens": 1, "total_tokens": 12}
    fields = from_stream([chunk("", usage=start), chunk("a"), chunk("b")], finished=finished)
    assert fields["usage_source"] == "estimated"
    assert (fields["input_tokens"], fields["output_tokens"]) == (11, 1)
    assert "total_tokens" not in fields
    assert "cost" not in fields


def test_running_usage_of_a_stream_left_early_is_a_floor() -> None:
    chunks = [chunk("a", usage={**CHAT, "completion_tokens": 1}), chunk("b", usage=CHAT)]
    assert from_stream(chunks, finished=False)["usage_source"] == "estimated"
    assert from_stream(chunks, finished=False)["output_tokens"] == 7
    assert from_stream(chunks, finished=True)["usage_source"] == "provider"


def test_a_cost_on_the_wire_is_the_providers_and_one_on_the_extra_chunk_litellms() -> None:
    final = chunk(usage={**CHAT, "cost": 5.0})
    theirs = from_stream(
        [chunk("a"), usage_only({**CHAT, "cost": 3.0})], finished=True, final=final
    )
    assert (theirs["cost"], theirs["cost_source"]) == (3, "provider")
    ours = from_stream([chunk("a"), usage_only(CHAT)], finished=True, final=final)
    assert (ours["cost"], ours["cost_source"]) == (5, "litellm")


# --- from_exception --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "exc",
    [
        asyncio.CancelledError(),
        GeneratorExit(),
        KeyboardInterrupt(),
        SystemExit(1),
        concurrent.futures.CancelledError(),
    ],
)
def test_cancelled(exc: BaseException) -> None:
    fields = from_exception(exc)
    assert (fields["status"], fields["error"]) == ("cancelled", type(exc).__name__)


def test_error_is_its_class_and_never_its_text() -> None:
    exc = ValueError("sk-secret")
    exc.status_code, exc.llm_provider = 429, "openai"  # type: ignore[attr-defined]
    assert from_exception(exc) == {
        "status": "error",
        "error": "ValueError",
        "usage_source": "none",
        "meta": {"http_status": 429},
        "provider": "openai",
    }
    assert from_exception(TimeoutError())["status"] == "error"


@pytest.mark.parametrize("code", [None, "500", True, 5.0, 7, 10**6])
def test_odd_status_code_is_left_out(code: Any) -> None:
    exc = ValueError()
    exc.status_code = code  # type: ignore[attr-defined]
    assert "meta" not in from_exception(exc)


# --- LiteLLM's own objects -------------------------------------------------------------------


def test_litellms_own_objects() -> None:
    litellm: Any = pytest.importorskip("litellm")
    usage = litellm.Usage(**CHAT)
    assert usage_fields(usage) == CHAT_FIELDS
    extras = litellm.Usage(
        prompt_tokens=170,
        completion_tokens=9,
        total_tokens=179,
        cache_read_input_tokens=100,
        cache_creation_input_tokens=50,
    )
    fields = usage_fields(extras)
    assert (fields["input_tokens"], fields["cache_read_tokens"]) == (170, 100)
    assert fields["cache_write_tokens"] == 50

    chat = litellm.ModelResponse(id="x", model="m", usage=usage)
    chat._hidden_params = {"custom_llm_provider": "openai", "response_cost": 1e-6}
    fields = from_response(chat)
    assert fields.items() >= {**CHAT_FIELDS, "cost": Decimal("1E-6"), "provider": "openai"}.items()
    assert from_response(litellm.ModelResponse(model="m"))["usage_source"] == "none"

    text = litellm.TextCompletionResponse(id="t", model="m", usage=usage)
    text._hidden_params.response_cost = 2e-6
    assert from_response(text).items() >= {**CHAT_FIELDS, "cost": Decimal("2E-6")}.items()

    error = litellm.RateLimitError("no", llm_provider="openai", model="m")
    assert from_exception(error)["meta"] == {"http_status": 429}


# --- What is priced apart, and who says what it costs -------------------------------------------


def test_audio_and_image_tokens_are_told_apart_where_there_are_any() -> None:
    usage = {
        **CHAT,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 3, "image_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 1, "image_tokens": 0},
    }
    parts = {"audio_input": 3, "image_input": 2, "audio_output": 1}
    assert usage_fields(usage) == {**CHAT_FIELDS, "meta": {"tokens": parts}}


def test_hour_long_cache_writes_are_told_apart() -> None:
    creation = {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 7}
    own = {"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 12}
    assert usage_fields({**own, "cache_creation": creation})["meta"] == {
        "tokens": {"cache_write_1h": 7}
    }
    details = {"cache_creation_token_details": creation, "cache_creation_tokens": 12}
    chat = {**CHAT, "prompt_tokens_details": details}
    assert usage_fields(chat)["meta"] == {"tokens": {"cache_write_1h": 7}}


def test_transcriptions_call_their_details_otherwise() -> None:
    usage = {"type": "tokens", "input_tokens": 30, "output_tokens": 5, "total_tokens": 35}
    usage["input_token_details"] = {"audio_tokens": 30, "text_tokens": 0}  # type: ignore[assignment]
    fields = usage_fields(usage)
    assert (fields["input_tokens"], fields["meta"]) == (30, {"tokens": {"audio_input": 30}})


def test_zeros_that_litellm_put_beside_the_counts_of_a_batch_are_not_the_counts() -> None:
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 6, "output_tokens": 10}
    usage["input_tokens_details"] = {"cached_tokens": 1}  # type: ignore[assignment]
    fields = usage_fields(usage)
    assert (fields["input_tokens"], fields["output_tokens"]) == (6, 10)
    assert fields["cache_read_tokens"] == 1


@pytest.mark.parametrize("tier", ["default", "auto", "standard", None, 5, "s3cr3t text!"])
def test_an_ordinary_service_tier_is_not_noted(tier: Any) -> None:
    response = answer()
    response.service_tier = tier
    assert "meta" not in from_response(response)


def test_a_service_tier_with_a_price_of_its_own_is_noted() -> None:
    response = answer()
    response.service_tier = "flex"
    assert from_response(response)["meta"] == {"price": {"service_tier": "flex"}}
    chunks = [*TEXT, usage_only()]
    chunks[0] = chunk("")
    chunks[0].service_tier = "priority"
    fields = from_stream(chunks, finished=True)
    assert fields["meta"] == {"price": {"service_tier": "priority"}}


@pytest.mark.parametrize("dialect", [("prompt", "completion"), ("input", "output")])
def test_cache_counters_at_the_top_and_in_the_details_are_one_count(
    dialect: tuple[str, str],
) -> None:
    asked, wrote = dialect
    usage: dict[str, Any] = {
        f"{asked}_tokens": 170,
        f"{wrote}_tokens": 9,
        f"{asked}_tokens_details": {"cached_tokens": 100, "cache_creation_tokens": 50},
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 50,
        "prompt_cache_hit_tokens": 100,
        "cached_tokens": 100,
        "num_cached_tokens": 100,
    }
    fields = usage_fields(usage)
    assert fields["input_tokens"] == 170
    assert (fields["cache_read_tokens"], fields["cache_write_tokens"]) == (100, 50)


@pytest.mark.parametrize(
    "said",
    [
        {"server_tool_use": {"web_search_requests": 2}},
        {"prompt_tokens_details": {"web_search_requests": 2}},
        {"num_search_queries": 2},
        {"server_side_tool_usage_details": {"web_search_calls": 2}},
        {"web_search_requests": 2},
    ],
)
def test_web_searches_are_counted_wherever_a_usage_says_them(said: dict[str, Any]) -> None:
    assert usage_fields({**CHAT, **said})["meta"]["tools"] == {"web_searches": 2}


def test_groundings_with_maps_and_pages_that_were_opened_are_counted() -> None:
    said = {
        "prompt_tokens_details": {"google_maps_grounding_requests": 3},
        "server_tool_use": {"browser_open_requests": 2},
    }
    told = usage_fields({**CHAT, **said})["meta"]["tools"]
    assert told == {"maps_groundings": 3, "browser_opens": 2}


def test_what_a_response_shows_of_paid_tools_is_counted() -> None:
    output = [
        {"type": "web_search_call", "action": {"type": "search", "query": "q"}},
        {"type": "web_search_call", "action": {"type": "open_page", "url": "https://e"}},
        {"type": "file_search_call"},
        {"type": "file_search_call"},
        {"type": "code_interpreter_call", "container_id": "n"},
        {"type": "code_interpreter_call", "container_id": "n"},
    ]
    used = from_response({"output": output, "usage": CHAT})["meta"]["tools"]
    assert used == {"web_searches": 1, "file_searches": 2, "containers": 1}
    output = [{"type": "image_generation_call", "status": "completed"}, output[1]]
    said = {"web_search": {"num_requests": 3}}  # as Bedrock counts them
    used = from_response({"output": output, "usage": CHAT, "tool_usage": said})["meta"]["tools"]
    assert used == {"image_generations": 1, "web_searches": 3}


def test_a_cost_that_the_server_said_is_the_providers() -> None:
    said = {**CHAT, "cost": 0.01}
    theirs = from_response(answer(said, custom_llm_provider="openrouter", response_cost=5e-6))
    assert (theirs["cost"], theirs["cost_source"]) == (Decimal("0.01"), "provider")
    breakdown = {**CHAT, "cost": {"total_cost": 0.02}}
    theirs = from_response(answer(breakdown, custom_llm_provider="perplexity"))
    assert (theirs["cost"], theirs["cost_source"]) == (Decimal("0.02"), "provider")
    others = from_response(answer(said, custom_llm_provider="openai", response_cost=5e-6))
    assert (others["cost"], others["cost_source"]) == (Decimal("0.01"), "provider")


def test_meta_is_joined_and_the_rest_is_replaced() -> None:
    both = merged({"a": 1, "meta": {"x": 1, "y": 1}}, {"a": 2, "meta": {"y": 2}})
    assert both == {"a": 2, "meta": {"x": 1, "y": 2}}
    assert merged({"meta": {"x": 1}}, {"a": 2}) == {"meta": {"x": 1}, "a": 2}


def test_what_is_priced_apart_of_the_cache_and_of_citations_is_told_apart() -> None:
    usage = {
        "prompt_tokens": 1_000,
        "completion_tokens": 5,
        "citation_tokens": 20,
        "prompt_tokens_details": {
            "cached_tokens": 600,
            "audio_tokens": 700,
            "cached_tokens_details": {"text_tokens": 100, "audio_tokens": 500, "image_tokens": 101},
            "cache_creation_token_details": {
                "ephemeral_5m_input_tokens": 1,
                "ephemeral_30m_input_tokens": 2,
                "ephemeral_12h_input_tokens": 3,
            },
        },
    }
    assert usage_fields(usage)["meta"]["tokens"] == {
        "audio_input": 700,
        "audio_cached": 500,  # and no images: more than was read from the cache
        "cache_write_30m": 2,
        "cache_write_12h": 3,
        "citation": 20,
    }


COUNTED = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def test_what_an_answer_says_of_its_price_is_noted() -> None:
    usage = {**COUNTED, "speed": "fast", "inference_geo": "us", "search_context_size": "low"}
    said = from_response({"model": "m", "usage": usage, "service_tier": "standard"})
    assert said["meta"]["price"] == {
        "speed": "fast",
        "inference_geo": "us",
        "search_context": "low",
    }
    plain = {**COUNTED, "speed": "standard", "inference_geo": "not_available"}
    assert "meta" not in from_response({"model": "m", "usage": plain})
