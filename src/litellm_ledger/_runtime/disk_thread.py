"""One daemon thread that does the ledger's blocking file work, and nothing else's.

Owns the thread aiofiles runs on.  Not a ``ThreadPoolExecutor``: the interpreter joins those threads
at exit, so one stuck in a stalled disk would hang the process for ever; and not the loop's default
executor: other people's work must not delay the ledger.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

__all__ = ["DiskThread"]

_Job = tuple["Future[Any]", Callable[[], Any]]
_Jobs = queue.SimpleQueue[_Job | None]


class DiskThread(Executor):
    """An executor with one daemon thread, started by its first job, ended with the executor."""

    def __init__(self, name: str = "litellm-ledger-disk") -> None:
        self._name = name
        self._jobs: _Jobs = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._cancelled = threading.Event()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue one job.  Raises ``RuntimeError`` once the executor was stopped."""
        if self._stopped:
            raise RuntimeError("the ledger's disk thread was stopped")
        if self._thread is None:
            thread = threading.Thread(
                target=_work, args=(self._jobs, self._cancelled), name=self._name, daemon=True
            )
            thread.start()  # may fail ("can't start new thread"): then nothing was queued
            self._thread = thread
        future: Future[Any] = Future()
        self._jobs.put((future, partial(fn, *args, **kwargs)))
        return future

    def stop(self) -> None:
        """Start no further job; the one under way ends when the disk lets it.  Never blocks."""
        self.shutdown(wait=False, cancel_futures=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further job, end when those that were taken are done (``Executor`` protocol)."""
        self._stopped = True
        if cancel_futures:
            self._cancelled.set()
        self._jobs.put(None)
        if wait and self._thread is not None:
            self._thread.join()

    def __del__(self) -> None:
        self._jobs.put(None)


def _work(jobs: _Jobs, cancelled: threading.Event) -> None:
    """The thread: it holds the queue, not the executor, which may be collected."""
    while (job := jobs.get()) is not None:
        future, function = job
        if cancelled.is_set() or not future.set_running_or_notify_cancel():
            future.cancel()
            continue
        try:
            result = function()
        except BaseException as exc:  # noqa: BLE001 - handed to who waits
            future.set_exception(exc)
        else:
            future.set_result(result)
            del result
        del job, future, function  # an idle thread keeps nothing alive
