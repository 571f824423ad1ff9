"""What LiteLLM handed back, read as fields of a ``UsageRecord``.

Owns the reading of answers, stream chunks and exceptions, and the rules that tell a provider's
count from LiteLLM's own and from a placeholder.  Pure: it knows LiteLLM's objects by their
attributes alone and never imports it, never counts tokens, never computes a price, and never
raises: what cannot be read is left out, and what is left out is unknown.

Every function returns a new ``dict`` that holds only what is known, ready to be merged into the
caller's own fields.  Rules that decide what a record says:

- ``None`` is unknown and 0 is zero.  LiteLLM fills a missing usage with zeros; no model call reads
  and writes nothing, so a usage of nothing but zeros is taken as missing, and so is a cost of 0
  computed from it.
- A chunk that LiteLLM kept in ``CustomStreamWrapper.chunks`` has a usage only if the provider sent
  one.  LiteLLM's own count appears nowhere but on the one extra chunk it emits at the end.
- An exception is recorded by the name of its class; its text may carry prompts and keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from litellm_ledger._records.record import MAX_INT

from .background import background
from .bill import (
    PLAIN_TIERS,
    cached_elsewhere,
    money,
    put_answer_cost,
    put_said,
    searches,
    tools_used,
)
from .iterations import summed
from .members import count, member, note, view

__all__ = [
    "from_exception",
    "from_response",
    "from_stream",
    "member",
    "merged",
    "note",
    "usage_fields",
]

_ZERO: Final = Decimal(0)
_DELTA_TEXT: Final = (
    "content",
    "tool_calls",
    "function_call",
    "reasoning_content",
    "thinking_blocks",
    "audio",
    "images",
)
"""Members of a delta that mean the model wrote something."""


def merged(fields: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return both, the second over the first, their ``meta`` joined."""
    both = {**fields, **over}
    below, above = fields.get("meta"), over.get("meta")
    if below and above:
        both["meta"] = {**below, **above}
    return both


def usage_fields(usage: Any) -> dict[str, Any]:
    """Return the token counts of one usage object or mapping, of any of the usual dialects.

    ``meta["tokens"]`` tells apart the tokens of audio, images and hour-long cache writes, if there
    are any.

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


def from_response(response: Any) -> dict[str, Any]:
    """Read a complete answer: any of LiteLLM's response objects, or a plain mapping.

    Returns:
        ``response_model, response_id, provider``, the token counts, ``usage_source``, ``cost`` with
        ``cost_source="litellm"``, and, if LiteLLM's own cache answered, ``cache_hit``, ``cost`` 0
        and ``saved_cost``.  ``cost`` is missing where LiteLLM knew no price.
    """
    fields: dict[str, Any] = {}
    try:
        _read_response(response, fields)
    except Exception:
        pass
    if "usage_source" not in fields:
        fields["usage_source"] = "none"
    return fields


def from_stream(chunks: Iterable[Any], *, finished: bool, final: Any = None) -> dict[str, Any]:
    """Read the raw chunks of a ``CustomStreamWrapper``.

    Args:
        chunks: ``wrapper.chunks``, never the chunks that came out of the iteration.
        finished: whether the stream was read to its end.
        final: the extra chunk with a usage that LiteLLM emitted last (with ``include_usage``).  It
            carries LiteLLM's price, and, if the provider sent no usage, LiteLLM's own count.

    Returns:
        As ``from_response``.  ``usage_source`` is ``provider`` only for a final account.  A usage
        that text was still following (Anthropic sends one at the start, Gemini one with every
        chunk) is a floor and makes it ``estimated``: the input is the provider's, the output is
        what was reported so far.
    """
    fields: dict[str, Any] = {}
    try:
        _read_stream(list(chunks), finished, final, fields)
    except Exception:
        pass
    if "usage_source" not in fields:
        fields["usage_source"] = "none"
    return fields


def from_exception(exc: BaseException) -> dict[str, Any]:
    """Read how a call ended without an answer.

    ``status`` is ``cancelled`` for whatever is no ``Exception`` (cancellation, a generator being
    closed, Ctrl-C, exit) and for the ``CancelledError`` of threads, else ``error``.
    """
    kind = type(exc)
    cancelled = not isinstance(exc, Exception) or kind.__name__ == "CancelledError"
    fields: dict[str, Any] = {
        "status": "cancelled" if cancelled else "error",
        "error": kind.__name__,
        "usage_source": "none",
    }
    code = member(exc, "status_code")
    if type(code) is int and 100 <= code <= 599:
        fields["meta"] = {"http_status": code}
    _put_text(fields, "provider", member(exc, "llm_provider"))
    return fields


# --- Reading ---------------------------------------------------------------------------------


def _put_count(fields: dict[str, Any], name: str, value: Any) -> None:
    if type(value) is int and 0 <= value <= MAX_INT:
        fields[name] = value


def _put_text(fields: dict[str, Any], name: str, *values: Any) -> None:
    for value in values:
        if isinstance(value, str) and value:
            fields[name] = str(value)  # an enum member of str becomes plain text
            return


def _read_usage(usage: Any, fields: dict[str, Any]) -> None:  # noqa: C901 - one field after the other
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
        if in_details is None:
            in_details = get("input_token_details")  # transcriptions
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
    _put_count(fields, "input_tokens", prompt)
    _put_count(fields, "output_tokens", completion)
    total = get("total_tokens")
    if total or not (prompt or completion):  # LiteLLM puts 0 for a sum that was not sent
        _put_count(fields, "total_tokens", total)
    _put_count(fields, "cache_read_tokens", read)
    _put_count(fields, "cache_write_tokens", written)
    if out_details is not None:
        _put_count(fields, "reasoning_tokens", view(out_details).get("reasoning_tokens"))
    parts = _parts(in_details, "input") | _parts(out_details, "output")
    creation = get("cache_creation")  # Anthropic's own; LiteLLM keeps it with the details
    if creation is None and in_details is not None:
        creation = view(in_details).get("cache_creation_token_details")
    hour = member(creation, "ephemeral_1h_input_tokens")
    if count(hour):
        parts["cache_write_1h"] = hour
    if parts:
        note(fields, {"tokens": parts})
    searched = searches(get, in_details)
    if searched:
        note(fields, {"tools": {"web_searches": searched}})


def _parts(details: Any, side: str) -> dict[str, int]:
    """Tokens that are priced apart from text, of which there were any."""
    if details is None:
        return {}
    get = view(details).get
    found = {kind: get(f"{kind}_tokens") for kind in ("audio", "image", "video")}
    return {f"{kind}_{side}": value for kind, value in found.items() if count(value)}


def _counts(usage: Any) -> dict[str, Any]:
    """Token counts of a usage, or nothing if it is a placeholder."""
    found = usage_fields(usage)
    if found.get("input_tokens") or found.get("output_tokens"):
        return found
    total = found.get("total_tokens")  # only the sum was reported; the zeros are LiteLLM's
    return {"total_tokens": total} if total else {}


def _tier(*holders: Any) -> dict[str, Any]:
    """The service tier that answered, if it is one with a price of its own."""
    for holder in holders:
        tier = view(holder).get("service_tier")
        if isinstance(tier, str) and tier and tier not in PLAIN_TIERS and tier.isidentifier():
            return {"price": {"service_tier": str(tier)[:32]}}
    return {}


def _read_response(response: Any, fields: dict[str, Any]) -> None:
    hidden = member(response, "_hidden_params")
    if hidden is None:
        hidden = {}
    get = view(response).get
    _put_text(fields, "response_model", member(hidden, "provider_response_model"), get("model"))
    _put_text(fields, "response_id", get("id"))
    _put_text(fields, "provider", member(hidden, "custom_llm_provider"))
    usage = get("usage")
    if usage is None:  # rerank
        usage = member(get("meta"), "tokens")
    counts = _counts(usage)
    if counts:
        fields.update(counts)
        fields["usage_source"] = "provider"
    note(fields, _tier(response, usage))
    note(fields, background(response, counted=bool(counts)))
    tools = tools_used(get)
    if tools:
        note(fields, {"tools": {**tools, **(fields.get("meta") or {}).get("tools", {})}})
    put_answer_cost(fields, hidden, usage, counts)
    if member(hidden, "cache_hit") is True:
        fields["cache_hit"] = True
        if "cost" in fields:
            if fields["cost"]:  # LiteLLM before 1.110 says what the answer had cost
                fields["saved_cost"] = fields["cost"]
            fields["cost"] = _ZERO


def _read_stream(chunks: list[Any], finished: bool, final: Any, fields: dict[str, Any]) -> None:
    if chunks:
        hidden = member(chunks[0], "_hidden_params")
        _put_text(fields, "provider", member(hidden, "custom_llm_provider"))
        _put_text(fields, "response_id", member(chunks[0], "id"))
        _put_text(fields, "response_model", member(chunks[0], "model"))
    ended, wrote_after = finished, False
    for chunk in reversed(chunks):
        usage = member(chunk, "usage")
        choices = member(chunk, "choices") or ()
        ended = ended or any(member(choice, "finish_reason") for choice in choices)
        counts = _counts(usage) if usage is not None else {}
        if counts:
            whole = not choices or (ended and not wrote_after)
            fields.update(counts)
            fields["usage_source"] = "provider" if whole else "estimated"
            note(fields, _tier(chunk, usage, *chunks[:1]))
            if whole:
                _put_cost(fields, final, usage)
            else:
                fields.pop("total_tokens", None)  # the sum of an output that was still growing
            return
        wrote_after = wrote_after or any(_wrote(choice) for choice in choices)
    counts = _counts(member(final, "usage"))
    for name in ("input_tokens", "output_tokens", "total_tokens"):
        if name in counts:  # the rest of LiteLLM's own count is padding
            fields[name] = counts[name]
            fields["usage_source"] = "estimated"
    if counts:
        _put_cost(fields, final, None)


def _wrote(choice: Any) -> bool:
    if member(choice, "text"):
        return True
    delta = member(choice, "delta")
    return delta is not None and any(member(delta, name) for name in _DELTA_TEXT)


def _put_cost(fields: dict[str, Any], final: Any, usage: Any) -> None:
    """LiteLLM leaves its price of a stream on the usage of the extra chunk, if it is above 0.

    ``usage`` is the provider's own, off the wire: a cost on that one is the provider's word.
    """
    if put_said(fields, usage) or (usage is not None and cached_elsewhere(usage)):
        return
    cost = money(member(member(final, "usage"), "cost"))
    if cost:
        fields["cost"], fields["cost_source"] = cost, "litellm"
