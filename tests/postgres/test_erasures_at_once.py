"""What others do to a database between the search of an erasure and its parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_by_hand import NOON, HandMade
from tests.postgres.databases import EACH_OTHER, ask, choose, prune, texts, wrong
from tests.postgres.shipped import load, roll

from litellm_ledger import Ledger
from litellm_ledger._maintenance.additions import Audits, moment_now
from litellm_ledger._maintenance.erase import Erased
from litellm_ledger._maintenance.person import Person
from litellm_ledger._records.audit import Released
from litellm_ledger._storage.filesystem import REAL
from litellm_ledger._warehouse import erasure
from litellm_ledger._warehouse.reading import Database

ALICE, BOB = "user=alice-1", "user=bobby-2"


def filled(root: Path) -> HandMade:
    """Four calls of each of two, in one month, and an audit that let calls of both go."""
    hand = HandMade(root)
    lines = [
        hand.line(
            seq,
            tags={"user": "alice-1" if seq % 2 else "bobby-2", "team": "t"},
            cost=seq,
            status="ok",
        )
        for seq in range(1, 9)
    ]
    hand.sealed(1, 8, lines)
    let = [
        Released(record=hand.id(seq), ts=NOON, picousd=seq, tags={"user": user})
        for seq, user in ((1, "alice-1"), (2, "bobby-2"))
    ]
    audits = Audits("release", moment_now(root), "ops", "not on the bill")
    audits.add(hand.writer, released=let)
    audits.write(root, REAL)
    return hand


def erase(url: str, who: str, *, keep: bool = False) -> Erased:
    return Database(url).erase(Person([who]), who="ops", why="t", keep=keep)


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Has something happen once, after the search and before what was found is taken out."""

    def arm(work: Callable[[], Any]) -> None:
        real = erasure.find

        async def then(*args: Any) -> Any:
            found = await real(*args)
            monkeypatch.setattr(erasure, "find", real)
            await asyncio.to_thread(work)
            return found

        monkeypatch.setattr(erasure, "find", then)

    return arm


def assert_whole(url: str) -> None:
    assert wrong(Ledger(url).verify()) == []
    assert ask(url, EACH_OTHER)[0][:2] == (True, True)


@pytest.mark.parametrize("keep", [False, True])
def test_who_another_run_erased_meanwhile_does_not_come_back(
    database_url: str, tmp_path: Path, between: Any, keep: bool
) -> None:
    load(database_url, filled(tmp_path).root)
    roll(database_url)
    between(lambda: erase(database_url, BOB, keep=keep))
    assert erase(database_url, ALICE, keep=keep).marks == ()
    after = texts(database_url)
    assert b"alice-1" not in after
    assert b"bobby-2" not in after
    assert_whole(database_url)


@pytest.mark.parametrize("keep", [False, True])
def test_the_deeds_of_two_runs_for_one_person_count_each_record_once(
    database_url: str, tmp_path: Path, between: Any, keep: bool
) -> None:
    load(database_url, filled(tmp_path).root)
    roll(database_url)
    between(lambda: erase(database_url, ALICE, keep=keep))
    assert erase(database_url, ALICE, keep=keep).marks == ()
    assert sum(one.records for one in Ledger(database_url).verify().erasures) == 4
    assert ask(database_url, "SELECT sum(rewritten)::int FROM litellm_ledger.batches") == [
        (4 if keep else 0,)
    ]
    assert_whole(database_url)


@pytest.mark.parametrize("keep", [False, True])
def test_what_expires_meanwhile_keeps_its_sums_and_no_names(
    database_url: str, tmp_path: Path, between: Any, keep: bool
) -> None:
    load(database_url, filled(tmp_path).root)
    choose(database_url, "user")
    roll(database_url)
    between(lambda: prune(database_url, timedelta()))
    erase(database_url, ALICE, keep=keep)
    assert b"alice-1" not in texts(database_url)
    assert Ledger(database_url).report([]).total.calls == 8
    assert ask(database_url, "SELECT sum(rewritten)::int FROM litellm_ledger.batches") == [(0,)]
    assert Ledger(database_url).verify().erasures[0].records == 0
    assert_whole(database_url)


def test_what_a_shipper_brings_meanwhile_goes_too(
    database_url: str, tmp_path: Path, between: Any
) -> None:
    hand = filled(tmp_path)
    load(database_url, hand.root)
    next_ones = [hand.line(seq, tags={"user": "alice-1"}, cost=1, status="ok") for seq in (9, 10)]

    def ships() -> None:
        hand.sealed(9, 10, next_ones)
        load(database_url, hand.root)

    between(ships)
    done = erase(database_url, ALICE)
    assert (done.records, done.waiting, done.marks) == (6, 0, ())
    assert b"alice-1" not in texts(database_url)
    assert_whole(database_url)


def test_what_a_shipper_never_ceases_to_bring_has_to_wait(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = filled(tmp_path)
    load(database_url, hand.root)
    real, seq = erasure.find, 9

    async def then(*args: Any) -> Any:
        nonlocal seq
        found = await real(*args)
        hand.sealed(seq, seq, [hand.line(seq, tags={"user": "alice-1"}, cost=1, status="ok")])
        await asyncio.to_thread(load, database_url, hand.root)
        seq += 1
        return found

    monkeypatch.setattr(erasure, "find", then)
    done = erase(database_url, ALICE)
    assert (done.records, done.waiting > 0, done.done) == (4 + seq - 11, True, False)
    monkeypatch.undo()
    assert erase(database_url, ALICE).done
    assert b"alice-1" not in texts(database_url)
    assert_whole(database_url)
