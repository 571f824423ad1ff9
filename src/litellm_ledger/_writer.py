"""``AsyncUsageWriter``: accepts records, has one task write them, acknowledges, closes.

    accept -> asyncio.Queue -> [task: batch -> encode -> append -> sync] -> ack

Owns the life of that task (``_writing`` is what it does) and the ends of it: the close that
everybody shares, the loop torn down around it, its death, the interpreter's exit, a fork.  Never
decides what a record says, never touches a file itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, get_args

import aiofiles.os

from . import _process
from ._backlog import LATE_BUDGET, Backlog, Entry, Signal
from ._closing import outlive_cancellation, wait_until
from ._directory import prepare, refused
from ._errors import DrainTimeout, FlushTimeout, LedgerClosed, LedgerError, LedgerFailed, WrongLoop
from ._executor import DiskThread
from ._fs import REAL, FileSystem
from ._record import UsageRecord
from ._state import State, advance, refusal
from ._statistics import Statistics
from ._waiters import Acks, Room
from ._writing import WriteLoop

__all__ = ["AsyncUsageWriter", "Durability"]

Durability = Literal["queued", "written", "synced"]

_log = logging.getLogger("litellm_ledger")
_OPEN: Final = State.OPEN  # a member looked up through its class costs the hot path 50 ns


class AsyncUsageWriter:
    """Writes records to a ledger directory from one task, in order, each exactly once.

    An async context manager; also ``await open()`` … ``await aclose()``.  Belongs to the event loop
    that opened it.

    Args:
        ledger: the directory (created if missing).
        durability: what ``ack`` waits for: ``queued``, ``written`` or ``synced``.
        queue_size: records accepted and not yet written at which callers wait.
        sync_interval: seconds after a write by which it is synced in the background.
        drain_timeout: seconds that ``aclose`` may take unless it is told otherwise.
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
        fs: FileSystem = REAL,
        recover: bool = True,
    ) -> None:
        if durability not in get_args(Durability):
            raise ValueError(f"durability must be queued, written or synced, not {durability!r}")
        if queue_size < 1:
            raise ValueError(f"queue_size must be at least 1, not {queue_size}")
        self._ledger = ledger
        self.durability: Durability = durability
        self.queue_size = queue_size
        self.drain_timeout = drain_timeout
        self._sync_interval = sync_interval
        self._fs = fs
        self._recover = recover
        self.on_usage: Callable[[UsageRecord, int | None], None] | None = None
        self._begin()
        _process.inherits(self)

    def _begin(self) -> None:
        """Everything that belongs to one opening, in one process."""
        self.state = State.UNOPENED
        self.directory: Path | None = None
        self.failure: BaseException | None = None
        self.unacked = 0
        self._pid = os.getpid()
        self._backlog: Backlog | None = None
        self._executor = DiskThread()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._close_task: asyncio.Task[None] | None = None
        self._written = Acks()
        self._synced = Acks()
        self._room = Room(self._places)
        self._woken = False
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
        backlog = await aiofiles.os.wrap(self._open_files)(name, executor=self._executor)
        if self.state is not State.UNOPENED:  # the close did not wait for so slow a disk
            await self._on_new_thread(backlog.live.remove)
            raise self._refusal()
        self._backlog = backlog
        self._backlog.on_usage = self.on_usage
        self._backlog.sync_late = self.durability == "synced"
        self.state = advance(self.state, State.OPEN)
        _process.enter(self)
        self._task = self._spawn(self._run(self._backlog), "litellm-ledger-writer")
        self._task.add_done_callback(self._task_done)

    def _open_files(self, name: str) -> Backlog:
        self.directory = prepare(self._ledger, self._fs, recover=self._recover)
        try:
            return Backlog(self._fs, self.directory, name)
        except OSError as exc:
            raise refused(self.directory, exc, given=self._ledger is not None) from exc

    def _spawn(self, coroutine: Any, name: str) -> asyncio.Task[None]:
        assert self._loop is not None
        # A context of its own: the task outlives the call that opened it, and must not keep alive
        # (or inherit) whatever that caller had in its context variables.
        return self._loop.create_task(coroutine, name=name, context=contextvars.Context())

    # -- accepting -----------------------------------------------------------------------------

    @property
    def backlog(self) -> Backlog:
        """The accepted and unwritten.  Raises ``LedgerClosed`` before opening."""
        if self._backlog is None:
            raise self._refusal()
        return self._backlog

    def check_loop(self) -> None:
        """Raise ``WrongLoop`` unless running on the event loop that opened the writer."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self._loop and self._loop is not None:
            raise WrongLoop(
                "this client belongs to another event loop; create one per loop, or from other "
                "threads use client.usage.record_threadsafe()"
            )

    def check_open(self) -> None:
        """Raise unless new work is taken: ``LedgerClosed`` or ``LedgerFailed``."""
        if self.state is not State.OPEN:
            raise self._refusal()

    def room_now(self) -> bool:
        """Whether one more record may be accepted without waiting or overtaking."""
        return self._room.at_once()

    async def room(self) -> None:
        """Wait, first come first served, until a record may be accepted.

        Cancellation leaves no trace.  Raises like ``check_open`` when the writer ends meanwhile.
        """
        assert self._loop is not None
        await self._room.enter(self._loop)
        self.check_open()

    def _places(self) -> int:
        backlog = self._backlog
        if backlog is None:
            return 0
        return self.queue_size - backlog.accepted + backlog.log.written - len(backlog.inbox)

    def accept(self, record: UsageRecord) -> UsageRecord:
        """Number and queue a record, whatever room there is; return it as it will be written.

        Never waits.  On the loop's thread; other threads use ``submit``.
        """
        return self._take(record, self.backlog.accept)

    def accept_nowait(self, record: UsageRecord) -> bool:
        """Queue a record if there is room and nobody waits for it; tell whether it was taken.

        Raises like ``check_open`` and ``check_loop``.
        """
        backlog = self._backlog
        if backlog is None or self.state is not _OPEN:
            raise self._refusal()
        try:
            at_home = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            at_home = False
        if not at_home:
            self.check_loop()
        if not self._room.at_once():
            return False
        if backlog.late:
            self._take(record, backlog.accept)
        else:
            backlog.accept_unseen(record)
        return True

    def start(self, record: UsageRecord) -> UsageRecord:
        """Accept a ``started`` record; its call is in flight until ``settle``."""
        return self._take(record, self.backlog.start)

    def settle(self, record: UsageRecord, settles: int) -> UsageRecord:
        """Accept the outcome of the call whose ``started`` record has the number ``settles``.

        0 stands for a call that had none.  Never waits, never fails: also while and after closing.
        """
        return self._take(record, partial(self.backlog.settle, settles=settles))

    def _take(self, record: UsageRecord, act: Callable[[UsageRecord], UsageRecord]) -> UsageRecord:
        backlog = self.backlog
        if not backlog.late:
            return act(record)
        entry = Entry(record, act)
        backlog.save_late(entry)
        self._after_late(backlog)
        return entry.record

    def submit(self, entry: Entry) -> None:
        """Accept from any thread, or from a finalizer, which strikes anywhere.

        Never blocks while the loop is alive; without one the record is written before it returns.
        """
        backlog = self.backlog
        backlog.inbox.append(entry)
        if not backlog.late and not self._woken:  # one wake-up for all that arrive until it runs
            self._woken = True
            try:
                assert self._loop is not None
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:  # the loop is closed
                backlog.late = True
        if backlog.late:
            backlog.save_now(LATE_BUDGET)
            self._after_late(backlog)

    def _wake(self) -> None:
        self._woken = False
        backlog = self.backlog
        if backlog.late:
            backlog.save_now(LATE_BUDGET)
            self._after_late(backlog)
        else:
            self._take_inbox(backlog)

    def _take_inbox(self, backlog: Backlog) -> None:
        """On the loop: accept the inbox; who waits for an entry hears of its acknowledgement."""
        for entry in backlog.take_inbox():
            assert self._loop is not None
            assert entry.future is not None
            if self.durability == "queued":
                entry.future.set_result(entry.record)
                continue
            if self.state is State.FAILED:
                entry.future.set_exception(self._refusal())
                continue
            ack = self._acks.wait_for(entry.record.seq or 0, self._loop)
            ack.add_done_callback(partial(_pass_on, entry))

    def hint(self) -> None:
        """Sync soon: somebody has heard that the process is to end.  Safe in a signal handler."""
        if self._backlog is not None and not self._backlog.late and self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._backlog.queue.put_nowait, Signal.SYNC)

    def _after_late(self, backlog: Backlog) -> None:
        if backlog.sealed:
            _process.leave(self)

    async def ack(self, record: UsageRecord, timeout: float | None = None) -> bool:
        """Wait until ``record`` is as safe as ``durability`` says; tell whether it is.

        Args:
            timeout: seconds after which the answer is ``False``; ``None`` waits as long as it
                takes.

        Cancellation stops the waiting, not the writing.

        Raises:
            LedgerFailed: the writer died first, or what is left of it could not save the record.
        """
        backlog = self.backlog
        acks, number = self._acks, record.seq or 0
        if self.durability == "queued" or number <= acks.passed:
            return True
        if backlog.late:  # it was saved before it was returned, or will not be soon
            if number <= self._safe(backlog):
                return True
            raise LedgerFailed(f"record {record.id} was not saved; it is tried again at the close")
        if self._task is None or self._task.done():
            raise self._refusal()
        assert self._loop is not None
        await acks.wait_for(number, self._loop, timeout)
        return max(acks.passed, self._safe(backlog)) >= number

    def _safe(self, backlog: Backlog) -> int:
        """The last number that is as safe as ``durability`` says."""
        return backlog.log.synced if self.durability == "synced" else backlog.log.written

    @property
    def _acks(self) -> Acks:
        return self._synced if self.durability == "synced" else self._written

    async def flush(self, timeout: float | None = None, *, sync: bool | None = None) -> None:
        """Wait until all that was accepted so far is written, and synced if asked.

        Args:
            timeout: seconds; ``None`` waits as long as it takes.
            sync: also wait for the disk; by default only at ``durability="synced"``.

        Raises:
            FlushTimeout: not in time; nothing is lost, the records stay queued.
            LedgerFailed: the writer died.
        """
        if self._backlog is None:
            return
        backlog = self._backlog
        if backlog.late:
            if backlog.save_now(timeout or self.drain_timeout):
                raise FlushTimeout("flush ran out of time", unwritten=backlog.unwritten)
            return
        self.check_loop()
        if self.state is State.FAILED:
            raise self._refusal()
        assert self._loop is not None
        self._take_inbox(backlog)
        if sync is None:
            sync = self.durability == "synced"
        if sync and self._synced.passed < backlog.accepted:
            backlog.queue.put_nowait(Signal.SYNC)
        acks = self._synced if sync else self._written
        target = backlog.accepted
        future = acks.wait_for(target, self._loop)
        await asyncio.wait({future}, timeout=timeout)
        if not future.done():
            future.cancel()
            left = max(0, target - backlog.log.written)
            raise FlushTimeout(
                f"flush ran out of time ({timeout} s) with {left} records unwritten; "
                "they stay queued and will be written",
                unwritten=left,
            )
        future.result()

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

    def _progress(self, written: int, synced: int) -> None:
        """Tell everybody how far the log has come, in order."""
        self._written.passes(written)
        self._synced.passes(synced)
        self._room.admit()

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

    def _fail_waiters(self, error: LedgerError) -> None:
        for waiting in (self._written, self._synced, self._room):
            waiting.fail(error)

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
        self._progress(backlog.log.written, backlog.log.synced)

    # -- closing -------------------------------------------------------------------------------

    async def aclose(self, timeout: float | None = None) -> None:
        """Refuse new work, write and sync everything accepted, seal.  Idempotent.

        Everybody who closes waits for one and the same drain.  Cancelling a closer does not cut it
        short: it ends by its deadline, then the cancellation is re-raised.

        Args:
            timeout: seconds for the whole close; default ``drain_timeout``.  The first closer's
                holds.

        Raises:
            DrainTimeout: the deadline passed with records unwritten; says how many, and how many of
                them the last resort still saved.
            WrongLoop: its own loop is running elsewhere.
        """
        if self.state is State.UNOPENED and self._opening is None:
            self.state = State.CLOSED
            self._executor.stop()
            return
        if self._loop is not asyncio.get_running_loop():
            if self._loop is not None and self._loop.is_running():
                self.check_loop()
            self.finish_now(self.drain_timeout if timeout is None else timeout)
            return
        if self._close_task is None:
            budget = self.drain_timeout if timeout is None else timeout
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
        await wait_until(self._task, deadline)
        unwritten = 0 if self._task.done() else backlog.accepted - self._safe(backlog)
        backlog.late = True  # from here on every record takes the synchronous path
        self._task.cancel()
        # The task is gone or hangs in the disk; the rest is the same synchronous path that the
        # interpreter's exit takes, on a thread so that the loop goes on meanwhile.
        left = self._on_new_thread(self.finish_now, max(1.0, deadline - time.monotonic()))
        await wait_until(left, deadline + 2.0)
        await asyncio.wait({self._task}, timeout=1.0)
        self._progress(backlog.log.written, backlog.log.synced)
        self._fail_waiters(self._refusal())
        lost = backlog.accepted - self._safe(backlog)
        unwritten = max(unwritten, lost)
        if unwritten > 0:
            what = "unsynced" if self.durability == "synced" else "unwritten"
            raise DrainTimeout(
                f"the ledger in {self.directory} was not drained within {budget} s: {unwritten} "
                f"records were {what}, the last resort saved {unwritten - lost}",
                unwritten=unwritten,
                saved=unwritten - lost,
            )

    def _on_new_thread(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        thread = DiskThread("litellm-ledger-close")
        finished = asyncio.wrap_future(thread.submit(function, *args), loop=self._loop)
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

    def _refusal(self) -> LedgerClosed | LedgerFailed:
        text = refusal(self.state, f"the ledger client for {self.directory or self._ledger}")
        if self.state is State.FAILED:
            error = LedgerFailed(text)
            error.__cause__ = self.failure
            return error
        return LedgerClosed(text)


def _pass_on(entry: Entry, ack: asyncio.Future[None]) -> None:
    future = entry.future
    if future is None or future.done():
        return
    error = None if ack.cancelled() else ack.exception()
    if error is None:
        future.set_result(entry.record)
    else:
        future.set_exception(error)
