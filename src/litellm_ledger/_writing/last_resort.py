"""The last resort: writing what is held when the writer task is gone.

``LastResort`` writes synchronously, from any thread: at interpreter exit, from a finalizer, when
every task of the loop was cancelled, for a call that was in flight at the close.  An event loop
must not hang in the disk with it: there ``LateSaver`` does it on a thread, and the loop waits for a
moment only.  That thread syncs within a second what was only written, and tries every second what
a full disk refused.

Owns the locks and the thread.  Never queues anything.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final

from litellm_ledger._errors import LedgerFailed
from litellm_ledger._records.layout import SEGMENTS, SegmentName
from litellm_ledger._storage.filesystem import FileSystem
from litellm_ledger._storage.live_file import SYNCED
from litellm_ledger._storage.segment import Stuck, write_sealed

from .backlog import Backlog
from .queue import Accepted, Entry

__all__ = ["LATE_BUDGET", "LATE_ON_LOOP", "LastResort", "LateSaver"]

_log = logging.getLogger("litellm_ledger")

_CHUNK: Final = 4_096  # lines in one append: about a megabyte
_PAUSE: Final = 1.0
"""Seconds between two attempts, at most."""
LATE_INTERVAL: Final = 1.0
"""Seconds after which what was saved late is synced, and what could not be saved is tried again."""
LATE_BUDGET: Final = 5.0
"""Seconds that one attempt may take, off the loop."""
LATE_ON_LOOP: Final = 0.1
"""Seconds for which an event loop waits for a late record to be saved."""


class LastResort:
    """Writes what a backlog holds, synchronously, from any thread, with or without a loop.

    It writes the batch in hand, the queue and the inbox.  Two rules keep it from doubling or
    reordering anything: the segment drops lines that it already has, under its lock; and if that
    lock is not to be had in time, the segment is never touched again and the lines go to a sealed
    segment of their own, under the same ids.

    Attributes:
        sync: also sync what is written.
        sealed: the ledger is sealed, and its live file is gone.
        seal_when_idle: closed by the user; seal as soon as no call is in flight any more.
    """

    def __init__(self, backlog: Backlog, fs: FileSystem, *, sync: bool) -> None:
        self._backlog = backlog
        self._fs = fs
        self.sync = sync
        self.sealed = False
        self.seal_when_idle = False
        self._saving = threading.Lock()
        self._saver: int | None = None
        self._numbering = threading.RLock()
        self._numberer: int | None = None
        self._unanswered: deque[Entry] = deque()
        self._apart = 0

    @property
    def unfinished(self) -> bool:
        """Whether anything is left to write, or to sync where that is possible."""
        log = self._backlog.log
        return self.unwritten > 0 or (log.synced < log.written and not self._apart)

    @property
    def stuck(self) -> bool:
        """Whether another thread hung in the segment, so that lines went past it."""
        return self._apart > 0

    def take_late(self, entry: Entry) -> None:
        """Accept one record when the writer task is gone, also while another thread hangs.

        ``entry.record`` is the numbered one afterwards; ``save_now`` writes it.
        """
        self._backlog.inbox.append(entry)
        self._number_inbox()

    def _number_inbox(self) -> None:
        """``take_inbox`` from any thread: never waits for the disk."""
        me = threading.get_ident()
        if self._numberer == me:  # a finalizer or a handler in the middle of it: that goes on
            return
        with self._numbering:
            self._numberer = me
            try:
                while self._backlog.inbox:
                    self._unanswered += self._backlog.take_inbox()
            finally:
                self._numberer = None

    @property
    def unwritten(self) -> int:
        """Records that the operating system does not have yet."""
        return self._backlog.unwritten

    def save_now(self, budget: float, *, seal: bool = False) -> int:
        """Write everything that is held, synchronously; return how many records were not saved.

        Blocks at most about ``budget`` seconds, except inside a system call that hangs.  May be
        called by several threads, and from inside itself (a finalizer strikes anywhere): whoever
        holds the work finishes it for all.  No thread may be inside ``accept`` meanwhile.
        """
        self._backlog.late = True
        self.seal_when_idle |= seal
        deadline = time.monotonic() + budget
        me = threading.get_ident()
        while self._saver != me and self._saving.acquire(timeout=_left(deadline)):
            self._saver = me
            try:
                self._number_inbox()
                waiting = [self._unanswered.popleft() for _ in range(len(self._unanswered))]
                self._save(self._backlog.queue.held(), deadline)
                with self._numbering:
                    self._backlog.note_written()
                safe = self._backlog.log.synced if self.sync else self._backlog.log.written
                for entry in waiting:
                    _answer(entry, saved=(entry.record.seq or 0) <= safe)
                if self.seal_when_idle:
                    self._finish(deadline)
            finally:
                self._saver = None
                self._saving.release()
            if not self._backlog.inbox:
                break
        return self._backlog.unwritten

    def sync_now(self) -> None:
        """Sync what is written, if the disk lets us; ``save_now`` leaves that open at ``written``.

        Never raises: it is tried again with the next record, and by the seal.
        """
        with contextlib.suppress(OSError):
            self._backlog.log.sync(timeout=1.0)

    def saving_here(self) -> bool:
        """Tell whether this very thread is inside ``save_now``, further up its stack."""
        return threading.get_ident() in (self._saver, self._numberer)

    def _save(self, records: Sequence[Accepted], deadline: float) -> None:
        pause = 0.01
        self.sealed = self.sealed and not records
        while records:
            try:
                self._write_out(records, deadline)
                self._backlog.queue.forget(records[-1][0])
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
            lines = [self._backlog.line(item) for item in chunk]
            first = chunk[0][0]
            try:
                if self._apart:
                    raise Stuck
                self._backlog.log.append(first, lines, timeout=_left(deadline))
            except Stuck:
                self._write_apart(first, lines)
        if not self._apart and self.sync:
            self._backlog.log.sync(timeout=_left(deadline))

    def _write_apart(self, first: int, lines: Sequence[bytes]) -> None:
        """Another thread hangs in the segment: leave it alone, write a segment of our own."""
        log = self._backlog.log
        log.abandon()
        self._apart += 1
        name = SegmentName(self._backlog.writer, first, first + len(lines) - 1)
        directory = self._backlog.directory / SEGMENTS
        write_sealed(self._fs, directory, name, b"".join(lines), attempt=10_000 + self._apart)
        last = first + len(lines) - 1
        if log.synced >= first - 1:
            self._backlog.live.cells[SYNCED] = log.synced = max(log.synced, last)
        log.advance(last)

    def _finish(self, deadline: float) -> None:
        """Seal, and take the live file away if nothing is left to come."""
        if self.sealed or self._apart:
            return
        backlog = self._backlog
        try:
            if backlog.in_flight or backlog.untracked or backlog.unwritten:
                backlog.log.sync(timeout=_left(deadline))
                return
            backlog.log.seal(timeout=_left(deadline))
            if backlog.log.left_open:  # a file that failed us: recovery seals it, by the counters
                backlog.live.release()
            else:
                backlog.live.remove()
            self.sealed = True
        except OSError as exc:
            _log.error("the ledger was not sealed (recovery will): %s", exc)


class LateSaver:
    """Calls the last resort in the background.

    Everything here is safe in a finalizer and in a signal handler, which may strike while this very
    thread holds a lock of ``threading``'s, and nothing says that it may be taken twice: so no
    ``Thread``, no ``Timer`` and no ``Event``.

    Args:
        resort: what saves.
        saved: called after each attempt, on the thread.
    """

    def __init__(self, resort: LastResort, saved: Callable[[], None]) -> None:
        self._resort = resort
        self._saved = saved
        self._asked: SimpleQueue[_thread.LockType] = SimpleQueue()
        self._running = _thread.allocate_lock()
        self._hangs = False

    def save(self, wait: float) -> None:
        """Have all that is held saved; return when that was tried, or after ``wait`` seconds.

        Does not wait at all while an attempt hangs that somebody has waited for in vain.
        """
        done = _thread.allocate_lock()
        done.acquire()
        self._asked.put(done)
        if not self._begin():  # the interpreter starts no thread any more
            self._resort.save_now(LATE_BUDGET)
        elif not self._hangs and not done.acquire(True, wait):
            self._hangs = True

    def watch(self) -> None:
        """Sync and try again in the background, if there is anything left to do."""
        if self._resort.unfinished:
            self._begin()

    def _begin(self) -> bool:
        """Start the thread unless it runs; tell whether it does."""
        if not self._running.acquire(False):
            return True
        try:
            _thread.start_new_thread(self._work, ())
        except RuntimeError:
            self._running.release()
            return False
        return True

    def _work(self) -> None:
        try:
            due = time.monotonic() + LATE_INTERVAL
            while True:
                asked = self._wait(due)
                if asked or self._resort.unwritten:
                    self._resort.save_now(LATE_BUDGET)
                if time.monotonic() >= due:
                    self._resort.sync_now()
                    due = time.monotonic() + LATE_INTERVAL
                self._hangs = False
                self._saved()
                for done in asked:
                    done.release()
                if not self._resort.unfinished and self._asked.empty():
                    break
        finally:
            self._running.release()
        if not self._asked.empty():  # put in while we were leaving
            self._begin()

    def _wait(self, due: float) -> list[_thread.LockType]:
        asked = []
        try:
            asked.append(self._asked.get(timeout=max(0.0, due - time.monotonic())))
            while True:
                asked.append(self._asked.get_nowait())
        except Empty:
            return asked


def _answer(entry: Entry, *, saved: bool) -> None:
    if entry.future is not None and not entry.future.done():
        if saved:
            entry.future.set_result(entry.record)
        else:
            entry.future.set_exception(LedgerFailed(f"record {entry.record.id} was not saved"))


def _left(deadline: float) -> float:
    """Seconds until the deadline, at least a moment: -1 would wait for ever, 0 not at all."""
    return max(0.05, deadline - time.monotonic())
