"""The last resort strikes anywhere: between any two bytecodes, and from inside itself.

A signal handler or a finalizer runs where it likes.  Here it runs before each single bytecode of
the code that moves records from hand to hand, one run for each; every record must be on disk once.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import math
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import pytest
from tests.ledgers import directory
from tests.runs import assert_once, assert_whole, keys, usage

from litellm_ledger import Ledger, LedgerFailed, UsageRecord
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._runtime.disk_thread import DiskThread
from litellm_ledger._storage.filesystem import REAL, FileSystem
from litellm_ledger._storage.live_file import ACCEPTED, WRITTEN, read_live
from litellm_ledger._storage.segment import SegmentLog, Stuck
from litellm_ledger._writing.backlog import Backlog
from litellm_ledger._writing.last_resort import LastResort
from litellm_ledger._writing.queue import Entry, RecordQueue, Signal
from litellm_ledger._writing.write_loop import WriteLoop
from litellm_ledger.testing import FaultyFileSystem

WRITER = "20260102T030405Z-0123456789abcdef"


TIMER: Any = object()


class Held(Backlog):
    """A backlog, its last resort and who is to write it."""

    def __init__(self, path: Path, fs: FileSystem = REAL, records: int = 0) -> None:
        super().__init__(fs, directory(path), WRITER)
        self.last_resort = LastResort(self, lambda: None, lambda: None)
        self.writing = WriteLoop(
            DiskThread(), durable=False, sync_interval=1.0, progress=lambda: None
        )
        self.writing._timer = TIMER  # set already: there is no loop to set one
        for number in range(records):
            self.accept(usage(number))


def save_late(backlog: Held, entry: Entry) -> None:
    backlog.last_resort.accept(entry)
    backlog.last_resort.save_now(5.0)


class Strike(BaseException):
    """The process ends here: nothing after it runs."""


def strike_before(
    count: int, codes: set[CodeType], work: Callable[[], None], act: Callable[[], None]
) -> bool:
    """Run ``work``; before the ``count``-th bytecode in ``codes`` run ``act`` and end it there."""
    left = count

    def strike() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            stop()
            act()
            raise Strike

    start, stop = (
        _monitored(codes, strike) if hasattr(sys, "monitoring") else _traced(codes, strike)
    )
    start()
    try:
        work()
    except Strike:
        return True
    finally:
        stop()
    return False


_Switches = tuple[Callable[[], None], Callable[[], None]]


def _traced(codes: set[CodeType], strike: Callable[[], None]) -> _Switches:
    """Python 3.11."""

    def step(frame: FrameType, event: str, arg: object) -> Any:
        if event == "opcode":
            strike()
        return step

    def enter(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code not in codes:
            return None
        frame.f_trace_opcodes = True
        return step

    return lambda: sys.settrace(enter), lambda: sys.settrace(None)


def _monitored(codes: set[CodeType], strike: Callable[[], None]) -> _Switches:
    """Python 3.12 and later."""
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
    tool = 4

    def start() -> None:
        monitoring.use_tool_id(tool, "strike")
        monitoring.register_callback(tool, monitoring.events.INSTRUCTION, lambda *_: strike())
        for code in codes:
            monitoring.set_local_events(tool, code, monitoring.events.INSTRUCTION)

    def stop() -> None:
        if monitoring.get_tool(tool) is not None:
            for code in codes:
                monitoring.set_local_events(tool, code, 0)
            monitoring.register_callback(tool, monitoring.events.INSTRUCTION, None)
            monitoring.free_tool_id(tool)

    return start, stop


def serve(backlog: Backlog) -> None:
    """What the writer task does with a batch, without the loop around it."""
    queue = backlog.queue
    queue._get()
    queue.take(10)
    items = [item for item in queue.hand if isinstance(item, tuple)]
    backlog.log.append(items[0][0], [backlog.line(item) for item in items])
    queue.hand.clear()


def end(backlog: Held) -> None:
    backlog.last_resort.save_now(0.05, seal=True)


def strikes(
    path: Path,
    codes: set[CodeType],
    begin: Callable[[Path], Held],
    work: Callable[[Held], object],
    act: Callable[[Held], None] = end,
) -> Iterator[tuple[Path, Held, bool]]:
    """Yield one life for each bytecode in ``codes``, struck there, and the first that is not."""
    for count in itertools.count(1):
        backlog = begin(path / str(count))
        struck = strike_before(count, codes, partial(work, backlog), partial(act, backlog))
        yield path / str(count), backlog, struck
        backlog.live.release()
        if not struck:
            break
    assert count > 20


@pytest.mark.parametrize("written", [False, True], ids=["only accepted", "written"])
def test_a_call_is_in_flight_until_its_outcome_is_written(tmp_path: Path, written: bool) -> None:
    backlog = Held(tmp_path)
    started = backlog.accept_started(UsageRecord(kind="started", model="m"))
    serve(backlog)
    backlog.accept_outcome(usage(1, operation=started.operation, attempt=1), 1)
    if written:
        serve(backlog)
    backlog.note_written()
    number = 0 if written else 1
    assert list(backlog.in_flight) == [1] * number
    assert read_live(backlog.live.path).oldest_in_flight == number
    backlog.live.release()  # the process dies here: what is accepted dies with it
    backlog.log.forget()
    (dead,) = recover(tmp_path).writers
    assert (dead.lost, dead.unsettled) == (number, number)
    last = "ok" if written else "unsettled"
    assert [record.status for record in Ledger(tmp_path).records()] == [last]


MOVING = {RecordQueue._get.__code__, RecordQueue.take.__code__, serve.__code__}
WRITING = {getattr(SegmentLog, name).__code__ for name in ("append", "_locked", "_append")}


@pytest.mark.parametrize("codes", [MOVING, WRITING], ids=["moving", "writing"])
def test_a_strike_between_any_two_bytecodes_of_the_writer_loses_and_doubles_nothing(
    tmp_path: Path, codes: set[CodeType]
) -> None:
    for path, backlog, _ in strikes(tmp_path, codes, partial(Held, records=4), serve):
        assert keys(path) == ["0", "1", "2", "3"], f"before bytecode {path.name}"
        if codes is MOVING:
            assert_once(path)
        backlog.log.abandon()


AT_ONCE = {WriteLoop.at_once.__code__, RecordQueue.give_back.__code__}


def lone_in(path: Path, direct_after: float = 0.0) -> Held:
    """One record written before, and a lone one in the hand of the task."""
    backlog = Held(path)
    backlog.accept(usage("before"))
    serve(backlog)
    backlog.accept_alone(usage("lone"), None)
    backlog.writing._direct_after = direct_after
    return backlog


def at_once(backlog: Held) -> None:
    backlog.writing.at_once(backlog)


@pytest.mark.parametrize("written", [True, False], ids=["written", "left to the task"])
def test_a_strike_between_any_two_bytecodes_of_a_lone_write_loses_and_doubles_nothing(
    tmp_path: Path, written: bool
) -> None:
    begin = partial(lone_in, direct_after=0.0 if written else math.inf)  # was the disk slow?
    for path, backlog, struck in strikes(tmp_path, AT_ONCE, begin, at_once):
        if not struck:
            assert (backlog.unwritten == 0) is written
            end(backlog)
        assert keys(path) == ["before", "lone"], f"before bytecode {path.name}"
        assert_once(path)


SEGMENT = {
    getattr(SegmentLog, name).__code__ for name in ("append_now", "_write", "_wrote", "advance")
}


def go_on(backlog: Held) -> None:
    """The handler of a signal has raised, and the program has caught that: Ctrl-C, say."""


def saved(backlog: Held) -> None:
    """The last resort writes what there is."""
    assert backlog.last_resort.save_now(0.05) == 0


def served(backlog: Held) -> None:
    """The writer task writes what there is, and ends."""

    async def task() -> None:
        backlog.queue.put_nowait(Signal.STOP)
        await backlog.writing.serve(backlog)

    asyncio.run(task())


@pytest.mark.parametrize("codes", [AT_ONCE, SEGMENT], ids=["hand", "segment"])
def test_after_a_strike_between_any_two_bytecodes_of_a_lone_write_the_writer_goes_on(
    tmp_path: Path, codes: set[CodeType]
) -> None:
    for path, backlog, _ in strikes(tmp_path, codes, lone_in, at_once, go_on):
        backlog.accept(usage("after"))
        assert backlog.last_resort.save_now(0.05, seal=True) == 0
        assert keys(path) == ["before", "lone", "after"], f"before bytecode {path.name}"
        (found,) = Ledger(path).verify().writers
        assert (found.lost, found.problems, found.found) == (0, [], 3), f"at {path.name}"


def test_after_a_strike_between_any_two_bytecodes_of_a_lone_write_the_task_goes_on(
    tmp_path: Path,
) -> None:
    """What is in the hand and in the queue when the handler has raised is one record."""
    begin = partial(lone_in, direct_after=math.inf)  # left to the task
    for path, backlog, _ in strikes(tmp_path, AT_ONCE, begin, at_once, go_on):
        backlog.accept(usage("after"))
        served(backlog)
        end(backlog)
        assert_whole(path, ["before", "lone", "after"])


ACCEPTING = {
    Backlog.accept.__code__,
    Backlog.put.__code__,
    RecordQueue.put_nowait.__code__,
}


def two_come_in(path: Path) -> Held:
    backlog = Held(path)
    backlog.accept(usage("before"))
    backlog.inbox.append(Entry(usage("thread"), backlog.accept))
    return backlog


def test_a_strike_between_any_two_bytecodes_of_an_acceptance_takes_it_whole_or_not_at_all(
    tmp_path: Path,
) -> None:
    accept = partial(Held.accept, record=usage("during"))
    for path, backlog, struck in strikes(tmp_path, ACCEPTING, two_come_in, accept):
        if not struck:
            end(backlog)
        first, *others = keys(path)
        assert first == "before"
        assert sorted(map(str, others)) in (["during", "thread"], ["thread"]), f"at {path.name}"
        assert_once(path)


def begun_in(path: Path) -> Held:
    """A call in flight, whose outcome comes."""
    backlog = Held(path)
    backlog.accept_started(UsageRecord(kind="started", call_id="started"))
    serve(backlog)
    return backlog


def settle_alone(backlog: Held) -> None:
    try:
        backlog.accept_alone(usage("outcome"), 1)
    finally:
        backlog.writing.at_once(backlog)


def settle_queued(backlog: Held) -> None:
    backlog.accept_outcome(usage("outcome"), 1)


@pytest.mark.parametrize(
    ("settle", "then", "more"),
    [
        pytest.param(settle_alone, saved, True, id="alone, more comes"),
        pytest.param(settle_alone, served, False, id="alone, to the task"),
        pytest.param(settle_queued, saved, False, id="queued, to the last resort"),
        pytest.param(settle_queued, served, False, id="queued, to the task"),
    ],
)
def test_after_a_strike_between_any_two_bytecodes_of_an_acceptance_the_writer_goes_on(
    tmp_path: Path, settle: Callable[[Held], None], then: Callable[[Held], None], more: bool
) -> None:
    """The outcome is accepted whole or not at all, and the number is not given twice."""
    codes = {Backlog.accept_alone.__code__, WriteLoop.at_once.__code__, *ACCEPTING}
    for path, backlog, struck in strikes(tmp_path, codes, begun_in, settle, go_on):
        where = f"before bytecode {path.name}"
        assert backlog._cells[WRITTEN] <= backlog._cells[ACCEPTED], where
        if more:
            backlog.accept(usage("after"))
        then(backlog)
        assert backlog._cells[WRITTEN] <= backlog._cells[ACCEPTED], where
        outcomes = ["outcome"] * (backlog.accepted - 1 - more)
        assert keys(path) == [*outcomes, *["after"] * more], where
        assert outcomes or struck
        assert not (outcomes and backlog.in_flight), where
        end(backlog)
        assert_once(path)
        assert Ledger(path).verify().complete, where


def test_a_finalizer_inside_the_last_resort_is_saved_by_it(tmp_path: Path) -> None:
    class Interrupting(FileSystem):
        """While a segment is created, a finalizer hands over one more outcome."""

        def create(self, path: Path) -> int:
            if not hasattr(self, "struck"):
                self.struck = True
                late = Entry(usage("late"), backlog.accept)
                backlog.inbox.append(late)
                assert backlog.last_resort.save_now(1.0) > 0, (
                    "returns at once: who holds the work finishes it"
                )
            return super().create(path)

    backlog = Held(tmp_path, Interrupting())
    backlog.accept(usage("early"))
    assert backlog.last_resort.save_now(5.0, seal=True) == 0
    assert_once(tmp_path, ["early", "late"])
    assert backlog.last_resort.sealed


def test_many_threads_that_save_at_once_save_once(tmp_path: Path) -> None:
    backlog = Held(tmp_path, records=100)
    backlog.late = True
    futures: list[Future[UsageRecord]] = []

    def work(name: int) -> None:
        for number in range(20):
            future: Future[UsageRecord] = Future()
            futures.append(future)
            save_late(backlog, Entry(usage(f"{name}-{number}"), backlog.accept, future))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    backlog.last_resort.save_now(5.0, seal=True)
    assert {future.result(0).seq for future in futures} == set(range(101, 261))
    assert_once(tmp_path)
    assert len(keys(tmp_path)) == 260


def test_a_record_in_hand_and_in_the_queue_counts_once(tmp_path: Path) -> None:
    backlog = Held(tmp_path, records=3)
    backlog.queue.hand.append(backlog.queue._queue[0])
    assert [item[0] for item in backlog.queue.held()] == [1, 2, 3]


def test_what_the_segment_has_already_is_not_written_again(tmp_path: Path) -> None:
    backlog = Held(tmp_path, records=5)
    backlog.queue.take(3)
    taken = [item for item in backlog.queue.hand if isinstance(item, tuple)]
    backlog.log.append(1, [backlog.line(item) for item in taken])
    assert backlog.last_resort.save_now(1.0, seal=True) == 0
    assert_once(tmp_path, range(5))


def test_a_full_disk_is_tried_until_the_budget_is_spent_and_then_told(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    backlog = Held(tmp_path, disk)
    future: Future[UsageRecord] = Future()
    backlog.last_resort.accept(Entry(usage(0), backlog.accept, future))
    disk.fail("create", times=None)
    assert backlog.last_resort.save_now(0.1, seal=True) == 1
    with pytest.raises(LedgerFailed, match="was not saved"):
        future.result(0)
    assert sum(call.operation == "create" for call in disk.calls) > 2
    assert not backlog.last_resort.sealed
    disk.heal()
    assert backlog.last_resort.save_now(1.0) == 0
    assert_once(tmp_path, [0])


def test_a_segment_in_which_a_thread_hangs_is_given_up_for_good(tmp_path: Path) -> None:
    disk = FaultyFileSystem()
    backlog = Held(tmp_path, disk, records=1)
    with disk.hang("write") as hang:
        thread = threading.Thread(target=serve, args=(backlog,))
        thread.start()
        assert hang.entered.wait(10)
        assert backlog.last_resort.save_now(0.1) == 0
    thread.join()
    assert backlog.last_resort.apart
    with pytest.raises(Stuck):
        backlog.log.sync()


def test_calls_in_flight_keep_the_writer_alive_until_the_last_one_ends(tmp_path: Path) -> None:
    backlog = Held(tmp_path)
    first = backlog.accept_started(UsageRecord(kind="started"))
    second = backlog.accept_started(UsageRecord(kind="started"))
    backlog.last_resort.save_now(1.0, seal=True)
    assert not backlog.last_resort.sealed
    assert backlog.live.path.exists()

    def settle(started: UsageRecord) -> None:
        save_late(
            backlog, Entry(usage(), lambda record: backlog.accept_outcome(record, started.seq or 0))
        )

    settle(second)
    assert not backlog.last_resort.sealed
    settle(first)
    assert backlog.last_resort.sealed
    assert not backlog.live.path.exists()
    assert_once(tmp_path)
    assert backlog._cells[WRITTEN] == 4


def test_what_json_cannot_hold_is_stored_without_it_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backlog = Held(tmp_path)
    record = usage("odd", meta={"fine": 1})
    backlog.put(record, record.ts or datetime.now(UTC))
    assert record.meta is not None
    record.meta["fine"] = object()  # changed after it was checked
    backlog.accept(usage("next"))
    assert backlog.last_resort.save_now(1.0, seal=True) == 0
    assert_once(tmp_path, ["odd", "next"])
    assert "cannot be stored" in caplog.text


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "no descriptor left"), ImportError("gone")]
)
def test_without_what_makes_manifests_records_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It is imported when the first segment is sealed: an upgrade may have removed it by then."""

    class Missing(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise error

    missing = Missing("sealer")
    monkeypatch.setitem(sys.modules, "litellm_ledger._writing.sealer", missing)
    backlog = Held(tmp_path, records=3)
    assert backlog.last_resort.save_now(5.0, seal=True) == 0
    assert backlog.last_resort.sealed
    assert keys(tmp_path) == ["0", "1", "2"]
