"""What a call cost, and what that price hung on.

Owns the order of precedence: the user's own price, then what the provider says that it bills, then
ours by LiteLLM's price map, then LiteLLM's figure; and the note of the conditions that chose the
price.  What none of them knows stays unknown.  Never raises: the answer is the user's, whatever its
price.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._litellm import load as _litellm
from litellm_ledger._litellm.bill import containers_of, provider_id
from litellm_ledger._litellm.calls import Asked
from litellm_ledger._litellm.costs import map_cost, provider_of, put_litellm_cost, says
from litellm_ledger._litellm.members import member, note, note_price, noted, view
from litellm_ledger._litellm.price_options import hangs_on_nothing, priced_elsewhere
from litellm_ledger._litellm.units import search_context
from litellm_ledger._litellm.usage import parts
from litellm_ledger._records.money import FAR, usd, whole

if TYPE_CHECKING:
    from types import ModuleType

    from litellm_ledger._litellm.map_price import MapPrice
    from litellm_ledger._prices.own import ModelPrice, Prices

__all__ = ["Pricing"]

_log = logging.getLogger("litellm_ledger")


_MOST_CONTAINERS: Final = 10_000
"""Containers that are remembered as billed; OpenAI's end 20 minutes after their last use."""

_CONDITIONS: Final[tuple[str, ...]] = ("base_model", "data_residency", "vertex_location")
"""Options that are noted beside each price that hung on them."""
_ASKED: Final = ("inference_geo", "service_tier", "speed")
"""Options that count where the answer does not say what it was."""


@cache
def _map() -> ModuleType:
    """``_litellm.map_price`` with all rules of prices: a client without calls needs none."""
    from litellm_ledger._litellm import map_price

    return map_price


def _keep_nothing(version: str, contents: str, litellm: str | None = None) -> None:
    """For who has no ledger."""


class Pricing:
    """The prices of one client.

    Args:
        prices: the user's own, by model.
        keep: has what a record was priced by kept in the price book.
    """

    def __init__(
        self,
        prices: Mapping[str, ModelPrice | Sequence[ModelPrice]] | None = None,
        keep: Callable[..., None] = _keep_nothing,
    ) -> None:
        self._table: Prices = {}
        if prices:
            from litellm_ledger._prices.own import price_table  # who gives none does not load it

            self._table = price_table(prices)
        self._keep = keep
        self._entries: dict[int, tuple[str, str]] = {}
        self._warned: set[tuple[str, str]] = set()
        self._containers: dict[str, None] = {}  # the newest last

    def complete(
        self, fields: dict[str, Any], answer: Any, asked: Asked, began: datetime | None = None
    ) -> dict[str, Any]:
        """Add what an outcome lacks: provider, cost, price version, conditions.  Never raises.

        ``began``: when the attempt did, which chooses among the user's prices; ``None``: now.
        """
        try:
            self._complete(fields, answer, asked, began)
        except Exception as exc:  # noqa: BLE001 - logged; the record is written without a cost
            _log.error(
                "the cost of a call to %s could not be determined: %s",
                asked.model,
                type(exc).__name__,
            )
        return fields

    def complete_plain(
        self,
        fields: dict[str, Any],
        model: str | None,
        kwargs: Mapping[str, Any],
        began: datetime | None = None,
    ) -> bool:
        """``complete`` where LiteLLM's price hung on nothing; tell whether that was so.

        Args:
            fields: ``plain_fields`` of the answer.
            model: the caller's.
            kwargs: the caller's arguments.
            began: as for ``complete``.
        """
        provider = fields["provider"]
        if not model or not fields["cost"]:
            return False
        if self._table and self.own(model, provider, began) is not None:
            return False
        try:
            if not hangs_on_nothing(kwargs, model=model, provider=provider):
                return False
            found = _map().plain_picousd(fields, model)
            if found is None:
                return False
            pico, entry = found
            meta: dict[str, Any] = {"litellm": _litellm.version()}
            if pico != whole(fields["cost"]):
                meta["price"] = {"check": format(fields["cost"], "f")}
                fields["cost"] = usd(pico)
            fields["cost_source"], fields["price_version"] = "price_map", entry.version
            fields["meta"] = meta
            self._keep(entry.version, entry.text, meta["litellm"])
        except Exception:  # noqa: BLE001 - `complete` meets it as well, and logs it
            return False
        return True

    def own(
        self, model: str | None, provider: str | None, began: datetime | None = None
    ) -> ModelPrice | None:
        """The user's price of a model at a time; ``None``: now."""
        if not self._table:
            return None
        from litellm_ledger._prices.own import find_price

        return find_price(self._table, model, provider, began or datetime.now(UTC))

    def version(self, price: ModelPrice) -> str:
        """The version of a price of the user's, which the price book gets."""
        entry = self._entries.get(id(price))  # the table holds it
        if entry is None:
            entry = self._entries[id(price)] = price.version, price.text
        self._keep(*entry)
        return entry[0]

    def provider(self, found: str | None, asked: Asked, model: str | None = None) -> str | None:
        """The provider: as the answer says, as the caller does, or by the name of the model."""
        return found or asked.provider or provider_of(model or asked.model or "")

    def _complete(
        self, fields: dict[str, Any], answer: Any, asked: Asked, began: datetime | None
    ) -> None:
        model = asked.model or fields.get("response_model") or ""
        provider = self.provider(fields.get("provider"), asked, model)
        if provider:
            fields["provider"] = provider
        note(fields, {"litellm": _litellm.version()})
        if "containers" in (noted(fields, "tools") or ()) and not fields.get("cache_hit"):
            self._count_containers(fields, answer, asked)
        own = self.own(model, provider, began)
        if own is not None:
            self._put_own(fields, own, model, _written_by_others(answer, model))
            return
        options = asked.price_options(provider)
        served = (noted(fields, "price") or {}).get("service_tier")
        if served:  # by an earlier chunk than the one that is priced
            options["service_tier"] = served
        if not noted(fields, "unpriced") and not priced_elsewhere(asked.kwargs):
            call = asked.call.name
            found = _by_map(fields, answer, model, provider, call, options, asked.kwargs)
            if found is not None and self._put_map(fields, call, *found):
                return
        put_litellm_cost(
            fields, answer, model=model, provider=provider, call=asked.call, options=options
        )
        if fields.get("cost_source") == "litellm":
            fields["price_version"] = _litellm.price_version()
            note_price(fields, {name: options[name] for name in _CONDITIONS if name in options})
            note_price(fields, _map().chosen(fields, model, provider, options.get("base_model")))
        elif fields.get("cost_source") == "provider" and not fields.get("cache_hit"):
            _compare(fields, map_cost(model, provider, fields, **options))

    def _count_containers(self, fields: dict[str, Any], answer: Any, asked: Asked) -> None:
        """A container is billed when it begins, however many answers run code in it."""
        said = view(answer).get
        if asked.call.name == "acreate_container":
            made = {provider_id(said("id"))}
        else:
            made = containers_of(said)
        new = [name for name in made if not isinstance(name, str) or name not in self._containers]
        self._containers |= dict.fromkeys(name for name in new if isinstance(name, str))
        while len(self._containers) > _MOST_CONTAINERS:
            del self._containers[next(iter(self._containers))]
        if len(new) < len(made):
            tools = {**noted(fields, "tools"), "containers": len(new)}
            told = {name: count for name, count in tools.items() if count}
            meta = {name: value for name, value in fields["meta"].items() if name != "tools"}
            fields["meta"] = meta | ({"tools": told} if told else {})

    def _put_map(
        self, fields: dict[str, Any], call: str, found: MapPrice, told: dict[str, Any]
    ) -> bool:
        """Put our price by the map on an outcome, and LiteLLM's beside it where that is another.

        Returns:
            Whether that settles the cost: if not, LiteLLM's figure is the next to be asked.
        """
        if fields.get("cost_source") == "provider":
            if not fields.get("cache_hit"):
                _compare(fields, found.cost)
            return True
        by_units = call in _map().UNIT_CALLS
        if found.cost is None and not by_units and not _map().is_unknown(found.missing):
            # LiteLLM prices an image that a tool made only if the answer names the tool's model.
            imaged = found.missing == (_map().IMAGE_TOOL,)
            if not (imaged and fields.get("cost") == found.floor):
                return False
        hit = fields.get("cache_hit") is True
        said = fields.pop("saved_cost" if hit else "cost", None)
        fields.pop("cost_source", None)
        fields["meta"] = told["meta"]
        if found.cost is None:
            fields.pop("cost", None)
            note(fields, {"unpriced": list(found.missing)})
            return True
        counted = fields.get("usage_source") == "provider" or by_units
        if said and said != found.cost and counted and call != "aspeech":  # LiteLLM counts no blank
            note_price(fields, {"check": format(said, "f")})
        if found.parts:
            note(fields, {"parts": found.parts})
        fields["saved_cost" if hit else "cost"] = found.cost
        if hit:
            fields["cost"] = Decimal(0)
        fields["cost_source"], fields["price_version"] = "price_map", self.map_version(found)
        return True

    def map_version(self, found: MapPrice) -> str:
        """The version of a price by the map, which the price book gets."""
        for entry in found.entries:
            self._keep(entry.version, entry.text, _litellm.version())
        return found.entries[0].version

    def batch(
        self, fields: Mapping[str, Any], model: str, provider: str, options: Mapping[str, Any]
    ) -> MapPrice | None:
        """Our price of a finished batch, and what chose it; ``None`` where the map lacks one."""
        try:
            meta = fields.get("meta") or {}
            told = {**fields, "meta": {**meta, "price": {"batch": True}}}
            found = _by_map(told, None, model, provider, "aretrieve_batch", options)
        except Exception:  # noqa: BLE001 - LiteLLM's figure is the next to be asked
            return None
        if found is None or found[0].cost is None:
            return None
        return found[0]._replace(conditions=found[1]["meta"]["price"])

    def _put_own(self, fields: dict[str, Any], price: ModelPrice, model: str, others: bool) -> None:
        """The user's price, and nobody else's: what it does not cover is unknown, and named."""
        for name in ("cost", "cost_source", "saved_cost"):
            fields.pop(name, None)
        if fields.get("meta"):
            fields["meta"].pop("unpriced", None)
        from litellm_ledger._prices.own import lacking_prices, price_of

        lacking = lacking_prices(price, fields)
        if others and (price.input is not None or price.output is not None):
            lacking.append("iterations")
        if lacking:
            note(fields, {"unpriced": lacking})
            for name in lacking:
                if (model, name) not in self._warned:
                    self._warned.add((model, name))
                    _log.warning(
                        "prices= of %s lacks %s, which was used: the cost is unknown", model, name
                    )
        cost = price_of(price, fields)
        if cost is None or "iterations" in lacking:
            return
        if fields.get("cache_hit"):
            fields["saved_cost"], cost = cost, Decimal(0)
        fields["cost"], fields["cost_source"] = cost, "user"
        fields["price_version"] = self.version(price)


def _written_by_others(answer: Any, model: str) -> bool:
    """Whether a part of an answer's tokens is another model's, as the advisor's are."""
    ours = model.rpartition("/")[2]
    named = (part.get("model") for part in parts(member(answer, "usage")))
    return any(
        isinstance(name, str) and not (name.startswith(ours) or ours.startswith(name))
        for name in named
    )


def _by_map(
    fields: Mapping[str, Any],
    answer: Any,
    model: str,
    provider: str | None,
    call: str,
    options: Mapping[str, Any],
    kwargs: Mapping[str, Any] | None = None,
) -> tuple[MapPrice, dict[str, Any]] | None:
    """Our price of an outcome, and the outcome with what chose it; ``None`` without an entry."""
    told = dict(fields)
    base_model = options.get("base_model")
    note_price(told, {name: options[name] for name in _CONDITIONS if name in options})
    note_price(
        told, {name: options[name] for name in _ASKED if name in options and not says(answer, name)}
    )
    note_price(told, _map().chosen(told, model, provider, base_model))
    if kwargs and (provider == "perplexity" or "web_searches" in (noted(told, "tools") or ())):
        size = search_context(kwargs)
        note_price(told, {"search_context": size} if size else {})
    split = parts(member(answer, "usage"))
    found = _map().price_by_map(told, model=model, provider=provider, call=call, parts=split)
    return None if found is None else (found, told)


def _compare(fields: dict[str, Any], listed: Decimal | None) -> None:
    """Note the price map's figure beside the server's, where the two are far apart."""
    said = fields["cost"]
    if listed is None or said == listed or fields["usage_source"] != "provider":
        return
    if max(said, listed) >= FAR * min(said, listed):
        note_price(fields, {"listed": format(listed, "f")})
