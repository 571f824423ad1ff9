"""Retention in a database: whole months go, and every total stays, whatever races or dies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.crash.test_reprice_kills import PRICES
from tests.ledger_by_hand import HandMade
from tests.postgres.databases import answers, ask, choose, command, prune, run, wrong
from tests.postgres.shipped import TEAM, ledger, load, roll

from litellm_ledger import Ledger
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._maintenance.reprice import reprice
from litellm_ledger._postgres.database import connect
from litellm_ledger._prices.price_list import PriceList
from litellm_ledger._shipping.road import Road
from litellm_ledger._shipping.shipper import Shipper
from litellm_ledger._warehouse import retention
from litellm_ledger._warehouse.reading import Database
from litellm_ledger._warehouse.retention import PruningThere

SPAN = "SELECT count(*), coalesce(sum(cost_picousd), 0) FROM litellm_ledger.usage"
ALL_OF_IT = """
    SELECT (SELECT count(*) FROM litellm_ledger.calls),
        (SELECT sum(calls) FROM litellm_ledger.rollup_15m),
        (SELECT count(*) FROM litellm_ledger.expired_sums),
        (SELECT count(*) FROM litellm_ledger.gaps WHERE here),
        (SELECT count(*) FROM litellm_ledger.deeds),
        (SELECT count(*) FROM litellm_ledger.beaten),
        (SELECT sum(usage) FROM litellm_ledger.writers)
"""
ONE_LESS = (
    "DELETE FROM litellm_ledger.calls WHERE (writer_id, seq) IN "
    "(SELECT writer_id, min(seq) FROM litellm_ledger.calls GROUP BY 1)"
)


def assert_sound(url: str, root: Path) -> None:
    beside = Ledger(url).verify(against=[root])
    assert wrong(beside) == []
    assert beside.compared is not None
    assert beside.compared.ok
    # Nothing in the sums that are kept is of what is gone.
    kept = "SELECT coalesce(sum(calls), 0)::bigint, coalesce(sum(pico), 0) FROM "
    kept += "litellm_ledger.rollup_15m JOIN litellm_ledger.rollup_groups USING (group_id) "
    ((calls, pico),) = ask(url, kept + "WHERE tag_name IS NULL")
    assert (calls, pico) == ask(url, SPAN + " WHERE line IS NULL")[0]
    assert ask(url, "SELECT count(*) FROM litellm_ledger.rollup_15m WHERE calls < 0") == [(0,)]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.matrix)])
def test_every_total_stays_whatever_goes_when(database_url: str, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    root = ledger(tmp_path, 200, seed=seed)
    expected = answers(root)
    load(database_url, root, lines=rng.choice((17, 120, 500)))
    ((before,),) = ask(database_url, "SELECT count(*) FROM litellm_ledger.calls")
    choose(database_url, TEAM)
    roll(database_url, most=rng.choice((None, 40)))  # all, or a part of it
    gone = 0
    for days in sorted(rng.sample(range(320, 420), 2), reverse=True):
        done = prune(database_url, timedelta(days=days))
        gone += done.records
        assert not done.left
        if rng.random() < 0.5:
            roll(database_url)
        assert prune(database_url, timedelta(days=days)).records == 0  # again does nothing
        assert answers(database_url) == expected
    assert 0 < gone < before
    assert_sound(database_url, root)
    ((left,),) = ask(database_url, "SELECT count(*) FROM litellm_ledger.calls")
    assert left == before - gone
    load(database_url, root, lines=50)  # nothing comes back
    assert ask(database_url, "SELECT count(*) FROM litellm_ledger.calls") == [(left,)]
    deeds = ask(
        database_url, "SELECT did, who, (detail->>'outcomes')::int FROM litellm_ledger.deeds"
    )
    assert {one[:2] for one in deeds} == {("prune", "ops")}
    assert sum(one[2] for one in deeds) == gone


def test_what_was_priced_again_stays_priced_again(database_url: str, tmp_path: Path) -> None:
    root = ledger(tmp_path, 80, seed=8)
    assert reprice(root, Selection(), PriceList(PRICES), who="a", why="b").changed
    expected, recorded = answers(root), Ledger(root).report(["month"], as_recorded=True).rows
    assert Ledger(root).report(["month"]).rows != recorded
    load(database_url, root)
    choose(database_url, TEAM)
    roll(database_url)
    assert answers(database_url) == expected
    assert prune(database_url, timedelta(days=330)).records
    assert answers(database_url) == expected
    assert Ledger(database_url).report(["month"], as_recorded=True).rows == recorded
    assert_sound(database_url, root)


def test_only_whole_months_go_and_what_stays_is_named(database_url: str, tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    times = [
        datetime(2025, 1, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2025, 2, 1, tzinfo=UTC),
        datetime(2009, 7, 1, tzinfo=UTC),  # outside of all months
        None,
    ]
    lines = [hand.started(1)]
    lines += [hand.line(seq, ts=ts, cost=seq, status="ok") for seq, ts in enumerate(times, 2)]
    hand.sealed(1, 5, lines)
    load(database_url, hand.root)
    keep = timedelta(days=10)
    early = prune(database_url, keep, now=datetime(2025, 2, 10, tzinfo=UTC))
    assert [one.month for one in early.months] == ["2009-07"]
    assert early.next == ("2025-01", datetime(2025, 2, 11, tzinfo=UTC))
    done = prune(database_url, keep, now=datetime(2025, 2, 11, tzinfo=UTC))
    assert ([one.month for one in done.months], done.records) == (["2025-01"], 1)
    assert (done.untimed, done.in_flight) == (1, 1)
    assert (202501,) not in ask(database_url, "SELECT litellm_ledger.partitions()")
    assert Ledger(database_url).report([]).total.cost == 2 + 3 + 4 + 5
    assert Ledger(database_url).verify().ok
    gaps = ask(
        database_url, "SELECT first, last, usage, reason FROM litellm_ledger.gaps ORDER BY 1"
    )
    assert gaps == [(2, 2, 1, "expired"), (4, 4, 1, "expired")]


def test_a_gap_ends_where_a_batch_does(database_url: str, tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    lines = []
    for seq in (1, 3, 5, 7):
        lines += [hand.started(seq), hand.outcome(seq + 1, seq, status="ok", cost=seq)]
    hand.sealed(1, 8, lines)
    load(database_url, hand.root, lines=4)
    assert prune(database_url, timedelta()).records == 4
    gaps = "SELECT first, last, usage, cost_picousd / 1e12 FROM litellm_ledger.gaps ORDER BY 1"
    assert ask(database_url, gaps) == [(2, 4, 2, 4), (6, 8, 2, 12)]
    counts = "SELECT usage, started, gaps, shipped FROM litellm_ledger.writers"
    assert ask(database_url, counts) == [(0, 2, 6, 8)]
    assert Ledger(database_url).verify(against=[hand.root]).ok


def test_the_command(database_url: str, tmp_path: Path) -> None:
    root = ledger(tmp_path, 60)
    load(database_url, root)
    before = ask(database_url, SPAN)
    for args in (["--keep", "30d", "--dry-run"], ["--keep", "30d", "--json", "--dry-run"]):
        status, text = command("prune", database_url, *args)
        assert status == 0, text
        assert "2025-" in text
    assert ask(database_url, SPAN) == before
    status, text = command(
        "prune", database_url, "--keep", "30d", "--why", "policy 7", "--who", "ops"
    )
    assert (status, "removed" in text, "Reports still have their sums" in text) == (0, True, True)
    status, text = command("prune", database_url, "--keep", "30d")
    assert (status, "Nothing to prune" in text) == (0, True)
    _, text = command("verify", database_url)
    assert "by ops" in text
    assert "policy 7" in text
    status, text = command("report", database_url)
    assert "only aggregates are kept" in text
    assert command("prune", database_url, "--max-size", "1T", "--wait", "1", "--yes")[0] == 0
    assert command("prune", database_url, "--keep", "1d", "--shipped-to", "s3://x/y")[0] == 2
    # The sums go as well where that is asked for, and a report says so.
    status, text = command("prune", database_url, "--keep", "30d", "--keep-aggregates", "30d")
    assert (status, "The sums of" in text) == (0, True), text
    report = Ledger(database_url).report([])
    assert report.pruned > 0
    assert report.total.calls + report.pruned == before[0][0]
    assert wrong(Ledger(database_url).verify()) == []


def test_the_oldest_go_while_it_is_too_large(database_url: str, tmp_path: Path) -> None:
    load(database_url, ledger(tmp_path, 60))
    before = prune(database_url, None, max_size=10**12)
    assert (before.records, before.over) == (0, 0)
    done = prune(database_url, None, max_size=before.size - 1)
    assert len(done.months) == 1
    assert done.size - done.bytes < before.size
    assert prune(database_url, None, max_size=1).over > 0  # months ahead stay


def test_only_the_owner_may(database_url: str) -> None:
    for role in ("ledger_writer", "ledger_reader"):
        user = f"{role}_who_prunes"
        run(database_url, f"DROP ROLE IF EXISTS {user}", f"CREATE ROLE {user} LOGIN IN ROLE {role}")
        other = database_url.replace("postgres@", f"{user}@")
        try:
            refused = "only the owner of the schema may"
            status, text = command("prune", other, "--keep", "30d")
            assert (status, refused in text) == (2, True), text
            assert command("prune", other, "--keep", "30d", "--dry-run")[0] == 0
            how = ["--where", "user=user-1", "--yes", "--allow-missing"]
            run(database_url, "INSERT INTO litellm_ledger.writers (writer) VALUES ('w')")
            status, text = command("erase", other, *how)
            assert (status, refused in text) == (2, True), text
        finally:
            run(database_url, "DELETE FROM litellm_ledger.writers", f"DROP ROLE {user}")


# -- others, and the end of the process ------------------------------------------------------------


class _KilledError(Exception):
    pass


def test_killed_anywhere_a_month_is_whole_or_gone(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = ledger(tmp_path, 80)
    expected = Ledger(root).report(["month", "model"])
    load(database_url, root, lines=70)
    roll(database_url)
    before = ask(database_url, ALL_OF_IT)
    steps = [
        (retention, "uneven"),
        (retention, "remove"),
        (retention.rollup, "tidy"),
        (retention, "move_sums"),
        (retention._Run, "_delete"),
        (retention._Run, "_drop"),
        (retention, "note_deed"),
    ]
    for module, name in steps:
        done: Callable[..., Awaitable[Any]] = getattr(module, name)

        async def die_after(*args: Any, done: Any = done, **how: Any) -> Any:
            await done(*args, **how)
            raise _KilledError

        with monkeypatch.context() as patch:
            patch.setattr(module, name, die_after)
            with pytest.raises(_KilledError):
                prune(database_url, timedelta())
        assert ask(database_url, ALL_OF_IT) == before, name
    prune(database_url, timedelta())
    assert Ledger(database_url).report(["month", "model"]).rows == expected.rows
    assert_sound(database_url, root)


def test_beside_shippers_leaders_and_readers(database_url: str, tmp_path: Path) -> None:
    root = ledger(tmp_path, 120)
    expected = Ledger(root).report(["month"]).total
    load(database_url, root, lines=200)
    more = HandMade(root, "20250103T000000Z-00000000000000cc")
    lines = [
        more.line(seq, ts=datetime(2025, 1 + seq % 4, 3, tzinfo=UTC), cost=1, status="ok")
        for seq in range(1, 100)
    ]
    more.sealed(1, 99, lines)
    seen = []

    async def race() -> None:
        ended = asyncio.Event()

        async def reads() -> None:
            while not ended.is_set():
                report = await asyncio.to_thread(Ledger(database_url).report, ["month"])
                seen.append(report.total)

        async def prunes() -> None:
            for days in range(420, 300, -40):
                await asyncio.to_thread(prune, database_url, timedelta(days=days))

        async def leads() -> None:
            while not ended.is_set():
                await asyncio.to_thread(roll, database_url, 90)

        async def ships() -> None:
            shipper = Shipper(database_url, [Road(root, database_url, lines=21)])
            while await shipper.step(all_now=True) or shipper.failing:
                pass
            await shipper.close()

        async def works() -> None:
            await asyncio.gather(prunes(), ships(), ships())
            ended.set()

        await asyncio.gather(works(), reads(), leads(), leads())

    asyncio.run(race())
    for total in seen:  # no total is of two moments: each call of the second writer costs a dollar
        extra = total.calls - expected.calls
        assert 0 <= extra <= 99
        assert total.cost == expected.cost + extra
    prune(database_url, timedelta(days=10))
    roll(database_url)
    whole = Ledger(root).report(["month"])
    assert Ledger(database_url).report(["month"]).rows == whole.rows
    assert_sound(database_url, root)


def test_two_at_once_remove_a_month_once(database_url: str, tmp_path: Path) -> None:
    root = ledger(tmp_path, 50)
    expected = Ledger(root).report(["month"])
    load(database_url, root)
    ((timed,),) = ask(database_url, "SELECT count(*) FROM litellm_ledger.calls WHERE month > 0")

    async def both() -> list[PruningThere]:
        rules = (asyncio.to_thread(prune, database_url, timedelta()) for _ in range(2))
        return list(await asyncio.gather(*rules))

    found = asyncio.run(both())
    assert sum(one.records for one in found) == timed
    assert Ledger(database_url).report(["month"]).rows == expected.rows
    assert wrong(Ledger(database_url).verify()) == []


def test_a_line_of_a_month_that_has_gone_is_shipped(database_url: str, tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    hand.sealed(1, 1, [hand.line(1, cost=1, status="ok")])

    async def work() -> None:
        shipper = Shipper(database_url, [Road(hand.root, database_url)])
        assert await shipper.step(all_now=True)
        gone = await asyncio.to_thread(prune, database_url, timedelta())
        assert gone.records == 1
        hand.sealed(2, 2, [hand.line(2, cost=2, status="ok")])
        while await shipper.step(all_now=True):  # alone in its batch, and not set aside for that
            pass
        assert shipper.records == 2
        await shipper.close()

    asyncio.run(work())
    assert ask(database_url, "SELECT count(*) FROM litellm_ledger.rejected") == [(0,)]
    assert ask(database_url, "SELECT seq FROM litellm_ledger.calls_202501") == [(2,)]
    assert Ledger(database_url).report([]).total.cost == 3
    assert prune(database_url, timedelta()).records == 1
    assert Ledger(database_url).report([]).total.cost == 3
    assert Ledger(database_url).verify().ok


@pytest.mark.parametrize("wrong_by", [timedelta(days=4_000), timedelta(days=-4_000)])
def test_a_clock_that_is_wrong_removes_nothing_before_its_time(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong_by: timedelta
) -> None:
    hand = HandMade(tmp_path / "usage")
    ts = datetime.now(UTC) - timedelta(days=70)
    hand.sealed(1, 1, [hand.line(1, ts=ts, cost=1, status="ok")])
    load(database_url, hand.root)
    monkeypatch.setattr(retention, "_clock", lambda: datetime.now(UTC) + wrong_by)
    status, text = command("prune", database_url, "--keep", "200d")
    assert (status, "Nothing to prune" in text) == (0, True), text
    monkeypatch.undo()
    status, text = command("prune", database_url, "--keep", "1d")
    assert (status, "1 outcome of 1 month" in text) == (0, True), text


def test_a_long_reader_is_not_hung_and_hangs_nobody(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(database_url, ledger(tmp_path, 60))
    before = ask(database_url, SPAN)
    monkeypatch.setattr(retention, "_MOMENT", 20)

    async def question(connection: Any) -> Any:
        first = await connection.fetch("SELECT * FROM litellm_ledger.expired_sums")
        found = await asyncio.to_thread(prune, database_url, timedelta())
        return first, found, [tuple(await connection.fetchrow(SPAN))]

    first, found, after = Database(database_url).ask(question)
    assert (first, after) == ([], before)  # of one moment
    assert not found.months
    ((_, why),) = found.left
    assert "hold the table without a pause" in why
    assert prune(database_url, timedelta()).months


def test_an_outcome_that_may_come_is_waited_for(database_url: str, tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    lines = [hand.started(1), hand.outcome(2, 1, status="unsettled", cost=1)]
    hand.sealed(1, 2, lines)
    load(database_url, hand.root)
    run(database_url, "UPDATE litellm_ledger.writers SET closed = false")
    ((_, why),) = prune(database_url, timedelta()).left
    assert "unsettled" in why
    hand.sealed(3, 3, [hand.outcome(3, 1, status="ok", cost=2)])
    load(database_url, hand.root)
    run(database_url, "UPDATE litellm_ledger.writers SET closed = false")
    assert prune(database_url, timedelta()).records == 2
    total = Ledger(database_url).report([]).total
    assert (total.calls, total.cost) == (1, 2)


def test_a_month_that_is_not_whole_stays(database_url: str, tmp_path: Path) -> None:
    root = ledger(tmp_path, 120)
    load(database_url, root)
    run(database_url, ONE_LESS)
    status, text = command("prune", database_url, "--keep", "1d")
    assert status == 1, text
    assert "run litellm-ledger verify" in text
    assert wrong(Ledger(database_url).verify())


@pytest.mark.parametrize(
    "sabotage",
    [
        ONE_LESS,
        "UPDATE litellm_ledger.gaps SET usage = usage - 1 WHERE here",
        "UPDATE litellm_ledger.gaps SET cost_picousd = cost_picousd + 1 WHERE here",
        "UPDATE litellm_ledger.gaps SET last = last + 1 WHERE here",
        "DELETE FROM litellm_ledger.gaps WHERE here",
        "DELETE FROM litellm_ledger.deeds",
        "UPDATE litellm_ledger.writers SET usage = usage - 1, started = started + 1",
    ],
)
def test_a_saboteur_is_seen_after_retention(
    module_database: tuple[str, Path], sabotage: str
) -> None:
    url, _ = module_database

    async def sabotaged() -> bool:
        from litellm_ledger._warehouse import proof

        connection = await connect(url)
        try:
            change = connection.transaction()
            await change.start()
            await connection.execute(sabotage)

            class Here:
                def ask(self, question: Any) -> Any:
                    return found

            found = await proof._counted(connection)
            await change.rollback()
            return not wrong(proof.verify(Here(), url, ()))  # type: ignore[arg-type]
        finally:
            await connection.close()

    assert not asyncio.run(sabotaged())
    assert wrong(Ledger(url).verify()) == []


@pytest.fixture(scope="module")
def module_database(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    root = ledger(tmp_path_factory.mktemp("whole"), 200)
    load(module_database_url, root, lines=90)
    assert prune(module_database_url, timedelta(days=200)).records
    return module_database_url, root
