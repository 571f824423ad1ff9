"""What the dashboard's answers are made of, whichever kind of ledger it shows.

Owns what ``answers`` asks.  ``here`` answers for a directory, from what it keeps in memory;
``there`` for a database or object storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._reports.history import Operation
from litellm_ledger._reports.plain import Prices
from litellm_ledger._reports.report import Report

from .viewer import Scope

__all__ = ["Source"]


class Source(Protocol):
    """One ledger; safe for several threads.

    A selection is cut to what the viewer may see; a ``scope`` says what that is.  Each method
    raises ``LedgerPathError`` or ``UnsupportedFormat`` if the ledger cannot be read.
    """

    def report(self, by: Sequence[str], selection: Selection, *, quantiles: bool) -> Report:
        """Add up outcomes by group; as ``Ledger.report``."""
        ...

    def calls(
        self, selection: Selection, limit: int, *, scope: Scope, before: str | None = None
    ) -> tuple[list[UsageRecord], bool]:
        """Return the newest calls, at most ``limit``, and whether all of them were searched.

        Args:
            before: the id of a call; only those that stand after it in the list.

        Raises:
            LookupError: that one is not there.
        """
        ...

    def newest(self, selection: Selection, limit: int) -> list[UsageRecord]:
        """Return the newest calls, at most ``limit``, as far as they are at hand."""
        ...

    def operation(self, key: str, scope: Scope) -> tuple[Operation, Prices] | None:
        """Return the operation that has the record ``key``, and the terms of its prices."""
        ...

    def in_flight(self, scope: Scope) -> tuple[int, datetime | None]:
        """Return how many calls have no outcome yet, and when the oldest of them began."""
        ...

    def budgets(self, scope: Scope, limit: int) -> dict[str, Any]:
        """Return what stands against budgets, at most ``limit`` rows of each unit."""
        ...

    def processes(self) -> list[dict[str, Any]] | None:
        """Return the queue and the sync of each process that writes; ``None``: it is not known."""
        ...

    def about(self) -> dict[str, Any]:
        """Return where the ledger is, what there is of it, and what needs attention."""
        ...
