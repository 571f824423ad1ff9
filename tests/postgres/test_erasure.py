"""Erasing a person from a database: as from a directory, and no byte of a mark is left there."""

from __future__ import annotations

import asyncio
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_by_hand import NOON, HandMade
from tests.postgres.databases import (
    EACH_OTHER,
    answers,
    ask,
    choose,
    command,
    prune,
    run,
    texts,
    wrong,
)
from tests.postgres.shipped import ledger, load, roll
from tests.postgres_server import Server

from litellm_ledger import Ledger
from litellm_ledger._maintenance.erase import erase as erase_here
from litellm_ledger._maintenance.person import Person
from litellm_ledger._warehouse import erasure
from litellm_ledger._warehouse.reading import Database

PERSON = [f"user=user-{number}" for number in (13, 27, 31)]


def on_disk(server: Server, oid: int) -> bytes:
    """All that is in the files of a database."""
    return b"".join(path.read_bytes() for path in (server.data / "base" / str(oid)).iterdir())


def lines_of(url: str) -> list[Any]:
    """Every record, without the order of its tags."""
    return sorted((one.id, str(one)) for one in Ledger(url).records())


@pytest.mark.parametrize("keep", [False, True])
def test_a_database_and_its_directory_answer_the_same_afterwards(
    database_url: str, tmp_path: Path, keep: bool
) -> None:
    root = ledger(tmp_path, 300)
    load(database_url, root, lines=90)
    roll(database_url)
    other = tmp_path / "copy"
    shutil.copytree(root, other)
    there = Database(database_url)
    looked = there.erase(Person(PERSON))
    done = there.erase(Person(PERSON), who="ops", why="ticket 4711", keep=keep)
    assert (looked.records, looked.cost) == (done.records, done.cost)
    assert done.records > 2
    assert done.marks == ()
    here = erase_here(root, Person(PERSON), who="ops", why="ticket 4711", keep=keep)
    assert (here.calls, here.cost) == (done.calls, done.cost)
    assert answers(database_url) == answers(root)
    assert lines_of(database_url) == lines_of(str(root))
    after = texts(database_url)
    assert not any(one.partition("=")[2].encode() in after for one in PERSON)
    assert b"user-" in after
    verified = Ledger(database_url).verify(against=[root])
    assert wrong(verified) == []
    assert verified.compared is not None
    assert verified.compared.ok
    assert [(one.records, one.kept, one.why) for one in verified.erasures] == [
        (done.records, keep, "ticket 4711")
    ]
    again = there.erase(Person(PERSON), who="ops", why="ticket 4711", keep=keep)
    assert again.nothing
    # The copy was never erased from: it is named, and nothing of it is shipped again.
    load(database_url, other)
    assert texts(database_url) == after
    named = Ledger(database_url).verify(against=[other])
    assert wrong(named) == []
    assert named.compared is not None
    assert (named.compared.only_erased, named.compared.not_erased) == (done.calls, 0)
    assert not named.ok
    roll(database_url)
    assert answers(database_url) == answers(root)


@pytest.mark.parametrize("keep", [False, pytest.param(True, marks=pytest.mark.matrix)])
def test_who_is_erased_where_it_was_written_alone_is_named(
    database_url: str, tmp_path: Path, keep: bool
) -> None:
    root = ledger(tmp_path, 200)
    load(database_url, root, lines=90)
    done = erase_here(root, Person(PERSON), who="ops", why="t", keep=keep)
    named = Ledger(database_url).verify(against=[root])
    assert wrong(named) == []
    assert named.compared is not None
    assert named.compared.not_erased == done.calls > 0
    assert not named.ok
    status, text = command("verify", database_url, "--against", str(root))
    assert (status, "NOT ERASED" in text, "on this URL" in text) == (1, True, True)
    how = ["--yes", *(["--keep-amounts"] if keep else [])]
    how += [word for one in PERSON for word in ("--where", one)]
    status, text = command("erase", database_url, *how)
    assert (status, "VACUUM (FULL, ANALYZE) litellm_ledger." in text) == (0, True), text
    found = Ledger(database_url).verify(against=[root])
    assert wrong(found) == []
    assert found.compared is not None
    assert found.compared.ok


def odd(root: Path) -> HandMade:
    """A person everywhere: in flight, marked, set aside, unsettled, without a time."""
    hand = HandMade(root)
    tags = {"user": "mallory@x", "team": "a"}
    running = {"kind": "started", "operation": hand.id(1), "attempt": 1, "tags": tags}
    lines = [
        hand.line(1, **running),
        hand.line(2, tags=tags, cost=1, status="ok", meta={"mallory@x": 1}),
        hand.line(3, tags={**tags, "n": "\0"}, cost=2, status="ok", content={"said": "mallory@x"}),
        hand.line(4, tags=tags, ts=None, cost=4, status="ok", call_id="c-4"),
        hand.line(5, tags={"user": "b"}, cost=8, status="ok", operation="op", attempt=1),
        hand.line(6, tags=tags, cost=16, status="unsettled", operation=hand.id(7), attempt=1),
        hand.line(7, tags=tags, cost=32, status="ok", operation=hand.id(7), call_id="c-7"),
        hand.line(8, tags=tags, cost=64, status="ok", model="of mallory@x"),
    ]
    hand.sealed(1, 8, lines)
    return hand


def test_every_table_is_without_the_person(
    postgres: Server, database_url: str, tmp_path: Path
) -> None:
    hand = odd(tmp_path / "usage")
    load(database_url, hand.root, lines=3)
    roll(database_url)
    extra = hand.line(9, tags={"user": "mallory@x"}, cost=128)
    scope = "INSERT INTO litellm_ledger.budget_{} VALUES ('c', 'user={}', {})"
    run(
        database_url,
        "UPDATE litellm_ledger.writers SET shipped = 9, rejected = 1, closed = false",
        f"INSERT INTO litellm_ledger.rejected SELECT writer_id, 9, '\\x{extra.hex()}', 'x' "
        "FROM litellm_ledger.writers",
        "INSERT INTO litellm_ledger.batches SELECT writer_id, 9, 9, 0, 0, 0, 0, 0, 1, 0, '' "
        "FROM litellm_ledger.writers",
        scope.format("scopes", "mallory@x", "'b', 'usd'"),
        scope.format("windows", "mallory@x", "1, '2020-01-01', 0, 0"),
        "INSERT INTO litellm_ledger.leases VALUES ('c', 'user=mallory@x', 1, 'w')",
        "INSERT INTO litellm_ledger.rollup_tags (tag_name, chosen, distinct_values, outcomes) "
        "VALUES ('user', true, 1, 1) ON CONFLICT (tag_name) DO UPDATE SET chosen = true",
    )
    roll(database_url)
    assert texts(database_url).count(b"mallory@x") > 12
    there, person = Database(database_url), Person(["user=mallory@x"])
    waits = there.erase(person, who="ops", why="t")
    assert (waits.records, waits.waiting, waits.done) == (7, 1, False)
    assert [one.file for one in waits.marks] == ["litellm_ledger.in_flight"]
    run(database_url, "UPDATE litellm_ledger.writers SET updated_at = now() - interval '25 hours'")
    done = there.erase(person, who="ops", why="t")
    assert (done.records, done.waiting, done.marks) == (1, 0, ())
    assert b"mallory" not in texts(database_url)
    report = Ledger(database_url).report([])
    assert (report.total.calls, report.total.cost, report.in_flight) == (1, 8, 0)
    found = Ledger(database_url).verify()
    assert wrong(found) == []
    assert there.erase(person, who="ops", why="t").nothing
    deeds = ask(database_url, "SELECT did, detail::text FROM litellm_ledger.deeds")
    assert {one[0] for one in deeds} == {"erase"}
    # What is on the disk goes with the statement that the command prints.
    ((oid,),) = ask(database_url, "SELECT oid FROM pg_database WHERE datname = current_database()")
    run(database_url, "CHECKPOINT")
    assert b"mallory" in on_disk(postgres, oid)
    tables = ", ".join({*waits.tables, *done.tables})
    run(database_url, f"VACUUM (FULL, ANALYZE) {tables}", "CHECKPOINT")
    assert b"mallory" not in on_disk(postgres, oid)


def test_ids_name_a_person_too_and_why_must_not(database_url: str, tmp_path: Path) -> None:
    hand = odd(tmp_path / "usage")
    load(database_url, hand.root)
    there = Database(database_url)
    assert there.erase(Person(["call_id=c-4"])).records == 1
    assert there.erase(Person(["call_id=c-7"])).records == 2  # and the one that it beats
    assert there.erase(Person(["operation=op"])).records == 1
    assert there.erase(Person([f"operation={hand.id(7)}"])).records == 2
    assert there.erase(Person(["user=mallory@x", "team=b"])).nothing
    with pytest.raises(ValueError, match="--why has a mark"):
        there.erase(Person(["user=mallory@x"]), who="ops", why="Mallory@x asked")
    status, text = command("erase", database_url, "--where", "user=mallory@x", "--dry-run")
    assert (status, "would be erased from" in text) == (0, True), text
    status, text = command("erase", database_url, "--where", "usr=mallory@x", "--yes")
    assert (status, "usr" in text) == (2, True), text
    assert there.erase(Person(["user=nobody"]), who="ops", why="t").nothing
    assert ask(database_url, "SELECT count(*) FROM litellm_ledger.deeds") == [(0,)]


def test_what_has_expired_keeps_its_amounts_and_not_the_value(
    database_url: str, tmp_path: Path
) -> None:
    root = ledger(tmp_path, 120)
    load(database_url, root)
    choose(database_url, "user")
    roll(database_url)
    prune(database_url, timedelta(days=350))
    before = Ledger(database_url).report(["user"])
    ((gone,),) = ask(
        database_url,
        "SELECT max(tag_value) FROM litellm_ledger.expired_sums WHERE tag_name = 'user'",
    )
    assert gone in {row.group["tag:user"] for row in before.rows}
    done = Database(database_url).erase(Person([f"user={gone}"]), who="ops", why="t")
    after = Ledger(database_url).report(["user"])
    assert after.total.calls == before.total.calls - done.calls
    assert after.total.cost == before.total.cost - done.cost * type(before.total.cost)("1e-12")
    assert gone not in {row.group["tag:user"] for row in after.rows}
    assert wrong(Ledger(database_url).verify()) == []
    assert done.marks == ()


def test_marks_are_seen_however_they_are_written(database_url: str, tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    values = ['o"xyz', "a\\bcd", "müller", "new\nline", "nul\0abc", "CaSe"]
    for seq, value in enumerate(values):
        first = seq * 3 + 1
        said = value.upper() if value.isascii() else value  # case is that of ASCII
        lines = [
            hand.line(first, tags={"user": value}, cost=1, status="ok"),
            hand.line(first + 1, tags={"x": f"to {said}"}, cost=1, status="ok"),
            hand.line(first + 2, tags={"y": "z"}, cost=1, status="ok", meta={"said": value}),
        ]
        hand.sealed(first, first + 2, lines)
    load(database_url, hand.root)
    for value in values:
        done = Database(database_url).erase(Person([f"user={value}"]), who="ops", why="t")
        assert done.records == 1
        times = {one.file: one.times for one in done.marks}
        assert times.get("litellm_ledger.calls", 0) >= 2, (value, times)


def test_a_value_that_is_told_with_a_mark_goes_from_what_has_expired(
    database_url: str, tmp_path: Path
) -> None:
    hand = HandMade(tmp_path / "usage")
    hand.filled(*({"tags": {"user": one}, "cost": 1, "status": "ok"} for one in ("n\0bc", "bob")))
    load(database_url, hand.root)
    choose(database_url, "user")
    roll(database_url)
    assert prune(database_url, timedelta()).records == 2
    Database(database_url).erase(Person(["user=n\0bc"]), who="ops", why="t")
    values = "SELECT tag_value FROM litellm_ledger.expired_sums WHERE tag_value IS NOT NULL"
    assert ask(database_url, values) == [("bob",)]


def test_the_planner_forgets_them_too(database_url: str, tmp_path: Path) -> None:
    hand = HandMade(tmp_path / "usage")
    tags = [{"user": "mallory@x"}] * 150 + [{"user": "bob"}] * 50
    times = [NOON] * 100 + [NOON + timedelta(days=31)] * 100
    given = zip(tags, times, strict=True)
    hand.filled(*({"tags": one, "ts": ts, "cost": 1, "status": "ok"} for one, ts in given))
    load(database_url, hand.root)
    roll(database_url)
    known = (
        "SELECT tablename || inherited FROM pg_stats WHERE schemaname = 'litellm_ledger' "
        "AND concat(most_common_vals::text, histogram_bounds::text) ~ 'mallory'"
    )
    run(database_url, "ANALYZE")
    assert len(ask(database_url, known)) > 2  # a month, all months, a month of nobody else
    done = Database(database_url).erase(Person(["user=mallory@x"]), who="ops", why="t")
    assert done.records == 150
    (version,) = ask(database_url, "SHOW server_version_num")[0]
    empty = [] if int(version) >= 180_000 else [("calls_202501false",)]  # see docs/postgres.md
    assert ask(database_url, known) == empty


def test_beside_shippers_and_leaders(database_url: str, tmp_path: Path) -> None:
    root = ledger(tmp_path, 160)
    there, person = Database(database_url), Person(PERSON)

    async def race() -> None:
        ended = asyncio.Event()

        async def erases() -> None:
            while not ended.is_set():
                await asyncio.to_thread(there.erase, person, who="ops", why="t")

        async def leads() -> None:
            while not ended.is_set():
                await asyncio.to_thread(roll, database_url, 90)

        async def ships() -> None:
            shipping = (asyncio.to_thread(load, database_url, root, lines=21) for _ in range(2))
            await asyncio.gather(*shipping)
            ended.set()

        await asyncio.gather(ships(), erases(), leads())

    asyncio.run(race())
    there.erase(person, who="ops", why="t")
    erase_here(root, person, who="ops", why="t")
    roll(database_url)
    assert answers(database_url) == answers(root)
    found = Ledger(database_url).verify(against=[root])
    assert wrong(found) == []
    assert not any(one.partition("=")[2].encode() in texts(database_url) for one in PERSON)


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("keep", [False, pytest.param(True, marks=pytest.mark.matrix)])
def test_killed_between_steps_the_next_run_ends_it(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    root = ledger(tmp_path, 240)
    load(database_url, root, lines=50)
    roll(database_url)
    erase_here(root, Person(PERSON), who="ops", why="t", keep=keep)
    monkeypatch.setattr(erasure, "_AT_ONCE", 1)
    names = ["freeze", "note_deed", *(() if keep else ("remove",))]
    there = Database(database_url)
    for name in names:
        done = getattr(erasure, name)
        times = [0]

        async def die(*args: Any, done: Any = done, times: Any = times, **how: Any) -> Any:
            result = await done(*args, **how)
            times[0] += 1
            if times[0] > 1:
                raise _KilledError
            return result

        with monkeypatch.context() as patch:
            patch.setattr(erasure, name, die)
            with pytest.raises(_KilledError):
                there.erase(Person(PERSON), who="ops", why="t", keep=keep)
        (one,) = ask(database_url, EACH_OTHER)
        assert all(one), (name, one)
    there.erase(Person(PERSON), who="ops", why="t", keep=keep)
    assert answers(database_url) == answers(root)
