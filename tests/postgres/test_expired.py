"""Outcomes whose rows retention took away: their sums are in every total, as far as they tell."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from tests.ledger_by_hand import NOON
from tests.postgres.shipped import load, roll
from tests.postgres.test_verify_database import filled, run

from litellm_ledger import Ledger

KEYS = "model, provider, call, status, response_model, error, usage_source, cost_source"
SUMS = (
    "cache_hits, cache_read_tokens, cache_write_tokens, calls, input_tokens, output_tokens, pico, "
    "priced, reasoning_tokens, retries, saved, total_tokens"
)
TAKE_ALL = (
    f"""
    INSERT INTO litellm_ledger.expired_sums (quarter, {KEYS}, tag_name, tag_value, {SUMS})
    SELECT quarter, {KEYS}, tag_name, tag_value, {SUMS} FROM litellm_ledger.rollup_15m
    JOIN litellm_ledger.rollup_groups USING (group_id)""",
    """
    INSERT INTO litellm_ledger.expired_months (month, tags, outcomes)
    SELECT 202501, ARRAY(SELECT tag_name FROM litellm_ledger.rollup_tags WHERE chosen),
        (SELECT count(*) FROM litellm_ledger.calls)""",
    """
    INSERT INTO litellm_ledger.gaps (writer_id, first, last, reason, here, usage, cost_picousd)
    SELECT writer_id, 1, shipped, 'expired', true, usage, cost_picousd
    FROM litellm_ledger.writers""",
    "DELETE FROM litellm_ledger.rollup_15m",
    "DELETE FROM litellm_ledger.calls",
    "UPDATE litellm_ledger.writers SET gaps = shipped, usage = 0, started = 0",
)


def test_sums_stay_and_the_rest_is_told(database_url: str, tmp_path: Path) -> None:
    root = filled(tmp_path / "usage", 60).root
    load(database_url, root)
    roll(database_url)
    here, there = Ledger(root), Ledger(database_url)
    run(database_url, *TAKE_ALL)
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
