"""The thread that saves what comes when the writer task is gone."""

from __future__ import annotations

import _thread
import threading
import time
from pathlib import Path

import pytest
from tests.ledgers import WRITER, directory
from tests.runs import WAIT, assert_once, usage

from litellm_ledger._writing import last_resort as _late
from litellm_ledger._writing.backlog import Backlog
from litellm_ledger._writing.last_resort import LastResort
from litellm_ledger._writing.queue import Entry
from litellm_ledger.testing import FaultyFileSystem


class Rig:
    """A backlog whose writer task is gone."""

    def __init__(self, path: Path) -> None:
        self.disk = FaultyFileSystem()
        self.backlog = Backlog(self.disk, directory(path), WRITER)
        self.backlog.late = True
        self.attempts = threading.Semaphore(0)
        self.saver = LastResort(self.backlog, self.attempts.release, lambda: None)

    def save(self, key: object, wait: float = WAIT) -> None:
        self.saver.accept(Entry(usage(key), self.backlog.accept))
        self.saver.save_in_background(wait)

    def end(self) -> None:
        """Wait until the thread has nothing to do any more."""
        limit = time.monotonic() + WAIT
        while self.saver._running.locked():
            assert time.monotonic() < limit
            self.attempts.acquire(timeout=0.01)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(_late, "LATE_INTERVAL", 0.05)
    return Rig(tmp_path)


def test_what_was_asked_for_is_written_when_it_returns_and_synced_soon(
    rig: Rig, tmp_path: Path
) -> None:
    rig.save(0)
    assert rig.backlog.log.written == 1
    rig.end()
    assert rig.backlog.log.synced == 1
    assert_once(tmp_path, [0])


def test_it_syncs_also_while_records_keep_coming(rig: Rig) -> None:
    for number in range(1_000):
        rig.save(number)
        if rig.backlog.log.synced:
            break
        time.sleep(0.005)
    assert rig.backlog.log.synced
    rig.end()


def test_a_full_disk_is_tried_until_there_is_space(rig: Rig, tmp_path: Path) -> None:
    rig.disk.fill()
    rig.save(0, 0.01)
    assert rig.backlog.log.written == 0
    rig.disk.empty()
    rig.end()
    assert rig.backlog.log.synced == 1
    assert_once(tmp_path, [0])


def test_a_sync_that_fails_is_tried_again(rig: Rig) -> None:
    rig.disk.fail("sync", times=3)
    rig.save(0)
    assert rig.backlog.log.written == 1
    rig.end()
    assert rig.backlog.log.synced == 1
    assert rig.disk.count("sync") >= 4


def test_nobody_waits_a_second_time_for_a_disk_that_hangs(rig: Rig, tmp_path: Path) -> None:
    with rig.disk.hang("write") as hang:
        rig.save(0, 0.05)
        assert hang.entered.wait(WAIT)
        began = time.monotonic()
        for number in range(1, 100):
            rig.save(number)
        assert time.monotonic() - began < WAIT / 2
        assert rig.backlog.accepted == 100, "numbered all the same"
    rig.end()
    assert_once(tmp_path, range(100))
    rig.save(100)
    assert rig.backlog.log.written == 101, "a disk that answers again is waited for again"
    rig.end()


def test_where_no_thread_can_be_started_it_is_done_at_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    rig.save(0, 0.0)
    assert rig.backlog.log.written == 1


def test_with_nothing_left_to_do_no_thread_is_started(rig: Rig) -> None:
    rig.saver.watch()
    assert not rig.saver._running.locked()
