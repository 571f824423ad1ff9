"""Verify: what is lost, what is damaged, what can be proved, for every way a writer can end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
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


def verdict(hand: HandMade) -> WriterVerdict:
    (only,) = Ledger(hand.root).verify().writers
    return only


def check(hand: HandMade, says: str = "", **expected: Any) -> None:
    """Compare the verdict; ``what``, ``lengths`` and ``details`` are those of its problems."""
    writer = verdict(hand)
    seen: dict[str, Any] = {
        "what": [problem.what for problem in writer.problems],
        "lengths": [problem.length for problem in writer.problems],
        "details": [problem.detail for problem in writer.problems],
    }
    assert {name: seen.get(name, getattr(writer, name, None)) for name in expected} == expected
    assert says in writer.sentence()


# -- what is there, and what it proves ----------------------------------------------------------


def unsettled(hand: HandMade, seq: int, of: int) -> bytes:
    return hand.outcome(seq, of=of, status="unsettled")


def half_recovered(hand: HandMade, acked_until: int | None = None, **live: Any) -> None:
    hand.sealed(1, 2, [hand.started(1), hand.line(2)])
    hand.sealed(3, 6, [hand.gap(3, 5, acked_until=acked_until), unsettled(hand, 6, of=1)])
    hand.live(accepted=5, **live)


def garbled(hand: HandMade, counters: bytes) -> None:
    (hand.root / LIVE / f"{WRITER}.live").write_bytes(counters)


def copied(hand: HandMade) -> None:
    """Two copies of three lines; the started one is damaged in the first."""
    lines = [hand.started(1), hand.outcome(2, of=1), hand.line(3)]
    spoil(hand.sealed(1, 3, lines), line=0)
    hand.sealed(1, 4, [*lines, hand.line(4)])


UNDECIDED = "for 5 of these the ledger does not say if they were acknowledged"

VERDICTS: dict[str, tuple[Callable[[HandMade], object], dict[str, Any]]] = {
    "a segment missing in the middle": (
        lambda hand: (hand.sealed(1, 3), hand.sealed(6, 7)),
        {"found": 5, "lost": 2, "ok": False, "says": "5 found of 7, 2 LOST"},
    ),
    "a first segment missing": (lambda hand: hand.sealed(4, 5), {"lost": 3}),
    "segments that overlap": (
        lambda hand: (hand.sealed(1, 5), hand.sealed(3, 7)),
        {"ok": True, "found": 7, "accepted": 7, "what": []},
    ),
    "damage in one of two copies": (
        lambda hand: (spoil(hand.sealed(1, 5), line=3), hand.sealed(3, 7)),
        {"lost": 0, "ok": False, "what": ["damaged"]},
    ),
    "a sealed segment cut short": (
        lambda hand: hand.sealed(1, 4, hand.lines(1, 3)),
        {
            "accepted": 4,
            "lost": 1,
            "ok": False,
            "what": ["misnamed"],
            "details": ["ends with number 3, its name says 4"],
        },
    ),
    "a sealed segment with more than its name says": (
        lambda hand: hand.sealed(1, 2, hand.lines(1, 3)),
        {"what": ["misnamed"]},
    ),
    "a torn end of a sealed segment": (
        lambda hand: hand.sealed(1, 2, [*hand.lines(1, 2), b'{"torn']),
        {"torn_bytes": 0, "ok": False, "what": ["damaged"]},
    ),
    "a line dropped without a trace": (
        lambda hand: hand.sealed(1, 3, [hand.line(1), hand.line(3)]),
        {"lost": 1, "what": ["damaged"], "lengths": [0]},
    ),
    "a segment that cannot be read": (
        lambda hand: (hand.root / SEGMENTS / str(SegmentName(WRITER, 1, 2))).mkdir(),
        {"ok": False, "what": ["unreadable"]},
    ),
    "a recovered loss": (
        lambda hand: (hand.sealed(1, 3), hand.sealed(4, 9, [hand.gap(4, 8), hand.line(9)])),
        {"state": "recovered", "found": 4, "lost": 5, "ok": False},
    ),
    "records within a gap": (
        lambda hand: (hand.sealed(1, 5, [hand.line(1), hand.gap(2, 5)]), hand.sealed(3, 4)),
        {"lost": 2},
    ),
    "records within a gap that says what was acknowledged": (
        lambda hand: (
            hand.sealed(1, 8, [*hand.lines(1, 3), hand.gap(4, 8, acked_until=5)]),
            hand.sealed(4, 5),
            hand.sealed(7, 7),
        ),
        {"lost": 2, "unacknowledged": 2, "ok": True},
    ),
    "a gap that says what was acknowledged, without counters": (
        lambda hand: hand.sealed(
            1, 9, [*hand.lines(1, 3), hand.gap(4, 8, acked_until=5), hand.line(9)]
        ),
        {"state": "recovered", "lost": 5, "unacknowledged": 3, "undecided": 0, "ok": False},
    ),
    "unsettled calls alone": (
        lambda hand: hand.sealed(
            1, 4, [*map(hand.started, (1, 2)), unsettled(hand, 3, of=1), unsettled(hand, 4, of=2)]
        ),
        {"ok": True, "state": "recovered", "unsettled": 2, "in_flight": 0},
    ),
    "an unsettled call with a real outcome": (
        lambda hand: hand.sealed(
            1, 3, [hand.started(1), hand.outcome(2, of=1), unsettled(hand, 3, of=1)]
        ),
        {"unsettled": 0},
    ),
    "what was removed on purpose": (
        lambda hand: hand.sealed(
            1, 9, [hand.gap(1, 4, "erased"), hand.gap(5, 8, "expired"), hand.line(9)]
        ),
        {"ok": True, "removed": 8, "lost": 0},
    ),
    "a death with everything written": (
        lambda hand: (hand.open(1, hand.lines(1, 5), tail=b"torn\n{"), hand.live(accepted=5)),
        {"ok": True, "lost": 0, "torn_bytes": 6, "what": []},
    ),
    "a death before the first record was written": (
        lambda hand: hand.live(accepted=3, written=0),
        {"found": 0, "lost": 3, "proves": "exact", "ok": False},
    ),
    "counters of another boot behind the files": (
        lambda hand: (hand.open(1, hand.lines(1, 5)), hand.live(accepted=2, boot=1)),
        {"accepted": 5, "lost": 0, "ok": True, "says": "none known to be lost (cannot be proved)"},
    ),
    "calls in flight at the end": (
        lambda hand: (
            hand.open(1, [*map(hand.started, (1, 2)), hand.outcome(3, of=1), hand.line(4)]),
            hand.live(accepted=4, oldest=2),
        ),
        {"in_flight": 1, "unsettled": 0, "ok": True},
    ),
    "a second copy of a started line": (
        lambda hand: (
            hand.sealed(1, 3, [hand.line(1), hand.started(2), hand.outcome(3, of=2)]),
            hand.sealed(2, 2, [hand.started(2)]),
        ),
        {"in_flight": 0},
    ),
    "a started line found after its outcome": (copied, {"in_flight": 0, "found": 4}),
    "a recovery that was interrupted": (
        half_recovered,
        {"state": "died", "lost": 3, "unsettled": 1},
    ),
    "a recovery that was interrupted, and acknowledgements": (
        lambda hand: half_recovered(hand, acked_until=2, written=2, level="written"),
        {"state": "died", "lost": 3, "unacknowledged": 3},
    ),
    "garbled counters without records": (
        lambda hand: garbled(hand, b"short"),
        {"proves": "nothing", "lost": 0, "written": None, "says": "nothing is known"},
    ),
    "garbled counters with records": (
        lambda hand: (garbled(hand, b"x" * 64), hand.sealed(1, 2), hand.sealed(4, 4)),
        {"proves": "at_least", "lost": 1},
    ),
}


@pytest.mark.parametrize(("build", "expected"), VERDICTS.values(), ids=VERDICTS)
def test_the_verdict_on(
    hand: HandMade, build: Callable[[HandMade], object], expected: dict[str, Any]
) -> None:
    build(hand)
    check(hand, **expected)


def test_a_loss_without_a_word_on_acknowledgement_counts_as_acknowledged(hand: HandMade) -> None:
    hand.sealed(1, 8, [*hand.lines(1, 3), hand.gap(4, 8)])
    check(hand, says=UNDECIDED, lost=5, unacknowledged=0, undecided=5, ok=False, complete=False)


# -- closed cleanly ---------------------------------------------------------------------------


def test_a_closed_writer_with_all_its_numbers_is_ok(hand: HandMade) -> None:
    hand.sealed(1, 3)
    hand.sealed(4, 5)
    found = Ledger(hand.root).verify()
    (writer,) = found.writers
    assert found.ok
    assert (writer.state, writer.clean, writer.proves) == ("closed", True, "exact")
    assert (writer.accepted, writer.found, writer.lost, writer.written) == (5, 5, 0, None)
    assert writer.sentence() == "closed, or recovered: all 5 found"
    assert any("Files deleted by hand" in text for text in found.cannot_prove())


def test_a_damaged_line_is_lost_and_named_by_file_and_offset(hand: HandMade) -> None:
    path = hand.sealed(1, 4)
    spoil(path, line=1)
    writer = verdict(hand)
    (problem,) = writer.problems
    length = len(hand.line(1))
    assert (writer.found, writer.lost, writer.ok) == (3, 1, False)
    assert (problem.file, problem.what) == (f"{SEGMENTS}/{path.name}", "damaged")
    assert (problem.offset, problem.length, problem.lines) == (length, length, 1)


# -- recovered --------------------------------------------------------------------------------


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


def test_died_in_another_boot_proves_no_more_than_at_least(hand: HandMade) -> None:
    hand.open(1, hand.lines(1, 5))
    hand.live(accepted=7, boot=1)
    found = Ledger(hand.root).verify()
    (writer,) = found.writers
    assert (writer.proves, writer.lost) == ("at_least", 2)
    assert "at least 2 LOST" in writer.sentence()
    assert "more records may have been accepted" in found.cannot_prove()[0]


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


def test_a_segment_that_was_deleted_is_a_loss_at_every_level(hand: HandMade) -> None:
    hand.sealed(3, 5)
    with hand.alive(accepted=8, written=5, level="written"):
        alive = verdict(hand)
    assert (alive.lost, alive.unacknowledged, alive.undecided, alive.ok) == (2, 0, 0, False)
    (hand.root / LIVE / f"{WRITER}.live").unlink()
    closed = verdict(hand)
    assert (closed.lost, closed.unacknowledged, closed.undecided, closed.ok) == (2, 0, 0, False)


# -- alive ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "last", "torn", "counters", "expected"),
    [
        (1, 5, 30, {"accepted": 9, "written": 5}, {"ok": True, "lost": 0, "unwritten": 4}),
        # It wrote on after the counters were read.
        (1, 8, 0, {"accepted": 6, "written": 5}, {"ok": True, "accepted": 8, "unwritten": 0}),
        (3, 5, 0, {"accepted": 6, "written": 6}, {"ok": False, "lost": 3}),
        # It answers for what it wrote, not only for what it synced.
        (
            *(1, 4, 0, {"accepted": 7, "written": 6, "synced": 3}),
            {"found": 4, "lost": 2, "ok": False, "unwritten": 1},
        ),
    ],
)
def test_an_alive_writer_has_all_that_it_says_it_wrote(
    hand: HandMade,
    first: int,
    last: int,
    torn: int,
    counters: dict[str, int],
    expected: dict[str, Any],
) -> None:
    hand.open(first, hand.lines(first, last), tail=hand.line(last + 1)[:torn])
    with hand.alive(**counters):
        check(hand, state="alive", torn_bytes=0, proves="exact", **expected)
        if torn:
            more = "4 more accepted and not written yet"
            assert verdict(hand).sentence() == f"alive (pid 4242): all 5 found; {more}"


def test_verifying_leaves_no_lock_behind(hand: HandMade) -> None:
    hand.open(1, hand.lines(1, 1))
    hand.live(1)
    verdict(hand)
    with hand.alive(1):  # takes the exclusive lock without waiting
        assert verdict(hand).state == "alive"


def before_each_opening(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do this whenever verify is about to open a segment."""
    real = _verify.open_segment

    def opening(root: Path, name: SegmentName) -> Any:
        act()
        return real(root, name)

    monkeypatch.setattr(_verify, "open_segment", opening)


def test_a_short_write_being_cut_back_is_read_again_before_it_is_called_damage(
    hand: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hand.open(1, hand.lines(1, 2), tail=b"half a batch\n")
    looks: list[int] = []

    def cut_back() -> None:
        looks.append(1)
        if len(looks) == 2:
            path.write_bytes(b"".join(hand.lines(1, 3)))

    before_each_opening(monkeypatch, cut_back)
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

    def seal() -> None:
        if path.exists():
            path.rename(path.parent / str(SegmentName(WRITER, 1, 4)))

    before_each_opening(monkeypatch, seal)
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
    before_each_opening(monkeypatch, lambda: path.unlink(missing_ok=True))
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
        "adjustments",
        "anchors",
        "erased",
        "undone",
        "pruned",
        "cannot_prove",
    }
    assert (writer["ok"], writer["clean"], writer["lost"], writer["found"]) == (False, True, 1, 2)
    assert writer["problems"][0]["offset"] == len(hand.line(1))


def test_live_counters_of_a_newer_version_are_refused(hand: HandMade) -> None:
    path = hand.live(3)
    path.write_bytes(b"llmledg2" + path.read_bytes()[8:])
    with pytest.raises(UnsupportedFormat, match="version 2"):
        Ledger(hand.root).verify()
