"""A clock that steps back and forward, by seconds and by days: order, numbers and proof stay.

Numbers order a writer's records and nothing waits by the clock of the wall, so a step may show in
``ts`` and in which day's segment a record stands, and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.disks import QUICK
from tests.ledgers import segment_names
from tests.runs import assert_closed, assert_once, calls_of, keys, usage

from litellm_ledger import Ledger, UsageTracker
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._runtime import process as _process
from litellm_ledger._storage import segment as _segment
from litellm_ledger._writing import backlog as _backlog
from litellm_ledger._writing import writer as _writer

STEPS = [0.0, -3_600.0, 86_400.0 * 3, -86_400.0 * 400, 2.0, 86_400.0, -0.5]


class Clock:
    """The clock of the wall, as the ledger sees it; the monotonic one goes on as it does."""

    def __init__(self) -> None:
        self.now = 1_750_000_000.0

    def time(self) -> float:
        self.now += 0.001
        return self.now

    def datetime(self) -> type[datetime]:
        clock = self

        class Stepping(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:
                return datetime.fromtimestamp(clock.time(), UTC)

        return Stepping


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    wall = type("wall", (), {"time": clock.time, "monotonic": time.monotonic})
    monkeypatch.setattr(_segment, "time", wall)
    for module in (_backlog, _writer):
        monkeypatch.setattr(module, "datetime", clock.datetime())
    return clock


async def live(path: Path, clock: Clock, *, close: bool) -> UsageTracker:
    tracker = UsageTracker(path, fs=QUICK, handle_signals=False, sync_interval=0.001)
    for number, step in enumerate(STEPS):
        clock.now += step
        await tracker.record(usage(2 * number))
        started = await calls_of(tracker).start(usage(kind="started"), ack_timeout=5)
        assert started is not None
        outcome = calls_of(tracker).end(usage(2 * number + 1, operation=started.operation), started)
        await calls_of(tracker).acknowledge(outcome, 5)
        await tracker.flush(5)
    if close:
        await tracker.aclose()
    return tracker


def test_a_clock_that_steps_loses_and_reorders_nothing(tmp_path: Path, clock: Clock) -> None:
    asyncio.run(live(tmp_path, clock, close=True))
    assert len(segment_names(tmp_path)) > 3, "a segment a day"
    assert_once(tmp_path, range(2 * len(STEPS)))
    assert_closed(tmp_path)


def test_a_writer_killed_after_a_step_is_recovered_by_one_that_lives_before_it(
    tmp_path: Path, clock: Clock
) -> None:
    async def killed() -> None:
        tracker = await live(tmp_path, clock, close=False)
        await calls_of(tracker).start(usage(kind="started"), ack_timeout=5)
        _process.leave(tracker._writer)
        tracker._writer.forget_parent()

    asyncio.run(killed())
    clock.now -= 86_400.0 * 1_000
    asyncio.run(live(tmp_path, clock, close=True))
    verdicts = Ledger(tmp_path).verify().writers
    assert [writer.state for writer in verdicts] == ["closed", "recovered"], "by name, not by life"
    assert [writer.unsettled for writer in verdicts] == [0, 1]
    assert not any(writer.lost for writer in verdicts)
    twice = sorted(key for key in keys(tmp_path) if key is not None)
    assert twice == sorted([str(number) for number in range(2 * len(STEPS))] * 2)
    assert recover(tmp_path).writers == ()
