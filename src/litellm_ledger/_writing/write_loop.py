"""What the writer task does: take a batch, encode it, get it to disk, say how far it got.

Group commit is natural: what arrives while a write is under way is the next batch; nobody lingers.
A small batch is written straight from the task while the disk answers fast (6 µs from record to
ack, against 115 µs through a thread); large ones, syncs, rotation, and everything after a write
that was slow go through aiofiles to a thread of the ledger's own.  A write that fails keeps its
records and is tried again, while calls go on.

Owns the loop and its figures.  Never opens, closes or acknowledges anything itself.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final

import aiofiles.os

from litellm_ledger._storage.segment import UNSYNCED_SOFT, SegmentLog

from .backlog import Backlog
from .queue import Signal

__all__ = ["WriteLoop"]

_log = logging.getLogger("litellm_ledger")

BATCH_RECORDS: Final = 256
"""Records encoded at one go: at 2–3 µs each, well under a millisecond of the loop."""
BATCH_BYTES: Final = 192 * 1024
"""Aimed at, by the size of the lines of late: below what is written from the loop."""
DIRECT_BYTES: Final = 256 * 1024
"""Largest batch written from the loop: about 60 µs of ``write`` into the page cache."""
SLOW_WRITE: Final = 0.02
"""Seconds: a write that took longer sends the next ones to the thread (a busy machine takes the
processor away for 5 to 10 ms; only beyond that is it the disk) …"""
SLOW_PENALTY: Final = 1.0
"""… for this long after the last slow one, so a stalled disk does not hold the loop twice."""
TURN: Final = 0.0005
"""Seconds of writing in the task's place after which the task has a turn, and with it everybody
else: who records in a loop, each record written at once, would otherwise keep the event loop."""
RETRY_FIRST: Final = 0.01
RETRY_LAST: Final = 1.0


class WriteLoop:
    """The body of the writer task.

    Args:
        executor: one thread of the ledger's own, for whatever may block.
        durable: sync every batch before it counts.
        progress: called, on the loop, when the log has come further.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        durable: bool,
        sync_interval: float,
        progress: Callable[[], None],
    ) -> None:
        self._executor = executor
        self._durable = durable
        self._sync_interval = sync_interval
        self._tell = progress
        self._timer: asyncio.TimerHandle | None = None
        self._direct_after = 0.0
        self._in_its_place = 0.0
        self._turning = False
        self._unsynced_since: float | None = None
        self._disk: tuple[float, float | None] = (0.0, None)
        self._refused: str | None = None
        self.retries = 0
        self.last_error: str | None = None
        self.on_loop = 0
        self.on_thread = 0
        self.bytes = 0

    async def serve(self, backlog: Backlog) -> None:
        """Write whatever is queued until ``Signal.STOP`` comes out, which is synced behind."""
        queue = backlog.queue
        hand = queue.hand
        stop = False
        line_size = 512  # of late, in bytes: bounds a batch of huge records before it is encoded
        while not stop:
            await queue.get()
            queue.take(max(1, min(BATCH_RECORDS, BATCH_BYTES // line_size) - 1))
            if backlog.accepting:  # nobody is in the middle of it
                backlog.mend()
            sync = self._durable
            first = last = 0
            lines: list[bytes] = []
            for item in hand:
                if isinstance(item, Signal):
                    sync = sync or item is not Signal.WAKE
                    stop = stop or item is Signal.STOP
                elif item[0] > last:  # not twice: the handler of a signal has raised in `give_back`
                    lines.append(backlog.line(item))
                    last = item[0]
                    first = first or last
            # Who comes alone may go on without us; of those who come together we make batches.
            self._in_its_place = 0.0 if len(lines) < 2 else math.inf
            book = backlog.book
            if book is not None and (book.pending or (sync and book.refused)):
                await self._in_thread(partial(book.write, again=sync))
            size = sum(map(len, lines))
            if lines:
                line_size = max(64, size // len(lines))
            await self._commit(backlog, first, lines, size, sync=sync, insist=self._durable or stop)
            hand.clear()
            if not queue.empty():
                await asyncio.sleep(0)  # others want the loop too

    def at_once(self, backlog: Backlog) -> None:  # noqa: C901 - the shortest way of a record, without calls in between
        """Do the task's work in its place: write the one record that is in its hand.

        For a caller who is alone, and would only wait until the task has had its turn: two rounds
        of the loop.  If it is not one quick write, or the task has had no turn for too long, or its
        last batch was of several records, or the price book is to be written, the task does it.
        """
        queue = backlog.queue
        hand = queue.hand
        began = time.perf_counter()
        try:
            if backlog.accepting:
                backlog.mend()
            if self._in_its_place > TURN / 2 and not self._turning:
                asyncio.get_running_loop().call_soon(self._turned)
                self._turning = True
            item = hand[0] if hand else Signal.WAKE
            if (
                not isinstance(item, Signal)
                and self._in_its_place <= TURN
                and began >= self._direct_after
                and (backlog.book is None or not backlog.book.pending)
            ):
                line = backlog.line(item)
                if backlog.log.append_now(item[0], (line,), len(line)):
                    hand.clear()
                    self.on_loop += 1
                    self.bytes += len(line)
                    self._progress(backlog)
                    if backlog.log.unsynced_bytes >= UNSYNCED_SOFT:
                        queue.put_nowait(Signal.SYNC)
        except OSError as exc:  # the task will meet it as well, and knows what to do
            if exc.errno is None:  # no error of the disk's: the time-out of a signal handler
                raise
        except RuntimeError:  # no loop is running, or it is closed
            pass
        finally:  # also if the handler of a signal raises just now
            if hand:
                queue.give_back()
            if queue.waiting:  # also what a finalizer has recorded meanwhile
                queue.put_nowait(Signal.WAKE)
            took = time.perf_counter() - began
            self._in_its_place += took
            self._disk = self._disk[0] + took, None
            if took > SLOW_WRITE:
                self._direct_after = began + took + SLOW_PENALTY

    def _turned(self) -> None:
        """The loop has had a turn by itself, as it has while a request is under way."""
        self._turning = False
        if self._in_its_place < math.inf:
            self._in_its_place = 0.0

    async def _commit(
        self,
        backlog: Backlog,
        first: int,
        lines: Sequence[bytes],
        size: int,
        *,
        sync: bool,
        insist: bool,
    ) -> None:
        """Get one batch to where it must be, however often the disk refuses.

        A sync in the background that fails is no reason to stop writing unless we ``insist``: it is
        due again in ``sync_interval``.
        """
        log = backlog.log
        pause = RETRY_FIRST
        while True:
            try:
                if lines and not sync and self._write_direct(log, first, lines, size):
                    self.on_loop += 1
                elif lines:
                    write = log.append_and_sync if sync else log.append
                    took = await self._in_thread(write, first, lines)
                    self.on_thread += 1
                    if not sync:  # of a sync nothing follows for a plain write
                        self._watch(took)
                elif sync:
                    await self._in_thread(log.sync)
                self._progress(backlog)
                if log.unsynced_bytes >= UNSYNCED_SOFT:
                    await self._in_thread(log.sync)
                    self._progress(backlog)
                self.bytes += size
                self._refused = None
                return
            except OSError as exc:
                self._progress(backlog)
                self.retries += 1
                self.last_error = self._refused = str(exc)
                if not insist and log.written >= first + len(lines) - 1:
                    _log.warning("the ledger cannot sync (%s); trying again, nothing is lost", exc)
                    self.bytes += size
                    return
                if pause == RETRY_FIRST:
                    _log.warning(
                        "the ledger cannot write (%s); trying again, nothing is lost so far", exc
                    )
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_LAST)

    def _write_direct(self, log: SegmentLog, first: int, lines: Sequence[bytes], size: int) -> bool:
        """Write from the loop if that is one quick system call; tell whether it was done."""
        began = time.perf_counter()
        if (
            size > DIRECT_BYTES
            or began < self._direct_after
            or not log.append_now(first, lines, size)
        ):
            return False
        took = time.perf_counter() - began
        self._disk = self._disk[0] + took, None
        self._watch(took)
        return True

    def _watch(self, took: float) -> None:
        if took > SLOW_WRITE:
            self._direct_after = time.perf_counter() + SLOW_PENALTY

    def disk(self) -> tuple[float, str | None]:
        """Return the seconds spent in the disk so far, and the error that it gives, if it does."""
        spent, since = self._disk
        return spent + (time.perf_counter() - since if since else 0.0), self._refused

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> float:
        """Run on the disk's thread; return the seconds it took there.

        Not the seconds until we run again: on a busy loop those say nothing of the disk.
        """
        timed = aiofiles.os.wrap(self._timed)
        took: float = await timed(function, *args, executor=self._executor)
        return took

    def _timed(self, function: Callable[..., Any], *args: Any) -> float:
        began, spent = time.perf_counter(), self._disk[0]
        self._disk = spent, began  # noted here and not on the loop, which may be what is slow
        try:
            function(*args)
        finally:
            took = time.perf_counter() - began
            self._disk = spent + took, None
        return took

    def _progress(self, backlog: Backlog) -> None:
        log = backlog.log
        backlog.note_written()
        self._tell()
        if log.synced == log.written:
            self._unsynced_since = None
            return
        if self._unsynced_since is None:
            self._unsynced_since = time.monotonic()
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._sync_interval, self._sync_due, backlog)

    def _sync_due(self, backlog: Backlog) -> None:
        self._timer = None
        if not backlog.late:
            backlog.queue.put_nowait(Signal.SYNC)

    def stop_timer(self) -> None:
        """Cancel the background sync: the task has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def oldest_unsynced(self) -> float:
        """Seconds since the oldest unsynced record was written; 0 when all are synced."""
        since = self._unsynced_since
        return 0.0 if since is None else time.monotonic() - since
