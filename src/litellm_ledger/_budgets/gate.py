"""The gate: a call goes through if every budget has room for what it may cost.

Owns the decision and the holds of this process.  A hold is taken from all budgets that apply, or
from none, in one atomic step: settled + what is held + this hold <= limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

__all__ = ["Amounts", "Balance", "Gate", "Measure", "Ticket"]


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


class Windowed(Protocol):
    """A window, of ``_budgets.windows``."""

    @property
    def start(self) -> datetime:
        """From when on spending counts."""

    @property
    def end(self) -> datetime:
        """When the next one begins; ``datetime.max``: never."""

    @property
    def since(self) -> int:
        """The first key that counts."""

    @property
    def key(self) -> int:
        """Under which spending of now is counted."""


class Measure(Protocol):
    """What the gate asks of a budget.

    Attributes:
        label: for errors.
        unit: ``usd``, ``tokens`` or ``calls``.
        limit_units: in picodollars, tokens or calls.
        mode: ``strict``, ``adaptive`` or ``soft``, which refuses nothing.
        unbounded: ``refuse`` or ``allow``: what happens to a call without a bound.
        counts: a digest of what is counted: under another one no balance is the same.
    """

    @property
    def label(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def limit_units(self) -> int: ...
    @property
    def mode(self) -> str: ...
    @property
    def unbounded(self) -> str: ...
    @property
    def counts(self) -> str: ...

    def scope_of(self, model: str | None, tags: Mapping[str, str]) -> str | None:
        """Whose money a call spends, as text; ``None``: this budget does not apply."""

    def window_at(self, moment: datetime) -> Windowed:
        """Return the window that a moment is in."""


class Balance(NamedTuple):
    """What stands against a budget, for one scope, in its window of now."""

    budget: Measure
    scope: str
    window: Windowed
    settled: int
    held: int


class Ticket:
    """What one attempt holds.

    Attributes:
        held: in each unit; 0 where it has no bound and that is allowed.
        until: when the first of its windows ends: a request that leaves later needs another.
    """

    held: Amounts
    until: datetime


class Gate:
    """The budgets of one client.

    Args:
        root: the ledger.
        budgets: they all apply, each where its ``scope_of`` says so.
    """

    def __init__(self, root: Path, budgets: Sequence[Measure]) -> None:
        self.root = root
        self.budgets = budgets

    async def take(
        self,
        amounts: Amounts,
        model: str | None,
        tags: Mapping[str, str],
        now: datetime,
        *,
        wait: bool = False,
        deadline: float | None = None,
    ) -> Ticket:
        """Hold what a call may cost, from all budgets that apply or from none.

        Args:
            wait: for money of calls in flight to come back, first come, first served.
            deadline: until when, by the loop's clock; ``None``: as long as it takes.

        Raises:
            BudgetExceeded: one has no room; nothing is held.
            BudgetUnbounded: the call has no bound, and one refuses such calls.
        """
        raise NotImplementedError

    def top_up(self, ticket: Ticket, more: Amounts) -> bool:
        """Hold more for a call in flight; ``False``, and nothing is held, where there is no room.

        Never waits for more than a moment.
        """
        raise NotImplementedError

    def settle(self, ticket: Ticket, actual: Amounts | None) -> None:
        """The outcome is written: what was held comes back, what was used is spent.

        Args:
            actual: ``None``: not known (cancelled, timed out, abandoned): all that was held is.
        """
        raise NotImplementedError

    def drop(self, ticket: Ticket) -> None:
        """Nothing was sent: what was held comes back."""
        raise NotImplementedError

    def balances(self, now: datetime) -> list[Balance]:
        """Return what stands against each budget, for each scope that is known."""
        raise NotImplementedError
