"""What the caller asked for, from its first attempt to its last: one operation, one deadline.

Owns the order of attempts, the waiting between them, and the one time-out around all of it.  An
attempt itself (slot, ``started``, request, outcome) is ``_calls.call``'s; what is worth another
attempt is decided by ``_litellm.failures``.

The loop is tenacity's: it lets us put in our own sleep, wait and stop, and has no global switch
that turns retries off behind our back, as stamina has (which is built on it).  It is an extra,
``litellm-ledger[retry]``, and not a dependency, because LiteLLM behaves differently where it is
installed: with its own ``num_retries=2`` a failing chat call sends 5 requests with tenacity, 3
without.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from litellm_ledger._errors import MissingExtra
from litellm_ledger._litellm.failures import asked_to_wait, worth_retrying
from litellm_ledger._runtime.limits import Deadline

if TYPE_CHECKING:
    from types import ModuleType

    from tenacity import RetryCallState

    from litellm_ledger._records.record import UsageRecord

__all__ = ["Operation", "need_tenacity"]

_log = logging.getLogger("litellm_ledger")

BACKOFF_MIN: Final = 0.25
BACKOFF_FIRST: Final = 1.0
BACKOFF_MAX: Final = 30.0
"""Seconds.  The wait after attempt n is drawn evenly from 0.25 s to ``min(2 ** (n - 1), 30)`` s."""

PATIENCE: Final = 60.0
"""Seconds that a server may ask us to wait.  A deadline, if there is one, decides instead."""

sleep = asyncio.sleep  # tests put a clock of their own here


def need_tenacity() -> ModuleType:
    """Import tenacity, or say which extra brings it."""
    try:
        import tenacity
    except ModuleNotFoundError as exc:
        raise MissingExtra("tenacity", "retry") from exc
    return tenacity


class Operation:
    """One call of the caller's.

    Args:
        timed_out: makes the error of the deadline from its text.

    Attributes:
        id: the id of the first record, once there is one.
        record: the outcome of the last attempt, should there be an exception to put it on.
        attempts: how many were begun.
        deadline: ``None`` without one.
        outside: the exception that the caller was handling when it called.
    """

    __slots__ = ("_retries", "attempts", "deadline", "id", "outside", "phase", "record")

    def __init__(
        self,
        *,
        retries: int = 0,
        seconds: float | None = None,
        timed_out: Callable[[str], Exception] | None = None,
    ) -> None:
        self._retries = retries
        self.id: str | None = None
        self.record: UsageRecord | None = None
        self.attempts = 0
        self.phase = "before its first attempt"
        self.outside = sys.exception()
        self.deadline: Deadline | None = None
        if seconds is not None:
            assert timed_out is not None
            make = timed_out
            self.deadline = Deadline(
                seconds, lambda: make(f"the deadline of {seconds:g} s passed {self.phase}")
            )

    def run(self, attempt: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        """Make attempts until one succeeds, or none is worth it any more; then raise its error."""
        made = self._repeat(attempt) if self._retries else attempt()
        return made if self.deadline is None else _in_time(made, self.deadline)

    async def _repeat(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        tenacity = need_tenacity()
        backoff = tenacity.wait_random_exponential(
            multiplier=BACKOFF_FIRST, min=BACKOFF_MIN, max=BACKOFF_MAX
        )
        retrying = tenacity.AsyncRetrying(
            sleep=self._pause,
            wait=lambda state: _wait(state, backoff(state)),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self._retries + 1), self._is_too_late
            ),
            retry=tenacity.retry_if_exception(lambda exc: worth_retrying(exc, self.outside)),
            reraise=True,
        )
        return await retrying(attempt)

    def begins(self) -> None:
        """Another attempt begins."""
        self.attempts += 1
        self.phase = f"in attempt {self.attempts}"

    def answered(self) -> None:
        """An answer is here: it is handed out, whatever the time; a stream is still to be read."""
        self.phase = "while its stream was being read"
        if self.deadline is not None:
            self.deadline.met()

    def deadline_fields(self) -> dict[str, Any] | None:
        """Return the outcome of an attempt that the deadline is cutting; ``None`` if it is not."""
        if self.deadline is None or not self.deadline.struck:
            return None
        return {"status": "error", "error": "Timeout", "usage_source": "none"}

    def _is_too_late(self, state: RetryCallState) -> bool:
        """Whether the next attempt would start after the deadline, or later than we wait."""
        wait: float = state.upcoming_sleep
        return wait >= (PATIENCE if self.deadline is None else self.deadline.left)

    async def _pause(self, seconds: float) -> None:
        self.phase = f"while waiting after attempt {self.attempts}"
        _log.debug("attempt %d failed; the next in %.2f s", self.attempts, seconds)
        await sleep(seconds)


async def _in_time(made: Awaitable[Any], deadline: Deadline) -> Any:
    async with deadline.enforced():
        return await made


def _wait(state: RetryCallState, backoff: float) -> float:
    """Seconds until the next attempt: never sooner than the server asked for.

    What it asked for is the same for all that it turned away: a little more, drawn at random, so
    that they do not all come back at once.
    """
    assert state.outcome is not None
    exc = state.outcome.exception()
    asked = None if exc is None else asked_to_wait(exc, datetime.now(UTC))
    if asked is None:
        return backoff
    return asked + random.uniform(0, min(1.0, max(BACKOFF_MIN, asked / 10)))
