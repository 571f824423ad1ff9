"""Fees beside the tokens: searches, containers, grounding, citations, requests.

Owns the terms of the paid tools of an answer, what a provider counts as one of them, and the
fees that a provider's price list has and the price map lacks.  Storage (of files, of vector
stores) belongs to no call and is no part of a price.  ``computer use`` has no fee of its own: its
tokens are the price.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from .bill import Bill
from .entry import number

__all__ = ["FEES", "IMAGE_TOOL", "charge_fees", "provider_of", "with_fees"]

_DAY: Final = "2026-11-29"
"""The day on which the lists behind ``FEES`` were read."""

FEES: Final[dict[str, dict[str, tuple[float, str]]]] = {
    "openai": {
        "code_interpreter_cost_per_session": (0.03, "https://platform.openai.com/docs/pricing"),
        "file_search_cost_per_1k_calls": (2.5, "https://platform.openai.com/docs/pricing"),
    },
    "azure": {
        "code_interpreter_cost_per_session": (
            0.033,
            "https://azure.microsoft.com/en-us/pricing/details/azure-openai/",
        ),
        "file_search_cost_per_1k_calls": (
            2.5,
            "https://azure.microsoft.com/en-us/pricing/details/azure-openai/",
        ),
    },
    "gemini": {
        "google_maps_grounding_cost_per_prompt": (0.025, "https://ai.google.dev/pricing"),
        "google_maps_grounding_cost_per_query": (0.014, "https://ai.google.dev/pricing"),
        "web_search_cost_per_request": (0.035, "https://ai.google.dev/pricing"),
    },
    "groq": {"browser_open_cost_per_request": (0.001, "https://groq.com/pricing")},
    "parallel_ai": {
        "additional_result_cost": (0.001, "https://docs.parallel.ai/getting-started/pricing"),
    },
    "perplexity": {
        "web_search_cost_per_request": (
            0.005,
            "https://docs.perplexity.ai/getting-started/pricing",
        ),
    },
    "xai": {
        "file_search_cost_per_1k_calls": (2.5, "https://docs.x.ai/developers/pricing"),
        "web_search_cost_per_request": (0.005, "https://docs.x.ai/developers/pricing"),
    },
}
"""Fees by provider, in US dollars, each with the list it is from: where an entry has none.

What of it an entry lacks becomes part of the entry (``with_fees``), so that the book has each fee
that a cost was made of, and ``price_version`` names it.
"""

_SHARED: Final = "default_fees"
_SEARCH: Final = "search_context_cost_per_query"
_SIZES: Final = ("medium", "low", "high")
_MAPS: Final = "google_maps_grounding_cost_per_"


def with_fees(
    members: Mapping[str, Any], provider: str | None = None, shared: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    """Return an entry of the price map with the fees that its provider has and it lacks.

    They stand in ``default_fees``, with the ``day`` of their list: a change of the list is another
    entry, and another ``price_version``.

    Args:
        members: the entry.
        provider: the record's; without one, the entry's.
        shared: the map's own entry of what all models of the provider share
            (``openai/container``): it comes before the list.
    """
    known = FEES.get(provider_of({"provider": provider}, members))
    if known is None or _SHARED in members:
        return members
    listed = {name: price for name, (price, _) in known.items()}
    listed |= {name: value for name, value in (shared or {}).items() if name in listed}
    lacking = {name: price for name, price in listed.items() if members.get(name) is None}
    return {**members, _SHARED: {"day": _DAY, **lacking}} if lacking else members


def provider_of(conditions: Mapping[str, Any], members: Mapping[str, Any]) -> str:
    """The provider whose rules count: the record's, else the entry's; Vertex AI's by its models."""
    provider = conditions.get("provider") or members.get("litellm_provider") or ""
    if not isinstance(provider, str):
        return ""
    if provider.startswith("vertex_ai"):
        partner = members.get("litellm_provider")
        ours = isinstance(partner, str) and "anthropic" in partner
        return "anthropic" if ours else "gemini"
    return provider


def charge_fees(bill: Bill) -> None:
    """Add the terms of the paid tools that were used."""
    used, members = bill.used, bill.entry.members
    request = bill.entry.price("input_cost_per_request")
    if request:
        bill.charge("input_cost_per_request", 1, "request")
    if "citation" in used and "citation_cost_per_token" in members:
        bill.charge("citation_cost_per_token", used["citation"])
    provider = provider_of(bill.conditions, members)
    if provider == "perplexity" and _SEARCH in members:
        _charge_perplexity(bill)
    elif searches := used.get("web_searches"):
        if provider == "gemini" and not _by_query(members):
            searches = 1  # one fee for a prompt, however many searches it took
        _charge_search(bill, searches, _size(bill.conditions))
    if not used.keys().isdisjoint(_TOOLS):
        _charge_tools(bill)


_TOOLS: Final = frozenset(
    {"browser_opens", "containers", "file_searches", "image_generations", "maps_groundings"}
)


def _charge_tools(bill: Bill) -> None:
    used = bill.used
    if count := used.get("maps_groundings"):
        queries = _by_query(bill.entry.members)
        name = _MAPS + "query"  # the map has one name for both units
        if not queries and bill.entry.price(name) is None:
            name = _MAPS + "prompt"
        _charge(bill, name, count if queries else 1, "grounding")
    _charge(bill, "file_search_cost_per_1k_calls", used.get("file_searches", 0), "search", 3)
    _charge(bill, "code_interpreter_cost_per_session", used.get("containers", 0), "container")
    _charge(bill, "browser_open_cost_per_request", used.get("browser_opens", 0), "page")
    # Billed by the tokens of an image model, whose name and prices are not those of this entry.
    _charge(bill, IMAGE_TOOL, used.get("image_generations", 0), "image")


IMAGE_TOOL: Final = "image_generation_cost_per_call"
"""What is missing where a model had an image made."""


def _charge(bill: Bill, name: str, count: int | Decimal, unit: str, scale: int = 0) -> None:
    """A fee of the entry's own, else of the provider's list; for 10 to the ``scale`` units."""
    price = bill.entry.price(name)
    if price is None:
        price = default_fee(bill, name)
        name = f"{_SHARED}.{name}" if price is not None else name
    bill.charge(name, count, unit, price=None if price is None else price.scaleb(-scale))


def default_fee(bill: Bill, name: str) -> Decimal | None:
    """The fee of the provider's list under a name."""
    shared = bill.entry.members.get(_SHARED)
    return number(shared.get(name)) if type(shared) is dict else None


def _by_query(members: Mapping[str, Any]) -> bool:
    """Whether Google bills each query (Gemini 3), and not each prompt that was grounded."""
    return members.get("web_search_billing_unit") == "per_query"


def _size(conditions: Mapping[str, Any]) -> str | None:
    size = conditions.get("search_context")
    return size if size in _SIZES else None


def _charge_search(bill: Bill, count: int | Decimal, size: str | None) -> None:
    """Searches by the size of their context; without one, by the ordinary size, ``medium``."""
    prices = bill.entry.members.get(_SEARCH)
    if type(prices) is dict:
        for each in (size, *_SIZES) if size else _SIZES:
            name = f"search_context_size_{each}"
            price = number(prices.get(name))
            if price is not None:
                bill.charge(f"{_SEARCH}.{name}", count, "search", price=price)
                return
    name, price = _SEARCH, number(prices)
    if price is None:
        price = default_fee(bill, "web_search_cost_per_request")
        if price is not None:
            name = f"{_SHARED}.web_search_cost_per_request"
    bill.charge(name, count, "search", price=price)


def _charge_perplexity(bill: Bill) -> None:
    """Perplexity: deep research by the search, the other models one fee a request, by its size.

    https://docs.perplexity.ai/getting-started/pricing.  Its ordinary size is ``low``.
    """
    if "citation_cost_per_token" in bill.entry.members:
        if searches := bill.used.get("web_searches"):
            _charge_search(bill, searches, None)
    else:
        _charge_search(bill, 1, _size(bill.conditions) or "low")
