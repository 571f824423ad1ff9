"""Rows that no shipper writes, of somebody who may write: a question names them, and goes on."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.postgres.databases import prune, run
from tests.postgres.shipped import filled, load, roll

from litellm_ledger import Ledger
from litellm_ledger._errors import LedgerPathError
from litellm_ledger._maintenance.person import Person
from litellm_ledger._postgres.database import connect
from litellm_ledger._warehouse import laying, proof
from litellm_ledger._warehouse.reading import Database

CALL = (
    "INSERT INTO litellm_ledger.calls (writer_id, month, seq, ts, status, cost_picousd{more}) "
    "VALUES ({writer}, 0, {seq}, '{ts}', 'ok', 1{value})"
)
WRITER = "INSERT INTO litellm_ledger.writers (writer) VALUES ('{}')"
NEWEST = "(SELECT max(writer_id) FROM litellm_ledger.writers)"
FLIGHT = "INSERT INTO litellm_ledger.in_flight (writer_id, seq, line) VALUES ({}, {}, '{}')"


def call(
    writer: str = "1", seq: int = 100, ts: str = "2025-01-01Z", more: str = "", value: str = ""
) -> str:
    return CALL.format(writer=writer, seq=seq, ts=ts, more=more, value=value)


@pytest.fixture
def evil(database_url: str, tmp_path: Path) -> Iterator[str]:
    """The database, as somebody sees it who may ship."""
    load(database_url, filled(tmp_path / "usage").root, lines=8)
    roll(database_url)
    run(database_url, "DROP ROLE IF EXISTS evil", "CREATE ROLE evil LOGIN IN ROLE ledger_writer")
    yield database_url.replace("postgres@", "evil@")
    run(database_url, "DROP ROLE evil")


GAP = "INSERT INTO litellm_ledger.gaps (writer_id, first, last, reason) VALUES (1, 60, 40, 'x')"
BEATEN = "INSERT INTO litellm_ledger.beaten SELECT writer_id, seq FROM litellm_ledger.calls LIMIT 3"
STRANGE = {
    "never": call(seq=101, ts="infinity"),
    "long ago": call(seq=102, ts="4000-01-01 BC"),
    "one day": call(seq=103, ts="12000-01-01"),
    "below 1": call(seq=-5),
    "17 digits": call(seq=12_345_678_901_234_567),
    "no bytes": call(more=", line", value=", ''"),
    "an outcome of nobody": call(writer="77"),
    "no bytes in flight": FLIGHT.format(1, 50, ""),
    "nobody's call": FLIGHT.format(78, 1, "a"),
    "no bytes set aside": "INSERT INTO litellm_ledger.rejected VALUES (1, 50, '', 'x')",
    "set aside of nobody": "INSERT INTO litellm_ledger.rejected VALUES (77, 50, 'a', 'x')",
    "added by nobody": "INSERT INTO litellm_ledger.additions VALUES (77, 1, 'a', NULL, 'a')",
    "no bytes added": "INSERT INTO litellm_ledger.additions VALUES (1, 99, 'a', NULL, '')",
    "backwards": GAP,
}


def test_what_no_shipper_writes_is_told_and_stops_nothing(evil: str) -> None:
    run(evil, *STRANGE.values())
    owner = evil.replace("evil@", "postgres@")
    there = Ledger(owner)
    assert there.report(["model"], where=["cost>0.0001"]).total.calls == 15
    assert sum(one.cost is not None and one.cost > 1e-6 for one in there.records()) == 15
    assert not there.verify().ok
    prune(owner, timedelta(days=1))
    Database(owner).erase(Person(["user=a"]), who="ops", why="t")


@pytest.mark.parametrize("name", ["nobody's call", "set aside of nobody", "added by nobody"])
def test_a_row_of_nobody_is_seen(database_url: str, name: str) -> None:
    assert Ledger(database_url).verify().ok
    run(database_url, STRANGE[name])
    assert not Ledger(database_url).verify().ok


def test_outcomes_that_nothing_beats_and_that_count_nowhere_are_seen(evil: str) -> None:
    run(evil, BEATEN)
    (writer,) = Ledger(evil).verify().writers
    assert "3 outcomes count nowhere" in writer.problems[0].detail


SUMS = "UPDATE litellm_ledger.rollup_15m SET {}"


@pytest.mark.parametrize(
    "forged",
    [
        SUMS.format("pico = 2 * pico"),
        SUMS.format("quarter = quarter + 96"),
        SUMS.format("pico = 'NaN'"),
        SUMS.format("pico = 'Infinity'"),
        "UPDATE litellm_ledger.rollup_marks SET rolled = rolled - 2",
        "DELETE FROM litellm_ledger.rollup_15m",
        "INSERT INTO litellm_ledger.rollup_beaten VALUES (1, '', 2)",
        "UPDATE litellm_ledger.writers SET cost_picousd = 'NaN'",
        "UPDATE litellm_ledger.batches SET cost_picousd = '-Infinity'",
    ],
)
def test_sums_that_are_not_those_of_the_outcomes_are_seen(
    module_database_url: str, tmp_path: Path, forged: str
) -> None:
    url = module_database_url
    if not Ledger(url).verify().writers:
        load(url, filled(tmp_path / "usage").root, lines=8)
        roll(url)
    assert not seen(url, "SELECT")
    assert seen(url, forged)


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_a_sum_that_is_no_number_is_an_error_that_says_what_to_do(evil: str, value: str) -> None:
    run(evil, SUMS.format(f"pico = '{value}'"))
    with pytest.raises(LedgerPathError, match=r"no number.*database rebuild"):
        Ledger(evil).report([])


def seen(url: str, change: str) -> bool:
    """Whether ``verify`` sees a change, which is undone."""

    async def work() -> bool:
        connection = await connect(url)
        try:
            async with connection.transaction():
                await connection.execute(change)
                found = await proof._counted(connection)
                raise _UndoneError(found)
        except _UndoneError as undone:
            (found,) = undone.args

            class Here:
                def ask(self, question: Any) -> Any:
                    return found

            return not proof.verify(Here(), url, ()).ok  # type: ignore[arg-type]
        finally:
            await connection.close()

    return asyncio.run(work())


class _UndoneError(Exception):
    pass


@pytest.mark.parametrize("absolute", [True, False])
def test_a_name_of_a_writer_leads_no_file_elsewhere(
    evil: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absolute: bool
) -> None:
    room, target = tmp_path / "room", tmp_path / "home"
    room.mkdir()
    target.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    name = f"{target}/x" if absolute else "../../../../home/x"
    run(evil, WRITER.format(name), call(NEWEST, 1), FLIGHT.format(NEWEST, 2, "a"))
    there = Ledger(evil)
    report = there.report(["model"], where=["cost>0.0001"])
    assert report.total.calls == 15
    assert sum(1 for _ in there.records()) == 15
    assert not there.verify().ok
    assert list(target.iterdir()) == list(room.iterdir()) == []


def test_a_disk_that_is_full_ends_the_question(evil: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, row: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(laying.Laid, "put", full)
    with pytest.raises(LedgerPathError, match="make room"):
        list(Ledger(evil).records())
