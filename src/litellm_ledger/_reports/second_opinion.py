"""A second opinion: the prices of the models that were used, beside those of ``genai-prices``.

Owns which prices are compared, and when two of them differ.  Sets no cost and changes no record.
The package brings its data along: it is read as it was installed, and nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from litellm_ledger._aggregates.formatting import counted, listed
from litellm_ledger._errors import MissingExtra
from litellm_ledger._prices.entry import Entry
from litellm_ledger._reading.price_entries import PriceEntries

from .doctor import LOOK_BACK, Finding
from .ledger import Ledger

__all__ = ["PriceDifference", "SecondOpinion", "second_opinion"]

_PRICES: Final = {
    "input": ("input_cost_per_token", "input_mtok"),
    "output": ("output_cost_per_token", "output_mtok"),
    "cache read": ("cache_read_input_token_cost", "cache_read_mtok"),
}
_MILLION: Final = 1_000_000
_SAME: Final = Decimal("0.001")
"""Of the larger: a price per token is rounded where one per million is exact."""
_SENSE: Final = range(-20, 10)
"""Powers of ten that a price per token can have; anybody can write an entry."""
_LONGEST: Final = 200
"""Characters of a model's name; each is matched against patterns."""
_NEWEST: Final = 10_000
_NAMED: Final = 5


class PriceDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A price that two sources do not agree on, in US dollars per million tokens.

    Attributes:
        model: as the price map names it.
        provider: as LiteLLM names it.
        price: ``input``, ``output`` or ``cache read``, each the lowest of its tiers.
        recorded: what calls were priced by; ``None`` if that has no such price.
        other: what ``genai-prices`` says.
        day: of the newest call that was priced by it, in UTC; the other price is of that day.
        price_version: the entry in the price book.
    """

    model: str
    provider: str
    price: str
    recorded: Decimal | None
    other: Decimal
    day: date
    price_version: str


class SecondOpinion(msgspec.Struct, frozen=True, kw_only=True):
    """What the comparison found.

    Attributes:
        version: of the package ``genai-prices``.
        compared: entries of the price book that it has prices of.
        differences: by model.
        unknown: models that it does not have.
    """

    version: str
    compared: int
    differences: list[PriceDifference]
    unknown: list[str]

    @property
    def finding(self) -> Finding:
        """The outcome as ``doctor`` lists it."""
        said = f"{counted(self.compared, 'price entry', 'price entries')} compared with "
        said += f"genai-prices {self.version}"
        if self.unknown:
            said += f"; it does not have {listed(self.unknown, _NAMED)}"
        if not self.differences:
            return Finding(check="second opinion", level="ok", text=f"{said}: no price differs")
        differ = counted(len(self.differences), "price")
        return Finding(
            check="second opinion",
            level="warning",
            text=f"{said}: {differ} not the same. Compare with the provider's price list",
        )


def second_opinion(ledger: Ledger) -> SecondOpinion:
    """Compare what the newest calls were priced by, as far as that is of the price map.

    Looks at the last 30 days.  A price of the user's own is not compared.

    Raises:
        MissingExtra: ``genai-prices`` is not installed.
        LedgerPathError, UnsupportedFormat: as reports do.
    """
    version, find = _package()
    entries = PriceEntries(ledger.path)
    newest: dict[str, tuple[datetime, str]] = {}
    since = datetime.now(UTC) - LOOK_BACK
    where = {"cost_source": ["price_map"]}
    for call in ledger.calls(since=since, where=where, limit=_NEWEST).records:
        if call.price_version and call.ts:
            last = call.ts, call.provider or ""
            newest[call.price_version] = max(newest.get(call.price_version, last), last)
    compared = 0
    unknown: set[str] = set()
    differences: list[PriceDifference] = []
    for price_version, (at, provider) in newest.items():
        entry = entries.get(price_version)
        if not isinstance(entry, Entry):
            continue  # the finding about the price book tells of it
        provider = provider or str(entry.members.get("litellm_provider") or "")
        prices = find(provider, entry.key, at)
        if prices is None:
            unknown.add(entry.key)
            continue
        compared += 1
        for price, (ours, theirs) in _PRICES.items():
            other = getattr(prices, theirs, None)
            other = getattr(other, "base", other)  # of several tiers
            recorded = _per_million(entry.price(ours))
            if isinstance(other, Decimal) and _differ(recorded, other):
                differences.append(
                    PriceDifference(
                        model=entry.key,
                        provider=provider,
                        price=price,
                        recorded=recorded,
                        other=other,
                        day=at.astimezone(UTC).date(),
                        price_version=entry.version,
                    )
                )
    differences.sort(key=lambda one: (one.model, one.provider, one.day))
    return SecondOpinion(
        version=version, compared=compared, differences=differences, unknown=sorted(unknown)
    )


def _per_million(price: Decimal | None) -> Decimal | None:
    if price is None or (price and price.adjusted() not in _SENSE):
        return None
    return price * _MILLION


def _differ(recorded: Decimal | None, other: Decimal) -> bool:
    return recorded is None or abs(recorded - other) > _SAME * max(recorded, other)


def _package() -> tuple[str, Callable[[str, str, datetime], Any]]:
    """Return the version of the package, and what finds the prices of a model in its data."""
    try:
        import genai_prices
        from genai_prices.data import providers
        from genai_prices.data_snapshot import DataSnapshot
    except ModuleNotFoundError as exc:
        raise MissingExtra("genai-prices", "second-opinion") from exc
    # Not `get_snapshot()`: a program may have replaced that by what it has fetched.
    data = DataSnapshot(providers=providers, from_auto_update=False)

    def find(provider: str, model: str, at: datetime) -> Any:
        name = model.removeprefix(f"{provider}/")
        if not provider or len(name) > _LONGEST:
            return None
        try:
            return data.find_provider_model(name, None, provider, None)[1].get_prices(at)
        except LookupError:
            return None

    return genai_prices.__version__, find
