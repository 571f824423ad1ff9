"""Alerts of budgets: each threshold once a window, whatever the number of processes.

Owns which thresholds are reached, who was told (``budgets/alerts.json`` in the ledger), and the
three ways to tell: the log, a callback, a webhook.  All that blocks is in a thread of its own: no
call waits for it, and no failure here reaches one.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from litellm_ledger._aggregates.formatting import counted, money, percent
from litellm_ledger._errors import LedgerError
from litellm_ledger._records.layout import BUDGETS, SEGMENTS
from litellm_ledger._records.money import usd
from litellm_ledger._runtime.webhook import check_webhook, deliver
from litellm_ledger._storage.claims import claim, give_back
from litellm_ledger._storage.filesystem import REAL, make_directories, rights_beside

from .budget import Budget

if TYPE_CHECKING:
    from .gate import Balance
    from .status import Standing

__all__ = ["BudgetAlert", "BudgetAlerts", "Reached", "reached", "send"]

_log = logging.getLogger("litellm_ledger")

_FILE: Final = "alerts.json"
_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_AGAIN: Final = timedelta(minutes=1)
"""After which what a webhook did not get is sent to it again."""


class BudgetAlert(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a budget is spent.

    Attributes:
        id: the same in each process, for this budget, scope, window and part.
        budget: its name.
        scope: whose money it is, for example ``user=alice``; empty: one limit for all.
        part: the threshold that was reached, as given in ``warn``.
        unit: ``usd`` (US dollars), ``tokens`` or ``calls``.
        limit, settled, held: of the budget, spent, and what calls in flight may still cost.
        start: when the window began; ``resets_at``: when it ends, ``None`` for ``total`` and
            rolling windows.
    """

    id: str
    budget: str
    scope: str
    part: Decimal
    unit: str
    limit: Decimal | int
    settled: Decimal | int
    held: Decimal | int
    start: datetime
    resets_at: datetime | None

    @property
    def text(self) -> str:
        """A sentence."""
        of = f" of {self.scope}" if self.scope else ""

        def told(amount: Decimal | int) -> str:
            if isinstance(amount, Decimal):
                return money(amount)
            return counted(amount, self.unit.removesuffix("s"))

        return (
            f"{percent(self.part)} of the budget {self.budget}{of} is spent: "
            f"{told(self.settled)} of {told(self.limit)}"
        )


class Reached(msgspec.Struct, frozen=True):
    """An alert, the names that are claimed for it, and until when."""

    alert: BudgetAlert
    names: tuple[str, ...]
    until: datetime


def reached(balances: Iterable[Balance | Standing], now: datetime) -> list[Reached]:
    """Return the highest threshold that each balance has reached; the lower ones go with it."""
    found = []
    for balance in balances:
        budget = balance.budget
        if not budget.warn_units or balance.settled < budget.warn_units[0]:
            continue
        parts = [
            part
            for part, units in zip(budget.warn_parts, budget.warn_units, strict=True)
            if units <= balance.settled
        ]
        window = balance.window
        length = budget.rolling
        names = tuple(_name(budget, balance.scope, 0 if length else window.key, p) for p in parts)
        alert = BudgetAlert(
            id=names[-1],
            budget=budget.label,
            scope=balance.scope,
            part=parts[-1],
            unit=budget.unit,
            limit=_amount(budget, budget.limit_units),
            settled=_amount(budget, balance.settled),
            held=_amount(budget, balance.held),
            start=window.start,
            resets_at=None if length or window.end == _NEVER else window.end,
        )
        found.append(Reached(alert, names, window.end if length is None else now + length))
    return found


def _amount(budget: Budget, units: int) -> Decimal | int:
    return usd(units) if budget.unit == "usd" else units


def _name(budget: Budget, scope: str, key: int, part: Decimal) -> str:
    parts = msgspec.json.encode((budget.counts, scope, key, str(part)))
    return hashlib.sha256(parts).hexdigest()[:32]


class BudgetAlerts:
    """Tells of thresholds.

    Args:
        root: the ledger.
        callback: called with each alert, in the thread of the alerts; what it raises is logged.
        webhook: an address; signed with the key in ``$LITELLM_LEDGER_WEBHOOK_KEY``.

    Raises:
        ValueError: the address is none, or there is no key.
    """

    def __init__(
        self,
        root: Path,
        *,
        callback: Callable[[BudgetAlert], object] | None = None,
        webhook: str | None = None,
    ) -> None:
        self._root = root
        self._callback = callback
        self._webhook = webhook
        self._key = b"" if webhook is None else check_webhook(webhook, "budget_webhook")
        self._told: dict[str, datetime] = {}

    def new(self, balances: Iterable[Balance | Standing], now: datetime) -> list[Reached]:
        """Return what this process did not tell of yet.  Takes microseconds; reads no file."""
        found = [one for one in reached(balances, now) if self._told.get(one.alert.id, now) <= now]
        if found:
            self._told = {name: until for name, until in self._told.items() if until > now}
            for one in found:
                self._told.update(dict.fromkeys(one.names, one.until))
        return found

    def tell(self, found: Sequence[Reached]) -> list[BudgetAlert]:
        """Tell of thresholds that no process has told of; return them.  Blocks; never raises."""
        told = [one.alert for one in self._claimed(found)]
        for alert in told:
            _log.warning("%s", alert.text)
            if self._callback is not None:
                try:
                    self._callback(alert)
                except Exception:  # noqa: BLE001 - the user's code: logged
                    _log.exception("the callback for alerts of budgets failed")
        if self._webhook is not None:
            self._send(found, self._webhook)
        return told

    def _send(self, found: Sequence[Reached], url: str) -> None:
        try:
            send(self._root, found, url, self._key)
        except LedgerError as exc:
            _log.warning("alerts of budgets: %s", exc)
            self._told.update(dict.fromkeys((one.alert.id for one in found), _soon()))

    def _claimed(self, found: Sequence[Reached]) -> list[Reached]:
        try:
            return _claimed(self._root, found)
        except OSError as exc:
            _log.warning("alerts of budgets may be repeated: they cannot be noted: %s", exc)
            return list(found)


def send(root: Path, found: Sequence[Reached], url: str, key: bytes | None = None) -> int:
    """Send the thresholds to a webhook that no process has sent to it; return how many.

    The body is JSON: ``path`` and ``budgets``, the fields of each ``BudgetAlert`` and its ``text``.
    It is signed with the key in ``$LITELLM_LEDGER_WEBHOOK_KEY``.

    Raises:
        ValueError: the address is none, or there is no key.
        LedgerError: it could not be delivered, or noted; the next one tries again.
    """
    key = check_webhook(url) if key is None else key
    channel = f"-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    try:
        new = _claimed(root, found, channel)
    except OSError as exc:
        raise LedgerError(f"nothing was sent, because that cannot be noted: {exc}") from exc
    if new:
        body = {"path": str(root), "budgets": [plain(one.alert) for one in new]}
        try:
            deliver(url, msgspec.json.encode(body), key)
        except LedgerError:
            names = [f"{name}{channel}" for one in new for name in one.names]
            with contextlib.suppress(OSError):
                give_back(root / BUDGETS / _FILE, names)
            raise
    return len(new)


def _claimed(root: Path, found: Sequence[Reached], channel: str = "") -> list[Reached]:
    """Claim thresholds, the lower ones with them; return those that were new."""
    names = {f"{name}{channel}": one.until for one in found for name in one.names}
    if names:  # with the group's rights, as all directories of the ledger
        make_directories(REAL, root / BUDGETS, rights_beside(root / SEGMENTS))
    new = set(claim(root / BUDGETS / _FILE, names))
    return [one for one in found if f"{one.alert.id}{channel}" in new]


def _soon() -> datetime:
    return datetime.now(UTC) + _AGAIN


def plain(alert: BudgetAlert) -> dict[str, Any]:
    """Return an alert as JSON values: dollars and parts as decimal text."""
    told: dict[str, Any] = {
        name: f"{value:f}" if isinstance(value, Decimal) else value
        for name, value in msgspec.structs.asdict(alert).items()
    }
    return {**told, "text": alert.text}
