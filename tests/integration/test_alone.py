"""Who records alone has it written at once, and still lets others have the loop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.runs import assert_closed, assert_once, keys, usage

from litellm_ledger import Ledger, UsageRecord, UsageTracker
from litellm_ledger._intake import TURN
from litellm_ledger.testing import FaultyFileSystem

pytestmark = pytest.mark.asyncio


def without_waiting(tracker: UsageTracker, key: object) -> UsageRecord:
    """Run ``record`` as far as it comes without a turn of the loop: to its end."""
    coroutine = tracker.record(usage(key))
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    record: UsageRecord = stopped.value.value
    return record


async def test_a_record_that_comes_alone_is_written_before_the_loop_turns(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path) as tracker:
        first = await tracker.record(usage(1))  # its segment is made by the task
        second = without_waiting(tracker, 2)
        assert list(Ledger(tmp_path).records()) == [first, second]
        assert tracker.statistics().written == 2


@pytest.mark.parametrize("durability", ["written", "queued", "synced"])
async def test_a_loop_of_records_does_not_keep_the_event_loop(
    tmp_path: Path, durability: str
) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with UsageTracker(tmp_path, durability=durability, queue_size=TURN) as tracker:  # type: ignore[arg-type]
        await tracker.record(usage(0))  # makes the segment, which takes its time
        task = asyncio.create_task(others())
        for number in range(1, 10 * TURN):
            await tracker.record(usage(number))
        task.cancel()
        assert turns >= 9
    assert_once(tmp_path, range(10 * TURN))
    assert_closed(tmp_path)


async def test_what_waits_is_not_overtaken(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path) as tracker:
        tracker.record_nowait(usage("first"))
        await asyncio.gather(*[tracker.record(usage(number)) for number in range(2 * TURN)])
    assert keys(tmp_path) == ["first", *[str(number) for number in range(2 * TURN)]]


async def test_a_disk_that_refuses_the_write_at_once_gets_it_from_the_task(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    async with UsageTracker(tmp_path, fs=disk) as tracker:
        await tracker.record(usage(1))
        disk.fail("write", times=3)
        assert (await tracker.record(usage(2))).seq == 2
        assert tracker.statistics().retries == 2
        without_waiting(tracker, 3)
    assert_once(tmp_path, [1, 2, 3])
