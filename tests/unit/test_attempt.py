"""One request and its one outcome, by whichever comes first, with anything in it."""

from __future__ import annotations

from typing import Any, cast

import pytest
from msgspec.structs import replace

from litellm_ledger import LedgerFailed, UsageRecord, UsageTracker
from litellm_ledger._calls import attempt as attempt_module
from litellm_ledger._calls.attempt import Attempt


class FakeTracker:
    """Notes what it is given; numbers like the real one."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[UsageRecord, UsageRecord | None]] = []
        self.anywhere: list[UsageRecord] = []
        self.refuse: Exception | None = None

    async def start(self, record: UsageRecord | None, *, ack_timeout: float, **_: Any) -> Any:
        if self.refuse is not None:
            raise self.refuse
        if record is None:
            return None
        return replace(record, seq=7, operation="writer-7", attempt=1)

    def end(self, record: UsageRecord, started: UsageRecord | None) -> UsageRecord:
        self.outcomes.append((record, started))
        return record

    def end_anywhere(self, record: UsageRecord, started: UsageRecord | None) -> None:
        self.anywhere.append(record)


class Clock:
    now = 10.0

    def perf_counter(self) -> float:
        return self.now


def attempt(tracker: FakeTracker) -> Attempt:
    return Attempt(
        cast(UsageTracker, tracker),
        call="acompletion",
        model="m",
        stream=False,
        tags={"env": "test", "user": "alice"},
        call_id="call-1",
    )


@pytest.mark.asyncio
async def test_the_outcome_belongs_to_its_start() -> None:
    tracker = FakeTracker()
    one = attempt(tracker)
    await one.begin(write=True, ack_timeout=1)
    record = one.settle({"status": "ok", "input_tokens": 3, "output_tokens": 4})
    assert record is one.record is tracker.outcomes[0][0]
    assert tracker.outcomes[0][1] is one.started
    assert record is not None
    assert (record.operation, record.attempt) == ("writer-7", 1)
    assert (record.call, record.model, record.call_id) == ("acompletion", "m", "call-1")
    assert record.tags == {"env": "test", "user": "alice"}
    assert record.total_tokens == 7
    assert one.started is not None
    assert record.ts == one.started.ts, "the time is that of the beginning"


@pytest.mark.asyncio
async def test_it_is_settled_once_by_whichever_comes_first() -> None:
    tracker = FakeTracker()
    one = attempt(tracker)
    await one.begin(write=True, ack_timeout=1)
    assert one.settle({"status": "ok"}) is not None
    assert one.settle({"status": "cancelled"}) is None
    one.settle_anywhere({"status": "abandoned"})
    assert len(tracker.outcomes) == 1
    assert not tracker.anywhere
    other = attempt(tracker)
    await other.begin(write=True, ack_timeout=1)
    other.settle_anywhere({"status": "abandoned"})
    assert other.settle({"status": "ok"}) is None
    assert len(tracker.anywhere) == 1


@pytest.mark.asyncio
async def test_without_a_start_it_begins_its_own_operation() -> None:
    tracker = FakeTracker()
    one = attempt(tracker)
    await one.begin(write=False, ack_timeout=1)
    record = one.settle({"status": "ok"})
    assert one.started is None
    assert record is not None
    assert record.operation is None, "the ledger gives it its own id"


@pytest.mark.asyncio
async def test_a_refused_start_is_the_callers_error_and_leaves_nothing_to_settle() -> None:
    tracker = FakeTracker()
    tracker.refuse = LedgerFailed("dead")
    one = attempt(tracker)
    with pytest.raises(LedgerFailed):
        await one.begin(write=True, ack_timeout=1)
    assert one.settle({"status": "ok"}) is None
    assert not tracker.outcomes


@pytest.mark.asyncio
async def test_times_are_measured_once_and_to_the_microsecond(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(attempt_module.time, "perf_counter", clock.perf_counter)
    one = attempt(FakeTracker())
    clock.now += 0.0250004
    one.first_token()
    clock.now += 1
    one.first_token()
    clock.now += 1
    record = one.settle({"status": "ok"})
    assert record is not None
    assert (record.ttft_ms, record.latency_ms) == (25.0, 2025.0)


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "ok", "input_tokens": -1},
        {"status": "ok", "cost": 0.1},
        {"status": "ok", "no_such_field": 1},
        {"status": "ok", "meta": {"x": object()}},
        {"status": "ok", "tags": {"x": object()}},
    ],
)
def test_what_cannot_be_read_is_still_an_outcome(
    fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    record = attempt(FakeTracker()).settle(fields)
    assert record is not None
    assert record.status == "ok"
    assert record.meta is not None
    assert "unreadable" in record.meta
    assert "could not be read" in caplog.text
