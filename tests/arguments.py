"""What every call of LiteLLM is asked with in tests, and how its record is looked at."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from litellm_ledger import UsageRecord
from litellm_ledger._selfcheck.cases import sound
from litellm_ledger.testing import Behaviour, OpenAIServer

__all__ = ["ARGUMENTS", "MESSAGES", "STREAMS", "check", "to"]

MESSAGES = [{"role": "user", "content": "three words here"}]
STREAMS = ("acompletion", "atext_completion", "aresponses", "anthropic_messages")


ARGUMENTS: dict[str, dict[str, Any]] = {
    "acompletion": {"model": "openai/gpt-4o-mini", "messages": MESSAGES},
    "atext_completion": {
        "model": "text-completion-openai/gpt-3.5-turbo-instruct",
        "prompt": "three words here",
    },
    "aembedding": {"model": "openai/text-embedding-3-small", "input": ["three words here"]},
    "aresponses": {"model": "openai/gpt-4o-mini", "input": "three words here"},
    "anthropic_messages": {
        "model": "anthropic/claude-haiku-4-5",
        "messages": MESSAGES,
        "max_tokens": 10,
    },
    "aimage_generation": {"model": "openai/gpt-image-1", "prompt": "three words here", "n": 2},
    "aimage_edit": {
        "model": "openai/gpt-image-1",
        "prompt": "three words here",
        "image": b"\x89PNG\r\n\x1a\n",
    },
    "atranscription": {"model": "openai/whisper-1", "file": sound(3)},
    "aspeech": {"model": "openai/tts-1", "input": "three words here", "voice": "alloy"},
    "amoderation": {"model": "omni-moderation-latest", "input": "three words here"},
    "arerank": {"model": "cohere/rerank-v3.5", "query": "one", "documents": ["two", "three"]},
    "acreate_batch": {
        "completion_window": "24h",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1",
    },
    "aretrieve_batch": {"batch_id": "batch_00000000"},
}


def to(server: OpenAIServer, name: str, behaviour: Behaviour | None = None) -> dict[str, Any]:
    """The arguments of a call to the local server."""
    root = server.base_url
    if name in ("anthropic_messages", "arerank"):
        root = root.removesuffix("/v1")
    headers = {} if behaviour is None else behaviour.headers()
    where = {"api_base": root, "api_key": "any", "extra_headers": headers}
    if name == "arerank":
        where["headers"] = where.pop("extra_headers")
    return {**ARGUMENTS[name], **where, "timeout": 20.0}


def check(record: UsageRecord, name: str, **expected: Any) -> None:
    assert record.call == name
    for field, value in expected.items():
        wanted = Decimal(value) if field == "cost" and value is not None else value
        assert getattr(record, field) == wanted, field
