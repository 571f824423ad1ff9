"""Calls and streams, cancelled in every await and left in every way: exactly one outcome each."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.fakes import FakeLiteLLM, Gate, Stream, install
from tests.runs import WAIT, assert_closed, assert_once, calls_of, kinds, stuck, turns, until

from litellm_ledger import (
    Ledger,
    LedgerClosed,
    LedgerFailed,
    LedgerWarning,
    LiteLLMClient,
    UsageRecord,
    UsageTracker,
)
from litellm_ledger._calls.attempt import Attempt
from litellm_ledger._runtime.limits import Limit
from litellm_ledger.testing import FaultyFileSystem

pytestmark = pytest.mark.asyncio

CALL: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLiteLLM:
    return install(monkeypatch)


@pytest.fixture
def disk() -> FaultyFileSystem:
    return FaultyFileSystem()


@pytest_asyncio.fixture
async def client(
    tmp_path: Path, fake: FakeLiteLLM, disk: FaultyFileSystem
) -> AsyncIterator[LiteLLMClient]:
    async with LiteLLMClient(tmp_path, fs=disk, handle_signals=False) as client:
        yield client
    assert_once(tmp_path)
    assert_closed(tmp_path)
    settled = [(r.operation, r.attempt) for r in Ledger(tmp_path).records()]
    assert len(settled) == len(set(settled)), "a call with two outcomes"
    started = [(r.operation, r.attempt) for r in Ledger(tmp_path).records(kinds=("started",))]
    assert sorted(map(str, settled)) == sorted(map(str, started)), "a call without its outcome"


def outcome(path: Path) -> UsageRecord:
    (record,) = Ledger(path).records()
    return record


# -- plain calls -----------------------------------------------------------------------------------


async def test_a_call_is_two_records_and_its_answer_carries_the_second(
    client: LiteLLMClient, tmp_path: Path
) -> None:
    response = await client.acompletion(**CALL)
    assert kinds(tmp_path) == ["started", "ok"]
    assert response.usage_record == outcome(tmp_path)


async def test_cancelled_while_it_waits_for_the_start_no_request_leaves(
    client: LiteLLMClient, fake: FakeLiteLLM, disk: FaultyFileSystem, tmp_path: Path
) -> None:
    with disk.hang("create") as hang:
        call = asyncio.create_task(client.acompletion(**CALL))
        await stuck(hang)
        call.cancel()
        await asyncio.wait({call}, timeout=WAIT)
        assert call.cancelled()
    await client.flush()
    assert fake.calls == 0
    assert kinds(tmp_path) == ["started", "cancelled"]
    assert outcome(tmp_path).usage_source == "none"


async def test_cancelled_while_it_waits_for_room_there_is_no_trace(
    client: LiteLLMClient, fake: FakeLiteLLM, disk: FaultyFileSystem, tmp_path: Path
) -> None:
    client.usage._writer.admission.queue_size = 1
    with disk.hang("create") as hang:
        first = asyncio.create_task(client.acompletion(**CALL))
        await stuck(hang)
        second = asyncio.create_task(client.acompletion(**CALL))
        await until(lambda: client.statistics().waiting == 1)
        second.cancel()
        await asyncio.wait({second}, timeout=WAIT)
    await first
    assert fake.calls == 1
    assert kinds(tmp_path) == ["started", "ok"]
    assert client.statistics().in_flight == 0


@pytest.mark.parametrize("how", ["task.cancel()", "asyncio.timeout()"])
async def test_cancelled_while_the_provider_works_it_is_cancelled_on_record(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path, how: str
) -> None:
    fake.gate = Gate()
    seen: list[Any] = []

    async def caller() -> None:
        try:
            await client.acompletion(**CALL)
        except asyncio.CancelledError as exc:
            seen.append(exc.usage_record)  # type: ignore[attr-defined]
            raise

    async def run_out(limit: asyncio.Timeout) -> None:
        await fake.gate.entered.wait()
        limit.reschedule(asyncio.get_running_loop().time())

    async def limited() -> None:
        async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as group:
            group.create_task(run_out(limit))
            await caller()

    if how == "asyncio.timeout()":
        with pytest.raises(TimeoutError):
            await limited()
    else:
        call = asyncio.create_task(caller())
        await fake.gate.entered.wait()
        assert client.statistics().in_flight == 1
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await client.flush()
    assert kinds(tmp_path) == ["started", "cancelled"]
    assert client.statistics().in_flight == 0
    assert seen == [outcome(tmp_path)]


async def test_cancelled_while_the_outcome_is_acknowledged_the_outcome_stands(
    client: LiteLLMClient, fake: FakeLiteLLM, disk: FaultyFileSystem, tmp_path: Path
) -> None:
    fake.gate = Gate()
    call = asyncio.create_task(client.acompletion(**CALL))
    await fake.gate.entered.wait()
    disk.fail("write", times=2)
    fake.gate.leave.set()
    await until(lambda: client.statistics().accepted == 2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await client.flush()
    assert kinds(tmp_path) == ["started", "ok"]


@pytest.mark.parametrize("step", range(20))
async def test_a_call_cancelled_at_any_step_has_one_outcome_or_never_began(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path, step: int
) -> None:
    fake.gate = Gate()
    fake.gate.leave.set()
    calls = [asyncio.create_task(client.acompletion(**CALL)) for _ in range(3)]
    await turns(step)
    for call in calls:
        call.cancel()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    await client.flush()
    found = kinds(tmp_path)
    assert found.count("started") == found.count("ok") + found.count("cancelled")
    answered = [end for end in ends if not isinstance(end, BaseException)]
    assert found.count("ok") >= len(answered)
    assert fake.calls <= found.count("started")


@pytest.mark.parametrize("error", [ValueError("secret"), KeyboardInterrupt()])
async def test_an_error_is_raised_unchanged_and_recorded_without_its_text(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path, error: BaseException
) -> None:
    if isinstance(error, KeyboardInterrupt):  # it would end the loop of the test
        error = GeneratorExit()
    fake.result = lambda: error
    with pytest.raises(type(error)) as caught:
        await client.acompletion(**CALL)
    assert caught.value is error
    await client.flush()
    assert outcome(tmp_path).status in ("error", "cancelled", "abandoned")
    assert "secret" not in str(outcome(tmp_path))
    assert (str(error), error.args) == (("secret", ("secret",)) if error.args else ("", ()))
    if isinstance(error, ValueError):
        assert vars(error) == {"usage_record": outcome(tmp_path)}


async def test_an_exception_that_takes_no_attribute_is_raised_all_the_same(
    client: LiteLLMClient, fake: FakeLiteLLM
) -> None:
    class Closed(ValueError):
        def __setattr__(self, name: str, value: Any) -> None:
            raise ZeroDivisionError(name)

        @property
        def usage_record(self) -> None:
            return None

    error = Closed("no")
    fake.result = lambda: error
    with pytest.raises(Closed) as caught:
        await client.acompletion(**CALL)
    assert caught.value is error
    assert vars(error) == {}


class Strange:
    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError(name)


@pytest.mark.parametrize(
    "odd", [None, "text", b"bytes", 7, {"a": 1}, (), pytest.param(Strange(), id="strange")]
)
async def test_an_answer_nobody_can_read_or_label_is_handed_out_and_recorded(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path, odd: Any
) -> None:
    fake.result = lambda: odd
    assert await client.acompletion(**CALL) == odd
    assert kinds(tmp_path) == ["started", "ok"]


# -- one outcome, whatever comes first ------------------------------------------------------------

ENDS: dict[str, Callable[[Attempt], Any]] = {
    "ok": lambda attempt: attempt.settle({"status": "ok"}),
    "cancelled": lambda attempt: attempt.settle({"status": "cancelled"}),
    "abandoned": lambda attempt: attempt.settle_anywhere({"status": "abandoned"}),
}


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("order", [*itertools.permutations(ENDS)])
async def test_of_several_ends_of_a_call_the_first_is_on_record(
    tmp_path: Path, order: tuple[str, ...], thread: bool
) -> None:
    async with UsageTracker(tmp_path, handle_signals=False) as tracker:
        limit = Limit(1)
        call: Any = {"call": "acompletion", "model": "m", "stream": False, "tags": None}
        attempt = Attempt(calls_of(tracker), **call, call_id="1", slot=await limit.enter())
        await attempt.begin(write=True, ack_timeout=WAIT)
        for status in order:
            if thread and status == "abandoned":  # as a finalizer that runs there
                await asyncio.to_thread(ENDS[status], attempt)
            else:
                ENDS[status](attempt)
        await tracker.flush()
        assert (tracker.statistics().in_flight, tracker.totals().calls, limit.active) == (0, 1, 0)
    assert kinds(tmp_path) == ["started", order[0]]


# -- answers are never withheld --------------------------------------------------------------------


async def test_a_disk_that_hangs_withholds_no_answer(
    tmp_path: Path, fake: FakeLiteLLM, disk: FaultyFileSystem
) -> None:
    client = LiteLLMClient(tmp_path, fs=disk, handle_signals=False, ack_timeout=0.1)
    async with client:
        fake.gate = Gate()
        call = asyncio.create_task(client.acompletion(**CALL))
        await fake.gate.entered.wait()
        hang = disk.hang("sync")
        await until(hang.entered.is_set)  # the background sync
        with hang:
            fake.gate.leave.set()
            began = time.monotonic()
            with pytest.warns(LedgerWarning, match="has not acknowledged.*disk is slow") as warned:
                response = await call
            assert time.monotonic() - began < 5
            assert len(warned) == 1
            assert response.usage_record.status == "ok"
            assert client.statistics().unacked == 1
    assert kinds(tmp_path) == ["started", "ok"]
    assert_closed(tmp_path)


async def test_a_loop_that_was_blocked_is_blamed_and_not_the_disk(
    tmp_path: Path, fake: FakeLiteLLM
) -> None:
    async with LiteLLMClient(tmp_path, handle_signals=False, ack_timeout=0.05) as client:
        fake.gate = Gate()
        call = asyncio.create_task(client.acompletion(**CALL))
        await fake.gate.entered.wait()
        client.usage._writer._writing._direct_after = float("inf")  # by the thread: takes turns
        for _ in range(1_000):  # four batches ahead of the outcome
            client.usage.record_nowait(UsageRecord(model="m"))
        fake.gate.leave.set()

        async def block() -> None:
            while not call.done():
                time.sleep(0.06)  # noqa: ASYNC251 - what blocks the loop is the subject
                await asyncio.sleep(0)

        with pytest.warns(LedgerWarning, match=r"the event loop was blocked") as warned:
            await block()
        assert "the disk is slow" not in str(warned[0].message)
        assert client.statistics().unacked == 1
    assert_once(tmp_path)


async def test_a_start_that_is_not_acknowledged_goes_on_while_there_is_room(
    tmp_path: Path, fake: FakeLiteLLM, disk: FaultyFileSystem
) -> None:
    client = LiteLLMClient(tmp_path, fs=disk, handle_signals=False, ack_timeout=0.05, queue_size=3)
    async with client:
        with disk.hang("create") as hang:
            with pytest.warns(LedgerWarning) as warned:
                await client.acompletion(**CALL)
            assert {warning.filename for warning in warned} == {__file__}, "not the caller's line"
            await stuck(hang)
            assert client.statistics().unacked == 2
            with pytest.warns(LedgerWarning):
                await client.acompletion(**CALL)  # one place is left, the outcome needs none
            client._core.ack_timeout = WAIT  # the third is about room, and no warning is due
            third = asyncio.create_task(client.acompletion(**CALL))
            await until(lambda: client.statistics().waiting == 1)
            await asyncio.sleep(0.1)
            assert not third.done(), "without room a call waits, however long"
            assert fake.calls == 2
        await third
    assert kinds(tmp_path).count("ok") == 3


async def test_a_writer_that_died_withholds_no_answer_and_lets_no_call_leave(
    tmp_path: Path,
    fake: FakeLiteLLM,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with LiteLLMClient(tmp_path, handle_signals=False) as client:
        fake.gate = Gate()
        call = asyncio.create_task(client.acompletion(**CALL))
        await fake.gate.entered.wait()

        def write(*args: Any, **kwargs: Any) -> bool:
            raise RuntimeError("a bug")

        monkeypatch.setattr(client.usage._writer.admission.backlog.log, "append_now", write)
        fake.gate.leave.set()
        with pytest.warns(LedgerWarning):
            response = await asyncio.wait_for(call, WAIT)
        assert response.usage_record.status == "ok"
        with pytest.raises(LedgerFailed):
            await client.acompletion(**CALL)
        assert fake.calls == 1
    assert kinds(tmp_path) == ["started", "ok"]
    assert_closed(tmp_path)


# -- calls that outlive the client -----------------------------------------------------------------


async def test_a_call_in_flight_when_the_client_closes_is_recorded_when_it_ends(
    tmp_path: Path, fake: FakeLiteLLM
) -> None:
    client = LiteLLMClient(tmp_path, handle_signals=False)
    async with client:
        fake.gate = Gate()
        calls = [asyncio.create_task(client.acompletion(**CALL)) for _ in range(3)]
        await until(lambda: fake.calls == 3)
    assert kinds(tmp_path) == ["started"] * 3
    assert Ledger(tmp_path).verify().writers[0].state == "alive"
    calls[0].cancel()
    await asyncio.wait({calls[0]})
    assert kinds(tmp_path) == ["started"] * 3 + ["cancelled"]
    fake.gate.leave.set()
    await asyncio.gather(*calls[1:])
    assert kinds(tmp_path) == ["started"] * 3 + ["cancelled", "ok", "ok"]
    assert_once(tmp_path)
    assert_closed(tmp_path)


@pytest.mark.parametrize("end", ["read", "left", "dropped"])
async def test_a_stream_that_begins_after_the_close_is_recorded_however_it_ends(
    tmp_path: Path, fake: FakeLiteLLM, end: str
) -> None:
    client = LiteLLMClient(tmp_path, handle_signals=False)
    async with client:
        fake.gate = Gate()
        fake.result = Stream
        call = asyncio.create_task(client.acompletion(**CALL, stream=True))
        await fake.gate.entered.wait()
    fake.gate.leave.set()
    stream = await call
    await anext(stream)
    if end == "read":
        async for _ in stream:
            pass
    elif end == "left":
        await stream.aclose()
    del stream, call
    gc.collect()
    await until(lambda: len(kinds(tmp_path)) == 2)
    assert kinds(tmp_path) == ["started", "ok" if end == "read" else "abandoned"]
    assert outcome(tmp_path).usage_source == ("provider" if end == "read" else "estimated")
    assert_closed(tmp_path)


# -- streams ---------------------------------------------------------------------------------------


async def open_stream(client: LiteLLMClient, fake: FakeLiteLLM, upstream: Stream) -> Any:
    fake.result = lambda: upstream
    return await client.acompletion(**CALL, stream=True)


async def test_a_stream_read_to_its_end_is_ok_by_the_providers_count(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path
) -> None:
    stream = await open_stream(client, fake, Stream())
    assert [c.usage for c in [chunk async for chunk in stream]] == [None] * 3, "the extra is hidden"
    assert outcome(tmp_path) == stream.usage_record
    assert (outcome(tmp_path).status, outcome(tmp_path).input_tokens) == ("ok", 100)
    for _ in range(3):
        with pytest.raises(StopAsyncIteration):  # read on past the end
            await anext(stream)
    await stream.aclose()
    await stream.aclose()
    assert kinds(tmp_path) == ["started", "ok"]


@pytest.mark.parametrize("read", range(4))
async def test_a_stream_left_after_any_chunk_is_abandoned_with_an_estimate(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path, read: int
) -> None:
    upstream = Stream()
    async with await open_stream(client, fake, upstream) as stream:
        for _ in range(read):
            await anext(stream)
    assert upstream.closed == 1
    assert outcome(tmp_path).status == "abandoned"
    assert outcome(tmp_path).input_tokens == 7


@pytest.mark.parametrize("at", range(5))
async def test_a_reader_cancelled_at_any_chunk(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path, at: int
) -> None:
    gate = Gate()
    upstream = Stream(gate=gate, gate_at=at)
    stream = await open_stream(client, fake, upstream)

    async def read() -> None:
        async for _ in stream:
            pass

    reader = asyncio.create_task(read())
    await gate.entered.wait()
    for _ in range(3):
        reader.cancel()
        await turns(1)
    await asyncio.wait({reader}, timeout=WAIT)
    assert reader.cancelled()
    await client.flush()
    assert kinds(tmp_path) == ["started", "cancelled"]
    assert upstream.closed == 1


@pytest.mark.parametrize("step", range(16))
async def test_a_reader_cancelled_at_any_step_of_the_end(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path, step: int
) -> None:
    stream = await open_stream(client, fake, Stream())

    async def read(stream: Any) -> None:
        async for _ in stream:
            await asyncio.sleep(0)

    reader = asyncio.create_task(read(stream))
    await turns(step)
    reader.cancel()
    await asyncio.wait({reader}, timeout=WAIT)
    del stream, read, reader
    gc.collect()
    await until(lambda: client.statistics().in_flight == 0)
    await client.flush()
    found = kinds(tmp_path)
    assert found[0] == "started"
    assert len(found) == 2
    assert found[1] in {"ok", "cancelled", "abandoned"}


@pytest.mark.parametrize("way", ["aclose", "async with", "cancelled"])
async def test_who_leaves_a_stream_goes_on_when_the_providers_connection_is_closed(
    client: LiteLLMClient, fake: FakeLiteLLM, way: str
) -> None:
    class Slow(Stream):
        is_open = True

        async def aclose(self) -> None:
            await asyncio.sleep(0.1)  # longer than an estimate takes
            self.is_open = False

    upstream = Slow(gate=Gate(), gate_at=1)
    stream = await open_stream(client, fake, upstream)
    await anext(stream)
    if way == "aclose":
        await stream.aclose()
    elif way == "async with":
        async with stream:
            pass
    else:
        reader = asyncio.create_task(anext(stream))
        assert upstream.gate is not None
        await upstream.gate.entered.wait()
        reader.cancel()
        await asyncio.wait({reader})
    assert not upstream.is_open
    assert stream.usage_record is not None


async def test_a_closer_of_a_stream_cancelled_while_the_provider_hangs(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path
) -> None:
    upstream = Stream()
    upstream.close_gate = Gate()
    stream = await open_stream(client, fake, upstream)
    await anext(stream)
    closer = asyncio.create_task(stream.aclose())
    await upstream.close_gate.entered.wait()
    for _ in range(3):
        closer.cancel()
        await turns()
    upstream.close_gate.leave.set()
    await asyncio.wait({closer}, timeout=WAIT)
    assert closer.cancelled()
    assert kinds(tmp_path) == ["started", "abandoned"]
    assert upstream.closed == 1


@pytest.mark.parametrize("status", ["ok", "error", "cancelled", "abandoned"])
async def test_a_stream_that_the_end_of_the_loop_kept_from_settling_is_on_record_as_it_ended(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path, status: str
) -> None:
    stream = await open_stream(client, fake, Stream())
    await anext(stream)
    upstream = stream._upstream
    upstream.ended = True
    task = upstream.leave_soon({"status": status, "meta": {"http_status": 500}})
    task.cancel()  # before its first step
    await asyncio.wait({task})
    assert stream.usage_record is None
    upstream.settle_now()  # at interpreter exit
    await client.flush()
    assert kinds(tmp_path) == ["started", status]
    assert outcome(tmp_path).meta["http_status"] == 500


async def test_two_who_close_a_stream_at_once_leave_one_outcome(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path
) -> None:
    upstream = Stream()
    stream = await open_stream(client, fake, upstream)
    await asyncio.gather(*[stream.aclose() for _ in range(5)])
    await until(lambda: stream.usage_record is not None)
    await client.flush()
    assert kinds(tmp_path) == ["started", "abandoned"]
    assert upstream.closed == 1


async def test_a_stream_closed_while_another_task_reads_it_has_one_outcome(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path
) -> None:
    gate = Gate()
    stream = await open_stream(client, fake, Stream(gate=gate, gate_at=1))
    await anext(stream)
    reader = asyncio.create_task(anext(stream))
    await gate.entered.wait()
    await stream.aclose()
    gate.leave.set()
    await asyncio.wait({reader}, timeout=WAIT)
    await client.flush()
    assert kinds(tmp_path) == ["started", "abandoned"]


async def test_a_stream_that_fails_is_an_error_and_the_error_is_raised_unchanged(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path
) -> None:
    upstream = Stream()
    stream = await open_stream(client, fake, upstream)
    await anext(stream)
    upstream.error = ConnectionError("cut")
    with pytest.raises(ConnectionError) as caught:
        await anext(stream)
    assert caught.value is upstream.error
    assert vars(caught.value) == {"usage_record": outcome(tmp_path)}
    assert kinds(tmp_path) == ["started", "error"]
    assert outcome(tmp_path).error == "ConnectionError"


@pytest.mark.parametrize("read", [0, 2])
async def test_a_stream_that_is_dropped_is_abandoned(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path, read: int
) -> None:
    stream = await open_stream(client, fake, Stream())
    for _ in range(read):
        await anext(stream)
    del stream
    gc.collect()
    await until(lambda: client.statistics().in_flight == 0)
    await client.flush()
    assert kinds(tmp_path) == ["started", "abandoned"]


async def test_many_streams_in_every_kind_of_ending_leave_as_many_outcomes(
    client: LiteLLMClient, fake: FakeLiteLLM, tmp_path: Path
) -> None:
    fake.result = Stream

    async def one(number: int) -> None:
        stream = await client.acompletion(**CALL, stream=True)
        kind = number % 5
        if kind == 0:
            async for _ in stream:
                pass
        elif kind == 1:
            async for _ in stream:
                break
            await stream.aclose()
        elif kind == 2:
            async for _ in stream:
                raise asyncio.CancelledError
        elif kind == 3:
            await anext(stream)
        # kind 4 is never read

    tasks = [asyncio.create_task(one(number)) for number in range(200)]
    await asyncio.gather(*tasks, return_exceptions=True)
    del tasks
    gc.collect()
    await until(lambda: client.statistics().in_flight == 0)
    await client.flush()
    found = kinds(tmp_path)
    assert found.count("started") == 200
    assert found.count("ok") == 40
    assert found.count("abandoned") == 160


async def test_closing_the_client_waits_for_a_count_that_is_under_way(
    tmp_path: Path, fake: FakeLiteLLM
) -> None:
    upstream = Stream()
    upstream.close_gate = Gate()
    async with LiteLLMClient(tmp_path, handle_signals=False) as client:
        stream = await open_stream(client, fake, upstream)
        await anext(stream)
        leaving = asyncio.create_task(stream.aclose())
        await upstream.close_gate.entered.wait()
        closing = asyncio.create_task(client.aclose())
        await turns()
        with pytest.raises(LedgerClosed):
            await client.acompletion(**CALL)
        upstream.close_gate.leave.set()
        await closing
        assert kinds(tmp_path) == ["started", "abandoned"]
        await leaving
    assert_closed(tmp_path)


async def test_closing_the_client_does_not_wait_past_its_time_for_a_provider_that_hangs(
    tmp_path: Path, fake: FakeLiteLLM
) -> None:
    upstream = Stream()
    upstream.close_gate = Gate()
    client = LiteLLMClient(tmp_path, handle_signals=False)
    async with client:
        stream = await open_stream(client, fake, upstream)
        leaving = asyncio.create_task(stream.aclose())
        await upstream.close_gate.entered.wait()
        began = time.monotonic()
        await client.aclose(0.2)
        assert time.monotonic() - began < 5
    assert kinds(tmp_path) == ["started"]
    upstream.close_gate.leave.set()
    await leaving
    assert kinds(tmp_path) == ["started", "abandoned"]
    assert_closed(tmp_path)
