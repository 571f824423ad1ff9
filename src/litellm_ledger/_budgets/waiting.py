"""Calls that wait for money to come back: who is woken when, and what the first in line claims.

Owns the wake-ups of one gate, and the claims in the table, by which a call of another process does
not take what one waits for.  Never decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Final

from .table import CHANGES, CLAIM, CLAIMED, CLAIMED_AT, Table

__all__ = ["Waiting", "claim", "claimed", "unclaim"]

POLL: Final = 0.02
"""Seconds after which a call that waits reads in memory whether others gave money back."""
CLAIM_LASTS: Final = 1000
"""Milliseconds after which a claim that is not made again is nobody's."""
_CLAIM_AGAIN: Final = int(CLAIM_LASTS / 1000 / POLL / 3)
"""Polls after which a claim is made again, well before it ends."""


class Waiting:
    """The calls of one gate that wait; its length is their number.

    Args:
        table: returns the table of now.
    """

    def __init__(self, table: Callable[[], Table | None]) -> None:
        self._table = table
        self._futures: list[asyncio.Future[None]] = []
        self._poll: asyncio.TimerHandle | None = None
        self._polled = 0

    def __len__(self) -> int:
        return len(self._futures)

    async def change(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until money may have come back, in this process or another, or for a moment."""
        future = loop.create_future()
        self._futures.append(future)
        if self._poll is None:
            self._polled = self._changes()
            self._poll = loop.call_later(POLL, self._tick, loop, 0)
        try:
            await future
        finally:
            with contextlib.suppress(ValueError):
                self._futures.remove(future)

    def _changes(self) -> int:
        table = self._table()
        return -1 if table is None else table.cells[CHANGES]

    def _tick(self, loop: asyncio.AbstractEventLoop, quiet: int) -> None:
        self._poll = None
        if self._changes() != self._polled or quiet >= _CLAIM_AGAIN:
            self.wake()
        elif self._futures:
            self._poll = loop.call_later(POLL, self._tick, loop, quiet + 1)

    def wake(self) -> None:
        """Let all of them try again."""
        waiting, self._futures = self._futures, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """Look no more."""
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None


def claimed(cells: memoryview, account: int) -> int:
    """Return what a call that waits has claimed, if it still waits."""
    age = time.monotonic_ns() // 1_000_000 - cells[account + CLAIMED_AT]
    return cells[account + CLAIMED] if 0 <= age <= CLAIM_LASTS else 0


def claim(cells: memoryview, refused: Iterable[tuple[int, int]], number: int) -> None:
    """Claim amounts of accounts for the call with this number, unless a lower one has."""
    now = time.monotonic_ns() // 1_000_000
    for account, need in refused:
        other = cells[account + CLAIM]
        if other == 0 or other >= number or not claimed(cells, account):
            cells[account + CLAIM] = 0
            cells[account + CLAIMED] = need
            cells[account + CLAIMED_AT] = now
            cells[account + CLAIM] = number


def unclaim(cells: memoryview, accounts: Iterable[int], number: int) -> None:
    """Take back what the call with this number has claimed."""
    for account in accounts:
        with contextlib.suppress(IndexError):
            if account and cells[account + CLAIM] == number:
                cells[account + CLAIM] = 0  # one store: nobody else makes this number
