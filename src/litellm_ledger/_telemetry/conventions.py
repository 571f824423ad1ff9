"""How the conventions for generative AI spell what a record says.

Owns names, units and bucket boundaries: those of OpenTelemetry's semantic-conventions-genai
(gen-ai-metrics.md, gen-ai-token-metrics.md, client-inference.md; looked up on 2026-11-29) and of
``opentelemetry-util-genai`` 1.3b0.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from litellm_ledger._records.record import Fields

__all__ = [
    "SECONDS",
    "TOKENS",
    "Tokens",
    "attributes",
    "billed",
    "by_modality",
    "error_type",
    "operation",
    "provider",
]

SECONDS: Final = tuple(0.01 * 2**power for power in range(14))
"""Bucket boundaries of durations, in seconds: 0.01 to 81.92."""

TOKENS: Final = tuple(4**power for power in range(14))
"""Bucket boundaries of token counts: 1 to 67,108,864."""

_OPERATIONS: Final = {
    "acompact_responses": "chat",
    "acompletion": "chat",
    "aembedding": "embeddings",
    "agenerate_content": "generate_content",
    "agenerate_content_stream": "generate_content",
    "aget_responses": "chat",  # of a response made in the background, which is counted there
    "anthropic_messages": "chat",
    "aresponses": "chat",
    "asearch": "retrieval",
    "atext_completion": "text_completion",
    "completion": "chat",
    "interactions.acreate": "generate_content",
    "vector_stores.asearch": "retrieval",
}
_PROVIDERS: Final = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "azure_text": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "bedrock_mantle": "aws.bedrock",
    "cohere_chat": "cohere",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "sagemaker": "aws.sagemaker",
    "sagemaker_chat": "aws.sagemaker",
    "text-completion-openai": "openai",
    "vertex_ai": "gcp.vertex_ai",
    "vertex_ai_beta": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "watsonx_text": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""LiteLLM's names and those of the conventions, where they differ."""

_UNKNOWN: Final = "unknown"


class Tokens(NamedTuple):
    """The billable tokens of a call; ``None`` is unknown.

    Attributes:
        input, output: all of them.
        cache_read, cache_write: parts of the input.
        reasoning: a part of the output.
    """

    input: int | None
    output: int | None
    cache_read: int | None
    cache_write: int | None
    reasoning: int | None


def operation(call: str | None) -> str:
    """Return ``gen_ai.operation.name`` of a call: ``acompletion`` is ``chat``."""
    if call is None:
        return _UNKNOWN
    return _OPERATIONS.get(call) or call.removeprefix("a")


def provider(name: str | None) -> str:
    """Return ``gen_ai.provider.name`` of LiteLLM's name of a provider."""
    if name is None:
        return _UNKNOWN
    if name.startswith("vertex_ai"):
        return "gcp.vertex_ai"
    return _PROVIDERS.get(name, name)


def attributes(record: Fields) -> dict[str, str]:
    """Return what every metric of a call has."""
    found = {
        "gen_ai.operation.name": operation(record.call),
        "gen_ai.provider.name": provider(record.provider),
    }
    if record.model:
        found["gen_ai.request.model"] = record.model
    if record.response_model:
        found["gen_ai.response.model"] = record.response_model
    return found


def error_type(record: Fields) -> str | None:
    """Return ``error.type``; ``None`` for an outcome that is no error, as a stream left early."""
    if record.status == "cancelled":
        return "CancelledError"
    return record.error or "_OTHER" if record.status == "error" else None


def billed(record: Fields, *, estimated: bool) -> Tokens | None:
    """Return the billable tokens of an outcome; ``None``: there are none, or they are unknown.

    Args:
        estimated: also those that this library has counted.
    """
    if record.cache_hit or record.usage_source == "none":
        return None
    if record.usage_source == "estimated" and not estimated:
        return None
    parts = _parts(record)
    return Tokens(
        parts.get("billed_input", record.input_tokens),
        parts.get("billed_output", record.output_tokens),
        record.cache_read_tokens,
        record.cache_write_tokens,
        record.reasoning_tokens,
    )


def by_modality(record: Fields, kind: str, count: int) -> Iterator[tuple[str, int]]:
    """Split a count by modality: text, image, audio; ``unknown`` where the provider does not.

    Args:
        kind: of which tokens: ``input``, ``output`` or ``cached``.
        count: all of them.
    """
    parts = _parts(record)
    named = {of: parts.get(f"{of}_{kind}", 0) for of in ("audio", "image", "video")}
    rest = count - sum(named.values())
    if not any(named.values()) or rest < 0:
        yield _UNKNOWN, count
        return
    for modality, part in (*named.items(), ("text", rest)):
        if part:
            yield modality, part


def _parts(record: Fields) -> dict[str, int]:
    """Return ``meta.tokens`` as far as it is what FORMAT.md says: users write ``meta`` as well."""
    parts: Any = record.meta.get("tokens")
    if not isinstance(parts, dict):
        return {}
    return {name: n for name, n in parts.items() if type(n) is int and n >= 0}
