"""Records and values of the database as JSON has them.

Owns the text of amounts and times in it, and the shape of an operation.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._aggregates.formatting import dollars

if TYPE_CHECKING:
    from pathlib import Path

    from litellm_ledger._prices.price import Priced
    from litellm_ledger._records.adjustment import Adjustment
    from litellm_ledger._records.record import UsageRecord

    from .history import Operation

__all__ = [
    "MONEY",
    "Prices",
    "adjustment_dict",
    "exact",
    "one_line",
    "operation_dict",
    "plain_value",
    "prices_of",
    "record_dict",
    "terms_dict",
    "utc",
]

MONEY: Final = ("cost", "saved_cost")
"""The members of a record that are amounts."""


def record_dict(record: UsageRecord) -> dict[str, Any]:
    """Return what is known of a record as plain JSON values; money is exact decimal text."""
    import msgspec

    members = msgspec.structs.asdict(record).items()
    plain = {name: value for name, value in members if value is not None and value != {}}
    for name in MONEY:
        if name in plain:
            plain[name] = dollars(plain[name])
    return plain


def plain_value(value: Any) -> Any:
    """A value as JSON has it: decimals as text, times in UTC."""
    if isinstance(value, Decimal):
        return dollars(value)
    if isinstance(value, datetime):
        return utc(value)
    if isinstance(value, dict):
        return {str(key): plain_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(one) for one in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def one_line(value: Any) -> str:
    """Return a value as a line of JSON, its text unescaped."""
    import msgspec

    return msgspec.json.encode(plain_value(value)).decode()


def utc(moment: datetime) -> str:
    """A time as JSON has it; one without a zone, as SQL gives it, is UTC."""
    text = moment.isoformat()
    return text.replace("+00:00", "Z") if moment.tzinfo else f"{text}Z"


def terms_dict(priced: Priced) -> dict[str, Any]:
    """Return a price as plain JSON values; amounts are exact decimal text."""
    return {
        "cost": None if priced.cost is None else dollars(priced.cost),
        "terms": [
            {
                "name": term.name,
                "quantity": str(term.quantity),
                "unit": term.unit,
                "price": exact(term.price),
                "amount": exact(term.amount),
            }
            for term in priced.lines
        ],
        "missing": list(priced.missing),
    }


def adjustment_dict(one: Adjustment) -> dict[str, Any]:
    """Return an adjustment as plain JSON values; amounts are exact decimal text."""
    from litellm_ledger._records.money import usd

    def money(pico: int | None) -> str | None:
        return None if pico is None else dollars(usd(pico))

    return {
        "id": one.id,
        "at": utc(one.at),
        "who": one.who,
        "why": one.why,
        "old_cost": money(one.old_cost),
        "new_cost": money(one.new_cost),
        "old_price_version": one.old_price_version,
        "new_price_version": one.new_price_version,
    }


def exact(amount: Decimal) -> str:
    """Write an amount without the zeros at its end."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


Prices = dict[str | None, tuple["Priced | None", "list[Adjustment]"]]
"""The terms of the price of each outcome, by its id, and how it was priced again."""


def prices_of(root: Path, found: Operation) -> Prices:
    """Return of an operation's outcomes, by id, the terms of the price and the adjustments."""
    from litellm_ledger._reading.price_check import adjustments_of, terms

    outcomes = {a.outcome.id: a.outcome for a in found.attempts if a.outcome is not None}
    made = adjustments_of(root, outcomes)
    return {
        key: (terms(root, outcome), [one for one in made if one.adjusts == key])
        for key, outcome in outcomes.items()
    }


def operation_dict(found: Operation, prices: Prices) -> dict[str, Any]:
    """Return an operation with its attempts and their prices as plain JSON values."""

    def told(outcome: UsageRecord | None) -> dict[str, Any]:
        priced, made = prices.get(outcome.id, (None, [])) if outcome else (None, [])
        return {
            **({"price": terms_dict(priced)} if priced else {}),
            **({"adjustments": [adjustment_dict(one) for one in made]} if made else {}),
        }

    return {
        "id": found.id,
        "attempts": [
            {
                "number": attempt.number,
                "started": attempt.started and record_dict(attempt.started),
                "outcome": attempt.outcome and record_dict(attempt.outcome),
                **told(attempt.outcome),
            }
            for attempt in found.attempts
        ],
    }
