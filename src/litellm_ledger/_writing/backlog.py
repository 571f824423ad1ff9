"""Records that are accepted and not yet written: their numbers, the queue, calls in flight.

Owns the state that the writer task and the last resort share.  A record gets its number and is
queued in one block without an await, so records reach the disk in order and without holes.
Never awaits, never starts a task, never writes to the ledger.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import force_setattr

from litellm_ledger._records.layout import SegmentName
from litellm_ledger._records.line import encode_own
from litellm_ledger._records.money import whole
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._storage.filesystem import FileSystem
from litellm_ledger._storage.live_file import ACCEPTED, OLDEST, Durability, LiveFile
from litellm_ledger._storage.segment import SegmentLog

from .queue import Accepted, Entry, RecordQueue

if TYPE_CHECKING:
    from litellm_ledger._storage.price_book import PriceBook

    from .sealer import Sealer
    from .upkeep import Upkeep

__all__ = ["Backlog"]

_log = logging.getLogger("litellm_ledger")


class Backlog:
    """The shared state of one writer.

    Attributes:
        accepted: the last number given.
        late: the writer task is gone; the last resort saves what is accepted now.
        accepting: a number is being given; a finalizer that runs now must not take it.
        book: what the records are priced by, if one has named its price.
        in_flight: numbers of ``started`` records whose call has not ended, oldest first.
        untracked: calls in flight for which no ``started`` record was written.
        on_written: called with each outcome that the operating system has, and the number of the
            ``started`` record that it settles (0: none); on any thread.  Must not fail.
    """

    def __init__(
        self, fs: FileSystem, directory: Path, writer: str, durability: Durability | None = None
    ) -> None:
        self.fs = fs
        self.writer = writer
        self.directory = directory
        self.live = LiveFile(fs, directory, writer, durability=durability)
        self.log = SegmentLog(fs, directory, writer, cells=self.live.cells)
        self.book: PriceBook | None = None
        self.sealer: Sealer | None = None
        self.upkeep: Upkeep | None = None
        self.log.on_sealed = self._sealed
        self.queue = RecordQueue()
        self._waiting = self.queue.waiting
        self.inbox: deque[Entry] = deque()
        self.accepted = 0
        self.late = False
        self.accepting = False
        self.in_flight: dict[int, None] = {}
        self.untracked = 0
        self._settling: deque[tuple[int, int, UsageRecord]] = deque()
        self.on_written: Callable[[int, UsageRecord], None] | None = None
        self.on_usage: Callable[[UsageRecord, int | None], None] | None = None
        self.on_started: Callable[[UsageRecord], None] | None = None
        self._cells = self.live.cells
        self._prefix = f"{writer}-"

    def _sealed(self, name: SegmentName, size: int) -> None:
        if not threading.main_thread().is_alive():
            return  # an import at the interpreter's exit would change the status that it ends with
        try:
            if self.sealer is None:
                from .sealer import Sealer  # most calls are made before anything is sealed

                self.sealer = Sealer(self.fs, self.directory)
            self.sealer.add(name, size)
            if self.upkeep is not None and not self.late:
                self.upkeep.begin()
        except Exception as exc:  # noqa: BLE001 - no descriptor left, or replaced on disk by an upgrade
            _log.debug("no manifest of %s: %s", name, exc)

    @property
    def unwritten(self) -> int:
        """Records that are accepted and that the operating system does not have yet."""
        return self.accepted - self.log.written + len(self.inbox)

    # -- accepting -----------------------------------------------------------------------------

    def accept(self, record: UsageRecord, settles: int = 0) -> UsageRecord:
        """Number a record and queue it; return it as it will be written.  One block, no await."""
        if self.accepting:
            self.mend()
        self.accepting = True
        record = self._completed(record, self.accepted + 1, datetime.now(UTC))
        self.put(record, None, settles)
        return record

    def accept_alone(  # noqa: C901 - three ways of acceptance in one frame, for speed
        self, record: UsageRecord, settles: int | None
    ) -> UsageRecord:
        """Accept a record while nothing else is under way, into the hand of the task.

        ``accept``, ``accept_started`` and ``accept_outcome`` (which ``settles``) in one frame.  The
        caller sees to its being written.
        """
        self.accepting = True
        made = record.__copy__()
        put = force_setattr
        seq = self.accepted + 1
        record_id = f"{self._prefix}{seq:016d}"
        put(made, "seq", seq)
        put(made, "id", record_id)
        if record.ts is None:
            put(made, "ts", datetime.now(UTC))
        if record.operation is None:
            put(made, "operation", record_id)
        if record.attempt is None:
            put(made, "attempt", 1)
        money = record.cost
        cost = None if money is None else whole(money)
        if record.kind == "usage" and (settles or self.on_written is not None):
            self._settling.append((seq, settles or 0, made))
        self.queue.hand.append((seq, None, made, cost))  # accepted, whatever strikes from here on
        self.accepted = seq
        self._cells[ACCEPTED] = seq
        if record.kind == "usage":
            if self.on_usage is not None:
                self.on_usage(made, cost)
            if settles == 0:
                self.untracked = max(0, self.untracked - 1)
        elif record.kind == "started":
            self.in_flight[seq] = None
            if len(self.in_flight) == 1:
                self._cells[OLDEST] = seq
            if self.on_started is not None:
                self.on_started(made)
        self.accepting = False
        return made

    def put(self, record: UsageRecord, now: datetime | None, settles: int = 0) -> None:
        """``accept`` with a time, for callers that do not need the numbered record.

        The task makes it, which takes the caller a third of the time.
        """
        self.accepting = True
        money = record.cost
        cost = None if money is None else whole(money)
        seq = self.accepted + 1
        if record.kind == "usage" and (settles or self.on_written is not None):
            self._settling.append((seq, settles, record))
        # In a burst of ``record_nowait`` the task has been woken for what waits before this one; it
        # is woken again now and then all the same: a finalizer that records may strike inside
        # asyncio's ``get``, before the task can be woken.  Who waits for an answer always wakes.
        if now is not None and self._waiting and seq % 64:
            self._waiting.append((seq, now, record, cost))
        else:
            try:
                self.queue.put_nowait((seq, now, record, cost))
            except RuntimeError:  # a closed loop wakes nobody, but the item is stored
                pass
        self.accepted = seq
        self._cells[ACCEPTED] = seq
        if record.kind == "usage" and self.on_usage is not None:
            self.on_usage(record, cost)
        self.accepting = False

    def mend(self) -> None:
        """Go on where the handler of a signal has raised in the middle of an acceptance.

        A record that has reached the queue is accepted; one that has not is not.  Called before
        anything is written: no writer leaves counters that say more was written than accepted.
        """
        held = self.queue.held()
        self.accepted = last = max(self.accepted, self.log.written, held[-1][0] if held else 0)
        self._cells[ACCEPTED] = last
        while self._settling and self._settling[-1][0] > last:
            self._settling.pop()
        self.accepting = False

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
        made = record.__copy__() if now is None else self._completed(record, seq, now)
        try:
            return encode_own(made, cost)
        except Exception as exc:  # noqa: BLE001 - logged, and the record is kept as far as possible
            _log.error("record %d holds what cannot be stored (%s); stored without it", seq, exc)
            record = record.__copy__() if now is None else self._completed(record, seq, now)
            for name in record.__struct_fields__:
                if not _can_be_stored(record, name):
                    force_setattr(record, name, {} if name == "tags" else None)
            force_setattr(record, "meta", {"unstorable": type(exc).__name__})
            return encode_own(record, cost)

    def keep_price(self, version: str, contents: str, litellm: str | None = None) -> None:
        """Have what a record will name as its price kept; see ``PriceBook.add``."""
        if self.book is None:
            from litellm_ledger._storage.price_book import PriceBook

            self.book = PriceBook(self.fs, self.directory)
        self.book.add(version, contents, litellm)

    def accept_started(self, record: UsageRecord) -> UsageRecord:
        """Accept a ``started`` record and hold its call in flight."""
        record = self.accept(record)
        self.in_flight[self.accepted] = None
        if len(self.in_flight) == 1:
            self._cells[OLDEST] = self.accepted
        if self.on_started is not None:
            self.on_started(record)
        return record

    def accept_outcome(self, record: UsageRecord, settles: int) -> UsageRecord:
        """Accept an outcome; its call is no longer in flight once that is written."""
        record = self.accept(record, settles)
        if not settles:
            self.untracked = max(0, self.untracked - 1)
        return record

    def note_written(self) -> None:
        """Take calls out of flight whose outcome the operating system has.

        Not before: recovery looks for unsettled calls from the oldest in flight on.
        """
        settling, written = self._settling, self.log.written
        if not settling or settling[0][0] > written:
            return
        on_written = self.on_written
        while settling and settling[0][0] <= written:
            _, number, record = settling.popleft()
            self.in_flight.pop(number, None)
            if on_written is not None:
                on_written(number, record)
        self._cells[OLDEST] = next(iter(self.in_flight), 0)

    def take_inbox(self) -> list[Entry]:
        """Accept what other threads and finalizers have put in, in the order of arrival.

        Returns the entries whose ``future`` is still to hear that they are safe.
        """
        waiting: list[Entry] = []
        while self.inbox:
            entry = self.inbox[0]
            error: Exception | None = None
            try:
                entry.record = entry.act(entry.record)
            except Exception as exc:  # noqa: BLE001 - logged, and who waits for it hears of it
                _log.error("a record could not be accepted: %s", exc)
                error = exc
            self.inbox.popleft()
            if entry.future is None or not entry.future.set_running_or_notify_cancel():
                continue
            if error is None:
                waiting.append(entry)
            else:
                entry.answer(error)
        return waiting


def _can_be_stored(record: UsageRecord, name: str) -> bool:
    alone = UsageRecord()
    force_setattr(alone, name, getattr(record, name))
    try:
        encode_own(alone, None)
    except Exception:  # noqa: BLE001 - logged, and the record is kept as far as possible
        return False
    return True
