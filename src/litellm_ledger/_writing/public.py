"""``AsyncUsageWriter``: the public face of a writer, for those who need neither tags nor totals.

Owns names and docstrings; ``_writing.writer`` does the work.
"""

from __future__ import annotations

import os
from pathlib import Path

from litellm_ledger._records.record import UsageRecord
from litellm_ledger._records.statistics import Statistics
from litellm_ledger._runtime.misuse import AsyncOnly
from litellm_ledger._storage.filesystem import REAL, FileSystem
from litellm_ledger._storage.live_file import Durability

from .opening import Settings
from .state import State
from .writer import Writer

__all__ = ["AsyncUsageWriter"]


class AsyncUsageWriter(AsyncOnly):
    """Writes records to a ledger directory from one task, in order, each exactly once.

    An async context manager; also ``await open()`` … ``await aclose()``.  Belongs to the event loop
    that opened it.

    Args:
        ledger: the directory (created if missing).
        durability: what ``ack`` waits for: ``queued``, ``written``, ``synced`` or ``shipped``.
        queue_size: records accepted and not yet written at which callers wait.
        sync_interval: seconds after a write by which it is synced in the background.
        drain_timeout: seconds that ``aclose`` may take unless it is told otherwise.
        mode: see ``UsageTracker``.
        fs: the file system to use; tests put a faulty one here.
        recover: finish what dead writers left behind when opening.
        sink: a database that everything is shipped to; see ``LiteLLMClient``.
    """

    def __init__(
        self,
        ledger: str | os.PathLike[str] | None = None,
        *,
        durability: Durability = "written",
        queue_size: int = 10_000,
        sync_interval: float = 1.0,
        drain_timeout: float = 10.0,
        mode: int | None = None,
        fs: FileSystem = REAL,
        recover: bool = True,
        sink: str | None = None,
    ) -> None:
        settings = Settings(
            ledger,
            durability=durability,
            queue_size=queue_size,
            sync_interval=sync_interval,
            drain_timeout=drain_timeout,
            mode=mode,
            fs=fs,
            recover=recover,
            sink=sink,
        )
        self._writer = Writer(settings)

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._writer.admission.state

    @property
    def directory(self) -> Path | None:
        """The ledger's directory once it is open."""
        return self._writer.admission.directory

    async def open(self) -> None:
        """Create the directory, recover what dead writers left, start the task.  Idempotent.

        Cancelling stops the waiting, not the opening: the next use finds it open.

        Raises:
            LedgerPathError: the directory cannot be used; the text says why and what to do.
            LedgerClosed: it was closed before; make a new one.
        """
        await self._writer.open()

    def accept(self, record: UsageRecord) -> UsageRecord:
        """Number and queue a record, whatever room there is; return it as it will be written.

        Never waits.  On the loop's thread only.
        """
        return self._writer.admission.take(record)

    def accept_nowait(self, record: UsageRecord) -> bool:
        """Queue a record if there is room and nobody waits for it; tell whether it was taken.

        Raises:
            LedgerClosed, LedgerFailed: no new work is taken.
            WrongLoop: on another event loop.
        """
        return self._writer.admission.accept_nowait(record)

    async def ack(self, record: UsageRecord, timeout: float | None = None) -> bool:
        """Wait until ``record`` is as safe as ``durability`` says; tell whether it is.

        Args:
            timeout: seconds after which the answer is ``False``; ``None`` waits as long as it
                takes.

        Cancellation stops the waiting, not the writing.

        Raises:
            LedgerFailed: the writer died first, or what is left of it could not save the record.
        """
        return await self._writer.admission.ack(record, timeout)

    async def flush(self, timeout: float | None = None, *, sync: bool | None = None) -> None:
        """Wait until all that was accepted so far is written, and synced if asked.

        Args:
            timeout: seconds; ``None`` waits as long as it takes.
            sync: also wait for the disk; by default only at ``durability="synced"``.

        Raises:
            FlushTimeout: not in time; nothing is lost, the records stay queued.
            LedgerFailed: the writer died.
            ValueError: ``timeout`` is no number of seconds.
        """
        await self._writer.admission.flush(timeout, sync=sync)

    async def aclose(self, timeout: float | None = None) -> None:
        """Refuse new work, write and sync everything accepted, seal.  Idempotent.

        Everybody who closes waits for one and the same drain.  Cancelling a closer does not cut it
        short: it ends by its deadline, then the cancellation is raised again.

        Args:
            timeout: seconds for the whole close; default ``drain_timeout``.  The first closer's
                holds.  A disk that hangs makes it half a second longer at most.

        Raises:
            DrainTimeout: the deadline passed with records unwritten; says how many, and how many of
                them the last resort still saved.
            WrongLoop: its own loop is running elsewhere.
            ValueError: ``timeout`` is no number of seconds.
        """
        await self._writer.aclose(timeout)

    def statistics(self) -> Statistics:
        """Return the figures of this moment (see ``Statistics`` for units).  Costs microseconds."""
        return self._writer.statistics()
