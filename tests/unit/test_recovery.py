"""Recovery, one kind of death or damage a test."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.disks import QUICK
from tests.ledger_by_hand import flip, framed, newer
from tests.ledgers import (
    OTHER,
    WRITER,
    assert_finished,
    call,
    found,
    gap,
    kept,
    line,
    lines,
    put,
    put_live,
    segment_names,
)
from tests.runs import at_once

from litellm_ledger._errors import LedgerPathError, UnsupportedFormat
from litellm_ledger._maintenance.recover import RecoveredWriter, recover
from litellm_ledger._records.layout import LIVE, RECOVERY, SEGMENTS, SegmentName, live_name
from litellm_ledger._records.line import decode, encode
from litellm_ledger._records.record import UsageRecord
from litellm_ledger._reports.ledger import Ledger
from litellm_ledger._storage.filesystem import REAL
from litellm_ledger._storage.live_file import ACCEPTED, LiveFile, lock, unlock
from litellm_ledger._storage.segment import SegmentLog
from litellm_ledger.testing import FaultyFileSystem


def damaged(seq: int) -> bytes:
    return flip(line(seq))


def everything(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def recover_one(root: Path) -> RecoveredWriter:
    (writer,) = recover(root).writers
    assert writer.error is None
    assert_finished(root)
    return writer


def recovered(root: Path, content: Sequence[bytes], accepted: int, **live: Any) -> RecoveredWriter:
    """Recover a writer that died with this in its open segment."""
    put(root, content, 1)
    put_live(root, accepted, **live)
    return recover_one(root)


def counted(done: RecoveredWriter, names: Iterable[str]) -> dict[str, object]:
    """The fields of these names; of those that list files, how many."""
    found = {name: getattr(done, name) for name in names}
    return {name: len(v) if isinstance(v, tuple) else v for name, v in found.items()}


def without(last: int, *gone: int) -> dict[int, bytes | str]:
    """What is there of a number of lines, of which some are given up."""
    return {**dict(enumerate(lines(1, last), 1)), **dict.fromkeys(gone, "quarantined")}


# -- death ---------------------------------------------------------------------------------------


def test_seals_an_open_segment_that_is_whole(root: Path) -> None:
    done = recovered(root, lines(1, 5), 5)
    assert done == RecoveredWriter(
        WRITER, "exact", sealed=(f"{WRITER}.0000000000000001-0000000000000005.jsonl",)
    )
    assert list(found(root).values()) == lines(1, 5)
    assert kept(root) == {}


@pytest.mark.parametrize("tail", [line(4)[:50], line(4)[:-1], damaged(4)])
def test_a_torn_tail_is_cut_after_it_was_copied(root: Path, tail: bytes) -> None:
    done = recovered(root, [*lines(1, 3), tail], 4)
    assert (done.torn_bytes, done.lost, done.exact, done.quarantined) == (len(tail), 1, True, ())
    assert found(root) == {**without(3), 4: "lost"}
    assert list(kept(root).values()) == [tail]


def test_says_exactly_what_was_accepted_and_never_arrived(root: Path) -> None:
    done = recovered(root, lines(1, 3), 10, written=3)
    assert (done.lost, done.exact) == (7, True)
    assert (root / SEGMENTS / f"{WRITER}.0000000000000004-0000000000000010.jsonl").read_bytes() == (
        gap(4, 10)
    )


@pytest.mark.parametrize(
    ("level", "boot", "until", "unacknowledged"),
    [
        (None, "this", None, 0),
        ("queued", "this", 8, 0),
        ("written", "this", 4, 4),
        ("synced", "this", 4, 4),
        ("queued", "other", 8, 0),
        ("written", "other", 8, 0),
        ("synced", "other", 3, 5),
    ],
)
def test_the_gap_says_up_to_where_records_had_been_acknowledged(
    root: Path, level: Any, boot: Any, until: int | None, unacknowledged: int
) -> None:
    done = recovered(root, lines(1, 3), 8, written=4, synced=3, boot=boot, level=level)
    assert (done.lost, done.unacknowledged) == (5, unacknowledged)
    assert (root / SEGMENTS / segment_names(root)[1]).read_bytes() == gap(4, 8, acked_until=until)
    (verdict,) = Ledger(root).verify().writers
    assert (verdict.lost, verdict.unacknowledged) == (5, unacknowledged)
    assert verdict.undecided == (5 if level is None else 0)
    assert verdict.ok == (unacknowledged == 5)


def test_a_hole_that_recovery_fills_says_what_was_acknowledged_too(root: Path) -> None:
    put(root, lines(1, 2), 1, 2)
    put(root, lines(5, 6), 5)
    put_live(root, 9, written=6, level="written")
    done = recover_one(root)
    assert (done.lost, done.unacknowledged) == (5, 3)
    (verdict,) = Ledger(root).verify().writers
    assert (verdict.lost, verdict.unacknowledged, verdict.ok) == (5, 3, False)


def test_garbled_counters_say_nothing_of_acknowledgements(root: Path) -> None:
    put(root, lines(1, 2), 1, 2)
    put(root, lines(5, 6), 5)
    put_live(root, 2 * 10**15, level="written")
    assert (recover_one(root).unacknowledged) == 0
    (verdict,) = Ledger(root).verify().writers
    assert (verdict.lost, verdict.unacknowledged, verdict.undecided) == (2, 0, 2)


def test_a_writer_that_never_accepted_anything_leaves_nothing(root: Path) -> None:
    (root / SEGMENTS).rmdir()
    put_live(root, 0)
    (done,) = recover(root).writers
    assert done == RecoveredWriter(WRITER, "exact")
    assert not list((root / LIVE).iterdir())


def test_settles_calls_in_flight_as_unsettled(root: Path) -> None:
    started = [
        line(3, "started", tags={"user": "ål"}, stream=True, provider="p", call="acompletion"),
        line(5, "started", attempt=2, call_id="mine"),
    ]
    done = recovered(root, [*call(1), started[0], line(4), started[1]], 5, oldest=3)
    assert done.unsettled == 2
    for seq, began in ((6, decode(started[0])), (7, decode(started[1]))):
        outcome = decode(found(root)[seq])  # type: ignore[arg-type]
        assert outcome == UsageRecord(
            id=f"{WRITER}-{seq:016d}",
            seq=seq,
            ts=began.ts,
            operation=began.operation,
            attempt=began.attempt,
            call=began.call,
            model=began.model,
            provider=began.provider,
            status="unsettled",
            usage_source="none",
            stream=began.stream,
            tags=began.tags,
            call_id=began.call_id,
        )
        assert outcome.cost is None
        assert outcome.total_tokens is None
        assert encode(outcome) == found(root)[seq]


def test_a_real_outcome_beats_an_unsettled_one(root: Path) -> None:
    # the counter was one step behind
    assert (
        recovered(
            root, [*call(1), line(3, "started"), line(4, op=3, status="error")], 4, oldest=1
        ).unsettled
        == 0
    )


def test_each_attempt_of_an_operation_is_settled_for_itself(root: Path) -> None:
    first, second = line(1, "started"), line(3, "started", op=1, attempt=2)
    recovered(root, [first, line(2, op=1, status="error"), second], 3, oldest=3)
    assert [decode(record).attempt for record in found(root).values()] == [1, 1, 2, 2]  # type: ignore[arg-type]


STARTED = [line(1, "started"), line(2)]
BODY = '{"v":1,"id":"%s-0000000000000001","seq":1,"kind":"started","model":7'  # no text


@pytest.mark.parametrize(
    ("segments", "accepted", "oldest", "lost", "unsettled"),
    [
        # Sealed segments are read from the oldest call in flight: call 1 is settled, it says.
        ([(STARTED, 1, 2), ([line(3, "started"), line(4)], 3, 4), ([line(5)], 5)], 5, 3, 0, 1),
        # After a failed sync: the file that failed stays open although later ones are sealed.
        (
            [
                ([*lines(1, 2), line(3, "started")], 1),
                ([line(3, "started")], 3, 3),
                ([line(4, op=3)], 4, 4),
            ],
            *(4, 0, 0, 0),
        ),
        # In an overlap, a call that has ended.
        ([([line(1), *call(2), line(4)], 1), (call(2), 2, 3)], 4, 1, 0, 0),
        # Number 4 was the outcome of call 1, and so nothing was in flight.
        ([(STARTED, 1, 2), ([line(3), damaged(4)], 3)], 4, 0, 1, 1),
        # Number 3 is damaged, and may have been the outcome of call 1.
        ([(STARTED, 1, 2), ([damaged(3), line(4)], 3)], 4, 0, 0, 1),
        # Another program began it.
        ([([framed((BODY % WRITER).encode())], 1)], 1, 1, 0, 1),
    ],
)
def test_calls_are_settled_that_may_have_been_in_flight(
    root: Path, segments: list[Any], accepted: int, oldest: int, lost: int, unsettled: int
) -> None:
    for segment in segments:
        put(root, *segment)
    put_live(root, accepted, oldest=oldest)
    done = recover_one(root)
    assert (done.lost, done.unsettled) == (lost, unsettled)


def test_looks_at_every_call_when_an_earlier_run_was_killed_after_setting_damage_aside(
    root: Path,
) -> None:
    put(root, [line(1, "started"), line(2)], 1, 2)
    put(root, [gap(3, 3, "quarantined"), line(4)], 3, 4)
    (root / RECOVERY / f"{WRITER}.{3:016d}.jsonl.open").write_bytes(damaged(3) + line(4))
    put_live(root, 4)
    done = recover_one(root)
    assert (done.lost, done.unsettled) == (0, 1)


def test_what_was_never_written_cannot_have_settled_a_call(root: Path) -> None:
    put(root, [b"not looked at\n"], 1, 2)
    put(root, [line(3, "started")], 3)
    put_live(root, 4, written=3, oldest=3)
    (done,) = recover(root).writers
    assert (done.error, done.lost, done.unsettled, done.quarantined) == (None, 1, 1, ())


def test_counters_from_before_a_restart_are_a_lower_bound(root: Path) -> None:
    put(root, [line(1, "started"), *lines(2, 3)], 1, 3)
    put(root, [line(4), line(5, "started")], 4)
    put_live(root, 2, boot="other")  # stale: the last page never reached the disk
    done = recover_one(root)
    assert (done.counters, done.exact, done.lost, done.unsettled) == ("stale", False, 0, 2)


@pytest.mark.parametrize("garbage", [b"", b"\0" * 64, b"x" * 64, b"llmledg1" + b"\xff" * 56])
def test_a_garbled_live_file_is_kept_and_its_counters_are_not_believed(
    root: Path, garbage: bytes
) -> None:
    put(root, [line(1, "started"), line(2)], 1)
    (root / LIVE / live_name(WRITER)).write_bytes(garbage)
    done = recover_one(root)
    assert (done.counters, done.lost, done.unsettled) == ("unknown", 0, 1)
    assert kept(root) == {live_name(WRITER): garbage}


def test_counters_that_contradict_each_other_are_not_believed(root: Path) -> None:
    assert recovered(root, lines(1, 2), 2, written=7).counters == "unknown"


def test_a_restart_does_not_hide_what_is_known_to_be_lost(root: Path) -> None:
    put(root, lines(1, 3), 1)
    put_live(root, 6, boot="other")
    assert counted(recover_one(root), ("counters", "lost")) == {"counters": "stale", "lost": 3}


def test_a_writer_that_died_before_its_first_segment_lost_what_it_accepted(root: Path) -> None:
    put_live(root, 2, written=0)
    assert recover_one(root).lost == 2
    assert found(root) == {1: "lost", 2: "lost"}


# -- damage --------------------------------------------------------------------------------------

NEVER_CUT = {"damaged": 0, "lost": 0, "quarantined": 1}
GIVEN_UP = {"damaged": 1, "lost": 0, "quarantined": 1}
STALE = lines(3, 5, writer=OTHER)
TORN = {"damaged": 0, "lost": 0, "quarantined": 0, "torn_bytes": len(b"".join(STALE))}
DAMAGE: dict[str, tuple[list[bytes], dict[str, int], dict[int, bytes | str]]] = {
    "a damaged first line": ([damaged(1), *lines(2, 3)], GIVEN_UP, without(3, 1)),
    "swapped lines": ([line(1), line(3), line(2)], NEVER_CUT, without(3)),
    "a dropped line": ([line(1), line(3)], GIVEN_UP, without(3, 2)),
    "a doubled line": ([*lines(1, 2), *lines(2, 3)], NEVER_CUT, without(3)),
    "a stale tail of another writer's": ([*lines(1, 2), *STALE], TORN, without(2)),
    "zeroed blocks": ([line(1), b"\0" * 300, line(2)], NEVER_CUT, without(2)),
    "a damaged line feed": ([line(1), line(2)[:-1] + b"\x1a", line(3)], GIVEN_UP, without(3, 2)),
}


@pytest.mark.parametrize(("content", "expected", "left"), DAMAGE.values(), ids=DAMAGE)
def test_every_valid_line_is_kept_in_spite_of(
    root: Path, content: list[bytes], expected: dict[str, int], left: dict[int, bytes | str]
) -> None:
    put(root, content, 1)
    put_live(root, len(left))
    assert counted(recover_one(root), expected) == expected
    assert found(root) == left
    assert list(found(root)) == sorted(left)


def test_a_damaged_line_in_the_middle_is_quarantined_never_cut(root: Path) -> None:
    content = [*lines(1, 3), damaged(4), *lines(5, 6)]
    original = put(root, content, 1)
    put_live(root, 6)
    done = recover_one(root)
    assert (done.damaged, done.lost, done.torn_bytes) == (1, 0, 0)
    assert done.quarantined == (original.name,)
    assert kept(root) == {original.name: b"".join(content)}
    whole = dict(enumerate(lines(1, 6), 1))
    assert found(root) == {**whole, 4: "quarantined"}


def test_an_open_segment_with_nothing_valid_goes_to_recovery(root: Path) -> None:
    original = put(root, [b"not a ledger\n"], 1)
    put_live(root, 0)
    done = recover_one(root)
    assert (done.torn_bytes, done.sealed) == (13, ())
    assert kept(root) == {original.name: b"not a ledger\n"}


def test_an_open_segment_with_nothing_at_all_is_removed(root: Path) -> None:
    recovered(root, [], 0)
    assert segment_names(root) == []
    assert kept(root) == {}


def test_a_damaged_sealed_segment_in_reach_is_written_anew_under_its_name(root: Path) -> None:
    content = [line(1), damaged(2), line(3)]
    original = put(root, content, 1, 3)
    put(root, lines(4, 4), 4)
    put_live(root, 4, oldest=1)
    done = recover_one(root)
    assert done.quarantined == (original.name,)
    assert kept(root) == {original.name: b"".join(content)}
    assert found(root)[2] == "quarantined"


def test_a_segment_that_may_have_moved_into_the_archive_is_not_called_lost(root: Path) -> None:
    (root / "archive").mkdir()
    (root / "archive" / "2026-01-02.parquet").touch()
    put(root, lines(3, 4), 3)
    put_live(root, 4)
    (done,) = recover(root).writers
    assert done.lost == 0
    assert list(found(root)) == [3, 4]


def test_a_sealed_segment_that_is_shorter_than_its_name_says_is_completed(root: Path) -> None:
    put(root, lines(1, 2), 1, 3)
    put_live(root, 3, boot="other")
    assert recover_one(root).damaged == 1
    assert found(root) == without(3, 3)


def test_a_segment_that_is_gone_is_stood_in_for(root: Path) -> None:
    put(root, lines(1, 2), 1, 2)
    put(root, lines(6, 7), 6)
    put_live(root, 7)
    assert recover_one(root).lost == 3
    assert found(root)[4] == "lost"


# -- what a failed sync or a stuck write left ----------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "quarantined"),
    [
        (lines(1, 5), (lines(4, 5), 4, 5), 0),  # rescued: both are sealed
        ([damaged(1), *lines(2, 3)], ([*lines(1, 2), damaged(3)], 1, 3), 2),
    ],
)
def test_copies_complete_each_other(
    root: Path, one: list[bytes], other: tuple[Any, ...], quarantined: int
) -> None:
    put(root, one, 1)
    put(root, *other)
    put_live(root, len(one))
    done = recover_one(root)
    assert (done.damaged, done.lost, len(done.quarantined)) == (0, 0, quarantined)
    assert list(found(root).values()) == lines(1, len(one))


def test_an_open_segment_whose_sealed_name_is_taken_moves_to_recovery(root: Path) -> None:
    original = put(root, lines(1, 3), 1)
    put(root, lines(1, 3), 1, 3)
    put_live(root, 3)
    done = recover_one(root)
    assert done.quarantined == (original.name,)
    assert list(found(root).values()) == lines(1, 3)


def test_recovers_what_a_log_with_a_failed_sync_leaves(root: Path) -> None:
    disk = FaultyFileSystem(QUICK)
    live = LiveFile(disk, root, WRITER)
    log = SegmentLog(disk, root, WRITER, cells=live.cells)
    log.append(1, lines(1, 3))
    disk.fail("sync")
    log.sync()
    log.append(4, lines(4, 6))
    live.cells[ACCEPTED] = 6
    live.release()
    done = recover_one(root)
    assert done.lost == 0
    assert list(found(root).values()) == lines(1, 6)


def test_a_sync_that_fails_during_recovery_is_not_tried_again(root: Path) -> None:
    path = put(root, [*lines(1, 3), b"torn"], 1)
    put_live(root, 3)
    disk = FaultyFileSystem(QUICK)
    disk.fail("sync", nth=2)  # the first is the copy of the tail
    (done,) = recover(root, fs=disk).writers
    assert done.error is None
    assert_finished(root)
    assert list(found(root).values()) == lines(1, 3)
    assert [c.path for c in disk.calls if c.operation == "sync"].count(path) == 1


# -- who is left alone ---------------------------------------------------------------------------


def test_never_touches_a_writer_that_is_alive(root: Path) -> None:
    live = LiveFile(REAL, root, WRITER)
    put(root, [*lines(1, 2), b"half a li"], 1)
    report = recover(root)
    assert (report.writers, report.skipped) == ((), (WRITER,))
    assert segment_names(root) == [f"{WRITER}.0000000000000001.jsonl.open"]
    live.release()
    assert len(recover(root).writers) == 1


def test_never_touches_its_own_writers(root: Path) -> None:
    put(root, lines(1, 2), 1)
    put_live(root, 2)
    assert recover(root, own={WRITER}).skipped == (WRITER,)
    assert segment_names(root) == [f"{WRITER}.0000000000000001.jsonl.open"]


def test_the_loser_of_the_lock_skips(root: Path) -> None:
    put(root, lines(1, 2), 1)
    held = lock(put_live(root, 2))
    assert held is not None
    assert recover(root).skipped == (WRITER,)
    unlock(held)
    recover_one(root)


def test_a_live_file_finished_by_another_run_between_open_and_lock_is_left_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root, lines(1, 2), 1)
    path = put_live(root, 2)

    def slow_lock(where: Path) -> int | None:
        held = lock(where)
        os.unlink(where)  # the winner of an earlier race was just done
        return held

    monkeypatch.setattr("litellm_ledger._maintenance.recover.lock", slow_lock)
    assert recover(root).writers == ()
    assert not path.exists()


def test_two_runs_at_once_do_the_work_once(root: Path) -> None:
    for number in range(8):
        writer = f"20260102T030405Z-{number:016x}"
        put(root, [*lines(1, 3, writer), b"torn"], 1, writer=writer)
        put_live(root, 5, written=3, writer=writer)
    together = threading.Barrier(4)
    finished: list[RecoveredWriter] = []

    def run() -> None:
        together.wait()
        finished.extend(recover(root).writers)

    at_once(run, 4)
    finished.extend(recover(root).writers)
    assert sorted(done.writer for done in finished) == sorted({d.writer for d in finished})
    assert len(finished) == 8
    for done in finished:
        assert (done.error, done.lost, done.torn_bytes) == (None, 2, 4)
        assert_finished(root, done.writer)


def test_an_open_segment_without_a_live_file_is_reported_and_left(root: Path) -> None:
    path = put(root, lines(1, 2), 1)
    assert recover(root).orphans == (path.name,)
    assert path.exists()


def test_one_writer_that_cannot_be_finished_does_not_stop_the_others(root: Path) -> None:
    for writer in (WRITER, OTHER):
        put(root, lines(1, 2, writer), 1, writer=writer)
        put_live(root, 2, writer=writer)
    disk = FaultyFileSystem(QUICK)
    disk.fail("rename", error=errno.ENOSPC)
    first, second = recover(root, fs=disk).writers
    assert first.error is not None
    assert "No space left" in first.error
    assert second.error is None
    assert_finished(root, OTHER)
    recover_one(root)


def test_leftover_temporary_files_of_a_dead_writer_are_removed(root: Path) -> None:
    put(root, lines(1, 2), 1)
    leftover = root / SEGMENTS / f"{SegmentName(WRITER, 2, 2)}.1.tmp"
    leftover.write_bytes(line(2))
    stranger = root / SEGMENTS / f"{SegmentName(OTHER, 2, 2)}.1.tmp"
    stranger.write_bytes(b"")
    put_live(root, 2)
    (done,) = recover(root).writers
    assert done.error is None
    assert not leftover.exists()
    assert stranger.exists()


def test_a_live_file_that_never_got_its_name_is_removed_when_it_is_old_and_free(
    root: Path,
) -> None:
    held, free, young = (root / LIVE / f"{name}.new" for name in (WRITER, OTHER, OTHER[:-1] + "1"))
    stranger = root / LIVE / "notes.new"
    for path in (held, free, young, stranger):
        path.write_bytes(b"")
    for path in (held, free, stranger):
        os.utime(path, (0, 0))
    maker = lock(held)
    assert maker is not None
    recover(root)
    assert [path.exists() for path in (held, free, young, stranger)] == [True, False, True, True]
    unlock(maker)
    recover(root)
    assert not held.exists()


def test_a_second_run_finds_nothing_to_do(root: Path) -> None:
    recovered(root, [line(1, "started"), damaged(2), line(3), b"x"], 9, oldest=1)
    before = everything(root)
    assert recover(root).writers == ()
    assert everything(root) == before


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["open", "sealed", "middle", "live"])
def test_a_ledger_of_a_newer_format_is_refused_untouched(root: Path, where: str) -> None:
    put(root, lines(1, 2), 1)
    put_live(root, 2)
    match where:
        case "open":
            put(root, [newer(line(1, writer=OTHER))], 1, writer=OTHER)
        case "sealed":
            put(root, [newer(line(1, writer=OTHER))], 1, 1, writer=OTHER)
        case "middle":
            put(root, [line(1), newer(line(2))], 1)
        case "live":
            (root / LIVE / live_name(OTHER)).write_bytes(b"llmledg2" + b"\0" * 100)
    before = everything(root)
    with pytest.raises(UnsupportedFormat, match=r"version 2.*upgrade"):
        recover(root)
    assert everything(root) == before


@pytest.mark.parametrize("what", ["nothing", "file"])
def test_a_directory_that_is_none_is_refused_with_its_name(tmp_path: Path, what: str) -> None:
    where = tmp_path / "ledger"
    if what == "file":
        where.touch()
    with pytest.raises(LedgerPathError, match=str(where)):
        recover(where)
