"""Backups: of a ledger in use, brought up to date, killed at every step, restored beside it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_by_hand import OTHER_WRITER, WRITER, HandMade
from tests.terminal import as_json, run, told

from litellm_ledger import Ledger, LedgerPathError, UsageRecord, UsageTracker
from litellm_ledger._maintenance import backup as _backup
from litellm_ledger._maintenance.backup import MARKER, Backup, back_up
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._maintenance.seal import seal
from litellm_ledger.testing import FaultyFileSystem, Killed

LATER = datetime(2030, 1, 1, tzinfo=UTC).date()


@pytest.fixture
def hand(tmp_path: Path) -> HandMade:
    return HandMade(tmp_path / "usage")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "copies" / "usage"


def ids(root: Path) -> list[str | None]:
    return [record.id for record in Ledger(root).records(kinds=("usage", "started", "gap"))]


def files(root: Path, *, inodes: bool = False) -> dict[str, Any]:
    """Every file of a ledger: its bytes, and which file it is."""
    return {
        str(path.relative_to(root)): (path.stat().st_ino if inodes else 0, path.read_bytes())
        for path in root.rglob("*")
        if path.is_file() and path.name != MARKER
    }


def again(root: Path, to: Path, **how: Any) -> Backup:
    return back_up(root, to, incremental=True, **how)


def fill(hand: HandMade, *, compacted: bool = True) -> None:
    """A closed writer with manifests, prices and something in recovery/; a compacted segment."""
    old = HandMade(hand.root, "20240101T000000Z-00000000000000cc")
    old.sealed(1, 3)
    if compacted:
        compact(hand.root)
    hand.sealed(1, 5)
    hand.sealed(6, 9)
    seal(hand.root)
    for part, name in (("prices", f"user-{'0' * 24}.json"), ("recovery", f"{WRITER}.torn")):
        (hand.root / part).mkdir(0o700)
        (hand.root / part / name).write_bytes(b"{}")


def test_a_backup_of_a_closed_ledger_is_the_same_files_and_shares_none(
    hand: HandMade, to: Path
) -> None:
    for part in hand.root.iterdir():
        part.chmod(0o700)
    fill(hand)
    done = back_up(hand.root, to)
    assert files(to) == files(hand.root)
    assert all(path.stat().st_nlink == 1 for path in to.rglob("*") if path.is_file())
    assert (done.segments, done.removed, done.only_here, done.problems) == (3, 0, 0, ())
    segment = next((hand.root / "segments").iterdir())
    assert (to / "segments" / segment.name).stat().st_mtime_ns == segment.stat().st_mtime_ns
    assert {oct(path.stat().st_mode)[-3:] for path in to.iterdir() if path.is_dir()} == {"700"}
    modes = {oct(path.stat().st_mode)[-3:] for path in to.rglob("*") if path.is_file()}
    assert modes == {"600"}
    assert Ledger(to).verify(full=True).complete


def test_of_a_living_writer_everything_up_to_the_last_whole_line_is_in_the_backup(
    hand: HandMade, to: Path
) -> None:
    hand.sealed(1, 3)
    hand.open(4, [hand.started(4), hand.line(5)], tail=hand.line(6)[:30])
    with hand.alive(accepted=9, written=5, level="queued"):
        hand.live(accepted=9, written=5, level="queued", oldest=4)
        back_up(hand.root, to)
        assert Ledger(hand.root).verify().writers[0].state == "alive"
    found = Ledger(to).verify()
    assert found.complete, found.writers
    (writer,) = found.writers
    assert (writer.state, writer.proves, writer.found, writer.torn_bytes) == ("died", "exact", 5, 0)
    assert writer.in_flight == 1
    said = told("verify", to)
    assert "in a backup nothing to do: run litellm-ledger recover after a restore." in said
    assert recover(to).writers[0].unsettled == 1, "the call that was in flight"
    assert Ledger(to).verify().ok


def test_a_file_that_is_missing_in_the_backup_is_found_by_its_counters(
    hand: HandMade, to: Path
) -> None:
    hand.sealed(1, 3)
    hand.open(4, hand.lines(4, 5))
    with hand.alive(accepted=5, level="written"):
        back_up(hand.root, to)
    (to / "segments" / f"{WRITER}.{4:016d}.jsonl.open").unlink()
    found = Ledger(to).verify()
    assert not found.ok
    assert found.total("lost") == 2


def test_a_call_that_began_while_nothing_was_in_flight_is_unsettled_after_a_restore(
    hand: HandMade, to: Path
) -> None:
    hand.open(1, hand.lines(1, 2))
    with hand.alive(accepted=2):
        path = next((hand.root / "live").iterdir())

        def late(file: Path) -> bytes:
            image = backup_for_copy(file)
            hand.open(1, [*hand.lines(1, 2), hand.started(3)])  # after the counters were read
            hand.sealed(1, 3, [*hand.lines(1, 2), hand.started(3)])
            next((hand.root / "segments").glob("*.open")).unlink()
            hand.open(4, [hand.line(4)])
            return image

        backup_for_copy = _backup.for_copy
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_backup, "for_copy", late)
            back_up(hand.root, to)
        assert path.exists()
    assert Ledger(to).verify().complete
    assert recover(to).writers[0].unsettled == 1


def test_the_next_run_copies_only_what_is_new_or_grew(hand: HandMade, to: Path) -> None:
    fill(hand)
    other = HandMade(hand.root, OTHER_WRITER)
    other.open(1, other.lines(1, 2))
    with other.alive(accepted=2):
        back_up(hand.root, to)
        before = files(to, inodes=True)
        assert again(hand.root, to).files == 0
        assert files(to, inodes=True) == before
        other.open(1, other.lines(1, 4), tail=b'{"v"')
        other.live(accepted=4)
        done = again(hand.root, to)
    assert done.files == 1
    after = files(to, inodes=True)
    grown = f"segments/{OTHER_WRITER}.{1:016d}.jsonl.open"
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {grown, f"live/{OTHER_WRITER}.live"}
    assert Ledger(to).verify().complete
    assert ids(to) == ids(hand.root)


def backed_up_open_and_sealed_since(hand: HandMade, to: Path) -> None:
    path = hand.open(1, hand.lines(1, 2))
    with hand.alive(accepted=2):
        back_up(hand.root, to)
    path.unlink()
    (hand.root / "live" / f"{WRITER}.live").unlink()
    hand.sealed(1, 4)


def test_what_was_sealed_and_compacted_since_is_in_the_backup_once(
    hand: HandMade, to: Path
) -> None:
    backed_up_open_and_sealed_since(hand, to)
    hand.sealed(5, 6)
    done = again(hand.root, to)
    assert done.removed == 2, "the open segment and the counters"
    assert set(files(to)) == set(files(hand.root))
    compact(hand.root, until=LATER)
    done = again(hand.root, to)
    assert done.removed == 2
    assert files(to) == files(hand.root)
    found = Ledger(to).verify()
    assert found.complete
    assert found.writers[0].state == "closed"


def test_an_open_segment_that_was_compacted_since_is_in_the_backup_once(
    hand: HandMade, to: Path
) -> None:
    backed_up_open_and_sealed_since(hand, to)
    compact(hand.root, until=LATER)
    assert again(hand.root, to).removed == 2
    assert files(to) == files(hand.root)
    assert len(ids(to)) == 4


def test_what_only_the_backup_has_stays_and_a_sealed_file_is_never_replaced(
    hand: HandMade, to: Path
) -> None:
    fill(hand)
    back_up(hand.root, to)
    before = files(to)
    first, second = sorted((hand.root / "segments").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:-200])
    shutil.rmtree(hand.root / "archive")
    shutil.rmtree(hand.root / "manifests")
    done = again(hand.root, to)
    assert files(to) == before
    assert done.only_here == 2
    assert [problem.file for problem in done.problems] == [f"segments/{second.name}"]
    assert run("backup", to, hand.root, "--incremental").exit_code == 1
    assert Ledger(to).verify(full=True).ok


def test_a_backup_that_was_used_or_is_another_ledgers_is_refused(
    hand: HandMade, to: Path, tmp_path: Path
) -> None:
    path = hand.open(1, hand.lines(1, 2))
    with hand.alive(accepted=2):
        for inside in (hand.root, hand.root / "backup", hand.root / "segments", tmp_path):
            with pytest.raises(LedgerPathError, match="one inside the other"):
                again(hand.root, inside)
        link = tmp_path / "link"
        link.symlink_to(hand.root)
        with pytest.raises(LedgerPathError, match="one inside the other"):
            back_up(hand.root, link / "backup")
        assert set(os.listdir(hand.root)) == {"segments", "live"}
        stranger = HandMade(tmp_path / "stranger", OTHER_WRITER)
        stranger.sealed(1, 2)
        with pytest.raises(LedgerPathError, match="not a backup that this command made"):
            again(hand.root, stranger.root)
        back_up(stranger.root, to)
        with pytest.raises(LedgerPathError, match="of another ledger"):
            again(hand.root, to)
        shutil.rmtree(to)
        back_up(hand.root, to)
        with pytest.raises(LedgerPathError, match="--incremental"):
            back_up(hand.root, to)
        copy = HandMade(to)
        with copy.alive(accepted=2), pytest.raises(LedgerPathError, match="in use as a ledger"):
            again(hand.root, to)
        recover(to)
        hand.open(1, hand.lines(1, 3))
        before = files(to)
        with pytest.raises(LedgerPathError, match="was recovered or written to"):
            again(hand.root, to)
        assert files(to) == before
    assert path.exists()


def test_with_no_records_to_tell_them_apart_ledgers_are_told_by_their_path(
    hand: HandMade, to: Path, tmp_path: Path
) -> None:
    stranger = HandMade(tmp_path / "stranger", OTHER_WRITER)
    for root in (hand.root, stranger.root):
        (root / "segments").mkdir(parents=True, exist_ok=True)
    back_up(hand.root, to)
    for _ in range(2):  # without records, then with some
        with pytest.raises(LedgerPathError, match="of another ledger"):
            again(stranger.root, to)
        stranger.sealed(1, 2)
    hand.sealed(1, 2)
    assert again(hand.root, to).segments == 1
    with pytest.raises(LedgerPathError, match=f"made of {hand.root}"):
        again(stranger.root, to)
    empty = tmp_path / "empty"
    (empty / "segments").mkdir(parents=True)
    with pytest.raises(LedgerPathError, match="of another ledger"):
        again(empty, to)
    hand.root.rename(tmp_path / "moved")
    hand = HandMade(tmp_path / "moved")
    hand.sealed(3, 4)
    assert again(hand.root, to).segments == 2


def test_links_are_refused_and_one_file_that_cannot_be_read_stops_nothing(
    hand: HandMade, to: Path, tmp_path: Path
) -> None:
    fill(hand)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (hand.root / "recovery" / "link").symlink_to(secret)
    os.mkfifo(hand.root / "recovery" / "fifo")
    done = back_up(hand.root, to)
    assert sorted(p.file for p in done.problems) == ["recovery/fifo", "recovery/link"]
    assert {p.what for p in done.problems} == {"unreadable"}
    assert Ledger(to).verify().ok
    shutil.rmtree(to / "segments")
    (to / "segments").symlink_to(tmp_path)
    with pytest.raises(LedgerPathError, match="symbolic link"):
        again(hand.root, to)


def _grow(hand: HandMade) -> None:
    """What happens between two backups: growth, sealing, compaction, a new writer."""
    (hand.root / "live" / f"{OTHER_WRITER}.live").unlink()
    other = HandMade(hand.root, OTHER_WRITER)
    next((hand.root / "segments").glob("*.open")).unlink()
    other.sealed(1, 4)
    compact(hand.root, until=LATER)
    late = HandMade(hand.root, "20250103T000000Z-00000000000000dd")
    late.open(1, late.lines(1, 3))
    late.live(accepted=3)
    seal(hand.root)


@pytest.mark.parametrize("second", [False, True], ids=["first", "incremental"])
def test_killed_at_every_step_the_next_run_completes_it(
    hand: HandMade, to: Path, tmp_path: Path, second: bool
) -> None:
    fill(hand, compacted=False)  # to read an archive takes long
    other = HandMade(hand.root, OTHER_WRITER)
    other.open(1, other.lines(1, 2))
    other.live(accepted=2)
    kept = tmp_path / "kept"
    if second:
        back_up(hand.root, kept)
        only = HandMade(kept, "20230101T000000Z-00000000000000ee")
        only.sealed(1, 2)
        _grow(hand)
    expected = files(hand.root)
    only = set(files(kept)) - set(expected) if second else set()
    only = {name for name in only if "2023" in name}
    step = 0
    while True:
        step += 1
        shutil.rmtree(to, ignore_errors=True)
        if second:
            shutil.copytree(kept, to)
        disk = FaultyFileSystem()
        disk.kill(step, torn=7)
        try:
            back_up(hand.root, to, incremental=second, fs=disk)
        except Killed:
            if second:  # it was a backup all the time, and lost nothing
                found = Ledger(to).verify()
                assert found.complete, (step, found)
                assert found.total("found") >= 16, step
            whole = (to / MARKER).exists() and b"Z" in (to / MARKER).read_bytes()
            back_up(hand.root, to, incremental=second or whole)
        else:
            break
        there = files(to)
        assert {name: there[name] for name in expected} == expected, step
        assert Ledger(to).verify().complete, step
        assert set(there) - set(expected) == only, step
    assert step > 30


@pytest.mark.asyncio
async def test_a_restored_ledger_beside_a_living_one_continues_none_of_its_writers(
    tmp_path: Path, to: Path
) -> None:
    root = tmp_path / "usage"
    async with UsageTracker(root) as tracker:
        await tracker.record(UsageRecord(model="m"))
        back_up(root, to)
        restored = tmp_path / "restored"
        shutil.copytree(to, restored)
        (writer,) = Ledger(restored).verify().writers
        assert writer.state == "died"
        async with UsageTracker(restored) as other:
            await other.record(UsageRecord(model="n"))
        await tracker.record(UsageRecord(model="m"))
        here, there = ({name.writer for name in Ledger(r).segments()} for r in (root, restored))
        assert here < there
        assert len(there) == 2
    assert len(ids(root)) == 2
    assert len(ids(restored)) == 2
    for one in (root, restored):
        assert Ledger(one).verify().complete
    again(root, to)
    assert files(to) == files(root)


@pytest.mark.asyncio
async def test_backups_while_a_writer_writes_and_rotates_never_miss_a_record(
    tmp_path: Path, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "usage"
    acked: list[int] = []
    async with UsageTracker(root) as tracker:
        assert tracker._writer
        monkeypatch.setattr(tracker._writer.admission.backlog.log, "_rotate_bytes", 4_000)

        async def write() -> None:
            for number in range(1_500):
                await tracker.record(UsageRecord(model="m", input_tokens=number))
                acked.append(number)

        writing = asyncio.create_task(write())
        while not writing.done():
            await asyncio.sleep(0.005)
            before = len(acked)
            await asyncio.to_thread(back_up, root, to, incremental=True)
            found = Ledger(to).verify()
            assert found.complete, found
            assert found.total("found") >= before
        await writing
    again(root, to)
    assert files(to) == files(root)


def test_the_command_says_what_it_did(hand: HandMade, to: Path) -> None:
    hand.sealed(1, 3)
    assert told("backup", to, hand.root).splitlines()[-1] == f"Check it: litellm-ledger verify {to}"
    plain = as_json("backup", to, hand.root, "--incremental")
    assert (plain["files"], plain["segments"], plain["dest"]) == (0, 1, str(to))
    marker = json.loads((to / MARKER).read_bytes())
    assert marker["of"] == str(hand.root)
    assert marker["completed"].endswith("Z")
