"""``sink=``: the shipper of a process, in a thread of its own with an event loop of its own.

Owns that thread: one for each database that ledgers of this process are shipped to, with one
connection, however many clients there are.  It begins with the first of them and ends with the
last.  No call waits for it, unless it was asked to (``durability="shipped"``); a close gives it
what is left of its time, and what is not shipped by then stays on the disk for the next process.
Killed, or forked, it leaves nothing that another has to clean up.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from litellm_ledger._errors import MissingExtra
from litellm_ledger._postgres.address import Address
from litellm_ledger._records.statistics import SinkStatistics

if TYPE_CHECKING:
    from .shipper import Shipper

__all__ = ["Membership", "check", "join"]

_log = logging.getLogger("litellm_ledger")

_PATIENCE: Final = 5.0
"""Seconds that what a living process has written waits for that process to ship it."""
_LOOK: Final = 0.25
_LOOK_AT_THE_END: Final = 0.02
_LOOK_WHILE_AWAY: Final = 1.0
"""Seconds between two looks when there is nothing to ship, or it cannot be shipped now."""
_STUCK: Final = 2.0
"""Seconds without progress after which a close does not wait any longer."""
_FIGURES: Final = 0.5
"""Seconds between two times that figures are taken."""
_LONGEST_BREATH: Final = 0.002
_AT_EXIT: Final = 0.5
"""Seconds that the interpreter's exit waits for the thread to end."""


def check(url: str) -> str:
    """Return where the URL of a sink leads, in words that may be shown.

    Raises:
        ValueError: it is none.
        MissingExtra: asyncpg is not installed.
    """
    if not isinstance(url, str):
        raise ValueError(f'sink= takes "postgresql://…", not {type(url).__name__}')
    if "://" in url and not url.startswith(("postgresql://", "postgres://")):
        raise ValueError(
            f'sink= takes "postgresql://…", not {url.partition("://")[0]}://…; to object storage '
            "files are sent by litellm-ledger ship PATH --to URL --follow"
        )
    place = Address.of(url).place
    if importlib.util.find_spec("asyncpg") is None:
        raise MissingExtra("asyncpg", "postgres")
    return place


@dataclass(slots=True)
class _End:
    """A writer that closes, and until when it is waited for what it has written."""

    root: Path
    writer: str
    deadline: float
    done: threading.Event
    shipped: int = -1
    moved: float = 0.0


class Membership:
    """One open ledger of this process, as its sink knows it.

    Args:
        sink: the thread.
        root: the ledger.
        writer: the one that is open.
    """

    def __init__(self, sink: _Sink, root: Path, writer: str) -> None:
        self._sink = sink
        self._root = root
        self._writer = writer
        self._left = False

    def wake(self) -> None:
        """Ship what was synced now.  From any thread; never waits."""
        self._sink.wake(self._root, self._writer)

    def figures(self) -> SinkStatistics:
        """Return how shipping went, as of a moment ago."""
        return self._sink.figures

    def failing(self) -> str | None:
        """Return what is in the way of shipping, as of now; never waits."""
        shipper = self._sink.shipper
        return (None if shipper is None else shipper.failing) or self._sink.figures.failing

    def finish(self, budget: float) -> None:
        """Have the rest of a closed writer shipped, and leave; waits up to ``budget`` seconds.

        Not as long where the database does not answer.
        """
        if not self._left:
            done = threading.Event()
            end = _End(self._root, self._writer, time.monotonic() + budget, done)
            if self._sink.post(partial(self._sink.end, end)):
                done.wait(budget)
            self.leave().wait(max(0.0, end.deadline - time.monotonic()))

    def leave(self) -> threading.Event:
        """Leave what is not shipped on the disk; never waits.

        Returns what is set when how far it was shipped is noted.
        """
        noted = threading.Event()
        if self._left:
            noted.set()
        else:
            self._left = True
            self._sink.leave(self._root, self._writer, noted)
        return noted

    def leave_at_exit(self) -> None:
        """Leave while the interpreter exits: the thread is given a moment to end."""
        self.leave()
        self._sink.thread.join(_AT_EXIT)


class _Sink:
    """The thread.  What is not said to be for any thread runs on it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.address = Address.of(url)
        self.to = self.address.place
        self.figures = SinkStatistics(to=self.to)
        self.ends: list[_End] = []
        self.members = 0
        self.shipper: Shipper | None = None
        self._mutex = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[Callable[[], object]] = []
        self._over = False
        self._woken = False
        self._woke = 0.0
        self.thread = threading.Thread(target=self._run, name="litellm-ledger-sink", daemon=True)

    # -- from any thread -----------------------------------------------------------------------

    def post(self, do: Callable[[], object]) -> bool:
        """Have something done on the thread; tell whether it still runs."""
        with self._mutex:
            if self._over:
                return False
            if self._loop is None:
                self._waiting.append(do)
                return True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(do)
                return True
            return False

    def wake(self, root: Path, writer: str) -> None:
        if not self._woken:
            self._woken = True
            self.post(partial(self._wake, root, writer))

    def leave(self, root: Path, writer: str, noted: threading.Event) -> None:
        if not self.post(partial(self._leave, root, writer, noted)):
            noted.set()

    # -- on the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as exc:  # noqa: BLE001 - a daemon: nobody else would hear of it
            _log.critical("shipping to %s ended: %s", self.to, exc, exc_info=exc)
        finally:
            with self._mutex:
                self._over, self._loop = True, None
            for end in self.ends:
                end.done.set()
            _forget(self)

    async def _main(self) -> None:
        from .shipper import Shipper  # with asyncpg: in this thread, where it holds nothing up

        self.shipper = shipper = Shipper(self.address, breathe=self._breathe)
        with self._mutex:
            self._loop = asyncio.get_running_loop()
            waiting, self._waiting = self._waiting, []
        for do in waiting:
            do()
        while shipper.roads:
            await self._ship(shipper)
            with self._mutex:
                self._over = True  # what was posted before is done now, and nothing comes after
            await asyncio.sleep(0)
            if shipper.roads:
                with self._mutex:
                    self._over = False
        await shipper.close()

    async def _ship(self, shipper: Shipper) -> None:
        taken = 0.0
        while shipper.roads:
            self._woken = False
            moved = await shipper.step()
            self._look_at_ends()
            if time.monotonic() >= taken + _FIGURES or self.ends:
                self.figures, taken = shipper.figures(), time.monotonic()
            if not moved and not self._woken:
                await shipper.sleep(self._pause(shipper))

    def _pause(self, shipper: Shipper) -> float:
        if self.ends:
            return _LOOK_AT_THE_END
        return _LOOK if shipper.failing is None else _LOOK_WHILE_AWAY

    def _wake(self, root: Path, writer: str) -> None:
        assert self.shipper is not None
        for road in self.shipper.roads:
            if road.root == root:
                road.source.lookout.soon(writer)
        self.shipper.wake()

    def join(self, root: Path, writer: str, hear: Callable[[int], None], *, recovers: bool) -> None:
        """Take a writer on."""
        from .road import Road

        assert self.shipper is not None
        for road in self.shipper.roads:
            if road.root == root:
                break
        else:
            road = Road(root, self.to, patience=_PATIENCE, recovers=recovers)
            self.shipper.roads.append(road)
        road.own[writer] = hear
        self.shipper.wake()

    def end(self, end: _End) -> None:
        """Hurry: a close waits."""
        self.ends.append(end)
        self._wake(end.root, end.writer)

    def _leave(self, root: Path, writer: str, noted: threading.Event) -> None:
        assert self.shipper is not None
        for road in list(self.shipper.roads):
            if road.root == root:
                road.own.pop(writer, None)
                if not road.own:
                    answered = self.shipper.last_success is not None
                    road.note(self.shipper.failing, answered=answered, now=True)
                    self.shipper.roads.remove(road)
        noted.set()
        self.shipper.wake()

    def _look_at_ends(self) -> None:
        """Let go of closes that have nothing to wait for, or wait in vain."""
        assert self.shipper is not None
        now = time.monotonic()
        for end in list(self.ends):
            standing, shipped, told = None, 0, False
            for road in self.shipper.roads:
                if road.root == end.root:
                    standing = road.source.lookout.standings.get(end.writer)
                    shipped = road.shipped(end.writer)
                    told = end.writer in road.known and road.known[end.writer].closed
            self.shipper.tell_soon()
            if shipped > end.shipped:
                end.shipped, end.moved = shipped, now
            if (
                standing is None
                or (standing.closed and shipped >= standing.top and (told or not shipped))
                or self.shipper.failing is not None
                or now >= min(end.deadline, end.moved + _STUCK)
            ):
                end.done.set()
                self.ends.remove(end)

    def _breathe(self) -> None:
        """Let others run: the interpreter would make them wait 5 ms each time."""
        worked = time.perf_counter() - self._woke
        time.sleep(0.0 if self.ends else min(worked, _LONGEST_BREATH))
        self._woke = time.perf_counter()


_sinks: dict[str, _Sink] = {}
_mutex = threading.Lock()
_inherited: list[object] = []


def join(
    url: str, root: Path, writer: str, hear: Callable[[int], None], *, recovers: bool = True
) -> Membership:
    """Have a writer of this process shipped; from any thread, never waits.

    Args:
        url: of the database.
        root: the ledger.
        writer: the one that is open.
        hear: called, on the thread of the sink, with the last number that the database has.
        recovers: finish what writers of this ledger left behind that died.
    """
    with _mutex:
        sink = _sinks.get(url)
        job = None
        if sink is not None:
            job = partial(sink.join, root, writer, hear, recovers=recovers)
        if sink is None or job is None or not sink.post(job):
            sink = _sinks[url] = _Sink(url)
            sink.post(partial(sink.join, root, writer, hear, recovers=recovers))
            sink.thread.start()
    return Membership(sink, root, writer)


def _forget(sink: _Sink) -> None:
    with _mutex:
        if _sinks.get(sink.url) is sink:
            del _sinks[sink.url]


def _forked() -> None:
    """In a forked child: the thread is not there, and the connection is the parent's.

    The child must not keep the connection open when the parent dies: the server would keep its
    transaction, and the row that it has locked.
    """
    global _mutex
    _mutex = threading.Lock()
    for sink in _sinks.values():
        _inherited.append(sink)
        if sink.shipper is not None:
            sink.shipper.abandon()
    _sinks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
