"""Reading: order, duplicates, gaps, damage, files renamed under the reader."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from tests.ledger_by_hand import NOON, OTHER_WRITER, WRITER, HandMade, altered, newer, spoil

from litellm_ledger._errors import LedgerPathError, UnsupportedFormat
from litellm_ledger._reading import lines as _reading
from litellm_ledger._reading import listing as _listing
from litellm_ledger._records.layout import LIVE, MANIFESTS, RECOVERY, SEGMENTS, SegmentName
from litellm_ledger._records.line import encode
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._reports.ledger import Ledger


def numbers(hand: HandMade, *kinds: str) -> list[int | None]:
    return [r.seq for r in Ledger(hand.root).records(kinds=kinds or ("usage",))]


def test_records_come_writer_by_writer_and_ascending(hand: HandMade) -> None:
    HandMade(hand.root, OTHER_WRITER).sealed(1, 2)
    hand.open(4, hand.lines(4, 5))
    hand.sealed(1, 3)
    assert [r.id for r in Ledger(hand.root).records()] == [
        *(hand.id(n) for n in range(1, 6)),
        *(f"{OTHER_WRITER}-{n:016d}" for n in (1, 2)),
    ]


def test_a_record_reads_back_as_it_was_written(hand: HandMade) -> None:
    record = UsageRecord(
        id=hand.id(1),
        seq=1,
        ts=NOON,
        model="m",
        input_tokens=3,
        cost=Decimal("0.000000000001"),
        tags={"user": "ä\n"},
    )
    hand.sealed(1, 1, [encode(record)])
    assert list(Ledger(hand.root).records()) == [record]


def test_an_open_segment_is_read_up_to_its_last_line_feed(hand: HandMade) -> None:
    whole = hand.line(3)
    hand.open(1, hand.lines(1, 2), tail=whole[:-1])
    records = Ledger(hand.root).records()
    assert [r.seq for r in records] == [1, 2]
    assert records.problems == []


def test_overlapping_segments_give_each_number_once_and_in_order(hand: HandMade) -> None:
    hand.open(1, hand.lines(1, 6))  # its sync failed; it was never touched again
    hand.sealed(4, 8)
    hand.sealed(6, 7)
    hand.open(9, hand.lines(9, 9))
    assert numbers(hand) == list(range(1, 10))


def test_a_line_damaged_in_one_segment_is_taken_from_its_copy_in_another(hand: HandMade) -> None:
    spoil(hand.sealed(1, 6), line=3)
    hand.sealed(4, 7)
    records = Ledger(hand.root).records()
    assert [r.seq for r in records] == [1, 2, 3, 4, 5, 6, 7]
    assert len(records.problems) == 1


def test_only_segments_that_overlap_are_open_at_the_same_time(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first in range(1, 200, 2):
        hand.sealed(first, first + 1)
    opened = []

    def counting(root: Path, name: SegmentName) -> tuple[BinaryIO, SegmentName]:
        opened.append(_listing.open_segment(root, name)[0])
        assert sum(not file.closed for file in opened) <= 2
        return opened[-1], name

    monkeypatch.setattr(_reading, "open_segment", counting)
    assert numbers(hand) == list(range(1, 201))


def test_damaged_lines_are_passed_over_and_named_by_file_and_offset(hand: HandMade) -> None:
    path = hand.sealed(1, 5)
    length = len(hand.line(1))
    spoil(path, line=1)
    spoil(path, line=2)
    records = Ledger(hand.root).records()
    assert [r.seq for r in records] == [1, 4, 5]
    (problem,) = records.problems
    assert problem.file == f"{SEGMENTS}/{path.name}"
    assert (problem.what, problem.offset, problem.length, problem.lines) == (
        "damaged",
        length,
        2 * length,
        2,
    )


def test_foreign_lines_are_damage_even_when_their_checksum_holds(hand: HandMade) -> None:
    stranger = HandMade(hand.root, OTHER_WRITER)
    hand.sealed(2, 4, [hand.line(2), stranger.line(3), hand.line(1), hand.line(4), b"hello\n"])
    records = Ledger(hand.root).records()
    assert [r.seq for r in records] == [2, 4]
    assert [(p.what, p.lines) for p in records.problems] == [("damaged", 2), ("damaged", 1)]


def test_the_invalid_end_of_an_open_segment_is_called_torn(hand: HandMade) -> None:
    hand.open(1, hand.lines(1, 2), tail=b'{"half":\n')
    records = Ledger(hand.root).records()
    assert [r.seq for r in records] == [1, 2]
    assert [p.what for p in records.problems] == ["torn"]


def test_kinds_are_told_apart(hand: HandMade) -> None:
    hand.sealed(1, 4, [hand.started(1), hand.outcome(2, of=1), hand.gap(3, 4)])
    assert numbers(hand) == [2]
    assert numbers(hand, "started") == [1]
    assert numbers(hand, "started", "usage", "gap") == [1, 2, 3]


def test_a_record_beats_a_gap_that_covers_its_id(hand: HandMade) -> None:
    hand.sealed(1, 9, [hand.line(1), hand.gap(2, 8), hand.line(9)])
    hand.sealed(2, 2)
    hand.sealed(5, 6)
    found = list(Ledger(hand.root).records(kinds=("usage", "gap")))
    assert [r.seq for r in found if r.kind == "usage"] == [1, 2, 5, 6, 9]
    gaps = [(r.id, r.seq, r.gap_until) for r in found if r.kind == "gap"]
    assert gaps == [(hand.id(3), 3, 4), (hand.id(7), 7, 8)]
    assert found[-1].seq == 9


def test_a_gap_wholly_covered_by_records_is_not_told_and_one_told_twice_comes_once(
    hand: HandMade,
) -> None:
    hand.sealed(1, 2, [hand.gap(1, 2)])
    hand.open(1, hand.lines(1, 2))
    hand.sealed(3, 5, [hand.gap(3, 5)])
    hand.open(4, [hand.gap(4, 5)])
    found = Ledger(hand.root).records(kinds=("gap",))
    assert [(r.seq, r.gap_until) for r in found] == [(3, 5)]


@pytest.mark.parametrize("late", [False, True])
def test_a_real_outcome_beats_an_unsettled_one(hand: HandMade, late: bool) -> None:
    real = hand.outcome(3, of=1, status="ok", cost=Decimal(1))
    unsettled = [
        hand.outcome(4, of=1, status="unsettled"),
        hand.outcome(5, of=2, status="unsettled"),
    ]
    if late:
        real = hand.outcome(6, of=1, status="ok", cost=Decimal(1))
        hand.sealed(1, 6, [hand.started(1), hand.started(2), hand.line(3), *unsettled, real])
    else:
        hand.sealed(1, 3, [hand.started(1), hand.started(2), real])
        hand.sealed(4, 5, unsettled)
    found = [r for r in Ledger(hand.root).records() if r.operation]
    assert [(r.operation, r.status) for r in found] == (
        [(hand.id(2), "unsettled"), (hand.id(1), "ok")]
        if late
        else [(hand.id(1), "ok"), (hand.id(2), "unsettled")]
    )


def test_the_outcome_of_another_attempt_does_not_settle(hand: HandMade) -> None:
    lines = [
        hand.line(1, operation=hand.id(1), attempt=1, status="error"),
        hand.line(2, operation=hand.id(1), attempt=2, status="unsettled"),
    ]
    hand.sealed(1, 2, lines)
    assert numbers(hand) == [1, 2]
    hand.sealed(3, 3, [hand.line(3, operation=hand.id(1), attempt=1, status="unsettled")])
    assert numbers(hand) == [1, 2]


def test_since_until_and_where_select(hand: HandMade) -> None:
    hour = timedelta(hours=1)
    hand.sealed(
        1,
        4,
        [
            hand.line(1, ts=NOON - hour, tags={"user": "a"}),
            hand.line(2, ts=NOON, tags={"user": "a"}, model="big"),
            hand.line(3, ts=NOON + hour, tags={"user": "b"}),
            hand.line(4, ts=None),
        ],
    )
    ledger = Ledger(hand.root)
    assert [r.seq for r in ledger.records(since=NOON)] == [2, 3]
    assert [r.seq for r in ledger.records(until=NOON)] == [1]
    assert [r.seq for r in ledger.records(since=NOON, until=NOON + hour)] == [2]
    assert [r.seq for r in ledger.records(where={"tag:user": "a"})] == [1, 2]
    assert [r.seq for r in ledger.records(where={"tag:user": "a", "model": "m"})] == [1]
    assert [r.seq for r in ledger.records(where={"tag:user": "(none)"})] == [4]
    assert [r.seq for r in ledger.records(where={"day": "2025-01-01"})] == [1, 2, 3]


def test_what_is_not_wanted_is_left_out_and_what_lacks_the_key_stays(hand: HandMade) -> None:
    tags = [{"user": "a"}, {"user": "b"}, None]
    hand.sealed(1, 3, [hand.line(n, tags=tag) for n, tag in enumerate(tags, 1)])
    ledger = Ledger(hand.root)
    assert [r.seq for r in ledger.records(where_not={"tag:user": "a"})] == [2, 3]
    assert [r.seq for r in ledger.records(where_not={"user": ["a", "(none)"]})] == [2]
    assert [r.seq for r in ledger.records(where={"user": "a"}, where_not={"user": "b"})] == [1]
    assert [r.seq for r in ledger.records(where_not={"model": "m"})] == []
    assert ledger.calls(where_not={"user": "a"}).matched == 2
    assert ledger.tags(where_not={"user": ["a", "b"]}) == []


def test_a_word_alone_is_the_tag_of_that_name_everywhere(hand: HandMade) -> None:
    hand.sealed(1, 2, [hand.line(1, tags={"user": "a"}), hand.line(2, tags={"user": "b"})])
    ledger = Ledger(hand.root)
    assert [r.seq for r in ledger.records(where={"user": "a"})] == [1]
    assert [r.seq for r in ledger.records(where={"user": "a", "tag:user": "b"})] == [1, 2]
    assert ledger.report(["user"]) == ledger.report(["tag:user"])
    assert ledger.report(["user", "tag:user"]).by == ("tag:user",)


def test_arguments_that_cannot_be_right_are_refused(hand: HandMade) -> None:
    ledger = Ledger(hand.root)
    with pytest.raises(ValueError, match="timezone-aware"):
        ledger.records(since=datetime(2025, 1, 1))  # noqa: DTZ001 - that is the point
    with pytest.raises(ValueError, match="unknown kind: bogus"):
        ledger.records(kinds=("bogus",))
    with pytest.raises(ValueError, match="unknown group key 'tag:'; use model"):
        ledger.records(where={"tag:": "a"})
    with pytest.raises(ValueError, match="unknown group key 'modle'; did you mean model"):
        ledger.report(["modle"])
    with pytest.raises(TypeError, match="since='2025-01-01' is not a datetime"):
        ledger.report(since="2025-01-01")  # type: ignore[arg-type]


def test_a_segment_sealed_after_it_was_listed_is_found_under_its_new_name(hand: HandMade) -> None:
    hand.sealed(1, 2)
    path = hand.open(3, hand.lines(3, 4))
    records = Ledger(hand.root).records()  # lists now, opens when it gets there
    assert next(records).seq == 1
    os.rename(path, path.parent / str(SegmentName(WRITER, 3, 4)))
    assert [r.seq for r in records] == [2, 3, 4]
    assert records.problems == []


def test_a_segment_that_vanished_is_a_problem_and_not_the_end(hand: HandMade) -> None:
    hand.sealed(1, 1)
    path = hand.sealed(2, 2)
    hand.sealed(3, 3)
    records = Ledger(hand.root).records()
    path.unlink()
    assert [r.seq for r in records] == [1, 3]
    assert [(p.file, p.what) for p in records.problems] == [
        (f"{SEGMENTS}/{path.name}", "unreadable")
    ]


def test_an_empty_segment_that_its_writer_removed_is_no_problem(hand: HandMade) -> None:
    hand.sealed(1, 2)
    path = hand.open(3, [])
    records = Ledger(hand.root).records()
    path.unlink()
    assert [r.seq for r in records] == [1, 2]
    assert records.problems == []


@pytest.mark.parametrize("blind", [1, 2])
@pytest.mark.parametrize("age", [0, 60], ids=["just_changed", "settled"])
def test_a_listing_that_races_with_a_rename_misses_nothing(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch, blind: int, age: int
) -> None:
    path = hand.open(1, hand.lines(1, 2))
    hand.live(2)
    then = time.time() - age
    os.utime(path.parent, (then, then))
    real = Path.iterdir
    looks = []

    def racing(self: Path) -> Iterator[Path]:
        looks.extend([1] * (self == path.parent))
        if self == path.parent and len(looks) == blind:  # behind the cursor: neither name is seen
            os.rename(path, path.parent / str(SegmentName(WRITER, 1, 2)))
            return iter([])
        return real(self)

    monkeypatch.setattr(Path, "iterdir", racing)
    assert numbers(hand) == [1, 2]


@pytest.mark.parametrize("question", ["report", "verify", "records"])
def test_a_question_lists_each_directory_once_and_segments_for_what_went_meanwhile(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    hand.sealed(1, 5)
    (hand.root / RECOVERY).mkdir()
    (hand.root / MANIFESTS).mkdir()
    listed: list[Path] = []
    for name in ("listdir", "scandir"):
        real = getattr(os, name)

        def counted(path: Any, real: Any = real) -> Any:
            listed.append(Path(path).relative_to(hand.root))
            return real(path)

        monkeypatch.setattr(os, name, counted)
    answer = getattr(Ledger(hand.root), question)()
    if question == "records":
        assert len(list(answer)) == 5
    looked_at = [LIVE, SEGMENTS]
    if question == "report":  # the last look: was something pruned meanwhile?
        looked_at = [LIVE, SEGMENTS, SEGMENTS]
    if question == "verify":  # the same, and which erasures are done by now
        looked_at = [LIVE, MANIFESTS, RECOVERY, SEGMENTS, SEGMENTS, SEGMENTS]
    assert sorted(map(str, listed)) == looked_at


def test_names_that_are_no_segments_are_left_alone(hand: HandMade) -> None:
    hand.sealed(1, 1)
    for name in ("notes.txt", f"{WRITER}.{1:016d}-{2:016d}.jsonl.tmp", "x.jsonl"):
        (hand.root / SEGMENTS / name).write_text("?")
    assert [str(name) for name in Ledger(hand.root).segments()] == [
        str(SegmentName(WRITER, 1, 1)),
    ]


def test_reading_writes_nothing(hand: HandMade) -> None:
    hand.sealed(1, 2)
    hand.open(3, [hand.line(3)], tail=b"torn")
    hand.live(5)

    def state() -> list[tuple[str, int, int]]:
        return sorted(
            (str(p), p.stat().st_mtime_ns, p.stat().st_size) for p in hand.root.rglob("*")
        )

    before = state()
    ledger = Ledger(hand.root)
    list(ledger.records())
    ledger.verify()
    ledger.report()
    assert state() == before


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere", "nowhere: it does not exist; give the directory"),
        ("empty", "has no 'segments' directory"),
        ("file", "is a file"),
    ],
)
def test_what_is_no_ledger_is_an_error_that_says_what_to_do(
    tmp_path: Path, name: str, says: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    ledger = Ledger(tmp_path / name)
    for read in (ledger.segments, ledger.records, ledger.report, ledger.verify):
        with pytest.raises(LedgerPathError, match=says):
            read()
    assert not (tmp_path / "nowhere").exists()


def test_an_empty_ledger_has_no_records(hand: HandMade) -> None:
    assert numbers(hand) == []
    assert Ledger(hand.root).verify().ok


def test_a_newer_format_version_is_refused_before_anything_is_read(hand: HandMade) -> None:
    hand.sealed(1, 1)
    hand.sealed(2, 2, [newer(hand.line(2))])
    ledger = Ledger(hand.root)
    for read in (ledger.records, ledger.report, ledger.verify):
        with pytest.raises(UnsupportedFormat, match=r"version 2 .*upgrade"):
            read()


def test_a_newer_line_further_on_is_refused_when_it_is_reached(hand: HandMade) -> None:
    hand.sealed(1, 2, [hand.line(1), newer(hand.line(2))])
    records = Ledger(hand.root).records()
    assert next(records).seq == 1
    with pytest.raises(UnsupportedFormat, match="version 2"):
        next(records)
    with pytest.raises(UnsupportedFormat, match="version 2"):
        Ledger(hand.root).verify()


def test_a_reader_that_stops_early_closes_its_file(hand: HandMade) -> None:
    hand.sealed(1, 50)
    records = Ledger(hand.root).records()
    assert next(records).seq == 1
    records.close()
    with pytest.raises(StopIteration):
        next(records)


def test_a_checksummed_line_that_is_no_valid_record_is_damage(hand: HandMade) -> None:
    bad = altered(hand.line(2, input_tokens=7), b'"input_tokens":7', b'"input_tokens":-7')
    hand.sealed(1, 3, [hand.line(1), bad, hand.line(3)])
    records = Ledger(hand.root).records()
    assert [r.seq for r in records] == [1, 3]
    assert len(records.problems) == 1
    report = Ledger(hand.root).report([])
    assert (report.total.calls, len(report.problems)) == (2, 1)


def test_utc_is_what_since_compares_in(hand: HandMade) -> None:
    hand.sealed(1, 1, [hand.line(1, ts=NOON.astimezone(timezone(timedelta(hours=9))))])
    assert [r.ts for r in Ledger(hand.root).records(since=NOON)] == [NOON.astimezone(UTC)]
