"""Between the callers and the queue: room, acceptance, acknowledgement.

Everything that a caller of the writer can wait for or be refused by.  ``Admission`` numbers and
queues records on the loop's thread, takes records from other threads and finalizers, and wakes the
callers that wait for room or for an acknowledgement as the log progresses.

Owns those waiters and the state that decides what is admitted.  Never opens or closes anything:
``_writing.writer`` does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from litellm_ledger._errors import FlushTimeout, LedgerClosed, LedgerFailed, WrongLoop
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._runtime.cancellation import seconds
from litellm_ledger._runtime.waiters import Acks, Room
from litellm_ledger._storage.live_file import WAITS_FOR

from .backlog import Backlog
from .last_resort import LastResort
from .opening import Settings
from .queue import Entry, Signal
from .state import State, refusal

__all__ = ["Admission"]

TURN: Final = 256
"""At ``queued`` nobody waits: after this many, about a millisecond, others have the loop."""
_OPEN: Final = State.OPEN  # a member looked up through its class costs the hot path 50 ns


class Admission:
    """What one opening of the ledger, in one process, admits and acknowledges.

    ``AsyncUsageWriter`` documents the methods of the same names.

    Attributes:
        write_at_once: called when one record is in the hand of the task, which was not woken.
        room_now: tells whether one more may be accepted without waiting or overtaking.
        unacked: answers that were handed out before their record was acknowledged.
        loop, task: the event loop that opened the ledger, and the writer task.
        last_resort: saves records when that task is gone; there when ``opened`` is.
        on_synced: called on the loop with the last number that is synced, when that has moved.
    """

    def __init__(self, settings: Settings, what: str) -> None:
        self._waits_for = WAITS_FOR[settings.durability]
        self.queue_size = settings.queue_size
        self.what = what
        self.state = State.UNOPENED
        self.directory: Path | None = None
        self.failure: BaseException | None = None
        self.unacked = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[None] | None = None
        self.opened: Backlog | None = None
        self._settings = settings
        self.write_at_once: Callable[[Backlog], None]
        self.last_resort: LastResort
        self._written = Acks()
        self._synced = Acks()
        self._shipped = Acks()
        self._acks = {"sync": self._synced, "ship": self._shipped}.get(
            self._waits_for, self._written
        )
        # A request need not wait for another machine: its start is on the disk.
        self._begun = self._synced if self._waits_for == "ship" else self._acks
        self.on_synced: Callable[[int], None] | None = None
        self._room = Room(self._places)
        self.room_now = self._room.at_once
        self._woken = False

    @property
    def backlog(self) -> Backlog:
        """The accepted and unwritten.  Raises ``LedgerClosed`` before opening."""
        if self.opened is None:
            raise self.refusal()
        return self.opened

    def check_loop(self) -> None:
        """Raise ``WrongLoop`` unless running on the event loop that opened the writer."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not self.loop and self.loop is not None:
            raise WrongLoop(
                f"this {self.what} belongs to another event loop; create one per loop, or from "
                "other threads use record_threadsafe()"
            )

    def check_open(self) -> None:
        if self.state is not State.OPEN:
            raise self.refusal()

    async def room(self) -> None:
        """Wait, first come first served, until a record may be accepted."""
        assert self.loop is not None
        await self._room.enter(self.loop)
        self.check_open()

    def _places(self) -> int:
        backlog = self.opened
        if backlog is None:
            return 0
        return self.queue_size - backlog.accepted + backlog.log.written - len(backlog.inbox)

    def accept_nowait(self, record: UsageRecord) -> bool:
        backlog = self.opened
        if backlog is None or self.state is not _OPEN:
            raise self.refusal()
        try:
            at_home = asyncio.get_running_loop() is self.loop
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

    def idle(self) -> bool:
        """Whether nothing waits, here on the loop's thread: a record has room at once."""
        backlog, room = self.opened, self._room
        return (
            self.state is _OPEN
            and self.loop is asyncio.get_running_loop()
            and backlog is not None
            and not (backlog.queue.hand or backlog.queue.waiting or backlog.inbox)
            and not (room.waiting or room.granted)
        )

    def take(self, record: UsageRecord, settles: int | None = None) -> UsageRecord:
        """Accept a record.  Never waits and never fails, also while and after closing.

        A ``started`` record begins a call.  An outcome ``settles`` the call whose ``started``
        record has that number; 0 if none was written, ``None`` if it is of no call.

        If nothing waits to be written and at most one call is in flight, it is written at once.
        """
        backlog = self.opened
        if (
            backlog is None
            or self._waits_for != "write"
            or backlog.late
            or backlog.accepting
            or backlog.queue.hand
            or backlog.queue.waiting
            or len(backlog.in_flight) + backlog.untracked > 1
        ):
            return self._take(record, self.way(record, settles))
        try:
            return backlog.accept_alone(record, settles)
        finally:  # also if the handler of a signal raises just now
            self.write_at_once(backlog)

    def way(self, record: UsageRecord, settles: int | None) -> Callable[[UsageRecord], UsageRecord]:
        """Which of the backlog's three ways of acceptance is a record's; see ``take``."""
        backlog = self.backlog
        if settles is not None:
            return partial(backlog.accept_outcome, settles=settles)
        return backlog.accept_started if record.kind == "started" else backlog.accept

    def _take(self, record: UsageRecord, act: Callable[[UsageRecord], UsageRecord]) -> UsageRecord:
        backlog = self.backlog
        if not backlog.late:
            return act(record)
        entry = Entry(record, act)
        self.last_resort.accept(entry)
        self.last_resort.save()
        return entry.record

    def submit(self, entry: Entry) -> None:
        """Accept from any thread, or from a finalizer, which may run anywhere.

        Never blocks while the loop is alive; without one the record is written before it returns
        (on a loop's thread that takes a tenth of a second at most).
        """
        backlog = self.backlog
        backlog.inbox.append(entry)
        loop = self.loop
        assert loop is not None
        # One wake-up for all that arrive until it runs; a loop that is closed meanwhile never does.
        if not backlog.late and (not self._woken or loop.is_closed()):
            self._woken = True
            try:
                loop.call_soon_threadsafe(self._wake)
            except RuntimeError:  # the loop is closed
                backlog.late = True
        if backlog.late:
            self.last_resort.save()

    def saved_late(self) -> None:
        """On any thread: something was saved without the task."""
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self.loop.call_soon_threadsafe(self.progress)

    def _wake(self) -> None:
        self._woken = False
        backlog = self.backlog
        if backlog.late:
            self.last_resort.save()
        else:
            self.take_inbox(backlog)

    def take_inbox(self, backlog: Backlog) -> None:
        """On the loop: accept the inbox; who waits for an entry hears of its acknowledgement."""
        for entry in backlog.take_inbox():
            if self._waits_for == "nothing":
                entry.answer()
            elif self.state is State.FAILED:
                entry.answer(self.refusal())
            else:
                assert self.loop is not None
                ack = self._acks.wait_for(entry.record.seq or 0, self.loop)
                ack.add_done_callback(partial(_answer, entry))

    def hint(self) -> None:
        """Sync soon: a signal says that the process is about to end.  Safe in a signal handler."""
        if self.opened is not None and not self.opened.late and self.loop is not None:
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.opened.queue.put_nowait, Signal.SYNC)

    def acked(self, record: UsageRecord) -> bool:
        """Whether ``ack`` has nothing to wait for, as after a record that was written at once."""
        return (record.seq or 0) <= self._acks.passed

    def begun(self, started: UsageRecord) -> bool:
        """Whether ``ack_begun`` has nothing to wait for."""
        return (started.seq or 0) <= self._begun.passed

    async def ack_begun(self, started: UsageRecord, timeout: float | None = None) -> bool:
        """Wait until a ``started`` record is safe enough for its request to leave.

        Returns whether it is, within ``timeout`` seconds.
        """
        return await self._ack(self._begun, started, timeout)

    async def ack(self, record: UsageRecord, timeout: float | None = None) -> bool:
        return await self._ack(self._acks, record, timeout)

    async def _ack(self, acks: Acks, record: UsageRecord, timeout: float | None) -> bool:
        backlog = self.backlog
        number = record.seq or 0
        if self._waits_for == "nothing":
            if not number % TURN:
                await asyncio.sleep(0)
            return True
        if number <= acks.passed:
            return True
        if backlog.late:  # it was saved before it was returned, or will not be soon
            if number <= max(acks.passed, self.safe(backlog)):
                return True
            if number <= self.saved(backlog):
                raise LedgerFailed(f"record {record.id} is synced, and shipped by the next process")
            raise LedgerFailed(f"record {record.id} was not saved yet; it is tried every second")
        if self.task is None or self.task.done():
            raise self.refusal()
        assert self.loop is not None
        await acks.wait_for(number, self.loop, timeout)
        return max(acks.passed, self.safe(backlog)) >= number

    async def written(self, record: UsageRecord, timeout: float) -> bool:
        """Wait until the operating system has a record, whatever ``durability`` says.

        Returns whether it has within ``timeout`` seconds.

        Raises:
            LedgerFailed, LedgerClosed: it will not.
        """
        number = record.seq or 0
        backlog = self.backlog
        if self._written.passed >= number or backlog.log.written >= number:
            return True
        if self.task is None or self.task.done():
            raise self.refusal()
        assert self.loop is not None
        await self._written.wait_for(number, self.loop, timeout)
        return max(self._written.passed, backlog.log.written) >= number

    def safe(self, backlog: Backlog) -> int:
        """The last number that is as safe as ``durability`` says."""
        return self._shipped.passed if self._waits_for == "ship" else self.saved(backlog)

    def saved(self, backlog: Backlog) -> int:
        """The last number that is as safe here as ``durability`` needs it."""
        return backlog.log.synced if self._waits_for in ("sync", "ship") else backlog.log.written

    def only_unshipped(self, record: UsageRecord) -> bool:
        """Whether a record is as safe here as it needs to be, and an ack waits for the database."""
        return self._waits_for == "ship" and (record.seq or 0) <= self.saved(self.backlog)

    def shipped(self, number: int) -> None:
        """On the loop: everything up to a number is where it is shipped to."""
        self._shipped.passes(number)

    async def flush(self, timeout: float | None = None, *, sync: bool | None = None) -> None:  # noqa: C901 - the ways in which waiting ends, in order
        if timeout is not None:
            timeout = seconds("timeout", timeout)
        if self.opened is None:
            return
        backlog = self.opened
        if backlog.late and self.loop is not asyncio.get_running_loop():
            if self.last_resort.save_now(timeout or self._settings.drain_timeout):
                raise FlushTimeout("flush ran out of time", unwritten=backlog.unwritten)
            return
        self.check_loop()
        if self.state is State.FAILED:
            raise self.refusal()
        assert self.loop is not None
        acks = self._synced if sync else self._written
        if sync is None:
            sync, acks = self._waits_for in ("sync", "ship"), self._acks
        if backlog.late:
            self.last_resort.save()
            self.progress()
        else:
            self.take_inbox(backlog)
            if backlog.accepting:
                backlog.mend()
            self.progress()
            if sync and self._synced.passed < backlog.accepted:
                backlog.queue.put_nowait(Signal.SYNC)
            elif backlog.queue.hand or not backlog.queue.empty():
                backlog.queue.put_nowait(Signal.WAKE)
        target = backlog.accepted
        await acks.wait_for(target, self.loop, timeout)
        if acks.passed < target:
            left = max(0, target - backlog.log.written)
            words = f"{left} records unwritten; they stay queued and will be written"
            if left == 1:
                words = "1 record unwritten; it stays queued and will be written"
            if acks is self._shipped and not left:
                some = target - acks.passed
                words = f"{some} records not shipped; they are on the disk"
                if some == 1:
                    words = "1 record not shipped; it is on the disk"
            raise FlushTimeout(f"flush ran out of time ({timeout} s) with {words}", unwritten=left)

    def progress(self) -> None:
        """Tell everybody how far the log has come, in order."""
        backlog = self.opened
        if backlog is not None:
            if self._written.waiting:
                self._written.passes(backlog.log.written)
            else:  # nearly always, where one call is alone
                self._written.passed = max(self._written.passed, backlog.log.written)
            if backlog.log.synced > self._synced.passed:
                self._synced.passes(backlog.log.synced)
                if self.on_synced is not None:
                    self.on_synced(backlog.log.synced)
        if self._room.waiting:
            self._room.admit()

    def refuse_new(self) -> None:
        """Turn away those who wait for room: the ledger is closing."""
        self._room.fail(self.refusal())

    @property
    def waiting(self) -> int:
        return len(self._room)

    def refuse_all(self) -> None:
        """Turn away everybody who waits: the ledger is closed, or the writer has died."""
        error = self.refusal()
        for waiting in (self._written, self._synced, self._shipped, self._room):
            waiting.fail(error)

    def refusal(self) -> LedgerClosed | LedgerFailed:
        text = refusal(self.state, f"the {self.what} for {self.directory or self._settings.ledger}")
        if self.state is State.FAILED:
            error = LedgerFailed(text)
            error.__cause__ = self.failure
            return error
        return LedgerClosed(text)


def _answer(entry: Entry, ack: asyncio.Future[None]) -> None:
    entry.answer(ack.exception())
