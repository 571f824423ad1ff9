"""``sink=``: a process ships its ledger in the background, and no call waits for it unasked."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from tests.postgres_server import Server
from tests.runs import calls_of
from tests.shipped import ask, assert_exactly_once, ship, told

from litellm_ledger import FlushTimeout, LedgerError, LedgerWarning, UsageRecord, UsageTracker
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._shipping import sink as _sink
from litellm_ledger._storage.shipping_marks import places

pytestmark = pytest.mark.asyncio

AWAY = "postgresql://nobody@127.0.0.1:9/none"  # the port of `discard`: nobody listens


def usage(number: int = 0) -> UsageRecord:
    return UsageRecord(model="m", input_tokens=1, output_tokens=number)


async def until(true: Any) -> None:
    """Wait until something is so; the test's time-out ends what never is."""
    while not true():  # noqa: ASYNC110 - it is another thread that makes it so
        await asyncio.sleep(0.01)


async def test_what_a_process_records_is_in_the_database(tmp_path: Path, database_url: str) -> None:
    async with UsageTracker(tmp_path, sink=database_url, sync_interval=0.05) as tracker:
        for number in range(50):
            await tracker.record(usage(number))
        await until(lambda: (tracker.statistics().sink or tracker).shipped == 50)
        for number in range(7):
            tracker.record_nowait(usage(number))
        figures = tracker.statistics().sink
        assert figures is not None
        assert figures.to.startswith("postgresql://")
        assert figures.last_success is not None
    assert await assert_exactly_once(database_url, [tmp_path]) == 57
    (said,) = (await told(database_url)).values()
    assert said["closed"]
    name = "litellm-ledger-sink"
    await until(lambda: not [one for one in threading.enumerate() if one.name == name])


async def test_a_record_that_waits_for_shipped_is_there(tmp_path: Path, database_url: str) -> None:
    async with UsageTracker(tmp_path, sink=database_url, durability="shipped") as tracker:
        for number in range(1, 4):
            await tracker.record(usage(number))
            (row,) = await ask(database_url, "SELECT shipped FROM litellm_ledger.writers")
            assert row["shipped"] >= number
        future = tracker.record_threadsafe(usage())
        await asyncio.wrap_future(future)
        tracker.record_nowait(usage())
        await tracker.flush(60)
        (row,) = await ask(database_url, "SELECT shipped FROM litellm_ledger.writers")
        assert row["shipped"] == 5


async def test_shipped_needs_a_place_and_a_place_needs_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sink="):
        UsageTracker(tmp_path, durability="shipped")
    with pytest.raises(ValueError, match="postgresql://"):
        UsageTracker(tmp_path, sink="mysql://user:secret@host/db")


async def test_a_database_that_is_away_holds_nothing_up(tmp_path: Path, database_url: str) -> None:
    async with UsageTracker(tmp_path, sink=AWAY, sync_interval=0.01) as tracker:
        for number in range(20):
            await tracker.record(usage(number))
        await tracker.flush()
        await until(lambda: tracker.statistics().sink.failing)  # type: ignore[union-attr]
        await until(lambda: tracker.statistics().sink.backlog == 20)  # type: ignore[union-attr]
        figures = tracker.statistics().sink
        assert figures is not None
        assert figures.backlog_bytes > 20 * 100
        assert "nobody" not in figures.to
    (place,) = places(tmp_path)
    assert place.mark.error
    assert not place.mark.at, "it never answered"
    await ship(database_url, tmp_path)  # as the next process, or a sidecar
    assert await assert_exactly_once(database_url, [tmp_path]) == 20


async def test_the_answer_is_handed_out_when_the_database_does_not_take_it_in_time(
    tmp_path: Path,
) -> None:
    tracker = UsageTracker(tmp_path, sink=AWAY, durability="shipped")
    await tracker.open()
    waiting = asyncio.create_task(tracker.record(usage()))
    await until(lambda: tracker.statistics().synced == 1)
    with pytest.raises(FlushTimeout, match="1 record not shipped; it is"):
        await tracker.flush(0.05)
    calls = tracker._writer.admission
    assert not await calls.ack(UsageRecord(id="x", seq=1), 0.05)
    await until(lambda: (tracker.statistics().sink or tracker).failing)
    why = r"it is written; the database .* has not committed it: cannot use .* refused.*later"
    with pytest.warns(LedgerWarning, match=why):
        await calls_of(tracker).acknowledge(UsageRecord(id="x", seq=1), 0.05)
    await tracker.aclose()  # drained: it is synced
    with pytest.raises(LedgerError):
        await waiting


async def test_a_proxy_that_never_answers_holds_no_close_up(tmp_path: Path) -> None:
    held = []
    server = await asyncio.start_server(lambda r, w: held.append(w), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    began = time.monotonic()
    url = f"postgresql://user@127.0.0.1:{port}/none"
    async with UsageTracker(tmp_path, sink=url, drain_timeout=0.5) as tracker:
        await tracker.record(usage())
        await until(lambda: held)
    assert time.monotonic() - began < 60  # and not for as long as the proxy likes
    for writer in held:
        writer.close()
    server.close()


async def test_two_clients_of_a_process_share_one_connection(
    tmp_path: Path, database_url: str
) -> None:
    one = UsageTracker(tmp_path / "one", sink=database_url, durability="shipped")
    two = UsageTracker(tmp_path / "two", sink=database_url, durability="shipped")
    async with one, two:
        await asyncio.gather(one.record(usage()), two.record(usage()))
        (row,) = await ask(
            database_url,
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'litellm-ledger' "
            "AND datname = current_database() AND pid <> pg_backend_pid()",
        )
        assert row[0] == 1
    roots = [tmp_path / "one", tmp_path / "two"]
    assert await assert_exactly_once(database_url, roots) == 2


async def test_a_sink_that_ended_begins_anew(tmp_path: Path, database_url: str) -> None:
    for number in range(1, 4):
        async with UsageTracker(tmp_path, sink=database_url, durability="shipped") as tracker:
            await tracker.record(usage(number))
    assert await assert_exactly_once(database_url, [tmp_path]) == 3


async def test_a_forked_child_lets_go_of_the_connection_and_ships_its_own(
    tmp_path: Path, database_url: str
) -> None:
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'litellm-ledger' "
        "AND datname = current_database() AND pid <> pg_backend_pid()"
    )
    async with UsageTracker(tmp_path, sink=database_url, durability="shipped") as tracker:
        await tracker.record(usage(1))
        ready, go = os.pipe(), os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # this process has threads
            pid = os.fork()
        if pid == 0:  # the child
            status = 1
            try:
                os.read(go[0], 1)  # the parent has closed its connection
                status = 0
            finally:
                os._exit(status)
        await tracker.record(usage(2))
    del ready

    async def gone() -> bool:
        return not (await ask(database_url, query))[0][0]

    while not await gone():  # noqa: ASYNC110 - the server; although the child lives
        await asyncio.sleep(0.05)
    os.write(go[1], b"x")
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert status == 0
    assert await assert_exactly_once(database_url, [tmp_path]) == 2


async def test_a_server_that_is_restarted_is_shipped_to_again(tmp_path: Path) -> None:
    server = Server()
    try:
        from litellm_ledger._postgres import database, schema

        url = server.url()
        connection = await database.connect(url)
        await schema.init(connection)
        await connection.close()
        async with UsageTracker(tmp_path, sink=url, durability="shipped") as tracker:
            await tracker.record(usage(1))
            server.stop()
            waiting = asyncio.create_task(tracker.record(usage(2)))
            await until(lambda: tracker.statistics().sink.failing)  # type: ignore[union-attr]
            server.start()
            await waiting
        assert await assert_exactly_once(url, [tmp_path]) == 2
    finally:
        server.close()


async def test_what_another_living_process_writes_waits_for_that_process(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sink, "_PATIENCE", 1e9)
    async with (
        UsageTracker(tmp_path, sync_interval=0.01) as other,
        UsageTracker(tmp_path, sink=database_url, durability="shipped") as tracker,
    ):
        await other.record(usage())
        await other.flush()
        await tracker.record(usage())
        figures = tracker.statistics().sink
        assert figures is not None
        await until(lambda: tracker.statistics().sink.backlog == 1)  # type: ignore[union-attr]
    assert not recover(tmp_path).writers
