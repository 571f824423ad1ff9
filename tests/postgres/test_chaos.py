"""Kills and cuts: whatever is cut, each number is there once; and what would break that is caught.

The long version is ``python -m benchmarks.shipping``.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.cuts import Cut, CuttingProxy
from tests.ledger_by_hand import HandMade, spoil
from tests.shipped import ask, assert_exactly_once, ship

from litellm_ledger._maintenance.recover import recover
from litellm_ledger._postgres import database
from litellm_ledger._shipping import batch
from litellm_ledger._shipping.road import Checkpoint, Road
from litellm_ledger._shipping.shipper import Shipper
from litellm_ledger._shipping.standing import Lookout, Standing

CUTS: tuple[Cut, ...] = ("before", "after", "anywhere")


def port_of(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or int(parse_qs(parts.query)["port"][0])


def through(url: str, port: int) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/{urlsplit(url).path.lstrip('/')}"


def filled(root: Path, writers: int = 3, numbers: int = 60) -> None:
    for number in range(writers):
        hand = HandMade(root, f"20250103T000000Z-{number:016x}")
        lines = [line for at in range(1, numbers, 2) for line in _call(hand, at)]
        path = hand.sealed(1, numbers, lines)
        if not number:
            spoil(path, 11)


def _call(hand: HandMade, seq: int) -> list[bytes]:
    return [hand.started(seq), hand.outcome(seq + 1, seq)]


async def without_the_index(url: str) -> None:
    await ask(url, "SELECT litellm_ledger.make_partitions('{202501}')")
    query = (
        "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'p' "
        "AND conrelid::regclass::text ~ '^litellm_ledger.calls'"
    )
    for table, name in await ask(url, query):
        await ask(url, f"ALTER TABLE {table} DROP CONSTRAINT {name}")


async def cut_and_ship(url: str, root: Path, cuts: list[Cut]) -> dict[str, int]:
    """Ship a ledger in small batches while connections are cut."""
    dice = random.Random(7)
    async with CuttingProxy(port_of(url)) as proxy:
        address = through(url, proxy.port)
        shipper = Shipper(address, [Road(root, "test", lines=7)])
        for cut in cuts:
            proxy.arm(cut, dice.randrange(4_000))
            done = sum(proxy.cuts.values())
            for _ in range(200):
                await shipper.step(all_now=True)
                if sum(proxy.cuts.values()) > done:
                    break
        for _ in range(1_000):
            if not await shipper.step(all_now=True) and shipper.failing is None:
                break
        await shipper.close()
        return proxy.cuts


@pytest.mark.asyncio
@pytest.mark.parametrize("indexed", [True, False])
async def test_cuts_around_the_commit_double_nothing_and_lose_nothing(
    tmp_path: Path, database_url: str, indexed: bool
) -> None:
    filled(tmp_path)
    if not indexed:
        await without_the_index(database_url)
    cuts = await cut_and_ship(database_url, tmp_path, [*CUTS] * 4)
    assert cuts["before"] >= 3
    assert cuts["after"] >= 3
    assert await assert_exactly_once(database_url, [tmp_path]) == 180


def test_shippers_that_are_killed_double_nothing_and_lose_nothing(
    tmp_path: Path, database_url: str
) -> None:
    filled(tmp_path)
    dice = random.Random(11)
    asyncio.run(ask(database_url, "SELECT 1"))  # what a child needs is loaded here
    for _ in range(8):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                asyncio.run(ship(database_url, tmp_path, lines=7))
                status = 0
            finally:
                os._exit(status)
        try:
            signal.sigtimedwait([], dice.uniform(0.0, 0.15))
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    asyncio.run(ship(database_url, tmp_path))
    assert asyncio.run(assert_exactly_once(database_url, [tmp_path])) == 180


# -- saboteurs ---------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_shipper_that_does_not_wait_for_the_sync_is_caught(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = HandMade(tmp_path)
    lines = [hand.started(1), *hand.lines(2, 6)]
    path = hand.open(1, lines)
    real = Lookout._standing

    def hasty(self: Lookout, writer: str, alone: set[str]) -> Standing:
        found = real(self, writer, alone)
        return replace(found, top=found.accepted)

    for sabotage in (False, True):
        with hand.alive(6, 6, synced=3), monkeypatch.context() as patch:
            if sabotage:
                patch.setattr(Lookout, "_standing", hasty)
            await ship(database_url, tmp_path)
    path.write_bytes(b"".join(lines[:3]))  # the power is cut: what was not synced is gone
    hand.live(3, 3, boot=1, oldest=1)
    recover(tmp_path)
    await ship(database_url, tmp_path)
    with pytest.raises(AssertionError):
        await assert_exactly_once(database_url, [tmp_path])


@pytest.mark.asyncio
async def test_a_power_cut_gives_no_shipped_number_another_meaning(
    tmp_path: Path, database_url: str
) -> None:
    hand = HandMade(tmp_path)
    lines = [hand.started(1), *hand.lines(2, 6)]
    path = hand.open(1, lines)
    with hand.alive(6, 6, synced=3):
        await ship(database_url, tmp_path)
    path.write_bytes(b"".join(lines[:3]))
    hand.live(3, 3, boot=1, oldest=1)
    recover(tmp_path)
    await ship(database_url, tmp_path)
    assert await assert_exactly_once(database_url, [tmp_path]) == 4


async def _second_transaction(
    real: Callable[..., Awaitable[bool]], connection: Any, *args: Any, **kwargs: Any
) -> bool:
    """Commit the rows, and the checkpoint in a transaction of its own."""
    writer_id, parcel = args
    await database.copy(connection, "calls", parcel.rows.columns, batch.pieces(parcel.rows))
    parcel.rows._rows.clear()
    counts = dict(parcel.counts)
    counts["usage"] = parcel.last - parcel.first + 1 - sum(counts.values())
    begin = batch._begin(writer_id, parcel, counts, 0, closed=False)
    done = await connection.execute(begin) == "UPDATE 1"
    await connection.execute(batch._end(writer_id, parcel, counts))
    return done


@pytest.mark.asyncio
async def test_a_checkpoint_in_a_second_transaction_is_caught(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    await without_the_index(database_url)
    real = batch.ship

    async def sabotage(connection: Any, *args: Any, **kwargs: Any) -> bool:
        return await _second_transaction(real, connection, *args, **kwargs)

    monkeypatch.setattr(batch, "ship", sabotage)
    await cut_and_ship(database_url, tmp_path, ["before"] * 3)
    rows = await ask(
        database_url,
        "SELECT count(*) - count(DISTINCT (writer_id, seq)) AS twice FROM litellm_ledger.calls",
    )
    assert rows[0]["twice"] > 0
    with pytest.raises(AssertionError):
        await assert_exactly_once(database_url, [tmp_path])


@pytest.mark.asyncio
async def test_trust_in_a_commit_whose_answer_did_not_come_is_caught(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    real, forget, begin = batch.ship, Road.forget, batch._begin
    believed: dict[int, int] = {}

    async def trusting(connection: Any, writer_id: int, parcel: Any, **how: Any) -> bool:
        try:
            return await real(connection, writer_id, parcel, **how)
        except Exception:
            believed[writer_id] = parcel.last
            raise

    def keeping(self: Road) -> None:
        known = dict(self.known)
        forget(self)
        for writer, one in known.items():
            trusted = max(one.shipped, believed.get(one.writer_id, 0))
            self.known[writer] = Checkpoint(one.writer_id, trusted)

    def unasked(*args: Any, **how: Any) -> str:  # else the checkpoint itself would object
        return begin(*args, **how).partition(" AND shipped = ")[0]

    monkeypatch.setattr(batch, "ship", trusting)
    monkeypatch.setattr(batch, "_begin", unasked)
    monkeypatch.setattr(Road, "forget", keeping)
    await cut_and_ship(database_url, tmp_path, ["before"] * 2)
    monkeypatch.undo()
    with pytest.raises(AssertionError):
        await assert_exactly_once(database_url, [tmp_path])


def test_the_proxy_is_where_the_server_is(database_url: str) -> None:
    assert database.module().__name__ == "asyncpg"
    assert port_of(database_url) > 0
