"""The user's own prices, computed in ``Decimal`` throughout.

Owns ``ModelPrice``, the search for a model's price, and the price of what a call used.  Pure:
LiteLLM's price map is neither read nor changed.  A price that does not cover all that was used
gives no cost at all: unknown is not cheap.
"""

from __future__ import annotations

import decimal
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec.structs import force_setattr

from litellm_ledger._errors import InvalidRecord
from litellm_ledger._records.money import picousd, usd

from .bill import Term
from .quantities import members

__all__ = [
    "AMOUNTS",
    "ModelPrice",
    "Prices",
    "cost_of",
    "find_price",
    "lacking_prices",
    "price_of",
    "price_table",
    "terms_of",
]

_EXACT: Final = decimal.Context(
    prec=60,
    rounding=decimal.ROUND_HALF_EVEN,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)
_MOST: Final = Decimal(1_000_000)
"""US dollars for one unit: more is a slip of the decimal point."""
_LEAST: Final = Decimal("1e-30")
"""Less is no price either; ``1e-999999`` is a million digits."""


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
        valid_from: the price is that of calls that begin then or later, until a later price of the
            same model; a ``date`` begins at midnight UTC, a ``datetime`` has a time zone.  Not
            given: from the beginning.

    Raises:
        TypeError: a price that is a ``float``: it has already lost digits.
        ValueError: negative, not a number, absurd, ``per`` below 1, or a ``valid_from`` without a
            time zone.
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
    valid_from: date | datetime | None = None

    def __post_init__(self) -> None:
        if type(self.per) is not int or self.per < 1:
            raise ValueError(f"per must be a whole number of tokens from 1, not {self.per!r}")
        if self.valid_from is not None:
            force_setattr(self, "valid_from", _moment(self.valid_from))
        for name in AMOUNTS:
            value = getattr(self, name)
            if value is not None:
                force_setattr(self, name, _amount(name, value))
        if all(getattr(self, name) is None for name in AMOUNTS):
            raise ValueError('a price says what something costs: ModelPrice(input="0.20", …)')

    @property
    def text(self) -> str:
        """The canonical JSON in the price book: the same for ``"0.20"`` and ``"0.2"``.

        ``valid_from`` is not part of it: it says when the price holds, not what it is.
        """
        amounts = ((name, getattr(self, name)) for name in AMOUNTS)
        told: dict[str, Any] = {
            name: format(value.normalize(_EXACT), "f")
            for name, value in amounts
            if value is not None
        }
        price = json.dumps({**told, "per": self.per}, separators=(",", ":"), sort_keys=True)
        return f'{{"price":{price}}}'

    @property
    def version(self) -> str:
        """``user-`` and 24 hexadecimal digits of the SHA-256 of ``text``."""
        return f"user-{hashlib.sha256(self.text.encode()).hexdigest()[:24]}"


AMOUNTS: Final = (
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
    if not amount.is_finite() or amount < 0 or amount > _MOST or 0 < amount < _LEAST:
        raise ValueError(f"{name} is not an amount of money: {value!r}")
    return amount


def _moment(value: Any) -> datetime:
    if not isinstance(value, date):
        raise TypeError(
            f"valid_from must be a date or a datetime, not {type(value).__name__}: date(2026, 1, 1)"
        )
    if not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value.tzinfo is None:
        raise ValueError("valid_from must have a time zone: datetime(..., tzinfo=timezone.utc)")
    return value


Prices = Mapping[str, tuple[ModelPrice, ...]]
"""The user's prices by model; of several the one that begins last comes first."""


def price_table(prices: Mapping[str, Any] | None) -> dict[str, tuple[ModelPrice, ...]]:
    """Copy the user's prices, model name to a price, or to several of different times.

    Raises:
        TypeError: something else than text to ``ModelPrice``, or to a list of them.
        ValueError: two of a model's begin at the same time, or there is none.
    """
    table: dict[str, tuple[ModelPrice, ...]] = {}
    for name, given in (prices or {}).items():
        every = tuple(given) if isinstance(given, (list, tuple)) else (given,)
        if not isinstance(name, str) or not all(isinstance(price, ModelPrice) for price in every):
            raise TypeError(
                "prices maps the name of a model to a ModelPrice, or to a list of them, "
                f"not {given!r}"
            )
        if not every or len({price.valid_from for price in every}) < len(every):
            raise ValueError(
                f"the prices of {name} must begin at different times: ModelPrice(..., "
                "valid_from=date(2026, 1, 1))"
            )
        table[name] = tuple(sorted(every, key=_begin, reverse=True))
    return table


def _begin(price: ModelPrice) -> datetime:
    start = price.valid_from
    return start if isinstance(start, datetime) else datetime.min.replace(tzinfo=UTC)


def find_price(
    table: Prices, model: str | None, provider: str | None, ts: datetime
) -> ModelPrice | None:
    """Return the user's price of a model at a time: by the name as it was asked for, with the
    provider's name before it, or without.
    """
    if not table or not model:
        return None
    found = table.get(model)
    if found is None and provider:
        prefix, _, bare = model.partition("/")
        found = table.get(f"{provider}/{model}")
        if found is None and prefix == provider:
            found = table.get(bare)
    return next((price for price in found or () if _begin(price) <= ts), None)


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


_PRICED_TOOLS: Final = frozenset(tool for tool, _ in _TOOLS)


def _tools(fields: Mapping[str, Any]) -> Mapping[str, int | Decimal]:
    """How often which paid tool was used; what is not there was not."""
    return members(fields.get("meta") or {}, "tools")


def lacking_prices(price: ModelPrice, fields: Mapping[str, Any]) -> list[str]:
    """Name the members of ``ModelPrice`` that are not given, and priced what was used."""
    if all(getattr(price, name) is None for name in AMOUNTS if name != "request"):
        return []
    used = _tools(fields)
    lacking = [name for count, name in _TOOLS if used.get(count) and getattr(price, name) is None]
    lacking += [name for name in used if name not in _PRICED_TOOLS]
    if price.input is not None or price.output is not None:
        for count, name in (("input_tokens", "input"), ("output_tokens", "output")):
            if fields.get(count) and getattr(price, name) is None:
                lacking.append(name)
    return lacking


def price_of(price: ModelPrice, fields: Mapping[str, Any]) -> Decimal | None:
    """Return the cost of what ``fields`` say was used, rounded half-even to a picodollar once.

    ``None`` where the price does not cover what was used, or nothing that it covers is known.
    """
    return cost_of(terms_of(price, fields))


def cost_of(terms: Sequence[Term] | None) -> Decimal | None:
    """Return what terms come to, rounded half-even to a picodollar once."""
    if terms is None:
        return None
    total = Decimal(0)
    for term in terms:
        total = _EXACT.add(total, term.amount)
    try:
        return usd(picousd(total))
    except InvalidRecord:
        return None


def terms_of(price: ModelPrice, fields: Mapping[str, Any]) -> list[Term] | None:  # noqa: C901 - one kind of unit after the other
    """Return the terms of ``price_of``, named after the members of the price."""
    lacking = lacking_prices(price, fields)
    if any(name not in ("input", "output") for name in lacking):
        return None
    terms: list[Term] = []
    for field, name in _UNITS:
        if getattr(price, name) is not None:
            used = fields.get(field)
            if used is None:
                return None
            terms.append(_term(price, name, Decimal(repr(used)), name.removeprefix("audio_")))
    if price.character is not None:
        if fields.get("characters") is None:
            return None
        terms.append(_term(price, "character", fields["characters"], "character", price.per))
    for field, name in _TOOLS:
        if getattr(price, name) is not None:
            terms.append(_term(price, name, _tools(fields).get(field, 0), name))
    if price.request is not None:
        terms.append(_term(price, "request", 1, "request"))
    tokens = _tokens(price, fields)
    if tokens is None:
        priced_elsewhere = any(getattr(price, name) is not None for name in _OTHERS)
        if price.input is not None or price.output is not None or not priced_elsewhere:
            return None
        tokens = []  # billed by another unit, or by the call; its tokens are not
    return [term for term in [*tokens, *terms] if term.quantity]


_OTHERS: Final = ("character", "request", *(name for _, name in _UNITS))


def _tokens(price: ModelPrice, fields: Mapping[str, Any]) -> list[Term] | None:
    """The terms of the tokens; ``None`` if a count or the price of one is unknown."""
    if price.input is None and price.output is None:
        return None
    terms: list[Term] = []
    for name, base, parts in (
        ("input_tokens", "input", ("cache_read", "cache_write")),
        ("output_tokens", "output", ("reasoning",)),
    ):
        count = fields.get(name)
        if count is None:
            if getattr(price, base) is not None and not _no_output(name, fields):
                return None
            continue
        rest = count
        for part in parts:
            if getattr(price, part) is not None:
                own = min(fields.get(f"{part}_tokens") or 0, rest)
                rest -= own
                terms.append(_term(price, part, own, "token", price.per))
        if rest:
            if getattr(price, base) is None:
                return None
            terms.append(_term(price, base, rest, "token", price.per))
    return terms


def _no_output(name: str, fields: Mapping[str, Any]) -> bool:
    """An embedding and its like: all of the tokens are input."""
    return name == "output_tokens" and fields.get("total_tokens") == fields.get("input_tokens")


def _term(price: ModelPrice, name: str, quantity: int | Decimal, unit: str, per: int = 1) -> Term:
    listed = getattr(price, name)
    amount = _EXACT.divide(_EXACT.multiply(listed, Decimal(quantity)), Decimal(per))
    return Term(name, quantity, unit, _EXACT.divide(listed, Decimal(per)), amount)
