"""The answer that nearly every call gets: a chat with a usage of tokens and LiteLLM's price.

Owns one question: is there anything about this answer that ``outcome`` has a rule for?  If not, its
fields lie where LiteLLM puts them and are read in one frame, in a fifth of the time.  Every rule of
``outcome``, ``usage`` and ``bill`` looks at a member that this looks at first; what it does not
know, it leaves to them.  Pure, like those.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Final

from litellm_ledger._records.money import from_litellm
from litellm_ledger._records.record import MAX_INT, MAX_TEXT

from .bill import COST_HEADER, PLAIN_TIERS
from .internals import HIDDEN

__all__ = ["plain_fields"]

_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_counts: Final = itemgetter(*_COUNTS)
_DETAILS: Final = ("prompt_tokens_details", "completion_tokens_details")
_READ: Final = {
    "prompt_tokens_details": ("cached_tokens", "cache_read_tokens"),
    "completion_tokens_details": ("reasoning_tokens", "reasoning_tokens"),
}
"""The member of each that is read, and the field that it is."""
_NOTED: Final = frozenset({"audio_tokens", "image_tokens", "video_tokens"})
"""Noted, unless 0."""
_UNREAD: Final = frozenset(
    {
        "accepted_prediction_tokens",
        "initial_prompt_tokens",
        "rejected_prediction_tokens",
        "text_tokens",
    }
)
_MOST: Final = 1_000_000.0
"""US dollars."""


def plain_fields(answer: Any) -> dict[str, Any] | None:  # noqa: C901 - one condition after the other, in one frame for speed
    """Return what ``from_response`` does, or ``None`` where only that can tell.

    The fields need no further checks: they are as a record keeps them.
    """
    if type(answer).__name__ != "ModelResponse":
        return None
    try:
        said = answer.__dict__
        if further := answer.__pydantic_extra__:
            said = {**said, **further}
        hidden = answer.__pydantic_private__[HIDDEN]
        usage = said["usage"]
        counted = usage.__dict__
        model = hidden.get("provider_response_model") or said["model"]
        provider = hidden["custom_llm_provider"]
        name = said["id"]
        cost = hidden["response_cost"]
        given, made, total = _counts(counted)
        if (
            not (type(model) is type(provider) is type(name) is str)
            or not (model and provider and name and f"{model}{provider}{name}".isascii())
            or len(model) + len(provider) + len(name) > MAX_TEXT
            or not (type(given) is type(made) is type(total) is int)
            or not (0 <= given <= MAX_INT and 0 <= made <= MAX_INT and 0 < total <= MAX_INT)
            or not (given or made)
            or type(cost) is not float
            or not 0 < cost < _MOST
            or hidden.get("cache_hit") is not None
            or COST_HEADER in (hidden.get("additional_headers") or ())
            or usage.__pydantic_extra__
            or said.get("output") is not None
            or said.get("background") is not None
        ):
            return None
        tier = said.get("service_tier")
        if tier is not None and tier not in PLAIN_TIERS:
            return None
        for choice in said["choices"]:
            message = choice.__dict__["message"]
            further = message.__pydantic_extra__
            if message.__dict__.get("annotations") or (further and further.get("annotations")):
                return None
        fields: dict[str, Any] = {
            "response_model": model,
            "response_id": name,
            "provider": provider,
            "input_tokens": given,
            "output_tokens": made,
            "total_tokens": total,
            "usage_source": "provider",
            "cost_source": "litellm",
        }
        for member, value in counted.items():
            if value is None or member in _COUNTS:
                continue
            if member not in _READ or value.__pydantic_extra__:
                return None
            read, field = _READ[member]
            for part, amount in value.__dict__.items():
                if amount is None or part in _UNREAD or (part in _NOTED and amount == 0):
                    continue
                if part != read or type(amount) is not int or not 0 <= amount <= MAX_INT:
                    return None
                fields[field] = amount
        fields["cost"] = from_litellm(cost)
    except Exception:  # not of the shape that LiteLLM gives it today
        return None
    return fields
