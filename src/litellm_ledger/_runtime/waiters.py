"""Who waits for what: acknowledgements by sequence number, and room in line.

Two small queues of futures for one event loop.  ``Acks`` wakes, in order, everybody whose number
has been passed.  ``Room`` lets callers in first come, first served, and never lets one overtake.
Neither knows what is being written.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable

__all__ = ["Acks", "Room"]


class Acks:
    """Futures that come due when a counter passes their number.  Numbers never go down."""

    __slots__ = ("_alarm", "_alarms", "_due", "passed", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._alarms: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._due = math.inf
        self.passed = 0

    def wait_for(
        self, number: int, loop: asyncio.AbstractEventLoop, timeout: float | None = None
    ) -> asyncio.Future[None]:
        """Return a future, done once ``number`` has been passed or ``timeout`` seconds have.

        Code that gives a timeout looks at ``passed`` afterwards.
        """
        future = loop.create_future()
        if number <= self.passed:
            future.set_result(None)
        else:
            if timeout is not None:
                # One timer for all, armed for the first: a timer each costs as much as the write.
                due = loop.time() + timeout
                self._alarms.append((due, future))
                if due < self._due:
                    self._arm(due, loop)
            waiting = self.waiting
            place = len(waiting)
            while place and waiting[place - 1][0] > number:  # a flush looks ahead of this one
                place -= 1
            waiting.insert(place, (number, future))
        return future

    def passes(self, number: int) -> None:
        """Wake everybody up to ``number``."""
        if number <= self.passed:
            return
        self.passed = number
        waiting = self.waiting
        while waiting and waiting[0][0] <= number:
            _resolve(waiting.popleft()[1], None)
        alarms = self._alarms
        while alarms and alarms[0][1].done():
            alarms.popleft()

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let go of those who have waited long enough; set the alarm for the next."""
        self._due, now = math.inf, loop.time()
        for due, future in self._alarms:
            if due <= now:
                _resolve(future, None)
        self._alarms = deque(alarm for alarm in self._alarms if not alarm[1].done())
        self._arm(min((due for due, _ in self._alarms), default=math.inf), loop)

    def _arm(self, due: float, loop: asyncio.AbstractEventLoop) -> None:
        before = self._alarm
        self._alarm = None if due == math.inf else loop.call_at(due, self._ring, loop)
        self._due = due  # last: a handler of a signal that raises here must not leave us deaf
        if before is not None:
            before.cancel()

    def fail(self, error: BaseException) -> None:
        """Give everybody the error; nobody may hang on a writer that is dead."""
        while self.waiting:
            _resolve(self.waiting.popleft()[1], error)
        self._alarms.clear()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm, self._due = None, math.inf


class Room:
    """Admission to a bounded backlog, in the order of asking.

    ``free()`` says how many places there are; a place granted to a waiter that has not run yet is
    counted until it does, so that nobody slips in between.
    """

    __slots__ = ("_free", "granted", "waiting")

    def __init__(self, free: Callable[[], int]) -> None:
        self._free = free
        self.granted = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self.waiting)

    def at_once(self) -> bool:
        """Whether one more may enter now without overtaking anybody."""
        return not self.waiting and not self.granted and self._free() > 0

    async def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for a place.  The caller uses it before its next await, or not at all.

        Cancellation gives the place to the next in line.
        """
        if self.at_once():
            return
        future = loop.create_future()
        self.waiting.append(future)
        loop.call_soon(self.admit)  # room behind somebody who was let in and has not run yet
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.granted -= 1
                self.admit()
            else:
                with contextlib.suppress(ValueError):
                    self.waiting.remove(future)
            raise
        self.granted -= 1

    def admit(self) -> None:
        """Let in as many as there is room for.  Called whenever something was written."""
        while self.waiting and self._free() - self.granted > 0:
            future = self.waiting.popleft()
            if not future.done():
                self.granted += 1
                _resolve(future, None)

    def fail(self, error: BaseException) -> None:
        """Turn everybody away with the error."""
        while self.waiting:
            _resolve(self.waiting.popleft(), error)


def _resolve(future: asyncio.Future[None], error: BaseException | None) -> None:
    if not future.done():
        with contextlib.suppress(RuntimeError):  # its loop is closed: nobody is left to wake
            future.set_result(None) if error is None else future.set_exception(error)
