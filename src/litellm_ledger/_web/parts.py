"""What the pages share: their addresses, and figures and calls as they are written.

Owns how a parameter is passed on.  Asks the API only for the names of tags.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from litellm_ledger._aggregates.calendar import calendar
from litellm_ledger._aggregates.formatting import clean, duration, money
from litellm_ledger._aggregates.groups import MISSING, Row
from litellm_ledger._page.drawing import rounded_cost
from litellm_ledger._reports.report import floor_mark

from .asks import ASKS, Invalid

__all__ = [
    "ALL",
    "SPAN",
    "Api",
    "Given",
    "call_of",
    "changed",
    "cost_of",
    "exact_of",
    "passed_on",
    "query",
    "row_of",
    "shown_tags",
    "size_of",
    "span_text",
    "time_of",
]

Api = Callable[..., dict[str, Any]]
Given = dict[str, list[str]]

SPAN: Final = "30d"
ALL: Final = "10000"
_OWN: Final = {"overview": ("stack", "top"), "explore": ("view",)}
"""Parameters of a page that are not passed to the API."""


def query(given: Given) -> str:
    pairs = [(name, value) for name, values in given.items() for value in values if value]
    return f"?{urlencode(pairs)}" if pairs else ""


def changed(given: Given, **other: str | list[str] | None) -> str:
    """Return the address of this page with other parameters."""
    found = {k: v for k, v in given.items() if k not in other}
    for name, value in other.items():
        if value:
            found[name] = [value] if isinstance(value, str) else value
    return query(found) or "?"


def passed_on(what: str, given: Given, *, to: str) -> Given:
    """Return what is passed to the API.

    Raises:
        Invalid: a parameter that neither knows.
    """
    own = _OWN.get(what, ())
    for name in own:
        if len(given.get(name, ())) > 1:
            raise Invalid(name, "it is given twice; once is enough")
    unknown = [name for name in given if name not in own and name not in ASKS[to]]
    if unknown:
        raise Invalid(clean(unknown[0]), "this page has no such parameter")
    return {k: v for k, v in given.items() if k not in own and any(v)}


def row_of(told: dict[str, Any]) -> Row:
    """Return a row of the API as figures."""
    known = {key: value for key, value in told.items() if value is not None}
    found: Row = msgspec.convert(known, Row, strict=False)
    return found


def cost_of(row: Row) -> str:
    return "unknown" if row.known_cost is None else rounded_cost(row.cost) + floor_mark(row)


def exact_of(row: Row) -> str:
    return "unknown" if row.known_cost is None else money(row.cost) + floor_mark(row)


def shown_tags(api: Api) -> list[str]:
    """Return the names of tags to choose from: those that can be read."""
    return [name for name in api("tags")["tags"] if clean(name) == name]


def span_text(told: dict[str, Any]) -> str:
    zone = calendar(told["tz"]).zone

    def text(moment: str) -> str:
        at = datetime.fromisoformat(moment).astimezone(zone)
        return f"{at:%Y-%m-%d}" if (at.hour, at.minute) == (0, 0) else f"{at:%Y-%m-%d %H:%M}"

    since, until = told["since"], told["until"]
    if since and until:
        return f"{text(since)} to {text(until)}"
    return f"since {text(since)}" if since else f"until {text(until)}" if until else "all time"


def call_of(call: dict[str, Any], tz: str) -> dict[str, Any]:
    cost = call.get("cost")
    estimated = call.get("usage_source") == "estimated"
    tags = call.get("tags") or {}
    said = ", ".join(f"{clean(k, 30)}={clean(v, 40)}" for k, v in list(tags.items())[:6])
    return {
        "link": f"operations/{quote(call['id'])}{query({'tz': [tz]} if tz != 'UTC' else {})}",
        "time": time_of(call.get("ts"), tz),
        "model": clean(call.get("model") or MISSING, 60),
        "status": call.get("status") or MISSING,
        "error": clean(call.get("error") or "", 60),
        "input": _count(call.get("input_tokens")),
        "output": _count(call.get("output_tokens")),
        "cost": ("~" if estimated else "") + (money(Decimal(cost)) if cost else "unknown"),
        "latency": duration(call["latency_ms"]) if call.get("latency_ms") is not None else "–",
        "tags": said + (" …" if len(tags) > 6 else ""),
    }


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def time_of(ts: Any, tz: str) -> str:
    if ts is None:
        return "–"
    at = datetime.fromisoformat(ts) if isinstance(ts, str) else ts
    try:
        return f"{at.astimezone(calendar(tz).zone):%Y-%m-%d %H:%M:%S}"
    except OverflowError:
        return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def size_of(size: int) -> str:
    for unit, worth in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= worth:
            return f"{size / worth:,.1f} {unit}"
    return f"{size:,} bytes"
