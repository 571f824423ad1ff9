"""What one process has spent and holds of one budget, and what one attempt holds.

Owns these figures and where they stand in the table.  Never takes a lock, never decides.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from litellm_ledger._aggregates.steps import EPOCH

from .amounts import Amounts
from .leasing import Lease
from .table import HELD, LARGEST, ROW_HELD, ROW_SPENT, SPENT, Table, fitting
from .windows import Window

__all__ = ["Entry", "Parts", "Ticket"]


class Entry:
    """What this process has spent and holds in one account, and where that is in the table.

    Attributes:
        counts, scope, window: which budget, for whom, and when.
        leaves: when the window no longer counts, in seconds since 1970.
        spent, held: picodollars, tokens or calls.
        limit: of the budget; 0 where nothing is refused.
        room: what this process may spend of a limit that machines share.
        lease: where machines share it.
        begins: the window, or the step of a rolling one, begins.
        account, head, row: cells of the table; 0: not placed yet.
    """

    __slots__ = (
        "account",
        "begins",
        "counts",
        "head",
        "held",
        "lease",
        "leaves",
        "limit",
        "room",
        "row",
        "scope",
        "spent",
        "window",
    )

    def __init__(self, counts: str, scope: str, window: Window, leaves: int) -> None:
        self.counts = counts
        self.scope = scope
        self.window = window
        self.leaves = leaves
        self.spent = self.held = self.limit = 0
        self.room = LARGEST
        self.lease: Lease | None = None
        self.begins = EPOCH + timedelta(seconds=window.key) if self.rolls else window.start
        self.account = self.head = self.row = 0

    @property
    def rolls(self) -> bool:
        """Whether the window is a rolling one: this entry is one step of it."""
        return self.window.since != self.window.key

    def is_short(self, need: int) -> bool:
        """Whether this process may not spend that much more of what it was lent."""
        return self.spent + self.held + need > self.room

    def tell(self, cells: memoryview) -> int:
        """Put what was spent and is held into the row; return how much the sum grew."""
        row, account = self.row, self.account
        row_spent, row_held = cells[row + ROW_SPENT], cells[row + ROW_HELD]
        spent, held = fitting(self.spent) - row_spent, fitting(self.held) - row_held
        cells[row + ROW_SPENT] = row_spent + spent
        cells[account + SPENT] = fitting(cells[account + SPENT] + spent)
        cells[row + ROW_HELD] = row_held + held
        cells[account + HELD] = fitting(cells[account + HELD] + held)
        return spent + held

    def stands(self, table: Table) -> tuple[int, int]:
        """Return what all processes have settled and hold.  Under the lock, once it is placed."""
        if self.head:
            return table.counted(self.head, self.window.since)
        cells = table.cells
        return cells[self.account + SPENT], cells[self.account + HELD]


Parts = list[tuple[int, Entry]]
"""What is held, of each entry."""


class Ticket:
    """What one attempt holds.

    Attributes:
        held: in each unit; 0 where it has no bound and that is allowed.
        until: when the first of its windows ends: a request that leaves later needs another.
        number: of the ``started`` record whose outcome settles it; 0: nothing was sent yet.
        born: the holdings of the process that took it.
    """

    __slots__ = ("born", "held", "number", "parts", "settled", "until")

    def __init__(self, born: object, held: Amounts, until: datetime | None, parts: Parts) -> None:
        self.born = born
        self.held = held
        self.until = until
        self.parts = parts
        self.settled = False
        self.number = 0
