"""Limits on calls: how many requests are under way at once, and how long one call may take.

``Limit`` hands out slots, first come, first served; ``Deadline`` cuts what takes too long.  Neither
knows what a call is, and neither writes anything down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

from .waiters import Room

__all__ = ["Deadline", "Limit", "Slot"]

_log = logging.getLogger("litellm_ledger")


class Slot:
    """The right to one request under way."""

    __slots__ = ("_limit", "owner")

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        task: asyncio.Task[Any] | None = asyncio.current_task()
        self.owner = None if task is None else weakref.ref(task)

    def release(self) -> None:
        """Give the slot to the next in line, once.  On the loop's thread."""
        self._limit.held.discard(self)
        self._limit.room.admit()


class Limit:
    """At most ``most`` requests under way (``None``: any number, counted); more wait in line.

    The line itself is ``_runtime.waiters.Room``, not ``anyio.CapacityLimiter``: in anyio 4.12 a
    newcomer can overtake a waiter that was just let in (2 at once with a limit of 1), and in 4.9
    nobody is woken in the place of a waiter that is cancelled at that moment.  We support anyio
    from 4.4.
    """

    def __init__(self, most: int | None) -> None:
        if most is not None and (type(most) is not int or most < 1):
            raise ValueError(
                f"max_concurrency must be a whole number above 0, or None, not {most!r}"
            )
        self.most = most
        self.held: set[Slot] = set()
        self.free = 0  # requests under way without a slot, where any number may be
        self.room = Room(self._free)
        self._closed: Callable[[], Exception] | None = None
        self._warned = False

    @property
    def active(self) -> int:
        return len(self.held) + self.free

    @property
    def waiting(self) -> int:
        return len(self.room)

    async def enter(self) -> Slot:
        """Wait for a slot.  Cancelled, the place in line, or the slot, goes to the next."""
        if self._closed is not None:
            raise self._closed()
        if not self.room.at_once():
            self._warn_of_itself()
            await self.room.enter(asyncio.get_running_loop())
        slot = Slot(self)
        self.held.add(slot)
        return slot

    def close(self, error: Callable[[], Exception]) -> None:
        """Turn away all who wait and all who come; slots that are held stay held."""
        self._closed = error
        self.room.fail(error())

    def _free(self) -> int:
        return sys.maxsize if self.most is None else self.most - len(self.held)

    def _warn_of_itself(self) -> None:
        """Say that a task seems to wait for itself: only its own open streams hold slots."""
        task = asyncio.current_task()
        if self._warned or task is None or len(self.room):
            return
        if all(slot.owner is not None and slot.owner() is task for slot in self.held):
            self._warned = True
            _log.warning(
                "a call waits for one of max_concurrency=%s slots, and all of them are held by "
                "streams that the same task has opened and not ended: read or close those first, "
                "or raise max_concurrency",
                self.most,
            )


class Deadline:
    """The end of one call's time, ``seconds`` from now; ``error`` makes what the caller gets."""

    def __init__(self, seconds: float, error: Callable[[], Exception]) -> None:
        self._error = error
        self._loop = asyncio.get_running_loop()
        self._scope: asyncio.Timeout | None = None
        self.when = self._loop.time() + seconds

    @property
    def left(self) -> float:
        """Seconds until then; below 0 afterwards."""
        return self.when - self._loop.time()

    @property
    def struck(self) -> bool:
        """Whether what runs inside ``enforced`` is being cancelled because of it."""
        return self._scope is not None and self._scope.expired()

    @contextlib.asynccontextmanager
    async def enforced(self) -> AsyncIterator[None]:
        """Cut what takes longer, and raise the error in its place."""
        try:
            async with asyncio.timeout_at(self.when) as self._scope:
                yield
        except TimeoutError as exc:
            if not self.struck:
                raise
            raise self._error() from exc

    def met(self) -> None:
        """The answer is here in time: nothing is cut any more."""
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(None)
