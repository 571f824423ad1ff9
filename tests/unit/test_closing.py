"""Waiting that is not cut short: however often the waiter is cancelled, at whatever moment."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.runs import turns

from litellm_ledger._runtime.cancellation import outlive_cancellation, wait_until

pytestmark = pytest.mark.asyncio


class Work:
    """Something to wait for, ended by the test."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._run())
        self.error: Exception | None = None

    async def _run(self) -> str:
        await self.leave.wait()
        if self.error is not None:
            raise self.error
        return "done"


async def test_it_raises_the_error() -> None:
    work = Work()
    work.error = ValueError("no")
    work.leave.set()
    with pytest.raises(ValueError, match="no"):
        await outlive_cancellation(work.task)


@pytest.mark.parametrize("times", [1, 2, 5, 50])
async def test_cancelled_however_often_it_waits_to_the_end_and_then_says_so(times: int) -> None:
    work = Work()
    waiter = asyncio.create_task(outlive_cancellation(work.task))
    await turns()
    for _ in range(times):
        waiter.cancel()
        await turns()
        assert not waiter.done()
        assert not work.task.done()
    work.leave.set()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert waiter.cancelled()
    assert work.task.result() == "done"


async def test_the_error_of_the_work_is_not_lost_behind_the_cancellation() -> None:
    work = Work()
    work.error = ValueError("disk")
    seen: list[BaseException | None] = []

    async def closer() -> None:
        try:
            await outlive_cancellation(work.task)
        except asyncio.CancelledError as exc:
            seen.append(exc.__context__)
            raise

    waiter = asyncio.create_task(closer())
    await turns()
    waiter.cancel()
    await turns()
    work.leave.set()
    await asyncio.wait({waiter})
    assert waiter.cancelled()
    assert isinstance(seen[0], ValueError)


async def test_a_time_limit_around_it_strikes_after_the_work_not_during_it() -> None:
    work = Work()
    order: list[str] = []
    work.task.add_done_callback(lambda _: order.append("work"))

    async def limited() -> None:
        async with asyncio.timeout(0):
            await outlive_cancellation(work.task)

    waiter = asyncio.create_task(limited())
    waiter.add_done_callback(lambda _: order.append("waiter"))
    await turns(20)
    assert not waiter.done()
    work.leave.set()
    with pytest.raises(TimeoutError):
        await waiter
    assert order == ["work", "waiter"]


async def test_a_cancellation_that_is_already_pending_waits_too() -> None:
    work = Work()
    waiter = asyncio.create_task(outlive_cancellation(work.task))
    await turns()
    work.leave.set()
    await turns(1)
    waiter.cancel()  # the work may be over, the waiter has not been told
    await asyncio.wait({waiter})
    assert work.task.done()


async def test_many_wait_for_the_same_work_and_only_the_cancelled_hear_of_it() -> None:
    work = Work()
    waiters = [asyncio.create_task(outlive_cancellation(work.task)) for _ in range(10)]
    await turns()
    for waiter in waiters[::2]:
        waiter.cancel()
    await turns()
    work.leave.set()
    ends = await asyncio.gather(*waiters, return_exceptions=True)
    assert [isinstance(end, asyncio.CancelledError) for end in ends[::2]] == [True] * 5
    assert ends[1::2] == ["done"] * 5


async def test_work_that_was_itself_cancelled_is_a_cancellation() -> None:
    work = Work()
    waiter = asyncio.create_task(outlive_cancellation(work.task))
    await turns()
    work.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_wait_until_ends_at_the_deadline_and_leaves_the_work_alone() -> None:
    work = Work()
    began = time.monotonic()
    await wait_until(work.task, began - 1)  # over already
    await wait_until(work.task, began + 0.05)
    assert 0.05 <= time.monotonic() - began < 2
    assert not work.task.done()
    work.leave.set()
    await work.task


async def test_wait_until_swallows_cancellation_and_waits_on() -> None:
    work = Work()
    waiter = asyncio.create_task(wait_until(work.task, time.monotonic() + 30))
    await turns()
    for _ in range(5):
        waiter.cancel()
        await turns()
        assert not waiter.done()
    work.leave.set()
    await waiter


async def test_wait_until_does_not_look_at_the_result() -> None:
    work = Work()
    work.error = ValueError("no")
    work.leave.set()
    await wait_until(work.task, time.monotonic() + 30)
    assert isinstance(work.task.exception(), ValueError)
