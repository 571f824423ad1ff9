"""A question to a database from code that has no event loop, or is in the middle of one.

Owns the private thread with a loop of its own, the one connection in it, how long a silent server
is waited for, and what is said of a failure: never a password.  Imports asyncpg only in that
thread's work.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as NotYet
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from litellm_ledger._errors import LedgerError, LedgerPathError

from .address import Address

if TYPE_CHECKING:
    import asyncpg

__all__ = ["SILENCE", "Link"]

_T = TypeVar("_T")

SILENCE: Final = 300.0
"""Seconds for which a server that owes us an answer may send nothing: it may be adding up."""
_STATEMENT: Final = 3_600.0
"""Seconds that one statement may take in all: a long answer that is still coming is no failure."""
_LOOK: Final = 0.5


class Link:
    """One connection, on a thread of its own; a context manager.

    Args:
        address: of the database.
        silence: seconds after which a server that sends nothing is given up.
    """

    def __init__(self, address: Address, *, silence: float = SILENCE) -> None:
        self._address = address
        self._silence = silence
        self._heard = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._work, name="litellm-ledger-database", daemon=True
        )
        self._connection: asyncpg.Connection | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection and end the thread; waits for no server."""
        if self._loop.is_closed():
            return
        if self._thread.ident is not None:
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=1)
        if self._connection is not None:
            self._connection.terminate()
            await asyncio.sleep(0)  # for the socket to be closed

    def heard(self) -> None:
        """Note that the server has sent something; called in the thread."""
        self._heard = True

    def ask(self, question: Callable[[asyncpg.Connection], Awaitable[_T]]) -> _T:
        """Put a question in one read-only transaction, in which nothing changes; wait for it.

        Raises:
            LedgerPathError: the database cannot be reached, is silent, or answers with an error.
            LedgerError: whatever the question raises itself.
        """

        async def asked(connection: asyncpg.Connection) -> _T:
            from .database import one_moment

            async with one_moment(connection, timeout=_STATEMENT):
                return await question(connection)

        return self.change(asked)

    def change(self, work: Callable[[asyncpg.Connection], Awaitable[_T]]) -> _T:
        """Do work that makes its own transactions; wait for it.  Raises as ``ask``."""
        return self._run(self._done(work))

    async def _done(self, work: Callable[[asyncpg.Connection], Awaitable[_T]]) -> _T:
        from .database import connect

        if self._connection is None:
            self._connection = await connect(self._address, statement_timeout=_STATEMENT)
            self.heard()
        return await work(self._connection)

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        waited = 0.0
        try:
            while True:
                try:
                    return future.result(_LOOK)
                except NotYet:
                    if future.done():  # the time-out is that of the work
                        raise
                waited = 0.0 if self._heard else waited + _LOOK
                self._heard = False
                if waited >= self._silence:
                    raise LedgerPathError(
                        f"{self._address} has sent nothing for {waited:.0f} seconds; see whether "
                        "the server runs, or ask for less (--since, --where)"
                    )
        except LedgerError:
            raise
        except CancelledError:
            raise LedgerPathError(f"the question to {self._address} was given up") from None
        except Exception as exc:
            from .database import is_theirs, unusable

            if not is_theirs(exc):
                raise
            raise unusable(self._address, exc) from exc
        finally:
            future.cancel()
