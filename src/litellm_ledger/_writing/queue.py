"""The queue between those who record and the one task that writes.

Owns what is in it: records that are numbered and not yet written, and *the hand*, what the task has
taken and not yet written.  A signal handler or a finalizer may strike between any two bytecodes and
look at all of it (the last resort) or add to it; nothing is ever out of reach, and nothing counts
twice.  Never numbers, encodes or writes anything.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from litellm_ledger._records.record import UsageRecord

__all__ = ["Accepted", "Entry", "RecordQueue", "Signal"]


class Signal(enum.Enum):
    """What stands in the queue beside records."""

    SYNC = "sync"
    STOP = "stop"
    WAKE = "wake"  # nothing of its own: what was put in quietly is to be written after all


@dataclass(eq=False, slots=True)
class Entry:
    """One record on its way in from another thread, a finalizer, or after the close.

    ``act`` is how it is accepted (``Backlog.accept`` or a bound ``accept_outcome``); ``record`` is
    the numbered one from then on, and ``future`` gets it when it is safe.
    """

    record: UsageRecord
    act: Callable[[UsageRecord], UsageRecord]
    future: Future[UsageRecord] | None = None

    def answer(self, error: BaseException | None = None) -> None:
        """Tell who waits for the record, if anybody does."""
        if self.future is None or self.future.done():
            return
        if error is None:
            self.future.set_result(self.record)
        else:
            self.future.set_exception(error)


Accepted = tuple[int, datetime | None, UsageRecord, int | None]
"""A record as it waits: its number, the time of acceptance, itself, its cost in picodollars.

Without a time it has been completed already, for a caller who wanted to see it.
"""


class RecordQueue(asyncio.Queue["Accepted | Signal"]):
    """The asyncio queue of records.  What is taken from it appears in ``hand`` first: a record may
    be in both places for a moment (its number tells), but never in neither.
    """

    def _init(self, maxsize: int) -> None:  # noqa: ARG002 - asyncio.Queue gives it
        # An append to what waits wakes nobody; so it is written in the task's place, or the task
        # has been woken for what is before it, or ``Signal.WAKE`` follows.
        self.waiting = self._queue = deque[Accepted | Signal]()
        self.hand: list[Accepted | Signal] = []

    def _get(self) -> Accepted | Signal:
        item = self._queue[0]
        self.hand.append(item)
        self._queue.popleft()
        return item

    def take(self, most: int) -> None:
        """Move up to ``most`` items to the hand at once: a tenth of the cost of as many ``get``."""
        waiting = self._queue
        most = min(most, len(waiting))
        while True:
            try:
                self.hand.extend(islice(waiting, most))
                break
            except RuntimeError:  # a signal handler has recorded since ``islice``; nothing is taken
                pass
        for _ in range(most):
            waiting.popleft()

    def give_back(self) -> None:
        """Put what is in the hand to the front again; while it moves it is in both places."""
        waiting = self._queue
        for at, item in enumerate(self.hand):
            if waiting and item is waiting[0]:  # not popped: the handler of a signal has raised
                del self.hand[at:]
                break
        waiting.extendleft(reversed(self.hand))
        self.hand.clear()

    def held(self) -> list[Accepted]:
        """Return hand and queue, in order, without taking anything."""
        both = [*self.hand, *self._queue]
        numbered = {item[0]: item for item in both if not isinstance(item, Signal)}
        return list(numbered.values())  # in both places at once while it moves: it counts once

    def forget(self, upto: int) -> None:
        """Drop everything up to a number: it is on disk."""
        self.hand[:] = [i for i in self.hand if not isinstance(i, Signal) and i[0] > upto]
        waiting = self._queue
        while waiting and (isinstance(waiting[0], Signal) or waiting[0][0] <= upto):
            waiting.popleft()
