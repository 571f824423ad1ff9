"""The models of the installed price map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import litellm

_ASK_THE_PROVIDER: Final = {"chatgpt", "github_copilot", "huggingface", "lemonade", "ollama"}
"""Providers that LiteLLM logs in to, or fetches from, to price a model."""


def models(*modes: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield every model of these modes, with its provider and its entry."""
    known = {getattr(provider, "value", provider) for provider in litellm.provider_list}
    for key, entry in litellm.model_cost.items():
        if entry.get("mode") not in modes or key == "sample_spec":
            continue
        provider = entry.get("litellm_provider") or ""
        if provider == "bedrock_converse":
            provider = "bedrock"
        elif provider not in known:
            provider = provider.partition("-")[0]
        if provider not in _ASK_THE_PROVIDER:
            yield key, provider, entry
