"""What has to stay on the ledger as budgets still count it: ``prune`` and ``erase`` ask.

Owns this question, so that money which is spent is not forgotten with its records.  It believes
``definitions.json``: where that was changed, ``_budgets.pruned`` sees that records are missing.
Never changes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from litellm_ledger._errors import LedgerPathError
from litellm_ledger._records.line import Line

from .budget import Budget
from .known import known_budgets

__all__ = ["counted_since", "kept_back"]


def counted_since(root: Path, now: datetime) -> datetime | None:
    """Return from when on budgets of the ledger's clients count; ``None``: none is known."""
    return min((one.window_at(now).start for one in _in_force(root)), default=None)


def kept_back(root: Path, now: datetime, *, keep: bool) -> Callable[[Line], bool]:
    """Return which records cannot be erased yet, as a budget would forget what they cost.

    Nothing waits for the end of ``total`` but where the amounts can stay.

    Args:
        keep: whether the amounts stay, without the tags.
    """
    budgets = _in_force(root)

    def is_kept_back(line: Line) -> bool:
        if line.ts is None:
            return False
        for one in budgets:
            if one.scope_of(line.model, line.tags) is None or line.ts < one.window_at(now).start:
                continue
            if not keep:
                return True
            if one.window != "total" and one.scope_of(line.model, {}) is None:
                return True
        return False

    return is_kept_back


def _in_force(root: Path) -> list[Budget]:
    try:
        return known_budgets(root)[0]
    except LedgerPathError:  # no client has said any
        return []
