"""Lives of trackers against a plain list: recorded, failed, closed, torn down, killed, recovered.

Hypothesis drives one ledger directory through any order of openings, records of every kind, disk
faults, ends and recoveries.  Beside it stands a list of what was recorded and which of it was
promised.  After every step the ledger holds all that was promised and nothing that was not
recorded, each once; after an end in good order it holds everything; after a kill ``verify`` says
exactly how much is missing, and ``recover`` makes what was in flight unsettled.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.disks import QUICK
from tests.ledgers import assert_finished, directory
from tests.runs import ack_before_the_write, calls_of, usage
from tests.tally import Tally

from litellm_ledger import Ledger, UsageRecord, UsageTracker
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._reading.verdict import WriterVerdict
from litellm_ledger._runtime import process as _process
from litellm_ledger._storage.segment import SegmentLog
from litellm_ledger._writing import backlog as _backlog
from litellm_ledger.testing import FaultyFileSystem

_CUT = "unsettled"
T = TypeVar("T")
few = st.integers(1, 4)
operations = st.sampled_from(["create", "write", "sync", "rename", "sync_directory", "truncate"])


@dataclass
class Score:
    """What many lives have promised, and what of that was missing when somebody looked."""

    lives: int = 0
    promised: int = 0
    lost: int = 0


class Lives(RuleBasedStateMachine):
    """One ledger, one tracker at a time."""

    score: ClassVar[Score]

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        small = partial(SegmentLog, rotate_bytes=1_500)  # a few records
        self.patch.setattr(_backlog, "SegmentLog", small)
        self.root = directory(Path(tempfile.mkdtemp()) / "usage")
        self.opened: UsageTracker | None = None
        self.disk = FaultyFileSystem(QUICK)
        self.count = 0
        self.promised: list[str] = []
        self.recorded: list[str] = []
        self.numbers = 0  # given out by the tracker that is open
        self.flying: list[UsageRecord] = []
        self.lost = 0  # by kills, as far as recovery has found out
        self.unsettled = 0
        self.dead: list[tuple[str, int, int, str]] = []  # writer, accepted, in flight, level

    def teardown(self) -> None:
        if not hasattr(self, "root"):
            return
        try:
            if self.opened is not None:
                self.close()
                self.the_ledger_agrees_with_the_list()
        finally:
            self.score.lives += 1
            self.score.promised += len(self.promised)
            self.patch.undo()
            shutil.rmtree(self.root.parent)

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(what, 30))

    def keys(self, count: int) -> list[str]:
        """A number of new ones, each of a record that is about to be made."""
        keys = [str(number) for number in range(self.count, self.count + count)]
        self.count += count
        self.numbers += count
        self.recorded += keys
        return keys

    is_open = precondition(lambda self: self.opened is not None)

    @property
    def tracker(self) -> UsageTracker:
        assert self.opened is not None
        return self.opened

    # -- recording ---------------------------------------------------------------------------------

    @precondition(lambda self: self.opened is None)
    @rule(durability=st.sampled_from(["queued", "written", "synced"]))
    def open(self, durability: Any) -> None:
        self.durability = durability
        self.loop = asyncio.new_event_loop()
        self.opened = UsageTracker(
            self.root, durability=durability, fs=self.disk, handle_signals=False, queue_size=1_000
        )
        self.disk.heal()
        self.run(self.tracker.open())
        self.recovered()
        self.numbers = 0
        self.flying = []
        writer = self.tracker.statistics().writer
        assert writer is not None
        self.writer = writer

    @is_open
    @rule(count=few)
    def record(self, count: int) -> None:
        self.disk.empty()
        keys = self.keys(count)
        tracker = self.tracker

        async def all_at_once() -> None:
            await asyncio.gather(*[tracker.record(usage(key)) for key in keys])

        self.run(all_at_once())
        if self.durability != "queued":
            self.promised += keys

    @is_open
    @rule(count=few)
    def record_nowait(self, count: int) -> None:
        keys = self.keys(count)
        tracker = self.tracker

        async def put() -> None:
            for key in keys:
                tracker.record_nowait(usage(key))

        self.run(put())

    @is_open
    @rule()
    def record_from_a_thread(self) -> None:
        self.disk.empty()
        (key,) = self.keys(1)
        tracker = self.tracker
        futures: list[Any] = []
        thread = threading.Thread(
            target=lambda: futures.append(tracker.record_threadsafe(usage(key)))
        )
        thread.start()
        thread.join()

        async def wait() -> None:
            await asyncio.wrap_future(futures[0])

        self.run(wait())
        if self.durability != "queued":
            self.promised.append(key)

    @is_open
    @rule()
    def start_a_call(self) -> None:
        self.disk.empty()
        started = self.run(
            calls_of(self.tracker).start(UsageRecord(kind="started", model="m"), ack_timeout=30)
        )
        assert started is not None
        assert started.id is not None
        self.numbers += 1
        self.flying.append(started)
        self.recorded.append(started.id)
        if self.durability != "queued":  # else the request has left and nothing says so
            self.promised.append(started.id)

    @precondition(lambda self: self.opened is not None and self.flying)
    @rule(data=st.data())
    def end_a_call(self, data: st.DataObject) -> None:
        started = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        (key,) = self.keys(1)
        tracker = self.tracker

        async def settle() -> None:
            calls_of(tracker).end(usage(key, operation=started.operation, attempt=1), started)
            self.disk.empty()
            await tracker.flush(30)

        self.run(settle())
        self.promised.append(key)

    @is_open
    @rule()
    def flush(self) -> None:
        self.disk.empty()
        self.run(self.tracker.flush(30))
        self.promised = list(self.recorded)

    # -- faults ------------------------------------------------------------------------------------

    @is_open
    @rule(operation=operations, nth=few, times=few)
    def fail(self, operation: Any, nth: int, times: int) -> None:
        self.disk.fail(operation, nth=nth, times=times)

    @is_open
    @rule(free=st.integers(0, 2_000))
    def fill(self, free: int) -> None:
        self.disk.fill(free)

    @is_open
    @rule(limit=st.integers(1, 300))
    def write_little_at_a_time(self, limit: int) -> None:
        self.disk.largest_write = limit

    # -- ends --------------------------------------------------------------------------------------

    @is_open
    @rule()
    def close(self) -> None:
        self.disk.heal()
        self.run(self.tracker.aclose())
        self.late()
        self.loop.close()
        self.ended()

    @is_open
    @rule()
    def tear_down_the_loop(self) -> None:
        """As ``asyncio.run`` does around a tracker left open; then the interpreter ends."""
        self.disk.heal()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.run(asyncio.sleep(0))
        self.run(asyncio.sleep(0))
        self.loop.close()
        self.late()
        assert self.tracker._writer.finish_now(10) == 0
        self.ended()

    def late(self) -> None:
        """Calls that were in flight end after the end."""
        for started in self.flying:
            (key,) = self.keys(1)
            outcome = usage(key, operation=started.operation, attempt=1)
            calls_of(self.tracker).end(outcome, started)
        self.flying = []

    def ended(self) -> None:
        self.opened = None
        self.promised = list(self.recorded)
        verdicts = {writer.writer: writer for writer in Ledger(self.root).verify().writers}
        if self.writer in verdicts:
            assert verdicts[self.writer].lost == 0
            assert verdicts[self.writer].ok
            if verdicts[self.writer].state == "died":  # a file that failed is left to recovery
                accepted = verdicts[self.writer].accepted
                self.dead.append((self.writer, accepted, 0, self.durability))

    @is_open
    @rule()
    def kill(self) -> None:
        """Descriptors closed, lock gone, queue gone, counters left: what a SIGKILL leaves."""
        writer = self.tracker._writer
        writer._executor.shutdown(wait=True, cancel_futures=True)
        _process.leave(writer)
        writer.forget_parent()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        with suppress(asyncio.CancelledError):
            self.run(asyncio.sleep(0))
        self.loop.close()
        self.opened = None
        (verdict,) = [
            verdict
            for verdict in Ledger(self.root).verify().writers
            if verdict.writer == self.writer
        ]
        assert (verdict.state, verdict.proves) == ("died", "exact")
        assert verdict.accepted == self.numbers, "the count of what was accepted is exact"
        assert verdict.lost == verdict.accepted - verdict.found
        there = self.there()
        self.promises_are_kept(there)
        if self.durability != "queued":  # there the start of a call may be among the lost
            assert verdict.in_flight == len(self.flying)
        self.acknowledged_or_not(verdict, self.durability)
        self.dead.append((self.writer, self.numbers, verdict.in_flight, self.durability))
        self.recorded = [key for key in self.recorded if key in there]  # no later life brings more

    @precondition(lambda self: self.opened is None)
    @rule()
    def recover(self) -> None:
        for done in recover(self.root, fs=QUICK).writers:
            assert done.error is None
        self.recovered()

    def recovered(self) -> None:
        """Every dead writer is finished: what it accepted is a record or counted as lost."""
        verdicts = {writer.writer: writer for writer in Ledger(self.root).verify().writers}
        for name, accepted, flying, durability in self.dead:
            if name not in verdicts:
                assert accepted == 0
                continue
            verdict = verdicts[name]
            assert verdict.state in ("recovered", "closed")
            assert verdict.unsettled == flying
            assert verdict.found + verdict.lost == accepted + flying
            self.acknowledged_or_not(verdict, durability)
            assert not verdict.problems
            assert_finished(self.root, name)
        self.dead = []

    def acknowledged_or_not(self, verdict: WriterVerdict, durability: str) -> None:
        """What is lost had been acknowledged at ``queued``, and nowhere else."""
        never = 0 if durability == "queued" else verdict.lost
        assert (verdict.unacknowledged, verdict.undecided) == (never, 0)
        assert verdict.ok == (verdict.lost == never)

    def there(self) -> list[str | None]:
        """The keys of the outcomes on the ledger, and the ids of the calls that began."""
        records = Ledger(self.root).records(kinds=("started", "usage"))
        return [r.id if r.kind == "started" else r.call_id for r in records if r.status != _CUT]

    def promises_are_kept(self, there: Iterable[str | None]) -> None:
        missing = set(self.promised) - set(there)
        self.score.lost += len(missing)
        assert not missing, "promised and not there"

    # -- what always holds -------------------------------------------------------------------------

    @invariant()
    def the_ledger_agrees_with_the_list(self) -> None:
        there = self.there()
        assert len(there) == len(set(there)), "a record twice"
        self.promises_are_kept(there)
        assert set(there) <= set(self.recorded)


def live(lives: int, steps: int, score: Score, *, shrink: bool = True) -> None:
    Lives.score = score
    phases = [Phase.generate, *([Phase.shrink] if shrink else [])]
    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=lives,
            stateful_step_count=steps,
            phases=phases,
            suppress_health_check=list(HealthCheck),
            database=None,  # a life is not the same every time: the loop and a thread take part
        ),
    )


def test_lives_agree_with_a_plain_list() -> None:
    score = Score()
    live(30, 20, score)
    assert score.promised, "a life that promises nothing can lose nothing"


@pytest.mark.matrix
def test_very_many_lives_agree_with_a_plain_list(tally: Tally) -> None:
    score = Score()
    try:
        live(600, 40, score)
    finally:
        method = "a life in random order, of up to 40 steps"
        tally(method, tried=score.lives, promised=score.promised, lost=score.lost)
    assert score.promised, "a life that promises nothing can lose nothing"


def test_a_saboteur_that_acknowledges_before_it_writes_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ack_before_the_write(monkeypatch)
    score = Score()
    for _ in range(20):  # what is caught first may be another lie of it than a loss
        with pytest.raises((AssertionError, Flaky)):  # not every run of a loop is the same
            live(300, 20, score, shrink=False)
        if score.lost:
            break
    assert score.lost, "the row of the matrix would have shown nothing"
