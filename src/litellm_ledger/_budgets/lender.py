"""``DatabaseLender``: the budgets of many machines, lent by PostgreSQL.

Owns one connection in a thread of its own, opened when something is asked and closed when nothing
has been for a while, and how long an answer is waited for.  ``sql/0004_rights.sql`` has the rule.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from litellm_ledger._budgets.leasing import Ask, Lent
from litellm_ledger._errors import LedgerPathError
from litellm_ledger._postgres.address import Address

if TYPE_CHECKING:
    import asyncpg

__all__ = ["DatabaseLender"]

_PATIENCE: Final = 2.0
"""Seconds for an answer, connecting included: a call waits for it."""
_QUIET: Final = 30.0
"""Seconds without a question after which the connection is closed."""
_ASK: Final = (
    "SELECT granted, lent, used FROM litellm_ledger.ask_lease("
    "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
)


class DatabaseLender:
    """Asks a database; see ``_budgets.leasing.Lender``.

    Args:
        url: ``postgresql://…``.

    Raises:
        ValueError: it makes no sense.
    """

    def __init__(self, url: str) -> None:
        self.address = Address.of(url)
        self.place = self.address.place
        self._begin()

    def _begin(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._connection: asyncpg.Connection | None = None
        self._asking: asyncio.Lock | None = None
        self._hang_up: asyncio.TimerHandle | None = None

    def forget_parent(self) -> None:
        """In a forked child: nothing is open."""
        self._begin()

    async def ask(self, holder: str, ask: Ask) -> Lent:
        """Ask, for two seconds at most.  Cancelled, what was asked may have been done.

        Raises:
            LedgerPathError: there is no answer.
            MissingExtra: asyncpg is not installed.
        """
        return await asyncio.wrap_future(self._submit(holder, ask))

    def _submit(self, holder: str, ask: Ask) -> Future[Lent]:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop,), name="litellm-ledger-lender", daemon=True
                )
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(self._asked(holder, ask), self._loop)

    async def _asked(self, holder: str, ask: Ask) -> Lent:
        from litellm_ledger._postgres.database import is_theirs, unusable

        if self._asking is None:
            self._asking = asyncio.Lock()
        try:
            async with asyncio.timeout(_PATIENCE), self._asking:
                return await self._answer(holder, ask)
        except Exception as exc:
            self._drop()
            if not is_theirs(exc):
                raise
            raise unusable(self.address, exc) from exc
        except asyncio.CancelledError:
            self._drop()
            raise

    async def _answer(self, holder: str, ask: Ask) -> Lent:
        from litellm_ledger._postgres.database import connect
        from litellm_ledger._postgres.schema import check

        if self._hang_up is not None:
            self._hang_up.cancel()
        if self._connection is None:
            self._connection = await connect(self.address, statement_timeout=_PATIENCE)
            await check(self._connection)
        row = await self._connection.fetchrow(
            _ASK,
            ask.counts,
            ask.scope,
            ask.key,
            ask.since,
            datetime.fromtimestamp(ask.leaves, UTC),
            ask.budget,
            ask.unit,
            holder,
            ask.limit,
            ask.used,
            ask.returned,
            ask.need,
            ask.more,
            list(ask.others),
            list(ask.others.values()),
            _now(),
        )
        self._hang_up = asyncio.get_running_loop().call_later(_QUIET, self._drop)
        if row is None:
            raise LedgerPathError(
                f"{self.address} has no answer; run litellm-ledger database check"
            )
        return Lent(int(row["granted"]), int(row["lent"]), int(row["used"]))

    def _drop(self) -> None:
        """Close the connection: it is quiet, or nobody knows what comes over it next."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def close(self) -> None:
        """Ask no more.  Waits for no server."""
        with self._lock:
            loop, self._loop, thread, self._thread = self._loop, None, self._thread, None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._end(), loop).add_done_callback(
            lambda _: loop.call_soon_threadsafe(loop.stop)
        )
        thread.join(_PATIENCE)

    async def _end(self) -> None:
        if self._hang_up is not None:
            self._hang_up.cancel()
        self._drop()
        await asyncio.sleep(0)  # for the socket to be closed


def _now() -> datetime:
    return datetime.now(UTC)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
