"""The last resort: it saves records synchronously, because the writer task is gone.

``save_now`` writes the batch in hand, the queue and the inbox, from any thread, with or without an
event loop.  Two rules keep it from doubling or reordering anything: the segment drops lines that it
has already, under its lock; and if that lock is not free in time, the segment is never touched
again and the lines go to a sealed segment of their own, under the same ids.

After a close a call may still be in flight; somebody may have cancelled every task of the loop.
``save`` writes what is accepted then.  An event loop must not hang in the disk, so a thread does it
and the loop waits for a moment only.  The thread syncs within a second what was only written, and
tries again every second what a full disk refused.  It runs while there is something to do.

Never numbers or queues anything itself.
"""

from __future__ import annotations

import _thread
import asyncio
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
from litellm_ledger._storage.live_file import SYNCED
from litellm_ledger._storage.segment import Stuck, write_sealed

from .backlog import Backlog
from .queue import Accepted, Entry

__all__ = ["LastResort"]

_log = logging.getLogger("litellm_ledger")
_CHUNK: Final = 4_096  # lines in one append: about a megabyte
_PAUSE: Final = 1.0
"""Longest pause, in seconds, between two attempts of ``save_now``."""
_MANIFESTS: Final = 2.0
"""Longest time, in seconds, that a close waits for manifests."""
LATE_INTERVAL: Final = 1.0
"""Seconds after which what was saved late is synced, and what could not be saved is tried again."""
LATE_BUDGET: Final = 5.0
"""Seconds that one attempt may take, off the loop."""
LATE_ON_LOOP: Final = 0.1
"""Seconds for which an event loop waits for a late record to be saved."""


class LastResort:
    """Saves one backlog without the writer task.

    Everything here is safe in a finalizer and in a signal handler.  Those may run while the same
    thread holds a lock of ``threading``, which need not be reentrant: so the background uses no
    ``Thread``, no ``Timer`` and no ``Event``.

    Args:
        saved: called after each attempt of ``save``, on the thread that made it.
        gone: called when the last segment is sealed and the live file is gone, likewise.

    Attributes:
        sync: sync what is saved before it counts.
        ships: nothing that is saved here counts: it is not shipped yet.
        seal_when_idle: closed by the user; seal as soon as no call is in flight any more.
        apart: segments that were written past another thread, which hangs in the disk.
    """

    def __init__(
        self, backlog: Backlog, saved: Callable[[], None], gone: Callable[[], None]
    ) -> None:
        self.sync = False
        self.ships = False
        self.seal_when_idle = False
        self.sealed = False
        self._backlog = backlog
        self._log = backlog.log
        self._saved = saved
        self._gone = gone
        self._saving = threading.Lock()
        self._saver: int | None = None
        self._numbering = threading.RLock()
        self._numberer: int | None = None
        self._unanswered: deque[Entry] = deque()
        self.apart = 0
        self._asked: SimpleQueue[_thread.LockType] = SimpleQueue()
        self._running = _thread.allocate_lock()
        self._hangs = False

    @property
    def unfinished(self) -> bool:
        """Whether anything is left to write, or to sync where that is possible."""
        log = self._log
        return self._backlog.unwritten > 0 or (log.synced < log.written and not self.apart)

    def saving_here(self) -> bool:
        """Tell whether this very thread is inside ``save_now``, further up its stack."""
        return threading.get_ident() in (self._saver, self._numberer)

    # -- accepting -----------------------------------------------------------------------------

    def accept(self, entry: Entry) -> None:
        """Number one record, on any thread, also while another thread hangs in the disk.

        ``entry.record`` is the numbered one afterwards; ``save_now`` writes it.
        """
        self._backlog.inbox.append(entry)
        self._number_inbox()

    def _number_inbox(self) -> None:
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

    # -- here and now --------------------------------------------------------------------------

    def save_now(self, budget: float, *, seal: bool = False, manifests: float = _MANIFESTS) -> int:
        """Write everything that is held, synchronously; return how many records were not saved.

        Blocks at most about ``budget`` seconds, except inside a system call that hangs.  May be
        called by several threads, and from inside itself (by a finalizer): the caller that holds
        the lock saves for all.  No thread may be inside ``Backlog.accept`` meanwhile.

        Args:
            seal: as soon as no call is in flight any more.
            manifests: seconds at most that manifests may hold up the end.
        """
        backlog = self._backlog
        backlog.late = True
        self.seal_when_idle |= seal
        deadline = time.monotonic() + budget
        me = threading.get_ident()
        while self._saver != me and self._saving.acquire(timeout=_left(deadline)):
            self._saver = me
            try:
                self._number_inbox()
                waiting = [self._unanswered.popleft() for _ in range(len(self._unanswered))]
                if backlog.accepting:
                    backlog.mend()
                self._save(backlog.queue.held(), deadline)
                if backlog.book is not None:
                    backlog.book.write(again=True)  # after the records: they come first here
                with self._numbering:
                    backlog.note_written()
                safe = self._log.synced if self.sync else self._log.written
                for entry in waiting:
                    saved = (entry.record.seq or 0) <= safe
                    what = (
                        "is synced, and shipped by the next process" if saved else "was not saved"
                    )
                    error = LedgerFailed(f"record {entry.record.id} {what}")
                    entry.answer(None if saved and not self.ships else error)
                if self.seal_when_idle:
                    self._finish(deadline, manifests)
            finally:
                self._saver = None
                self._saving.release()
            if not backlog.inbox:
                break
        return backlog.unwritten

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
                    left = self._backlog.unwritten
                    what = f"{left} record{'s' * (left != 1)}" if left else "the last sync"
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
                if self.apart:
                    raise Stuck
                self._log.append(first, lines, timeout=_left(deadline))
            except Stuck:
                self._write_apart(first, lines)
        if not self.apart and self.sync:
            self._log.sync(timeout=_left(deadline))

    def _write_apart(self, first: int, lines: Sequence[bytes]) -> None:
        """Another thread hangs in the segment: leave it alone, write a segment of our own."""
        log, backlog = self._log, self._backlog
        log.abandon()
        self.apart += 1
        last = first + len(lines) - 1
        name = SegmentName(backlog.writer, first, last)
        attempt = 10_000 + self.apart
        write_sealed(
            backlog.fs, backlog.directory / SEGMENTS, name, b"".join(lines), attempt=attempt
        )
        if log.synced >= first - 1:
            backlog.live.cells[SYNCED] = log.synced = max(log.synced, last)
        log.advance(last)

    def _finish(self, deadline: float, manifests: float) -> None:
        """Seal, and take the live file away if nothing is left to come."""
        backlog = self._backlog
        if self.sealed or self.apart:
            return
        try:
            if backlog.in_flight or backlog.untracked or backlog.unwritten:
                self._log.sync(timeout=_left(deadline))
                return
            self._log.seal(timeout=_left(deadline))
            if backlog.sealer is not None:
                backlog.sealer.finish(min(_left(deadline), manifests))
            if self._log.left_open:  # a file that failed us: recovery seals it, by the counters
                backlog.live.release()
            else:
                backlog.live.remove()
            self.sealed = True
            self._gone()
        except OSError as exc:
            _log.error("the ledger was not sealed (recovery will): %s", exc)

    # -- in the background ---------------------------------------------------------------------

    def save(self) -> None:
        """Save what was accepted late: here, or in the background where an event loop runs."""
        if self.saving_here():
            return  # further up the stack it goes on
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.save_now(LATE_BUDGET)
            self._saved()
            self.watch()
        else:
            self.save_in_background(LATE_ON_LOOP)

    def save_in_background(self, wait: float) -> None:
        """Have all that is held saved; return when that was tried, or after ``wait`` seconds.

        Does not wait at all while an attempt hangs that somebody has waited for in vain.
        """
        done = _thread.allocate_lock()
        done.acquire()
        self._asked.put(done)
        if not self._begin():  # the interpreter starts no thread any more
            self.save_now(LATE_BUDGET)
        elif not self._hangs and not done.acquire(True, wait):
            self._hangs = True

    def watch(self) -> None:
        """Sync and try again in the background, if there is anything left to do."""
        if self.unfinished:
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
                if asked or self._backlog.unwritten:
                    # Nobody waits for this thread: the process may end any moment.
                    self.save_now(LATE_BUDGET, manifests=0.0)
                if time.monotonic() >= due:
                    with contextlib.suppress(OSError):  # tried again soon, and by the seal
                        self._log.sync(timeout=1.0)
                    due = time.monotonic() + LATE_INTERVAL
                self._hangs = False
                self._saved()
                for done in asked:
                    done.release()
                if not self.unfinished and self._asked.empty():
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


def _left(deadline: float) -> float:
    """Seconds until the deadline, at least a moment: -1 would wait for ever, 0 not at all."""
    return max(0.05, deadline - time.monotonic())
