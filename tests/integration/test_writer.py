"""``AsyncUsageWriter`` against disks that are slow, full, stuck, lying or dead."""

from __future__ import annotations

import asyncio
import errno
import gc
import itertools
import logging
import math
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.runs import (
    WAIT,
    assert_closed,
    assert_once,
    assert_verified,
    assert_whole,
    calls_of,
    keys,
    kinds,
    lines,
    stuck,
    turns,
    until,
    usage,
)

from litellm_ledger import (
    AsyncUsageWriter,
    DrainTimeout,
    Ledger,
    LedgerClosed,
    LedgerFailed,
    LedgerWarning,
    UsageRecord,
    UsageTracker,
)
from litellm_ledger._records.layout import LIVE, SEGMENTS
from litellm_ledger._storage import segment as segment_module
from litellm_ledger._writing import write_loop as writing_module
from litellm_ledger._writing.state import State
from litellm_ledger.testing import FaultyFileSystem

pytestmark = pytest.mark.asyncio


class Diary(FaultyFileSystem):
    """Notes the end of every call, and what the test itself notes, in one list."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def _do(self, operation: Any, path: Path, call: Callable[[], Any], **more: Any) -> Any:
        result = super()._do(operation, path, call, **more)
        self.events.append(operation)
        return result


async def acked(writer: AsyncUsageWriter, key: object, events: list[str]) -> UsageRecord:
    record = writer.accept(usage(key))
    assert await writer.ack(record)
    events.append(f"ack {key}")
    return record


# -- durability: what comes before the ack ---------------------------------------------------------


@pytest.mark.parametrize(
    ("durability", "first", "second"),
    [
        ("queued", "", ""),
        ("written", "create write", "write"),
        ("synced", "create write sync links sync_directory", "write sync links"),
    ],
)
async def test_an_ack_comes_after_what_its_durability_promises_and_no_later(
    tmp_path: Path, durability: Any, first: str, second: str
) -> None:
    disk = Diary()
    options = {"fs": disk, "durability": durability, "sync_interval": 1000}
    async with AsyncUsageWriter(tmp_path, **options) as writer:
        for number, before in enumerate((first, second)):
            disk.events.clear()
            await acked(writer, number, disk.events)
            assert disk.events == [*before.split(), f"ack {number}"]
    assert_once(tmp_path, [0, 1])


@pytest.mark.parametrize("durability", ["written", "synced"])
async def test_no_ack_while_the_disk_hangs(tmp_path: Path, durability: Any) -> None:
    disk = FaultyFileSystem()
    async with AsyncUsageWriter(tmp_path, fs=disk, durability=durability) as writer:
        with disk.hang("create" if durability == "written" else "sync") as hang:
            ack = asyncio.create_task(acked(writer, 0, []))
            await stuck(hang)
            await turns(20)
            assert not ack.done()
        await ack


async def test_acks_come_in_order_and_every_batch_counts_once(tmp_path: Path) -> None:
    order: list[str] = []
    async with AsyncUsageWriter(tmp_path) as writer:
        await asyncio.gather(*[acked(writer, number, order) for number in range(2_000)])
        assert order == [f"ack {number}" for number in range(2_000)]
        statistics = writer.statistics()
        assert statistics.on_loop + statistics.on_thread < 50, "batches, not single writes"
    assert_once(tmp_path, range(2_000))


async def test_ack_gives_up_in_time_and_says_so(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    async with AsyncUsageWriter(tmp_path, fs=disk) as writer:
        with disk.hang("create"):
            record = writer.accept(usage(0))
            assert not await writer.ack(record, timeout=0.01)
        assert await writer.ack(record, timeout=WAIT)


# -- failing writes --------------------------------------------------------------------------------


async def test_a_full_disk_keeps_the_records_and_calls_go_on_until_there_is_space(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FaultyFileSystem()
    caplog.set_level(logging.WARNING, "litellm_ledger")
    async with UsageTracker(tmp_path, fs=disk, queue_size=50) as tracker:
        await tracker.record(usage(0))
        disk.fill(free=1_000)
        for number in range(1, 41):
            tracker.record_nowait(usage(number))
        await until(lambda: tracker.statistics().retries >= 2)
        full = tracker.statistics()
        assert full.last_error is not None
        assert "No space left" in full.last_error
        assert 0 < full.queue_depth < 41, "what fitted is written, the rest is kept"
        tracker.record_nowait(usage(41))  # calls go on
        disk.empty()
        await tracker.flush(WAIT)
        assert tracker.statistics().queue_depth == 0
    assert_once(tmp_path, range(42))
    warned = [record for record in caplog.records if "cannot write" in record.getMessage()]
    assert warned, "a disk that refuses is said once, not never"
    assert "nothing is lost" in warned[0].getMessage()


async def test_a_full_disk_ends_in_backpressure_and_that_ends_with_space(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    async with UsageTracker(tmp_path, fs=disk, queue_size=5) as tracker:
        disk.fill()
        for number in range(5):
            tracker.record_nowait(usage(number))
        waiters = [asyncio.create_task(tracker.record(usage(n))) for n in range(5, 12)]
        await until(lambda: tracker.statistics().retries >= 2)
        assert tracker.statistics().waiting == 7
        disk.empty()
        await asyncio.gather(*waiters)
    assert_once(tmp_path, range(12))


async def test_the_pause_between_tries_grows_and_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
        await real(0)

    disk = FaultyFileSystem()
    async with AsyncUsageWriter(tmp_path, fs=disk) as writer:
        monkeypatch.setattr(writing_module.asyncio, "sleep", sleep)
        disk.fail("create", times=12)
        await acked(writer, 0, [])
        monkeypatch.undo()
    assert pauses[:4] == [0.01, 0.02, 0.04, 0.08]
    assert pauses[-3:] == [1.0, 1.0, 1.0]
    assert len(pauses) == 12


async def test_a_failed_sync_moves_the_lines_to_a_segment_of_their_own(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    async with UsageTracker(tmp_path, fs=disk, durability="synced") as tracker:
        await tracker.record(usage(0))
        disk.fail("sync")
        record = await tracker.record(usage(1))
        assert tracker.statistics().synced == 2
        first = next(path for path in (tmp_path / SEGMENTS).iterdir() if path.suffix == ".open")
        synced = [call.path for call in disk.calls if call.operation == "sync"]
        assert synced.count(first) == 2, "once well, once failed, never again"
        await tracker.record(usage(2))
        assert record.id
    assert first.exists(), "left alone: recovery seals it"
    assert keys(tmp_path) == ["0", "1", "2"]
    written = lines(tmp_path)
    assert len(written) - len(set(written)) == 1, "the rescued line is there twice, same id"


async def test_a_sync_that_fails_for_good_is_tried_until_the_end_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FaultyFileSystem()
    tracker = UsageTracker(tmp_path, fs=disk, durability="synced")
    await tracker.open()
    disk.fail("sync", times=None)
    task = asyncio.create_task(tracker.record(usage(0)))
    await until(lambda: tracker.statistics().retries >= 3)
    assert not task.done()
    with pytest.raises(DrainTimeout):
        await tracker.aclose(0.1)
    with pytest.raises((LedgerClosed, LedgerFailed)):
        await asyncio.wait_for(task, WAIT)
    assert keys(tmp_path) == ["0"], "the operating system has it all the same"


async def test_a_segment_that_somebody_removes_is_written_anew(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path, durability="synced") as tracker:
        await tracker.record(usage(0))
        for path in (tmp_path / SEGMENTS).iterdir():
            path.unlink()
        await tracker.record(usage(1))
        await tracker.record(usage(2))
    assert keys(tmp_path) == ["1", "2"], "what was synced and removed is gone, nothing else"


async def test_a_name_that_cannot_be_synced_is_no_sealed_segment(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    async with UsageTracker(tmp_path, fs=disk) as tracker:
        await tracker.record(usage(0))
        disk.fail("sync_directory", times=2)
        await tracker.flush()
        await tracker.record(usage(1))
    assert set(keys(tmp_path)) == {"0", "1"}


# -- a writer that dies ----------------------------------------------------------------------------


class Bug(BaseException):
    """Something that nobody foresaw."""


async def dying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[UsageTracker, asyncio.Event]:
    """A tracker whose writer task dies when the event is set."""
    tracker = UsageTracker(tmp_path, handle_signals=False, **options)
    await tracker.open()
    strike = asyncio.Event()

    async def commit(*args: Any, **kwargs: Any) -> None:
        await strike.wait()
        raise Bug("nobody foresaw this")

    monkeypatch.setattr(tracker._writer._writing, "_commit", commit)
    return tracker, strike


async def test_when_the_writer_dies_everybody_who_waits_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker, strike = await dying(tmp_path, monkeypatch, queue_size=3)
    waiting = [asyncio.create_task(tracker.record(usage(number))) for number in range(8)]
    await until(lambda: tracker.statistics().waiting == 5)
    waiting += [asyncio.create_task(tracker.flush()) for _ in range(2)]
    await turns()
    strike.set()
    ends = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), WAIT)
    assert [type(end) for end in ends] == [LedgerFailed] * 10
    assert {type(end.__cause__) for end in ends if isinstance(end, LedgerFailed)} == {Bug}
    assert tracker.state is State.FAILED
    assert "writer task died" in caplog.text
    for attempt in (tracker.record(usage("no")), tracker.flush(), tracker.open()):
        with pytest.raises(LedgerFailed, match="cannot write any more"):
            await attempt
    with pytest.raises(LedgerFailed):
        tracker.record_nowait(usage("no"))
    with pytest.raises(LedgerFailed):
        tracker.record_threadsafe(usage("no"))
    await asyncio.wait_for(tracker.aclose(), WAIT)
    assert_whole(tmp_path, range(3))


async def test_when_the_writer_dies_other_threads_hear_of_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, strike = await dying(tmp_path, monkeypatch)
    early = tracker.record_threadsafe(usage("early"))
    await turns()
    strike.set()
    await turns(1)
    late = tracker.record_threadsafe(usage("late"))  # handed over before anybody knows
    for future in (early, late):
        with pytest.raises(LedgerFailed):
            await asyncio.wait_for(asyncio.wrap_future(future), WAIT)
    await tracker.aclose()
    assert_once(tmp_path, ["early", "late"])


async def test_when_the_writer_dies_outcomes_are_still_taken_and_saved_at_the_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, strike = await dying(tmp_path, monkeypatch, durability="queued")
    started = await calls_of(tracker).start(UsageRecord(kind="started", model="m"), ack_timeout=1)
    strike.set()
    await until(lambda: tracker.state is State.FAILED)
    assert started is not None
    outcome = calls_of(tracker).end(
        usage("outcome", operation=started.operation, attempt=1), started
    )
    await calls_of(tracker).acknowledge(outcome, 1)
    await tracker.aclose()
    assert keys(tmp_path) == ["outcome"]
    assert_closed(tmp_path)


async def cancel_all_others() -> None:
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await turns()


async def test_when_somebody_cancels_every_task_the_ledger_goes_on_synchronously(
    tmp_path: Path,
) -> None:
    async with UsageTracker(tmp_path, durability="synced") as tracker:
        for number in range(5):
            tracker.record_nowait(usage(number))
        await cancel_all_others()
        for number in range(5, 8):
            record = await asyncio.wait_for(tracker.record(usage(number)), WAIT)
            assert list(Ledger(tmp_path).records())[-1] == record
        tracker.record_nowait(usage(8))
        future = await asyncio.to_thread(tracker.record_threadsafe, usage(9))
        await asyncio.wait_for(asyncio.wrap_future(future), WAIT)
        await tracker.flush(WAIT)
        assert tracker.statistics().synced == 10
    assert_whole(tmp_path, range(10))


async def test_a_disk_that_refuses_is_named_with_its_error(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    async with UsageTracker(tmp_path, fs=disk) as tracker:
        started = await start(tracker)
        disk.fail("write", times=None)
        with pytest.warns(LedgerWarning, match=r"writing fails \(.*Input/output"):
            await calls_of(tracker).acknowledge(calls_of(tracker).end(usage(1), started), 0.2)
        disk.heal()
        await tracker.flush(WAIT)
        assert tracker._writer.disk()[1] is None
    assert keys(tmp_path) == ["1"]


async def test_nothing_is_acked_that_could_not_be_saved_synchronously(
    tmp_path: Path,
) -> None:
    disk = FaultyFileSystem()
    tracker = UsageTracker(tmp_path, fs=disk)
    started = await start(tracker)
    tracker._writer.admission.task.cancel()  # type: ignore[union-attr]
    await turns()
    disk.fail("write", times=None)
    with pytest.warns(LedgerWarning, match="has not acknowledged.*was not saved yet"):
        await calls_of(tracker).acknowledge(calls_of(tracker).end(usage(1), started), 0.05)
    assert tracker.statistics().unacked == 1
    with pytest.raises(LedgerFailed, match="not saved"):
        await tracker.record(usage(2))
    disk.heal()
    await tracker.aclose()
    assert keys(tmp_path) == ["1", "2"]
    assert_closed(tmp_path)


async def test_without_its_task_a_full_disk_is_tried_again_until_there_is_space(
    tmp_path: Path,
) -> None:
    disk = FaultyFileSystem()
    tracker = UsageTracker(tmp_path, fs=disk, queue_size=2, handle_signals=False)
    await tracker.record(usage(0))
    await cancel_all_others()
    disk.fill()
    for number in (1, 2):
        with pytest.raises(LedgerFailed, match="tried every second"):
            await tracker.record(usage(number))
    waiting = asyncio.create_task(tracker.record(usage(3)))
    await turns()
    assert not waiting.done(), "no room"
    disk.empty()
    await asyncio.wait_for(waiting, WAIT)
    await asyncio.wait_for(tracker.record(usage(4)), WAIT)
    await tracker.aclose()
    assert_whole(tmp_path, range(5))


async def test_a_late_outcome_does_not_hold_the_loop_in_a_disk_that_hangs(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    tracker = UsageTracker(tmp_path, fs=disk, handle_signals=False)
    calls = [await start(tracker) for _ in range(10)]
    await tracker.aclose()
    with disk.hang("write") as hang:
        began = time.monotonic()
        for number, started in enumerate(calls):
            outcome = usage(number, operation=started.operation, attempt=1)
            assert calls_of(tracker).end(outcome, started).seq == 11 + number
        assert time.monotonic() - began < 2.0
        assert hang.entered.is_set()
    await until(lambda: tracker.statistics().queue_depth == 0)
    await until(lambda: not list((tmp_path / LIVE).iterdir()))
    assert keys(tmp_path) == [str(number) for number in range(10)]
    assert_closed(tmp_path)


async def start(tracker: UsageTracker) -> UsageRecord:
    await calls_of(tracker).ready()
    started = await calls_of(tracker).start(
        UsageRecord(kind="started", model="m"), ack_timeout=WAIT
    )
    assert started is not None
    return started


# -- loop or thread --------------------------------------------------------------------------------


async def test_small_batches_go_straight_from_the_loop(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path) as tracker:
        for number in range(20):
            await tracker.record(usage(number))
        statistics = tracker.statistics()
        assert statistics.on_loop >= 18
        assert statistics.on_thread <= 2  # the first one makes the file


async def lone_call(tracker: UsageTracker) -> int:
    """One call's two records, each acknowledged; return how often the loop went round meanwhile."""
    loop = asyncio.get_running_loop()
    rounds = 0

    def count() -> None:
        nonlocal rounds
        rounds += 1
        loop.call_soon(count)

    loop.call_soon(count)
    started = await start(tracker)
    await calls_of(tracker).acknowledge(calls_of(tracker).end(usage("lone"), started), 5.0)
    return rounds


async def test_the_records_of_a_lone_call_are_written_without_a_turn_of_the_loop(
    tmp_path: Path,
) -> None:
    async with UsageTracker(tmp_path) as tracker:
        await tracker.record(usage(0))  # makes the file
        assert await lone_call(tracker) == 0
        assert tracker.statistics().written == 3
        still_open = await start(tracker)
        assert await lone_call(tracker) > 0, "of several calls the writer task makes batches"
        calls_of(tracker).end(usage("open"), still_open)
    assert keys(tmp_path)[-2:] == ["lone", "open"]


async def test_a_lone_call_leaves_a_slow_or_failing_disk_to_the_writer_task(
    tmp_path: Path,
) -> None:
    fs = FaultyFileSystem()
    async with UsageTracker(tmp_path, fs=fs) as tracker:
        assert await lone_call(tracker) > 0, "the first record makes the file: a thread's work"
        fs.fail("write", times=None, error=errno.ENOSPC)
        call = asyncio.create_task(lone_call(tracker))
        await asyncio.sleep(0.1)
        assert not call.done()
        fs.heal()
        assert await call > 0
        assert tracker.statistics().written == 4
    assert kinds(tmp_path) == ["started", "ok", "started", "ok"]


class Noting:
    """Records when it is collected, as a user's ``__del__`` may."""

    def __init__(self, tracker: UsageTracker, noted: list[int]) -> None:
        self.cycle, self.tracker, self.noted = self, tracker, noted

    def __del__(self) -> None:
        self.tracker.record_nowait(usage("finalizer"))
        self.noted.append(1)


@pytest.mark.parametrize("threshold", [2, 3, 5, 7, 11, 13])
async def test_finalizers_that_record_wherever_they_strike_lose_and_hold_up_nothing(
    tmp_path: Path, threshold: int
) -> None:
    noted: list[int] = []
    before = gc.get_threshold()
    async with UsageTracker(tmp_path) as tracker:
        gc.set_threshold(threshold, 1_000, 1_000)
        try:
            for _ in range(150):
                Noting(tracker, noted)
                await asyncio.wait_for(lone_call(tracker), WAIT)
                Noting(tracker, noted)
                tracker.record_nowait(usage("between"))
                await asyncio.wait_for(tracker.record(usage("waits")), WAIT)
        finally:
            gc.set_threshold(*before)
        gc.collect()
        await asyncio.wait_for(tracker.flush(), WAIT)
        assert tracker.totals().calls == 450 + len(noted)
    assert noted
    assert_once(tmp_path)
    assert len(keys(tmp_path)) == 450 + len(noted)


@pytest.mark.parametrize("next_step", ["record", "flush", "record_nowait"])
async def test_a_record_that_woke_nobody_is_written_with_what_comes_next(
    tmp_path: Path, next_step: str
) -> None:
    """As one that a finalizer puts in while asyncio's ``get`` is about to wait."""
    async with UsageTracker(tmp_path, sync_interval=1_000) as tracker:
        await tracker.record(usage(0))
        backlog = tracker._writer.admission.backlog
        backlog.accept_alone(usage(1), None)
        backlog.queue.give_back()
        await turns(5)
        assert tracker.statistics().written == 1
        if next_step == "record":
            await asyncio.wait_for(tracker.record(usage(2)), WAIT)
        elif next_step == "flush":
            await tracker.flush(WAIT)
        else:
            for number in range(64):
                tracker.record_nowait(usage(number))
            await until(lambda: tracker.statistics().queue_depth == 0)
    assert_once(tmp_path)


class Alarm(BaseException):
    """What a handler of a signal raises: a time-out, a KeyboardInterrupt."""


def raise_at(line: int, work: Callable[[], object]) -> bool:
    """Run ``work``; raise ``Alarm`` at its ``line``-th line of ours; tell whether there was one."""
    files = ("/backlog.py", "/admission.py", "/queue.py", "/write_loop.py", "/totals.py")
    left = line

    def trace(frame: Any, event: str, arg: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(files):
            return trace if event == "call" else None
        left -= event == "line"
        if left == 0:
            sys.settrace(None)
            raise Alarm
        return trace

    sys.settrace(trace)
    try:
        work()
    except Alarm:
        return True
    finally:
        sys.settrace(None)
    return False


@pytest.mark.parametrize(
    ("before", "then"), [(0, "goes on"), (1, "goes on"), (0, "flushes"), (1, "closes")]
)
async def test_an_exception_out_of_a_signal_handler_stops_and_doubles_nothing(
    tmp_path: Path, before: int, then: str
) -> None:
    """It strikes at any line between a record's caller and the disk, and the program goes on."""
    for line in itertools.count(1):
        path = tmp_path / str(line)
        async with UsageTracker(path, sync_interval=1_000, handle_signals=False) as tracker:
            for number in range(before):
                await tracker.record(usage(number))
            take = tracker._writer.admission.take
            struck = raise_at(line, partial(take, UsageRecord(kind="started", model="m")))
            if then == "goes on":
                for _ in range(2):
                    await asyncio.wait_for(start(tracker), WAIT)
            elif then == "flushes":
                await tracker.flush(WAIT)
            if then != "closes":
                assert tracker.statistics().queue_depth == 0, f"at line {line}"
        assert_once(path)
        assert_verified(path, strictly=True, about=f"at line {line}")
        if not struck:
            break
    assert line > 40


async def test_threads_are_answered_when_the_loop_was_closed_before_it_took_their_records(
    tmp_path: Path,
) -> None:
    def work() -> None:
        loop = asyncio.new_event_loop()
        tracker = UsageTracker(tmp_path, handle_signals=False)
        loop.run_until_complete(tracker.open())
        first = tracker.record_threadsafe(usage("before"))  # wakes a loop that never runs again
        loop.close()
        second = tracker.record_threadsafe(usage("after"))
        assert [f.result(WAIT).call_id for f in (first, second)] == ["before", "after"]
        tracker._writer.finish_now(WAIT)

    await asyncio.to_thread(work)
    assert keys(tmp_path) == ["before", "after"]


@pytest.mark.parametrize("absurd", [math.nan, "10", True])
async def test_a_timeout_that_is_no_number_of_seconds_is_refused(
    tmp_path: Path, absurd: Any
) -> None:
    with pytest.raises(ValueError, match="drain_timeout must be seconds"):
        UsageTracker(tmp_path, drain_timeout=absurd)
    async with UsageTracker(tmp_path) as tracker:
        with pytest.raises(ValueError, match="timeout must be seconds"):
            await tracker.aclose(absurd)
        with pytest.raises(ValueError, match="timeout must be seconds"):
            await tracker.flush(absurd)
        await tracker.record(usage(0))
        await tracker.aclose(math.inf)
    assert_closed(tmp_path)


async def test_a_signal_handler_that_records_is_taken_as_any_other(tmp_path: Path) -> None:
    struck = 0
    async with UsageTracker(tmp_path, queue_size=1_000_000, handle_signals=False) as tracker:

        def handler(*_: object) -> None:
            nonlocal struck
            struck += 1
            tracker.record_nowait(usage("handler"))

        before = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        recorded = 0
        try:
            while struck < 2_000:
                for _ in range(50):
                    tracker.record_nowait(usage("loop"))
                    recorded += 1
                await tracker.flush(WAIT)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        await tracker.flush(WAIT)
        assert tracker.statistics().written == recorded + struck
    assert_once(tmp_path)


class SlowClock:
    """A clock in which a write takes as long as the test says."""

    def __init__(self) -> None:
        self.now = 100.0
        self.write_takes = 0.0

    def perf_counter(self) -> float:
        self.now += self.write_takes / 2  # looked at before and after
        return self.now

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


async def test_a_slow_write_sends_the_next_ones_to_the_thread_and_a_quick_second_brings_them_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SlowClock()
    monkeypatch.setattr(writing_module, "time", clock)
    async with UsageTracker(tmp_path, sync_interval=1000) as tracker:
        await tracker.record(usage(0))

        async def where() -> str:
            before = tracker.statistics()
            await tracker.record(usage("x"))
            after = tracker.statistics()
            return "loop" if after.on_loop > before.on_loop else "thread"

        assert await where() == "loop"
        clock.write_takes = 4 * writing_module.SLOW_WRITE
        assert await where() == "loop"  # which finds out
        clock.write_takes = 0.0
        assert await where() == "thread"
        clock.now += 0.9
        assert await where() == "thread"
        clock.now += 0.2
        assert await where() == "loop"


async def test_a_batch_too_large_for_the_loop_goes_to_the_thread(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path) as tracker:
        await tracker.record(usage(0))
        before = tracker.statistics()
        for number in range(100):
            tracker.record_nowait(usage(number, meta={"text": "x" * 3_000}))
        await tracker.flush()
        assert tracker.statistics().on_thread > before.on_thread


async def test_encoding_never_holds_the_loop_for_a_whole_queue(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path, queue_size=50_000) as tracker:
        for number in range(10_000):
            tracker.record_nowait(usage(number))
        rounds = 0
        flush = asyncio.create_task(tracker.flush())
        while not flush.done():
            rounds += 1
            await asyncio.sleep(0)
        assert rounds >= 10_000 // writing_module.BATCH_RECORDS


# -- syncing, rotating -----------------------------------------------------------------------------


async def test_what_is_written_is_synced_in_the_background(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with UsageTracker(tmp_path, sync_interval=0.5) as tracker:
        await tracker.record(usage(0))
        assert tracker.statistics().synced == 0
        began = loop.time()
        await until(lambda: tracker.statistics().oldest_unsynced_s == 0)
        assert loop.time() - began < 10
        assert tracker.statistics().synced == 1
        await tracker.record(usage(1))
        assert tracker.statistics().synced == 1
        await until(lambda: tracker.statistics().synced == 2)


async def test_the_background_sync_is_at_most_a_second_behind_by_default(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path) as tracker:
        await tracker.record(usage(0))
        timer = tracker._writer._writing._timer
        assert timer is not None
        assert timer.when() - asyncio.get_running_loop().time() <= 1.0


async def test_one_sync_covers_many_writes(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    async with UsageTracker(tmp_path, fs=disk, sync_interval=0.05) as tracker:
        for number in range(200):
            await tracker.record(usage(number))
        await until(lambda: tracker.statistics().synced == 200)
        syncs = sum(call.operation == "sync" for call in disk.calls)
    assert 1 <= syncs < 50


async def test_many_unsynced_bytes_are_synced_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert segment_module.UNSYNCED_SOFT == 8 * 2**20
    assert segment_module.UNSYNCED_HARD == 16 * 2**20
    monkeypatch.setattr(writing_module, "UNSYNCED_SOFT", 10_000)
    async with UsageTracker(tmp_path, sync_interval=1000) as tracker:
        for number in range(100):
            await tracker.record(usage(number))
            assert tracker.statistics().unsynced_bytes < 10_500
        assert tracker.statistics().synced > 0


async def test_writing_goes_on_while_syncs_fail_and_all_is_synced_when_they_work_again(
    tmp_path: Path,
) -> None:
    disk = FaultyFileSystem()
    async with UsageTracker(tmp_path, fs=disk, sync_interval=0.01) as tracker:
        disk.fail("sync", times=None)
        for number in range(100):
            await asyncio.wait_for(tracker.record(usage(number)), WAIT)
            if number % 30 == 0:
                retries = tracker.statistics().retries
                await until(lambda r=retries: tracker.statistics().retries > r + 1)
        assert tracker.statistics().written == 100
        assert tracker.statistics().synced == 0
        disk.heal()
        await until(lambda: tracker.statistics().synced == 100)
        assert tracker.statistics().unsynced_bytes == 0
    assert keys(tmp_path) == [str(number) for number in range(100)]
    assert Ledger(tmp_path).verify().ok


async def test_when_nothing_can_be_synced_appending_stops_and_backpressure_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing_module, "UNSYNCED_SOFT", 10_000)
    monkeypatch.setattr(segment_module, "UNSYNCED_HARD", 20_000)
    disk = FaultyFileSystem()
    async with UsageTracker(tmp_path, fs=disk, queue_size=300, sync_interval=1000) as tracker:
        disk.fail("sync", times=None)
        tasks = [asyncio.create_task(tracker.record(usage(n))) for n in range(1_000)]
        await until(lambda: tracker.statistics().waiting and tracker.statistics().retries > 2)
        statistics = tracker.statistics()
        assert statistics.unsynced_bytes < 150_000, "what is kept in memory has a limit"
        assert statistics.written < 1_000
        disk.heal()
        await asyncio.wait_for(asyncio.gather(*tasks), WAIT)
    assert sorted(keys(tmp_path), key=int) == [str(n) for n in range(1_000)]


async def test_a_large_segment_is_sealed_and_the_next_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert segment_module.ROTATE_BYTES == 64 * 2**20
    async with UsageTracker(tmp_path) as tracker:
        monkeypatch.setattr(tracker._writer.admission.backlog.log, "_rotate_bytes", 4_000)
        for number in range(100):
            await tracker.record(usage(number))
        assert tracker.statistics().segments > 5
        opened = [p for p in (tmp_path / SEGMENTS).iterdir() if p.suffix == ".open"]
        assert len(opened) == 1
    assert_whole(tmp_path, range(100))


async def test_a_day_that_ends_seals_the_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with UsageTracker(tmp_path) as tracker:
        await tracker.record(usage(0))
        clock = SlowClock()
        clock.now = segment_module.time.time() + 86_400
        monkeypatch.setattr(segment_module, "time", clock)
        await tracker.record(usage(1))
        assert tracker.statistics().segments == 2
    assert_once(tmp_path, [0, 1])


# -- opening ---------------------------------------------------------------------------------------


async def test_a_writer_that_wrote_nothing_leaves_no_segment(tmp_path: Path) -> None:
    async with AsyncUsageWriter(tmp_path):
        pass
    assert not list((tmp_path / SEGMENTS).iterdir())
    assert_closed(tmp_path)


async def test_a_writer_finishes_what_a_dead_one_left(tmp_path: Path) -> None:
    from tests.ledgers import assert_finished, directory, line, put, put_live

    directory(tmp_path)
    put(tmp_path, [line(1, "started"), line(2)[:50]], 1)
    put_live(tmp_path, 3, oldest=1)
    async with AsyncUsageWriter(tmp_path):
        pass
    assert_finished(tmp_path)


async def test_the_disk_that_fills_while_closing_is_counted_in_the_error(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    tracker = UsageTracker(tmp_path, fs=disk)
    await tracker.record(usage(0))
    disk.fill()
    for number in range(1, 8):
        tracker.record_nowait(usage(number))
    with pytest.raises(DrainTimeout, match="7 records were unwritten") as caught:
        await tracker.aclose(0.2)
    assert (caught.value.unwritten, caught.value.saved, caught.value.lost) == (7, 0, 7)
    assert keys(tmp_path) == ["0"]
    disk.empty()
    tracker._writer.finish_now(1)  # what the interpreter's exit does
    assert_whole(tmp_path, range(8))
