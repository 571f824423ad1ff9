"""Closing, flushing and opening, cancelled at every step and with the disk stuck at every call.

Whatever happens to the code that waits: all that was accepted is written once, a cancellation is
raised again at the end, and nobody waits past the deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.runs import (
    WAIT,
    assert_closed,
    assert_once,
    assert_whole,
    keys,
    lines,
    stuck,
    turns,
    until,
    usage,
)

from litellm_ledger import (
    DrainTimeout,
    Ledger,
    LedgerClosed,
    LedgerTimeout,
    LiteLLMClient,
    UsageTracker,
)
from litellm_ledger._records.layout import LIVE, SEGMENTS
from litellm_ledger._writing.state import State
from litellm_ledger.testing import FaultyFileSystem

pytestmark = pytest.mark.asyncio

RECORDS = 10
SLACK = 0.6
"""Seconds by which a busy machine may be late."""


async def loaded(path: Path, **options: Any) -> tuple[FaultyFileSystem, UsageTracker]:
    """An open tracker with records that nobody has written yet, and its disk."""
    disk = FaultyFileSystem()
    tracker = UsageTracker(path, handle_signals=False, fs=disk, **options)
    await tracker.open()
    for number in range(RECORDS):
        tracker.record_nowait(usage(number))
    return disk, tracker


@asynccontextmanager
async def opening(
    path: Path, operation: Any = "make_directory"
) -> AsyncIterator[tuple[UsageTracker, asyncio.Task[None]]]:
    """A tracker whose opening hangs in the disk."""
    disk = FaultyFileSystem()
    tracker = UsageTracker(path, fs=disk, handle_signals=False)
    with disk.hang(operation) as hang:
        task = asyncio.create_task(tracker.open())
        await stuck(hang)
        yield tracker, task


# -- cancelling a closer ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "times"),
    [
        *[("create", times) for times in (1, 2, 4, 10)],
        *[(operation, 1) for operation in ("write", "sync", "sync_directory", "rename", "unlink")],
    ],
)
async def test_cancelled_n_times_a_closer_writes_all_and_then_says_it_was_cancelled(
    tmp_path: Path, operation: Any, times: int
) -> None:
    disk, tracker = await loaded(tmp_path)
    with disk.hang(operation) as hang:
        closer = asyncio.create_task(tracker.aclose())
        await stuck(hang)
        for _ in range(times):
            closer.cancel()
            await turns()
            assert not closer.done()
    with pytest.raises(asyncio.CancelledError):
        await closer
    assert tracker.state is State.CLOSED
    assert_whole(tmp_path, range(RECORDS))


@pytest.mark.parametrize("step", range(24))
async def test_a_closer_cancelled_at_any_step(tmp_path: Path, step: int) -> None:
    _, tracker = await loaded(tmp_path)
    closer = asyncio.create_task(tracker.aclose())
    await turns(step)
    closer.cancel()
    await asyncio.wait({closer})
    await tracker.aclose()
    assert tracker.state is State.CLOSED
    assert_whole(tmp_path, range(RECORDS))


async def stay(path: Path, inside: asyncio.Event) -> None:
    """Record inside ``async with``, and stay there until somebody cancels it."""
    async with UsageTracker(path) as tracker:
        for number in range(RECORDS):
            tracker.record_nowait(usage(number))
        inside.set()
        await asyncio.Event().wait()


async def test_a_body_that_is_cancelled_closes_whole(tmp_path: Path) -> None:
    inside = asyncio.Event()
    task = asyncio.create_task(stay(tmp_path, inside))
    await inside.wait()
    for _ in range(3):
        task.cancel()
        await turns(1)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_whole(tmp_path, range(RECORDS))


async def test_a_time_limit_around_the_close_strikes_when_it_is_over(tmp_path: Path) -> None:
    disk, tracker = await loaded(tmp_path)

    async def close() -> None:
        async with asyncio.timeout(0.01):
            await tracker.aclose()

    with disk.hang("create") as hang:
        closer = asyncio.create_task(close())
        await stuck(hang)
        await asyncio.sleep(0.02)
        await turns()
        assert not closer.done()
    with pytest.raises(TimeoutError):
        await closer
    assert_whole(tmp_path, range(RECORDS))


async def test_a_task_group_that_fails_closes_whole(tmp_path: Path) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    inside = asyncio.Event()
    with pytest.raises(ExceptionGroup):  # noqa: PT012 - the group is what raises
        async with asyncio.TaskGroup() as group:
            group.create_task(stay(tmp_path, inside))
            await inside.wait()
            group.create_task(fail())
    assert_whole(tmp_path, range(RECORDS))


async def test_an_anyio_scope_that_is_cancelled_closes_whole(tmp_path: Path) -> None:
    import anyio

    with anyio.CancelScope() as scope:
        async with UsageTracker(tmp_path) as tracker:
            for number in range(RECORDS):
                tracker.record_nowait(usage(number))
            scope.cancel()
            await anyio.sleep_forever()
    assert_whole(tmp_path, range(RECORDS))


# -- many closers ----------------------------------------------------------------------------------


async def test_ten_closers_at_once_share_one_close(tmp_path: Path) -> None:
    disk, tracker = await loaded(tmp_path)
    await asyncio.gather(*[tracker.aclose() for _ in range(10)])
    await tracker.aclose()
    assert_whole(tmp_path, range(RECORDS))
    renames = [c for c in disk.calls if c.operation == "rename" and c.path.parent.name == SEGMENTS]
    assert len(renames) == 1


async def test_of_ten_closers_those_that_are_cancelled_say_so_and_the_others_return(
    tmp_path: Path,
) -> None:
    disk, tracker = await loaded(tmp_path)
    with disk.hang("create") as hang:
        closers = [asyncio.create_task(tracker.aclose()) for _ in range(10)]
        await stuck(hang)
        for closer in closers[::3]:
            closer.cancel()
        await turns()
        assert not any(closer.done() for closer in closers)
    ends = await asyncio.gather(*closers, return_exceptions=True)
    assert [isinstance(end, asyncio.CancelledError) for end in ends] == [
        number % 3 == 0 for number in range(10)
    ]
    assert_whole(tmp_path, range(RECORDS))


async def test_all_closers_hear_of_the_same_failure(tmp_path: Path) -> None:
    disk, tracker = await loaded(tmp_path)
    disk.fail("create", times=None)
    ends = await asyncio.gather(*[tracker.aclose(0.1) for _ in range(3)], return_exceptions=True)
    assert [type(end) for end in ends] == [DrainTimeout] * 3
    assert [end.unwritten for end in ends if isinstance(end, DrainTimeout)] == [RECORDS] * 3
    with pytest.raises(DrainTimeout):
        await tracker.aclose()


async def test_a_client_closes_as_a_tracker_does(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    client = LiteLLMClient(tmp_path, fs=disk, handle_signals=False)
    async with client:
        await client.usage.record(usage(0))
        with disk.hang("sync") as hang:
            closers = [asyncio.create_task(client.aclose()) for _ in range(4)]
            await stuck(hang)
            for _ in range(3):
                closers[0].cancel()
                await turns()
            with pytest.raises(LedgerClosed, match="closing"):
                await client.acompletion(model="m", messages=[])
        ends = await asyncio.gather(*closers, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError, *[type(None)] * 3]
    with pytest.raises(LedgerClosed, match="create a new one"):
        await client.acompletion(model="m", messages=[])
    assert_closed(tmp_path)


# -- the deadline ----------------------------------------------------------------------------------


async def test_past_the_deadline_the_error_counts_and_the_last_resort_saves(
    tmp_path: Path,
) -> None:
    disk, tracker = await loaded(tmp_path)
    with disk.hang("write") as hang:
        began = time.monotonic()
        closer = asyncio.create_task(tracker.aclose(0.2))
        await stuck(hang)
        with pytest.raises(DrainTimeout, match=f"{RECORDS} records were unwritten") as caught:
            await closer
        assert time.monotonic() - began < 6
        assert (caught.value.unwritten, caught.value.saved) == (RECORDS, RECORDS)
        assert caught.value.lost == 0
        assert isinstance(caught.value, LedgerTimeout)
        assert keys(tmp_path) == [str(number) for number in range(RECORDS)]


async def test_what_a_stuck_thread_writes_when_it_wakes_is_no_second_record(
    tmp_path: Path,
) -> None:
    disk, tracker = await loaded(tmp_path)
    hang = disk.hang("write")
    await stuck(hang)
    for number in range(RECORDS, 2 * RECORDS):
        tracker.record_nowait(usage(number))
    closer = asyncio.create_task(tracker.aclose(0.1))
    with pytest.raises(DrainTimeout):
        await closer
    await until(lambda: tracker.statistics().written == 2 * RECORDS)  # the last resort is through
    written = tracker.statistics().written
    apart = lines(tmp_path)
    hang.release()
    await until(lambda: len(lines(tmp_path)) > len(apart))
    await turns(50)
    assert keys(tmp_path) == [str(number) for number in range(2 * RECORDS)]
    assert set(lines(tmp_path)) == set(apart), "the same numbers again, not one more"
    assert tracker.statistics().written == written, "what was said to be written stays so"
    assert tracker.statistics().queue_depth == 0
    assert Ledger(tmp_path).verify().ok


async def test_a_stuck_segment_is_never_touched_again(tmp_path: Path) -> None:
    disk, tracker = await loaded(tmp_path)
    with disk.hang("write") as hang:
        closer = asyncio.create_task(tracker.aclose(0.1))
        await stuck(hang)
        with pytest.raises(DrainTimeout):
            await closer
        (segment,) = [call.path for call in disk.calls if call.operation == "create"][:1]
        after = len(disk.calls)
    await turns(50)
    await asyncio.to_thread(time.sleep, 0)
    tracker._writer.finish_now(0.1)
    touched = [call for call in disk.calls[after:] if call.path == segment]
    assert [call.operation for call in touched if call.operation not in ("write", "close")] == []


async def test_a_disk_that_hangs_for_good_holds_the_close_no_longer_than_its_time(
    tmp_path: Path,
) -> None:
    disk, tracker = await loaded(tmp_path)
    segment, apart = disk.hang("create"), disk.hang("create", nth=2)
    began = time.monotonic()
    try:
        with pytest.raises(DrainTimeout) as caught:
            await tracker.aclose(0.1)
        assert time.monotonic() - began < 6
        assert (caught.value.unwritten, caught.value.saved) == (RECORDS, 0)
    finally:
        apart.release()
        segment.release()
    await until(lambda: set(keys(tmp_path)) == {str(number) for number in range(RECORDS)})


@pytest.mark.parametrize(
    ("operation", "timeout"),
    [("create", 0.2), ("write", 0.2), ("sync", 0.2), ("rename", 0.2), ("*", 0.0), ("*", 1.5)],
)
@pytest.mark.parametrize("durability", ["written", "synced"])
async def test_a_disk_that_hangs_holds_the_close_no_longer_than_its_time(
    tmp_path: Path, operation: Any, durability: Any, timeout: float
) -> None:
    disk, tracker = await loaded(tmp_path, durability=durability)
    hangs = [disk.hang(operation, nth=n) for n in range(1, 2 if operation != "*" else 9)]
    began = time.monotonic()
    try:
        with suppress(DrainTimeout):
            await tracker.aclose(timeout)
        assert time.monotonic() - began < timeout + 0.5 + SLACK
    finally:
        for hang in hangs:
            hang.release()
    await until(lambda: set(keys(tmp_path)) == {str(number) for number in range(RECORDS)})


async def test_a_disk_that_is_slow_but_in_time_is_no_error(tmp_path: Path) -> None:
    disk, tracker = await loaded(tmp_path)
    hang = disk.hang("sync")
    closer = asyncio.create_task(tracker.aclose(2.0))
    await until(lambda: tracker._writer.admission.backlog.late)  # the last resort has begun
    hang.release()
    await closer
    assert_whole(tmp_path, range(RECORDS))


async def test_a_sync_that_hangs_is_logged_and_no_error_at_durability_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk, tracker = await loaded(tmp_path, durability="written")
    with disk.hang("sync"):
        await tracker.aclose(0.2)
        assert tracker.state is State.CLOSED
        assert "was not sealed" in caplog.text
        assert tracker.statistics().written == RECORDS
        assert tracker.statistics().synced == 0
        assert keys(tmp_path) == [str(number) for number in range(RECORDS)]


async def test_a_sync_that_hangs_is_told_at_durability_synced(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    tracker = UsageTracker(tmp_path, fs=disk, durability="synced", handle_signals=False)
    await tracker.open()
    with disk.hang("sync") as hang:
        task = asyncio.create_task(tracker.record(usage(0)))
        await stuck(hang)
        with pytest.raises(DrainTimeout, match="1 record was unsynced"):
            await tracker.aclose(0.1)
        await asyncio.wait({task}, timeout=WAIT)
        assert task.done()
    assert keys(tmp_path) == ["0"]
    await asyncio.gather(task, return_exceptions=True)


async def test_the_loop_goes_on_while_the_close_waits_for_the_disk(tmp_path: Path) -> None:
    disk, tracker = await loaded(tmp_path)
    with disk.hang("write") as hang:
        closer = asyncio.create_task(tracker.aclose(0.3))
        await stuck(hang)
        longest, last = 0.0, time.monotonic()
        while not closer.done():
            await asyncio.sleep(0.001)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        with pytest.raises(DrainTimeout):
            await closer
    assert longest < 0.9, "somebody blocked the loop"


# -- flush and record ------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["create", "write", "sync"])
async def test_a_cancelled_flush_ends_at_once_and_cuts_nothing_short(
    tmp_path: Path, operation: Any
) -> None:
    disk, tracker = await loaded(tmp_path, durability="synced")
    with disk.hang(operation) as hang:
        flushes = [asyncio.create_task(tracker.flush()) for _ in range(3)]
        await stuck(hang)
        flushes[1].cancel()
        await turns()
        assert flushes[1].cancelled()
        assert not flushes[0].done()
    await asyncio.gather(flushes[0], flushes[2])
    await tracker.aclose()
    assert_once(tmp_path, range(RECORDS))


@pytest.mark.parametrize("step", range(12))
async def test_a_record_cancelled_at_any_step_is_there_once_or_not_at_all(
    tmp_path: Path, step: int
) -> None:
    async with UsageTracker(tmp_path, queue_size=2, handle_signals=False) as tracker:
        tasks = [asyncio.create_task(tracker.record(usage(number))) for number in range(6)]
        await turns(step)
        for task in tasks[::2]:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        total = tracker.totals().calls
    for number, end in enumerate(ends):
        if not isinstance(end, BaseException):
            assert keys(tmp_path).count(str(number)) == 1
    assert {str(number) for number in (1, 3, 5)} <= set(keys(tmp_path))
    assert len(keys(tmp_path)) == len(set(keys(tmp_path))) == total
    assert_once(tmp_path)


# -- open ------------------------------------------------------------------------------------------


OPENING: list[Any] = ["make_directory", "sync_directory", "rename"]


@pytest.mark.parametrize("operation", OPENING)
async def test_a_cancelled_open_ends_at_once_and_the_next_one_finds_it_open(
    tmp_path: Path, operation: Any
) -> None:
    async with opening(tmp_path, operation) as (tracker, task):
        task.cancel()
        await asyncio.wait({task}, timeout=WAIT)
        assert task.cancelled()
    await tracker.record(usage(0))
    await tracker.aclose()
    assert_whole(tmp_path, [0])


@pytest.mark.parametrize("operation", OPENING)
async def test_closed_while_it_opens_it_waits_and_leaves_no_trace(
    tmp_path: Path, operation: Any
) -> None:
    async with opening(tmp_path, operation) as (tracker, task):
        closer = asyncio.create_task(tracker.aclose())
        await turns()
        assert not closer.done()
    await closer
    await asyncio.gather(task, return_exceptions=True)
    assert tracker.state is State.CLOSED
    assert_closed(tmp_path)


@pytest.mark.parametrize("operation", OPENING)
async def test_an_opening_that_outlasts_the_close_is_undone_when_the_disk_answers(
    tmp_path: Path, operation: Any
) -> None:
    async with opening(tmp_path, operation) as (tracker, task):
        await asyncio.wait_for(tracker.aclose(0.05), WAIT)
        assert tracker.state is State.CLOSED
    with pytest.raises(LedgerClosed):
        await asyncio.wait_for(task, WAIT)
    await until(lambda: not list((tmp_path / LIVE).glob("*")))
    assert_closed(tmp_path)


@pytest.mark.parametrize("use", ["record", "flush", "open", "aclose"])
async def test_every_use_of_a_stuck_opening_can_be_cancelled_or_ends(
    tmp_path: Path, use: str
) -> None:
    uses: dict[str, Callable[[UsageTracker], Awaitable[Any]]] = {
        "record": lambda tracker: tracker.record(usage(0)),
        "flush": UsageTracker.flush,
        "open": UsageTracker.open,
        "aclose": lambda tracker: tracker.aclose(0.05),
    }
    async with opening(tmp_path) as (tracker, task):
        other = asyncio.ensure_future(uses[use](tracker))
        await turns()
        other.cancel()
        await asyncio.wait({other}, timeout=WAIT)
        assert other.done()
    await asyncio.gather(task, other, return_exceptions=True)
    await tracker.aclose()
