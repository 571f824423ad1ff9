"""What a record says of its price: quantities in billed units, and the conditions.

Owns the reading of a record for its price, so that the same line and the same entry always give
the same cost.  A line may be anybody's: what is no quantity is left out, and nothing in ``meta``
stands in for a field of the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from litellm_ledger._records.record import MAX_INT

__all__ = ["conditions", "members", "used"]

_FIELDS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "images",
    "audio_seconds",
    "characters",
    "pages",
    "search_units",
)
_GROUPS: Final = ("tokens", "tools", "units")


def used(fields: Mapping[str, Any]) -> dict[str, int | Decimal]:
    """Return what was used, by name, if more than 0; the names are those of the record's fields
    and of the members of ``tokens``, ``tools`` and ``units`` in its ``meta``.
    """
    found: dict[str, int | Decimal] = {}
    for name in _FIELDS:
        value = fields.get(name)
        if value and (value := _quantity(value)):
            found[name] = value
    meta = fields.get("meta")
    if meta:
        for group in _GROUPS:
            found |= {
                name: value for name, value in members(meta, group).items() if name not in _FIELDS
            }
    return found


def members(meta: Mapping[str, Any], group: str) -> dict[str, int | Decimal]:
    """Return the quantities of one of the groups ``tokens``, ``tools`` and ``units``."""
    parts = meta.get(group)
    if type(parts) is not dict:
        return {}
    read = {name: _quantity(value) for name, value in parts.items()}
    return {name: value for name, value in read.items() if value}


def _quantity(value: Any) -> int | Decimal | None:
    """A whole number or seconds, above 0."""
    if type(value) is int:
        return value if 0 < value <= MAX_INT else None
    if type(value) is float:
        return Decimal(repr(value)) if 0 < value <= MAX_INT else None
    return None


def conditions(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what chose the price: ``price`` of the ``meta``, and ``call``, ``provider`` and
    ``ts`` of the record.
    """
    meta = fields.get("meta")
    said = meta.get("price") if meta else None
    found = dict(said) if type(said) is dict else {}
    for name in ("call", "provider", "ts"):
        found[name] = fields.get(name)
    return found
