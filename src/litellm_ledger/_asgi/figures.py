"""What a request's answer may say of its calls: as headers, and as the last event of a stream.

Owns the rule that only what is known is said.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from litellm_ledger._tracking.request import RequestUsage

__all__ = ["known_figures", "known_headers", "last_event"]


def known_figures(usage: RequestUsage) -> dict[str, Any]:
    """Return the figures that are known: calls, and tokens and cost if every call says them.

    ``estimated`` is how many of the calls have tokens that we estimated.
    """
    in_flight = usage.in_flight  # first: what ends meanwhile is counted below all the same
    row = usage.totals()
    found: dict[str, Any] = {"calls": row.calls}
    if in_flight:
        return {**found, "in_flight": in_flight}
    if not row.uncounted:
        found["input_tokens"] = row.input_tokens
        found["output_tokens"] = row.output_tokens
    if not (row.unpriced or row.unknown_cost):
        found["cost_usd"] = row.cost
    if row.estimated:
        found["estimated"] = row.estimated
    return found


_NAMES = {
    "calls": b"x-llm-calls",
    "in_flight": b"x-llm-calls-in-flight",
    "input_tokens": b"x-llm-input-tokens",
    "output_tokens": b"x-llm-output-tokens",
    "cost_usd": b"x-llm-cost-usd",
    "estimated": b"x-llm-calls-estimated",
}


def known_headers(usage: RequestUsage) -> list[tuple[bytes, bytes]]:
    """Return the known figures as headers."""
    return [(_NAMES[name], _text(it).encode("ascii")) for name, it in known_figures(usage).items()]


def last_event(usage: RequestUsage, name: str) -> bytes:
    """Return the known figures as a server-sent event; a cost is text, so that it stays exact."""
    figures = known_figures(usage)
    if "cost_usd" in figures:
        figures["cost_usd"] = _text(figures["cost_usd"])
    return f"event: {name}\ndata: {json.dumps(figures)}\n\n".encode()


def _text(value: int | Decimal) -> str:
    return format(value, "f") if isinstance(value, Decimal) else str(value)
