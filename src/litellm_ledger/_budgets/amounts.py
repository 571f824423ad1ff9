"""What a record counts for budgets: docs/FORMAT.md, "Budgets".

Owns the rule by which an outcome is settled.  Pure: it reads one record at a time.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from litellm_ledger._records.record import Fields

__all__ = ["NOTHING", "UNITS", "Amounts", "held_by", "is_known", "spent_by"]


class Amounts(NamedTuple):
    """What a call may use, or has used, in each unit.

    Attributes:
        usd: picodollars; ``None``: without bound, or unknown.
        tokens: input and output; ``None``: without bound, or unknown.
        calls: requests.
    """

    usd: int | None
    tokens: int | None
    calls: int = 1


UNITS: Final = {"usd": 0, "tokens": 1, "calls": 2}
"""Where each unit of a budget stands in ``Amounts``."""

NOTHING: Final = Amounts(0, 0, 0)
_CERTAIN: Final = ("provider", "none")
_NO_REQUEST: Final = "refused"


def held_by(started: Fields) -> Amounts:
    """Return what is held for a call of which this is the ``started`` record."""
    return Amounts(started.hold_picousd or 0, started.hold_tokens or 0)


def spent_by(outcome: Fields, cost_picousd: int | None) -> Amounts:
    """Return what an outcome counts.

    Args:
        cost_picousd: its cost; ``None``: unknown.
    """
    if outcome.cache_hit or outcome.status == _NO_REQUEST:
        return NOTHING
    usd, tokens = cost_picousd or 0, outcome.total_tokens or 0
    hold = outcome.hold_picousd
    if hold is not None and hold > usd:
        usd = hold
    hold = outcome.hold_tokens
    if hold is not None and hold > tokens:
        tokens = hold
    return Amounts(usd, tokens)


def is_known(
    status: str | None, usage_source: str | None, *, cost_known: bool, billed: bool
) -> bool:
    """Whether what a call has cost is known for certain, so that its hold may come back.

    Args:
        billed: whether the provider may bill it; false: it answered with an error status, or
            nothing was sent.
    """
    if not billed:
        return True
    if status == "ok":
        return cost_known and usage_source in _CERTAIN
    return cost_known and usage_source == "provider"
