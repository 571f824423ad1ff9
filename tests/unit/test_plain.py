"""A plain answer is read on a way of its own; both ways say the same of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from litellm_ledger import ModelPrice, UsageRecord
from litellm_ledger._calls.pricing import Pricing
from litellm_ledger._litellm.calls import CALLS, Asked
from litellm_ledger._litellm.load import load_sync
from litellm_ledger._litellm.outcome import _read, _read_response
from litellm_ledger._litellm.plain import plain_fields
from litellm_ledger._litellm.price_options import price_options
from litellm_ledger._records.line import encode
from litellm_ledger._records.record import MAX_INT, unchecked

HIDDEN = {"custom_llm_provider": "openai", "response_cost": 1.35e-05, "additional_headers": {}}
COUNTS = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}


def answer(
    usage: dict[str, Any] | None = None,
    hidden: dict[str, Any] | None = None,
    message: dict[str, Any] | None = None,
    **members: Any,
) -> Any:
    """LiteLLM's own object; the usage's members are put past its checks, as a version may."""
    litellm: Any = load_sync()
    made = litellm.ModelResponse(model="gpt-4o-mini", usage=litellm.Usage(**COUNTS), **members)
    made._hidden_params = {**HIDDEN, **(hidden or {})}
    for name, value in (usage or {}).items():
        if isinstance(value, dict):
            details = litellm.types.utils.PromptTokensDetailsWrapper()
            details.__dict__.update(value)
            value = details
        made.usage.__dict__[name] = value
    made.choices[0].message.__dict__.update(message or {})
    return made


def ways(made: Any) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    return plain_fields(made), _read(_read_response, made)


DETAILS = {"cached_tokens": 4, "audio_tokens": 0, "text_tokens": 6}


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"service_tier": "default"},
        {"hidden": {"provider_response_model": "gpt-4o-mini-2024-07-18"}},
        {"usage": {"prompt_tokens_details": DETAILS}, "message": {"annotations": []}},
        {"usage": {"completion_tokens_details": {"reasoning_tokens": 0}}},
    ],
    ids=str,
)
def test_what_most_answers_look_like_is_plain(made: dict[str, Any]) -> None:
    plain, general = ways(answer(**made))
    assert plain == general
    assert str(general["cost"]) == "0.0000135"


@pytest.mark.parametrize(
    "made",
    [
        {"service_tier": "priority"},
        {"background": True},
        {"output": [{"type": "web_search_call"}]},
        {"hidden": {"cache_hit": True}},
        {"hidden": {"response_cost": 0.0}},
        {"hidden": {"additional_headers": {"llm_provider-x-litellm-response-cost": "1"}}},
        {"usage": {"cost": 0.25}},
        {"usage": {"service_tier": "flex"}},
        {"usage": {"cached_tokens": 3}},
        {"usage": {"cache_read_input_tokens": 3}},
        {"usage": {"total_tokens": 0}},
        {"usage": {"iterations": []}},
        {"usage": {"prompt_tokens_details": {"audio_tokens": 3}}},
        {"usage": {"prompt_tokens_details": {"cache_creation_tokens": 0}}},
        {"usage": {"prompt_tokens_details": {"web_search_requests": 1}}},
        {"message": {"annotations": [{"type": "url_citation"}]}},
    ],
    ids=str,
)
def test_what_a_rule_is_about_is_left_to_the_rules(made: dict[str, Any]) -> None:
    assert plain_fields(answer(**made)) is None


STARTED = UsageRecord(
    kind="started",
    id="w-1",
    seq=1,
    ts=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    operation="w-1",
    attempt=1,
    call="acompletion",
    model="gpt-4o-mini",
    stream=False,
    tags={"user": "alice"},
)


def both_lines(made: Any, kwargs: dict[str, Any], pricing: Pricing) -> tuple[bytes | None, bytes]:
    """The line of an outcome as either way writes it."""
    asked = Asked(CALLS["acompletion"], kwargs)
    base = {"kind": "usage", "latency_ms": 12.345}
    plain = plain_fields(made)
    line = None
    if plain is not None and pricing.complete_plain(plain, asked.model, kwargs):
        line = encode(unchecked(STARTED, {**base, "status": "ok", **plain}))
    fields = pricing.complete(_read(_read_response, made), made, asked)
    return line, encode(replace(STARTED, **base, **fields))


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ({"model": "gpt-4o-mini"}, True),
        ({"model": "openai/gpt-4o-mini", "api_base": "http://127.0.0.1/v1"}, True),
        ({"model": "gpt-4o-mini", "metadata": None}, True),
        ({"model": "gpt-4o-mini", "api_base": "https://eu.api.openai.com/v1"}, False),
        ({"model": "gpt-4o-mini", "service_tier": "flex"}, False),
        ({"model": "gpt-4o-mini", "base_model": "gpt-4o"}, False),
        ({"model": "gpt-4o-mini", "metadata": {"model_info": {"base_model": "gpt-4o"}}}, False),
        ({"model": "own"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_a_price_that_hung_on_something_is_completed_by_the_rules(
    given: dict[str, Any], plain: bool
) -> None:
    pricing = Pricing({"own": ModelPrice(input="1", output="1")})
    line, general = both_lines(answer(), given, pricing)
    assert (line is not None) is plain
    assert line in (None, general)


def test_settings_that_choose_the_price_are_seen_when_they_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing that is remembered of a price outlives what it hung on."""
    litellm: Any = load_sync()

    def is_plain() -> bool:
        line, general = both_lines(answer(), {"model": "gpt-4o-mini"}, Pricing())
        assert line in (None, general)
        return line is not None

    def has_a_region() -> bool:  # releases of LiteLLM differ in what they ask for it
        return bool(price_options({}, model="gpt-4o-mini", provider="openai"))

    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
        assert is_plain()
        with monkeypatch.context() as patch:
            patch.setenv(name, "https://eu.api.openai.com/v1")
            assert is_plain() is not has_a_region()
    for name, value in (
        ("api_base", "https://us.api.openai.com/v1"),
        ("cost_discount_config", {"openai": 0.1}),
        ("cost_margin_config", {"openai": 0.1}),
    ):
        assert is_plain()
        with monkeypatch.context() as patch:
            patch.setattr(litellm, name, value)
            assert is_plain() is (name == "api_base" and not has_a_region())
    assert is_plain()


_AMOUNTS = st.sampled_from([None, 0, 1, 17, MAX_INT, MAX_INT + 1, -1, 2.0, True, "3", 10**6])
_TEXTS = st.sampled_from([None, "", "gpt-4o", 3, "x" * 5_000])
_PARTS = (
    "cached_tokens",
    "reasoning_tokens",
    "audio_tokens",
    "image_tokens",
    "text_tokens",
    "cache_write_tokens",
    "accepted_prediction_tokens",
    "web_search_requests",
    "unheard_of",
)
_DETAILS = st.none() | st.dictionaries(st.sampled_from(_PARTS), _AMOUNTS, max_size=3)
_HIDDEN: Any = {
    "provider_response_model": _TEXTS,
    "custom_llm_provider": _TEXTS,
    "response_cost": st.sampled_from([None, 0.0, -1.0, 1e-13, 0.25, 1e300, 1, "1"])
    | st.floats(0, 10),
    "cache_hit": st.sampled_from([None, True, False]),
    "additional_headers": st.sampled_from(
        [None, {}, {"llm_provider-x-litellm-response-cost": 0.5}, []]
    ),
}
_USAGE: Any = {
    "prompt_tokens": _AMOUNTS,
    "completion_tokens": _AMOUNTS,
    "total_tokens": _AMOUNTS,
    "prompt_tokens_details": _DETAILS,
    "completion_tokens_details": _DETAILS,
    "cost": st.sampled_from([None, 0.5]),
    "cache_read_input_tokens": _AMOUNTS,
    "num_search_queries": _AMOUNTS,
}


@given(
    usage=st.fixed_dictionaries({}, optional=_USAGE),
    hidden=st.fixed_dictionaries({}, optional=_HIDDEN),
    annotations=st.sampled_from([None, [], [{"type": "url_citation"}]]),
    members=st.fixed_dictionaries(
        {},
        optional={
            "service_tier": st.sampled_from([None, "default", "flex", 7]),
            "id": _TEXTS,
            "background": st.sampled_from([None, True, False]),
        },
    ),
    model=st.sampled_from(["gpt-4o-mini", "gemini/gemini-2.5-pro", "unheard-of", ""]),
)
@example(  # reasoning on top of the output: more than a record can hold
    usage={
        "num_search_queries": 0,
        "completion_tokens_details": {"reasoning_tokens": MAX_INT},
    },
    hidden={},
    annotations=None,
    members={},
    model="gpt-4o-mini",
)
def test_both_ways_say_the_same_of_an_answer(
    usage: dict[str, Any],
    hidden: dict[str, Any],
    annotations: Any,
    members: dict[str, Any],
    model: str,
) -> None:
    made = answer(usage, hidden, {"annotations": annotations})
    made.__dict__.update(members)
    plain, general = ways(made)
    if plain is not None:
        assert plain == general
        assert str(plain["cost"]) == str(general["cost"])
    line, written = both_lines(made, {"model": model}, Pricing())
    assert line in (None, written)
