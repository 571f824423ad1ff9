"""What is shipped of a ledger: dense, each number once, and nothing that a power cut could take."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import pytest
from tests.ledger_by_hand import WRITER, HandMade, flip, framed, newer, spoil

from litellm_ledger import UnsupportedFormat
from litellm_ledger._maintenance.acknowledge import acknowledge
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._records.layout import ARCHIVE, SEGMENTS, SegmentName
from litellm_ledger._shipping.source import Source, Stretch

CALLS = 9


def source(root: Path) -> Source:
    made = Source(root)
    made.lookout.look()
    return made


def batches(made: Source, writer: str = WRITER, *, lines: int = 3, first: int = 1) -> list[Stretch]:
    """Everything that can be shipped of a writer, in batches."""
    found = []
    while True:
        one = made.read(writer, first, lines)
        if one.last < first:
            assert not one.lines
            return found
        assert one.first == first
        found.append(one)
        first = one.last + 1


def raw(parts: Iterable[Stretch]) -> list[bytes]:
    return [line for one in parts for line in one.lines]


def damage(parts: Iterable[Stretch]) -> list[tuple[int, int]]:
    return [span for one in parts for span in one.damaged]


def test_a_closed_writer_is_read_whole(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    lines = hand.lines(1, CALLS)
    hand.sealed(1, 4, lines[:4])
    hand.sealed(5, CALLS, lines[4:])
    made = source(tmp_path)
    assert made.lookout.standings[WRITER].closed
    assert raw(batches(made)) == lines
    assert raw(batches(source(tmp_path), first=6)) == lines[5:]
    assert raw(batches(made, first=3)) == lines[2:]  # again, from before where it was


def test_a_living_writer_is_read_as_far_as_it_is_synced(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.open(1, hand.lines(1, CALLS))
    with hand.alive(CALLS, CALLS, synced=5):
        made = source(tmp_path)
        assert raw(batches(made)) == hand.lines(1, 5)
        with hand.live(CALLS, CALLS, synced=7).open():
            made.lookout.look(afresh=True)
        assert raw(batches(made, first=6)) == hand.lines(6, 7)
        assert not made.lookout.standings[WRITER].closed


def test_a_dead_writer_is_read_as_far_as_it_was_synced_until_it_is_recovered(
    tmp_path: Path,
) -> None:
    hand = HandMade(tmp_path)
    lines = [hand.started(1), *hand.lines(2, 6)]
    hand.open(1, lines)
    hand.live(8, 6, synced=4, oldest=1)
    made = source(tmp_path)
    assert raw(batches(made)) == lines[:4]
    assert made.lookout.dead() == [WRITER]
    recover(tmp_path)
    made.lookout.look()
    rest = batches(made, first=5)
    assert raw(rest)[:2] == lines[4:]
    assert raw(rest)[2] == hand.gap(7, 8, "lost")
    assert b'"status":"unsettled"' in raw(rest)[3]
    assert rest[-1].last == 9


def test_a_number_is_never_given_out_before_recovery_has_had_its_say(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    path = hand.open(1, hand.lines(1, 6))
    spoil(path, 2)
    hand.live(6, synced=6)
    parts = batches(made := source(tmp_path))
    assert raw(parts) == hand.lines(1, 2)
    assert "recover" in (made.read(WRITER, 3).held or "")
    recover(tmp_path)
    made.lookout.look()
    assert raw(batches(made, first=3)) == [hand.gap(3, 3, "quarantined"), *hand.lines(4, 6)]


def test_a_writer_without_a_live_file_that_is_not_sealed_waits(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 3)
    hand.open(4, hand.lines(4, 6))
    made = source(tmp_path)
    made.lookout.look(afresh=True)
    assert raw(batches(made)) == hand.lines(1, 3)
    assert "live file" in (made.read(WRITER, 4).held or "")


@pytest.mark.parametrize("which", [0, 3, 4, 7, 8])
def test_damage_in_a_closed_writer_is_counted_and_passed(tmp_path: Path, which: int) -> None:
    hand = HandMade(tmp_path)
    lines = hand.lines(1, CALLS)
    spoil(hand.sealed(1, CALLS, lines), which)
    parts = batches(source(tmp_path))
    assert raw(parts) == lines[:which] + lines[which + 1 :]
    assert damage(parts) == [(which + 1, which + 1)]
    assert parts[-1].last == CALLS


def test_damage_in_a_living_writer_is_passed_too(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    spoil(hand.sealed(1, 4), 1)
    hand.open(5, hand.lines(5, 6))
    with hand.alive(6):
        parts = batches(source(tmp_path))
    assert damage(parts) == [(2, 2)]
    assert parts[-1].last == 6


def test_a_segment_that_is_gone_is_damage_in_full(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 2)
    gone = hand.sealed(3, 6)
    hand.sealed(7, 8)
    made = source(tmp_path)
    assert raw([made.read(WRITER, 1, 2)]) == hand.lines(1, 2)
    gone.unlink()  # after it was listed
    parts = batches(made, first=3)
    assert damage(parts) == [(3, 6)]
    assert raw(parts) == hand.lines(7, 8)


def test_what_comes_after_it_was_missed_is_no_damage(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 2)
    hand.sealed(5, 6)
    made = source(tmp_path)
    hand.sealed(3, 4)  # as a recovery that is at work, or a backup that is put back
    assert raw(batches(made)) == hand.lines(1, 6)


def test_a_line_behind_damage_that_took_its_line_feed_is_found_as_recovery_finds_it(
    tmp_path: Path,
) -> None:
    hand = HandMade(tmp_path)
    lines = hand.lines(1, 5)
    hand.sealed(1, 5, [*lines[:2], lines[2][:50], *lines[3:]])
    parts = batches(source(tmp_path))
    assert raw(parts) == [*lines[:2], *lines[3:]]
    assert damage(parts) == [(3, 3)]


def test_lines_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    one, two, three, four = hand.lines(1, 4)
    hand.sealed(1, 4, [one, three, two, four])
    parts = batches(source(tmp_path))
    assert raw(parts) == [one, two, three, four]
    assert not damage(parts)


def test_numbers_that_two_segments_have_come_once(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    lines = hand.lines(1, 9)
    hand.open(1, lines[:5])  # a sync failed, and these were written anew
    hand.sealed(3, 5, lines[2:5])
    hand.open(6, lines[5:])
    with hand.alive(9):
        assert raw(batches(source(tmp_path))) == lines
    hand.sealed(1, 9, lines)
    hand.live(9).unlink()
    (tmp_path / SEGMENTS / str(SegmentName(WRITER, 1))).unlink()
    (tmp_path / SEGMENTS / str(SegmentName(WRITER, 6))).unlink()
    assert raw(batches(source(tmp_path))) == lines


def test_a_gap_stands_for_all_its_numbers_and_a_record_beats_it(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 9, [hand.line(1), hand.gap(2, 8), hand.line(9)])
    parts = batches(source(tmp_path))
    assert raw(parts) == [hand.line(1), hand.gap(2, 8), hand.line(9)]
    assert [number for one in parts for number in one.numbers] == [1, 2, 9]
    hand.sealed(4, 5)
    parts = batches(source(tmp_path))
    assert raw(parts) == [
        hand.line(1),
        hand.gap(2, 3),
        *hand.lines(4, 5),
        hand.gap(6, 8),
        hand.line(9),
    ]
    # The middle of a gap: some of its numbers were shipped as something else.
    assert raw([source(tmp_path).read(WRITER, 7)]) == [hand.gap(7, 8), hand.line(9)]


def test_of_two_gaps_the_one_that_admits_more_is_believed(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 6, [hand.gap(1, 6, "lost", 0)])
    hand.sealed(3, 4, [hand.gap(3, 4, "quarantined")])
    assert raw(batches(source(tmp_path))) == [
        hand.gap(1, 2, "lost", 0),
        hand.gap(3, 4, "quarantined"),
        hand.gap(5, 6, "lost", 0),
    ]


def test_an_unsettled_outcome_stays_where_a_real_one_exists(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    lines = [hand.started(1), hand.outcome(2, 1), hand.outcome(3, 1, status="unsettled")]
    hand.sealed(1, 3, lines)
    assert raw(batches(source(tmp_path))) == lines


def test_a_line_that_holds_and_is_no_record_is_left_to_the_next_room(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    odd = hand.foreign(2, '"input_tokens":-1')
    hand.sealed(1, 3, [hand.line(1), odd, hand.line(3)])
    parts = batches(source(tmp_path))
    assert raw(parts) == [hand.line(1), odd, hand.line(3)]


def test_a_line_of_another_program_with_its_members_in_another_order(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    other = framed(f'{{"v":1,"kind":"usage","seq":2,"id":"{hand.id(2)}"'.encode())
    hand.sealed(1, 3, [hand.line(1), other, hand.line(3)])
    assert raw(batches(source(tmp_path))) == [hand.line(1), other, hand.line(3)]


def test_another_writers_line_is_damage(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    theirs = HandMade(tmp_path, "20250102T000000Z-00000000000000bb").line(2)
    hand.sealed(1, 3, [hand.line(1), theirs, hand.line(3)])
    assert damage(batches(source(tmp_path))) == [(2, 2)]


def test_a_newer_version_is_refused_and_not_taken_for_damage(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 3, [hand.line(1), newer(hand.line(2)), hand.line(3)])
    made = source(tmp_path)
    with pytest.raises(UnsupportedFormat):
        batches(made)


def test_what_cannot_be_read_is_not_given_up(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 2)
    path = hand.sealed(3, 4)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")  # refused always
    made = source(tmp_path)
    assert raw([one := made.read(WRITER, 1)]) == hand.lines(1, 2)
    assert path.name in (one.held or "")


def test_a_segment_is_not_read_from_its_beginning_for_each_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 300)
    made = source(tmp_path)
    from litellm_ledger._shipping import source as room

    checks = 0

    def counted(line: bytes, levels: int) -> bool:
        nonlocal checks
        checks += 1
        return False

    monkeypatch.setattr(room, "nests_deeper", counted)
    searched: list[int] = []
    monkeypatch.setattr(room, "_line_with", lambda *args: searched.append(1))
    parts = batches(made, lines=10)
    assert len(parts) == 30
    assert checks == 300
    assert not searched


def test_a_writer_that_does_nothing_is_asked_less_and_less(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.open(1, hand.lines(1, 2))
    now = 0.0
    from litellm_ledger._shipping import standing as room

    made = room.Lookout(tmp_path, lambda: now)
    read = 0
    real = room._read

    def counting(path: Path) -> tuple[int, int]:
        nonlocal read
        read += 1
        return real(path)

    with hand.alive(2, 2, synced=2), pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "_read", counting)
        for _ in range(600):  # a minute
            made.look()
            now += 0.1
    assert made.standings[WRITER].top == 2
    assert read < 35


def test_a_recovery_that_is_at_work_gives_nothing_out(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.open(1, hand.lines(1, 4))
    live = hand.live(4, synced=2)
    with live.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.seek(56)
        file.write((4711).to_bytes(8, "little"))
        file.flush()
        hand.sealed(5, 6, [hand.gap(5, 6)])
        made = source(tmp_path)
        assert raw(batches(made)) == hand.lines(1, 2)
        assert not made.lookout.lives(WRITER)


def test_what_was_compacted_is_read_from_the_archive(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    lines = [hand.started(1), hand.outcome(2, 1), *hand.lines(3, 5), hand.gap(6, 8), hand.line(9)]
    hand.sealed(1, 5, lines[:5])
    hand.sealed(6, 9, lines[5:])
    made = source(tmp_path)
    assert raw([made.read(WRITER, 1, 2)]) == lines[:2]
    done = compact(tmp_path, until=date(2030, 1, 1))
    assert done.segments == 2
    assert raw(batches(made, first=3)) == lines[2:]  # it was listed where it is no more
    assert raw(batches(source(tmp_path))) == lines


def test_a_file_of_the_archive_that_is_not_whole_is_no_reason_to_give_up_its_numbers(
    tmp_path: Path,
) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 5)
    compact(tmp_path, until=date(2030, 1, 1))
    hand.sealed(6, 7)
    (file,) = (tmp_path / ARCHIVE).iterdir()
    content = file.read_bytes()
    file.write_bytes(flip(content, len(content) // 2))
    made = source(tmp_path)
    one = made.read(WRITER, 1)
    assert one.last == 0
    assert file.name in (one.held or "")
    file.write_bytes(content)
    made.lookout.look(afresh=True)
    assert raw(batches(made)) == hand.lines(1, 7)


def test_adjustments_and_audits_are_read_like_any_writer(tmp_path: Path) -> None:
    hand = HandMade(tmp_path)
    hand.sealed(1, 3, [hand.line(1), b"{}\n", hand.line(3)])
    acknowledge(tmp_path, WRITER, who="alice", why="looked into")
    made = source(tmp_path)
    (adds,) = [writer for writer in made.lookout.standings if writer != WRITER]
    standing = made.lookout.standings[adds]
    assert standing.adds
    assert standing.closed
    assert standing.top == 1
    (line,) = raw(batches(made, adds))
    assert line in next((tmp_path / SEGMENTS).glob(f"{adds}*")).read_bytes()
