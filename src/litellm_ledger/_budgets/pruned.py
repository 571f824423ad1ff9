"""Whether records that budgets count were pruned: then what is spent is not known.

Owns this question, of audits and windows.  Never changes anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from litellm_ledger._errors import LedgerError
from litellm_ledger._reading.listing import list_additions
from litellm_ledger._reading.pruned import read_pruned

from .budget import Budget

__all__ = ["check_all_is_there"]


def check_all_is_there(
    root: Path, budgets: Iterable[Budget], writers: Iterable[str], now: datetime
) -> None:
    """Check that nothing was pruned of what budgets count, which then would be forgotten.

    Raises:
        LedgerError: records of these writers were, and a limit could be passed.
    """
    latest: dict[str, datetime] = {}
    wanted = frozenset(writers)
    for one in read_pruned(root, list_additions(root)).values():
        if one.name.writer in wanted and one.records:
            was = one.changed.was
            moment = was.latest or datetime.max.replace(tzinfo=UTC)
            latest[one.name.writer] = max(moment, latest.get(one.name.writer, moment))
    if not latest:
        return
    for budget in budgets:
        if budget.mode == "soft" or budget.unbounded == "allow":
            continue
        start = budget.window_at(now).start
        for writer, moment in latest.items():
            if moment >= start:
                raise LedgerError(
                    f"the budget {budget.label} counts records that were pruned: {writer} had some "
                    f"up to {moment:%Y-%m-%d %H:%M:%S} UTC, so what is spent is not known. Use a "
                    'budget whose window began later, or unbounded="allow" to count what is left'
                )
