"""The entry of the price map for calls that are billed by other units than tokens.

Owns the choice among the entries that one model has there: by size and quality of an image, by
kind of search.  ``_litellm.entries`` has the look-up by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from litellm_ledger._prices.entry import Entry
from litellm_ledger._prices.image_names import image_names, nearest_image

from .entries import entry_by_key, entry_of, matches
from .load import loaded

__all__ = ["unit_entry"]


def unit_entry(
    call: str, model: str, provider: str | None, fields: Mapping[str, Any], said: Mapping[str, Any]
) -> Entry | None:
    """Return the entry that prices a call.

    Args:
        call, model, provider: as on the record.
        fields: of the outcome.
        said: the conditions of its price (``quantities.conditions``).
    """
    if call == "asearch":
        return _first(_search_names(provider, said), provider)
    found = entry_of(
        model, provider, served=fields.get("response_model"), base_model=said.get("base_model")
    )
    if call not in _IMAGES or said.get("base_model"):
        return found
    if provider == "fal_ai":
        key = nearest_image(_prices(), model, provider, said)
        return entry_by_key(key, provider) if key else found
    if found is not None and fields.get("output_tokens") and _prices_tokens(found):
        return found
    return _first(image_names(model, provider, said), provider) or found


_IMAGES = frozenset({"aimage_edit", "aimage_generation", "aimage_variation"})


def _prices() -> Mapping[str, Any]:
    prices = getattr(loaded(), "model_cost", None)
    return prices if isinstance(prices, Mapping) else {}


def _prices_tokens(entry: Entry) -> bool:
    return any("_token" in name for name in entry.members)


def _search_names(provider: str | None, said: Mapping[str, Any]) -> Iterator[str]:
    if provider:
        if said.get("mode"):
            yield f"{provider}/search-{said['mode']}"
        yield f"{provider}/search"


def _first(names: Iterator[str], provider: str | None) -> Entry | None:
    """The first of the names that the map has, for that provider."""
    prices = _prices()
    for name in names:
        if name in prices and matches(prices[name], provider):
            return entry_by_key(name, provider)
    return None
