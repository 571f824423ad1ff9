"""Verify: what is lost, what is damaged, what can be proved, for every way a writer can end."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_by_hand import OTHER_WRITER, WRITER, HandMade, spoil

from litellm_ledger._errors import UnsupportedFormat
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._reading import verify as _verify
from litellm_ledger._reading.lines import Problem
from litellm_ledger._reading.verdict import WriterVerdict
from litellm_ledger._records.layout import LIVE, RECOVERY, SEGMENTS, SegmentName
from litellm_ledger._reports.ledger import Ledger
from litellm_ledger.testing import FaultyFileSystem, Killed


@pytest.fixture
def hand(tmp_path: Path) -> HandMade:
    return HandMade(tmp_path)


def verdict(hand: HandMade) -> WriterVerdict:
    (only,) = Ledger(hand.root).verify().writers
    return only


# -- closed cleanly ---------------------------------------------------------------------------


def test_a_closed_writer_with_all_its_numbers_is_ok(hand: HandMade) -> None:
    hand.sealed(1, 3)
    hand.sealed(4, 5)
    found = Ledger(hand.root).verify()
    (writer,) = found.writers
    assert found.ok
    assert (writer.state, writer.clean, writer.proves) == ("closed", True, "exact")
    assert (writer.accepted, writer.found, writer.lost, writer.written) == (5, 5, 0, None)
    assert writer.sentence() == "closed cleanly: all 5 found"
    assert any("Files deleted by hand" in text for text in found.cannot_prove())


def test_a_missing_segment_in_the_middle_is_lost_records(hand: HandMade) -> None:
    hand.sealed(1, 3)
    hand.sealed(6, 7)
    found = Ledger(hand.root).verify()
    (writer,) = found.writers
    assert not found.ok
    assert (writer.found, writer.lost) == (5, 2)
    assert "5 found of 7, 2 LOST" in writer.sentence()


def test_a_missing_first_segment_is_lost_records(hand: HandMade) -> None:
    hand.sealed(4, 5)
    assert verdict(hand).lost == 3


def test_duplicates_over_overlapping_segments_count_once_and_are_no_damage(hand: HandMade) -> None:
    hand.sealed(1, 5)
    hand.sealed(3, 7)
    writer = verdict(hand)
    assert (writer.ok, writer.found, writer.accepted) == (True, 7, 7)


def test_damage_in_one_copy_is_reported_although_nothing_is_lost(hand: HandMade) -> None:
    spoil(hand.sealed(1, 5), line=3)
    hand.sealed(3, 7)
    writer = verdict(hand)
    assert (writer.lost, len(writer.problems), writer.ok) == (0, 1, False)


def test_a_damaged_line_is_lost_and_named_by_file_and_offset(hand: HandMade) -> None:
    path = hand.sealed(1, 4)
    spoil(path, line=1)
    writer = verdict(hand)
    (problem,) = writer.problems
    length = len(hand.line(1))
    assert (writer.found, writer.lost, writer.ok) == (3, 1, False)
    assert (problem.file, problem.what) == (f"{SEGMENTS}/{path.name}", "damaged")
    assert (problem.offset, problem.length, problem.lines) == (length, length, 1)


def test_a_sealed_segment_cut_short_disagrees_with_its_name(hand: HandMade) -> None:
    hand.sealed(1, 4, hand.lines(1, 3))
    writer = verdict(hand)
    assert [p.what for p in writer.problems] == ["misnamed"]
    assert "ends with number 3, its name says 4" in writer.problems[0].detail
    assert (writer.accepted, writer.lost, writer.ok) == (4, 1, False)


def test_a_sealed_segment_with_more_than_its_name_says_is_damage(hand: HandMade) -> None:
    hand.sealed(1, 2, hand.lines(1, 3))
    assert [p.what for p in verdict(hand).problems] == ["misnamed"]


def test_a_torn_end_of_a_sealed_segment_is_damage_not_torn_bytes(hand: HandMade) -> None:
    hand.sealed(1, 2, [*hand.lines(1, 2), b'{"torn'])
    writer = verdict(hand)
    assert (writer.torn_bytes, [p.what for p in writer.problems]) == (0, ["damaged"])
    assert not writer.ok


def test_a_line_dropped_without_a_trace_is_damage(hand: HandMade) -> None:
    hand.sealed(1, 3, [hand.line(1), hand.line(3)])
    writer = verdict(hand)
    assert (writer.lost, len(writer.problems), writer.problems[0].length) == (1, 1, 0)


def test_an_unreadable_segment_is_a_problem(hand: HandMade) -> None:
    (hand.root / SEGMENTS / str(SegmentName(WRITER, 1, 2))).mkdir()
    writer = verdict(hand)
    assert [p.what for p in writer.problems] == ["unreadable"]
    assert not writer.ok


# -- recovered --------------------------------------------------------------------------------


def test_a_recovered_loss_stays_a_loss(hand: HandMade) -> None:
    hand.sealed(1, 3)
    hand.sealed(4, 9, [hand.gap(4, 8), hand.line(9)])
    found = Ledger(hand.root).verify()
    (writer,) = found.writers
    assert (writer.state, writer.found, writer.lost, found.ok) == ("recovered", 4, 5, False)


def test_a_record_that_turns_up_within_a_gap_is_not_lost(hand: HandMade) -> None:
    hand.sealed(1, 5, [hand.line(1), hand.gap(2, 5)])
    hand.sealed(3, 4)
    assert verdict(hand).lost == 2


def test_unsettled_calls_alone_are_no_failure(hand: HandMade) -> None:
    hand.sealed(1, 2, [hand.started(1), hand.started(2)])
    lines = [hand.outcome(3, of=1, status="unsettled"), hand.outcome(4, of=2, status="unsettled")]
    hand.sealed(3, 4, lines)
    writer = verdict(hand)
    assert (writer.ok, writer.state, writer.unsettled, writer.in_flight) == (
        True,
        "recovered",
        2,
        0,
    )


def test_an_unsettled_call_with_a_real_outcome_is_settled(hand: HandMade) -> None:
    lines = [hand.started(1), hand.outcome(2, of=1), hand.outcome(3, of=1, status="unsettled")]
    hand.sealed(1, 3, lines)
    assert verdict(hand).unsettled == 0


def test_what_was_removed_on_purpose_is_not_lost(hand: HandMade) -> None:
    hand.sealed(1, 9, [hand.gap(1, 4, "erased"), hand.gap(5, 8, "expired"), hand.line(9)])
    writer = verdict(hand)
    assert (writer.ok, writer.removed, writer.lost) == (True, 8, 0)


def test_quarantined_records_are_a_failure_of_their_own(hand: HandMade) -> None:
    hand.sealed(1, 4, [hand.line(1), hand.gap(2, 3, "quarantined"), hand.line(4)])
    (hand.root / RECOVERY).mkdir()
    (hand.root / RECOVERY / f"{WRITER}.{1:016d}.jsonl.open").write_bytes(b"?")
    found = Ledger(hand.root).verify()
    (writer,) = found.writers
    assert (writer.quarantined, writer.lost, found.ok) == (2, 0, False)
    assert writer.state == "recovered"
    assert found.recovery == [f"{WRITER}.{1:016d}.jsonl.open"]


# -- died, not recovered ----------------------------------------------------------------------


def test_died_in_this_boot_loses_exactly_accepted_less_found(hand: HandMade) -> None:
    hand.sealed(1, 3)
    hand.open(4, hand.lines(4, 5), tail=b'{"torn')
    hand.live(accepted=9, written=6)
    found = Ledger(hand.root).verify()
    (writer,) = found.writers
    assert (writer.state, writer.proves, writer.clean) == ("died", "exact", False)
    assert (writer.accepted, writer.written, writer.found, writer.lost) == (9, 6, 5, 4)
    assert (writer.torn_bytes, writer.pid) == (6, 4242)
    assert "5 found of 9, 4 LOST" in writer.sentence()
    assert "run litellm-ledger recover" in writer.sentence()
    assert not found.ok
    assert not found.cannot_prove()


def test_died_with_everything_written_lost_nothing(hand: HandMade) -> None:
    hand.open(1, hand.lines(1, 5), tail=b"torn\n{")
    hand.live(accepted=5)
    writer = verdict(hand)
    assert (writer.ok, writer.lost, writer.torn_bytes) == (True, 0, 6)
    assert writer.problems == []


def test_died_before_its_first_record_reached_the_disk(hand: HandMade) -> None:
    hand.live(accepted=3, written=0)
    writer = verdict(hand)
    assert (writer.found, writer.lost, writer.proves, writer.ok) == (0, 3, "exact", False)


def test_died_in_another_boot_proves_no_more_than_at_least(hand: HandMade) -> None:
    hand.open(1, hand.lines(1, 5))
    hand.live(accepted=7, boot=1)
    found = Ledger(hand.root).verify()
    (writer,) = found.writers
    assert (writer.proves, writer.lost) == ("at_least", 2)
    assert "at least 2 LOST" in writer.sentence()
    assert "more records may have been accepted" in found.cannot_prove()[0]


def test_counters_of_another_boot_may_be_behind_the_files(hand: HandMade) -> None:
    hand.open(1, hand.lines(1, 5))
    hand.live(accepted=2, boot=1)
    writer = verdict(hand)
    assert (writer.accepted, writer.lost, writer.ok) == (5, 0, True)
    assert "none known to be lost (cannot be proved)" in writer.sentence()


def test_calls_in_flight_at_the_end_are_counted(hand: HandMade) -> None:
    hand.open(1, [hand.started(1), hand.started(2), hand.outcome(3, of=1), hand.line(4)])
    hand.live(accepted=4, oldest=2)
    writer = verdict(hand)
    assert (writer.in_flight, writer.unsettled, writer.ok) == (1, 0, True)


def test_a_second_copy_of_a_started_line_does_not_put_the_call_in_flight_again(
    hand: HandMade,
) -> None:
    hand.sealed(1, 3, [hand.line(1), hand.started(2), hand.outcome(3, of=2)])
    hand.sealed(2, 2, [hand.started(2)])
    assert verdict(hand).in_flight == 0


def test_a_started_line_found_after_its_outcome_is_settled(hand: HandMade) -> None:
    lines = [hand.started(1), hand.outcome(2, of=1), hand.line(3)]
    spoil(hand.sealed(1, 3, lines), line=0)
    hand.sealed(1, 4, [*lines, hand.line(4)])
    writer = verdict(hand)
    assert (writer.in_flight, writer.found) == (0, 4)


def test_an_interrupted_recovery_counts_the_loss_once(hand: HandMade) -> None:
    hand.sealed(1, 2, [hand.started(1), hand.line(2)])
    hand.sealed(3, 6, [hand.gap(3, 5), hand.outcome(6, of=1, status="unsettled")])
    hand.live(accepted=5)
    writer = verdict(hand)
    assert (writer.state, writer.lost, writer.unsettled) == ("died", 3, 1)


def test_garbled_counters_prove_nothing_without_records(hand: HandMade) -> None:
    (hand.root / LIVE / f"{WRITER}.live").write_bytes(b"short")
    writer = verdict(hand)
    assert (writer.proves, writer.lost, writer.written) == ("nothing", 0, None)
    assert "nothing is known" in writer.sentence()


def test_garbled_counters_prove_at_least_with_records(hand: HandMade) -> None:
    (hand.root / LIVE / f"{WRITER}.live").write_bytes(b"x" * 64)
    hand.sealed(1, 2)
    hand.sealed(4, 4)
    writer = verdict(hand)
    assert (writer.proves, writer.lost) == ("at_least", 1)


CONTRADICTIONS = {
    "written above accepted": {"accepted": 5, "written": 7},
    "synced above written": {"accepted": 9, "written": 2, "synced": 9},
    "more than a name can hold": {"accepted": 2**60, "written": 4},
}


@pytest.mark.parametrize("boot", [None, 1], ids=["this boot", "another"])
@pytest.mark.parametrize("level", ["written", "synced"])
@pytest.mark.parametrize("counters", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_counters_that_contradict_each_other_excuse_no_loss(
    hand: HandMade, counters: dict[str, int], level: str, boot: int | None
) -> None:
    hand.open(1, hand.lines(1, 4))
    hand.live(**counters, level=level, boot=boot)
    writer = verdict(hand)
    assert (writer.ok, writer.proves, writer.unacknowledged) == (False, "at_least", 0)
    assert [problem.detail for problem in writer.problems] == ["its counters contradict each other"]
    recover(hand.root)
    writer = verdict(hand)
    assert (writer.state, writer.proves, writer.lost) == ("recovered", "at_least", 0)
    assert "cannot be proved" in writer.sentence()


def test_a_hole_below_what_is_found_may_have_been_acknowledged(hand: HandMade) -> None:
    hand.sealed(1, 50)
    hand.open(101, hand.lines(101, 150))
    hand.live(160, synced=40, level="synced", boot=1)
    writer = verdict(hand)
    assert (writer.lost, writer.unacknowledged, writer.ok) == (60, 10, False)
    (done,) = recover(hand.root).writers
    assert (done.lost, done.unacknowledged) == (60, 10)
    writer = verdict(hand)
    assert (writer.lost, writer.unacknowledged, writer.ok) == (60, 10, False)


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_gaps_that_disagree_the_one_that_owns_up_to_more_is_believed(
    hand: HandMade, order: int
) -> None:
    for other in (hand.gap(3, 4, "lost", 4), hand.gap(3, 4), hand.gap(3, 4, "quarantined")):
        first, second = [hand.gap(3, 4, "lost", 0), other][::order]
        hand.sealed(1, 4, [*hand.lines(1, 2), first])
        hand.sealed(3, 4, [second])
        assert not verdict(hand).ok


def test_an_open_segment_without_counters_is_orphaned(hand: HandMade) -> None:
    hand.open(1, hand.lines(1, 2))
    found = Ledger(hand.root).verify()
    (writer,) = found.writers
    assert (writer.state, writer.proves, writer.clean, found.ok) == (
        "orphaned",
        "at_least",
        False,
        True,
    )
    assert "without counters" in found.cannot_prove()[0]


# -- acknowledged or not ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "unacknowledged", "sentence"),
    [
        ("", 0, "5 found of 9, 4 LOST; for 4 of these the ledger does not say if they were"),
        ("queued", 0, "5 found of 9, 4 LOST; run"),
        ("written", 3, "5 found of 9, 4 LOST, 3 of these never acknowledged; run"),
        ("synced", 3, "5 found of 9, 4 LOST, 3 of these never acknowledged; run"),
    ],
)
def test_what_a_dead_writer_had_not_written_was_never_acknowledged_unless_queued(
    hand: HandMade, level: str, unacknowledged: int, sentence: str
) -> None:
    hand.open(1, hand.lines(1, 5))
    hand.live(accepted=9, written=6, synced=2, level=level)
    writer = verdict(hand)
    assert (writer.lost, writer.unacknowledged, writer.pid) == (4, unacknowledged, 4242)
    assert writer.undecided == (0 if level else 4)
    assert not writer.ok  # number 6 had been written
    assert sentence in writer.sentence()


def test_losses_that_were_never_acknowledged_are_no_failure_but_not_complete(
    hand: HandMade,
) -> None:
    hand.open(1, hand.lines(1, 5))
    hand.live(accepted=9, written=5, synced=0, level="written")
    found = Ledger(hand.root).verify()
    (writer,) = found.writers
    assert (found.ok, found.complete, writer.ok, writer.complete) == (True, False, True, False)
    assert "5 found of 9, 4 lost, never acknowledged; run" in writer.sentence()
    plain = found.to_dict()
    assert (plain["ok"], plain["complete"], plain["writers"][0]["complete"]) == (True, False, False)


def test_after_a_power_cut_only_synced_records_are_known_to_be_unacknowledged(
    hand: HandMade,
) -> None:
    hand.open(1, hand.lines(1, 5))
    for level, unacknowledged in (("queued", 0), ("written", 0), ("synced", 2)):
        hand.live(accepted=7, written=7, synced=5, boot=1, level=level)
        writer = verdict(hand)
        assert (writer.proves, writer.lost, writer.unacknowledged) == (
            "at_least",
            2,
            unacknowledged,
        )
    assert "at least 2 lost, never acknowledged" in writer.sentence()


def test_a_gap_tells_what_was_acknowledged_when_the_counters_are_gone(hand: HandMade) -> None:
    hand.sealed(1, 9, [*hand.lines(1, 3), hand.gap(4, 8, acked_until=5), hand.line(9)])
    writer = verdict(hand)
    assert (writer.state, writer.lost, writer.unacknowledged) == ("recovered", 5, 3)
    assert (writer.undecided, writer.ok) == (0, False)


def test_a_record_that_turns_up_within_a_gap_leaves_the_others_as_acknowledged_as_they_were(
    hand: HandMade,
) -> None:
    hand.sealed(1, 8, [*hand.lines(1, 3), hand.gap(4, 8, acked_until=5)])
    hand.sealed(4, 5)
    hand.sealed(7, 7)
    writer = verdict(hand)
    assert (writer.lost, writer.unacknowledged, writer.ok) == (2, 2, True)


def test_a_loss_without_a_word_on_acknowledgement_counts_as_acknowledged(hand: HandMade) -> None:
    hand.sealed(1, 8, [*hand.lines(1, 3), hand.gap(4, 8)])
    writer = verdict(hand)
    assert (writer.lost, writer.unacknowledged, writer.undecided) == (5, 0, 5)
    assert (writer.ok, writer.complete) == (False, False)
    assert "for 5 of these the ledger does not say if they were acknowledged" in writer.sentence()


def test_a_segment_that_was_deleted_is_a_loss_at_every_level(hand: HandMade) -> None:
    hand.sealed(3, 5)
    with hand.alive(accepted=8, written=5, level="written"):
        alive = verdict(hand)
    assert (alive.lost, alive.unacknowledged, alive.undecided, alive.ok) == (2, 0, 0, False)
    (hand.root / LIVE / f"{WRITER}.live").unlink()
    closed = verdict(hand)
    assert (closed.lost, closed.unacknowledged, closed.undecided, closed.ok) == (2, 0, 0, False)


def test_an_interrupted_recovery_does_not_change_what_was_acknowledged(hand: HandMade) -> None:
    hand.sealed(1, 2, [hand.started(1), hand.line(2)])
    hand.sealed(3, 6, [hand.gap(3, 5, acked_until=2), hand.outcome(6, of=1, status="unsettled")])
    hand.live(accepted=5, written=2, level="written")
    writer = verdict(hand)
    assert (writer.state, writer.lost, writer.unacknowledged) == ("died", 3, 3)


# -- alive ------------------------------------------------------------------------------------


def test_an_alive_writer_has_all_that_it_says_it_wrote(hand: HandMade) -> None:
    hand.open(1, hand.lines(1, 5), tail=hand.line(6)[:30])
    with hand.alive(accepted=9, written=5):
        writer = verdict(hand)
    assert (writer.state, writer.ok, writer.lost, writer.unwritten) == ("alive", True, 0, 4)
    assert (writer.torn_bytes, writer.proves) == (0, "exact")
    assert writer.sentence() == "alive (pid 4242): all 5 found; 4 more accepted and not written yet"


def test_an_alive_writer_that_wrote_on_after_the_counters_were_read_is_ok(hand: HandMade) -> None:
    hand.open(1, hand.lines(1, 8))
    with hand.alive(accepted=6, written=5):
        writer = verdict(hand)
    assert (writer.ok, writer.accepted, writer.unwritten) == (True, 8, 0)


def test_records_missing_under_an_alive_writer_are_lost(hand: HandMade) -> None:
    hand.open(3, hand.lines(3, 5))
    with hand.alive(accepted=6, written=6):
        writer = verdict(hand)
    assert (writer.ok, writer.lost) == (False, 3)


def test_an_alive_writer_answers_for_what_it_wrote_not_only_for_what_it_synced(
    hand: HandMade,
) -> None:
    hand.open(1, hand.lines(1, 4))
    with hand.alive(accepted=7, written=6, synced=3):
        writer = verdict(hand)
    assert (writer.state, writer.found, writer.lost, writer.ok) == ("alive", 4, 2, False)
    assert writer.unwritten == 1


def test_verifying_leaves_no_lock_behind(hand: HandMade) -> None:
    hand.open(1, hand.lines(1, 1))
    hand.live(1)
    verdict(hand)
    with hand.alive(1):  # takes the exclusive lock without waiting
        assert verdict(hand).state == "alive"


def test_a_short_write_being_cut_back_is_read_again_before_it_is_called_damage(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hand.open(1, hand.lines(1, 2), tail=b"half a batch\n")
    real = _verify.open_segment
    looks: list[int] = []

    def cut_back(root: Path, name: SegmentName) -> Any:
        looks.append(1)
        if len(looks) == 2:
            path.write_bytes(b"".join(hand.lines(1, 3)))
        return real(root, name)

    monkeypatch.setattr(_verify, "open_segment", cut_back)
    with hand.alive(3):
        writer = verdict(hand)
    assert (writer.ok, writer.found, writer.torn_bytes) == (True, 3, 0)


def test_a_writer_that_begins_while_we_look_is_not_an_orphan(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand.open(1, hand.lines(1, 2))
    real = _verify._live
    looks: list[int] = []

    def late(root: Path, writers: list[str], refused: dict[str, Problem]) -> Any:
        looks.append(1)
        return {} if len(looks) == 1 else real(root, writers, refused)

    monkeypatch.setattr(_verify, "_live", late)
    with hand.alive(2):
        assert verdict(hand).state == "alive"


def test_a_writer_that_closes_while_we_look_is_followed_to_its_sealed_name(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hand.open(1, hand.lines(1, 4))
    real = _verify.open_segment

    def sealing(root: Path, name: SegmentName) -> Any:
        if path.exists():
            os.rename(path, path.parent / str(SegmentName(WRITER, 1, 4)))
        return real(root, name)

    monkeypatch.setattr(_verify, "open_segment", sealing)
    with hand.alive(4):
        writer = verdict(hand)
    assert (writer.ok, writer.found) == (True, 4)


def test_a_live_file_that_goes_while_we_look_is_a_clean_close(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand.sealed(1, 2)
    hand.live(2)

    def gone(path: Path) -> bool:
        path.unlink()
        raise FileNotFoundError(path)

    monkeypatch.setattr(_verify, "is_locked", gone)
    assert verdict(hand).state == "closed"


def test_a_dead_writer_that_is_being_recovered_is_not_called_alive(hand: HandMade) -> None:
    hand.open(1, hand.lines(1, 4))
    hand.live(6)
    disk = FaultyFileSystem()
    with disk.hang("sync") as hang:
        recovery = threading.Thread(target=recover, args=(hand.root,), kwargs={"fs": disk})
        recovery.start()
        assert hang.entered.wait(20)
        during = verdict(hand)
    recovery.join()
    assert (during.state, during.ok, during.lost) == ("died", False, 2)
    assert during.recoverer == os.getpid()
    assert during.sentence().endswith(f"process {os.getpid()} is recovering it now")
    assert verdict(hand).state == "recovered"


def test_a_recovery_that_was_killed_leaves_a_dead_writer(hand: HandMade) -> None:
    hand.open(1, hand.lines(1, 4))
    hand.live(4)
    disk = FaultyFileSystem()
    disk.kill(1)
    with pytest.raises(Killed):
        recover(hand.root, fs=disk)
    left = verdict(hand)
    assert (left.state, left.recoverer, left.lost) == ("died", None, 0)
    assert "run litellm-ledger recover" in left.sentence()


def test_an_empty_segment_that_its_writer_removes_while_we_look_is_no_problem(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand.sealed(1, 4)
    path = hand.open(5, [])
    real = _verify.open_segment

    def closing(root: Path, name: SegmentName) -> Any:
        path.unlink(missing_ok=True)
        return real(root, name)

    monkeypatch.setattr(_verify, "open_segment", closing)
    with hand.alive(4):
        writer = verdict(hand)
    assert (writer.ok, writer.found, writer.problems) == (True, 4, [])


# -- the whole ---------------------------------------------------------------------------------


def test_one_bad_writer_makes_the_ledger_not_ok(hand: HandMade) -> None:
    hand.sealed(1, 3)
    HandMade(hand.root, OTHER_WRITER).sealed(2, 3)
    found = Ledger(hand.root).verify()
    assert [writer.ok for writer in found.writers] == [True, False]
    assert (found.ok, found.total("found"), found.total("lost")) == (False, 5, 1)


def test_the_json_form_has_every_count(hand: HandMade) -> None:
    spoil(hand.sealed(1, 3), line=1)
    plain = Ledger(hand.root).verify().to_dict()
    (writer,) = plain["writers"]
    assert set(plain) == {
        "ok",
        "complete",
        "path",
        "writers",
        "recovery",
        "archive",
        "cannot_prove",
    }
    assert (writer["ok"], writer["clean"], writer["lost"], writer["found"]) == (False, True, 1, 2)
    assert writer["problems"][0]["offset"] == len(hand.line(1))


def test_live_counters_of_a_newer_version_are_refused(hand: HandMade) -> None:
    path = hand.live(3)
    path.write_bytes(b"llmledg2" + path.read_bytes()[8:])
    with pytest.raises(UnsupportedFormat, match="version 2"):
        Ledger(hand.root).verify()
