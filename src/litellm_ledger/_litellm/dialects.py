"""Usages in a spelling of their own, in the one that the others share.

Owns Cohere's, which counts the tokens that the model reads and those that are billed, and Google's
two: of ``generate_content`` and of interactions.  Pure; any other usage is returned as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .members import count, member

__all__ = ["billed_apart", "billed_usage", "common"]


def common(usage: Any) -> Any:
    """The usage as OpenAI's chat spells it."""
    if member(usage, "billed_units") is not None and member(usage, "tokens") is not None:
        return _cohere(usage)
    for name in ("promptTokenCount", "prompt_token_count", "totalTokenCount", "total_token_count"):
        if member(usage, name) is not None:
            return _google(usage)
    if member(usage, "total_input_tokens") is not None:
        return _interaction(usage)
    return usage


# --- Cohere ----------------------------------------------------------------------------------


def _cohere(usage: Any) -> dict[str, Any]:
    tokens = member(usage, "tokens")
    return {
        "prompt_tokens": _whole(member(tokens, "input_tokens")),
        "completion_tokens": _whole(member(tokens, "output_tokens")),
        "cached_tokens": _whole(member(usage, "cached_tokens")),
    }


def billed_apart(usage: Any) -> dict[str, int]:
    """The tokens that Cohere bills, by side."""
    units = member(usage, "billed_units")
    found = {side: _whole(member(units, f"{side}_tokens")) for side in ("input", "output")}
    return {side: value for side, value in found.items() if value is not None}


def billed_usage(usage: Any) -> dict[str, int]:
    """The tokens that Cohere bills, as a usage that LiteLLM prices; nothing for other usages."""
    billed = billed_apart(usage)
    if not billed:
        return {}
    read, written = billed.get("input", 0), billed.get("output", 0)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _whole(value: Any) -> int | None:
    """A count; Cohere's are JSON numbers that may end in ``.0``."""
    return count(int(value) if type(value) is float and value.is_integer() else value)


# --- Google ----------------------------------------------------------------------------------


def _google(usage: Any) -> dict[str, Any]:
    """``usageMetadata``: thoughts come on top of the candidates, what tools read on top of the
    prompt; the prompt includes what was cached.
    """

    def said(name: str) -> Any:
        value = member(usage, name)
        return member(usage, _snake(name)) if value is None else value

    def parts(name: str) -> dict[str, int]:
        return _modalities(said(name), "tokenCount", "token_count")

    thought, tools = count(said("thoughtsTokenCount")), count(said("toolUsePromptTokenCount"))
    prompt = count(said("promptTokenCount"))
    written = count(said("candidatesTokenCount"))
    if written is None:
        written = count(said("responseTokenCount"))  # realtime's name of it
    return {
        "prompt_tokens": None if prompt is None else prompt + (tools or 0),
        "completion_tokens": _sum(written, thought),
        "total_tokens": said("totalTokenCount"),
        "prompt_tokens_details": {
            **parts("promptTokensDetails"),
            "cached_tokens": count(said("cachedContentTokenCount")),
            "cached_tokens_details": parts("cacheTokensDetails"),
        },
        "completion_tokens_details": {
            **(parts("candidatesTokensDetails") or parts("responseTokensDetails")),
            "reasoning_tokens": thought,
        },
    }


def _interaction(usage: Any) -> dict[str, Any]:
    """An interaction's: thoughts are apart from the output, what tools read from the input."""

    def said(name: str) -> int | None:
        return count(member(usage, name))

    thought = said("total_thought_tokens")
    if thought is None:
        thought = said("total_reasoning_tokens")
    return {
        "prompt_tokens": _sum(said("total_input_tokens"), said("total_tool_use_tokens")),
        "completion_tokens": _sum(said("total_output_tokens"), thought),
        "total_tokens": said("total_tokens"),
        "prompt_tokens_details": {
            **_modalities(member(usage, "input_tokens_by_modality"), "tokens"),
            "cached_tokens": said("total_cached_tokens"),
        },
        "completion_tokens_details": {
            **_modalities(member(usage, "output_tokens_by_modality"), "tokens"),
            "reasoning_tokens": thought,
        },
    }


def _modalities(details: Any, *names: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for detail in details if isinstance(details, Iterable) else ():
        kind = member(detail, "modality")
        kind = str(getattr(kind, "value", kind)).lower()
        value = next((each for name in names if (each := count(member(detail, name)))), 0)
        if kind in ("audio", "image", "video") and value:
            found[f"{kind}_tokens"] = found.get(f"{kind}_tokens", 0) + value
    return found


def _sum(first: int | None, more: int | None) -> int | None:
    return first if more is None else (first or 0) + more


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
