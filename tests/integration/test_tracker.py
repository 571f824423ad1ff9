"""``UsageTracker``: recording without a model call, against a real directory."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.runs import (
    PRICE,
    WAIT,
    assert_closed,
    assert_once,
    keys,
    stuck,
    turns,
    until,
    usage,
)

from litellm_ledger import (
    FlushTimeout,
    InvalidRecord,
    Ledger,
    LedgerClosed,
    LedgerPathError,
    QueueFull,
    UsageRecord,
    UsageTracker,
    WrongLoop,
)
from litellm_ledger._writing.state import State
from litellm_ledger.testing import FaultyFileSystem

pytestmark = pytest.mark.asyncio


# -- recording -------------------------------------------------------------------------------------


async def test_record_returns_the_record_as_written_when_it_is_written(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path) as tracker:
        for number in (1, 2, 3):
            record = await tracker.record(usage(number))
            assert record.seq == number
            assert record.id is not None
            assert record.id.endswith(f"-{number:016d}")
            assert record.operation == record.id
            assert record.attempt == 1
            assert record.ts is not None
            assert list(Ledger(tmp_path).records())[-1] == record
    assert_closed(tmp_path)


async def test_the_users_own_record_is_left_as_it_was(tmp_path: Path) -> None:
    mine = usage("mine")
    async with UsageTracker(tmp_path, tags={"env": "test"}) as tracker:
        await tracker.record(mine)
        tracker.record_nowait(mine)
    assert (mine.id, mine.seq, mine.ts, mine.operation, mine.tags) == (*(None,) * 4, {})
    assert mine.cost == PRICE
    assert_once(tmp_path, ["mine", "mine"])


async def test_records_keep_their_order_whichever_way_they_come(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path) as tracker:
        for number in range(0, 300, 3):
            tracker.record_nowait(usage(number))
            await tracker.record(usage(number + 1))
            await asyncio.wrap_future(tracker.record_threadsafe(usage(number + 2)))
    assert_once(tmp_path, range(300))


async def test_only_outcomes_can_be_recorded(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path) as tracker:
        for attempt in (tracker.record_nowait, tracker.record_threadsafe):
            with pytest.raises(InvalidRecord, match="'started'"):
                attempt(UsageRecord(kind="started"))
        with pytest.raises(InvalidRecord, match="'gap'"):
            await tracker.record(UsageRecord(kind="gap"))


async def test_the_first_use_opens_and_many_first_uses_open_once(tmp_path: Path) -> None:
    tracker = UsageTracker(tmp_path)
    with pytest.raises(LedgerClosed, match="not open"):
        tracker.record_nowait(usage())
    with pytest.raises(LedgerClosed, match="not open"):
        tracker.record_threadsafe(usage())
    await asyncio.gather(*[tracker.record(usage(number)) for number in range(20)])
    await tracker.aclose()
    assert sorted(keys(tmp_path), key=str) == sorted(map(str, range(20)))
    assert len({record.id.rpartition("-")[0] for record in Ledger(tmp_path).records()}) == 1  # type: ignore[union-attr]


async def test_a_closed_tracker_refuses_and_says_what_to_do(tmp_path: Path) -> None:
    tracker = UsageTracker(tmp_path)
    await tracker.open()
    await tracker.aclose()
    for attempt in (tracker.record_nowait, tracker.record_threadsafe):
        with pytest.raises(LedgerClosed, match="create a new one"):
            attempt(usage())
    with pytest.raises(LedgerClosed, match="create a new one"):
        await tracker.record(usage())
    with pytest.raises(LedgerClosed, match="create a new one"):
        await tracker.open()
    await tracker.flush()
    await tracker.aclose()


async def test_one_that_was_never_opened_closes_and_leaves_no_trace(tmp_path: Path) -> None:
    tracker = UsageTracker(tmp_path / "usage")
    await tracker.flush()
    await tracker.aclose()
    assert tracker.state is State.CLOSED
    assert not (tmp_path / "usage").exists()


# -- from other threads ----------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["queued", "written", "synced"])
async def test_many_threads_record_at_once_and_each_hears_of_its_own(
    tmp_path: Path, durability: Any
) -> None:
    futures: dict[str, Future[UsageRecord]] = {}

    def work(tracker: UsageTracker, name: str) -> None:
        for number in range(50):
            futures[f"{name}-{number}"] = tracker.record_threadsafe(usage(f"{name}-{number}"))

    async with UsageTracker(tmp_path, durability=durability) as tracker:
        await asyncio.gather(*[asyncio.to_thread(work, tracker, name) for name in "abcdefgh"])
        for key, future in futures.items():
            record = await asyncio.wait_for(asyncio.wrap_future(future), WAIT)
            assert record.call_id == key
            assert record.seq
        assert tracker.totals().calls == 400
    assert_once(tmp_path)
    found = keys(tmp_path)
    for name in "abcdefgh":  # in the order of each thread
        mine = [key for key in found if key and key[0] == name]
        assert mine == [f"{name}-{number}" for number in range(50)]


@pytest.mark.parametrize("durability", ["queued", "written", "synced"])
async def test_a_thread_that_stops_waiting_disturbs_nobody(tmp_path: Path, durability: Any) -> None:
    async with UsageTracker(tmp_path, durability=durability) as tracker:
        first = tracker.record_threadsafe(usage(1))
        first.cancel()
        second = tracker.record_threadsafe(usage(2))
        third = tracker.record_threadsafe(usage(3))
        await turns(1)
        third.cancel()
        assert (await asyncio.wait_for(asyncio.wrap_future(second), WAIT)).call_id == "2"
    assert_once(tmp_path, [1, 2, 3])


async def test_a_record_from_a_thread_that_comes_while_closing_is_refused_or_written(
    tmp_path: Path,
) -> None:
    tracker = UsageTracker(tmp_path)
    await tracker.open()
    taken: list[tuple[int, Future[UsageRecord]]] = []
    begun = threading.Event()

    def work() -> None:
        for number in range(1_000_000):
            try:
                taken.append((number, tracker.record_threadsafe(usage(number))))
            except LedgerClosed:
                return
            except QueueFull:
                continue
            finally:
                begun.set()

    thread = asyncio.create_task(asyncio.to_thread(work))
    await asyncio.to_thread(begun.wait, WAIT)
    await tracker.aclose()
    await thread
    for _, future in taken:
        assert (await asyncio.wait_for(asyncio.wrap_future(future), WAIT)).id
    assert_once(tmp_path, [number for number, _ in taken])


# -- backpressure ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["record_nowait", "record_threadsafe"])
async def test_a_full_queue_refuses_who_cannot_wait(tmp_path: Path, way: str) -> None:
    disk = FaultyFileSystem()
    async with UsageTracker(tmp_path, queue_size=5, fs=disk) as tracker:
        record = getattr(tracker, way)
        with disk.hang("create") as hang:
            for number in range(5):
                record(usage(number))
            with pytest.raises(QueueFull, match="5 records are waiting"):
                record(usage("no"))
            await stuck(hang)
            assert tracker.statistics().queue_depth == 5
            if way == "record_threadsafe":
                with pytest.raises(QueueFull):
                    await asyncio.to_thread(record, usage("no"))
        await tracker.flush()
        record(usage(5))
    assert_once(tmp_path, range(6))


async def test_who_cannot_wait_is_refused_also_while_others_wait(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    async with UsageTracker(tmp_path, queue_size=1, fs=disk) as tracker:
        with disk.hang("create") as hang:
            tracker.record_nowait(usage(0))
            waiters = [asyncio.create_task(tracker.record(usage(n))) for n in (1, 2)]
            await until(lambda: tracker.statistics().waiting == 2)
            with pytest.raises(QueueFull):
                tracker.record_nowait(usage("no"))
            await stuck(hang)
        refused = 0
        while not all(waiter.done() for waiter in waiters):
            try:
                tracker.record_nowait(usage("late"))
            except QueueFull:
                refused += 1
            await asyncio.sleep(0)
        assert refused
        await tracker.flush()
    found = [key for key in keys(tmp_path) if key != "late"]
    assert found == ["0", "1", "2"]
    assert keys(tmp_path).index("1") == 1, "somebody overtook who waited"


async def test_backpressure_is_first_come_first_served(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    async with UsageTracker(tmp_path, queue_size=3, fs=disk) as tracker:
        with disk.hang("create") as hang:
            tasks = [asyncio.create_task(tracker.record(usage(n))) for n in range(40)]
            await stuck(hang)
            await until(lambda: tracker.statistics().waiting == 37)
            assert tracker.statistics().queue_depth == 3
        records = await asyncio.gather(*tasks)
    assert [record.seq for record in records] == list(range(1, 41))
    assert_once(tmp_path, range(40))


async def test_the_queue_never_holds_more_than_was_allowed(tmp_path: Path) -> None:
    deepest = 0

    async def work(tracker: UsageTracker, name: str) -> None:
        nonlocal deepest
        for number in range(60):
            await tracker.record(usage(f"{name}{number}"))
            deepest = max(deepest, tracker.statistics().queue_depth)

    async with UsageTracker(tmp_path, queue_size=4) as tracker:
        await asyncio.gather(*[work(tracker, name) for name in "abcdefghij"])
    assert deepest <= 4
    assert_once(tmp_path)
    assert len(keys(tmp_path)) == 600


async def test_cancelled_while_it_waits_for_room_nothing_was_recorded(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    async with UsageTracker(tmp_path, queue_size=1, fs=disk) as tracker:
        with disk.hang("create"):
            tracker.record_nowait(usage(0))
            tasks = [asyncio.create_task(tracker.record(usage(n))) for n in (1, 2, 3)]
            await until(lambda: tracker.statistics().waiting == 3)
            tasks[1].cancel()
            await turns()
            assert tasks[1].cancelled()
        await asyncio.gather(tasks[0], tasks[2])
        assert tracker.totals().calls == 3
    assert_once(tmp_path, [0, 1, 3])


async def test_cancelled_while_it_waits_for_the_ack_the_record_is_written_all_the_same(
    tmp_path: Path,
) -> None:
    disk = FaultyFileSystem()
    async with UsageTracker(tmp_path, fs=disk) as tracker:
        with disk.hang("create") as hang:
            task = asyncio.create_task(tracker.record(usage(1)))
            await stuck(hang)
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
        await tracker.record(usage(2))
    assert_once(tmp_path, [1, 2])


async def test_who_waits_for_room_hears_of_the_close(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    tracker = UsageTracker(tmp_path, queue_size=1, fs=disk)
    await tracker.open()
    with disk.hang("create"):
        tracker.record_nowait(usage(0))
        waiter = asyncio.create_task(tracker.record(usage("no")))
        await until(lambda: tracker.statistics().waiting == 1)
        closer = asyncio.create_task(tracker.aclose())
        with pytest.raises(LedgerClosed, match="closing"):
            await waiter
    await closer
    assert_once(tmp_path, [0])


# -- totals ----------------------------------------------------------------------------------------


async def test_totals_are_exact_to_the_picodollar(tmp_path: Path) -> None:
    costs = [Decimal(n) / 1_000_000_000_000 for n in range(1, 2_001)] + [Decimal("0.1")] * 10
    async with UsageTracker(tmp_path) as tracker:
        for cost in costs:
            tracker.record_nowait(usage(cost=cost))
        tracker.record_nowait(usage(cost=None))
        totals = tracker.totals()
    assert totals.cost == sum(costs)
    assert totals.calls == len(costs) + 1
    assert totals.total_tokens == 150 * (len(costs) + 1)


async def test_the_running_totals_are_those_of_the_ledger(tmp_path: Path) -> None:
    by = ["model", "tag:user", "status"]
    async with UsageTracker(tmp_path, tags={"env": "test"}) as tracker:
        for number in range(300):
            with tracker.tag(user=f"user-{number % 7}"):
                tracker.record_nowait(
                    usage(
                        model=f"m{number % 3}",
                        status="error" if number % 5 == 0 else "ok",
                        input_tokens=number,
                        cost=Decimal(number) / 1_000,
                    )
                )
        live, total = tracker.summary(by), tracker.totals()
        await tracker.flush()
        report = Ledger(tmp_path).report(by=by)
    assert live == report.rows
    assert total == report.total
    assert {row.group["tag:user"] for row in live} == {f"user-{n}" for n in range(7)}


async def test_a_key_that_totals_do_not_keep_is_refused(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path) as tracker:
        with pytest.raises(ValueError, match="day"):
            tracker.summary(["day"])


# -- flush -----------------------------------------------------------------------------------------


async def test_flush_waits_for_what_was_recorded_before_it(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    async with UsageTracker(tmp_path, fs=disk) as tracker:
        with disk.hang("create") as hang:
            tracker.record_nowait(usage(0))
            flush = asyncio.create_task(tracker.flush())
            await stuck(hang)
            await turns()
            assert not flush.done()
        await flush
        assert keys(tmp_path) == ["0"]


async def test_flush_that_runs_out_of_time_says_how_many_and_loses_none(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    async with UsageTracker(tmp_path, fs=disk) as tracker:
        with disk.hang("create"):
            for number in range(7):
                tracker.record_nowait(usage(number))
            with pytest.raises(FlushTimeout, match="7 records unwritten") as caught:
                await tracker.flush(timeout=0.05)
            assert caught.value.unwritten == 7
            assert isinstance(caught.value, TimeoutError)
        await tracker.flush()
        assert_once(tmp_path, range(7))


async def test_flushes_take_in_what_other_threads_have_handed_over_and_wait_for_the_disk(
    tmp_path: Path,
) -> None:
    async with UsageTracker(tmp_path, durability="synced") as tracker:
        for number in range(5):
            tracker.record_nowait(usage(number))
            tracker.record_threadsafe(usage(number))
        await tracker.flush()
        assert tracker.statistics().synced == len(keys(tmp_path)) == 10
        tracker.record_nowait(usage(1))
        await asyncio.wait_for(asyncio.gather(*[tracker.flush() for _ in range(20)]), WAIT)
        await tracker.flush(timeout=WAIT)


# -- statistics ------------------------------------------------------------------------------------


async def test_statistics_tell_the_whole_life(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    tracker = UsageTracker(tmp_path, queue_size=9, fs=disk, handle_signals=False)
    begin = tracker.statistics()
    assert (begin.state, begin.writer, begin.accepted, begin.signals) == (
        "unopened",
        None,
        0,
        "off",
    )
    await tracker.open()
    with disk.hang("create"):
        for number in range(9):
            tracker.record_nowait(usage(number))
        full = tracker.statistics()
        assert (full.state, full.accepted, full.written, full.synced) == ("open", 9, 0, 0)
        assert (full.queue_depth, full.queue_size) == (9, 9)
    await tracker.flush()
    flushed = tracker.statistics()
    assert (flushed.written, flushed.queue_depth, flushed.segments) == (9, 0, 1)
    assert flushed.bytes == flushed.unsynced_bytes > 9 * 100
    assert flushed.oldest_unsynced_s >= 0
    await tracker.aclose()
    end = tracker.statistics()
    assert (end.state, end.accepted, end.written, end.synced) == ("closed", 9, 9, 9)
    assert (end.unsynced_bytes, end.retries, end.last_error, end.unacked) == (0, 0, None, 0)
    assert end.writer == full.writer


# -- one loop --------------------------------------------------------------------------------------


def elsewhere(work: Callable[[], Any]) -> Any:
    """Run a coroutine function on a loop of its own; return its result or error."""
    try:
        return asyncio.run(work())
    except Exception as exc:
        return exc


async def test_another_loop_is_refused_everything_and_told_what_to_do(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path) as tracker:

        async def nowait() -> None:
            tracker.record_nowait(usage("no"))

        for work in (
            lambda: tracker.record(usage("no")),
            nowait,
            tracker.flush,
            tracker.open,
            tracker.aclose,
        ):
            error = await asyncio.to_thread(elsewhere, work)
            assert isinstance(error, WrongLoop), work
            assert "record_threadsafe" in str(error)
        await tracker.record(usage(1))
    assert_once(tmp_path, [1])


async def test_another_loop_may_record_threadsafe(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path) as tracker:

        async def work() -> UsageRecord:
            return await asyncio.wrap_future(tracker.record_threadsafe(usage(1)))

        record = await asyncio.to_thread(elsewhere, work)
        assert record.seq == 1


async def test_closing_on_another_loop_when_its_own_is_gone_saves_all(tmp_path: Path) -> None:
    def other_life() -> UsageTracker:
        async def main() -> UsageTracker:
            tracker = UsageTracker(tmp_path)
            await tracker.open()
            for number in range(10):
                tracker.record_nowait(usage(number))
            return tracker

        return asyncio.run(main())

    tracker = await asyncio.to_thread(other_life)
    await tracker.aclose()
    assert_once(tmp_path, range(10))
    assert_closed(tmp_path)


# -- errors a user meets first ---------------------------------------------------------------------


@pytest.mark.parametrize("part", [".", "segments", "live", "recovery"])
async def test_a_file_where_a_directory_should_be_is_a_clear_error(
    tmp_path: Path, part: str
) -> None:
    blocked = tmp_path / "usage" / part
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("mine")
    tracker = UsageTracker(tmp_path / "usage")
    with pytest.raises(LedgerPathError, match="a file is in the way") as caught:
        await tracker.open()
    assert str(tmp_path / "usage") in str(caught.value)
    assert "LITELLM_LEDGER_DIR" not in str(caught.value)
    await tracker.aclose()
    assert blocked.read_text() == "mine"


async def test_an_unusable_default_directory_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.delenv("LITELLM_LEDGER_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    with pytest.raises(LedgerPathError, match="LITELLM_LEDGER_DIR"):
        await UsageTracker().open()


@pytest.mark.parametrize(
    ("call", "error", "advice"),
    [
        ("make_directory", errno.EACCES, "writable for this user"),
        ("make_directory", errno.EROFS, "read-only"),
        ("make_directory", errno.ENOSPC, "the disk is full"),
        ("rename", errno.EIO, "cannot write the ledger"),  # of the live file
    ],
)
async def test_a_directory_that_cannot_be_written_is_a_clear_error(
    tmp_path: Path, call: Any, error: int, advice: str
) -> None:
    disk = FaultyFileSystem()
    disk.fail(call, error=error)
    tracker = UsageTracker(tmp_path / "usage", fs=disk)
    with pytest.raises(LedgerPathError, match=advice):
        await tracker.open()
    assert not list((tmp_path / "usage").glob("live/*"))
    await tracker.aclose()


async def test_when_the_directory_is_mended_the_next_try_opens(tmp_path: Path) -> None:
    blocker = tmp_path / "usage"
    blocker.write_text("in the way")
    tracker = UsageTracker(blocker)
    for _ in range(2):
        with pytest.raises(LedgerPathError):
            await tracker.record(usage("no"))
    blocker.unlink()
    await tracker.record(usage(1))
    await tracker.aclose()
    assert_once(blocker, [1])


@pytest.mark.parametrize(
    "options", [{"durability": "durable"}, {"queue_size": 0}, {"queue_size": -5}]
)
async def test_options_that_cannot_be_right_are_refused_at_once(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        UsageTracker(tmp_path, **options)


# -- left lying about ------------------------------------------------------------------------------


async def test_one_that_is_dropped_unclosed_saves_all_and_says_so(tmp_path: Path) -> None:
    tracker = UsageTracker(tmp_path, handle_signals=False)
    await tracker.open()
    for number in range(12):
        tracker.record_nowait(usage(number))
    with pytest.warns(ResourceWarning, match="unclosed UsageTracker"):  # noqa: PT031
        del tracker
        gc.collect()
    await turns()
    assert_once(tmp_path, range(12))
    assert_closed(tmp_path)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_threads_and_descriptors_end_with_the_tracker(tmp_path: Path) -> None:
    async def life() -> None:
        async with UsageTracker(tmp_path, durability="synced") as tracker:
            await tracker.record(usage())

    def threads() -> set[threading.Thread]:
        return {t for t in threading.enumerate() if t.name.startswith("litellm-ledger")} - before

    before: set[threading.Thread] = set()
    before = threads()
    await life()
    descriptors = open_files()
    for _ in range(5):
        await life()
    (tmp_path / "blocked").write_text("")
    for _ in range(3):
        refused = UsageTracker(tmp_path / "blocked")
        with pytest.raises(LedgerPathError):
            await refused.open()
    del refused
    await until(lambda: gc.collect() + 1 and not threads())
    assert open_files() <= descriptors


@pytest.mark.asyncio
async def test_a_report_of_all_that_is_on_the_ledger_reads_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with UsageTracker(tmp_path) as yesterday:
        await yesterday.record(usage("one", cost=Decimal(1)))
    tracker = UsageTracker(tmp_path)
    threads: list[str] = []
    report = Ledger.report

    def seen(*args: Any, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return report(*args, **options)

    monkeypatch.setattr(Ledger, "report", seen)
    assert (await tracker.report([])).total.cost == Decimal(1)  # the first use opens
    await tracker.record(usage("two", cost=Decimal(2)))
    found = await tracker.report(["day"], tz="Europe/Berlin", quantiles=True)
    assert (found.by, found.total.cost) == (("day",), Decimal(3))
    assert set(threads) == {"litellm-ledger-report"}
    with pytest.raises(ValueError, match="tz"):
        await tracker.report(["day"], tz="Europe/Nowhere")
    await tracker.aclose()
    assert (await tracker.report([])).total.calls == 2  # a closed one still reads
