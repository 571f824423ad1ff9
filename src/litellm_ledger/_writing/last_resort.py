"""Records that come when the writer task is gone: one thread that saves, syncs and tries again.

After a close a call may still be in flight; somebody may have cancelled every task of the loop.
What is accepted then is written at once by ``Backlog.save_now``.  Whoever has a loop to run must
not hang in the disk with it, so this thread does it and the loop waits for a moment only.  It syncs
within a second what was only written, and tries every second what a full disk refused.

Owns the thread, which runs while there is something to do.  Never numbers or queues anything.
"""

from __future__ import annotations

import _thread
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, Protocol

__all__ = ["LATE_BUDGET", "LATE_ON_LOOP", "LateSaver"]

LATE_INTERVAL: Final = 1.0
"""Seconds after which what was saved late is synced, and what could not be saved is tried again."""
LATE_BUDGET: Final = 5.0
"""Seconds that one attempt may take, off the loop."""
LATE_ON_LOOP: Final = 0.1
"""Seconds for which an event loop waits for a late record to be saved."""


class Late(Protocol):
    """What is to be saved (``Backlog``)."""

    @property
    def unwritten(self) -> int:
        """Records that the operating system does not have yet."""

    @property
    def unfinished(self) -> bool:
        """Whether anything is left to write or to sync."""

    def save_now(self, budget: float) -> int:
        """Write what is held."""

    def sync_now(self) -> None:
        """Sync what is written.  Never raises."""


class LateSaver:
    """Saves a backlog in the background.

    Everything here is safe in a finalizer and in a signal handler, which may strike while this very
    thread holds a lock of ``threading``'s, and nothing says that it may be taken twice: so no
    ``Thread``, no ``Timer`` and no ``Event``.

    Args:
        backlog: whose records.
        saved: called after each attempt, on the thread.
    """

    def __init__(self, backlog: Late, saved: Callable[[], None]) -> None:
        self._backlog = backlog
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
            self._backlog.save_now(LATE_BUDGET)
        elif not self._hangs and not done.acquire(True, wait):
            self._hangs = True

    def watch(self) -> None:
        """Sync and try again in the background, if there is anything left to do."""
        if self._backlog.unfinished:
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
                    self._backlog.save_now(LATE_BUDGET)
                if time.monotonic() >= due:
                    self._backlog.sync_now()
                    due = time.monotonic() + LATE_INTERVAL
                self._hangs = False
                self._saved()
                for done in asked:
                    done.release()
                if not self._backlog.unfinished and self._asked.empty():
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
