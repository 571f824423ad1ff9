"""The user's own prices, computed in ``Decimal`` throughout.

Owns ``ModelPrice``, the search for a model's price, and the price of what a call used.  Pure:
LiteLLM's price map is neither read nor changed.  A price that does not cover all that was used
gives no cost at all: unknown is not cheap.
"""

from __future__ import annotations

import decimal
import hashlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec.structs import force_setattr

from litellm_ledger._errors import InvalidRecord

from .money import picousd, usd

__all__ = ["FAR", "ModelPrice", "find_price", "lacking_prices", "price_of", "price_table"]

_EXACT: Final = decimal.Context(
    prec=60,
    rounding=decimal.ROUND_HALF_EVEN,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)
FAR: Final = 3
"""A provider's cost is worth a look if it differs from the price map by this factor."""

_MOST: Final = Decimal(1_000_000)
"""US dollars for one unit: more is a slip of the decimal point."""


class ModelPrice(msgspec.Struct, frozen=True):
    """What one model costs, in US dollars, given as decimal text (or ``Decimal`` or ``int``).

    ``ModelPrice(input="0.20", output="0.60", per=1_000_000)``

    Attributes:
        input, output: for ``per`` tokens.
        cache_read, cache_write: for ``per`` input tokens read from and written to the provider's
            prompt cache; not given, they cost what ``input`` does.
        reasoning: for ``per`` output tokens spent on reasoning; not given, as ``output``.
        character: for ``per`` characters read aloud.
        image, audio_second, page, search_unit: for one of them.
        request: for one call.  Alone, it is the price of the whole call, whatever that used.
        web_search, file_search: for one search that the provider made for the model.
        container: for one code interpreter's container.
        per: how many tokens or characters a price is for.

    Raises:
        TypeError: a price that is a ``float``: it has already lost digits.
        ValueError: negative, not a number, absurd, or ``per`` below 1.
    """

    input: Decimal | str | int | None = None
    output: Decimal | str | int | None = None
    per: int = 1_000_000
    cache_read: Decimal | str | int | None = None
    cache_write: Decimal | str | int | None = None
    reasoning: Decimal | str | int | None = None
    character: Decimal | str | int | None = None
    image: Decimal | str | int | None = None
    audio_second: Decimal | str | int | None = None
    page: Decimal | str | int | None = None
    search_unit: Decimal | str | int | None = None
    request: Decimal | str | int | None = None
    web_search: Decimal | str | int | None = None
    file_search: Decimal | str | int | None = None
    container: Decimal | str | int | None = None

    def __post_init__(self) -> None:
        if type(self.per) is not int or self.per < 1:
            raise ValueError(f"per must be a whole number of tokens from 1, not {self.per!r}")
        for name in _AMOUNTS:
            value = getattr(self, name)
            if value is not None:
                force_setattr(self, name, _amount(name, value))
        if all(getattr(self, name) is None for name in _AMOUNTS):
            raise ValueError('a price says what something costs: ModelPrice(input="0.20", …)')

    @property
    def version(self) -> str:
        """``user-`` and a hash of the price: the same for ``"0.20"`` and ``"0.2"``."""
        text = "|".join(
            f"{name}={format(value.normalize(_EXACT), 'f')}"
            for name in _AMOUNTS
            if (value := getattr(self, name)) is not None
        )
        digest = hashlib.sha256(f"per={self.per}|{text}".encode()).hexdigest()
        return f"user-{digest[:8]}"


_AMOUNTS: Final = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "reasoning",
    "character",
    "image",
    "audio_second",
    "page",
    "search_unit",
    "request",
    "web_search",
    "file_search",
    "container",
)


def _amount(name: str, value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (Decimal, str, int)):
        raise TypeError(
            f'{name} must be decimal text such as "0.20", not {type(value).__name__}: '
            "a float has already lost digits"
        )
    try:
        amount = _EXACT.create_decimal(value)
    except decimal.DecimalException:
        raise ValueError(f"{name} is not an amount of money: {value!r}") from None
    if not amount.is_finite() or amount < 0 or amount > _MOST:
        raise ValueError(f"{name} is not an amount of money: {value!r}")
    return amount


def price_table(prices: Mapping[str, Any] | None) -> dict[str, ModelPrice]:
    """Copy the user's prices, model name to price.

    Raises:
        TypeError: something else than text to ``ModelPrice``.
    """
    table: dict[str, ModelPrice] = {}
    for name, price in (prices or {}).items():
        if not isinstance(name, str) or not isinstance(price, ModelPrice):
            raise TypeError(f"prices maps the name of a model to a ModelPrice, not {price!r}")
        table[name] = price
    return table


def find_price(
    table: Mapping[str, ModelPrice], model: str | None, provider: str | None
) -> ModelPrice | None:
    """Return the user's price of a model: by the name as it was asked for, with the provider's
    name before it, or without.
    """
    if not table or not model:
        return None
    found = table.get(model)
    if found is None and provider:
        prefix, _, bare = model.partition("/")
        found = table.get(f"{provider}/{model}")
        if found is None and prefix == provider:
            found = table.get(bare)
    return found


_UNITS: Final = (
    ("images", "image"),
    ("audio_seconds", "audio_second"),
    ("pages", "page"),
    ("search_units", "search_unit"),
)


_TOOLS: Final = (
    ("web_searches", "web_search"),
    ("file_searches", "file_search"),
    ("containers", "container"),
)


def _tools(fields: Mapping[str, Any]) -> Mapping[str, int]:
    """How often which paid tool was used; what is not there was not."""
    return (fields.get("meta") or {}).get("tools") or {}


def lacking_prices(price: ModelPrice, fields: Mapping[str, Any]) -> list[str]:
    """Name the members of ``ModelPrice`` that are not given, and priced what was used."""
    if all(getattr(price, name) is None for name in _AMOUNTS if name != "request"):
        return []
    used = _tools(fields)
    lacking = [name for count, name in _TOOLS if used.get(count) and getattr(price, name) is None]
    if price.input is not None or price.output is not None:
        for count, name in (("input_tokens", "input"), ("output_tokens", "output")):
            if fields.get(count) and getattr(price, name) is None:
                lacking.append(name)
    return lacking


def price_of(price: ModelPrice, fields: Mapping[str, Any]) -> Decimal | None:  # noqa: C901 - one kind of token after the other
    """Return the cost of what ``fields`` say was used, rounded half-even to a picodollar once.

    ``None`` where the price does not cover what was used, or nothing that it covers is known.
    """
    lacking = lacking_prices(price, fields)
    if any(name not in ("input", "output") for name in lacking):
        return None
    parts = [_tokens(price, fields)]
    for field, name in _UNITS:
        amount = getattr(price, name)
        if amount is not None:
            used = fields.get(field)
            if used is None:
                return None
            parts.append(_EXACT.multiply(amount, Decimal(repr(used))))
    if price.character is not None:
        if fields.get("characters") is None:
            return None
        parts.append(_per(price, price.character, fields["characters"]))
    for field, name in _TOOLS:
        amount = getattr(price, name)
        if amount is not None:
            parts.append(_EXACT.multiply(amount, Decimal(_tools(fields).get(field, 0))))
    if price.request is not None:
        parts.append(_decimal(price.request))
    priced_elsewhere = any(getattr(price, name) is not None for name in _OTHERS)
    if parts[0] is None:
        if price.input is not None or price.output is not None or not priced_elsewhere:
            return None
        parts[0] = Decimal(0)  # billed by another unit, or by the call; its tokens are not
    total = Decimal(0)
    for part in parts:
        total = _EXACT.add(total, part or Decimal(0))
    try:
        return usd(picousd(total))
    except InvalidRecord:
        return None


_OTHERS: Final = ("character", "request", *(name for _, name in _UNITS))


def _tokens(price: ModelPrice, fields: Mapping[str, Any]) -> Decimal | None:
    """The cost of the tokens; ``None`` if a count or the price of one is unknown."""
    if price.input is None and price.output is None:
        return None
    total = Decimal(0)
    read, written = fields.get("cache_read_tokens") or 0, fields.get("cache_write_tokens") or 0
    thought = fields.get("reasoning_tokens") or 0
    for name, amount, special in (
        ("input_tokens", price.input, ((read, price.cache_read), (written, price.cache_write))),
        ("output_tokens", price.output, ((thought, price.reasoning),)),
    ):
        count = fields.get(name)
        if count is None:
            if amount is not None and not _no_output(name, fields):
                return None
            continue
        rest = count
        for part, own in special:
            if own is not None:
                part = min(part, rest)
                rest -= part
                total = _EXACT.add(total, _per(price, own, part))
        if rest:
            if amount is None:
                return None
            total = _EXACT.add(total, _per(price, amount, rest))
    return total


def _no_output(name: str, fields: Mapping[str, Any]) -> bool:
    """An embedding and its like: all of the tokens are input."""
    return name == "output_tokens" and fields.get("total_tokens") == fields.get("input_tokens")


def _per(price: ModelPrice, amount: Any, count: int) -> Decimal:
    return _EXACT.divide(_EXACT.multiply(_decimal(amount), Decimal(count)), Decimal(price.per))


def _decimal(amount: Any) -> Decimal:
    assert isinstance(amount, Decimal)  # __post_init__ made it one
    return amount
