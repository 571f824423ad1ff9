"""``AsyncUsageWriter``: has one task write what ``Intake`` accepts, and sees it to its end.

    accept -> asyncio.Queue -> [task: batch -> encode -> append -> sync] -> ack

Owns the life of that task (``_writing.write_loop`` is what it does) and the ends of it: the close
that everybody shares, the loop torn down around it, its death, the interpreter's exit, a fork.
Never decides what a record says, never touches a file itself.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

from litellm_ledger._errors import DrainTimeout
from litellm_ledger._records.statistics import Statistics
from litellm_ledger._runtime import process as _process
from litellm_ledger._runtime.cancellation import outlive_cancellation, seconds, wait_until
from litellm_ledger._runtime.disk_thread import DiskThread
from litellm_ledger._runtime.misuse import AsyncOnly
from litellm_ledger._storage.filesystem import REAL, FileSystem

from .backlog import Backlog
from .intake import Durability, Intake
from .last_resort import LateSaver
from .opening import checked_mode, prepare, refused
from .queue import Signal
from .state import State, advance
from .write_loop import WriteLoop

__all__ = ["AsyncUsageWriter", "Durability"]

_log = logging.getLogger("litellm_ledger")

_LAST_RESORT: Final = 1.0
"""Seconds at the end of a close (half of it, if it is shorter than two) for the last resort."""
_OVERTIME: Final = 0.25
"""Seconds that the last resort gets even when nothing is left."""


class AsyncUsageWriter(Intake, AsyncOnly):
    """Writes records to a ledger directory from one task, in order, each exactly once.

    An async context manager; also ``await open()`` … ``await aclose()``.  Belongs to the event loop
    that opened it.

    Args:
        ledger: the directory (created if missing).
        durability: what ``ack`` waits for: ``queued``, ``written`` or ``synced``.
        queue_size: records accepted and not yet written at which callers wait.
        sync_interval: seconds after a write by which it is synced in the background.
        drain_timeout: seconds that ``aclose`` may take unless it is told otherwise.
        mode: see ``UsageTracker``.
        fs: the file system to use; tests put a faulty one here.
        recover: finish what dead writers left behind when opening.
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
    ) -> None:
        super().__init__(
            ledger, durability=durability, queue_size=queue_size, drain_timeout=drain_timeout
        )
        self._sync_interval = sync_interval
        self._mode = checked_mode(mode)
        self._fs = fs
        self._recover = recover
        self._begin()
        _process.inherits(self)

    def _begin(self) -> None:
        super()._begin()
        self._pid = os.getpid()
        self._executor = DiskThread()
        self._opening: asyncio.Task[None] | None = None
        self._close_task: asyncio.Task[None] | None = None
        self._writing = WriteLoop(
            self._executor,
            durable=self.durability == "synced",
            sync_interval=self._sync_interval,
            progress=self._progress,
        )

    # -- opening -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Create the directory, recover what dead writers left, start the task.  Idempotent.

        Cancelling stops the waiting, not the opening: the next use finds it open.

        Raises:
            LedgerPathError: the directory cannot be used; the text says why and what to do.
            LedgerClosed: it was closed before; make a new one.
        """
        if self.state is State.OPEN:
            self.check_loop()
            return
        if self.state is not State.UNOPENED:
            raise self._refusal()
        if self._opening is None:
            self._loop = asyncio.get_running_loop()
            self._opening = self._spawn(self._open(), "litellm-ledger-open")
            self._opening.add_done_callback(self._opened)
        self.check_loop()
        await asyncio.shield(self._opening)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        failed = opening.cancelled() or opening.exception() is not None
        if failed and self.state is State.UNOPENED:
            self._opening = None  # another try may find the directory mended

    async def _open(self) -> None:
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(8)}"
        job = self._executor.submit(self._open_files, name)
        try:
            backlog = await asyncio.wrap_future(job)
        except asyncio.CancelledError:  # the loop is torn down: what is opened belongs to nobody
            job.add_done_callback(_give_back)
            raise
        if self.state is not State.UNOPENED:  # the close did not wait for so slow a disk
            await self._on_new_thread(backlog.live.remove)
            raise self._refusal()
        self._backlog = backlog
        self._late = LateSaver(backlog, self._saved_late)
        self._backlog.on_usage = self.on_usage
        self._backlog.sync_late = self.durability == "synced"
        self.state = advance(self.state, State.OPEN)
        _process.enter(self)
        self._task = self._spawn(self._run(self._backlog), "litellm-ledger-writer")
        self._task.add_done_callback(self._task_done)

    def _open_files(self, name: str) -> Backlog:
        self.directory = prepare(self._ledger, self._fs, recover=self._recover, mode=self._mode)
        try:
            return Backlog(self._fs, self.directory, name, durability=self.durability)
        except OSError as exc:
            raise refused(self.directory, exc, given=self._ledger is not None) from exc

    def _spawn(self, coroutine: Any, name: str) -> asyncio.Task[None]:
        assert self._loop is not None
        # A context of its own: the task outlives the call that opened it, and must not keep alive
        # (or inherit) whatever that caller had in its context variables.
        return self._loop.create_task(coroutine, name=name, context=contextvars.Context())

    # -- the task ------------------------------------------------------------------------------

    async def _run(self, backlog: Backlog) -> None:
        try:
            await self._writing.serve(backlog)
        except asyncio.CancelledError:
            # Not ours: whoever runs the loop is tearing it down around us, and no later await is
            # certain to return.  Save what there is now; what still comes is written as it comes.
            if self.state is State.OPEN:
                self._save_on_thread(backlog)
            raise

    def _task_done(self, task: asyncio.Task[None]) -> None:
        """The task has ended: normally (a close), cancelled (loop torn down) or dead (a bug)."""
        self._writing.stop_timer()
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        backlog = self._backlog
        if backlog is not None and backlog.late:  # the last resort took its work out of its hands
            self._progress(backlog.log.written, backlog.log.synced)
            self._fail_waiters(self._refusal())
        else:
            _log.critical("the ledger's writer task died", exc_info=error)
            self.failure = error
            if self.state in (State.OPEN, State.DRAINING):
                self.state = advance(self.state, State.FAILED)
            self._fail_waiters(self._refusal())

    def _save_on_thread(self, backlog: Backlog) -> None:
        """Save what is held, not blocking longer than the drain time even if the disk hangs."""
        self._executor.stop()
        budget = self.drain_timeout
        thread = threading.Thread(
            target=backlog.save_now, args=(budget,), name="litellm-ledger-save", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the interpreter starts no thread any more
            backlog.save_now(budget)
        else:
            thread.join(budget + 1.0)
        if self._late is not None:
            self._late.watch()
        self._progress(backlog.log.written, backlog.log.synced)

    def _hurry(self, backlog: Backlog) -> None:
        self._writing.at_once(backlog)

    def _all_done(self) -> None:
        _process.leave(self)

    # -- closing -------------------------------------------------------------------------------

    async def aclose(self, timeout: float | None = None) -> None:
        """Refuse new work, write and sync everything accepted, seal.  Idempotent.

        Everybody who closes waits for one and the same drain.  Cancelling a closer does not cut it
        short: it ends by its deadline, then the cancellation is re-raised.

        Args:
            timeout: seconds for the whole close; default ``drain_timeout``.  The first closer's
                holds.  A disk that hangs makes it half a second longer at most.

        Raises:
            DrainTimeout: the deadline passed with records unwritten; says how many, and how many of
                them the last resort still saved.
            WrongLoop: its own loop is running elsewhere.
            ValueError: ``timeout`` is no number of seconds.
        """
        budget = self.drain_timeout if timeout is None else seconds("timeout", timeout)
        if self.state is State.UNOPENED and self._opening is None:
            self.state = State.CLOSED
            self._executor.stop()
            return
        if self._loop is not asyncio.get_running_loop():
            if self._loop is not None and self._loop.is_running():
                self.check_loop()
            self.finish_now(budget)
            return
        if self._close_task is None:
            self._close_task = self._spawn(self._close(budget), "litellm-ledger-close")
        await outlive_cancellation(self._close_task)

    async def _close(self, budget: float) -> None:
        deadline = time.monotonic() + budget
        if self._opening is not None:
            await wait_until(self._opening, deadline)
        if self._backlog is None or self.state is State.CLOSED:
            self.state = State.CLOSED
            self._executor.stop()
            return
        backlog = self._backlog
        if self.state is State.OPEN:
            self.state = advance(self.state, State.DRAINING)
            self._room.fail(self._refusal())
        self._take_inbox(backlog)
        backlog.queue.put_nowait(Signal.STOP)
        assert self._task is not None
        await wait_until(self._task, deadline - min(_LAST_RESORT, budget / 2))
        unwritten = 0 if self._task.done() else backlog.accepted - self._safe(backlog)
        backlog.late = True  # from here on every record takes the synchronous path
        self._task.cancel()
        # The task is gone or hangs in the disk; the rest is the same synchronous path that the
        # interpreter's exit takes, on a thread so that the loop goes on meanwhile.
        # It waits for the file for half of what is left; the other half is to write past whoever
        # hangs in it.
        end = max(deadline, time.monotonic() + _OVERTIME)
        left = self._on_new_thread(self.finish_now, (end - time.monotonic()) / 2)
        await wait_until(left, end)
        await asyncio.wait({self._task}, timeout=_OVERTIME)
        if not self._task.done():
            # The handler of a signal raised while asyncio was waking it: nothing reaches it any
            # more, no cancellation either, and whoever ends the loop would wait for it for ever.
            asyncio.Future.set_result(self._task, None)
        self._progress(backlog.log.written, backlog.log.synced)
        self._fail_waiters(self._refusal())
        lost = backlog.accepted - self._safe(backlog)
        if left.done() and not lost and not backlog.stuck:
            unwritten = 0  # the disk was slow, and all is where it should be in time
        unwritten = max(unwritten, lost)
        if unwritten > 0:
            what = "unsynced" if self.durability == "synced" else "unwritten"
            raise DrainTimeout(
                f"the ledger in {self.directory} was not drained within {budget:.3g} s: "
                f"{unwritten} records were {what}; the last resort saved {unwritten - lost}",
                unwritten=unwritten,
                saved=unwritten - lost,
            )

    def _on_new_thread(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        thread = DiskThread("litellm-ledger-close")
        try:
            job = thread.submit(function, *args)
        except RuntimeError:  # no thread to be had: here, then
            job = Future()
            job.set_result(function(*args))
        finished = asyncio.wrap_future(job, loop=self._loop)
        thread.shutdown(wait=False)
        return finished

    def finish_now(self, budget: float) -> int:
        """Close synchronously: at interpreter exit, from a finalizer, when the loop is gone.

        Returns how many records could not be saved.  Never raises, never needs a loop.
        """
        if self._pid != os.getpid() or self._backlog is None:
            return 0
        backlog = self._backlog
        backlog.late = backlog.sync_late = True
        self._executor.stop()
        unsaved = backlog.save_now(budget, seal=True)
        if self.state is State.OPEN:
            self.state = advance(self.state, State.DRAINING)
        if self.state is not State.CLOSED:
            self.state = advance(self.state, State.CLOSED)
        if backlog.sealed:
            _process.leave(self)
        self._silence_task()
        return unsaved

    def saving_here(self) -> bool:
        """Tell whether this very thread is in the middle of the last resort."""
        return self._backlog is not None and self._backlog.saving_here()

    def _silence_task(self) -> None:
        """Spare the user asyncio's "Task was destroyed but it is pending" for a task we gave up."""
        task, loop = self._task, self._loop
        if task is None or task.done() or loop is None:
            return
        if loop.is_running():
            loop.call_soon_threadsafe(task.cancel)
        elif hasattr(task, "_log_destroy_pending"):
            task._log_destroy_pending = False

    def forget_parent(self) -> None:
        """In a forked child: drop everything of the parent's; the next use opens a new writer."""
        if self._backlog is not None:
            self._backlog.live.release()
            self._backlog.log.forget()
            self._backlog.queue.forget(self._backlog.accepted)
            self._backlog.inbox.clear()
        self._silence_task()
        self._begin()

    # -- telling -------------------------------------------------------------------------------

    def disk(self) -> tuple[float, str | None]:
        """Return the seconds spent in the disk so far, and the error that it gives, if it does."""
        return self._writing.disk()

    def statistics(self) -> Statistics:
        """Return the figures of this moment (see ``Statistics`` for units).  Costs microseconds."""
        backlog = self._backlog
        writing = self._writing
        log = backlog.log if backlog is not None else None
        return Statistics(
            state=self.state.value,
            writer=backlog.writer if backlog else None,
            signals="off",
            accepted=backlog.accepted if backlog else 0,
            written=log.written if log else 0,
            synced=log.synced if log else 0,
            queue_depth=backlog.unwritten if backlog else 0,
            queue_size=self.queue_size,
            waiting=len(self._room),
            in_flight=len(backlog.in_flight) + backlog.untracked if backlog else 0,
            unsynced_bytes=log.unsynced_bytes if log else 0,
            oldest_unsynced_s=writing.oldest_unsynced(),
            bytes=writing.bytes,
            segments=log.segments if log else 0,
            retries=writing.retries,
            last_error=writing.last_error,
            unacked=self.unacked,
            on_loop=writing.on_loop,
            on_thread=writing.on_thread,
        )


def _give_back(job: Future[Backlog]) -> None:
    if not job.cancelled() and job.exception() is None:
        job.result().live.remove()
