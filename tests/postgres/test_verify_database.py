"""``verify postgresql://…``: what is missing, changed or doubled is seen; a loss is a number."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_by_hand import HandMade
from tests.postgres.databases import command, run
from tests.postgres.shipped import filled, load

from litellm_ledger import Ledger


@pytest.fixture
def shipped(database_url: str, tmp_path: Path) -> tuple[str, Path]:
    root = filled(tmp_path / "usage").root
    load(database_url, root, lines=8)
    return database_url, root


def test_what_is_whole_is_whole(shipped: tuple[str, Path]) -> None:
    url, root = shipped
    found = Ledger(url).verify()
    assert found.ok
    assert found.complete
    assert found.writers[0].found == 30
    beside = Ledger(url).verify(against=[root])
    assert beside.ok
    assert beside.compared is not None
    assert beside.compared.same == beside.compared.batches == 4
    status, text = command("verify", url, "--against", str(root))
    assert (status, "4 of 4 batches have the same hash" in text) == (0, True), text


SABOTAGE = {
    "a row is deleted": "DELETE FROM litellm_ledger.calls WHERE seq = 4",
    "a cost is changed": "UPDATE litellm_ledger.calls SET cost_picousd = 1 WHERE seq = 4",
    "a row is doubled": (
        "INSERT INTO litellm_ledger.calls (writer_id, month, seq, ts) "
        "SELECT writer_id, 0, seq, ts FROM litellm_ledger.calls WHERE seq = 4 AND month <> 0"
    ),
    "a row is made up": (
        "INSERT INTO litellm_ledger.calls (writer_id, month, seq, ts) "
        "SELECT writer_id, 0, 31, ts FROM litellm_ledger.calls WHERE seq = 4"
    ),
    "a batch is gone": "DELETE FROM litellm_ledger.batches WHERE first = 9",
    "a batch says less": (
        "UPDATE litellm_ledger.batches SET usage = usage - 1, started = started + 1 WHERE first = 9"
    ),
    "a batch costs more": (
        "UPDATE litellm_ledger.batches SET cost_picousd = cost_picousd + 1 WHERE first = 9"
    ),
}
ONLY_AGAINST = {
    "tokens are changed": "UPDATE litellm_ledger.calls SET input_tokens = 7 WHERE seq = 4",
    "a tag is changed": 'UPDATE litellm_ledger.calls SET tags = \'{"user": "b"}\' WHERE seq = 4',
    "a hash is changed": "UPDATE litellm_ledger.batches SET sha256 = sha256('x') WHERE first = 9",
}


@pytest.mark.parametrize("what", [*SABOTAGE, *ONLY_AGAINST])
def test_a_saboteur_is_seen(shipped: tuple[str, Path], what: str) -> None:
    url, root = shipped
    # Where the partition of a month is missing, all are of month 0.
    run(url, {**SABOTAGE, **ONLY_AGAINST}[what])
    against: list[Any] = [root] if what in ONLY_AGAINST else []
    found = Ledger(url).verify(against=against)
    assert not found.ok, what
    assert found.writers[0].problems
    flags = ["--against", str(root)] if against else []
    assert command("verify", url, *flags)[0] == 1
    if against:
        assert Ledger(url).verify().ok  # by itself it cannot tell


def test_a_machine_that_burned_down_is_a_number(database_url: str, tmp_path: Path) -> None:
    hand = filled(tmp_path / "usage")
    load(database_url, hand.root)
    run(
        database_url,
        "UPDATE litellm_ledger.writers SET accepted = shipped + 12, closed = false",
    )
    shutil.rmtree(hand.root)
    ledger = Ledger(database_url)
    behind = ledger.unshipped()
    assert behind is not None
    assert (behind.records, behind.writers) == (12, 1)
    found = ledger.verify()
    assert found.writers[0].unshipped == 12
    assert "12 more accepted and not shipped yet" in found.writers[0].sentence()
    report = ledger.report(["model"])
    assert report.is_floor
    assert any(
        note.startswith("Not shipped yet: 12 records of 1 writer") for note in report.notes()
    )
    assert report.to_dict()["unshipped"]["records"] == 12
    for args in (["calls"], ["sql", "SELECT 1"], ["report"], ["records"]):
        assert "Not shipped yet: 12 records" in command(*args, database_url)[1], args


def test_a_database_may_know_more_than_the_ledger(shipped: tuple[str, Path]) -> None:
    url, root = shipped
    (segment,) = (root / "segments").iterdir()
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[3] = b"x" * (len(lines[3]) - 1) + b"\n"  # damaged where it was written
    segment.write_bytes(b"".join(lines))
    found = Ledger(url).verify(against=[root])
    assert found.ok
    assert found.compared is not None
    assert (found.compared.same, found.compared.beyond) == (3, 1)
    assert (
        "1 record here that the ledger has no more"
        in command("verify", url, "--against", str(root))[1]
    )


def test_a_line_of_another_program_that_is_no_record_is_damage_and_no_change(
    database_url: str, tmp_path: Path
) -> None:
    hand = HandMade(tmp_path / "usage")
    lines = [hand.line(1, cost=1), hand.foreign(2, '"latency_ms":1e400'), hand.line(3, cost=1)]
    hand.sealed(1, 3, lines)
    load(database_url, hand.root)
    found = Ledger(database_url).verify(against=[hand.root])
    assert [one.what for writer in found.writers for one in writer.problems] == ["damaged"]
    assert found.compared is not None
    assert found.compared.same == 1
