"""The tests of the first system, which flushed its buffer on shutdown and forgot its queue.

It lost half its records; these are the cases that showed it, by name, on what replaced it.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from decimal import Decimal
from pathlib import Path

import pytest
from tests.children import Child, run
from tests.runs import assert_once, assert_whole, usage

from litellm_ledger import Ledger, LiteLLMClient, UsageRecord, UsageTracker


@pytest.mark.asyncio
@pytest.mark.parametrize("count", [15, 12], ids=["fifteen", "twelve, then del"])
async def test_records_then_shutdown(tmp_path: Path, count: int) -> None:
    client = LiteLLMClient(tmp_path)
    async with client:
        for number in range(count):
            client.usage.record_nowait(usage(number))
    await client.aclose()
    del client
    gc.collect()
    assert_whole(tmp_path, range(count))


@pytest.mark.asyncio
async def test_twenty_records_straight_into_the_tracker_are_twenty_calls_and_3000_tokens(
    tmp_path: Path,
) -> None:
    tracker = UsageTracker(tmp_path)
    await tracker.open()
    for number in range(20):
        tracker.record_nowait(usage(number))
    await tracker.aclose()
    for totals in (tracker.totals(), Ledger(tmp_path).report().total):
        assert totals.calls == 20
        assert totals.total_tokens == 3_000
        assert (totals.input_tokens, totals.output_tokens) == (2_000, 1_000)
    assert_once(tmp_path, range(20))


@pytest.mark.asyncio
async def test_twenty_five_records_and_shutdown_at_once_cost_half_a_dollar_exactly(
    tmp_path: Path,
) -> None:
    tracker = UsageTracker(tmp_path)
    await tracker.open()

    async def one(number: int) -> UsageRecord:
        return await tracker.record(usage(number))

    tasks = [asyncio.create_task(one(number)) for number in range(24)]
    await asyncio.sleep(0)
    tracker.record_nowait(usage(24))
    await asyncio.gather(tracker.aclose(), *tasks)
    assert tracker.totals().cost == Decimal("0.50")
    assert Ledger(tmp_path).report().total.cost == Decimal("0.50")
    assert_whole(tmp_path, range(25))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_handlers_for_sigterm_and_sigint(tmp_path: Path, number: int) -> None:
    code = """
async def main():
    async with LiteLLMClient(PATH) as client:
        for number in range(25):
            client.usage.record_nowait(usage(number))
        say("ready", client.statistics().signals)
        await asyncio.Event().wait()
run(main())
"""
    with Child(code, tmp_path) as child:
        child.expect("ready on")
        child.send(number)
        assert child.end() == -number
    assert_whole(tmp_path, range(25))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_it_degrades_where_signals_are_not_to_be_had(tmp_path: Path, loop: str) -> None:
    code = """
async def main():
    async with LiteLLMClient(PATH) as client:
        for number in range(25):
            client.usage.record_nowait(usage(number))
        say("signals", client.statistics().signals)
thread = threading.Thread(target=lambda: run(main()))
thread.start()
thread.join()
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
"""
    child = run(code, tmp_path, loop=loop)
    assert child.said == ["signals off"]
    assert child.stderr == ""
    assert_whole(tmp_path, range(25))
