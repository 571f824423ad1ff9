"""The price of one kind of token: by service tier, length of the context, hour, or batch.

Owns which member of an entry that is.  A price that an entry ought to have, because it has the
tier or the threshold for other tokens, is missing: no other price is put in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from .bill import EXACT
from .entry import Entry, number
from .off_peak import is_off_peak

__all__ = ["EXPLICIT_READ", "INPUT", "OUTPUT", "REASONING", "WRITE", "Found", "Rates"]

INPUT: Final = "input_cost_per_token"
OUTPUT: Final = "output_cost_per_token"
READ: Final = "cache_read_input_token_cost"
EXPLICIT_READ: Final = "explicit_cache_read_input_token_cost"
WRITE: Final = "cache_creation_input_token_cost"
_IMAGE_OUTPUT: Final = "output_cost_per_image_token"
REASONING: Final = "output_cost_per_reasoning_token"
_OF_INPUT: Final = frozenset(
    {INPUT, READ, EXPLICIT_READ, WRITE, f"{WRITE}_above_1hr", f"{WRITE}_above_12hr"}
)
_TEXT: Final = _OF_INPUT | {OUTPUT}
"""Prices that a threshold of any of them is a threshold for."""
_READS: Final = frozenset({READ, EXPLICIT_READ, "cache_read_input_audio_token_cost"})

_TIERS: Final = {
    "balanced": "balanced",
    "fast": "priority",
    "flex": "flex",
    "priority": "priority",
    "ultrafast": "ultrafast",
}
"""Service tiers, each with the end of the names of its prices."""
_BATCHES: Final = "batches"
_DECISIONS: Final = "decisions"
_DECISION_CALLS: Final = frozenset({"adecisions", "asystemone"})

_INCLUSIVE: Final = frozenset({"xai"})
"""Providers whose price changes at the threshold already (https://docs.x.ai/docs/models)."""
_FIREWORKS: Final = "fireworks_ai"
"""A cached token costs half an input token there, where no price is listed
(https://docs.fireworks.ai/guides/prompt-caching)."""

Found = tuple[str, Decimal | None]
"""The name of a member and its price; ``None`` if it is missing."""


class Rates:
    """The prices of the tokens of one call.

    Args:
        entry: the prices.
        conditions: ``quantities.conditions`` of the record.
        context: how many tokens the whole input has.
    """

    __slots__ = ("_above", "_block", "_entry", "_halved", "_range", "_tier")

    def __init__(self, entry: Entry, conditions: Mapping[str, Any], context: int | Decimal) -> None:
        self._entry = entry
        members = entry.members
        self._tier = _tier(members, conditions)
        self._halved = self._tier == _BATCHES and _batches_are_half(entry)
        self._above = _crossed(entry, conditions, self._tier, context) if entry.above else {}
        ranges = members.get("tiered_pricing")
        self._range = _range(ranges, context) if isinstance(ranges, list) else None
        hours = members.get("off_peak_pricing")
        self._block: Mapping[str, Any] = (
            hours if isinstance(hours, dict) and is_off_peak(hours, conditions) else {}
        )

    def find(self, *names: str) -> Found:
        """The price under the first of the names that the entry prices at all."""
        for name in names:
            found = self._find(name)
            if found is not None:
                return found
        return names[-1], None

    def read(self, *names: str) -> Found:
        """The price of a cached token, by the first of ``names``, or else as any input."""
        for name in (*names, READ):
            found = self._find(name)
            if found is not None:
                return found
        name, price = self.find(INPUT)
        provider = self._entry.members.get("litellm_provider")
        if price is not None and provider == _FIREWORKS:
            return name, _half(price)
        return name, price

    def write(self, longer: str) -> Found:
        """The price of a token written to the cache for ``1h`` or ``12h``.

        What has a price for five minutes alone has none for longer; what has neither is input.
        """
        name = f"{WRITE}_above_{longer}r"
        found = self._find(name)
        if found is None and (self._range is not None or self._find(WRITE) is None):
            return self.find(WRITE, INPUT)
        return found or (name, None)

    def output(self) -> Found:
        """The price of a token of text; of an image, where a model makes nothing else."""
        name, price = self.find(OUTPUT)
        if not price:
            image = self._find(_IMAGE_OUTPUT)
            if image is not None:
                return image
        return name, price

    def _find(self, name: str) -> Found | None:
        """The price under a name; ``None`` if the entry has no such price for anybody."""
        price = number(self._block.get(name))
        if price is not None:
            return f"off_peak_pricing.{name}", price
        if self._range is not None:
            index, within = self._range
            price = number(within.get(name))
            if price is not None:
                found = _half(price) if self._halved else price
                return f"tiered_pricing.{index}.{name}", found
            if name in _OF_INPUT or (name == REASONING and OUTPUT in within):
                return None
        above = self._above.get("" if name in _TEXT else name)
        full = f"{name}_above_{above}_tokens" if above else name
        standard = self._entry.price(full)
        if standard is None and above and self._entry.price(name) is None:
            full = name
        if not self._tier:
            return (full, standard) if standard is not None or full != name else None
        return self._of_tier(name, full, standard)

    def _of_tier(self, name: str, full: str, standard: Decimal | None) -> Found | None:
        own = f"{full}_{self._tier}"
        price = self._entry.price(own)
        if price is not None:
            return own, price
        if standard is None:
            return None if full == name else (own, None)
        if self._tier == _DECISIONS:
            return full, standard
        if self._tier == _BATCHES:
            if name in _READS and self._prices_batches():
                return full, standard  # what is cached is not discounted twice
            if self._halved:
                return full, _half(standard)
        # Reasoning is output, at the price that output has in this tier.
        return None if name == REASONING else (own, None)

    def _prices_batches(self) -> bool:
        return _has_tier(self._entry.members, _BATCHES)


def _half(price: Decimal) -> Decimal:
    return EXACT.multiply(price, Decimal("0.5"))


def _has_tier(members: Mapping[str, Any], tier: str) -> bool:
    return f"{INPUT}_{tier}" in members or f"{OUTPUT}_{tier}" in members


def _tier(members: Mapping[str, Any], conditions: Mapping[str, Any]) -> str:
    """The end of the names of the prices that count; ``""`` for the standard ones.

    An entry without any price for a tier has one price for all of them.
    """
    said = conditions.get("service_tier")
    if conditions.get("batch") is True or said == "batch":
        return _BATCHES
    if conditions.get("call") in _DECISION_CALLS:
        return _DECISIONS
    tier = _TIERS.get(said.lower()) if isinstance(said, str) else None
    return tier if tier is not None and _has_tier(members, tier) else ""


def _batches_are_half(entry: Entry) -> bool:
    """Whether a batch costs half: by the entry's own prices, or because it has none for batches.

    Half is what OpenAI, Anthropic, Google, AWS, Mistral and Groq publish.
    """
    for name in (INPUT, OUTPUT):
        batches, standard = entry.price(f"{name}_{_BATCHES}"), entry.price(name)
        if batches is not None and standard is not None:
            return batches == _half(standard)
    return True


def _crossed(
    entry: Entry, conditions: Mapping[str, Any], tier: str, context: int | Decimal
) -> dict[str, str]:
    """The highest thresholds that the context is above, by the name of the price; ``""`` is the
    one of text.
    """
    provider = conditions.get("provider") or entry.members.get("litellm_provider")
    inclusive = isinstance(provider, str) and provider in _INCLUSIVE
    highest: dict[str, tuple[int, str]] = {}
    for name, tokens, label, of_tier in entry.above:
        crossed = context > tokens or (inclusive and context == tokens)
        if crossed and of_tier in ("", tier):
            key = "" if name in _TEXT else name
            highest[key] = max(highest.get(key, (0, "")), (tokens, label))
    return {name: label for name, (_, label) in highest.items()}


def _range(ranges: list[Any], context: int | Decimal) -> tuple[int, Mapping[str, Any]] | None:
    """The range of ``tiered_pricing`` that the context is in, with its place in the list.

    A range holds what is above its start and not above its end; what is above all is in the last.
    """
    known: list[tuple[Decimal, Decimal, int]] = []
    for index, within in enumerate(ranges):
        bounds = within.get("range") if isinstance(within, dict) else None
        if isinstance(bounds, list) and len(bounds) == 2:
            start, end = map(number, bounds)
            if start is not None and end is not None:
                known.append((start, end, index))
    if not known or not context:
        return None
    known.sort()
    index = next((at for start, end, at in known if start < context <= end), known[-1][2])
    found = ranges[index]
    return (index, found) if INPUT in found else None
