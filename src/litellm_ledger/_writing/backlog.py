"""What is accepted and not yet written: numbering, the queue, the hand, and the last resort.

Owns the one piece of state that the writer task and the synchronous last resort share.  Numbers are
given and records are queued in one block without an await, so they reach the disk in order and
without holes.  What the writer has taken and not yet written (*the hand*) stays reachable here.

``save_now`` is the last resort: it writes hand, queue and inbox synchronously, from any thread,
with or without a loop.  Two rules keep it from doubling or reordering anything: the segment drops
lines it already has, under its lock; and if that lock is not to be had in time, the segment is
never touched again and the lines go to a sealed segment of their own, under the same ids.

Never awaits, never starts a task.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from msgspec.structs import force_setattr

from litellm_ledger._errors import LedgerFailed
from litellm_ledger._records.layout import SEGMENTS, SegmentName
from litellm_ledger._records.line import encode_wire, wire
from litellm_ledger._records.money import whole
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._storage.filesystem import FileSystem
from litellm_ledger._storage.live_file import ACCEPTED, OLDEST, SYNCED, Durability, LiveFile
from litellm_ledger._storage.segment import SegmentLog, Stuck, write_sealed

from .queue import Accepted, Entry, RecordQueue

__all__ = ["Backlog"]

_log = logging.getLogger("litellm_ledger")
_CHUNK: Final = 4_096  # lines in one append of the last resort: about a megabyte
_PAUSE: Final = 1.0
"""Longest pause, in seconds, between two attempts of the last resort."""


class Backlog:
    """The shared state of one writer.  See the module's first paragraphs.

    Attributes:
        accepted: the last number given.
        late: the writer task is gone; what is accepted now is written at once, synchronously,
            and synced too if ``sync_late``.
        accepting: a number is being given; a finalizer that strikes now must not take it.
        seal_when_idle: closed by the user; seal as soon as no call is in flight any more.
        in_flight: numbers of ``started`` records whose call has not ended, oldest first.
        untracked: calls in flight for which no ``started`` record was written.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: Path,
        writer: str,
        *,
        durability: Durability | None = None,
    ) -> None:
        self.writer = writer
        self.directory = directory
        self.live = LiveFile(fs, directory, writer, durability=durability)
        self.log = SegmentLog(fs, directory, writer, cells=self.live.cells)
        self.queue = RecordQueue()
        self._waiting = self.queue.quietly
        self.inbox: deque[Entry] = deque()
        self.accepted = 0
        self.late = False
        self.sync_late = False
        self.sealed = False
        self.accepting = False
        self.seal_when_idle = False
        self.in_flight: dict[int, None] = {}
        self.untracked = 0
        self._settling: deque[tuple[int, int]] = deque()
        self.on_usage: Callable[[UsageRecord, int | None], None] | None = None
        self._fs = fs
        self._cells = self.live.cells
        self._prefix = f"{writer}-"
        self._saving = threading.Lock()
        self._saver: int | None = None
        self._numbering = threading.RLock()
        self._numberer: int | None = None
        self._unanswered: deque[Entry] = deque()
        self._apart = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be written, and at most one call is in flight."""
        queue = self.queue
        return queue.empty() and not queue.hand and len(self.in_flight) + self.untracked < 2

    @property
    def unwritten(self) -> int:
        """Records that are accepted and that the operating system does not have yet."""
        return self.accepted - self.log.written + len(self.inbox)

    @property
    def unfinished(self) -> bool:
        """Whether anything is left to write, or to sync where that is possible."""
        return self.unwritten > 0 or (self.log.synced < self.log.written and not self._apart)

    @property
    def stuck(self) -> bool:
        """Whether another thread hung in the segment, so that lines went past it."""
        return self._apart > 0

    # -- accepting -----------------------------------------------------------------------------

    def accept(self, record: UsageRecord, *, wake: bool = True) -> UsageRecord:
        """Number a record and queue it; return it as it will be written.  One block, no await.

        Without ``wake`` nobody is told: the caller sees to its being written.
        """
        if self.accepting:
            self._mend()
        self.accepting = True
        record = self._completed(record, self.accepted + 1, datetime.now(UTC))
        self.put(record, None, wake=wake)
        return record

    def put(self, record: UsageRecord, now: datetime | None, *, wake: bool = True) -> None:
        """``accept`` with a time for whoever does not want the numbered record: the task makes it.

        That takes the caller a third of the time.
        """
        self.accepting = True
        money = record.cost
        cost = None if money is None else whole(money)
        seq = self.accepted + 1
        # In a burst of ``record_nowait`` the task has been woken for what waits before this one; it
        # is woken again now and then all the same: a finalizer that records may strike inside
        # asyncio's ``get``, before the task can be woken.  Who waits for an answer always wakes.
        if not wake or (now is not None and self._waiting and seq % 64):
            self._waiting.append((seq, now, record, cost))
        else:
            try:
                self.queue.put_nowait((seq, now, record, cost))
            except RuntimeError:  # a closed loop wakes nobody, but the item is stored
                pass
        self.accepted = seq
        self._cells[ACCEPTED] = seq
        if self.on_usage is not None and record.kind == "usage":
            self.on_usage(record, cost)
        self.accepting = False

    def _mend(self) -> None:
        """Go on where the handler of a signal has raised in the middle of an acceptance."""
        held = self.queue.held()
        self.accepted = max(self.accepted, self.log.written, held[-1][0] if held else 0)

    def _completed(self, record: UsageRecord, seq: int, now: datetime) -> UsageRecord:
        """Return a copy with everything that the ledger itself gives a record."""
        record = record.__copy__()
        record_id = f"{self._prefix}{seq:016d}"
        put = force_setattr
        put(record, "seq", seq)
        put(record, "id", record_id)
        if record.ts is None:
            put(record, "ts", now)
        if record.operation is None:
            put(record, "operation", record_id)
        if record.attempt is None:
            put(record, "attempt", 1)
        return record

    def line(self, item: Accepted) -> bytes:
        """Encode a waiting record whatever it holds: what JSON cannot take is left out and said."""
        seq, now, record, cost = item
        record = record.__copy__() if now is None else self._completed(record, seq, now)
        try:
            return encode_wire(wire(record, cost))
        except Exception as exc:  # noqa: BLE001 - logged, and the record is kept as far as possible
            _log.error("record %d holds what cannot be stored (%s); stored without it", seq, exc)
            for name in record.__struct_fields__:
                if not _can_be_stored(record, name):
                    force_setattr(record, name, {} if name == "tags" else None)
            force_setattr(record, "meta", {"unstorable": type(exc).__name__})
            return encode_wire(record)

    def accept_started(self, record: UsageRecord, *, wake: bool = True) -> UsageRecord:
        """Accept a ``started`` record and hold its call in flight."""
        record = self.accept(record, wake=wake)
        self.in_flight[self.accepted] = None
        if len(self.in_flight) == 1:
            self._cells[OLDEST] = self.accepted
        return record

    def accept_outcome(
        self, record: UsageRecord, settles: int, *, wake: bool = True
    ) -> UsageRecord:
        """Accept an outcome; its call is no longer in flight once that is written."""
        record = self.accept(record, wake=wake)
        if settles:
            self._settling.append((self.accepted, settles))
        else:
            self.untracked = max(0, self.untracked - 1)
        return record

    def note_written(self) -> None:
        """Take calls out of flight whose outcome the operating system has.

        Not before: recovery looks for unsettled calls from the oldest in flight on.
        """
        settling, written = self._settling, self.log.written
        if not settling or settling[0][0] > written:
            return
        while settling and settling[0][0] <= written:
            self.in_flight.pop(settling.popleft()[1], None)
        self._cells[OLDEST] = next(iter(self.in_flight), 0)

    def take_inbox(self) -> list[Entry]:
        """Accept what other threads and finalizers have put in, in the order of arrival.

        Returns the entries whose ``future`` is still to hear that they are safe.
        """
        waiting: list[Entry] = []
        while self.inbox:
            entry = self.inbox[0]
            try:
                entry.record = entry.act(entry.record)
            except Exception as exc:  # noqa: BLE001 - logged, and the record is kept as far as possible
                self.inbox.popleft()
                _log.error("a record could not be accepted: %s", exc)
                if entry.future is not None and entry.future.set_running_or_notify_cancel():
                    entry.future.set_exception(exc)
                continue
            self.inbox.popleft()
            if entry.future is not None and entry.future.set_running_or_notify_cancel():
                waiting.append(entry)
        return waiting

    def take_late(self, entry: Entry) -> None:
        """Accept one record when the writer task is gone, also while another thread hangs.

        ``entry.record`` is the numbered one afterwards; ``save_now`` writes it.
        """
        self.inbox.append(entry)
        self._number_inbox()

    def _number_inbox(self) -> None:
        """``take_inbox`` from any thread: never waits for the disk."""
        me = threading.get_ident()
        if self._numberer == me:  # a finalizer or a handler in the middle of it: that goes on
            return
        with self._numbering:
            self._numberer = me
            try:
                while self.inbox:
                    self._unanswered += self.take_inbox()
            finally:
                self._numberer = None

    # -- the last resort -----------------------------------------------------------------------

    def save_now(self, budget: float, *, seal: bool = False) -> int:
        """Write everything that is held, synchronously; return how many records were not saved.

        Blocks at most about ``budget`` seconds, except inside a system call that hangs.  May be
        called by several threads, and from inside itself (a finalizer strikes anywhere): whoever
        holds the work finishes it for all.  No thread may be inside ``accept`` meanwhile.
        """
        self.late = True
        self.seal_when_idle |= seal
        deadline = time.monotonic() + budget
        me = threading.get_ident()
        while self._saver != me and self._saving.acquire(timeout=_left(deadline)):
            self._saver = me
            try:
                self._number_inbox()
                waiting = [self._unanswered.popleft() for _ in range(len(self._unanswered))]
                self._save(self.queue.held(), deadline)
                with self._numbering:
                    self.note_written()
                safe = self.log.synced if self.sync_late else self.log.written
                for entry in waiting:
                    _answer(entry, saved=(entry.record.seq or 0) <= safe)
                if self.seal_when_idle:
                    self._finish(deadline)
            finally:
                self._saver = None
                self._saving.release()
            if not self.inbox:
                break
        return self.unwritten

    def sync_now(self) -> None:
        """Sync what is written, if the disk lets us; ``save_now`` leaves that open at ``written``.

        Never raises: it is tried again with the next record, and by the seal.
        """
        with contextlib.suppress(OSError):
            self.log.sync(timeout=1.0)

    def saving_here(self) -> bool:
        """Tell whether this very thread is inside ``save_now``, further up its stack."""
        return threading.get_ident() in (self._saver, self._numberer)

    def _save(self, records: Sequence[Accepted], deadline: float) -> None:
        pause = 0.01
        self.sealed = self.sealed and not records
        while records:
            try:
                self._write_out(records, deadline)
                self.queue.forget(records[-1][0])
                return
            except OSError as exc:
                if time.monotonic() + pause > deadline:
                    what = f"{self.unwritten} records" if self.unwritten else "the last sync"
                    _log.error("%s could not be saved: %s", what, exc)
                    return
                time.sleep(pause)
                pause = min(pause * 2, _PAUSE)

    def _write_out(self, records: Sequence[Accepted], deadline: float) -> None:
        for start in range(0, len(records), _CHUNK):
            chunk = records[start : start + _CHUNK]
            lines = [self.line(item) for item in chunk]
            first = chunk[0][0]
            try:
                if self._apart:
                    raise Stuck
                self.log.append(first, lines, timeout=_left(deadline))
            except Stuck:
                self._write_apart(first, lines)
        if not self._apart and self.sync_late:
            self.log.sync(timeout=_left(deadline))

    def _write_apart(self, first: int, lines: Sequence[bytes]) -> None:
        """Another thread hangs in the segment: leave it alone, write a segment of our own."""
        self.log.abandon()
        self._apart += 1
        name = SegmentName(self.writer, first, first + len(lines) - 1)
        directory = self.directory / SEGMENTS
        write_sealed(self._fs, directory, name, b"".join(lines), attempt=10_000 + self._apart)
        last = first + len(lines) - 1
        if self.log.synced >= first - 1:
            self._cells[SYNCED] = self.log.synced = max(self.log.synced, last)
        self.log.advance(last)

    def _finish(self, deadline: float) -> None:
        """Seal, and take the live file away if nothing is left to come."""
        if self.sealed or self._apart:
            return
        try:
            if self.in_flight or self.untracked or self.unwritten:
                self.log.sync(timeout=_left(deadline))
                return
            self.log.seal(timeout=_left(deadline))
            if self.log.left_open:  # a file that failed us: recovery seals it, by the counters
                self.live.release()
            else:
                self.live.remove()
            self.sealed = True
        except OSError as exc:
            _log.error("the ledger was not sealed (recovery will): %s", exc)


def _can_be_stored(record: UsageRecord, name: str) -> bool:
    alone = UsageRecord()
    force_setattr(alone, name, getattr(record, name))
    try:
        encode_wire(alone)
    except Exception:  # noqa: BLE001 - logged, and the record is kept as far as possible
        return False
    return True


def _answer(entry: Entry, *, saved: bool) -> None:
    if entry.future is not None and not entry.future.done():
        if saved:
            entry.future.set_result(entry.record)
        else:
            entry.future.set_exception(LedgerFailed(f"record {entry.record.id} was not saved"))


def _left(deadline: float) -> float:
    """Seconds until the deadline, at least a moment: -1 would wait for ever, 0 not at all."""
    return max(0.05, deadline - time.monotonic())
