"""What an answer says of its bill: the server's own figure and the paid tools.

Owns the rules that tell what the server said from what LiteLLM made up: a figure is the server's
only where it came on the wire.  Pure; what cannot be read is left out.
"""

from __future__ import annotations

from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from litellm_ledger._errors import InvalidRecord
from litellm_ledger._records.money import from_litellm, picousd, usd

from .internals import HIDDEN
from .members import count, member, note, view
from .usage import cached_elsewhere

__all__ = [
    "COST_HEADER",
    "PLAIN_TIERS",
    "containers_of",
    "money",
    "provider_id",
    "put_answer_cost",
    "put_said",
    "tools_used",
    "unstamped",
]

PLAIN_TIERS: Final = frozenset({"auto", "default", "on_demand", "standard", "standard_only"})
"""Service tiers that are billed at the ordinary price."""

_TICKS: Final = 10
"""xAI bills in ticks: 10**10 are one US dollar (https://docs.x.ai/developers/cost-tracking)."""

COST_HEADER: Final = "llm_provider-x-litellm-response-cost"
_COST_IN_HEADER: Final = frozenset({"edenai", "nadir", "openrouter"})
"""Providers whose own figure LiteLLM moves from the body to ``COST_HEADER``, as a number.

For others a number there may be LiteLLM's own.  Text is always a header that the server sent.
"""


def money(value: Any) -> Decimal | None:
    """LiteLLM's cost; a mapping is a breakdown that holds it in ``total_cost``."""
    if isinstance(value, Mapping):
        value = value.get("total_cost")
    if type(value) not in (float, int) or value < 0:
        return None
    try:
        return from_litellm(value)
    except InvalidRecord:
        return None


def containers_of(get: Callable[[str], Any]) -> set[Any]:
    """The ids of the containers in which an answer's code ran."""
    ran = (item for item in get("output") or () if member(item, "type") == "code_interpreter_call")
    return {provider_id(member(item, "container_id")) for item in ran}


def provider_id(container: Any) -> Any:
    """The provider's own id; LiteLLM wraps it together with the model, ``cntr_`` and base64."""
    if not isinstance(container, str) or not container.startswith("cntr_"):
        return container
    try:
        wrapped = b64decode(container.removeprefix("cntr_"), validate=True).decode()
    except ValueError:
        return container
    return wrapped.rpartition("container_id:")[2] if wrapped.startswith("litellm:") else container


def tools_used(get: Callable[[str], Any]) -> dict[str, int]:
    """Paid tools that an answer shows in use.

    OpenAI bills a web search, and not the page that it opens; a container, and not each run in it;
    an image that was made, by another model.  The citations of a chat prove at least one search.
    """
    used = Counter[str]()
    for item in get("output") or ():
        kind = member(item, "type")
        if kind in _TOOL_CALLS and _is_billed(item, kind):
            used[_TOOL_CALLS[kind]] += 1
    if containers := containers_of(get):
        used["containers"] = len(containers)
    if said := count(member(member(get("tool_usage"), "web_search"), "num_requests")):
        used["web_searches"] = said  # Bedrock's own count
    for choice in get("choices") or ():
        for cited in member(member(choice, "message"), "annotations") or ():
            if member(cited, "type") == "url_citation":
                return {**used, "web_searches": 1}
    return dict(used)


_TOOL_CALLS: Final = {
    "file_search_call": "file_searches",
    "image_generation_call": "image_generations",
    "web_search_call": "web_searches",
}


def _is_billed(item: Any, kind: str) -> bool:
    if kind == "web_search_call":
        return member(member(item, "action"), "type") in (None, "search")
    return kind != "image_generation_call" or member(item, "status") == "completed"


def _stated(value: Any) -> Decimal | None:
    """An amount as JSON had it: a number, decimal text, or a breakdown."""
    if not isinstance(value, (str, Decimal)):
        return money(value)
    try:
        amount = Decimal(value)
        return usd(picousd(amount)) if amount >= 0 else None
    except (InvalidRecord, ArithmeticError):
        return None


def put_said(fields: dict[str, Any], usage: Any) -> bool:
    """Put the server's own figure on an outcome, from a usage as it came on the wire.

    With one's own provider key (``is_byok``) OpenRouter's ``cost`` is its fee alone, and the
    provider bills the rest: without one of the two the sum is unknown.

    Returns:
        Whether the server said anything of its bill.
    """
    if usage is None:
        return False
    get = view(usage).get
    ticks, raw, own_key = count(get("cost_in_usd_ticks")), get("cost"), get("is_byok") is True
    if ticks is not None:
        cost = _stated(Decimal(ticks).scaleb(-_TICKS))
    else:
        cost = _stated(raw)
        if own_key:
            upstream = _stated(member(get("cost_details"), "upstream_inference_cost"))
            if cost is None or upstream is None:
                lacking = "cost" if cost is None else "upstream_inference_cost"
                note(fields, {"unpriced": [lacking]})
                return True
            cost += upstream
    if cost is not None:
        fields["cost"], fields["cost_source"] = cost, "provider"
    return own_key or ticks is not None or raw is not None


_UPSTREAM: Final = "upstream_usage_cost"
"""Where LiteLLM (since 1.109) keeps the server's own figure when it writes its price over it."""


def unstamped(response: Any) -> Any:
    """What ended a stream, with the usage as the server sent it.

    LiteLLM leaves its price on ``usage.cost``; before it kept the server's figure elsewhere, the
    two cannot be told apart, unless the server said more of its bill.
    """
    usage, hidden = member(response, "usage"), member(response, HIDDEN)
    if isinstance(hidden, Mapping) and _UPSTREAM in hidden:
        cost = hidden[_UPSTREAM]
    elif any(member(usage, name) is not None for name in ("cost_details", "cost_in_usd_ticks")):
        return response
    else:
        cost = None
    if member(usage, "cost") == cost:
        return response
    return {**_members(response), "usage": {**_members(usage), "cost": cost}}


def _members(source: Any) -> dict[str, Any]:
    """The fields of a pydantic model, as deep as they lie; or of a mapping."""
    if isinstance(source, Mapping):
        return dict(source)
    fields = {**getattr(source, "__dict__", {}), **(member(source, "__pydantic_extra__") or {})}
    hidden = member(source, HIDDEN)
    return fields if hidden is None else {**fields, HIDDEN: hidden}


def _in_header(hidden: Any, provider: Any) -> Decimal | None:
    """The cost that a gateway said in a header, if it is above 0: a proxy says 0 for unknown."""
    value = member(member(hidden, "additional_headers"), COST_HEADER)
    if isinstance(value, str) or provider in _COST_IN_HEADER:
        return _stated(value) or None
    return None


def put_answer_cost(
    fields: dict[str, Any], hidden: Any, usage: Any, counts: Mapping[str, Any]
) -> None:
    """The server's figure, else LiteLLM's, if it priced what we count."""
    if put_said(fields, usage):
        if not fields.get("cost") and not counts:
            fields.pop("cost", None)
            fields.pop("cost_source", None)
        return
    cost, source = _in_header(hidden, fields.get("provider")), "provider"
    if cost is None and not cached_elsewhere(usage):
        cost, source = money(member(hidden, "response_cost")), "litellm"
    if cost is not None and (cost or counts or usage is None):
        fields["cost"], fields["cost_source"] = cost, source
