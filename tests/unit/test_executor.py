"""The ledger's own thread: one, a daemon, in order, and gone when it is done."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError, Future

import pytest

from litellm_ledger._runtime.disk_thread import DiskThread


def test_jobs_run_in_order_on_one_thread_that_is_a_daemon() -> None:
    executor = DiskThread("test-disk")
    seen: list[tuple[int, threading.Thread]] = []
    jobs = [
        executor.submit(lambda n=n: seen.append((n, threading.current_thread()))) for n in range(50)
    ]
    for job in jobs:
        job.result(5)
    executor.shutdown()
    assert [number for number, _ in seen] == list(range(50))
    (thread,) = {thread for _, thread in seen}
    assert thread.daemon
    assert thread.name == "test-disk"
    assert thread is not threading.current_thread()


def test_no_job_no_thread() -> None:
    before = threading.active_count()
    executor = DiskThread()
    executor.stop()
    assert threading.active_count() == before


def test_the_thread_ends_with_the_executor() -> None:
    executor = DiskThread("test-ending")
    executor.submit(int).result(5)
    executor.shutdown(wait=True)
    assert "test-ending" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_an_error_goes_to_who_asked_and_the_thread_lives(error: BaseException) -> None:
    def fail() -> None:
        raise error

    executor = DiskThread()
    assert executor.submit(fail).exception(5) is error
    assert executor.submit(int).result(5) == 0
    executor.shutdown()


def busy(executor: DiskThread) -> tuple[Future[bool], threading.Event]:
    """Have the thread be in the middle of a job until the event is set."""
    entered, leave = threading.Event(), threading.Event()

    def job() -> bool:
        entered.set()
        return leave.wait(10)

    future = executor.submit(job)
    assert entered.wait(10)
    return future, leave


def test_stop_never_blocks_and_starts_no_further_job() -> None:
    executor = DiskThread()
    running, leave = busy(executor)
    waiting = executor.submit(int)
    executor.stop()
    assert not running.done()
    leave.set()
    assert running.result(5)
    with pytest.raises(CancelledError):
        waiting.result(5)
    executor.shutdown(wait=True)


def test_a_cancelled_job_is_not_run() -> None:
    executor = DiskThread()
    _, leave = busy(executor)
    ran = threading.Event()
    waiting = executor.submit(ran.set)
    assert waiting.cancel()
    leave.set()
    executor.submit(int).result(5)
    assert not ran.is_set()
    executor.shutdown()


def test_shutdown_lets_what_is_queued_run_unless_told_otherwise() -> None:
    executor = DiskThread()
    _, leave = busy(executor)
    waiting = executor.submit(lambda: "ran")
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="stopped"):
        executor.submit(int)
    leave.set()
    assert waiting.result(5) == "ran"


@pytest.mark.asyncio
async def test_a_busy_default_executor_does_not_delay_the_ledger() -> None:
    loop = asyncio.get_running_loop()
    leave = threading.Event()
    others = [loop.run_in_executor(None, leave.wait, 10) for _ in range(64)]
    executor = DiskThread()
    try:
        async with asyncio.timeout(5):
            assert await loop.run_in_executor(executor, int) == 0
        assert not any(other.done() for other in others)
    finally:
        leave.set()
        await asyncio.gather(*others)
        executor.shutdown()
