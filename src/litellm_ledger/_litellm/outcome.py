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

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Final

from .bill import PLAIN_TIERS, money, put_answer_cost, put_said, tools_used
from .internals import HIDDEN
from .members import member, note, noted, text, view
from .plain import plain_fields
from .usage import cached_elsewhere, reported

__all__ = [
    "background",
    "from_exception",
    "from_response",
    "from_stream",
    "hear",
    "is_background",
    "is_done",
]

_FINAL: Final = frozenset({"cancelled", "completed", "failed", "incomplete"})
"""States of a background response that stay."""
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


def from_response(response: Any) -> dict[str, Any]:
    """Read a complete answer: any of LiteLLM's response objects, or a plain mapping.

    Returns:
        ``response_model, response_id, provider``, the token counts, ``usage_source``, ``cost`` with
        ``cost_source="litellm"``, and, if LiteLLM's own cache answered, ``cache_hit``, ``cost`` 0
        and ``saved_cost``.  ``cost`` is missing where LiteLLM knew no price.
    """
    return plain_fields(response) or _read(_read_response, response)


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
    return _read(_read_stream, chunks, finished, final)


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


def _read(put: Callable[..., None], *args: Any) -> dict[str, Any]:
    """What ``put`` found before a foreign object raised, if one did."""
    fields: dict[str, Any] = {}
    try:
        put(fields, *args)
    except Exception:
        pass
    fields.setdefault("usage_source", "none")
    return fields


def _put_text(fields: dict[str, Any], name: str, *values: Any) -> None:
    found = next(filter(None, map(text, values)), None)
    if found:
        fields[name] = found


def _chosen(*holders: Any) -> dict[str, Any]:
    """What an answer says of its price: each by the first holder that says it.

    The service tier; Anthropic's speed and region; the context of Perplexity's searches.
    """
    found: dict[str, str] = {}
    for name, (member_name, plain) in _CHOOSING.items():
        for holder in holders:
            value = view(holder).get(member_name)
            if isinstance(value, str) and value and value not in plain and value.isidentifier():
                found[name] = str(value)[:32]
                break
    return {"price": found} if found else {}


_CHOOSING: Final = {
    "service_tier": ("service_tier", PLAIN_TIERS),
    "speed": ("speed", {"standard"}),
    "inference_geo": ("inference_geo", {"global", "not_available"}),
    "search_context": ("search_context_size", ()),
}
"""Conditions by the member of an answer or a usage, and its values that choose nothing."""


def _read_response(fields: dict[str, Any], response: Any) -> None:
    hidden = member(response, HIDDEN)
    get = view(response).get
    named = (get("model"), get("modelVersion"), get("model_version"))
    _put_text(fields, "response_model", member(hidden, "provider_response_model"), *named)
    _put_text(fields, "response_id", get("id"), get("responseId"), get("response_id"))
    _put_text(fields, "provider", member(hidden, "custom_llm_provider"))
    usage = get("usage")
    if usage is None:  # Google's own; rerank
        usage = get("usageMetadata") or get("usage_metadata") or member(get("meta"), "tokens")
    counts = reported(usage)
    if counts:
        fields.update(counts)
        fields["usage_source"] = "provider"
    note(fields, _chosen(response, usage))
    note(fields, background(response, counted=bool(counts)))
    tools = tools_used(get)
    if tools:
        note(fields, {"tools": {**tools, **(noted(fields, "tools") or {})}})
    put_answer_cost(fields, hidden, usage, counts)
    if member(hidden, "cache_hit") is True:
        fields["cache_hit"] = True
        if "cost" in fields:
            if fields["cost"]:  # LiteLLM before 1.110 says what the answer had cost
                fields["saved_cost"] = fields["cost"]
            fields["cost"] = _ZERO


def _read_stream(fields: dict[str, Any], source: Iterable[Any], finished: bool, final: Any) -> None:
    chunks = list(source)
    if chunks:
        hidden = member(chunks[0], HIDDEN)
        _put_text(fields, "provider", member(hidden, "custom_llm_provider"))
        _put_text(fields, "response_id", member(chunks[0], "id"))
        _put_text(fields, "response_model", member(chunks[0], "model"))
    ended, wrote_after = finished, False
    for chunk in reversed(chunks):
        usage = member(chunk, "usage")
        choices = member(chunk, "choices") or ()
        ended = ended or any(member(choice, "finish_reason") for choice in choices)
        counts = reported(usage) if usage is not None else {}
        if counts:
            whole = not choices or (ended and not wrote_after)
            fields.update(counts)
            fields["usage_source"] = "provider" if whole else "estimated"
            note(fields, _chosen(chunk, usage, *chunks[:1]))
            if whole:
                _put_cost(fields, final, usage)
            else:
                fields.pop("total_tokens", None)  # the sum of an output that was still growing
            return
        wrote_after = wrote_after or any(_wrote(choice) for choice in choices)
    counts = reported(member(final, "usage"))
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


def hear(fields: dict[str, Any], usage: Any) -> bool:
    """Put a usage from the wire (``_litellm.wire``) on the outcome; tell whether it says anything.

    It counts in the place of what LiteLLM made of it, and so does the server's own figure.
    """
    counts = reported(usage)
    if not counts:
        return False
    for name in ("cost", "cost_source", "total_tokens"):
        fields.pop(name, None)
    meta = counts.pop("meta", {})
    fields |= {**counts, "usage_source": "provider"}
    note(fields, meta)
    note(fields, _chosen(usage))
    put_said(fields, usage)
    return True


# --- Background responses: made by one call, billed when they are done, read by another ------


def is_background(answer: Any) -> bool:
    """Whether the provider makes this response in the background."""
    return member(answer, "background") is True


def is_done(answer: Any) -> bool:
    """Whether a response is in its final state."""
    return _status(answer) in _FINAL


def background(answer: Any, *, counted: bool) -> dict[str, Any]:
    """Return what goes into ``meta`` of a record: nothing for any other answer.

    ``counted`` marks the one record that carries the tokens of a response that is done.
    """
    if not is_background(answer):
        return {}
    told: dict[str, Any] = {"status": _status(answer)[:32]}
    if counted and is_done(answer):
        told["counted"] = True
    return {"background": told}


def _status(answer: Any) -> str:
    status = member(answer, "status")
    return str(getattr(status, "value", status) or "")
