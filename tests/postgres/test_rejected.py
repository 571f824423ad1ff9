"""Lines that PostgreSQL refuses, afterwards: reports count them, and verify knows them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from tests.ledger_by_hand import HandMade
from tests.postgres.databases import ask, command, prune, run
from tests.shipped import ship

from litellm_ledger import Ledger


def test_what_was_set_aside_counts_and_is_compared_and_stays_with_its_amount(
    database_url: str, tmp_path: Path
) -> None:
    hand = HandMade(tmp_path / "usage")
    lines = [
        hand.line(seq, model="refused" if seq in (4, 5, 8) else "m", cost=seq, status="ok")
        for seq in range(1, 10)
    ]
    hand.sealed(1, 9, lines)
    run(
        database_url,
        "SELECT litellm_ledger.make_partitions('{202501}')",
        "ALTER TABLE litellm_ledger.calls ADD CONSTRAINT no CHECK (model <> 'refused')",
    )
    asyncio.run(ship(database_url, hand.root))
    assert ask(database_url, "SELECT seq FROM litellm_ledger.rejected") == [(4,), (5,), (8,)]
    assert Ledger(database_url).report(["model"]).rows == Ledger(hand.root).report(["model"]).rows
    found = Ledger(database_url).verify(against=[hand.root])
    assert [problem for one in found.writers for problem in one.problems] == []
    assert found.ok
    # Its month goes, and these stay: no sum could take them in.
    gone = prune(database_url, timedelta())
    assert (gone.records, gone.rejected) == (6, 3)
    status, text = command("prune", database_url, "--keep", "2d")
    assert (status, "No rule removes 3 lines that the database refuses" in text) == (0, True), text
    assert Ledger(database_url).report([]).total == Ledger(hand.root).report([]).total
    assert Ledger(database_url).verify(against=[hand.root]).ok
    # One that was changed by hand is seen.
    changed = lines[3].hex().replace(b"refused".hex(), b"revised".hex())
    run(database_url, f"UPDATE litellm_ledger.rejected SET line = '\\x{changed}' WHERE seq = 4")
    found = Ledger(database_url).verify(against=[hand.root])
    assert not found.ok
