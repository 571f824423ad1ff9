"""Our own price of an outcome, by LiteLLM's price map.

Owns the way from an outcome to the entries that price it, for an answer, an estimate, a batch, and
an answer of Anthropic's that took several requests; and the rates of a plain one as integers.
``_litellm.costs`` has LiteLLM's own figures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from functools import lru_cache
from typing import Any, Final, NamedTuple

from litellm_ledger._errors import InvalidRecord
from litellm_ledger._prices.bill import EXACT
from litellm_ledger._prices.entry import Entry
from litellm_ledger._prices.fees import IMAGE_TOOL
from litellm_ledger._prices.off_peak import is_off_peak
from litellm_ledger._prices.price import price
from litellm_ledger._prices.quantities import conditions, used
from litellm_ledger._prices.units import UNIT_CALLS
from litellm_ledger._records.money import MAX_PICOUSD, PICO

from .entries import entry_of
from .unit_entries import unit_entry
from .usage import usage_fields

__all__ = [
    "IMAGE_TOOL",
    "UNIT_CALLS",
    "MapPrice",
    "chosen",
    "is_unknown",
    "plain_picousd",
    "price_by_map",
]


class MapPrice(NamedTuple):
    """A price by the map.

    Attributes:
        cost: US dollars; ``None`` if something is missing.
        missing: what was used and the map has no price for.
        entries: those that gave the prices; the call's own is the first.
        parts: of an answer that took several requests: each with the name of its entry.
        conditions: of a batch: what chose the price.
        floor: what has a price.
    """

    cost: Decimal | None
    missing: tuple[str, ...]
    entries: tuple[Entry, ...]
    parts: list[dict[str, Any]]
    conditions: Mapping[str, Any] = {}
    floor: Decimal = Decimal(0)


def price_by_map(
    fields: Mapping[str, Any],
    *,
    model: str,
    provider: str | None,
    call: str,
    parts: list[dict[str, Any]] | None = None,
) -> MapPrice | None:
    """Price what an outcome says was used, by what chose the price.

    Args:
        fields: of the outcome; the conditions are in its ``meta``.
        model, provider, call: as on the record.
        parts: ``usage.parts`` of the answer.

    ``None`` where nothing was used, the map has no entry, or the cost is more than a record holds.
    """
    try:
        return _priced(fields, model, provider, call, parts)
    except (InvalidRecord, DecimalException):
        return None


def _priced(
    fields: Mapping[str, Any],
    model: str,
    provider: str | None,
    call: str,
    parts: list[dict[str, Any]] | None,
) -> MapPrice | None:
    told = {**fields, "call": call, "provider": provider}
    chose = conditions(told)
    if call in UNIT_CALLS:
        entry = unit_entry(call, model, provider, fields, chose)
    else:
        served, base_model = fields.get("response_model"), chose.get("base_model")
        entry = entry_of(model, provider, served=served, base_model=base_model)
    if parts and entry is not None:
        return _by_parts(parts, told, entry, model, provider)
    quantities = used(told)
    if entry is None or not (quantities or call == "amoderation"):
        return None
    found = price(quantities, chose, entry)
    return MapPrice(found.cost, found.missing, (entry,), [], floor=found.floor)


def _by_parts(
    parts: list[dict[str, Any]],
    told: Mapping[str, Any],
    main: Entry,
    model: str,
    provider: str | None,
) -> MapPrice | None:
    """Each request by itself: by its own model, and by the length of its own context."""
    from litellm_ledger._prices.computed import compute  # few answers have parts

    entries, noted = {main.version: main}, list[dict[str, Any]]()
    for usage in parts:
        counts = usage_fields(usage)
        if not used(counts):
            continue
        entry, named = main, {}
        other = usage.get("model")
        if isinstance(other, str) and other and other != model:
            found = entry_of(other, provider)
            if found is None:
                return None
            entry, named = found, {"model": other}
        entries[entry.version] = entry
        meta = counts.pop("meta", {})
        noted.append({**named, **counts, **meta, "price_version": entry.version})
    meta = {**(told.get("meta") or {}), "parts": noted}
    cost, _, missing, floor = compute(main, {**told, "meta": meta}, entries.get)
    return MapPrice(cost, missing, tuple(entries.values()), noted, floor=floor)


def chosen(
    fields: Mapping[str, Any], model: str, provider: str | None, base_model: str | None = None
) -> dict[str, int | bool]:
    """What of the moment chooses the price: ``above`` a number of tokens of context, ``off_peak``.

    The hour is that of now, when the call has ended: it is what DeepSeek bills by
    (https://api-docs.deepseek.com/quick_start/pricing).
    """
    found: dict[str, int | bool] = {}
    entry = entry_of(model, provider, served=fields.get("response_model"), base_model=base_model)
    if entry is None:
        return found
    context = fields.get("input_tokens") or 0
    above = [
        each.tokens
        for each in entry.above
        if each.name == "input_cost_per_token" and each.tokens < context
    ]
    if above:
        found["above"] = max(above)
    hours = entry.members.get("off_peak_pricing")
    if isinstance(hours, dict):
        found["off_peak"] = is_off_peak(hours, {"ts": datetime.now(UTC)})
    return found


_LACKED: Final = re.compile(
    r".*_above_\d+(k?_tokens|hr).*|.*_(balanced|batches|flex|priority|ultrafast)|"
    r"(code_interpreter|computer_use|file_search|google_maps|provider_specific|search|web_search).*"
)


def is_unknown(missing: tuple[str, ...]) -> bool:
    """Whether LiteLLM's figure lacks what is missing too: it takes another price, or none."""
    return any(map(_LACKED.fullmatch, missing))


# --- A plain answer: four kinds of text tokens at the entry's first prices ----------------------


def plain_picousd(fields: Mapping[str, Any], model: str) -> tuple[int, Entry] | None:
    """Price ``plain_fields`` in picodollars, by whole numbers; ``None``: the price is not plain."""
    provider = fields["provider"]
    entry = entry_of(model, provider, served=fields["response_model"])
    if entry is None:
        return None
    rates = _rates(entry, provider)
    if rates is None:
        return None
    limit, unit, fresh, cached, thought, output = rates
    given, made = fields["input_tokens"], fields["output_tokens"]
    read, reasoning = fields.get("cache_read_tokens", 0), fields.get("reasoning_tokens", 0)
    if given >= limit or read > given or reasoning > made:
        return None
    total = (
        (given - read) * fresh + read * cached + (made - reasoning) * output + reasoning * thought
    )
    pico, rest = divmod(total, unit)
    if 2 * rest > unit or (2 * rest == unit and pico & 1):
        pico += 1
    return (pico, entry) if pico <= MAX_PICOUSD else None


_NO_LIMIT: Final = 2**53


@lru_cache(1_000)
def _rates(entry: Entry, provider: str) -> tuple[int, int, int, int, int, int] | None:
    """Limit of the context, unit, and the prices of input, cached input, reasoning and output.

    The prices are whole numbers of the ``unit``-th part of a picodollar.  They are read off the
    terms of ``price``, so that there is one set of rules.
    """
    counts = {"cache_read_tokens": 1, "input_tokens": 3, "output_tokens": 12, "reasoning_tokens": 4}
    if not {"tiered_pricing", "off_peak_pricing"}.isdisjoint(entry.members):
        return None
    found = price(counts, {"provider": provider, "call": "acompletion"}, entry)
    by_count = {term.quantity: term.price for term in found.lines if term.unit == "token"}
    if found.missing or len(found.lines) != len(counts) or by_count.keys() != {1, 2, 4, 8}:
        return None
    prices = [EXACT.normalize(by_count[count].scaleb(PICO, EXACT)) for count in (2, 1, 4, 8)]
    digits = max(0, *(-int(price.as_tuple().exponent) for price in prices))
    limit = min((above.tokens for above in entry.above), default=_NO_LIMIT)
    fresh, cached, thought, output = (int(price.scaleb(digits, EXACT)) for price in prices)
    return limit, 10**digits, fresh, cached, thought, output
