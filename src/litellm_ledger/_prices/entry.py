"""An entry of a price map, as its decimal text and its hash.

Owns the canonical text that ``price_version`` names, and the reading of it: every number becomes
the ``Decimal`` that its text says, never a float.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

__all__ = ["Above", "Entry", "number"]

_PREFIX: Final = "map-"
_DIGITS: Final = 24
_MATTERS: Final = (
    "billing_unit",
    "cost",
    "fee",
    "multiplier",
    "peak",
    "pric",
    "provider_specific",
    "tier",
)
_ALSO: Final = frozenset({"litellm_provider", "mode"})
_decoder: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)

_ABOVE: Final = re.compile(r"(.+)_above_(\d+)(k?)_tokens(?:_([a-z]+))?")


def _matters(name: str) -> bool:
    """Whether a member of an entry can matter to a price."""
    return name in _ALSO or any(part in name for part in _MATTERS)


class Above(NamedTuple):
    """A member that is the price above a number of tokens of context.

    Attributes:
        name: of the member that is the price below.
        tokens: the threshold.
        label: the threshold as the member's name has it: ``200k``.
        tier: the service tier that it is a price of, or ``""``.
    """

    name: str
    tokens: int
    label: str
    tier: str


class Entry:
    """One model's prices.

    Attributes:
        key: the entry's name in the price map.
        text: the canonical JSON of ``{"entry": …, "key": …}``: sorted names, no blanks, numbers as
            Python writes them.  What cannot matter to a price is left out.
        version: ``map-`` and 24 hexadecimal digits of the SHA-256 of ``text``.
        members: the entry, with ``Decimal`` (or ``int``) for each number.
        above: which of them are prices above a threshold.
    """

    __slots__ = ("above", "key", "members", "text", "version")

    def __init__(self, key: str, members: Mapping[str, Any]) -> None:
        """Read an entry, as the price map (floats) or a price book has it.

        Raises:
            ValueError, TypeError: a member that JSON cannot hold.
        """
        kept = {name: value for name, value in members.items() if _matters(name)}
        text = json.dumps(
            {"entry": kept, "key": key},
            allow_nan=False,
            ensure_ascii=False,
            separators=(",", ":"),
            sort_keys=True,
        )
        self.key = key
        self.text = text
        self.version = _PREFIX + hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
        self.members: dict[str, Any] = _decoder.decode(text)["entry"]
        matches = filter(None, map(_ABOVE.fullmatch, self.members))
        self.above = tuple(
            Above(name, int(digits) * (1_000 if k else 1), digits + k, tier or "")
            for name, digits, k, tier in (match.groups() for match in matches)
        )

    def price(self, name: str) -> Decimal | None:
        """The price under a name; ``None`` if there is none, or it is no price."""
        return number(self.members.get(name))


def number(value: Any) -> Decimal | None:
    """A price or a multiplier: a number from 0, also as text, as in a proxy's configuration.

    One beyond a billion, or with more than 60 decimals, is none: written out it would fill memory.
    """
    kind = type(value)
    if kind is int or kind is str:
        try:
            value = Decimal(value)
        except ArithmeticError:
            return None
    elif kind is not Decimal:
        return None
    if not value.is_finite() or value < 0:
        return None
    if not value:
        return _ZERO
    exponent = value.as_tuple().exponent
    within = isinstance(exponent, int) and exponent >= -_DECIMALS and value <= _MOST
    return value if within else None


_ZERO: Final = Decimal(0)
_MOST: Final = Decimal(10**9)
_DECIMALS: Final = 60
