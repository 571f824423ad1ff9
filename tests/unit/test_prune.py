"""``prune``: records past their time go; sums, chain, anchors and other writers stay."""

from __future__ import annotations

import asyncio
import io
import json
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_by_hand import NOON, OTHER_WRITER, WRITER, HandMade, framed, spoil
from tests.pruned import DAY, adjusted, days, filled, of_day, pruned
from tests.terminal import run, told

from litellm_ledger import Ledger, LedgerPathError, UsageRecord, UsageTracker
from litellm_ledger._maintenance.backup import back_up
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._maintenance.retention import Retention, retention
from litellm_ledger._maintenance.seal import seal
from litellm_ledger._reading import verify as _verify
from litellm_ledger._reading.anchor import anchor
from litellm_ledger._reading.verify import verify
from litellm_ledger._records.layout import ADJUSTMENTS, SEGMENTS, SegmentName
from litellm_ledger._records.scan import Scan, scan
from litellm_ledger._reports import engine
from litellm_ledger._storage.live_file import lock_directory, unlock
from litellm_ledger._writing.upkeep import Upkeep

QUESTIONS: list[list[str]] = [[], ["model"], ["day", "status"], ["user"], ["hour", "user", "model"]]


@pytest.fixture
def hand(tmp_path: Path) -> HandMade:
    return filled(tmp_path / "usage")


def says(root: Path) -> list[Any]:
    ledger = Ledger(root)
    answers = [ledger.report(by) for by in QUESTIONS]
    answers += [ledger.report(by, quantiles=True) for by in QUESTIONS if "user" not in by]
    return [(one.rows, one.total) for one in answers]


def segments(root: Path) -> list[str]:
    """The names of the segments, without their writer; those of audits apart."""
    names = sorted(path.name for path in (root / SEGMENTS).iterdir())
    return [n.removeprefix(WRITER) for n in names if not n.startswith(ADJUSTMENTS)]


def is_fine(root: Path, *anchors: Any) -> None:
    for full in (False, True):
        found = verify(root, full=full, anchors=anchors)
        problems = [problem for writer in found.writers for problem in writer.problems]
        assert found.ok, (problems, [writer.sentence() for writer in found.writers])
        assert not any(writer.unexplained for writer in found.writers)
        assert all(one.ok for one in found.anchors)


def test_what_is_past_its_time_goes_and_every_total_stays(hand: HandMade) -> None:
    before, then = says(hand.root), anchor(hand.root)
    done = pruned(hand.root)
    assert (done.segments, done.records, done.left) == (4, 14, ())
    assert says(hand.root) == before
    assert segments(hand.root) == [
        ".0000000000000001-0000000000000012.jsonl",
        ".0000000000000013-0000000000000014.jsonl",
        f"{OTHER_WRITER}.0000000000000001-0000000000000002.jsonl",
        f"{OTHER_WRITER}.0000000000000003-0000000000000004.jsonl",
    ]
    assert [record.seq for record in Ledger(hand.root).records()] == [13, 14, 3, 4]
    is_fine(hand.root, then, anchor(hand.root))
    (run_,) = verify(hand.root).prunes()
    assert (run_.who, run_.why, run_.records, run_.writers) == ("alice", "the rule", 14, 2)
    assert run_.latest == NOON + 40 * DAY


def test_a_second_run_has_nothing_to_do(hand: HandMade) -> None:
    pruned(hand.root)
    state = sorted(hand.root.rglob("*"))
    done = pruned(hand.root)
    assert (done.segments, done.manifests, done.left) == (0, 0, ())
    assert sorted(hand.root.rglob("*")) == state


def test_runs_that_follow_each_other_leave_one_segment_of_gaps(hand: HandMade) -> None:
    before, then = says(hand.root), anchor(hand.root)
    for keep in (99.5, 98.5, 55, 5.5):
        pruned(hand.root, days(keep))
        seal(hand.root)  # as a compaction does; the gaps have manifests then
        assert says(hand.root) == before
        is_fine(hand.root, then)
    assert segments(hand.root)[0] == ".0000000000000001-0000000000000014.jsonl"
    assert len(segments(hand.root)) == 3


def test_a_dry_run_changes_nothing(hand: HandMade) -> None:
    state = {p: p.stat().st_mtime_ns for p in hand.root.rglob("*")}
    done = pruned(hand.root, dry_run=True)
    assert (done.segments, done.records, done.dry_run) == (4, 14, True)
    assert {p: p.stat().st_mtime_ns for p in hand.root.rglob("*")} == state


def test_the_oldest_go_until_the_ledger_is_small_enough(hand: HandMade) -> None:
    before = says(hand.root)
    size = sum(path.stat().st_size for path in hand.root.rglob("*") if path.is_file())
    done = pruned(hand.root, Retention(max_size=size - 1))
    assert (done.segments, done.size, done.over) == (1, size, 0)
    done = pruned(hand.root, Retention(max_size=1))
    assert done.segments == 5
    assert done.over
    assert says(hand.root) == before


def test_later_ones_go_in_place_of_those_that_may_not(hand: HandMade) -> None:
    """The oldest is damaged, and the next ones have numbers in common."""
    lines = of_day(hand, 15, 20, 0)
    hand.sealed(15, 18, lines[:4])
    hand.sealed(17, 20, lines[2:])
    seal(hand.root)
    spoil(hand.root / SEGMENTS / str(SegmentName(WRITER, 1, 3)), line=1)
    before = says(hand.root)
    size = sum(path.stat().st_size for path in hand.root.rglob("*") if path.is_file())
    newest = (hand.root / SEGMENTS / str(SegmentName(OTHER_WRITER, 3, 4))).stat().st_size
    rule = Retention(max_size=size - sum(
        (hand.root / SEGMENTS / str(name)).stat().st_size
        for name in (SegmentName(WRITER, 4, 8), SegmentName(OTHER_WRITER, 1, 2))
    ))  # fmt: skip
    done = pruned(hand.root, rule, dry_run=True)
    assert done == replace(pruned(hand.root, rule), dry_run=True)
    assert (done.segments, done.records, done.over) == (2, 7, 0)
    assert sorted(problem.file for problem in done.left) == [
        f"segments/{SegmentName(WRITER, *numbers)}" for numbers in ((1, 3), (15, 18), (17, 20))
    ]
    assert says(hand.root) == before
    done = pruned(hand.root, Retention(max_size=newest))
    assert (done.segments, bool(done.over)) == (3, True), "all that may go"


def test_what_was_lost_stays_lost(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    lines = [*of_day(hand, 1, 2, 0), hand.gap(3, 6, "lost", 4), *of_day(hand, 7, 8, 0)]
    hand.sealed(1, 8, lines)
    seal(tmp_path)
    (before,) = verify(tmp_path).writers
    pruned(tmp_path)
    (now,) = verify(tmp_path).writers
    assert (before.lost, before.unacknowledged) == (4, 2)
    assert (now.lost, now.unacknowledged, now.removed, now.lost_numbers) == (4, 2, 4, [(3, 6)])
    assert not verify(tmp_path).ok


def test_what_is_damaged_stays_and_is_named(hand: HandMade) -> None:
    spoil(hand.root / SEGMENTS / str(SegmentName(WRITER, 4, 8)), line=1)
    done = pruned(hand.root)
    assert (done.segments, done.records) == (3, 9)
    assert [problem.file for problem in done.left] == [f"segments/{SegmentName(WRITER, 4, 8)}"]
    assert len(segments(hand.root)) == 6
    assert [p.what for p in verify(hand.root).writers[0].problems] == ["altered", "damaged"]
    command = run("prune", hand.root, "--keep=99d")
    assert command.exit_code == 1
    assert "kept: segments/" in command.stdout


def test_a_call_keeps_its_outcome_where_its_beginning_stays(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 2, [hand.started(1), *of_day(hand, 2, 2, 90)])
    hand.sealed(3, 3, [hand.outcome(3, of=1, status="ok")])
    hand.sealed(4, 4, of_day(hand, 4, 4, 0))
    seal(tmp_path)
    done = pruned(tmp_path)
    assert (done.segments, done.left) == (1, ())
    assert segments(tmp_path)[1] == ".0000000000000003-0000000000000003.jsonl"
    assert [record.seq for record in Ledger(tmp_path).records()] == [2, 3]


def test_a_call_that_began_later_than_the_outcomes_keeps_its_segment(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    begun = hand.line(2, kind="started", operation=hand.id(2), attempt=1, ts=NOON + 90 * DAY)
    hand.sealed(1, 2, [*of_day(hand, 1, 1, 0), begun])
    seal(tmp_path)
    assert pruned(tmp_path).segments == 0


def test_what_a_writer_still_needs_stays(tmp_path: Path) -> None:
    hand = filled(tmp_path)
    with hand.alive(14, 14):
        assert pruned(tmp_path, days(1)).records == 16  # but its newest segment
    (tmp_path / "live" / f"{WRITER}.live").unlink()
    hand.live(14, 14)  # it died, and is to be recovered first
    assert pruned(tmp_path, days(1)).segments == 0


def test_recovery_after_a_prune_finds_nothing_lost(tmp_path: Path) -> None:
    hand = filled(tmp_path)
    before = says(tmp_path)
    hand.open(15, of_day(hand, 15, 16, 99))
    with hand.alive(16, 16):
        pruned(tmp_path)
    hand.live(16, 16)
    recover(tmp_path)
    is_fine(tmp_path)
    assert verify(tmp_path).writers[0].found == 4
    assert len(says(tmp_path)) == len(before)


def test_what_is_not_shipped_stays(hand: HandMade) -> None:
    done = pruned(hand.root, shipped=lambda writer: 8 if writer == WRITER else 0)
    assert done.records == 8


def test_files_of_the_archive_go_as_a_whole(hand: HandMade) -> None:
    before, then = says(hand.root), anchor(hand.root)
    compact(hand.root, until=date(2030, 1, 1))
    files = len(list((hand.root / "archive").iterdir()))
    done = pruned(hand.root)
    assert (done.segments, done.records, done.archive) == (4, 14, 4)
    assert len(list((hand.root / "archive").iterdir())) == files - 4
    assert says(hand.root) == before
    is_fine(hand.root, then)
    assert [record.seq for record in Ledger(hand.root).records()] == [13, 14, 3, 4]
    compact(hand.root, until=date(2030, 1, 1))  # the gaps are packed
    pruned(hand.root, days(5.5))
    assert says(hand.root) == before
    is_fine(hand.root, then)


def test_a_file_of_the_archive_with_one_segment_that_stays_stays(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 2, of_day(hand, 1, 2, 0))
    later = [hand.line(3, ts=NOON), *of_day(hand, 4, 4, 90)]
    hand.sealed(3, 4, later)
    seal(tmp_path)
    compact(tmp_path, until=date(2030, 1, 1))
    assert len(list((tmp_path / "archive").iterdir())) == 1
    assert pruned(tmp_path).segments == 0


def test_both_engines_give_the_same(hand: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
    hand.sealed(15, 40, of_day(hand, 15, 40, 99))  # without a manifest: lines are read
    pruned(hand.root)
    found = []
    for large in (False, True):
        monkeypatch.setattr(engine, "_is_large", lambda _ledger, large=large: large)
        found.append(says(hand.root))
    assert found[0] == found[1]


def test_what_manifests_cannot_tell_is_said(hand: HandMade) -> None:
    whole = Ledger(hand.root).report([]).total.calls
    pruned(hand.root)
    ledger = Ledger(hand.root)
    report = ledger.report(["user", "team"])
    assert (report.total.calls, report.pruned, report.aggregated) == (4, 14, 0)
    assert report.is_floor
    (note,) = (note for note in report.notes() if note.startswith("Pruned"))
    assert note.startswith("Pruned: 14 records not included, the last of 2025-02-10;")
    report = ledger.report([])
    assert (report.total.calls, report.pruned, report.aggregated) == (whole, 0, 14)
    assert not any("not included" in note for note in report.notes())
    assert not ledger.report([], since=NOON + 80 * DAY).aggregated
    half = ledger.report([], since=NOON - DAY, until=NOON + timedelta(minutes=1))
    assert (half.pruned, half.total.calls) == (3, 0), "a part of a quarter of an hour"
    assert ledger.tags() == ["user"]


def test_adjustments_stay_in_the_sums_as_long_as_these(hand: HandMade) -> None:
    recorded = says(hand.root)
    adjusted(hand.root, 2)
    before = says(hand.root)
    assert before != recorded
    pruned(hand.root)
    assert says(hand.root) == before
    assert Ledger(hand.root).report([], as_recorded=True).total == recorded[0][1]
    assert Ledger(hand.root).report(["user", "team"]).adjusted == 0
    pruned(hand.root, days(50, keep_aggregates=50 * DAY))
    assert Ledger(hand.root).report([]).adjusted == 0


def test_aggregates_go_in_their_turn_and_the_chain_holds(hand: HandMade) -> None:
    then = anchor(hand.root)
    pruned(hand.root)
    between = anchor(hand.root)
    done = pruned(hand.root, days(50, keep_aggregates=70 * DAY))
    assert (done.segments, done.manifests) == (0, 3)
    is_fine(hand.root, then, between, anchor(hand.root))
    report = Ledger(hand.root).report([])
    assert (report.total.calls, report.aggregated, report.pruned) == (8, 4, 10)
    done = pruned(hand.root, days(5.5, keep_aggregates=DAY))
    assert (done.segments, done.manifests) == (1, 2)
    seal(hand.root)
    is_fine(hand.root, then, between, anchor(hand.root))
    assert Ledger(hand.root).report([]).total.calls == 2


def test_lines_that_are_there_twice_count_once(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    lines = of_day(hand, 1, 6, 0)
    hand.sealed(1, 6, lines)
    hand.sealed(4, 6, lines[3:])  # as after a failed sync
    seal(tmp_path)
    before = says(tmp_path)
    done = pruned(tmp_path)
    assert (done.segments, done.records) == (2, 6)
    assert says(tmp_path) == before
    is_fine(tmp_path)


def test_numbers_that_another_segment_has_too_stay(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    lines = of_day(hand, 1, 6, 0)
    hand.sealed(1, 4, lines[:4])
    hand.sealed(3, 6, lines[2:])
    seal(tmp_path)
    before = says(tmp_path)
    done = pruned(tmp_path)
    assert (done.segments, len(done.left)) == (0, 2)
    assert says(tmp_path) == before


def test_a_call_that_was_taken_for_unsettled_counts_once(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 2, [hand.started(1), hand.outcome(2, of=1, status="ok")])
    hand.sealed(3, 3, [hand.outcome(3, of=1, status="unsettled")])
    seal(tmp_path)
    before = says(tmp_path)
    done = pruned(tmp_path)
    assert (done.segments, len(done.left)) == (0, 2)
    done = pruned(tmp_path, days(50, keep_aggregates=DAY))
    assert done.segments == 2
    assert len(before) == len(says(tmp_path))


def test_unsettled_calls_go_with_the_rest(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 2, [hand.started(1), *of_day(hand, 2, 2, 0)])
    hand.sealed(3, 3, [hand.outcome(3, of=1, status="unsettled")])
    seal(tmp_path)
    before = says(tmp_path)
    assert pruned(tmp_path).segments == 2
    assert says(tmp_path) == before
    is_fine(tmp_path)


def test_segments_without_a_manifest_get_one_first(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 6, of_day(hand, 1, 6, 0))
    before = says(tmp_path)
    assert pruned(tmp_path, dry_run=True).segments == 0
    assert not (tmp_path / "manifests").exists()
    assert pruned(tmp_path).segments == 1
    assert says(tmp_path) == before


@pytest.mark.parametrize("part", ["prices", "", "manifests"])
def test_one_run_waits_for_no_other(hand: HandMade, part: str) -> None:
    (hand.root / part).mkdir(exist_ok=True)
    held = lock_directory(hand.root / part)
    assert held is not None
    try:
        with pytest.raises(LedgerPathError, match="by another process"):
            pruned(hand.root)
    finally:
        unlock(held)
    assert pruned(hand.root).segments == 4


@pytest.mark.parametrize("packed", [False, True])
def test_a_backup_of_it_is_whole_and_one_from_before_stays(
    hand: HandMade, tmp_path: Path, packed: bool
) -> None:
    if packed:
        compact(hand.root, until=date(2030, 1, 1))
    before = says(hand.root)
    old, new = tmp_path / "old", tmp_path / "new"
    back_up(hand.root, old)
    pruned(hand.root)
    assert not back_up(hand.root, new).problems
    assert says(new) == before
    is_fine(new)
    for _ in range(2):
        done = back_up(hand.root, old, incremental=True)
        assert not done.problems
    assert not done.files
    assert says(old) == before
    is_fine(old)
    assert len(list(Ledger(old).records())) == 18


def test_in_a_backup_that_keeps_what_was_pruned_manifests_are_believed(
    hand: HandMade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    back_up(hand.root, copy)
    pruned(hand.root)
    back_up(hand.root, copy, incremental=True)
    read: list[int] = []

    def counted(data: bytes, writer: str, first: int) -> Scan:
        found = scan(data, writer, first)
        read.extend(head.seq for head, _ in found.lines if head.kind != "gap")
        return found

    monkeypatch.setattr(_verify, "scan", counted)
    found = verify(copy)
    assert found.ok
    assert sum(writer.found for writer in found.writers) == 18
    assert read == [], "gaps stand for numbers whose records are there"


def test_a_segment_that_was_restored_counts_once(hand: HandMade) -> None:
    before = says(hand.root)
    name = str(SegmentName(WRITER, 4, 8))
    data = (hand.root / SEGMENTS / name).read_bytes()
    pruned(hand.root)
    (hand.root / SEGMENTS / name).write_bytes(data)
    assert says(hand.root) == before
    is_fine(hand.root)
    assert pruned(hand.root).segments == 1
    assert says(hand.root) == before


# -- hostile ----------------------------------------------------------------------------------


def audit_file(root: Path) -> Path:
    (path,) = (root / SEGMENTS).glob(f"{ADJUSTMENTS}*")
    return path


def rewritten(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    lines = []
    for line in audit_file(root).read_bytes().splitlines():
        members = json.loads(line)
        del members["crc"]
        change(members)
        lines.append(framed(json.dumps(members, separators=(",", ":")).encode()[:-1]))
    audit_file(root).write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    "member",
    [
        {"segments": [{"segment": "../x", "was": {}}]},
        {"segments": "x"},
        {"writer": OTHER_WRITER + "x"},
        {"records": -1},
        {"files": [{"file": "a", "sha256": "zz"}]},
    ],
)
def test_an_audit_that_says_no_sense_is_damage(hand: HandMade, member: dict[str, Any]) -> None:
    pruned(hand.root)
    rewritten(hand.root, lambda members: members.update(member))
    found = verify(hand.root)
    assert found.adjustments
    assert not found.ok
    assert Ledger(hand.root).report([]).problems


def test_records_that_were_deleted_by_hand_are_a_loss(hand: HandMade) -> None:
    pruned(hand.root)
    (hand.root / SEGMENTS / str(SegmentName(WRITER, 1, 12))).unlink()
    found = verify(hand.root).writers[0]
    assert (found.ok, found.lost) == (False, 12)


def test_a_gap_that_no_audit_explains_is_said(hand: HandMade) -> None:
    pruned(hand.root)
    audit_file(hand.root).unlink()
    found = verify(hand.root)
    assert found.writers[0].unexplained == 12
    assert "no audit says who removed 12 of these" in found.writers[0].sentence()
    assert not found.ok, "there are manifests of segments that nobody says were removed"


def test_a_manifest_whose_sums_are_needed_is_missed(hand: HandMade) -> None:
    pruned(hand.root)
    path = hand.root / "manifests" / SegmentName(WRITER, 4, 8).manifest
    data = path.read_bytes()
    path.unlink()
    assert {p.what for p in verify(hand.root).writers[0].problems} >= {"missing"}
    assert Ledger(hand.root).report([]).pruned == 5
    path.write_bytes(framed(data[:-19].replace(b'"plain":true', b'"plain":false')))
    assert {p.what for p in verify(hand.root).writers[0].problems} >= {"altered"}


def test_a_record_under_the_name_of_gaps_is_no_gap(hand: HandMade) -> None:
    pruned(hand.root, days(99.5))
    path = hand.root / SEGMENTS / str(SegmentName(WRITER, 1, 3))
    path.write_bytes(b"".join(of_day(hand, 1, 3, 7)))
    assert [p.what for p in verify(hand.root).writers[0].problems] == ["altered"]


# -- random ledgers ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_whatever_goes_the_totals_stay(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    hands = [HandMade(tmp_path, f"2025010{n}T000000Z-{n:016x}") for n in range(1, 4)]
    for hand in hands:
        seq = 1
        for _ in range(chance.randint(1, 5)):
            lines: list[bytes] = []
            first, day = seq, chance.randint(0, 99)
            for _ in range(chance.randint(1, 6)):
                kind = chance.random()
                if kind < 0.1:
                    lines.append(hand.gap(seq, seq + 2, chance.choice(["lost", "quarantined"])))
                    seq += 2
                elif kind < 0.2:
                    lines.append(hand.started(seq))
                elif kind < 0.3:
                    of = chance.randint(1, seq)
                    lines.append(
                        hand.outcome(seq, of=of, status=chance.choice(["ok", "unsettled"]))
                    )
                else:
                    lines += of_day(hand, seq, seq, day, model=chance.choice("mno"))
                seq += 1
            hand.sealed(first, seq - 1, lines)
    before = says(tmp_path)
    whole = verify(tmp_path)
    then = anchor(tmp_path)
    for keep in sorted((chance.uniform(0, 100) for _ in range(4)), reverse=True):
        if chance.random() < 0.3:
            compact(tmp_path, until=date(2030, 1, 1))
        pruned(tmp_path, days(keep))
        assert says(tmp_path) == before
        found = verify(tmp_path, full=True, anchors=[then])
        assert found.anchors[0].ok
        assert [w.problems for w in found.writers] == [[] for _ in found.writers]
        assert [w.lost_numbers for w in found.writers] == [w.lost_numbers for w in whole.writers]


# -- the command ------------------------------------------------------------------------------


def test_the_command_says_what_it_did(hand: HandMade) -> None:
    assert "Nothing to prune" in told("prune", hand.root, "--keep=90y")
    said = told("prune", hand.root, "--keep=1h", "--dry-run")
    assert said.startswith("18 records from 2025-01-01T12:00:00.000001Z to ")
    assert "would be removed: 6 segments, " in said
    done = run("prune", hand.root, "--max-size=1k", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["records"] == 18
    assert json.loads(done.stdout)["over"] > 0
    said = told("verify", hand.root)
    assert "Pruned on " in said
    assert said.rstrip().splitlines()[-1].startswith("OK: ")


@pytest.mark.parametrize(("answer", "status", "stay"), [("yes\n", 0, False), ("n\n", 1, True)])
def test_on_a_terminal_it_asks(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch, answer: str, status: int, stay: bool
) -> None:
    from litellm_ledger._cli import prunes
    from litellm_ledger._cli.flags import Output

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = io.StringIO()
    monkeypatch.setattr(prunes.sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", shown)
    assert prunes.prune(Output(json=True), Ledger(hand.root), keep="1h") == status
    assert "18 records from 2025-01-01" in shown.getvalue()
    assert "would be removed: 6 segments" in shown.getvalue()
    assert any(Ledger(hand.root).records()) is stay
    monkeypatch.setattr(prunes.sys, "stdin", Terminal(""))
    assert prunes.prune(Output(json=True), Ledger(hand.root), keep="1h", yes=True) == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "say what may go"),
        (["--keep=1d", "--wait=5"], "--wait is of a database"),
        (["--keep=x"], "is no time"),
        (["--max-size=-1"], "is no size"),
        (["--keep=1d", "--keep-aggregates=x"], "is no time"),
    ],
)
def test_the_command_refuses_what_it_does_not_understand(
    hand: HandMade, args: list[str], words: str
) -> None:
    done = run("prune", hand.root, *args)
    assert done.exit_code == 2
    assert words in done.stderr


def test_what_lists_records_says_that_some_were_pruned(hand: HandMade) -> None:
    pruned(hand.root)
    note = "Pruned: 14 records, the last of 2025-02-10; reports may have the sums"
    for args in (["calls"], ["records"], ["export"], ["sql", "SELECT 1"]):
        done = run(*args, hand.root)
        assert done.exit_code == 0
        assert note in " ".join((done.stdout + done.stderr).split()), args
    assert note in run("show", f"{WRITER}-{4:016d}", hand.root).stderr
    assert note not in run("calls", hand.root, "--since=2025-03-30").output
    assert "only aggregates are kept, the last of 2025-02-10" in told("report", hand.root)


# -- by the client ----------------------------------------------------------------------------


async def looked(tracker: UsageTracker) -> Upkeep:
    """Return its upkeep when it has had a look."""
    upkeep = tracker._writer.admission.backlog.upkeep
    assert upkeep is not None
    await asyncio.to_thread(upkeep.looked.acquire)
    return upkeep


@pytest.mark.anyio
async def test_a_tracker_prunes_when_it_opens(hand: HandMade) -> None:
    before = says(hand.root)
    async with UsageTracker(hand.root, retention="400d") as tracker:
        await looked(tracker)
        assert tracker.statistics().retention_error is None
        assert says(hand.root) == before
    assert not list(Ledger(hand.root).records())
    (run_,) = verify(hand.root).prunes()
    assert run_.who.startswith("process ")
    assert run_.why == "retention: keep 400 d"


@pytest.mark.anyio
async def test_a_segment_that_was_sealed_is_a_reason_to_look(tmp_path: Path) -> None:
    async with UsageTracker(tmp_path, retention=Retention(keep=DAY)) as tracker:
        upkeep = await looked(tracker)
        backlog = tracker._writer.admission.backlog
        await tracker.record(UsageRecord(ts=NOON))
        backlog.log.seal()
        await asyncio.to_thread(upkeep.looked.acquire)


@pytest.mark.anyio
async def test_what_is_wrong_is_one_line_of_the_log_and_a_figure(
    hand: HandMade, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(hand.root / SEGMENTS / str(SegmentName(WRITER, 4, 8)), line=1)
    async with UsageTracker(hand.root, retention="400d") as tracker:
        upkeep = await looked(tracker)
        upkeep.begin()
        await asyncio.to_thread(upkeep.looked.acquire)
        error = tracker.statistics().retention_error
    assert error is not None
    assert error.startswith("segments/")
    (line,) = (r for r in caplog.records if "retention" in r.message)
    assert line.levelname == "WARNING"


@pytest.mark.anyio
async def test_another_run_at_work_is_no_error(hand: HandMade) -> None:
    held = lock_directory(hand.root)
    assert held is not None
    try:
        async with UsageTracker(hand.root, retention="400d") as tracker:
            await looked(tracker)
            assert tracker.statistics().retention_error is None
    finally:
        unlock(held)
    assert len(segments(hand.root)) == 6


def test_a_client_takes_no_rule_that_is_none() -> None:
    with pytest.raises(ValueError, match="retention='soon'"):
        UsageTracker(retention="soon")


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (None, None),
        ("400d", Retention(keep=400 * DAY)),
        ("7y", Retention(keep=7 * 365 * DAY)),
        ("10G", Retention(max_size=10 * 2**30)),
        ("10 GiB", Retention(max_size=10 * 2**30)),
        (3 * DAY, Retention(keep=3 * DAY)),
        (Retention(keep=DAY), Retention(keep=DAY)),
    ],
)
def test_a_rule_is_read(given: Any, rule: Any) -> None:
    assert retention(given) == rule


@pytest.mark.parametrize("given", ["", "x", "10", 5, "-1d", "0G", b"1d"])
def test_no_rule_is_refused(given: Any) -> None:
    if given == "10":
        assert retention(given) == Retention(max_size=10)
        return
    with pytest.raises(ValueError, match=r"retention|size"):
        retention(given)
