"""The highest prices that an entry of the price map may have for a call.

Owns which members of an entry may price a token of input or output, whatever the answer says of its
tier, its context, its hour or its region, and what of that the arguments of the call rule out.
Prices are whole numbers of 10⁻¹⁸ US dollars, rounded up: a sum of them is never below the cost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple

from litellm_ledger._prices.entry import Entry, number

__all__ = [
    "ALL_KINDS",
    "ATTO",
    "Ceiling",
    "atto",
    "band",
    "ceiling",
    "fee",
    "highest",
    "multiplier",
    "tiers",
]

ATTO: Final = 18
ALL_KINDS: Final = frozenset({"audio", "image", "video"})
"""What input or output may be beside text."""

_NAME: Final = re.compile(
    r"(?P<base>.+?)(?:_above_(?P<digits>\d+)(?P<k>k?)_tokens)?"
    r"(?:_(?P<tier>balanced|batches|decisions|flex|priority|ultrafast))?"
)
_TEXT_IN: Final = (
    "cache_creation_input_token_cost",
    "cache_read_input_token_cost",
    "explicit_cache_read_input_token_cost",
    "input_cost_per_token",
)
_TEXT_OUT: Final = frozenset({"output_cost_per_reasoning_token", "output_cost_per_token"})

_EVERY: Final = frozenset({"", "balanced", "flex", "priority", "ultrafast"})
_PLAIN: Final = frozenset({"default", "on_demand", "standard", "standard_only"})
_FAST: Final = {"fast": "priority"}


class Ceiling(NamedTuple):
    """Prices in 10⁻¹⁸ US dollars; ``None``: the entry has none.

    Attributes:
        given: of one token of input.
        made: of one token of output.
        request: of one call.
    """

    given: int | None
    made: int | None
    request: int


def atto(amount: Decimal) -> int:
    """US dollars in whole 10⁻¹⁸, rounded up."""
    return int(amount.scaleb(ATTO).to_integral_value(ROUND_CEILING))


def tiers(asked: Any, call: str) -> frozenset[str]:
    """The service tiers, as ends of names, whose prices may count.

    Without a word of the caller's the provider chooses: OpenAI by a setting of the project.
    """
    if call in ("adecisions", "asystemone"):
        return frozenset({"", "decisions"})
    if isinstance(asked, str):
        tier = asked.lower()
        if tier in _PLAIN:
            return _STANDARD
        tier = _FAST.get(tier, tier)
        if tier in _EVERY:
            return frozenset({"", tier})
    return _EVERY


_STANDARD: Final = frozenset({""})


@lru_cache(1_000)
def _thresholds(entry: Entry) -> tuple[int, ...]:
    """Lengths of the context, in order, at which the prices become others."""
    found = {above.tokens for above in entry.above}
    found |= {start for start, _ in _ranges(entry)}
    return tuple(sorted(found))


def band(entry: Entry, context: int) -> int:
    """Return how many of the entry's thresholds a context of this many tokens reaches."""
    found = _thresholds(entry)
    return sum(context >= start for start in found) if found else 0


def _ranges(entry: Entry) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The ranges of ``tiered_pricing`` with their starts; 0 where the list has a gap."""
    listed = entry.members.get("tiered_pricing")
    known: list[tuple[Decimal, Decimal, Mapping[str, Any]]] = []
    for within in listed if isinstance(listed, list) else ():
        bounds = within.get("range") if isinstance(within, dict) else None
        if isinstance(bounds, list) and len(bounds) == 2:
            start, end = map(number, bounds)
            if start is not None and end is not None:
                known.append((start, end, within))
    known.sort(key=lambda each: each[:2])
    ends = [Decimal(0), *(end for _, end, _ in known)]
    whole = all(start <= end for (start, _, _), end in zip(known, ends, strict=False))
    for start, _, within in known:
        yield (int(start) if whole else 0), within


@lru_cache(4_000)
def ceiling(
    entry: Entry,
    allowed: frozenset[str],
    crossed: int,
    given: frozenset[str],
    made: frozenset[str],
) -> Ceiling:
    """Return the highest prices: 1 µs when they are known, else 50.

    Args:
        entry: the prices.
        allowed: ``tiers``.
        crossed: ``band``.
        given, made: what may be in input and output beside text.
    """
    found = _thresholds(entry)
    limit = found[crossed - 1] if crossed else -1
    ins, outs = list[Decimal](), list[Decimal]()
    for name, value in _members(entry, limit):
        match = _NAME.fullmatch(name)
        if match is None or (match["tier"] or "") not in allowed:
            continue
        if match["digits"] and int(match["digits"]) * (1_000 if match["k"] else 1) > limit:
            continue
        price = number(value)
        if price is None:
            continue
        base = match["base"]
        if _is_input(base, given):
            ins.append(price)
        elif base in _TEXT_OUT or base in {f"output_cost_per_{kind}_token" for kind in made}:
            outs.append(price)
    return Ceiling(
        atto(max(ins)) if _prices(entry, "input_cost_per_token") and ins else None,
        atto(max(outs)) if outs else None,
        atto(entry.price("input_cost_per_request") or Decimal(0)),
    )


def _members(entry: Entry, limit: int) -> Iterator[tuple[str, Any]]:
    yield from entry.members.items()
    hours = entry.members.get("off_peak_pricing")
    if isinstance(hours, dict):
        yield from hours.items()
    for start, within in _ranges(entry):
        if start <= limit:
            yield from within.items()


def _prices(entry: Entry, name: str) -> bool:
    """Whether the entry has a price of this name, in a range too."""
    return entry.price(name) is not None or any(
        number(within.get(name)) is not None for _, within in _ranges(entry)
    )


def _is_input(base: str, kinds: Iterable[str]) -> bool:
    if base in _TEXT_IN or base.startswith("cache_creation_input_token_cost_above_"):
        return True
    return any(
        base
        in (
            f"input_cost_per_{kind}_token",
            f"cache_read_input_{kind}_token_cost",
            f"cache_creation_input_{kind}_token_cost",
        )
        for kind in kinds
    )


def multiplier(entry: Entry, options: Mapping[str, Any]) -> Decimal | None:
    """The product of the highest uplifts that may count; ``None`` where one has no price.

    Args:
        entry: the prices.
        options: ``price_options`` of the call: what its arguments say.
    """
    product = Decimal(1)
    region = options.get("data_residency")
    if isinstance(region, str):
        region = region.lower()
        name = "fedramp" if region == "fedramp" else "regional_processing"
        end = "" if region == "fedramp" else f"_{region}"
        product *= _uplift(entry.price(f"{name}_uplift_multiplier{end}"))
    location = options.get("vertex_location")
    if isinstance(location, str) and location.lower() != "global":
        product *= _uplift(entry.price("regional_endpoint_uplift_multiplier"))
    specific = entry.members.get("provider_specific_entry")
    specific = specific if isinstance(specific, dict) else {}
    geo = options.get("inference_geo")
    if isinstance(geo, str):
        product *= _uplift(number(specific.get(geo.lower())))
    else:  # the workspace's default counts
        others = (number(value) for name, value in specific.items() if name in _GEOS)
        product *= max((_uplift(each) for each in others), default=Decimal(1))
    if options.get("speed") == "fast":
        fast = number(specific.get("fast"))
        if fast is None:
            return None
        product *= _uplift(fast)
    return product


_GEOS: Final = frozenset({"apac", "au", "eu", "global", "jp", "uk", "us"})


def _uplift(price: Decimal | None) -> Decimal:
    return Decimal(1) if price is None else max(price, Decimal(1))


def highest(entries: Iterable[Entry], *starts: str) -> int | None:
    """The highest price, in 10⁻¹⁸ dollars, of a unit that is no token; ``None`` without any.

    ``starts`` are what the names of its members begin with.
    """
    found = [
        price
        for entry in entries
        for name, value in entry.members.items()
        if name.startswith(starts) and "token" not in name and "pixel" not in name
        if (price := number(value)) is not None
    ]
    return atto(max(found)) if found else None


def fee(entry: Entry, *names: str) -> int | None:
    """The highest of the fees under these names, of the entry or of its provider's list."""
    listed = entry.members.get("default_fees")
    holders = (entry.members, listed if isinstance(listed, dict) else {})
    found = list[Decimal]()
    for holder in holders:
        for name in names:
            value = holder.get(name)
            each = value.values() if isinstance(value, dict) else (value,)
            found += [price for part in each if (price := number(part)) is not None]
    return atto(max(found)) if found else None
