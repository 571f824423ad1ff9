"""Who records alone has it written at once, and still lets others have the loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from tests.runs import assert_closed, assert_once, keys, usage

from litellm_ledger import Ledger, UsageRecord, UsageTracker
from litellm_ledger._storage.filesystem import FileSystem
from litellm_ledger._storage.live_file import Durability
from litellm_ledger.testing import FaultyFileSystem

pytestmark = pytest.mark.asyncio


def without_waiting(tracker: UsageTracker, key: object) -> UsageRecord:
    """Run ``record`` as far as it comes without a turn of the loop: to its end."""
    coroutine = tracker.record(usage(key))
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    record: UsageRecord = stopped.value.value
    return record


@contextlib.contextmanager
def turning() -> Iterator[list[None]]:
    """Count the turns of the loop."""
    turns: list[None] = []

    async def turn() -> None:
        while True:
            await asyncio.sleep(0)
            turns.append(None)

    task = asyncio.create_task(turn())
    try:
        yield turns
    finally:
        task.cancel()


async def test_a_record_that_comes_alone_is_written_before_the_loop_turns(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path) as tracker:
        first = await tracker.record(usage(1))  # its segment is made by the task
        second = without_waiting(tracker, 2)
        assert list(Ledger(tmp_path).records()) == [first, second]
        assert tracker.statistics().written == 2


# "shipped" is "synced" here: what it waits for beyond is in another thread (tests/postgres).
@pytest.mark.parametrize("durability", sorted({*get_args(Durability)} - {"shipped"}))
async def test_a_loop_of_records_does_not_keep_the_event_loop(
    tmp_path: Path, durability: Durability
) -> None:
    async with UsageTracker(tmp_path, durability=durability) as tracker:
        await tracker.record(usage(0))  # makes the segment, which takes its time
        with turning() as turns:
            for number in range(1, 2_000):
                await tracker.record(usage(number))
        assert len(turns) > 5
    assert_once(tmp_path, range(2_000))
    assert_closed(tmp_path)


async def test_a_slow_disk_keeps_the_loop_for_one_write_and_not_for_many(tmp_path: Path) -> None:
    class Slow(FileSystem):
        def write(self, fd: int, data: bytes | memoryview) -> int:
            time.sleep(0.005)
            return super().write(fd, data)

    async with UsageTracker(tmp_path, fs=Slow()) as tracker:
        await tracker.record(usage(0))
        with turning() as turns:
            for number in range(1, 20):
                await tracker.record(usage(number))
        assert len(turns) > 15
    assert_once(tmp_path, range(20))


async def test_what_waits_is_not_overtaken(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path) as tracker:
        tracker.record_nowait(usage("first"))
        await asyncio.gather(*[tracker.record(usage(number)) for number in range(50)])
    assert keys(tmp_path) == ["first", *[str(number) for number in range(50)]]


async def test_a_disk_that_refuses_the_write_at_once_gets_it_from_the_task(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    async with UsageTracker(tmp_path, fs=disk) as tracker:
        await tracker.record(usage(1))
        disk.fail("write", times=3)
        assert (await tracker.record(usage(2))).seq == 2
        assert tracker.statistics().retries == 2
        without_waiting(tracker, 3)
    assert_once(tmp_path, [1, 2, 3])


async def test_a_time_out_by_a_signal_handler_is_not_taken_for_the_disks(tmp_path: Path) -> None:
    class Struck(FileSystem):
        rings = False

        def write(self, fd: int, data: bytes | memoryview) -> int:
            sent = super().write(fd, data)
            if self.rings:
                self.rings = False
                raise TimeoutError("time is up")  # an OSError, as far as its class goes
            return sent

    disk = Struck()
    async with UsageTracker(tmp_path, fs=disk) as tracker:
        await tracker.record(usage(1))
        disk.rings = True
        with pytest.raises(TimeoutError, match="time is up"):
            await tracker.record(usage(2))
        await tracker.record(usage(3))
    assert keys(tmp_path) == ["1", "2", "3"]
    assert Ledger(tmp_path).verify().ok
