"""Waiting for something that must not be cut short: cancellation is deferred, then re-raised.

Measured with a task cancelled during its drain, 10 records queued: a plain ``await`` saved 2,
``asyncio.shield`` 2, this 10, however often the closer was cancelled.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, TypeVar

import anyio

from litellm_ledger._records.checks import is_number

__all__ = ["outlive_cancellation", "seconds", "wait_until"]

T = TypeVar("T")


def seconds(name: str, value: Any) -> float:
    """Return a time-out as every wait takes it: infinity is as long as a lock can wait.

    Raises:
        ValueError: no number, or NaN, with which no deadline ever comes.
    """
    if not is_number(value) or value != value:
        raise ValueError(f"{name} must be seconds, not {value!r}")
    return min(float(value), threading.TIMEOUT_MAX)


async def outlive_cancellation(task: asyncio.Future[T]) -> T:
    """Wait for ``task`` to its end and return its result, however often the waiter is cancelled.

    A cancellation that came meanwhile is re-raised afterwards, in place of the result; the error of
    the task, if any, is then its ``__context__``.  The task must end by itself (have a deadline).

    The shield is for anyio, whose cancel scopes (Starlette's, for one) cancel again and again until
    they are left; it stops no ``task.cancel()``, which comes once and is caught.
    """
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            with anyio.CancelScope(shield=True):
                await asyncio.wait({task})
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        try:
            task.result()
        finally:
            raise cancelled
    return task.result()


async def wait_until(future: asyncio.Future[T], deadline: float) -> None:
    """Wait for ``future`` until the deadline (``time.monotonic``), swallowing cancellation.

    For the close task alone: it ends at its deadline, even if it is cancelled; the code that waits
    for it hears of the cancellation.  Does not cancel ``future`` and does not look at its result.
    """
    while not future.done():
        left = deadline - time.monotonic()
        if left <= 0:
            return
        try:
            await asyncio.wait({future}, timeout=left)
        except asyncio.CancelledError:
            continue
