"""What a record says, in the words of the conventions for generative AI."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from litellm_ledger import UsageRecord
from litellm_ledger._telemetry.capped import OTHER, Capped
from litellm_ledger._telemetry.conventions import (
    SECONDS,
    TOKENS,
    attributes,
    billed,
    by_modality,
    error_type,
    operation,
    provider,
)


@pytest.mark.parametrize(
    ("call", "spelled"),
    [
        ("acompletion", "chat"),
        ("aresponses", "chat"),
        ("anthropic_messages", "chat"),
        ("atext_completion", "text_completion"),
        ("aembedding", "embeddings"),
        ("agenerate_content_stream", "generate_content"),
        ("asearch", "retrieval"),
        ("aimage_generation", "image_generation"),
        ("arerank", "rerank"),
        (None, "unknown"),
    ],
)
def test_an_operation_has_the_name_of_the_conventions(call: str | None, spelled: str) -> None:
    assert operation(call) == spelled


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("openai", "openai"),
        ("azure", "azure.ai.openai"),
        ("bedrock_converse", "aws.bedrock"),
        ("gemini", "gcp.gemini"),
        ("vertex_ai-anthropic_models", "gcp.vertex_ai"),
        ("mistral", "mistral_ai"),
        ("xai", "x_ai"),
        ("hosted_vllm", "hosted_vllm"),
        (None, "unknown"),
    ],
)
def test_a_provider_has_the_name_of_the_conventions(name: str | None, spelled: str) -> None:
    assert provider(name) == spelled


def test_the_buckets_are_those_that_the_conventions_advise() -> None:
    assert [round(one, 2) for one in SECONDS] == list(SECONDS)
    assert (SECONDS[0], SECONDS[-1], len(SECONDS)) == (0.01, 81.92, 14)
    assert (TOKENS[0], TOKENS[1], TOKENS[-1]) == (1, 4, 67_108_864)


def test_only_billable_tokens_count() -> None:
    def tokens(**fields: Any) -> tuple[int | None, ...] | None:
        return billed(UsageRecord(**fields), estimated=False)

    both = {"input_tokens": 10, "output_tokens": 5}
    assert tokens(**both, reasoning_tokens=2) == (10, 5, None, None, 2)
    assert tokens(**both, cache_hit=True, saved_cost=Decimal(1)) is None
    assert tokens(status="cancelled") is None
    assert tokens(**both, usage_source="estimated") is None
    assert billed(UsageRecord(**both, usage_source="estimated"), estimated=True) is not None
    cohere = {"tokens": {"billed_input": 7, "billed_output": 3}}
    assert tokens(**both, meta=cohere) == (7, 3, None, None, None)
    assert tokens(**both, meta={"tokens": {"billed_input": -1}}) == (10, 5, None, None, None)
    assert tokens(**both, meta={"tokens": "7"}) == (10, 5, None, None, None)


def test_tokens_are_split_by_modality_where_the_provider_does() -> None:
    mixed = UsageRecord(input_tokens=100, meta={"tokens": {"audio_input": 30, "image_input": 20}})
    assert dict(by_modality(mixed, "input", 100)) == {"audio": 30, "image": 20, "text": 50}
    assert list(by_modality(mixed, "output", 9)) == [("unknown", 9)]
    absurd = UsageRecord(input_tokens=10, meta={"tokens": {"audio_input": 30}})
    assert list(by_modality(absurd, "input", 10)) == [("unknown", 10)]


def test_an_error_has_its_class_and_a_stream_left_early_is_none() -> None:
    assert error_type(UsageRecord(status="error", error="RateLimitError")) == "RateLimitError"
    assert error_type(UsageRecord(status="error")) == "_OTHER"
    assert error_type(UsageRecord(status="cancelled")) == "CancelledError"
    assert error_type(UsageRecord(status="abandoned")) is None
    assert error_type(UsageRecord()) is None


def test_what_is_not_known_is_no_attribute() -> None:
    assert attributes(UsageRecord(model="m")) == {
        "gen_ai.operation.name": "unknown",
        "gen_ai.provider.name": "unknown",
        "gen_ai.request.model": "m",
    }


def test_different_values_are_bounded() -> None:
    capped = Capped(2)
    assert [capped(value) for value in ("a", "b", "c", "a", "d")] == ["a", "b", OTHER, "a", OTHER]
    assert len(Capped(1)("x" * 5_000)) == 128
