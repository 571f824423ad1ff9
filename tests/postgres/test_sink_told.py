"""What a sink tells of itself, what a client waits for, and who ships what a process has left."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.parser import text_string_to_metric_families
from tests.fakes import install
from tests.postgres_server import Server
from tests.runs import usage
from tests.shipped import ask, assert_exactly_once, ship, told
from tests.terminal import run
from tests.wires import Bouncer

from litellm_ledger import LedgerWarning, LiteLLMClient, UsageTracker
from litellm_ledger._postgres import database
from litellm_ledger.otel import instrument

AWAY = "postgresql://nobody@127.0.0.1:9/none"


async def until(true: Callable[[], Any]) -> None:
    """Wait until something is so; the test's time-out ends what never is."""
    while not true():  # noqa: ASYNC110 - it is another thread that makes it so
        await asyncio.sleep(0.01)


def unshipped(root: Path) -> dict[str, float]:
    """What a scrape says of what is not shipped, by place."""
    families = text_string_to_metric_families(run("metrics", root).stdout)
    samples = [one for family in families for one in family.samples]
    return {
        one.labels["to"]: one.value for one in samples if one.name == "litellm_ledger_unshipped"
    }


def test_what_is_not_shipped_is_told_by_metrics_and_doctor(
    tmp_path: Path, database_url: str
) -> None:
    reader = InMemoryMetricReader()

    def values() -> dict[str, Any]:
        data = reader.get_metrics_data()
        metrics = data.resource_metrics[0].scope_metrics[0].metrics  # type: ignore[union-attr]
        return {
            one.name.rpartition("sink.")[2]: point.value
            for one in metrics
            if ".sink." in one.name
            for point in one.data.data_points
        }

    async def record() -> None:
        async with UsageTracker(tmp_path, sink=database_url, durability="shipped") as tracker:
            with instrument(tracker, meter_provider=MeterProvider([reader])):
                for number in range(3):
                    await tracker.record(usage(number))
                await until(lambda: values()["shipped"] == 3)
                assert values() == {"backlog": 0, "lag": 0.0, "shipped": 3, "failing": 0}

    assert not unshipped(tmp_path), "it is shipped nowhere"
    asyncio.run(record())
    to = database.Address.of(database_url).place
    assert unshipped(tmp_path) == {to: 0}
    said = run("doctor", tmp_path).stdout
    assert f"0 records not shipped to {to}; it answered" in said

    async def record_more() -> None:
        async with UsageTracker(tmp_path) as tracker:
            await tracker.record(usage())

    asyncio.run(record_more())
    assert unshipped(tmp_path) == {to: 1}
    said = run("doctor", tmp_path).stdout
    assert f"1 record not shipped to {to}" in said


def test_shippers_race_through_pgbouncer(
    tmp_path: Path, postgres: Server, database_url: str
) -> None:
    async def record() -> None:
        async with UsageTracker(tmp_path / "usage") as tracker:
            for number in range(60):
                tracker.record_nowait(usage(number))

    asyncio.run(record())
    bouncer = Bouncer(postgres, tmp_path)
    try:
        url = bouncer.url(database_url.partition("@/")[2].partition("?")[0])

        async def race() -> None:
            await asyncio.gather(*(ship(url, tmp_path / "usage", lines=7) for _ in range(3)))

        asyncio.run(race())
    finally:
        bouncer.close()
    assert asyncio.run(assert_exactly_once(database_url, [tmp_path / "usage"])) == 60


@pytest.mark.asyncio
async def test_a_call_returns_when_its_record_is_committed(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    made = LiteLLMClient(ledger=tmp_path, sink=database_url, durability="shipped", ack_timeout=60)
    async with made as client:
        await client.acompletion(model="m", messages=[])
        (said,) = (await told(database_url)).values()
        assert (said["shipped"], said["usage"]) == (2, 1)
        holds = await database.connect(database_url)
        async with holds.transaction():
            await holds.execute("SELECT FROM litellm_ledger.writers FOR UPDATE")
            call = asyncio.create_task(client.acompletion(model="m", messages=[]))
            await until(lambda: client.statistics().synced == 4)
            waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while not await ask(database_url, waiting):  # noqa: ASYNC110 - the server
                await asyncio.sleep(0.01)
            assert not call.done(), "it is synced and not committed"
        await call
        await database.close(holds)
        (said,) = (await told(database_url)).values()
        assert said["usage"] == 2
    assert await assert_exactly_once(database_url, [tmp_path]) == 4


@pytest.mark.asyncio
async def test_a_call_gets_its_answer_although_the_database_is_away(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    made = LiteLLMClient(ledger=tmp_path, sink=AWAY, durability="shipped", ack_timeout=0.05)
    async with made as client:
        with pytest.warns(LedgerWarning):
            answer = await client.acompletion(model="m", messages=[])
        assert answer.id == "answer-1"
        assert client.statistics().unacked == 1
    await ship(database_url, tmp_path)
    assert await assert_exactly_once(database_url, [tmp_path]) == 2


def test_what_a_process_left_that_never_closed_is_shipped_by_the_next(
    tmp_path: Path, database_url: str
) -> None:
    async def record_and_go() -> None:
        tracker = UsageTracker(tmp_path, sink=AWAY, handle_signals=False)
        await tracker.open()
        for number in range(5):
            await tracker.record(usage(number))
        await tracker.flush()
        os._exit(0)

    pid = os.fork()
    if not pid:
        try:
            asyncio.run(record_and_go())
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status == 0

    async def next_one() -> None:
        async with UsageTracker(tmp_path, sink=database_url) as tracker:
            await tracker.record(usage())
            await until(lambda: (tracker.statistics().sink or tracker).shipped == 6)

    asyncio.run(next_one())
    assert asyncio.run(assert_exactly_once(database_url, [tmp_path])) == 6
