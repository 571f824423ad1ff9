"""A budget of many machines: each process spends what it was lent of the limit.

Owns when a process asks for more, how much, when it gives back, and what happens while nobody can
be asked.  Who is asked is a ``Lender``: the database (``_budgets.lender``).  One ask serves many
calls, and none waits for it while its process has enough.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from litellm_ledger._errors import BudgetExceeded, LedgerError
from litellm_ledger._records.money import usd

from .table import LARGEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .budget import Budget
    from .windows import Window

__all__ = ["IDLE", "Ask", "Lease", "Lender", "Lending", "Lent", "Unavailable"]

_log = logging.getLogger("litellm_ledger")

Unavailable = Literal["spend-the-lease-then-refuse", "allow"]

SLICE: Final = 100
"""Calls like the one that asks, for which it asks as well: at most a quarter of what is free."""
IDLE: Final = 2.0
"""Seconds after which what nobody used goes back."""
_TRIES: Final = 3
_AGAIN: Final = 0.25
"""Seconds for which a refusal, or a lender that is away, is not asked again."""


class Ask(NamedTuple):
    """What a process says of one budget, for one scope, in one window.  Whole units.

    Attributes:
        budget, unit, counts, scope: which budget, and for whom.
        since, key, leaves: the window (``Window``), and when it no longer counts, in seconds since
            1970.
        limit: of the budget.
        used: what this process has spent and holds.
        returned: what it has given back so far, in all.
        need: for what it has no room.
        more: what it would take beyond.
        others: processes of the same ledger that ended, and what they have spent.
    """

    budget: str
    unit: str
    counts: str
    scope: str
    since: int
    key: int
    leaves: int
    limit: int
    used: int
    returned: int
    need: int
    more: int
    others: Mapping[str, int]


class Lent(NamedTuple):
    """The answer.

    Attributes:
        granted: to this process so far, in all.
        lent: to all processes, in all keys that count: granted and not returned.
        used: by all of them, as they said last.
    """

    granted: int
    lent: int
    used: int


class Lender(Protocol):
    """Who is asked.

    Attributes:
        place: where that is, without a password.
    """

    place: str

    async def ask(self, holder: str, ask: Ask) -> Lent:
        """Ask; on any event loop.

        Raises:
            LedgerError: there is no answer; what was asked may have been done.
        """

    def close(self) -> None:
        """Ask no more."""

    def forget_parent(self) -> None:
        """In a forked child: nothing is open."""


class Lease:
    """What a process was lent in one window.

    Attributes:
        returned: what it has given back so far, in all.
        told: what the lender knows: used and returned; -1: nobody can say.
        lent, used: as ``Lent`` has them, when it asked last.
        refused: when it was refused last, by the monotonic clock, and how much.
    """

    __slots__ = ("_asking", "_seen", "lent", "refused", "returned", "told", "used")

    def __init__(self) -> None:
        self.returned = self.lent = self.used = self.told = 0
        self.refused = float("-inf"), 0
        self._asking: asyncio.Lock | None = None
        self._seen = -1

    @property
    def asking(self) -> asyncio.Lock:
        """One asks at a time, for all who wait."""
        if self._asking is None:
            self._asking = asyncio.Lock()
        return self._asking

    def is_idle(self, used: int) -> bool:
        """Whether nothing was spent or held since this was asked last."""
        idle = self._seen == used
        self._seen = used
        return idle


class Account(Protocol):
    """What a gate has of one budget, for one scope, in one window."""

    counts: str
    scope: str
    window: Window
    leaves: int
    spent: int
    held: int
    lease: Lease | None
    room: int

    def is_short(self, need: int) -> bool:
        """Whether this process may not spend that much more of what it was lent."""


class Lending:
    """The leases of one gate.

    Args:
        lender: who is asked.
        on_unavailable: what happens to a call that has no room in the lease while nobody can be
            asked: it is refused, or sent.

    Attributes:
        away: why nobody can be asked, since the last time somebody could; ``None``: it works.
        place: who lends, without a password.
    """

    def __init__(
        self, lender: Lender, on_unavailable: Unavailable = "spend-the-lease-then-refuse"
    ) -> None:
        if on_unavailable not in ("spend-the-lease-then-refuse", "allow"):
            raise ValueError(
                f"on_unavailable={on_unavailable!r} is unknown; use spend-the-lease-then-refuse or "
                "allow"
            )
        self._lender = lender
        self.place = lender.place
        self._on_unavailable = on_unavailable
        self._until = 0.0
        self.away: str | None = None

    def forget_parent(self) -> None:
        """In a forked child: nothing was lent."""
        self._lender.forget_parent()

    def close(self) -> None:
        """Ask no more."""
        self._lender.close()

    async def more(
        self,
        holder: str,
        account: Account,
        budget: Budget,
        need: int,
        others: Callable[[], Awaitable[Mapping[str, int]]],
    ) -> None:
        """Have room for a need, if there is any; once for all who ask for the same.

        Args:
            holder: the writer of this process.
            others: looks for processes of this ledger that ended.

        Raises:
            BudgetExceeded: there is none, or nobody can be asked.
        """
        lease = account.lease
        assert lease is not None
        async with lease.asking:
            if not account.is_short(need):
                return  # another call has asked meanwhile
            now = time.monotonic()
            when, much = lease.refused
            if now >= when + _AGAIN or need < much:
                await self._ask(holder, account, budget, need, others, now)
            if not account.is_short(need):
                return
            lease.refused = time.monotonic(), need
            raise self._refusal(account, budget, need)

    async def _ask(
        self,
        holder: str,
        account: Account,
        budget: Budget,
        need: int,
        others: Callable[[], Awaitable[Mapping[str, int]]],
        now: float,
    ) -> None:
        lease = account.lease
        assert lease is not None
        try:
            if now < self._until:
                raise LedgerError(self.away or "")
            ended = await others()
            await self._told(holder, account, budget, need, ended)
        except LedgerError as exc:
            if now >= self._until:
                self._is_away(str(exc))
            if self._on_unavailable == "allow":
                account.room = max(account.room, account.spent + account.held + need)

    async def _told(
        self,
        holder: str,
        account: Account,
        budget: Budget,
        need: int = 0,
        others: Mapping[str, int] | None = None,
    ) -> None:
        """Tell what is used and returned, ask for more, and take the answer."""
        lease, window = account.lease, account.window
        assert lease is not None
        used, returned, lease.told = account.spent + account.held, lease.returned, -1
        ask = Ask(
            budget.label,
            budget.unit,
            account.counts,
            account.scope,
            window.since,
            window.key,
            min(account.leaves, _LAST),
            budget.limit_units,
            used,
            returned,
            need,
            min(need * SLICE, LARGEST),
            others or {},
        )
        answer = await self._lender.ask(holder, ask)
        lease.told = used + returned
        lease.lent, lease.used = answer.lent, answer.used
        account.room = answer.granted - lease.returned
        if self.away is not None:
            _log.warning("the budgets of all machines can be asked again")
        self.away, self._until = None, 0.0

    async def give_back(self, holder: str, account: Account, budget: Budget, *, all_: bool) -> None:
        """Return what is not used; all of it, or if nothing was used since the last time."""
        lease = account.lease
        assert lease is not None
        async with lease.asking:
            for _ in range(_TRIES):  # an answer may tell of a grant that nobody had heard of
                used = account.spent + account.held
                idle = lease.is_idle(used)
                spare = account.room - used
                if spare > 0 and (all_ or idle):
                    account.room -= spare  # first here: nobody spends it any more
                    lease.returned += spare
                if lease.told == used + lease.returned or time.monotonic() < self._until:
                    return
                try:
                    await self._told(holder, account, budget)
                except LedgerError as exc:
                    self._is_away(str(exc))
                    return

    def _is_away(self, why: str) -> None:
        if self.away is None:
            _log.warning("the budgets of all machines cannot be asked: %s", why)
        self.away, self._until = why, time.monotonic() + _AGAIN

    def _refusal(self, account: Account, budget: Budget, need: int) -> BudgetExceeded:
        lease = account.lease
        assert lease is not None
        said: Any = usd if budget.unit == "usd" else int
        own = account.spent + account.held
        elsewhere = max(0, lease.used - own)
        lent = max(0, min(lease.lent, budget.limit_units) - max(account.room, own) - elsewhere)
        return BudgetExceeded(
            budget=budget.label,
            unit=budget.unit,
            scope=account.scope,
            limit=said(budget.limit_units),
            settled=said(account.spent + elsewhere),
            held=said(account.held),
            lent=said(lent if self.away is None else 0),
            needed=said(need),
            resets_at=None if account.window.end.year > 9000 else account.window.end,
            because=None if self.away is None else f"{_left(account, own)}: {self.away}",
        )


def _left(account: Account, own: int) -> str:
    """Say what a process has of its lease that can ask for no more."""
    lease = account.lease
    assert lease is not None
    if account.room + lease.returned <= 0:
        return "this process was lent nothing, as the database that lends could not be asked"
    if account.room > own:
        return "what this process has left of its lease is not enough, and it can ask for no more"
    return "this process has spent what it was lent, and can ask for no more"


_LAST: Final = int(datetime(9000, 1, 1, tzinfo=UTC).timestamp())
