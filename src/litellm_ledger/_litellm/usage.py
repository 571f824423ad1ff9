"""What a usage says: the tokens of one answer, in any of the usual dialects.

Owns the counts, the rule that tells them from a placeholder, and that of Anthropic's
``usage.iterations``: the tokens of an answer that took several requests are those of all of them.
With compaction or the advisor tool, the counts beside ``iterations`` are those of the last request,
or of one model; the bill is for all.  Pure; what cannot be read is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .members import count, member, note, view

__all__ = ["cached_elsewhere", "parts", "reported", "summed", "usage_fields"]

_CACHED_ELSEWHERE: Final = ("cached_tokens", "num_cached_tokens")
"""Where Moonshot, and Mistral and vLLM, count cached tokens, and LiteLLM does not look."""


_WRITES: Final = {
    "cache_write_30m": "ephemeral_30m_input_tokens",
    "cache_write_1h": "ephemeral_1h_input_tokens",
    "cache_write_12h": "ephemeral_12h_input_tokens",
}
"""Writes to the prompt cache by how long they last; the others last five minutes."""


def usage_fields(usage: Any) -> dict[str, Any]:
    """Return the token counts of one usage object or mapping, of any of the usual dialects.

    ``meta["tokens"]`` tells apart what has a price of its own, if there is any: audio, images and
    video, read from the cache or not; cache writes by how long they last; Perplexity's citations.

    Chat (``prompt_tokens``), Responses and images (``input_tokens`` with ``input_tokens_details``),
    Anthropic's own (``input_tokens`` *without* the cached ones, which are added here; summed over
    ``iterations``) and DeepSeek's cache counters.  Counts that are negative, not whole, or beyond
    2⁵³ - 1 are unknown.
    """
    fields: dict[str, Any] = {}
    if usage is None:
        return fields
    try:
        _read_usage(usage, fields)
    except Exception:  # a property of a foreign object that raises
        pass
    return fields


def reported(usage: Any) -> dict[str, Any]:
    """Token counts of a usage, or nothing if it is a placeholder."""
    found = usage_fields(usage)
    if found.get("input_tokens") or found.get("output_tokens"):
        return found
    total = found.get("total_tokens")  # only the sum was reported; the zeros are LiteLLM's
    return {"total_tokens": total} if total else {}


def _read_usage(usage: Any, fields: dict[str, Any]) -> None:  # noqa: C901 - one field after the other
    told = view(usage)
    if told.get("prompt_tokens") is None and told.get("input_tokens") is None:
        from .dialects import billed_apart, common

        usage, billed = common(usage), billed_apart(usage)
    else:
        billed = {}
    get = view(summed(usage)).get
    read, written = get("cache_read_input_tokens"), get("cache_creation_input_tokens")
    prompt, completion = get("prompt_tokens"), get("completion_tokens")
    if prompt or completion or get("input_tokens") is None:
        in_details, out_details = get("prompt_tokens_details"), get("completion_tokens_details")
        if read is None:
            read = get("prompt_cache_hit_tokens")
    else:
        # Also where LiteLLM's type put zeros beside them, as it does for batches.
        prompt, completion = get("input_tokens"), get("output_tokens")
        in_details, out_details = get("input_tokens_details"), get("output_tokens_details")
        if in_details is None:  # transcriptions and realtime
            in_details, out_details = get("input_token_details"), get("output_token_details")
        if in_details is None and count(prompt) is not None:
            # Anthropic's own: the cached tokens come on top.
            prompt += (count(read) or 0) + (count(written) or 0)
    if in_details is not None:
        details = view(in_details).get
        if read is None:
            read = details("cached_tokens")
        if written is None:
            written = details("cache_creation_tokens")
            if written is None:
                written = details("cache_write_tokens")
    if not read:
        read = cached_elsewhere(usage) or read
    total = get("total_tokens")
    if not total and (prompt or completion):
        total = None  # LiteLLM puts 0 for a sum that was not sent
    found = {
        "input_tokens": prompt,
        "output_tokens": completion,
        "total_tokens": total,
        "cache_read_tokens": read,
        "cache_write_tokens": written,
    }
    fields |= {name: value for name, value in found.items() if count(value) is not None}
    reasoning = None if out_details is None else count(view(out_details).get("reasoning_tokens"))
    if on_top := _researched(get, reasoning):
        reasoning = on_top
        output = fields.pop("output_tokens", 0) + on_top
        if count(output) is not None:
            fields["output_tokens"] = output
    if reasoning is not None:
        fields["reasoning_tokens"] = reasoning
    apart = _priced_apart(in_details, "input") | _priced_apart(out_details, "output")
    apart |= _cached_apart(in_details, count(fields.get("cache_read_tokens")) or 0)
    creation = get("cache_creation")  # Anthropic's own; LiteLLM keeps it with the details
    if creation is None and in_details is not None:
        creation = view(in_details).get("cache_creation_token_details")
    for name, lasting in _WRITES.items():
        if count(written := member(creation, lasting)):
            apart[name] = written
    if count(cited := get("citation_tokens")):
        apart["citation"] = cited
    for side, value in billed.items():
        if value != fields.get(f"{side}_tokens"):
            apart[f"billed_{side}"] = value
    if apart:
        note(fields, {"tokens": apart})
    server = get("server_tool_use")
    tools = {
        "web_searches": _searches(get, in_details),
        "maps_groundings": member(in_details, "google_maps_grounding_requests"),
        "browser_opens": member(server, "browser_open_requests"),
    }
    if told := {name: value for name, value in tools.items() if count(value)}:
        note(fields, {"tools": told})


def _priced_apart(details: Any, side: str) -> dict[str, int]:
    """Tokens that are priced apart from text, of which there were any."""
    if details is None:
        return {}
    get = view(details).get
    found = {kind: get(f"{kind}_tokens") for kind in ("audio", "image", "video")}
    return {f"{kind}_{side}": value for kind, value in found.items() if count(value)}


def _cached_apart(details: Any, cached: int) -> dict[str, int]:
    """Tokens read from the cache that are priced apart from cached text: OpenAI's of realtime,
    and Gemini's.
    """
    split = None if details is None else view(details).get("cached_tokens_details")
    if split is None:
        return {}
    get, found = view(split).get, {}
    for kind in ("audio", "image"):
        value = count(get(f"{kind}_tokens"))
        if value and value <= cached:
            found[f"{kind}_cached"] = value
            cached -= value
    return found


def cached_elsewhere(usage: Any) -> int:
    """Cached tokens, part of the input, that stand where LiteLLM does not price them."""
    get = view(usage).get
    for name in ("cache_read_input_tokens", "prompt_cache_hit_tokens"):
        if get(name):
            return 0
    for name in ("prompt_tokens_details", "input_tokens_details"):
        if member(get(name), "cached_tokens"):
            return 0
    found = (count(get(name)) for name in _CACHED_ELSEWHERE)
    return next((value for value in found if value), 0)


def _researched(get: Callable[[str], Any], reasoning: int | None) -> int:
    """Tokens that Perplexity's deep research reasoned with: no part of what it says of its output.

    They are a step of their own (https://docs.perplexity.ai/getting-started/pricing).
    """
    if get("citation_tokens") is None and get("num_search_queries") is None:
        return 0
    return reasoning or count(get("reasoning_tokens")) or 0


def _searches(get: Callable[[str], Any], in_details: Any) -> int:
    """Web searches that a usage counts: Anthropic's and Groq's, Gemini's (of images, on the usage
    itself), Perplexity's, xAI's."""
    for found in (
        member(get("server_tool_use"), "web_search_requests"),
        member(in_details, "web_search_requests"),
        get("web_search_requests"),
        get("num_search_queries"),
        member(get("server_side_tool_usage_details"), "web_search_calls"),
    ):
        if count(found):
            return int(found)
    return 0


# --- Iterations ------------------------------------------------------------------------------

_COUNTS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
)
_ONCE: Final = "server_tool_use"
"""Counted for the whole answer, not for each iteration."""


def parts(usage: Any) -> list[dict[str, Any]]:
    """Return the usage of each iteration, or nothing if there are none.

    Each has what the usage says of all of them (tier, region), its own counts, and ``model`` where
    another model wrote it.  The last one has the tools that were used.  LiteLLM's own type, which
    has ``prompt_tokens``, holds the sum already and has no parts.
    """
    if not isinstance(usage, Mapping) or "prompt_tokens" in usage:
        return []
    found = usage.get("iterations")
    if not isinstance(found, list) or not found:
        return []
    if not all(isinstance(iteration, Mapping) for iteration in found):
        return []
    left_out = {"iterations", "cache_creation", _ONCE, *_COUNTS}
    shared = {name: value for name, value in usage.items() if name not in left_out}
    shared |= dict.fromkeys(_COUNTS, 0)
    split = [
        {**shared, **{name: value for name, value in iteration.items() if value is not None}}
        for iteration in found
    ]
    if usage.get(_ONCE) is not None:
        split[-1][_ONCE] = usage[_ONCE]
    return split


def summed(usage: Any) -> Any:
    """Return the usage with the counts of all its iterations; any other usage as it is."""
    split = parts(usage)
    if not split:
        return usage
    total = {name: value for name, value in usage.items() if name != "iterations"}
    for name in _COUNTS:
        counts = [part[name] for part in split]
        # What is no count makes the sum unknown: a part of it would look like all of it.
        total[name] = (
            sum(counts) if all(type(count) is int and count >= 0 for count in counts) else None
        )
    written = [part["cache_creation"] for part in split if part.get("cache_creation")]
    if written and all(isinstance(creation, Mapping) for creation in written):
        total["cache_creation"] = {
            name: sum(count for creation in written if type(count := creation.get(name)) is int)
            for name in {name for creation in written for name in creation}
        }
    return total
