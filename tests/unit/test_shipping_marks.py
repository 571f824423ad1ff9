"""What was shipped is noted beside the ledger, and nothing else of it is removed or moved."""

from __future__ import annotations

from datetime import UTC, date, datetime
from math import inf
from pathlib import Path

from tests.ledger_by_hand import OTHER_WRITER, WRITER, HandMade

from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.prune import prune
from litellm_ledger._maintenance.retention import Retention, age
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._storage.shipping_marks import GRACE, Mark, note, places, shipped_by

TO = "postgresql://db.example/ledger"
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def test_what_was_shipped_is_safe_a_day_later() -> None:
    mark, now = Mark(), 1e9
    mark = mark.moved(5, now)
    assert mark.safe_at(now) == 0
    for hour in range(1, 60):
        mark = mark.moved(5 + hour, now + 3_600 * hour)
        safe = mark.safe_at(now + 3_600 * hour)
        assert safe <= max(0, 5 + hour - 24)  # a day at least
        assert safe >= 5 + hour - 49 or hour < 24  # and two at most
    assert mark.safe_at(now + 3_600 * 59 + GRACE) >= 5


def test_a_database_that_was_put_back_takes_the_word_back() -> None:
    mark = Mark().moved(10, 1e9).moved(10, 1e9 + GRACE)
    assert mark.safe_at(1e9 + GRACE) == 10
    mark = mark.moved(4, 1e9 + GRACE + 1)
    assert mark.safe_at(1e9 + 9 * GRACE) == 4


def test_a_clock_that_was_set_back_makes_nothing_safe() -> None:
    mark = Mark().moved(10, 1e9).moved(10, 1e9 - 5 * GRACE)
    assert mark.safe_at(1e9 - 5 * GRACE) == 0
    assert mark.safe_at(1e9 - 3 * GRACE) == 10


def test_marks_are_joined_and_forgotten_with_their_writers(tmp_path: Path) -> None:
    assert places(tmp_path) == []
    assert shipped_by(tmp_path, 0)(WRITER) == inf
    note(tmp_path, TO, {WRITER: 5}, now=1e9)
    note(tmp_path, TO, {OTHER_WRITER: 7}, now=1e9 + 1, error="no route to host")
    (place,) = places(tmp_path)
    assert (place.mark.to, place.mark.at, place.mark.error) == (TO, 1e9, "no route to host")
    assert {writer: mark.shipped for writer, mark in place.writers.items()} == {
        WRITER: 5,
        OTHER_WRITER: 7,
    }
    assert shipped_by(tmp_path, 1e9 + GRACE)(WRITER) == 5
    note(tmp_path, TO, {WRITER: 6}, now=1e9 + GRACE, error="again")
    (place,) = places(tmp_path)
    assert (place.mark.error, place.writers[WRITER].shipped) == ("again", 6)
    assert shipped_by(tmp_path, 1e9 + GRACE)(WRITER) == 5
    note(tmp_path, "postgresql://other/x", {WRITER: 3}, now=1e9)  # two places: at both
    assert shipped_by(tmp_path, 1e9 + GRACE)(WRITER) == 3
    assert shipped_by(tmp_path, 1e9 + 2 * GRACE)(OTHER_WRITER) == 0
    note(tmp_path, TO, {}, now=1e9, there=[WRITER])
    assert set(places(tmp_path)[-1].writers) | set(places(tmp_path)[0].writers) == {WRITER}


def test_a_file_that_says_nothing_holds_everything_up(tmp_path: Path) -> None:
    note(tmp_path, TO, {WRITER: 5}, now=1e9)
    places(tmp_path)[0].path.write_bytes(b"rubbish")
    assert shipped_by(tmp_path, 1e12)(WRITER) == 0


def filled(root: Path) -> HandMade:
    hand = HandMade(root)
    for first in (1, 4, 7):
        hand.sealed(first, first + 2)
    seal(root)
    return hand


def test_prune_removes_what_is_shipped_for_a_day_and_says_what_it_kept(tmp_path: Path) -> None:
    filled(tmp_path)
    rule = Retention(keep=age("30d"))
    note(tmp_path, TO, {WRITER: 6}, now=NOW.timestamp() - GRACE + 1)
    done = prune(tmp_path, rule, who="t", why="t", now=NOW)
    assert (done.segments, done.unshipped) == (0, 3)
    done = prune(tmp_path, rule, who="t", why="t", now=datetime(2026, 6, 2, tzinfo=UTC))
    assert (done.records, done.unshipped) == (6, 1)


def test_compact_moves_what_is_shipped_for_a_day(tmp_path: Path) -> None:
    filled(tmp_path)
    note(tmp_path, TO, {WRITER: 6}, now=NOW.timestamp() - 2 * GRACE)
    assert compact(tmp_path, until=date(2030, 1, 1)).segments == 2
