"""Tokens: the terms of input and output.

Owns how the tokens of a call fall apart: what is cached is part of the input, a modality is part of
what is left, and everything else is text.  Counts that are larger than what they are a part of are
cut to it: no token is billed twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from .bill import EXACT, Bill
from .entry import Entry, number
from .rates import EXPLICIT_READ, INPUT, OUTPUT, REASONING, WRITE, Found, Rates

__all__ = ["charge_tokens"]

_KINDS: Final = ("audio", "image", "video")
_Used = Mapping[str, "int | Decimal"]


def charge_tokens(bill: Bill) -> None:
    """Add the terms of all tokens to a bill."""
    used = bill.used
    billed = {side: used.get(f"billed_{side}") for side in ("input", "output")}
    if any(count is not None for count in billed.values()):  # Cohere bills others than it counts
        used = {**used, **{f"{side}_tokens": count or 0 for side, count in billed.items()}}
    rates = Rates(
        bill.entry, bill.conditions, used.get("input_tokens", 0) + used.get("tool_input", 0)
    )
    charge = _Charge(bill)
    _input(used, rates, charge)
    if used.get("output_tokens"):
        _output(used, rates, charge)


def _input(used: _Used, rates: Rates, charge: _Charge) -> None:
    left = used.get("input_tokens", 0)
    read, left = _part(used.get("cache_read_tokens", 0), left)
    written, left = _part(used.get("cache_write_tokens", 0), left)
    if read:
        _cached(used, rates, charge, read)
    if written:
        for longer in ("1h", "12h"):
            part, written = _part(used.get(f"cache_write_{longer}", 0), written)
            if part:
                charge(part, rates.write(longer))
        charge(written, rates.find(WRITE, INPUT))
    for kind in _KINDS:
        fresh = used.get(f"{kind}_input", 0) - used.get(f"{kind}_cached", 0)
        part, left = _part(max(fresh, 0), left)
        if part:
            charge(part, rates.find(f"input_cost_per_{kind}_token", INPUT))
    charge(left + used.get("tool_input", 0), rates.find(INPUT))


def _cached(used: _Used, rates: Rates, charge: _Charge, left: int | Decimal) -> None:
    explicit = (EXPLICIT_READ,) if charge.conditions.get("cache_type") == "ephemeral" else ()
    for kind in _KINDS:
        part, left = _part(used.get(f"{kind}_cached", 0), left)
        if part:
            charge(part, rates.read(f"cache_read_input_{kind}_token_cost", *explicit))
    charge(left, rates.read(*explicit))


def _output(used: _Used, rates: Rates, charge: _Charge) -> None:
    thought, left = _part(used.get("reasoning_tokens", 0), used["output_tokens"])
    if thought:
        charge(thought, rates.find(REASONING, OUTPUT))
    for kind in _KINDS:
        part, left = _part(used.get(f"{kind}_output", 0), left)
        if part:
            charge(part, rates.find(f"output_cost_per_{kind}_token", OUTPUT))
    charge(left, rates.output())


def _part(count: int | Decimal, whole: int | Decimal) -> tuple[int | Decimal, int | Decimal]:
    """The part, and what is left of the whole."""
    part = min(count, whole)
    return part, whole - part


class _Charge:
    """Puts terms on a bill, with what a region or a speed multiplies the price of all tokens by."""

    def __init__(self, bill: Bill) -> None:
        self._bill = bill
        self.conditions = bill.conditions
        self._multiplier = _multiplier(bill)

    def __call__(self, quantity: int | Decimal, found: Found) -> None:
        name, price = found
        if not quantity:
            return
        if price is None:
            self._bill.lack(name)
        else:
            self._bill.charge(name, quantity, price=price, multiplier=self._multiplier)


def _multiplier(bill: Bill) -> Decimal | None:
    """The product of all multipliers that the conditions of a call ask for; ``None`` for 1."""
    conditions, entry = bill.conditions, bill.entry
    found: list[Decimal | None] = []
    region = conditions.get("data_residency")
    if isinstance(region, str):
        region = region.lower()
        name = "fedramp" if region == "fedramp" else "regional_processing"
        end = "" if region == "fedramp" else f"_{region}"
        found.append(entry.price(f"{name}_uplift_multiplier{end}"))
    location = conditions.get("vertex_location")
    if isinstance(location, str) and location.lower() != "global":
        found.append(entry.price("regional_endpoint_uplift_multiplier"))
    geo = conditions.get("inference_geo")
    if isinstance(geo, str):
        found.append(_specific(entry, geo.lower()))
    if conditions.get("speed") == "fast":
        fast = _specific(entry, "fast")
        if fast is None:
            bill.lack("provider_specific_entry.fast")
        found.append(fast)
    product = None
    for multiplier in found:
        if multiplier is not None:
            product = multiplier if product is None else EXACT.multiply(product, multiplier)
    return product


def _specific(entry: Entry, name: str) -> Decimal | None:
    specific: Mapping[str, Any] | None = entry.members.get("provider_specific_entry")
    return number(specific.get(name)) if isinstance(specific, dict) else None
