"""Single flight: of equal calls at once, one makes the request, and all get its answer.

Owns the tasks that make such requests, and the rule of when one ends early: a caller that is
cancelled leaves the request to those who still wait for it; the last of them takes it along.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Hashable
from typing import Any

from litellm_ledger._runtime.cancellation import outlive_cancellation

__all__ = ["Flight", "Flights"]


class Flight:
    """One request under way.

    Attributes:
        task: makes it, in the context of the caller that began it.
        waiting: callers that wait for it.
    """

    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.waiting = 0


class Flights:
    """The requests under way, by what makes calls equal."""

    def __init__(self) -> None:
        self._aloft: dict[Hashable, Flight] = {}

    def forget_parent(self) -> None:
        """In a forked child: none of them is ours."""
        self._aloft.clear()

    def find(self, key: Hashable) -> Flight | None:
        """Return the flight that an equal call can join."""
        flight = self._aloft.get(key)
        return None if flight is None or flight.task.done() else flight

    def launch(self, key: Hashable, work: Coroutine[Any, Any, Any]) -> Flight:
        """Begin one.  Whoever launches it has to wait for it."""
        task = asyncio.get_running_loop().create_task(work, name="litellm-ledger-cached-call")
        flight = self._aloft[key] = Flight(task)
        task.add_done_callback(lambda _: self._landed(key, flight))
        return flight

    async def wait(self, key: Hashable, flight: Flight) -> None:
        """Wait for a flight to end, however it does.

        Cancelled, the last to leave it takes the request along, and waits until its record is
        written, as for a call of its own.
        """
        flight.waiting += 1
        try:
            await asyncio.wait({flight.task})
        except asyncio.CancelledError:
            if self._leave(key, flight):
                with contextlib.suppress(BaseException):  # the caller's own cancellation is raised
                    await outlive_cancellation(flight.task)
            raise
        except BaseException:  # collected or closed: nothing can be awaited any more
            with contextlib.suppress(RuntimeError):  # the loop may be closed
                self._leave(key, flight)
            raise
        self._leave(key, flight)

    def _leave(self, key: Hashable, flight: Flight) -> bool:
        """Stop waiting; tell whether that has ended the flight."""
        flight.waiting -= 1
        if flight.waiting or flight.task.done():
            return False
        self._landed(key, flight)  # nobody joins what is being cancelled
        flight.task.cancel()
        return True

    def _landed(self, key: Hashable, flight: Flight) -> None:
        if self._aloft.get(key) is flight:
            del self._aloft[key]
        if flight.task.done() and not flight.task.cancelled():
            flight.task.exception()  # looked at: those who waited for it have it, if any
