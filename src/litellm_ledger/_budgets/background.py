"""What happens beside the calls: the table is opened, looked after, and its lock waited for.

Owns the threads and tasks of one process's budgets.  Everything that reads the ledger or waits for
another process happens here, never on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from litellm_ledger._runtime.disk_thread import DiskThread

from .books import Books
from .budget import Budget
from .holdings import Holdings
from .table import Damaged, Moved, Table

__all__ = ["Background"]

_log = logging.getLogger("litellm_ledger")
_T = TypeVar("_T")

LOOK: Final = 1.0
"""Seconds after which a thread looks at the ledger again: who died, what was priced anew."""


class Background:
    """The background of one process's budgets.

    Args:
        root: the ledger.
        budgets: what is counted.

    Attributes:
        books: make the table of the ledger.
        holdings: what this process has spent and holds.
    """

    def __init__(self, root: Path, budgets: Sequence[Budget]) -> None:
        self.root = root
        self.books = Books(root, budgets)
        self.holdings = Holdings(self._renew_soon)
        self._thread = DiskThread("litellm-ledger-budgets")
        self._locks = DiskThread("litellm-ledger-budgets-lock")
        self._freeing: asyncio.Task[None] | None = None
        self._again: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._looked = 0.0

    async def open(self, writer: str) -> None:
        """Read the ledger if need be, and enter the table.

        Raises:
            LedgerPathError: the table cannot be made, or the ledger cannot be read.
        """
        self.holdings.writer = self.books.own = writer
        self.holdings.loop = asyncio.get_running_loop()
        self._looked = time.monotonic()
        self.holdings.enter(await self.in_thread(self.books.ready))

    async def read_for(self, budgets: Sequence[Budget]) -> Table:
        """Return a table in which other budgets are counted; from now on these are.

        Raises:
            LedgerError: the ledger cannot be read, or there are too many; nothing has changed.
        """
        books = Books(self.root, budgets, self.holdings.writer)
        table = await self.in_thread(books.ready)
        self.books = books
        return table

    def close(self) -> None:
        """End all of it; a late outcome is still told."""
        for task in (self._looking, self._again, self._freeing):
            if task is not None:
                task.cancel()
        self._locks.stop()
        self._thread.stop()
        self._thread = DiskThread("litellm-ledger-budgets")

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """Do work that reads files, in its thread."""
        return await asyncio.wrap_future(self._thread.submit(work))

    def task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin a task on the client's loop."""
        assert self.holdings.loop is not None
        return self.holdings.loop.create_task(work, name="litellm-ledger-budgets")

    # -- another table -----------------------------------------------------------------------------

    async def renew(self, first: Callable[[], None] | None = None) -> None:
        """Have another table opened, once for all who ask; ``first`` makes one."""
        await asyncio.shield(self._renewal(first))

    def _renew_soon(self, full: bool) -> None:
        def renew() -> None:
            if not self.holdings.closed:
                self._renewal(self.books.grow if full else None)

        self.holdings.on_loop(renew)

    def _renewal(self, first: Callable[[], None] | None) -> asyncio.Task[None]:
        if self._again is None:
            self._again = self.task(self._renewed(first))
            self._again.add_done_callback(self._renewal_done)
        return self._again

    async def _renewed(self, first: Callable[[], None] | None) -> None:
        if first is not None:
            with contextlib.suppress(Moved, Damaged, FileNotFoundError):
                await self.in_thread(first)
        self.holdings.enter(await self.in_thread(self.books.ready))

    def _renewal_done(self, task: asyncio.Task[None]) -> None:
        self._again = None
        if not task.cancelled() and task.exception() is not None:
            _log.error("the balances of the budgets are not here: %s", task.exception())

    # -- a look at the ledger ----------------------------------------------------------------------

    def look_soon(self) -> None:
        """Look at the ledger now and then, in a thread."""
        now = time.monotonic()
        if now - self._looked < LOOK or self._looking is not None or self.holdings.loop is None:
            return
        self._looked = now
        self._looking = self.task(self._look())
        self._looking.add_done_callback(self._look_done)

    async def _look(self) -> None:
        with contextlib.suppress(Moved, Damaged, FileNotFoundError):  # the next step sees it too
            await self.in_thread(self.books.look)

    def _look_done(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled() and task.exception() is not None:
            _log.warning("the ledger could not be read for the budgets: %s", task.exception())

    # -- the lock ----------------------------------------------------------------------------------

    async def lock_is_free(self) -> None:
        """Wait until nobody else holds the lock: in a thread, once for all who wait."""
        await asyncio.sleep(0)  # the others on this loop first
        if self._freeing is None:
            self._freeing = self.task(self._freed())
            self._freeing.add_done_callback(self._free)
        await asyncio.shield(self._freeing)

    async def _freed(self) -> None:
        table = self.holdings.table
        if table is not None:
            with contextlib.suppress(OSError):  # gone: the next step sees that
                await asyncio.wrap_future(self._locks.submit(table.wait_until_free, self.root))

    def _free(self, task: asyncio.Task[None]) -> None:
        self._freeing = None
        if not task.cancelled() and task.exception() is not None:
            _log.error("the lock of the budgets cannot be had: %s", task.exception())
