"""Shipping: what is certain on a ledger is in the database once, whatever it is made of."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path

import pytest
from tests.ledger_by_hand import OTHER_WRITER, WRITER, HandMade, framed, spoil
from tests.shipped import ask, assert_exactly_once, ship, told

from litellm_ledger._maintenance.acknowledge import acknowledge
from litellm_ledger._postgres import database
from litellm_ledger._shipping import source as _source
from litellm_ledger._storage.shipping_marks import places

pytestmark = pytest.mark.asyncio


async def test_a_ledger_is_shipped_whole(tmp_path: Path, database_url: str) -> None:
    hand = HandMade(tmp_path)
    lines = [
        hand.started(1),
        hand.outcome(2, 1, cost=Decimal("0.000000000007"), tags={"user": "alice"}),
        hand.gap(3, 7, "lost", 5),
        hand.started(8),
        *hand.lines(9, 11, cost=Decimal("1.5")),
    ]
    hand.sealed(1, 11, lines)
    other = HandMade(tmp_path, OTHER_WRITER)
    other.open(1, other.lines(1, 5))
    with other.alive(5, 5, synced=4):
        shipper = await ship(database_url, tmp_path)
        assert shipper.records == 15
        assert await assert_exactly_once(database_url, [tmp_path]) == 15
        assert (await ship(database_url, tmp_path)).records == 0
    said = (await told(database_url))[WRITER]
    assert said["closed"]
    assert said["cost_picousd"] == 4_500_000_000_007
    in_flight = await ask(database_url, "SELECT seq FROM litellm_ledger.in_flight")
    assert [row["seq"] for row in in_flight] == [8]
    (gap,) = await ask(database_url, "SELECT * FROM litellm_ledger.gaps")
    assert (gap["first"], gap["last"], gap["reason"], gap["acked_until"]) == (3, 7, "lost", 5)
    (place,) = places(tmp_path)
    assert {name: mark.shipped for name, mark in place.writers.items()} == {
        WRITER: 11,
        OTHER_WRITER: 4,
    }


async def test_calls_in_flight_end_in_a_later_batch(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = HandMade(tmp_path)
    lines = [
        hand.started(1),
        hand.line(2, kind="started", operation="mine", attempt=1),
        hand.line(3, kind="started", operation=hand.id(1), attempt=2),
        hand.started(4),
        hand.outcome(5, 1, status="error"),
        hand.line(6, operation="mine", attempt=1),
        hand.line(7, operation=hand.id(1), attempt=2),
        hand.started(8),
    ]
    hand.open(1, lines)
    query = "SELECT seq FROM litellm_ledger.in_flight ORDER BY seq"
    for synced, left in ((4, [1, 2, 3, 4]), (5, [2, 3, 4]), (6, [3, 4]), (8, [4, 8])):
        with hand.alive(8, 8, synced=synced):
            await ship(database_url, tmp_path)
        assert [row["seq"] for row in await ask(database_url, query)] == left


async def test_an_unsettled_outcome_that_another_beats_counts_nowhere(
    tmp_path: Path, database_url: str
) -> None:
    hand = HandMade(tmp_path)
    lines = [
        *(hand.started(seq) for seq in range(1, 5)),
        hand.outcome(5, 1),
        hand.outcome(6, 1, status="unsettled"),  # beaten by 5
        hand.outcome(7, 2, status="unsettled"),
        hand.outcome(8, 3, status="unsettled"),  # beaten by 10, which comes in a later batch
        hand.outcome(9, 2, status="unsettled"),  # beaten by 7
        hand.outcome(10, 3),
    ]
    hand.open(1, lines)
    for synced in (5, 6, 9, 10):
        with hand.alive(10, 10, synced=synced):
            await ship(database_url, tmp_path)
    beaten = await ask(database_url, "SELECT seq FROM litellm_ledger.beaten ORDER BY seq")
    assert [row["seq"] for row in beaten] == [6, 8, 9]
    with hand.alive(10, 10):
        await assert_exactly_once(database_url, [tmp_path])


async def test_damage_and_what_is_no_record_is_counted_and_passed(
    tmp_path: Path, database_url: str
) -> None:
    hand = HandMade(tmp_path)
    lines = [*hand.lines(1, 4), hand.foreign(5, '"input_tokens":-1'), *hand.lines(6, 9)]
    spoil(hand.sealed(1, 9, lines), 2)
    await ship(database_url, tmp_path)
    assert await assert_exactly_once(database_url, [tmp_path]) == 9
    gaps = await ask(database_url, "SELECT first, last, reason FROM litellm_ledger.gaps")
    assert sorted(map(tuple, gaps)) == [(3, 3, "damaged"), (5, 5, "damaged")]


async def test_adjustments_and_audits_are_shipped(tmp_path: Path, database_url: str) -> None:
    hand = HandMade(tmp_path)
    spoil(hand.sealed(1, 3), 1)
    acknowledge(tmp_path, WRITER, who="alice", why="looked into")
    await ship(database_url, tmp_path)
    assert await assert_exactly_once(database_url, [tmp_path]) == 4
    (row,) = await ask(database_url, "SELECT kind, line FROM litellm_ledger.additions")
    assert json.loads(row["line"])["why"] == "looked into"


async def test_one_line_that_the_database_refuses_is_set_aside_and_all_others_are_shipped(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_source, "LINES", 100)
    hand = HandMade(tmp_path)
    lines = hand.lines(1, 60)
    lines[16] = hand.line(17, tags={"k" * 3_000: "v" * 3_000, "l" * 3_000: "v" * 3_000})
    lines[41] = hand.line(42, model="refused")
    hand.sealed(1, 60, lines)
    await ask(database_url, "SELECT litellm_ledger.make_partitions('{202501}')")
    await ask(
        database_url,
        "ALTER TABLE litellm_ledger.calls ADD CONSTRAINT no CHECK (model <> 'refused')",
    )
    shipper = await ship(database_url, tmp_path)
    assert await assert_exactly_once(database_url, [tmp_path]) == 60
    rows = await ask(database_url, "SELECT seq, line, why FROM litellm_ledger.rejected")
    assert [(row["seq"], row["line"]) for row in rows] == [(42, lines[41])]
    assert "CheckViolation" in rows[0]["why"]
    assert "refused" not in rows[0]["why"], "no value of the record in an error or a log"
    assert shipper.batches < 30


async def test_rows_that_are_there_although_the_checkpoint_denies_it_are_an_alarm(
    tmp_path: Path, database_url: str
) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 3)
    other = HandMade(tmp_path, OTHER_WRITER)
    await ship(database_url, tmp_path)
    other.sealed(1, 4)
    for statement in (
        "ALTER TABLE litellm_ledger.writers DISABLE TRIGGER USER",  # it lets nobody do that
        "UPDATE litellm_ledger.writers SET shipped = 1, usage = 1, cost_picousd = 0",
        "ALTER TABLE litellm_ledger.writers ENABLE TRIGGER USER",
    ):
        await ask(database_url, statement)
    shipper = await ship(database_url, tmp_path)
    assert "are there already" in (shipper.figures().failing or "")
    writers = await told(database_url)
    assert (writers[WRITER]["shipped"], writers[OTHER_WRITER]["shipped"]) == (1, 4)
    rows = await ask(database_url, "SELECT count(*) FROM litellm_ledger.calls")
    assert rows[0][0] == 7


async def test_shippers_that_race_ship_everything_once(tmp_path: Path, database_url: str) -> None:
    roots = [tmp_path / str(number) for number in range(2)]
    for number, root in enumerate(roots):
        for writer in range(3):
            hand = HandMade(root, f"20250103T000000Z-{number:08x}{writer:08x}")
            hand.sealed(1, 400, [line for at in range(1, 401, 2) for line in _call(hand, at)])
    shippers = await asyncio.gather(*(ship(database_url, *roots) for _ in range(4)))
    assert sum(shipper.records for shipper in shippers) == 2_400
    assert await assert_exactly_once(database_url, roots) == 2_400
    assert await ask(database_url, "SELECT FROM litellm_ledger.in_flight") == []


def _call(hand: HandMade, seq: int) -> list[bytes]:
    return [hand.started(seq), hand.outcome(seq + 1, seq, cost=Decimal("0.001"))]


async def test_a_record_of_any_month_has_a_place(tmp_path: Path, database_url: str) -> None:
    hand = HandMade(tmp_path)
    lines = [
        hand.line(1),
        framed(f'{{"v":1,"id":"{hand.id(2)}","seq":2,"kind":"usage","status":"ok"'.encode()),
        framed(
            f'{{"v":1,"id":"{hand.id(3)}","seq":3,"kind":"usage",'
            '"ts":"1931-02-03T04:05:06.000000Z"'.encode()
        ),
    ]
    hand.sealed(1, 3, lines)
    await ship(database_url, tmp_path)
    assert await assert_exactly_once(database_url, [tmp_path]) == 3
    months = await ask(database_url, "SELECT seq, month FROM litellm_ledger.calls ORDER BY seq")
    assert [tuple(row) for row in months] == [(1, 202501), (2, 0), (3, 0)]


async def test_partitions_that_cannot_be_made_hold_nothing_up(
    tmp_path: Path, database_url: str
) -> None:
    HandMade(tmp_path).sealed(1, 3)
    await ask(
        database_url,
        "ALTER TABLE litellm_ledger.calls ADD CONSTRAINT other CHECK (model <> 'x')",
    )
    await ask(database_url, "DROP FUNCTION litellm_ledger.make_partitions_ahead")
    shipper = await ship(database_url, tmp_path)
    assert shipper.records == 3
    assert await assert_exactly_once(database_url, [tmp_path]) == 3


async def test_without_the_unique_index_nothing_changes(tmp_path: Path, database_url: str) -> None:
    names = await ask(
        database_url,
        "SELECT conrelid::regclass::text AS t, conname FROM pg_constraint WHERE contype = 'p' "
        "AND conrelid::regclass::text LIKE 'litellm_ledger.calls%'",
    )
    for name in names:
        await ask(database_url, f"ALTER TABLE {name['t']} DROP CONSTRAINT {name['conname']}")
    hand = HandMade(tmp_path)
    hand.sealed(1, 50)
    await asyncio.gather(*(ship(database_url, tmp_path) for _ in range(3)))
    assert await assert_exactly_once(database_url, [tmp_path]) == 50


async def test_what_a_dead_writer_left_is_recovered_and_shipped(
    tmp_path: Path, database_url: str
) -> None:
    hand = HandMade(tmp_path)
    hand.open(1, [hand.started(1), *hand.lines(2, 4)], tail=b'{"v":1,"id"')
    hand.live(6, 4, synced=2, oldest=1)
    await ship(database_url, tmp_path, recovers=False)
    assert (await told(database_url))[WRITER]["shipped"] == 2
    await ship(database_url, tmp_path)
    assert await assert_exactly_once(database_url, [tmp_path]) == 7


async def test_a_ledger_that_cannot_be_read_keeps_no_other_from_being_shipped(
    tmp_path: Path, database_url: str
) -> None:
    hand = HandMade(tmp_path / "good")
    hand.sealed(1, 3)
    bad = HandMade(tmp_path / "bad")
    bad.sealed(1, 1, [bad.line(1).replace(b'{"v":1', b'{"v":9')])
    shipper = await ship(database_url, tmp_path / "nowhere", tmp_path / "good")
    assert shipper.records == 3
    assert "no ledger at" in (shipper.figures().failing or "")


async def test_no_schema_is_said_and_nothing_is_made(tmp_path: Path, empty_url: str) -> None:
    HandMade(tmp_path).sealed(1, 3)
    shipper = await ship(empty_url, tmp_path)
    assert "database init" in (shipper.failing or "")
    assert shipper.figures().backlog == 3
    connection = await database.connect(empty_url)
    assert not await connection.fetchval("SELECT to_regnamespace('litellm_ledger') IS NOT NULL")
    await connection.close()
