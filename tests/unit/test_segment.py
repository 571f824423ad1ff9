"""One writer's segments on a disk that fails at every single call of a small run.

The check: whatever failed, every line that counts as written is readable, once, in order and
unaltered; and after a power cut so is every line that counts as synced.  Saboteurs that break one
rule each show that the check sees it.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.disks import QUICK, ForgetfulDisk
from tests.ledgers import WRITER, found, line, lines, segment_names
from tests.runs import at_once

from litellm_ledger._records.layout import SEGMENTS, SegmentName
from litellm_ledger._records.scan import scan
from litellm_ledger._storage import segment as _segment
from litellm_ledger._storage.filesystem import FileSystem
from litellm_ledger._storage.live_file import SYNCED, WRITTEN
from litellm_ledger._storage.segment import SegmentLog, Stuck, write_sealed
from litellm_ledger.testing import FaultyFileSystem

TWO = 2 * len(line(1)) + 9  # rotate after three lines


def persist(step: Callable[[], None], attempts: int = 6) -> None:
    """Try a step again until the disk lets it, as the writer does."""
    for _ in range(attempts):
        try:
            step()
        except OSError:
            continue
        return
    pytest.fail("the fault did not pass")


def small_run(log: SegmentLog) -> None:
    """Twelve lines: batches, syncs, rotations, and the seal."""
    persist(lambda: log.append(1, lines(1, 2)))
    persist(log.sync)
    persist(lambda: log.append(3, lines(3, 3)))
    persist(lambda: log.append(4, lines(4, 7)))
    persist(lambda: log.append_and_sync(8, lines(8, 9)))
    persist(lambda: log.append(10, lines(10, 12)))


def check(root: Path, log: SegmentLog, disk: ForgetfulDisk) -> None:
    assert log.written == 12
    assert found(root) == dict(enumerate(lines(1, 12), 1))
    for path in (root / SEGMENTS).iterdir():
        name = SegmentName.parse(path.name)
        assert name is not None
        content = scan(path.read_bytes(), WRITER, name.first)
        assert not content.damaged
        if name.last is not None:
            assert (content.torn, content.lines[-1][0].last) == (0, name.last)
    disk.power_cut(root / SEGMENTS)
    left = found(root)
    for seq in range(1, log.synced + 1):
        assert left.get(seq) == line(seq), f"{seq} was synced and is gone"


def test_the_counter_is_stored_before_anybody_can_be_told(root: Path) -> None:
    """A reader of ``written`` or ``synced`` may acknowledge, and the process may die at once."""
    stored: dict[int, list[tuple[int, int]]] = {WRITTEN: [], SYNCED: []}

    class Watched(list[int]):
        def __setitem__(self, cell: Any, value: Any) -> None:
            before = log.written if cell == WRITTEN else log.synced
            stored[cell].append((before, value))
            super().__setitem__(cell, value)

    log = SegmentLog(FaultyFileSystem(QUICK), root, WRITER, cells=Watched([0] * 8))
    log.append(1, lines(1, 2))
    log.append_now(3, lines(3, 3), len(line(3)))
    log.append_and_sync(4, lines(4, 5))
    assert stored[WRITTEN] == [(0, 2), (2, 3), (3, 5)]
    assert stored[SYNCED] == [(0, 5)]


OPERATIONS = ("create", "write", "sync", "links", "rename", "sync_directory", "close")


def every_failure(root: Path, log_class: type[SegmentLog], *, seal: bool) -> int:
    """Fail the n-th call of each operation, for every n there is; return how many were tried."""
    tried = 0
    for operation in OPERATIONS:
        for error, limit in ((errno.EIO, None), (errno.ENOSPC, 100)):
            nth = 1
            while True:
                disk = ForgetfulDisk()
                disk.largest_write = limit
                disk.fail(operation, nth=nth, error=error)
                log = log_class(disk, root, WRITER, rotate_bytes=TWO)
                small_run(log)
                if seal:
                    persist(log.seal)
                    assert log.synced == 12
                struck = disk.count(operation) >= nth
                check(root, log, disk)
                for path in (root / SEGMENTS).iterdir():
                    path.unlink()
                if not struck:
                    break
                tried += 1
                nth += 1
    return tried


@pytest.mark.parametrize("seal", [False, True])
def test_any_single_call_may_fail_and_nothing_is_lost_or_doubled(root: Path, seal: bool) -> None:
    assert every_failure(root, SegmentLog, seal=seal) > 50


class RetriesTheSync(SegmentLog):
    def _sync(self) -> None:
        if self._fd is not None and self._unsynced:
            try:
                self._fs.sync(self._fd)
            except OSError:
                self._fs.sync(self._fd)
        self._sync_names()
        self._all_synced()


class AcksBeforeWriting(SegmentLog):
    def _append(self, first: int, batch: object) -> None:  # type: ignore[override]
        assert isinstance(batch, list)
        self.advance(first + len(batch) - 1)
        self.written = first - 1
        try:
            super()._append(first, batch)
        finally:
            self.written = first + len(batch) - 1


class NeverSyncs(SegmentLog):
    def _sync(self) -> None:
        self._all_synced()


class NeverSyncsTheDirectory(SegmentLog):
    def _sync_names(self) -> None:
        self._names_dirty = False


class LeavesShortWrites(SegmentLog):
    def _write(self, first: int, batch: object) -> None:  # type: ignore[override]
        assert isinstance(batch, list)
        assert self._fd is not None
        data = b"".join(batch)
        sent = 0
        while sent < len(data):
            sent += self._fs.write(self._fd, data[sent:])
        self._wrote(data, first + len(batch) - 1)


@pytest.mark.parametrize(
    "saboteur",
    [RetriesTheSync, AcksBeforeWriting, NeverSyncs, NeverSyncsTheDirectory, LeavesShortWrites],
)
def test_a_saboteur_of_the_segment_is_caught(root: Path, saboteur: type[SegmentLog]) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        every_failure(root, saboteur, seal=False)


# -- the disk is full ----------------------------------------------------------------------------


def test_a_full_disk_keeps_the_whole_lines_and_goes_on_when_space_comes_back(root: Path) -> None:
    disk = ForgetfulDisk()
    log = SegmentLog(disk, root, WRITER)
    disk.fill(free=2 * len(line(1)) + 30)
    with pytest.raises(OSError, match="No space left"):
        log.append(1, lines(1, 12))
    assert log.written == 2
    assert found(root) == {1: line(1), 2: line(2)}
    with pytest.raises(OSError, match="No space left"):
        log.append(1, lines(1, 12))  # 30 bytes again: cut back again
    disk.empty()
    log.append(1, lines(1, 12))
    log.seal()
    check(root, log, disk)
    assert segment_names(root) == [f"{WRITER}.0000000000000001-0000000000000012.jsonl"]


def test_a_line_that_can_not_be_cut_back_ends_the_file(root: Path) -> None:
    disk = ForgetfulDisk()
    log = SegmentLog(disk, root, WRITER)
    log.append(1, lines(1, 2))
    disk.fill(free=20)
    disk.fail("truncate")
    with pytest.raises(OSError, match="No space left"):
        log.append(3, lines(3, 12))
    disk.empty()
    log.append(3, lines(3, 12))
    assert len(segment_names(root)) == 2  # the torn one and the new one
    assert log.synced == 0
    log.sync()
    assert len(segment_names(root)) == 3  # and the rescued lines
    assert log.synced == 12
    check(root, log, disk)


def test_a_first_line_that_can_not_be_cut_back_does_not_block_its_name(root: Path) -> None:
    disk = ForgetfulDisk()
    log = SegmentLog(disk, root, WRITER)
    disk.fill(free=20)
    disk.fail("truncate")
    with pytest.raises(OSError, match="No space left"):
        log.append(1, lines(1, 12))
    disk.empty()
    log.append(1, lines(1, 12))
    assert log.synced == 12
    check(root, log, disk)


def test_too_much_unsynced_stops_appending_until_a_sync_succeeds(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_segment, "UNSYNCED_HARD", 3 * len(line(1)))
    disk = ForgetfulDisk()
    log = SegmentLog(disk, root, WRITER)
    log.append(1, lines(1, 3))
    assert not log.append_now(4, lines(4, 4), 1)
    disk.fail("sync", times=2)  # of the segment, and of the rescue
    with pytest.raises(OSError, match="Input/output"):
        log.append(4, lines(4, 12))
    assert log.written == 3
    log.append(4, lines(4, 12))
    assert log.synced >= 3
    check(root, log, disk)


class _StruckLock:
    """The handler of a signal raises as soon as the lock is taken, once."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._calm = False

    def acquire(self, blocking: bool, timeout: float) -> bool:
        got = self._lock.acquire(blocking, timeout)
        if not self._calm:
            self._calm = True
            raise KeyboardInterrupt
        return got

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)


def test_a_handler_that_raises_leaves_no_lock_behind(root: Path) -> None:
    log = SegmentLog(QUICK, root, WRITER)
    log._lock = _StruckLock()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        log.append(1, lines(1, 1))
    elsewhere = threading.Thread(target=lambda: log.append(1, lines(1, 1), timeout=1))
    elsewhere.start()
    elsewhere.join()
    assert log.written == 1


def test_who_is_in_the_middle_of_it_is_told_so_and_does_not_wait(root: Path) -> None:
    log = SegmentLog(QUICK, root, WRITER)
    log.append(1, lines(1, 1))
    with log._lock, pytest.raises(Stuck):
        log.append(2, lines(2, 2))
    log.append(2, lines(2, 2))
    assert log.written == 2


# -- rotation, sealing, the cells ----------------------------------------------------------------


def test_rotates_by_size_and_only_between_batches(root: Path) -> None:
    log = SegmentLog(QUICK, root, WRITER, rotate_bytes=TWO)
    for first in range(1, 12, 2):
        log.append(first, lines(first, first + 1))
    log.seal()
    assert segment_names(root) == [
        f"{WRITER}.0000000000000001-0000000000000004.jsonl",
        f"{WRITER}.0000000000000005-0000000000000008.jsonl",
        f"{WRITER}.0000000000000009-0000000000000012.jsonl",
    ]


def test_rotates_when_the_utc_day_changes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    log = SegmentLog(QUICK, root, WRITER)
    log.append(1, lines(1, 1))
    assert log.append_now(2, lines(2, 2), 100)
    monkeypatch.setattr(time, "time", lambda: now + 86_400)
    assert not log.append_now(3, lines(3, 3), 100)
    log.append(3, lines(3, 3))
    assert segment_names(root) == [
        f"{WRITER}.0000000000000001-0000000000000002.jsonl",
        f"{WRITER}.0000000000000003.jsonl.open",
    ]
    log.seal()


def test_seal_is_idempotent_and_writes_nothing_where_nothing_was_written(root: Path) -> None:
    log = SegmentLog(QUICK, root, WRITER)
    log.seal()
    assert segment_names(root) == []
    log.append(1, lines(1, 1))
    log.seal()
    log.seal()
    assert len(segment_names(root)) == 1


def test_an_open_segment_into_which_nothing_could_be_written_is_not_sealed(root: Path) -> None:
    disk = FaultyFileSystem(QUICK)
    log = SegmentLog(disk, root, WRITER)
    disk.fail("write")
    with pytest.raises(OSError, match="Input/output"):
        log.append(1, lines(1, 1))
    log.seal()
    assert segment_names(root) == []


def test_the_cells_follow_what_is_written_and_synced(root: Path) -> None:
    cells = [0] * 8
    log = SegmentLog(QUICK, root, WRITER, cells=cells)
    log.append(1, lines(1, 3))
    assert (cells[WRITTEN], cells[SYNCED]) == (3, 0)
    log.sync()
    assert (cells[WRITTEN], cells[SYNCED]) == (3, 3)
    log.seal()


def test_lines_that_are_already_written_are_dropped(root: Path) -> None:
    log = SegmentLog(QUICK, root, WRITER)
    log.append(1, lines(1, 4))
    log.append(2, lines(2, 6))
    log.append(1, lines(1, 2))
    log.seal()
    assert segment_names(root) == [f"{WRITER}.0000000000000001-0000000000000006.jsonl"]
    assert found(root) == dict(enumerate(lines(1, 6), 1))


def test_a_hole_in_the_numbers_is_refused(root: Path) -> None:
    log = SegmentLog(QUICK, root, WRITER)
    with pytest.raises(RuntimeError, match="append of 2 after 0"):
        log.append(2, lines(2, 2))


def test_a_directory_removed_under_us_is_made_again(root: Path) -> None:
    disk = ForgetfulDisk()
    log = SegmentLog(disk, root, WRITER)
    log.append(1, lines(1, 2))
    for path in (root / SEGMENTS).iterdir():
        path.unlink()
    (root / SEGMENTS).rmdir()
    log.append(3, lines(3, 3))  # into the file that has no name any more
    log.sync()  # notices, and writes what was not synced anew
    log.append(4, lines(4, 12))
    log.seal()
    check(root, log, disk)


# -- threads -------------------------------------------------------------------------------------


def test_a_stuck_write_lets_others_give_up_and_the_log_is_never_touched_again(root: Path) -> None:
    disk = FaultyFileSystem(QUICK)
    log = SegmentLog(disk, root, WRITER)
    log.append(1, lines(1, 1))
    with disk.hang("write") as hang:
        stuck = threading.Thread(target=log.append, args=(2, lines(2, 3)))
        stuck.start()
        assert hang.entered.wait(10)
        with pytest.raises(Stuck, match="busy"):
            log.append(2, lines(2, 3), timeout=0)
        with pytest.raises(Stuck, match="busy"):
            log.sync(timeout=0.01)
        log.abandon()
        name = SegmentName(WRITER, 2, 3)
        write_sealed(disk, root / SEGMENTS, name, b"".join(lines(2, 3)), attempt=1)
    stuck.join()
    with pytest.raises(Stuck, match="given up"):
        log.seal()
    assert found(root) == dict(enumerate(lines(1, 3), 1))


def test_two_threads_with_the_same_lines_write_them_once(root: Path) -> None:
    log = SegmentLog(QUICK, root, WRITER)
    start = threading.Barrier(2)

    def run() -> None:
        start.wait()
        for first in range(1, 200, 4):
            log.append(first, lines(first, first + 3))

    at_once(run, 2)
    log.seal()
    (path,) = (root / SEGMENTS).iterdir()
    assert path.read_bytes() == b"".join(lines(1, 200))


# -- whole files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["create", "write", "sync", "close", "rename"])
def test_a_sealed_segment_exists_whole_or_not_at_all(root: Path, operation: str) -> None:
    disk = FaultyFileSystem(QUICK)
    disk.fail(operation)  # type: ignore[arg-type]
    name = SegmentName(WRITER, 1, 3)
    with pytest.raises(OSError, match="Input/output"):
        write_sealed(disk, root / SEGMENTS, name, b"".join(lines(1, 3)), attempt=1)
    assert segment_names(root) == []
    write_sealed(disk, root / SEGMENTS, name, b"".join(lines(1, 3)), attempt=1)
    assert segment_names(root) == [str(name)]


def test_the_real_file_system_appends_only_to_what_it_created(root: Path) -> None:
    disk = FileSystem()
    path = root / "file"
    fd = disk.create(path)
    assert disk.write(fd, memoryview(b"abc")) == 3
    disk.sync(fd)
    assert disk.links(fd) == 1
    with pytest.raises(FileExistsError):
        disk.create(path)
    disk.unlink(path)
    assert disk.links(fd) == 0
    disk.close(fd)
