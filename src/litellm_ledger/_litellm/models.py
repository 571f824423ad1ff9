"""What is known of the model of a call before it is sent: its prices and its limits.

Owns the look-up for a budget's hold.  The price map's entry is found as for the price of an answer;
the answer may name another model, which nobody knows before it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from litellm_ledger._budgets.bound import Model
from litellm_ledger._prices.entry import Entry
from litellm_ledger._prices.own import ModelPrice

from .entries import entry_by_key, entry_of, matches
from .load import loaded

__all__ = ["known_model"]

_IMAGES: Final = frozenset({"aimage_edit", "aimage_generation", "aimage_variation"})
_known: dict[tuple[Any, ...], tuple[Entry | None, Model]] = {}
_MOST: Final = 1_000


def known_model(
    call: str,
    model: str | None,
    provider: str | None,
    *,
    base_model: str | None = None,
    own: Callable[[], ModelPrice | None] = lambda: None,
) -> Model:
    """Return what is known of a model: 1 µs when it is known.

    Args:
        call, model, provider: as for the record.
        base_model: the model behind a deployment's name.
        own: finds the user's price.
    """
    entry = entry_of(model, provider, base_model=base_model)
    asked = (call, model, provider, base_model)
    found = _known.get(asked)
    if found is None or found[0] is not entry:
        made = _model(call, model or "", provider or "", entry)
        if len(_known) >= _MOST:
            _known.clear()
        found = _known[asked] = entry, made
    price = own()
    return found[1] if price is None else found[1]._replace(own=price)


def _model(call: str, model: str, provider: str, entry: Entry | None) -> Model:
    entries = [] if entry is None else [entry]
    if call in _IMAGES:
        entries += _image_entries(model, provider)
    elif call == "asearch":
        entries = _search_entries(provider)
    raw = _raw(entry)
    return Model(
        entries=tuple(dict.fromkeys(entries)),
        own=None,
        name=model,
        provider=provider.removesuffix("_beta"),
        most_in=_limit(raw, "max_input_tokens"),
        most_out=_limit(raw, "max_output_tokens"),
        reasons=raw.get("supports_reasoning") is True,
    )


def _prices() -> Mapping[str, Any]:
    found = getattr(loaded(), "model_cost", None)
    return found if isinstance(found, Mapping) else {}


def _raw(entry: Entry | None) -> Mapping[str, Any]:
    found = None if entry is None else _prices().get(entry.key)
    return found if isinstance(found, Mapping) else {}


def _limit(raw: Mapping[str, Any], name: str) -> int | None:
    value = raw.get(name)
    return value if type(value) is int and value > 0 else None


def _image_entries(model: str, provider: str) -> list[Entry]:
    """All sizes and qualities: which of them it will be the answer says."""
    bare = model.removeprefix(f"{provider}/") if provider else model
    ends = tuple({f"/{bare}", f"/{bare.rpartition('/')[2]}"})
    prices = _prices()
    keys = [name for name in prices if name.endswith(ends) and matches(prices[name], provider)]
    return [entry_by_key(key, provider) for key in keys]


def _search_entries(provider: str) -> list[Entry]:
    """All kinds of search: the arguments may leave it to the provider."""
    prices, start = _prices(), f"{provider}/search"
    keys = [name for name in prices if name.startswith(start) and matches(prices[name], provider)]
    return [entry_by_key(key, provider) for key in keys]
