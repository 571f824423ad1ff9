"""From a model to its entry of the price map, by the name that LiteLLM finds it under.

Owns the look-up and what is remembered of it: entries are read once, and again when LiteLLM's map
is another one or an entry of it has changed.  Never asks a provider: for a few, LiteLLM's own
``get_model_info`` logs in or fetches something over the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from litellm_ledger._prices.entry import Entry
from litellm_ledger._prices.fees import with_fees

from .costs import provider_of
from .internals import internal
from .load import loaded
from .members import member

__all__ = ["entry_by_key", "entry_of", "key_of", "matches"]

_MOST_KNOWN: Final = 1_000
_LOOKUP_ORDER: Final = (
    "combined_model_name",
    "",  # the name itself
    "region_free_combined_model_name",
    "split_model",
    "combined_stripped_model_name",
    "stripped_model_name",
    "provider_prefixed_model_name",
)
"""Names that LiteLLM makes of a model's, in the order in which it tries them."""

_Known = tuple[str, Mapping[str, Any], tuple[Any, ...], Entry]
_known: dict[tuple[str | None, ...], _Known | None] = {}
_known_map: tuple[Any, int, Any] = (None, 0, None)


def entry_of(
    model: str | None,
    provider: str | None,
    *,
    served: str | None = None,
    base_model: str | None = None,
) -> Entry | None:
    """Return the entry that prices a call: 0.5 µs when it is known, else 20 to 100 µs.

    Args:
        model: as the caller asked for it.
        provider: LiteLLM's name of it.
        served: the model that the answer names; it counts, if it has prices.
        base_model: the model behind a deployment's name, as the caller says; then it alone counts.

    ``None`` if LiteLLM is not loaded, or its map has no prices for any of these names, or the price
    is the sum of two entries (Azure's model router).  A price that is changed in place is seen if
    it is that of input or output, or if LiteLLM counts changes (1.110).
    """
    global _known_map
    litellm: Any = loaded()
    if litellm is None:
        return None
    prices = litellm.model_cost
    changes = _counter()()
    if _known_map[0] is not prices or _known_map[1] != len(prices) or _known_map[2] != changes:
        _known.clear()
        _known_map = prices, len(prices), changes
    asked = (model, provider, served, base_model)
    known = _known.get(asked)
    if known is not None:
        key, raw, mark, entry = known
        if prices.get(key) is raw and _mark(raw) == mark:
            return entry
    elif asked in _known:
        return None
    return _look_up(litellm, prices, asked)


def _look_up(
    litellm: Any, prices: Mapping[str, Any], asked: tuple[str | None, ...]
) -> Entry | None:
    model, provider, served, base_model = asked
    found: _Known | None = None
    for name in (base_model,) if base_model else (served, model):
        key = _priced_key(litellm, name, provider, other=name is base_model) if name else None
        if key is not None:
            raw = prices[key]
            found = key, raw, _mark(raw), entry_by_key(key, provider)
            break
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[asked] = found
    return None if found is None else found[3]


def entry_by_key(key: str, provider: str | None) -> Entry:
    """Return the entry under a key that the map has, with the fees of its provider."""
    litellm: Any = loaded()
    prices = litellm.model_cost
    return Entry(key, with_fees(prices[key], provider, prices.get(f"{provider}/container")))


def _priced_key(litellm: Any, name: str, provider: str | None, *, other: bool) -> str | None:
    if provider in ("azure", "azure_ai") and "router" in name.lower() and "model" in name.lower():
        return None
    key = key_of(name, provider)
    if key is not None and _prices_anything(litellm.model_cost[key]):
        return key
    if other:  # the model behind a name may have its prices at another provider alone
        own = provider_of(name)
        key = key_of(name, own) if own != provider else None
        if key is not None and _prices_anything(litellm.model_cost[key]):
            return key
    return None


def _mark(raw: Mapping[str, Any]) -> tuple[Any, ...]:
    return len(raw), raw.get("input_cost_per_token"), raw.get("output_cost_per_token")


@cache
def _counter() -> Callable[[], Any]:
    """What counts the changes of the price map, where LiteLLM does (from 1.110)."""
    try:
        found: Callable[[], Any] = internal("get_model_cost_mutation_generation")
    except Exception:
        return int
    return found


def _prices_anything(entry: Any) -> bool:
    return isinstance(entry, Mapping) and any("cost" in name or "pric" in name for name in entry)


def key_of(model: str, provider: str | None) -> str | None:
    """Return the key that LiteLLM finds a model under, or ``None``."""
    litellm: Any = loaded()
    if litellm is None:
        return None
    prices = litellm.model_cost
    if provider == "vertex_ai_beta":
        provider = "vertex_ai"
    for name in _names(litellm, model, provider):
        key = name if name in prices else _spelled(name)
        if key is not None and matches(prices[key], provider):
            return key
    return None


def _names(litellm: Any, model: str, provider: str | None) -> Iterator[str]:
    if provider and model.startswith(f"{provider}/{provider}/"):
        model = model.removeprefix(f"{provider}/")
    for renamed in ("azure_llms", "azure_embedding_models"):
        model = (member(litellm, renamed) or {}).get(model, model)
    if provider == "vertex_ai":
        bare = model.removeprefix("vertex_ai/")
        yield f"vertex_ai/meta/{bare}"
        yield f"vertex_ai/{bare}@latest"
    if provider:
        try:
            made = internal("_get_potential_model_names")(model, provider)
        except Exception:  # a provider that LiteLLM does not know
            made = {"combined_model_name": f"{provider}/{model.removeprefix(provider + '/')}"}
            made["split_model"] = model.removeprefix(f"{provider}/")
        for kind in _LOOKUP_ORDER:
            name = made.get(kind) if kind else model
            if name:
                yield name
    else:
        yield model


def _spelled(name: str) -> str | None:
    """The key that is the same but for capital letters."""
    try:
        found = internal("_get_model_cost_key")(name)
    except Exception:
        return None
    return found if isinstance(found, str) else None


def matches(entry: Any, provider: str | None) -> bool:
    """Whether an entry is one of the provider's, or of one that LiteLLM takes for it."""
    if not isinstance(entry, Mapping):
        return False
    try:
        return bool(internal("_check_provider_match")(entry, provider))
    except Exception:
        return entry.get("litellm_provider") in (None, provider)
