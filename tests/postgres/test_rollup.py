"""Sums that are kept: equal to what the outcomes come to, with any leader at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.generated import make_ledger
from tests.ledger_by_hand import HandMade
from tests.postgres.databases import ask, command, work
from tests.postgres.shipped import TEAM, ZONES, load, roll, seal_all

from litellm_ledger import Ledger
from litellm_ledger._aggregates.totals import FIELDS
from litellm_ledger._postgres.database import connect
from litellm_ledger._shipping import rollup

KEPT = "SELECT sum(t.calls)::bigint, sum(t.pico)::numeric FROM litellm_ledger.rollup_15m t JOIN "
KEPT += "litellm_ledger.rollup_groups g USING (group_id) WHERE g.tag_name IS NOT DISTINCT FROM $1"
TRUE = "SELECT count(*), coalesce(sum(cost_picousd), 0) FROM litellm_ledger.usage"
TRUE += " WHERE line IS NULL"


def assert_same(url: str, root: Path, zones: Sequence[str] = ZONES) -> None:
    """The sums that are kept are those of the outcomes, and so are reports of any zone."""
    ((calls, pico),) = ask(url, TRUE)
    assert ask(url, KEPT, None) == [(calls, pico)]
    here, there = Ledger(root), Ledger(url)
    for zone in zones:
        one, other = (each.report(["day", "model", "status"], tz=zone) for each in (here, there))
        assert (one.rows, one.total) == (other.rows, other.total), zone
    one, other = (each.report([f"tag:{TEAM}", "hour"], tz=zones[-1]) for each in (here, there))
    assert one.rows == other.rows


def ledger(tmp_path: Path, lines: int = 1_200) -> Path:
    root = tmp_path / "usage"
    make_ledger(root, lines, seed=5, segment=80_000)
    seal_all(root)
    return root


async def _bring(url: str, ended: asyncio.Event) -> int:
    """Lead until the shippers have ended and there is nothing more to do."""
    connection = await connect(url)
    done = 0
    try:
        while True:
            last = ended.is_set()
            more = await rollup.bring_forward(connection)
            done += more
            if last and not more:
                return done
            await asyncio.sleep(0)
    finally:
        await connection.close()


async def _race(url: str, root: Path, leaders: int) -> list[int]:
    """Two shippers and some leaders, at once."""
    ended = asyncio.Event()

    async def shippers() -> None:
        try:
            await asyncio.gather(*(asyncio.to_thread(load, url, root, lines=37) for _ in range(2)))
        finally:
            ended.set()

    *done, _ = await asyncio.gather(*(_bring(url, ended) for _ in range(leaders)), shippers())
    return done


@pytest.mark.parametrize("lock", [True, False])
def test_two_shippers_and_two_leaders(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lock: bool
) -> None:
    root = ledger(tmp_path)
    monkeypatch.setattr(rollup, "_SHARE", 25)  # many small steps
    if not lock:  # each thinks that it leads alone: the marks decide

        async def lead(_connection: Any) -> bool:
            return True

        monkeypatch.setattr(rollup, "_lead", lead)
    done = asyncio.run(_race(database_url, root, leaders=2))
    assert sum(done) > 0
    while roll(database_url):
        pass
    assert_same(database_url, root, ZONES if lock else ZONES[:1])


def test_what_is_beaten_later_is_taken_out_again(database_url: str, tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    lines = [hand.started(1), hand.outcome(2, 1, status="unsettled"), hand.outcome(3, 1)]
    hand.sealed(1, 2, lines[:2])
    load(database_url, hand.root)
    roll(database_url)
    assert ask(database_url, KEPT, None)[0][0] == 1
    hand.sealed(3, 3, lines[2:])
    load(database_url, hand.root)
    there = Ledger(database_url)
    assert [row.group for row in there.report(["status"]).rows] == [{"status": "ok"}]  # not yet
    assert roll(database_url) > 0
    assert [row.group for row in there.report(["status"]).rows] == [{"status": "ok"}]
    assert_same(database_url, hand.root, ZONES[:1])
    assert roll(database_url) == 0


def test_rebuilt_they_are_the_same(database_url: str, tmp_path: Path) -> None:
    root = ledger(tmp_path, 400)
    load(database_url, root)
    roll(database_url)
    sums = ", ".join(f"sum(t.{name})" for name in FIELDS)
    every = f"SELECT g.digest, t.quarter, {sums} FROM litellm_ledger.rollup_15m t "
    every += "JOIN litellm_ledger.rollup_groups g USING (group_id) GROUP BY 1, 2 "
    every += "HAVING sum(t.calls) <> 0 ORDER BY 1, 2"
    before = ask(database_url, every)
    ask(database_url, "UPDATE litellm_ledger.rollup_15m SET pico = pico + 1")  # not the truth
    with pytest.raises(AssertionError):
        assert_same(database_url, root, ZONES[:1])

    assert work(database_url, rollup.rebuild) > 0
    assert ask(database_url, every) == before
    assert_same(database_url, root, ZONES[:1])


def test_tags_of_few_values_are_chosen(database_url: str, tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    hand.filled(
        *({"tags": {"env": f"e{at % 3}", "request": f"r{at}"}, "status": "ok"} for at in range(90))
    )
    load(database_url, hand.root)
    roll(database_url)
    chosen = dict(ask(database_url, "SELECT tag_name, chosen FROM litellm_ledger.rollup_tags"))
    assert chosen == {"env": True, "request": False}
    assert ask(database_url, KEPT, "env")[0][0] == 90
    here, there = Ledger(hand.root), Ledger(database_url)
    for by in (["env"], ["request"], ["env", "request"]):
        assert there.report(by).rows == here.report(by).rows


def test_a_shipper_brings_them_forward_with_its_own_rights(
    postgres: Any, database_url: str, tmp_path: Path
) -> None:
    root = ledger(tmp_path, 200)
    name = database_url.partition("@/")[2].partition("?")[0]
    user = f"shipper_{name}"
    ask(database_url, f"CREATE ROLE {user} LOGIN IN ROLE ledger_writer")
    url = postgres.socket_url(name, user)
    assert command("ship", str(root), "--to", url)[0] == 0
    assert ask(database_url, KEPT, None)[0][0] > 0
    assert_same(database_url, root, ZONES[:1])
    status, said = command("database", "rebuild", database_url)
    assert (status, "sums made anew" in said) == (0, True), said
    assert_same(database_url, root, ZONES[:1])


@pytest.mark.parametrize("without", ["the marks", "what is beaten"])
def test_a_saboteur_is_seen(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    hand = HandMade(tmp_path / "usage")
    hand.sealed(1, 3, [hand.started(1), hand.outcome(2, 1, status="unsettled"), hand.outcome(3, 1)])
    load(database_url, hand.root)

    async def nothing(*_: Any) -> int:
        return 0

    step = {"the marks": "_move", "what is beaten": "_subtract_beaten"}[without]
    monkeypatch.setattr(rollup, step, nothing)

    async def twice(connection: Any) -> None:
        for _ in range(2):
            await rollup.bring_forward(connection)

    work(database_url, twice)
    assert ask(database_url, KEPT, None)[0][0] != 1
