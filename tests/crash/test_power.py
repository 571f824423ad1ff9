"""Power cuts at every moment of a life: what was promised durable is there, nothing is invented.

A tracker at ``durability="synced"`` writes a small ledger, with rotation, failed syncs and a close,
or recovery finishes a dead writer.  After every single call of the disk the power goes, in every
way that ``tests.power`` knows.  The saboteurs at the end each leave out what they must not.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.crash.test_recovery_kills import SCENARIOS, Scenario, damage_in_the_middle
from tests.disks import QUICK
from tests.ledger_by_hand import OTHER_WRITER, HandMade
from tests.ledgers import assert_finished, contents, directory, found
from tests.power import Event, Medium, Recorder, states
from tests.runs import ack_before_the_write, calls_of, usage
from tests.tally import Tally
from tests.unit.test_segment import NeverSyncs, NeverSyncsTheDirectory, RetriesTheSync

from litellm_ledger import Ledger, LedgerPathError, UsageTracker
from litellm_ledger._maintenance import recover as _recovery
from litellm_ledger._maintenance.compact import compact
from litellm_ledger._maintenance.dead_writer import DeadWriter
from litellm_ledger._maintenance.recover import recover
from litellm_ledger._records.layout import SegmentName
from litellm_ledger._storage import segment as _segment
from litellm_ledger._storage.segment import SegmentLog
from litellm_ledger._writing import backlog as _backlog
from litellm_ledger.testing import FaultyFileSystem


class Scratch:
    """One directory after the other, in memory where the machine has such a place."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._count = 0

    def fresh(self) -> Path:
        shutil.rmtree(self._root / str(self._count), ignore_errors=True)
        self._count += 1
        path = self._root / str(self._count)
        path.mkdir(parents=True)
        return path


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as path:
        yield Scratch(Path(path))


class Life:
    """The log of one life of a tracker, and what it wrote.

    Its ledger is at ``place`` below ``top``, which exists; what is between is made by the tracker.
    """

    def __init__(
        self, top: Path, log_class: type[SegmentLog], *, failing: int = 0, place: str = "a/b/usage"
    ) -> None:
        self.top = top
        self.place = place
        self.root = top / place
        self.faults = FaultyFileSystem(QUICK)
        self.disk = Recorder(self.faults)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_backlog, "SegmentLog", partial(log_class, rotate_bytes=1_500))
            asyncio.run(self._live(failing))
        self.lines = self.disk.lines()

    async def _live(self, failing: int) -> None:
        tracker = UsageTracker(
            self.root, durability="synced", fs=self.disk, handle_signals=False, drain_timeout=5
        )
        await tracker.open()
        self.disk.cells = tracker._writer.admission.backlog.live.cells
        if failing:
            self.faults.fail("sync", nth=failing)
        for number in range(4):
            await self._record(tracker, number)
        await asyncio.gather(*[self._record(tracker, number) for number in range(4, 9)])
        started = await calls_of(tracker).start(usage(kind="started"), ack_timeout=5)
        assert started is not None
        self.disk.promise(started.seq or 0)
        await self._record(tracker, 9)
        outcome = calls_of(tracker).end(usage(10, operation=started.operation, attempt=1), started)
        await calls_of(tracker).acknowledge(outcome, 5)
        self.disk.promise(outcome.seq or 0)
        await tracker.aclose()

    async def _record(self, tracker: UsageTracker, number: int) -> None:
        written = await tracker.record(usage(number, tags={"pad": "x" * 200}))
        self.disk.promise(written.seq or 0)


def check_life(
    life: Life, scratch: Scratch, *, seed: int = 0, rounds: int = 1, tally: Tally | None = None
) -> int:
    """Cut the power everywhere; return of how many states, equal ones among them."""
    medium = Medium(life.top)
    (writer,) = {name.writer for name in _names(life.disk.events)}
    count = promised = 0
    checked: dict[object, int] = {}  # up to which promise
    for where, top in states(life.disk.events, medium, scratch.fresh, seed=seed, rounds=rounds):
        count += 1
        root = top / life.place
        promised += medium.promised
        state = contents(top)
        if checked.get(state, -1) >= medium.promised:
            continue
        checked[state] = medium.promised
        if not (root / "segments").is_dir():
            assert not medium.promised, f"the ledger is gone {where}"
            continue
        there = _check(root, writer, life.lines, range(1, medium.promised + 1), where)
        Ledger(root).verify()
        for done in recover(root, fs=QUICK).writers:
            assert done.error is None, where
        after = _check(root, writer, life.lines, there, where)
        if after and not any((root / "segments").glob("*.open")):  # without counters: not sealed
            assert_finished(root, writer)
        assert recover(root, fs=QUICK).writers == (), where
    if tally is not None:
        tally("power cut during a life", tried=count, promised=promised)
    return count


def _check(root: Path, writer: str, lines: set[bytes], promised: Any, where: str) -> list[int]:
    """Everything promised is found, and nothing that was not written; return the numbers found."""
    there = found(root, writer)
    for number in promised:
        assert isinstance(there.get(number), bytes), f"{number} is gone {where}"
    for number, content in there.items():
        if isinstance(content, bytes) and content not in lines:
            assert b'"unsettled"' in content, f"{number} was never written {where}"
    return [number for number, content in there.items() if isinstance(content, bytes)]


def _names(events: list[Event]) -> list[SegmentName]:
    parsed = (SegmentName.parse(e.path.name) for e in events if e.what == "create")
    return [name for name in parsed if name is not None]


def test_a_power_cut_at_any_moment_takes_nothing_that_was_synced(
    tmp_path: Path, scratch: Scratch
) -> None:
    life = Life(tmp_path, SegmentLog)
    assert len(_names(life.disk.events)) > 2, "it has rotated"
    assert check_life(life, scratch, rounds=4) > 1_000


@pytest.mark.parametrize("failing", [1, 3])
def test_a_power_cut_after_a_failed_sync_takes_nothing_that_was_synced(
    tmp_path: Path, scratch: Scratch, failing: int
) -> None:
    check_life(Life(tmp_path, SegmentLog, failing=failing), scratch)


def test_at_written_a_power_cut_takes_no_more_than_what_no_sync_has_covered(
    tmp_path: Path, scratch: Scratch
) -> None:
    """The same life, with the counter ``synced`` for a promise instead of the acks."""
    life = Life(tmp_path, SegmentLog)
    events = [e for e in life.disk.events if e.what != "promise"]
    life.disk.events = [
        both
        for event in events
        for both in ((Event("promise", number=event.cells[5]), event) if event.cells else (event,))
    ]
    check_life(life, scratch)


@pytest.mark.matrix
@pytest.mark.parametrize("seed", range(40))
def test_power_cuts_by_the_thousand(
    tmp_path: Path, scratch: Scratch, seed: int, tally: Tally
) -> None:
    life = Life(tmp_path, SegmentLog, failing=seed % 8)
    check_life(life, scratch, seed=seed, rounds=4, tally=tally)


# -- recovery --------------------------------------------------------------------------------------


def check_recovery(
    scenario: Scenario,
    base: Path,
    scratch: Scratch,
    *,
    seed: int = 0,
    rounds: int = 1,
    tally: Tally | None = None,
) -> int:
    """Cut the power after every call of a recovery, recover again; nothing intact may be lost."""
    scenario(directory(base))
    writers = sorted({path.name.split(".")[0] for path in (base / "live").iterdir()})
    before = {writer: found(base, writer) for writer in writers}
    kept = {
        writer: [number for number, content in there.items() if isinstance(content, bytes)]
        for writer, there in before.items()
    }
    running = scratch.fresh() / "usage"
    shutil.copytree(base, running)
    disk = Recorder()
    recover(running, fs=disk)
    lines = disk.lines() | {c for there in before.values() for c in there.values() if c}  # type: ignore[misc]
    medium = Medium(running, base)
    other = Scratch(running.parent.parent / "states")
    count = 0
    checked = set()
    for where, root in states(disk.events, medium, other.fresh, seed=seed, rounds=rounds):
        count += 1
        state = contents(root)
        if state in checked:
            continue
        checked.add(state)
        for done in recover(root, fs=QUICK).writers:
            assert done.error is None, where
        for writer in writers:
            _check(root, writer, lines, kept[writer], where)
    if tally is not None:
        promised = sum(map(len, kept.values()))
        tally("power cut during recovery", tried=count, promised=count * promised)
    return count


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_power_cut_during_recovery_takes_no_intact_record(
    tmp_path: Path, scratch: Scratch, scenario: Scenario
) -> None:
    assert check_recovery(scenario, tmp_path / "base", scratch, rounds=3) >= 30


@pytest.mark.matrix
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_power_cuts_during_recovery_by_the_thousand(
    tmp_path: Path, scratch: Scratch, scenario: Scenario, seed: int, tally: Tally
) -> None:
    check_recovery(scenario, tmp_path / "base", scratch, seed=seed, rounds=10, tally=tally)


# -- compaction ------------------------------------------------------------------------------------


def check_compaction(tmp_path: Path, scratch: Scratch) -> int:
    """Cut the power after every call of a compaction; what was there before is there."""
    base = tmp_path / "base"
    hand, other = HandMade(base), HandMade(base, OTHER_WRITER)
    hand.sealed(1, 3, [hand.started(1), hand.outcome(2, of=1), hand.started(3)])
    hand.sealed(4, 6, [*hand.lines(4, 5), hand.outcome(6, of=3, status="unsettled")])
    other.sealed(1, 2)
    other.open(3, other.lines(3, 4))
    said = list(Ledger(base).records(kinds=("started", "usage")))
    running = tmp_path / "usage"
    shutil.copytree(base, running)
    disk = Recorder()
    assert compact(running, until=date(2030, 1, 1), fs=disk).segments == 3
    count = 0
    checked = set()
    for where, root in states(disk.events, Medium(running, base), scratch.fresh):
        count += 1
        state = contents(root)
        if state in checked:
            continue
        checked.add(state)
        there = list(Ledger(root).records(kinds=("started", "usage")))
        assert there == said, f"something is gone {where}"
        assert not Ledger(root).verify().total("lost"), where
    return count


def test_a_power_cut_during_compaction_takes_no_record(tmp_path: Path, scratch: Scratch) -> None:
    assert check_compaction(tmp_path, scratch) > 50


class NeverSyncsAnything(Recorder):
    def sync(self, fd: int) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass


def test_a_compaction_that_syncs_nothing_is_caught(
    tmp_path: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "Recorder", NeverSyncsAnything)
    with pytest.raises((AssertionError, LedgerPathError), match=r"is gone|cannot read"):
        check_compaction(tmp_path, scratch)


# -- saboteurs -------------------------------------------------------------------------------------


class SyncsLater(DeadWriter):
    """Recovery that leaves it to the machine when its segments reach the disk."""

    def _write(self, name: SegmentName, lines: list[bytes]) -> None:
        path = self._segments / str(name)
        fd = self.fs.create(path.with_suffix(".tmp"))
        self.fs.write(fd, b"".join(lines))
        self.fs.close(fd)
        self.fs.rename(path.with_suffix(".tmp"), path)
        self.fs.sync_directory(self._segments)


def without_the_directory(fs: Any, where: Path, name: Any, data: bytes, *, attempt: int) -> None:
    """``write_sealed`` that does not make its name durable."""
    temporary = where / f"{name}.{attempt}.tmp"
    fd = fs.create(temporary)
    fs.write(fd, data)
    fs.sync(fd)
    fs.close(fd)
    fs.rename(temporary, where / str(name))


@pytest.mark.parametrize(
    ("saboteur", "failing"),
    [(NeverSyncs, 0), (NeverSyncsTheDirectory, 0), (RetriesTheSync, 1), (RetriesTheSync, 3)],
)
def test_a_saboteur_of_the_syncs_is_caught(
    tmp_path: Path, scratch: Scratch, saboteur: type[SegmentLog], failing: int
) -> None:
    caught(scratch, Life(tmp_path, saboteur, failing=failing))


def caught(scratch: Scratch, life: Life) -> None:
    with pytest.raises(AssertionError, match="is gone after"):
        check_life(life, scratch)


def test_an_ack_before_the_write_is_caught(
    tmp_path: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    ack_before_the_write(monkeypatch)
    caught(scratch, Life(tmp_path, SegmentLog))


def test_a_recovery_that_does_not_sync_what_it_salvages_is_caught(
    tmp_path: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_recovery, "DeadWriter", SyncsLater)
    with pytest.raises(AssertionError, match="is gone after"):
        check_recovery(damage_in_the_middle, tmp_path / "base", scratch)


def test_a_rescue_that_does_not_sync_its_name_is_caught(
    tmp_path: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_segment, "write_sealed", without_the_directory)
    caught(scratch, Life(tmp_path, SegmentLog, failing=1))


class LeavesOut(Recorder):
    """Leaves it to the machine when the names in one directory reach the disk."""

    left_out = Path()

    def sync_directory(self, path: Path) -> None:
        if path != self.left_out:
            super().sync_directory(path)


@pytest.mark.parametrize("left_out", ["", "a", "a/b", "a/b/usage"])
def test_an_opening_that_leaves_out_a_parent_is_caught(
    tmp_path: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch, left_out: str
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "Recorder", LeavesOut)
    monkeypatch.setattr(LeavesOut, "left_out", tmp_path / left_out)
    caught(scratch, Life(tmp_path, SegmentLog))


def test_a_compaction_that_does_not_sync_the_name_of_the_archive_is_caught(
    tmp_path: Path, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "Recorder", LeavesOut)
    monkeypatch.setattr(LeavesOut, "left_out", tmp_path / "usage")
    with pytest.raises(AssertionError, match="something is gone after"):
        check_compaction(tmp_path, scratch)
