"""Records and values of the database as JSON has them.

Owns the text of amounts and times in it.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._aggregates.formatting import dollars

if TYPE_CHECKING:
    from litellm_ledger._records.record import UsageRecord

__all__ = ["MONEY", "one_line", "plain_value", "record_dict", "utc"]

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
