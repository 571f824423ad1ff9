"""Between the callers and the queue: room, acceptance, acknowledgement.

All that a caller of the writer can wait for or be refused by.  ``Intake`` numbers and queues what
comes in on the loop's thread, takes what other threads and finalizers hand over, and wakes whoever
waits for room or for an acknowledgement as the log comes along.

Owns those who wait.  Never writes, opens or closes anything: that is ``_writing.writer``, built on
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, get_args

from litellm_ledger._errors import FlushTimeout, LedgerClosed, LedgerError, LedgerFailed, WrongLoop
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._runtime.cancellation import seconds
from litellm_ledger._runtime.waiters import Acks, Room
from litellm_ledger._storage.live_file import Durability

from .backlog import Backlog
from .last_resort import LATE_BUDGET, LATE_ON_LOOP, LateSaver
from .queue import Entry, Signal
from .state import State, refusal

__all__ = ["Durability", "Intake"]

_log = logging.getLogger("litellm_ledger")
TURN: Final = 256
"""At ``queued`` nobody waits: after so many records, about a millisecond, others have the loop."""
_OPEN: Final = State.OPEN  # a member looked up through its class costs the hot path 50 ns


class Intake:
    """What ``AsyncUsageWriter`` offers to those who record; see there for the arguments."""

    def __init__(
        self,
        ledger: str | os.PathLike[str] | None,
        *,
        durability: Durability,
        queue_size: int,
        drain_timeout: float,
    ) -> None:
        if durability not in get_args(Durability):
            raise ValueError(f"durability must be queued, written or synced, not {durability!r}")
        if queue_size < 1:
            raise ValueError(f"queue_size must be at least 1, not {queue_size}")
        self._ledger = ledger
        self.durability: Durability = durability
        self.queue_size = queue_size
        self.drain_timeout = seconds("drain_timeout", drain_timeout)
        self.on_usage: Callable[[UsageRecord, int | None], None] | None = None
        self.what = "writer"  # what the user made and reads of in errors: also tracker, client

    def _begin(self) -> None:
        """Everything that belongs to one opening, in one process."""
        self.state = State.UNOPENED
        self.directory: Path | None = None
        self.failure: BaseException | None = None
        self.unacked = 0
        self._backlog: Backlog | None = None
        self._late: LateSaver | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._written = Acks()
        self._synced = Acks()
        self._room = Room(self._places)
        self._woken = False

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
                f"this {self.what} belongs to another event loop; create one per loop, or from "
                "other threads use record_threadsafe()"
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
        return self._take_alone(record, self.backlog.accept)

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
        if backlog.accepting:  # in a finalizer, which struck while another record is being accepted
            self.submit(Entry(record, backlog.accept))
        elif backlog.late:
            self._take(record, backlog.accept)
        else:
            backlog.put(record, record.ts or datetime.now(UTC))
        return True

    def start(self, record: UsageRecord) -> UsageRecord:
        """Accept a ``started`` record; its call is in flight until ``settle``."""
        return self._take_alone(record, self.backlog.start)

    def settle(self, record: UsageRecord, settles: int) -> UsageRecord:
        """Accept the outcome of the call whose ``started`` record has the number ``settles``.

        0 stands for a call that had none.  Never waits, never fails: also while and after closing.
        """
        return self._take_alone(record, partial(self.backlog.settle, settles=settles))

    def _take_alone(self, record: UsageRecord, act: Callable[..., UsageRecord]) -> UsageRecord:
        """Accept; and if nothing else is under way, have the record written at once."""
        backlog = self.backlog
        if self.durability != "written" or backlog.late or not backlog.idle:
            return self._take(record, act)
        try:
            return act(record, wake=False)
        finally:  # also if the handler of a signal raises just now
            self._hurry(backlog)

    def _hurry(self, backlog: Backlog) -> None:
        """Called when one record waits and nobody was woken: it may be written here and now."""
        raise NotImplementedError

    def _take(self, record: UsageRecord, act: Callable[[UsageRecord], UsageRecord]) -> UsageRecord:
        backlog = self.backlog
        if not backlog.late:
            return act(record)
        entry = Entry(record, act)
        backlog.take_late(entry)
        self._save_late(backlog)
        return entry.record

    def submit(self, entry: Entry) -> None:
        """Accept from any thread, or from a finalizer, which may run anywhere.

        Never blocks while the loop is alive; without one the record is written before it returns
        (on a loop's thread that waits for ``LATE_ON_LOOP`` at most).
        """
        backlog = self.backlog
        backlog.inbox.append(entry)
        loop = self._loop
        assert loop is not None
        # One wake-up for all that arrive until it runs; a loop that is closed meanwhile never does.
        if not backlog.late and (not self._woken or loop.is_closed()):
            self._woken = True
            try:
                loop.call_soon_threadsafe(self._wake)
            except RuntimeError:  # the loop is closed
                backlog.late = True
        if backlog.late:
            self._save_late(backlog)

    def _save_late(self, backlog: Backlog) -> None:
        """Save what came without the task; a loop waits for that a moment, not for a disk."""
        assert self._late is not None
        if backlog.saving_here():
            return  # further up the stack it goes on
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            backlog.save_now(LATE_BUDGET)
            self._saved_late()
            self._late.watch()
        else:
            self._late.save(LATE_ON_LOOP)

    def _saved_late(self) -> None:
        """On any thread: something was saved without the task; it may have been the last."""
        if self.backlog.sealed:
            self._all_done()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._tell_late)

    def _tell_late(self) -> None:
        self._progress(self.backlog.log.written, self.backlog.log.synced)

    def _wake(self) -> None:
        self._woken = False
        backlog = self.backlog
        if backlog.late:
            self._save_late(backlog)
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
        """Sync soon: a signal says that the process is about to end.  Safe in a signal handler."""
        if self._backlog is not None and not self._backlog.late and self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._backlog.queue.put_nowait, Signal.SYNC)

    def _all_done(self) -> None:
        """Called when the ledger is sealed."""
        raise NotImplementedError

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
        if self.durability == "queued":
            if not number % TURN:
                await asyncio.sleep(0)
            return True
        if number <= acks.passed:
            return True
        if backlog.late:  # it was saved before it was returned, or will not be soon
            if number <= self._safe(backlog):
                return True
            raise LedgerFailed(f"record {record.id} was not saved yet; it is tried every second")
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
            ValueError: ``timeout`` is no number of seconds.
        """
        if timeout is not None:
            timeout = seconds("timeout", timeout)
        if self._backlog is None:
            return
        backlog = self._backlog
        if backlog.late and self._loop is not asyncio.get_running_loop():
            if backlog.save_now(timeout or self.drain_timeout):
                raise FlushTimeout("flush ran out of time", unwritten=backlog.unwritten)
            return
        self.check_loop()
        if self.state is State.FAILED:
            raise self._refusal()
        assert self._loop is not None
        if sync is None:
            sync = self.durability == "synced"
        if backlog.late:
            self._save_late(backlog)
            self._tell_late()
        else:
            self._take_inbox(backlog)
            if sync and self._synced.passed < backlog.accepted:
                backlog.queue.put_nowait(Signal.SYNC)
            elif not backlog.queue.empty():
                backlog.queue.put_nowait(Signal.WAKE)
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

    def _progress(self, written: int, synced: int) -> None:
        """Tell everybody how far the log has come, in order."""
        self._written.passes(written)
        self._synced.passes(synced)
        self._room.admit()

    def _fail_waiters(self, error: LedgerError) -> None:
        for waiting in (self._written, self._synced, self._room):
            waiting.fail(error)

    def _refusal(self) -> LedgerClosed | LedgerFailed:
        text = refusal(self.state, f"the {self.what} for {self.directory or self._ledger}")
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
