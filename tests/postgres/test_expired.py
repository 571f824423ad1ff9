"""Outcomes whose rows retention took away: their sums are in every total, as far as they tell."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from tests.ledger_by_hand import NOON
from tests.postgres.databases import prune, run
from tests.postgres.shipped import filled, load, roll

from litellm_ledger import Ledger


def test_sums_stay_and_the_rest_is_told(database_url: str, tmp_path: Path) -> None:
    root = filled(tmp_path / "usage", 60).root
    load(database_url, root)
    roll(database_url)
    here, there = Ledger(root), Ledger(database_url)
    assert prune(database_url, timedelta(days=1)).records == 30
    for by in ([], ["model"], ["day", "status"], ["user"]):
        expected, found = here.report(by, tz="Europe/Berlin"), there.report(by, tz="Europe/Berlin")
        assert (found.rows, found.total) == (expected.rows, expected.total), by
        assert (found.aggregated, found.pruned) == (30, 0)
        assert found.pruned_until is not None
    assert any("only aggregates are kept" in note for note in there.report([]).notes())
    # Not by two tags, and not where the time begins within a quarter of an hour of them.
    assert there.report(["user", "b"]).pruned == 30
    late = there.report([], since=NOON - timedelta(minutes=1), until=NOON + timedelta(minutes=1))
    assert (late.total.calls, late.pruned) == (0, 30)
    assert there.report([], since=NOON + timedelta(hours=1)).pruned == 0
    assert there.calls().matched == 0
    gone = there.pruned()
    assert gone is not None
    assert gone.records == 30
    assert there.verify().ok
    run(database_url, "UPDATE litellm_ledger.gaps SET usage = usage - 1")
    assert not there.verify().ok
