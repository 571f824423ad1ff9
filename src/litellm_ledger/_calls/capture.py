"""Recording the calls that other code makes on LiteLLM: directly, or through what is built on it.

Owns one client's part in that: which of the calls LiteLLM tells of are to be recorded (not those of
any client of ours, each once).  ``captured`` makes an outcome of them; ``_litellm.hooks`` is how it
hears of them.  Never changes a call and never fails one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._errors import LedgerError
from litellm_ledger._litellm.hooks import (
    flush_logging,
    flush_logging_threads,
    follow,
    is_async,
    is_sync,
    register,
)
from litellm_ledger._litellm.outcome import from_exception
from litellm_ledger._litellm.own_calls import is_ours

from .captured import Captured, given

if TYPE_CHECKING:
    from .core import ClientCore

__all__ = ["Capture"]

_log = logging.getLogger("litellm_ledger")

_REMEMBERED: Final = 10_000
"""Attempts that are remembered: LiteLLM's LOGGING_EXECUTOR_MAX_PENDING_TASKS, as many as its own
threads may be behind with."""


_MOMENT: Final = 0.5
"""Seconds that a close waits for LiteLLM's threads to log synchronous calls that may have ended."""
_GLANCE: Final = 0.005


class Capture:
    """Records for one client what others call on LiteLLM while it is on.

    It may be begun any number of times, from any thread, and is on until it was ended as often.

    Attributes:
        always: begin when the client opens, and stay on until it closes.
    """

    def __init__(self, core: ClientCore) -> None:
        self._core = core
        self.always = False
        core.on_ready.append(self.ready)
        core.on_close.append(self.stop)
        core.on_drain.append(self.flush)
        self._calls: weakref.WeakKeyDictionary[Any, Captured] = weakref.WeakKeyDictionary()
        self._synchronous: weakref.WeakValueDictionary[tuple[str, str], Captured] = (
            weakref.WeakValueDictionary()
        )
        self._lock = threading.Lock()
        self._times = 0
        self._registered: weakref.finalize[..., Any] | None = None
        self._seen: dict[tuple[str, str], None] = {}
        self._seeing = threading.Lock()
        self.used = False
        self.duplicates = 0

    async def ready(self) -> None:
        """The client has opened, or a call begins: be on if that was asked for."""
        if self.always:
            await self._core.litellm()
            if self.always:  # not begun by another task meanwhile
                self.always = False
                self.begin()

    def begin(self) -> None:
        """Record what begins from now on.  Imports LiteLLM if nobody has: 2 to 5 s."""
        with self._lock:
            if not self._times:
                self._registered = register(self)
                self.used = True
            self._times += 1

    def end(self) -> None:
        """Stop, if it was begun once; calls under way are recorded when they end."""
        with self._lock:
            self._times = max(0, self._times - 1)
            if not self._times:
                self._unregister()

    def stop(self) -> None:
        """Stop, however often it was begun: the client closes."""
        with self._lock:
            self._times = 0
            self._unregister()

    def _unregister(self) -> None:
        if self._registered is not None:
            self._registered()
            self._registered = None

    async def flush(self) -> None:
        """Wait for the ends of streams and synchronous calls that LiteLLM has not told of yet."""
        if self.used:
            await flush_logging()
            await self._flush_synchronous()

    async def _flush_synchronous(self) -> None:
        """Wait a moment: which synchronous calls have ended is not to be seen."""
        seen = [ref() for ref in self._synchronous.valuerefs()]  # a copy: threads add to it
        waiting = [one for one in seen if one is not None and not one.ended]
        if waiting:
            await flush_logging_threads()
            until = time.monotonic() + _MOMENT
            while not all(one.ended for one in waiting) and time.monotonic() < until:  # noqa: ASYNC110 - LiteLLM's threads end them
                await asyncio.sleep(_GLANCE)

    # -- what LiteLLM tells -----------------------------------------------------------------------

    async def on_start(self, logging_obj: Any, request: Mapping[str, Any], call: str) -> None:
        """Put a ``started`` record down, as for a call of our own."""
        if is_sync(call) and not is_ours():
            return  # of some, LiteLLM tells the beginning here and the end by ``on_sync`` only
        call_id = getattr(logging_obj, "litellm_call_id", None)
        self._is_new(_key(call_id, getattr(logging_obj, "start_time", None)))
        if is_ours():
            return
        known = self._calls.get(logging_obj)
        if known is not None and not known.ended:
            return  # LiteLLM answers one call by another: it is one request
        captured = Captured.of(self._core, logging_obj, request, call)
        try:
            captured.here = await self._core.ready_here()
            if captured.here:
                await captured.attempt.begin(
                    write=self._core.track_in_flight, ack_timeout=self._core.ack_timeout
                )
        except LedgerError as exc:  # closed meanwhile, or its disk is gone
            _log.warning("a call to %s was not captured: %s", captured.asked.model, exc)
            return
        self._watch(logging_obj, captured)

    def on_request(self, logging_obj: Any, details: dict[str, Any], call: str) -> None:
        """Note whose a synchronous call is, or one that ``on_start`` was not told of.

        Nothing can wait here: there is no ``started`` record.
        """
        known = self._calls.get(logging_obj)
        if is_ours() or (known is not None and not known.ended):
            return
        captured = Captured.of(self._core, logging_obj, given(details), call)
        try:
            self._core.check_open()
        except LedgerError:
            return
        call_id = getattr(logging_obj, "litellm_call_id", None)
        attempt = _key(call_id, getattr(logging_obj, "start_time", None))
        if is_sync(call):
            captured.key = attempt
            self._synchronous[attempt] = captured
        self._is_new(attempt)
        self._watch(logging_obj, captured, sync=is_sync(call))

    def _watch(self, logging_obj: Any, captured: Captured, *, sync: bool = False) -> None:
        """Hear of the end of a call, also where that is nothing but that LiteLLM drops it."""
        self._calls[logging_obj] = captured
        follow(logging_obj, captured, sync=sync)
        weakref.finalize(logging_obj, captured.vanished).atexit = False
        self._core.begin(captured)

    async def on_answer(self, logging_obj: Any, answer: Any) -> None:
        """Record an answer before its caller has it."""
        captured = self._calls.get(logging_obj)
        if captured is None or captured.ended:
            return
        await captured.on_answer(logging_obj, answer)

    async def on_failure(self, logging_obj: Any, exc: BaseException) -> None:
        """Record a failure before its caller hears of it."""
        captured = self._calls.get(logging_obj)
        if captured is not None:
            await captured.end(None, from_exception(exc))

    def on_sync(self, details: dict[str, Any], answer: Any, times: tuple[Any, Any]) -> None:
        """Record a synchronous call, on LiteLLM's thread, after the fact.

        LiteLLM tells this of asynchronous calls too: of failures of some, and from 1.109 on of
        every answer that is no stream.  Those are on record by ``on_start`` and what follows it.
        """
        call = str(details.get("call_type") or "completion")
        attempt = _key(details.get("litellm_call_id"), times[0])
        captured = self._synchronous.get(attempt) or self._around(attempt)
        if captured is None:
            if not self._is_new(attempt) or is_async(call):
                self.duplicates += 1
                return
            captured = Captured.of(self._core, None, given(details), call)
        elif captured.told:
            self.duplicates += 1
        captured.told = True
        captured.on_sync(details, answer, times)

    def _around(self, attempt: tuple[str, str]) -> Captured | None:
        """The call that an attempt is inside of.

        LiteLLM's ``text_completion`` calls ``completion`` and tells of both, each with its time.
        """
        call_id, began = attempt
        seen = [ref() for ref in self._synchronous.valuerefs()]  # a copy: threads add to it
        of_call = (one for one in seen if one is not None and one.key[0] == call_id)
        return max(
            (one for one in of_call if one.key[1] <= began), key=lambda one: one.key, default=None
        )

    def _is_new(self, attempt: tuple[str, str]) -> bool:
        """Remember an attempt, so that none is recorded twice.  From any thread."""
        with self._seeing:
            if attempt in self._seen:
                return False
            self._seen[attempt] = None
            if len(self._seen) > _REMEMBERED:
                del self._seen[next(iter(self._seen))]
            return True


def _key(call_id: Any, began: Any) -> tuple[str, str]:
    """What tells one attempt from others: those of a Router share the id of their call."""
    return str(call_id), str(began)
