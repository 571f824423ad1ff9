"""``Writer``: has one task write what ``Admission`` accepts, and sees it to its end.

``AsyncUsageWriter`` documents the methods of the same names.

    accept -> asyncio.Queue -> [task: batch -> encode -> append -> sync] -> ack

Owns the life of that task (``_writing.write_loop`` is what it does) and the ends of it: the close
that everybody shares, the loop torn down around it, its death, the interpreter's exit, a fork.
Never decides what a record says, never touches a file itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._errors import DrainTimeout
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._records.statistics import Statistics
from litellm_ledger._runtime import process as _process
from litellm_ledger._runtime.cancellation import outlive_cancellation, seconds, wait_until
from litellm_ledger._runtime.disk_thread import DiskThread
from litellm_ledger._storage.live_file import WAITS_FOR

from .admission import Admission
from .backlog import Backlog
from .last_resort import LastResort
from .opening import Settings, open_backlog
from .queue import Signal
from .state import State, advance
from .write_loop import WriteLoop

if TYPE_CHECKING:
    from litellm_ledger._shipping.sink import Membership

__all__ = ["Writer"]

_log = logging.getLogger("litellm_ledger")

_LAST_RESORT: Final = 1.0
"""Seconds at the end of a close (half of it, if it is shorter than two) for the last resort."""
_OVERTIME: Final = 0.25
"""Seconds that the last resort gets even when nothing is left."""


class Writer:
    """Writes records to a ledger directory from one task, in order, each exactly once.

    ``what`` is what the user made and reads of in errors: ``writer``, ``tracker`` or ``client``.
    ``on_usage`` is called with every outcome and its cost in picodollars, when it is accepted, as
    is what ``listen`` is given.  After a fork the child has an ``admission`` of its own.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        what: str = "writer",
        on_usage: Callable[[UsageRecord, int | None], None] | None = None,
    ) -> None:
        self.drain_timeout = settings.drain_timeout
        self._on_usage = [] if on_usage is None else [on_usage]
        self._on_started: list[Callable[[UsageRecord], None]] = []
        self._settings = settings
        self._ships = WAITS_FOR[settings.durability] == "ship"
        self._durable = WAITS_FOR[settings.durability] in ("sync", "ship")
        self._begin(what)
        _process.inherits(self.forget_parent)

    def _begin(self, what: str) -> None:
        """Make all that belongs to one process: a forked child makes it anew."""
        self._pid = os.getpid()
        self._executor = DiskThread()
        self._opening: asyncio.Task[None] | None = None
        self._close_task: asyncio.Task[None] | None = None
        self.admission = Admission(self._settings, what)
        self._writing = WriteLoop(
            self._executor,
            durable=self._durable,
            sync_interval=self._settings.sync_interval,
            progress=self.admission.progress,
        )
        self.sink: Membership | None = None
        self.admission.write_at_once = self._writing.at_once
        self.disk = self._writing.disk

    # -- listening -----------------------------------------------------------------------------

    def listen(
        self,
        usage: Callable[[UsageRecord, int | None], None],
        started: Callable[[UsageRecord], None] | None = None,
    ) -> Callable[[], None]:
        """Call ``usage`` as ``on_usage`` and ``started`` with ``started`` records; return the end.

        Both are called while a record is accepted: they must not raise, wait or take a lock.
        """
        self._on_usage.append(usage)
        if started is not None:
            self._on_started.append(started)
        self._tell(self.admission.opened)

        def stop() -> None:
            if usage in self._on_usage:
                self._on_usage.remove(usage)
                if started in self._on_started:
                    self._on_started.remove(started)
                self._tell(self.admission.opened)

        return stop

    def forget_listeners(self, usage: Callable[[UsageRecord, int | None], None]) -> None:
        """In a forked child: nobody of the parent's listens; ``usage`` does."""
        self._on_usage, self._on_started = [usage], []
        self._tell(self.admission.opened)

    def _tell(self, backlog: Backlog | None) -> None:
        if backlog is not None:
            backlog.on_usage = _each(self._on_usage)
            backlog.on_started = _each(self._on_started)

    # -- opening -------------------------------------------------------------------------------

    async def open(self) -> None:
        admission = self.admission
        if admission.state is State.OPEN:
            admission.check_loop()
            return
        if admission.state is not State.UNOPENED:
            raise admission.refusal()
        if self._opening is None:
            admission.loop = asyncio.get_running_loop()
            self._opening = self._spawn(self._open(), "litellm-ledger-open")
            self._opening.add_done_callback(self._opened)
        admission.check_loop()
        await asyncio.shield(self._opening)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        failed = opening.cancelled() or opening.exception() is not None
        if failed and self.admission.state is State.UNOPENED:
            # Another try may find the directory mended; and a task that failed keeps all alive that
            # waited for it.
            self._opening = None

    async def _open(self) -> None:
        admission = self.admission
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(8)}"
        job = self._executor.submit(open_backlog, self._settings, name)
        try:
            backlog = await asyncio.wrap_future(job)
        except asyncio.CancelledError:  # the loop is torn down: what is opened belongs to nobody
            job.add_done_callback(_give_back)
            raise
        admission.directory = backlog.directory
        if admission.state is not State.UNOPENED:  # the close did not wait for so slow a disk
            await self._off_loop(backlog.live.remove)
            raise admission.refusal()
        self._tell(backlog)
        admission.last_resort = LastResort(
            backlog, admission.saved_late, partial(_process.leave, self)
        )
        admission.last_resort.sync = self._durable
        admission.last_resort.ships = self._ships
        admission.opened = backlog
        admission.state = advance(admission.state, State.OPEN)
        _process.enter(self)
        if self._settings.sink is not None:
            self._join(self._settings.sink, backlog)
        if self._settings.retention is not None:
            from .upkeep import Upkeep

            backlog.upkeep = Upkeep(backlog.fs, backlog.directory, self._settings.retention)
            backlog.upkeep.begin()
        admission.task = self._spawn(self._run(backlog), "litellm-ledger-writer")
        admission.task.add_done_callback(self._task_done)

    def _join(self, url: str, backlog: Backlog) -> None:
        """Have what is written here shipped, by a thread of its own."""
        from litellm_ledger._shipping.sink import join

        admission = self.admission

        def hear(number: int) -> None:
            if self._ships and admission.loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    admission.loop.call_soon_threadsafe(admission.shipped, number)

        recovers = self._settings.recover
        self.sink = join(url, backlog.directory, backlog.writer, hear, recovers=recovers)
        if self._ships:
            sink = self.sink
            admission.on_synced = lambda _: sink.wake()

    def _spawn(self, coroutine: Any, name: str) -> asyncio.Task[None]:
        assert self.admission.loop is not None
        # A context of its own: the task outlives the call that opened it, and must not keep alive
        # (or inherit) whatever that caller had in its context variables.
        return self.admission.loop.create_task(coroutine, name=name, context=contextvars.Context())

    # -- the task ------------------------------------------------------------------------------

    async def _run(self, backlog: Backlog) -> None:
        try:
            await self._writing.serve(backlog)
        except asyncio.CancelledError:
            # Not ours: the code that runs the loop is tearing it down around us, and no later
            # await is certain to return.  Save what there is now; what still comes is written as
            # it comes.
            if self.admission.state is State.OPEN:
                self._save_on_thread()
            raise

    def _task_done(self, task: asyncio.Task[None]) -> None:
        """The task has ended: normally (a close), cancelled (loop torn down) or dead (a bug)."""
        admission = self.admission
        self._writing.stop_timer()
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        backlog = admission.opened
        if backlog is not None and backlog.late:  # the last resort took its work out of its hands
            admission.progress()
        else:
            _log.critical("the ledger's writer task died", exc_info=error)
            admission.failure = error
            if admission.state in (State.OPEN, State.DRAINING):
                admission.state = advance(admission.state, State.FAILED)
        admission.refuse_all()

    def _save_on_thread(self) -> None:
        """Save what is held, not blocking longer than the drain time even if the disk hangs."""
        admission, last_resort = self.admission, self.admission.last_resort
        self._executor.stop()
        budget = self.drain_timeout
        job = _on_new_thread("litellm-ledger-save", last_resort.save_now, budget)
        wait({job}, seconds("drain_timeout", budget + 1.0))
        last_resort.watch()
        admission.progress()

    # -- closing -------------------------------------------------------------------------------

    async def aclose(self, timeout: float | None = None) -> None:
        admission = self.admission
        budget = self.drain_timeout if timeout is None else seconds("timeout", timeout)
        if admission.loop is not asyncio.get_running_loop():
            if admission.loop is not None and admission.loop.is_running():
                admission.check_loop()
            self.finish_now(budget)
            return
        if self._close_task is None:
            self._close_task = self._spawn(self._close(budget), "litellm-ledger-close")
        await outlive_cancellation(self._close_task)

    async def _close(self, budget: float) -> None:
        admission = self.admission
        deadline = time.monotonic() + budget
        if self._opening is not None:
            await wait_until(self._opening, deadline)
        if admission.opened is None:
            self.finish_now(budget)
        if admission.state is State.CLOSED:
            return
        backlog = admission.backlog
        if admission.backlog.upkeep is not None:
            admission.backlog.upkeep.stop()
        if admission.state is State.OPEN:
            admission.state = advance(admission.state, State.DRAINING)
            admission.refuse_new()
        admission.take_inbox(backlog)
        backlog.queue.put_nowait(Signal.STOP)
        assert admission.task is not None
        await wait_until(admission.task, deadline - min(_LAST_RESORT, budget / 2))
        unwritten = 0 if admission.task.done() else backlog.accepted - admission.saved(backlog)
        backlog.late = True  # from here on every record takes the synchronous path
        admission.task.cancel()
        # The task is gone or hangs in the disk; the rest is the same synchronous path that the
        # interpreter's exit takes, on a thread so that the loop goes on meanwhile.
        # It waits for the file for half of what is left; the other half is to write past
        # the thread that hangs in it.
        end = max(deadline, time.monotonic() + _OVERTIME)
        left = self._off_loop(self._finish, (end - time.monotonic()) / 2)
        await wait_until(left, end)
        await wait_until(admission.task, time.monotonic() + _OVERTIME)
        if not admission.task.done():
            # The handler of a signal raised while asyncio was waking it: nothing reaches it any
            # more, no cancellation either, and the end of the loop would wait for it for ever.
            asyncio.Future.set_result(admission.task, None)
        admission.progress()
        if self.sink is not None:
            left_for_it = max(0.0, deadline - time.monotonic())
            await wait_until(self._off_loop(self.sink.finish, left_for_it), deadline + _OVERTIME)
            self.sink.leave()
        admission.refuse_all()
        lost = backlog.accepted - admission.saved(backlog)
        if left.done() and not lost and not admission.last_resort.apart:
            unwritten = 0  # the disk was slow, and all is where it should be in time
        unwritten = max(unwritten, lost)
        if unwritten > 0:
            what = "unsynced" if self._durable else "unwritten"
            raise DrainTimeout(
                f"the ledger in {admission.directory} was not drained within {budget:.3g} s: "
                f"{unwritten} {'record was' if unwritten == 1 else 'records were'} {what}; "
                f"the last resort saved {unwritten - lost}",
                unwritten=unwritten,
                saved=unwritten - lost,
            )

    def _off_loop(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        return asyncio.wrap_future(_on_new_thread("litellm-ledger-close", function, *args))

    def finish_now(self, budget: float) -> int:
        """Close synchronously: at interpreter exit, from a finalizer, when the loop is gone.

        Returns how many records could not be saved.  Never raises, never needs a loop.
        """
        unsaved = self._finish(budget)
        if self.sink is not None and self._pid == os.getpid():
            self.sink.leave_at_exit()
        return unsaved

    def _finish(self, budget: float) -> int:
        admission = self.admission
        if self._pid != os.getpid():
            return 0
        if admission.opened is None:
            admission.state = State.CLOSED
            self._executor.stop()
            return 0
        last_resort = admission.last_resort
        admission.opened.late = last_resort.sync = True
        self._executor.stop()
        unsaved = last_resort.save_now(budget, seal=True)
        if admission.state is not State.CLOSED:
            admission.state = advance(admission.state, State.CLOSED)
        self._silence_task()
        return unsaved

    def saving_here(self) -> bool:
        """Tell whether this very thread is in the middle of the last resort, or of a write."""
        admission = self.admission
        return admission.opened is not None and (
            admission.last_resort.saving_here() or admission.opened.log.busy_here()
        )

    def _silence_task(self) -> None:
        """Spare the user asyncio's "Task was destroyed but it is pending" for a task we gave up."""
        task, loop = self.admission.task, self.admission.loop
        if task is None or task.done() or loop is None:
            return
        if loop.is_running():
            loop.call_soon_threadsafe(task.cancel)
        elif hasattr(task, "_log_destroy_pending"):
            task._log_destroy_pending = False  # noqa: SLF001 - asyncio has no public switch for this message

    def forget_parent(self) -> None:
        """In a forked child: drop everything of the parent's; the next use opens a new writer."""
        admission = self.admission
        if admission.opened is not None:
            admission.opened.live.release()
            admission.opened.log.forget()
            admission.opened.queue.forget(admission.opened.accepted)
            admission.opened.inbox.clear()
        self._silence_task()
        self._begin(admission.what)

    # -- telling -------------------------------------------------------------------------------

    def statistics(self) -> Statistics:
        admission, backlog, writing = self.admission, self.admission.opened, self._writing
        log = backlog.log if backlog is not None else None
        return Statistics(
            state=admission.state.value,
            writer=backlog.writer if backlog else None,
            signals="off",
            accepted=backlog.accepted if backlog else 0,
            written=log.written if log else 0,
            synced=log.synced if log else 0,
            queue_depth=backlog.unwritten if backlog else 0,
            queue_size=admission.queue_size,
            waiting=admission.waiting,
            in_flight=len(backlog.in_flight) + backlog.untracked if backlog else 0,
            unsynced_bytes=log.unsynced_bytes if log else 0,
            oldest_unsynced_s=writing.oldest_unsynced(),
            bytes=writing.bytes,
            segments=log.segments if log else 0,
            retries=writing.retries,
            last_error=writing.last_error,
            failing=writing.disk()[1],
            unacked=admission.unacked,
            on_loop=writing.on_loop,
            on_thread=writing.on_thread,
            sink=self.sink.figures() if self.sink is not None else None,
            retention_error=backlog.upkeep.error if backlog and backlog.upkeep else None,
        )


def _on_new_thread(name: str, function: Callable[..., Any], *args: Any) -> Future[Any]:
    thread = DiskThread(name)
    try:
        return thread.submit(function, *args)
    except RuntimeError:  # no thread to be had: here, then
        job: Future[Any] = Future()
        job.set_result(function(*args))
        return job
    finally:
        thread.shutdown(wait=False)


def _give_back(job: Future[Backlog]) -> None:
    if not job.cancelled() and job.exception() is None:
        job.result().live.remove()


def _each(listeners: Sequence[Callable[..., None]]) -> Callable[..., None] | None:
    """Return one function that calls all of them; the only one as it is."""
    if len(listeners) < 2:
        return listeners[0] if listeners else None
    several = tuple(listeners)

    def each(*args: Any) -> None:
        for listener in several:
            listener(*args)

    return each
