"""The last outcomes are found at the ends of the files, whatever else is in them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from heapq import nlargest
from itertools import product
from pathlib import Path

import pytest
from tests.generated import make_ledger
from tests.ledger_by_hand import NOON, OTHER_WRITER, HandMade

from litellm_ledger import Ledger, UsageRecord
from litellm_ledger._aggregates.selection import Selection
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._reading import last_written as _last_written
from litellm_ledger._reading.last_written import ended, last_written

LIMITS = [1, 3, 10, 200]


def reckoned(every: Iterable[UsageRecord], limit: int, selection: Selection) -> list[UsageRecord]:
    """Of each writer the last numbers, of these the last to end."""
    writers: dict[str, list[UsageRecord]] = defaultdict(list)
    for record in every:
        if selection.fits(record):
            writers[str(record.id)[:33]].append(record)
    last = [record for records in writers.values() for record in records[-limit:]]
    return sorted(nlargest(limit, last, key=ended), key=ended)


def ids(found: list[UsageRecord] | None) -> list[str | None]:
    assert found is not None, "it gave up"
    return [record.id for record in found]


def test_they_are_no_older_than_the_last_of_each_writer_and_count_by_every_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_last_written, "_BLOCK", 64)  # less than a line: no more than is asked for
    make_ledger(tmp_path, 3_000, segment=100_000)
    every = {record.id: record for record in Ledger(tmp_path).records()}
    selections = Selection(), Selection(where={"status": "error"})
    for selection, limit in product(selections, LIMITS):
        found = last_written(tmp_path, selection, limit)
        least = reckoned(every.values(), limit, selection)
        assert len(set(ids(found))) == len(least)
        for record, other in zip(found or (), least, strict=True):
            assert record == every[record.id]
            assert selection.fits(record)
            assert ended(record) >= ended(other), "one that ended later was left out"


def test_only_the_ends_of_the_files_are_read(tmp_path: Path) -> None:
    for writer in ("20250101T000000Z-00000000000000aa", OTHER_WRITER):
        hand = HandMade(tmp_path, writer)
        hand.sealed(1, 2_000)
        hand.open(2_001, hand.lines(2_001, 4_000), tail=b'{"v":1,"half a line')
    most = 2 * 16 * 1024
    assert len(ids(last_written(tmp_path, Selection(), 3, most=most))) == 3
    assert last_written(tmp_path, Selection(), 500, most=most) is None, "more than it may read"
    assert last_written(tmp_path, Selection(where={"model": "none"}), 3, most=most) is None


def test_a_line_longer_than_a_block_is_read_whole(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.open(1, [hand.line(n, meta={"long": "x" * 50_000}) for n in (1, 2, 3)])
    assert ids(last_written(tmp_path, Selection(), 2)) == [hand.id(2), hand.id(3)]


def test_an_unsettled_outcome_that_has_a_real_one_is_not_among_them(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 4, [hand.started(1), hand.started(2), hand.outcome(3, of=1), hand.line(4)])
    lost = [hand.outcome(5, of=1, status="unsettled"), hand.outcome(6, of=2, status="unsettled")]
    hand.sealed(5, 6, lost)
    assert ids(last_written(tmp_path, Selection(), 2)) == [hand.id(4), hand.id(6)]


def test_segments_that_overlap_are_read_together(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 10)
    hand.sealed(4, 5)
    hand.open(5, hand.lines(5, 7))
    assert ids(last_written(tmp_path, Selection(), 3)) == [hand.id(n) for n in (8, 9, 10)]


def test_what_ended_last_is_last_and_what_has_no_time_first(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    long = hand.line(2, ts=NOON, latency_ms=60_000.0)
    short = hand.line(3, ts=NOON + timedelta(seconds=1), latency_ms=1.0)
    hand.sealed(1, 4, [hand.line(1), long, short, hand.line(4, ts=None)])
    assert ids(last_written(tmp_path, Selection(), 4)) == [hand.id(n) for n in (4, 1, 3, 2)]


def test_the_archive_is_asked_only_if_the_newest_may_be_there(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 2)
    assert compact(tmp_path).segments == 1
    assert last_written(tmp_path, Selection(), 1) is None
    (file,) = (tmp_path / "archive").iterdir()
    os.utime(file, (NOON.timestamp() + 60,) * 2)
    hand.open(3, [hand.line(3), hand.line(4, ts=NOON + timedelta(hours=1))])
    assert ids(last_written(tmp_path, Selection(), 1)) == [hand.id(4)]
    assert last_written(tmp_path, Selection(), 2) is None
