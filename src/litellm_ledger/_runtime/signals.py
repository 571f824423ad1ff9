"""SIGTERM and SIGINT: drain first, then die of the signal, and never take a server's signal away.

One coordinator owns the handlers of the process, from the first open client to the last.  What it
does depends on whose the signal is when a client opens; docs/ARCHITECTURE.md has the table.  Where
it is nobody's, the loop hears of the first signal: the user's ``async with`` unwinds and drains,
then the signal is delivered again, and its default action gives the exit status.  A second signal,
a loop that does not run, or a drain that takes too long: the last resort, then die.

Never decides what is saved or how: that is the writer's.
"""

from __future__ import annotations

import _thread
import asyncio
import atexit
import contextlib
import contextvars
import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, Literal

from . import process as _process

__all__ = ["Member", "Mode", "enter", "leave", "listening", "server_is_ending"]

_log = logging.getLogger("litellm_ledger")

Mode = Literal["on", "chained", "off"]
_Handler = Callable[[int, FrameType | None], Any]

_SIGNALS: Final = tuple(s for n in ("SIGTERM", "SIGINT") if (s := getattr(signal, n, None)))
_GRACE: Final = 2.0
"""Seconds beyond the drain time after which a process that was told to end is made to."""
_LAST_BUDGET: Final = 2.0
_AGAIN: Final = 0.05
"""Seconds after which a signal that came in the middle of a write is looked at again."""


@dataclass(eq=False, slots=True)
class Member:
    """One open client: its loop, the task that opened it, how to close it, how to hint at it."""

    loop: asyncio.AbstractEventLoop
    opener: asyncio.Task[Any] | None
    close: Callable[[], Awaitable[None]]
    hint: Callable[[], None]
    drain_timeout: float


class _Coordinator:
    def __init__(self) -> None:
        self.members: list[Member] = []
        self._previous: dict[int, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._received = 0
        self.listeners: dict[int, Callable[[], object]] = {}
        self.told = False
        self._ending: asyncio.Task[None] | None = None
        self._dying_of: int | None = None
        self._ours: _Handler = self._on_signal  # bound once: handlers are compared by identity
        self._chain: _Handler = self._on_chained

    # -- handlers in and out -------------------------------------------------------------------

    def enter(self, member: Member) -> Mode:
        """Handle signals for an open client until ``leave``; say how."""
        if threading.current_thread() is not threading.main_thread():
            _log.debug("signals are not handled: the client was opened outside the main thread")
            return "off"
        self.members = [m for m in self.members if not m.loop.is_closed()]
        modes = [self._install(number, member.loop) for number in _SIGNALS]
        self.members.append(member)
        return "on" if "on" in modes else "chained" if "chained" in modes else "off"

    def leave(self, member: Member) -> None:
        """Stop; the last one out gives the handlers back."""
        with contextlib.suppress(ValueError):
            self.members.remove(member)
        if not self.members and self._ending is None:
            self._restore()

    def handlers(self, number: int) -> list[Any]:
        """Return the handler of a signal, and that which it leads to."""
        return [signal.getsignal(number), self._previous.get(number)]

    def _install(self, number: int, loop: asyncio.AbstractEventLoop) -> Mode:
        current = signal.getsignal(number)
        if (current is self._ours and self._loop is loop) or _is_runner(current):
            return "on"  # the Runner cancels the main task: exactly what is wanted
        if number in self._previous and callable(current) and current is not self._ours:
            return "chained"  # ours, or may lead to the handler of ours that it found: no ring
        try:
            if current is self._ours or current in (signal.SIG_DFL, signal.default_int_handler):
                if current is not self._ours:
                    self._previous[number] = current
                self._loop = loop
                loop.add_signal_handler(number, self._first, number)
                signal.signal(number, self._ours)  # on top: for a loop that does not run
                signal.siginterrupt(number, False)
                return "on"
            if callable(current):
                self._previous[number] = current
                signal.signal(number, self._chain)
                return "chained"
        except (NotImplementedError, RuntimeError, ValueError, OSError) as exc:
            _log.debug("signal %s is not handled: %s", number, exc)
        return "off"

    def _restore(self) -> None:
        """Give back what is still ours, and nothing that somebody has put there since."""
        for number, previous in list(self._previous.items()):
            current = signal.getsignal(number)
            with contextlib.suppress(ValueError, RuntimeError, OSError):
                if current is self._ours and self._loop is not None and not self._loop.is_closed():
                    self._loop.remove_signal_handler(number)
                if current is self._ours or current is self._chain:
                    signal.signal(number, previous)
                    del self._previous[number]
        self._loop = None
        self._received = 0
        self.told = False
        self._ending = self._dying_of = None

    # -- a signal ------------------------------------------------------------------------------

    def _on_chained(self, number: int, frame: FrameType | None) -> None:
        for member in list(self.members):
            member.hint()
        self.told = True
        for listener in list(self.listeners.values()):
            with contextlib.suppress(RuntimeError):  # its loop is closed
                listener()
        previous = self._previous.get(number)
        if callable(previous):
            previous(number, frame)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - Python gives it
        """In the main thread, between two bytecodes of whatever runs there."""
        self._received += 1
        if self._received > 1 or self._loop is None or not self._loop.is_running():
            self._die(number)
            return
        patience = max((m.drain_timeout for m in self.members), default=0.0) + _GRACE
        _later(patience, self._overdue, number)

    def _first(self, number: int) -> None:
        """On the loop: begin the orderly end."""
        if self._ending is None and self._loop is not None:
            self._dying_of = number
            self._ending = self._loop.create_task(
                self._end(number), name="litellm-ledger-signal", context=contextvars.Context()
            )

    async def _end(self, number: int) -> None:
        runner = signal.getsignal(signal.SIGINT)
        main = runner.keywords.get("main_task") if isinstance(runner, functools.partial) else None
        openers = {m.opener for m in self.members if m.opener is not None}
        tasks = openers if main is None or main.done() else {main}
        for task in tasks:
            task.cancel()
        torn_down = await _all_done(tasks)  # by a Runner, once its main task has ended
        for member in list(self.members):
            with contextlib.suppress(Exception):
                await member.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if not torn_down:
            for task in others:
                task.cancel()
        await _all_done(others)  # their calls end too, and those outcomes count
        self._deliver(number)

    def _overdue(self, number: int) -> None:
        """On the watchdog thread: the drain has not ended in time, or nobody needs us any more."""
        loop = self._loop
        if loop is None:  # delivered: what lives on is the user's
            return
        _last_resort()
        if not loop.is_running():  # so is what runs after the loop; the signal comes at exit
            return
        # Only the main thread may restore a handler, and it is stuck: no default action for us.
        os._exit(128 + number)

    def _die(self, number: int) -> None:
        if any(writer.saving_here() for writer in _process.writers()):
            # We struck in the middle of a write or of the last resort: that ends first.  At exit,
            # where no thread may start any more, ``at_exit`` follows it.
            self._dying_of = number
            _later(_AGAIN, os.kill, os.getpid(), number)
            return
        _last_resort()
        self._deliver(number)

    def _deliver(self, number: int) -> None:
        """Let the signal do what it would have done without us."""
        previous = self._previous.get(number)
        self._restore()
        if number in self._previous:  # somebody's handler that leads to us is on top: past it
            with contextlib.suppress(ValueError, OSError):
                signal.signal(number, signal.SIG_DFL if previous is None else previous)
                del self._previous[number]
        _flush_streams()
        if os.getpid() == 1 and signal.getsignal(number) is signal.SIG_DFL:
            os._exit(128 + number)  # the kernel drops what process 1 sends itself by default
        os.kill(os.getpid(), number)

    def at_exit(self) -> None:
        """Die of it now: the loop ended before the orderly end (a bare ``run_until_complete``)."""
        number = self._dying_of
        if number is not None:
            _last_resort()
            self._restore()
            signal.signal(number, signal.SIG_DFL)  # KeyboardInterrupt means nothing here any more
            self._deliver(number)


def _later(seconds: float, function: Callable[..., object], *args: object) -> None:
    """Call it on a thread after a while; at exit, where no thread starts any more, not at all.

    For signal handlers, which may strike while this very thread starts a ``threading.Thread``: that
    its locks may be taken twice is not promised, so none of them here.
    """

    def wait_and_call() -> None:
        time.sleep(seconds)
        function(*args)

    with contextlib.suppress(RuntimeError):
        _thread.start_new_thread(wait_and_call, ())


def _is_runner(handler: Any) -> bool:
    name = getattr(getattr(handler, "func", None), "__name__", "")
    return isinstance(handler, functools.partial) and name == "_on_sigint"


async def _all_done(tasks: set[asyncio.Task[Any]]) -> bool:
    """Wait for all; tell whether we were cancelled meanwhile.  The watchdog bounds it."""
    cancelled = False
    while pending := {task for task in tasks if not task.done()}:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError:
            cancelled = True
    return cancelled


def _last_resort() -> None:
    for writer in _process.writers():
        writer.finish_now(_LAST_BUDGET)
    _flush_streams()


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


_coordinator = _Coordinator()
enter, leave = _coordinator.enter, _coordinator.leave


@contextlib.contextmanager
def listening(listener: Callable[[], object]) -> Iterator[None]:
    """Call a function when a server is told to end whose handlers a client chains, or at once if
    that was so already.  In the signal's handler: it must not wait or take a lock."""
    listeners, key = _coordinator.listeners, id(listener)
    listeners[key] = listener
    try:
        if _coordinator.told:
            listener()
        yield
    finally:
        del listeners[key]


atexit.register(_coordinator.at_exit)


def _in_child() -> None:
    _coordinator.members.clear()
    _coordinator._restore()  # noqa: SLF001 - the module's own object


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def server_is_ending() -> bool:
    """Whether uvicorn, which handles the signals of this process, was told to end.

    It waits for every response, and tells none of them: one that never ends has to look.
    """
    for number in _SIGNALS:
        for handler in _coordinator.handlers(number):
            if getattr(getattr(handler, "__self__", None), "should_exit", False) is True:
                return True
    return False
