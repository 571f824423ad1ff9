"""``simulate``: what budgets would have refused of the calls on a ledger.

Owns the replay.  Calls are admitted in the order in which they began, and settled in that in which
they ended, by the rule of the gate: settled + what is held + this hold <= limit.  Pure: the calls
come from outside.

What it assumes: a refused call is not made again, and its later attempts do not happen; nothing
else changes.  A call without a known hold holds what it cost in the end, so a strict budget would
have refused more calls than it does here.  What was spent before the period, in windows that reach
into it, counts as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from heapq import heappop, heappush
from typing import Any, NamedTuple

from litellm_ledger._records.money import usd

from .amounts import UNITS, Amounts
from .budget import Budget

__all__ = ["PastCall", "Simulated", "Simulation", "simulate"]


class PastCall(NamedTuple):
    """One attempt that is on the ledger.

    Attributes:
        operation: the same for all attempts of one call.
        began, ended: when it was admitted, and when its outcome was known.
        model, tags: as on its record.
        held: what was held for it; ``None``: unknown.
        spent: what it counts.
    """

    operation: str
    began: datetime
    ended: datetime
    model: str | None
    tags: Mapping[str, str]
    held: Amounts | None
    spent: Amounts


@dataclass(slots=True)
class Simulated:
    """What one budget would have done.

    Attributes:
        admitted, refused: attempts to which it applied.
        not_spent: what the refused ones cost in fact: picodollars, tokens or calls.
        spent: what the others did, in the period.
        first: when it first refused one; ``None``: never.
        scopes: refused attempts by scope.
        most: the largest share of the limit that was settled and held at once, in a window.
    """

    budget: Budget
    admitted: int = 0
    refused: int = 0
    not_spent: int = 0
    spent: int = 0
    first: datetime | None = None
    scopes: dict[str, int] = field(default_factory=dict)
    most: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values: dollars as decimal text."""
        said = _dollars if self.budget.unit == "usd" else int
        return {
            "budget": self.budget.label,
            "unit": self.budget.unit,
            "limit": said(self.budget.limit_units),
            "admitted": self.admitted,
            "refused": self.refused,
            "spent": said(self.spent),
            "not_spent": said(self.not_spent),
            "most": said(self.most),
            "first_refused": None if self.first is None else self.first.isoformat(),
            "scopes": dict(sorted(self.scopes.items(), key=lambda one: (-one[1], one[0]))),
        }


def _dollars(units: int) -> str:
    return f"{usd(units):f}"


@dataclass(slots=True)
class Simulation:
    """What all of them would have done together.

    Attributes:
        budgets: one for each.
        calls: attempts in the period.
        refused: attempts that would not have been sent, later ones of a refused call included.
        cost, not_spent: US dollars of all attempts in the period, and of the refused ones.
        without_hold: attempts whose hold is unknown.
    """

    budgets: list[Simulated]
    calls: int = 0
    refused: int = 0
    cost: Decimal = Decimal(0)
    not_spent: Decimal = Decimal(0)
    without_hold: int = 0


_Account = tuple[int, str, int]
"""The number of a budget, a scope, and the key of a window."""


class _Part(NamedTuple):
    """What a call means for one budget; ``stands``: what is settled and held with it."""

    account: _Account
    hold: int
    spent: int
    stands: int


def simulate(
    calls: Iterable[PastCall], budgets: Sequence[Budget], since: datetime | None = None
) -> Simulation:
    """Replay calls.

    Args:
        calls: in the order in which they began.
        since: before it calls are admitted as they were, and only count.
    """
    found = Simulation([Simulated(budget) for budget in budgets])
    replay = _Replay(found)
    for call in calls:
        replay.settle(call.began)
        replay.admit(call, counted=since is None or call.began >= since)
    return found


class _Replay:
    def __init__(self, found: Simulation) -> None:
        self._found = found
        self._units = [UNITS[one.budget.unit] for one in found.budgets]
        self._settled: dict[_Account, int] = {}
        self._held: dict[_Account, int] = {}
        self._open: list[tuple[datetime, int, list[_Part]]] = []
        self._refused: set[str] = set()
        self._number = 0

    def settle(self, until: datetime) -> None:
        """Settle the calls that had ended by a moment."""
        while self._open and self._open[0][0] <= until:
            _, _, parts = heappop(self._open)
            for account, hold, spent, _ in parts:
                self._held[account] -= hold
                self._settled[account] = self._settled.get(account, 0) + spent

    def admit(self, call: PastCall, *, counted: bool) -> None:
        """Admit a call or refuse it; not ``counted``, it is admitted as it was."""
        found = self._found
        if counted:
            found.calls += 1
            found.without_hold += call.held is None
            found.cost += usd(call.spent.usd or 0)
        if call.operation in self._refused:  # a later attempt of a call that was refused
            self._leave_out(call)
            return
        parts: list[_Part] = []
        refusing: list[tuple[Simulated, int, str]] = []
        for number, one in enumerate(found.budgets):
            scope = one.budget.scope_of(call.model, call.tags)
            if scope is None:
                continue
            unit = self._units[number]
            spent = call.spent[unit] or 0
            hold = spent if call.held is None else call.held[unit] or 0
            window = one.budget.window_at(call.began)
            account = number, scope, window.key
            stands = hold + self._stands(number, scope, window.since, window.key)
            if counted and one.budget.mode != "soft" and stands > one.budget.limit_units:
                refusing.append((one, spent, scope))
            parts.append(_Part(account, hold, spent, stands))
        if refusing:
            self._refused.add(call.operation)
            self._leave_out(call)
            for one, spent, scope in refusing:
                one.refused += 1
                one.not_spent += spent
                one.first = one.first or call.began
                one.scopes[scope] = one.scopes.get(scope, 0) + 1
            return
        for part in parts:
            self._held[part.account] = self._held.get(part.account, 0) + part.hold
            if counted:
                one = found.budgets[part.account[0]]
                one.admitted += 1
                one.spent += part.spent
                one.most = max(one.most, part.stands)
        self._number += 1
        heappush(self._open, (max(call.began, call.ended), self._number, parts))

    def _leave_out(self, call: PastCall) -> None:
        self._found.refused += 1
        self._found.not_spent += usd(call.spent.usd or 0)

    def _stands(self, number: int, scope: str, since: int, key: int) -> int:
        if since == key:
            account = number, scope, key
            return self._settled.get(account, 0) + self._held.get(account, 0)
        return self._rolling(number, scope, since, key)

    def _rolling(self, number: int, scope: str, since: int, key: int) -> int:
        step = self._found.budgets[number].budget.step
        assert step is not None
        every = int(step.total_seconds())
        return sum(
            self._settled.get((number, scope, one), 0) + self._held.get((number, scope, one), 0)
            for one in range(since, key + 1, every)
        )
